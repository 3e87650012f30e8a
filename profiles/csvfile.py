"""Reads CSV files as people have them: row by row, in constant memory, bad rows set apart."""

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, TextIO

from profiles.errors import ProfileError

MOST_LINE_CHARACTERS = 1_000_000
MOST_SHOWN_CHARACTERS = 1000
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Row(NamedTuple):
    """One row: the line it begins at (the header is line 1) and its cells, as many as the header has."""

    line: int
    cells: list[str]


class Reject(NamedTuple):
    """A row that is not taken, and why. `cells` is the row as it was read, or its raw text where that failed."""

    line: int
    reason: str
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that follow each other in a file, apart from those that are none."""

    rows: list[Row]
    rejects: list[Reject]


class LongLine(Exception):
    """A line passes MOST_LINE_CHARACTERS; the rest of it is skipped."""


class Lines:
    """The lines of a text, which can be given back.

    csv.reader asks for a line at a time. After a quote that is never closed it would swallow everything up to its
    field limit (131,072 characters): then those lines are given back, and only the first of them is lost.
    """

    def __init__(self, text: TextIO) -> None:
        self.text = text
        self.number = 0
        """Of the line given out last."""
        self.taken: list[str] = []
        """Lines given out since `begin`."""
        self.suspect = False
        """Whether one of them may hold what cannot be kept."""
        self.returned: list[str] = []

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self.returned.pop() if self.returned else self.text.readline(MOST_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        if not line.isascii() or "\0" in line:
            self.suspect = True
        if len(line) == MOST_LINE_CHARACTERS and line[-1] not in "\r\n":
            while (rest := self.text.readline(MOST_LINE_CHARACTERS)) and rest[-1] not in "\r\n":
                pass
            raise LongLine
        return line

    def begin(self) -> None:
        self.taken = []
        self.suspect = False

    def give_back(self) -> str:
        """All lines taken since `begin` but the first, which is the answer."""
        first, *others = self.taken
        self.returned.extend(reversed(others))
        self.number -= len(others)
        return first


class CsvFile:
    """A CSV file with a header line. Make one by `open_csv`."""

    def __init__(self, text: TextIO, *, delimiter: str) -> None:
        self._lines = Lines(text)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self.header = self._read_header()

    def _read_header(self) -> list[str]:
        for read in self._read():
            match read:
                case Row(_, cells):
                    return [cell.strip() for cell in cells]
                case Reject(line, reason, _):
                    raise ProfileError("INVALID_CSV", f"The header (line {line}) cannot be read: {reason}")
        raise ProfileError("EMPTY_FILE", "The file is empty: its first line must name the columns.")

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """The rest of the file, `rows` rows at a time, good and bad ones together; blank lines do not count."""
        chunk = Chunk([], [])
        width = len(self.header)
        for read in self._read():
            match read:
                case Row(line, cells) if len(cells) == width:
                    chunk.rows.append(read)
                case Row(line, cells):
                    reason = (
                        f"Has {len(cells)} columns where the header has {width}: quote cells that hold a delimiter."
                    )
                    chunk.rejects.append(Reject(line, reason, cells))
                case Reject():
                    chunk.rejects.append(read)
            if len(chunk.rows) + len(chunk.rejects) == rows:
                yield chunk
                chunk = Chunk([], [])
        if chunk.rows or chunk.rejects:
            yield chunk

    def _read(self) -> Iterator[Row | Reject]:
        lines, reader = self._lines, self._reader
        while True:
            lines.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except LongLine:
                # Given back are lines before it, which a quote had joined to it.
                first = lines.give_back() if len(lines.taken) == 1 else self._give_back_before_long()
                yield Reject(lines.number, f"Is longer than {MOST_LINE_CHARACTERS} characters.", shown(first))
                continue
            except csv.Error as e:
                first = lines.give_back()
                yield Reject(lines.number, f"Is no CSV ({e}): look for a quote that is not closed.", shown(first))
                continue
            line = lines.number - len(lines.taken) + 1
            if lines.suspect and (reason := unstorable("".join(lines.taken))):
                yield Reject(line, reason, cells)
            elif cells:
                yield Row(line, cells)

    def _give_back_before_long(self) -> str:
        self._lines.taken.pop()
        return self._lines.give_back()


def shown(line: str) -> list[str]:
    """A raw line as the cells of a reject."""
    return [line.rstrip("\r\n")[:MOST_SHOWN_CHARACTERS]]


def unstorable(text: str) -> str | None:
    """Why a row cannot be kept, if so. Bytes that are no UTF-8 were read as lone surrogates (PEP 383)."""
    if "\0" in text:
        return "Contains a NUL character: remove it."
    try:
        text.encode()
    except UnicodeEncodeError as e:
        return f"Is not UTF-8 (byte 0x{ord(text[e.start]) & 0xFF:02X}): save the file as UTF-8."
    return None


@contextmanager
def open_csv(source: Path | BinaryIO, *, delimiter: str = ",") -> Iterator[CsvFile]:
    """The CSV file at `source`: UTF-8 with or without a byte order mark, lines ended by LF, CRLF or CR.

    Raises ProfileError FILE_NOT_FOUND, EMPTY_FILE, WRONG_ENCODING or INVALID_CSV when it cannot be read at all.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ProfileError("INVALID_DELIMITER", "A delimiter is one character, such as , or ;", field=("delimiter",))
    binary = open_binary(source)
    try:
        if (start := peek(binary)).startswith(UTF_16_MARKS) or b"\0" in start[:4]:
            raise ProfileError("WRONG_ENCODING", "The file is not UTF-8 (it looks like UTF-16): save it as UTF-8.")
        text = TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield CsvFile(text, delimiter=delimiter)
        finally:
            text.detach()
    finally:
        if isinstance(source, Path):
            binary.close()


def open_binary(source: Path | BinaryIO) -> IO[bytes]:
    if not isinstance(source, Path):
        return source
    try:
        return source.open("rb")
    except OSError as e:
        raise ProfileError("FILE_NOT_FOUND", f"Cannot read {source}: {e.strerror}.", field=("source",)) from e


def peek(binary: IO[bytes]) -> bytes:
    """The first bytes of a file, which stays where it is."""
    start = binary.read(4)
    binary.seek(-len(start), 1)
    return start
