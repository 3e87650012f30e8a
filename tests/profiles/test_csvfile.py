"""CSV files as people have them: what is a row is read as csv.reader would, what is none is set apart."""

import csv
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import csvfile
from profiles.csvfile import Chunk, Reject, open_csv
from profiles.errors import ProfileError

CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


def read(data: bytes, *, rows: int = 100, delimiter: str = ",") -> tuple[list[str], list[Chunk]]:
    with open_csv(BytesIO(data), delimiter=delimiter) as file:
        return file.header, list(file.chunks(rows))


def read_one(data: bytes) -> Chunk:
    (chunk,) = read(data)[1]
    return chunk


def code_of(data: bytes) -> str:
    with pytest.raises(ProfileError) as refused:
        read(data)
    return refused.value.code


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_end_in_any_way_and_a_byte_order_mark_is_no_part_of_the_header(
    end: bytes, last: bool, mark: bytes
) -> None:
    data = mark + end.join([b" name ,city", "Zoë,Köln".encode(), b"", b"Bo,"]) + (end if last else b"")
    header, (chunk,) = read(data)
    assert header == ["name", "city"]
    assert chunk == Chunk([2, 4], [["Zoë", "Köln"], ["Bo", ""]])


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=20), st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_is_read_again(rows: list[list[str]], end: str) -> None:
    text = StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([["a", "b"], *rows])
    with open_csv(BytesIO(text.getvalue().encode())) as file:
        assert [row for chunk in file.chunks(7) for row in chunk.rows] == rows


@pytest.mark.parametrize("size", [1, 3, 7, 16, 1000])
def test_where_blocks_end_makes_no_difference(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'a,b\r\n1,2\r\n"x\r\ny",3\r\n\r\n4\r\n"5",6\r\n7,"8""9"\r\n'
    monkeypatch.setattr(csvfile, "BLOCK_CHARACTERS", 16 if size < 16 else size)
    header, chunks = read(data, rows=2)
    whole = Chunk()
    for chunk in chunks:
        whole.extend(chunk)
    assert header == ["a", "b"]
    assert whole.lines == [2, 3, 7, 8]
    assert whole.rows == [["1", "2"], ["x\r\ny", "3"], ["5", "6"], ["7", '8"9']]
    assert [(reject.line, reject.cells) for reject in whole.rejects] == [(6, ["4"])]


def test_chunks_have_as_many_rows_as_were_asked_for() -> None:
    data = b"a\n" + b"".join(b"%d\n" % number for number in range(5))
    assert [chunk.rows for chunk in read(data, rows=2)[1]] == [[["0"], ["1"]], [["2"], ["3"]], [["4"]]]


def test_a_quote_that_is_never_closed_costs_its_own_line_only() -> None:
    data = b'a,b\n1,2\n3,"4\n5,6\n7,8\n'
    chunk = read_one(data)
    assert chunk.lines == [2, 4, 5]
    assert chunk.rows == [["1", "2"], ["5", "6"], ["7", "8"]]
    ((line, reason, cells),) = chunk.rejects
    assert (line, cells) == (3, ['3,"4'])
    assert "look for a quote that is not closed" in reason


def test_a_quote_that_is_never_closed_swallows_nothing_of_a_long_file() -> None:
    rows = [b"%d,%s" % (number, b"x" * 100) for number in range(5_000)]
    rows[2_000] = b'2000,"oops'
    with open_csv(BytesIO(b"a,b\n" + b"\n".join(rows))) as file:
        chunks = list(file.chunks(1_000))
    lines = [line for chunk in chunks for line in chunk.lines]
    assert lines == [line for line in range(2, 5_002) if line != 2_002]
    assert [reject.line for chunk in chunks for reject in chunk.rejects] == [2_002]


def test_text_after_a_closing_quote_is_set_apart() -> None:
    chunk = read_one(b'a,b\n"1"x,2\n3,4\n')
    assert (chunk.lines, chunk.rows) == ([3], [["3", "4"]])
    assert [(reject.line, reject.cells) for reject in chunk.rejects] == [(2, ['"1"x,2'])]


def test_a_row_of_another_width_is_set_apart_with_its_cells() -> None:
    chunk = read_one(b"a,b\n1\n2,3\n4,5,6\n")
    assert (chunk.lines, chunk.rows) == ([3], [["2", "3"]])
    assert [(reject.line, reject.cells) for reject in chunk.rejects] == [(2, ["1"]), (4, ["4", "5", "6"])]
    assert chunk.rejects[1].reason.startswith("Has 3 columns where the header has 2: ")


def test_a_row_that_is_not_utf_8_is_set_apart_and_says_which_byte() -> None:
    chunk = read_one("a\nKöln\n".encode() + "Málaga\n".encode("latin-1") + b"Oslo\n")
    assert (chunk.lines, chunk.rows) == ([2, 4], [["Köln"], ["Oslo"]])
    assert chunk.rejects == [Reject(3, "Is not UTF-8 (byte 0xE1): save the file as UTF-8.", ["M\udce1laga"])]


def test_a_row_with_a_nul_character_is_set_apart() -> None:
    chunk = read_one(b"a\nx\0y\nz\n")
    assert (chunk.lines, chunk.rows) == ([3], [["z"]])
    assert [(reject.line, reject.reason) for reject in chunk.rejects] == [(2, "Contains a NUL character: remove it.")]


def test_a_line_without_end_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "BLOCK_CHARACTERS", 100)
    (first, *others) = read(b"a,b\n1,2\n" + b"x" * 1_000 + b"\n3,4\n", rows=1)[1]
    assert (first.lines, first.rows) == ([2], [["1", "2"]])
    assert [line for chunk in others for line in chunk.lines] == [4]
    (reject,) = [reject for chunk in others for reject in chunk.rejects]
    assert (reject.line, reject.reason) == (3, "Is longer than 100 characters.")


def test_another_delimiter_is_taken_at_its_word() -> None:
    assert read(b"a;b\n1,5;2\n", delimiter=";")[1] == [Chunk([2], [["1,5", "2"]])]


@pytest.mark.parametrize("data", [b"", b"\n\r\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(data: bytes) -> None:
    assert code_of(data) == "EMPTY_FILE"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_of_wide_characters_is_refused(encoding: str) -> None:
    assert code_of("name,city\nZoë,Köln\n".encode(encoding)) == "WRONG_ENCODING"


@pytest.mark.parametrize("data", [b'a,"b\n1,2\n', b"a,b\xe9\n1,2\n", b"abcd\0,b\n"])
def test_a_header_that_cannot_be_read_refuses_the_file(data: bytes) -> None:
    assert code_of(data) == "INVALID_CSV"


def test_a_header_alone_is_a_file_without_rows() -> None:
    assert read(b"a,b\n") == (["a", "b"], [])


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with (
        pytest.raises(ProfileError, match=r"Cannot read .*none\.csv: No such file") as refused,
        open_csv(tmp_path / "none.csv"),
    ):
        pass
    assert refused.value.code == "FILE_NOT_FOUND"


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(ProfileError) as refused, open_csv(BytesIO(b"a\n"), delimiter=delimiter):
        pass
    assert refused.value.code == "INVALID_DELIMITER"
