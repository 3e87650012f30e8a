"""Header blocks are read as hpack writes them, and nothing that a server sends makes the reader fail otherwise."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.http2_fields import BadBlock, read_block
from channels.http2_headers import Read

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)


def encoder() -> hpack.Encoder:
    """hpack's, after our settings."""
    made = hpack.Encoder()
    made.header_table_size = 0
    return made


@given(st.integers(100, 599), st.lists(st.tuples(names, values), max_size=8), st.booleans())
def test_what_hpack_writes_is_read(status: int, headers: list[tuple[str, str]], compressed: bool) -> None:
    block = encoder().encode([(":status", str(status)), *headers], huffman=compressed)
    found, fields = read_block(block)
    assert (found, dict(fields)) == (status, dict(headers))


def test_a_field_is_found_by_its_name_and_pseudo_fields_are_none() -> None:
    status, fields = read_block(encoder().encode([(":status", "410"), ("apns-id", "a"), ("apns-id", "b")]))
    assert (status, fields["apns-id"], fields.get(":status"), fields.get("date"), len(fields)) == (
        410,
        "b",
        None,
        None,
        1,
    )


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused(block: bytes) -> None:
    try:
        _, fields = read_block(block)
        dict(fields)
    except BadBlock:
        pass


@pytest.mark.parametrize(
    "block",
    [b"\xbe", b"\x3f\xe1\x1f", b"\x88\x7f", b"\x00\x05ab", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"\x08\x02ab"],
    ids=["another table", "a larger table", "cut short", "a long string", "a long number", "field 0", "no number"],
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(BadBlock):
        read_block(block)


def test_fields_without_end_are_refused() -> None:
    with pytest.raises(BadBlock):
        read_block(b"\x88" * 10_000)


def test_headers_of_what_was_accepted_are_read_when_somebody_asks_and_never_fail() -> None:
    block = encoder().encode([(":status", "200"), ("apns-id", "a"), ("date", "today")])
    status, headers = Read().status_and_headers(block)
    assert (status, dict(headers)) == (200, {"apns-id": "a", "date": "today"})
    status, headers = Read().status_and_headers(b"\x88\x7f")
    assert (status, dict(headers)) == (200, {})
