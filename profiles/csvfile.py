"""Reads CSV files as people have them: in chunks and constant memory, bad rows set apart."""

import codecs
import csv
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, TextIO

from profiles.errors import ProfileError

BLOCK_CHARACTERS = 1_000_000
"""Read at a time; no line may be longer."""
MOST_SHOWN_CHARACTERS = 1000
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Reject(NamedTuple):
    """A row that is not taken: its line (the header is 1), why, and its cells (its text where those are not clear)."""

    line: int
    reason: str
    cells: Sequence[str]


@dataclass(slots=True)
class Chunk:
    """Rows that follow each other in a file, as wide as its header, and those there that are no such rows."""

    lines: list[int] = field(default_factory=list)
    """Where each row begins."""
    rows: list[list[str]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def extend(self, other: "Chunk") -> None:
        self.lines += other.lines
        self.rows += other.rows
        self.rejects += other.rejects

    def split(self, rows: int) -> tuple["Chunk", "Chunk"]:
        """The first `rows` rows with all rejects, and the other rows."""
        first = Chunk(self.lines[:rows], self.rows[:rows], self.rejects)
        return first, Chunk(self.lines[rows:], self.rows[rows:])


class CsvFile:
    """A CSV file with a header line. Make one by `open_csv`."""

    def __init__(self, text: TextIO, *, delimiter: str) -> None:
        self._text = text
        self._delimiter = delimiter
        self._read = ""
        """Read from `text` and not yet taken apart."""
        self._line = 0
        """Lines before `_read`."""
        self.header = self._read_header()

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """The rest of the file, `rows` good rows at a time; blank lines are passed over."""
        ready = Chunk()
        while (block := self._next_block()) is not None:
            ready.extend(self._parse(block))
            while len(ready.rows) >= rows or len(ready.rejects) >= rows:
                chunk, ready = ready.split(rows)
                yield chunk
        if ready.rows or ready.rejects:
            yield ready

    def _read_header(self) -> list[str]:
        block = self._next_block()
        if block == "":
            raise ProfileError("INVALID_CSV", f"The header is longer than {BLOCK_CHARACTERS} characters.")
        lines = Lines(block or "", self._text, number=0, tail=self._read)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while lines.waiting:
            read = read_row(lines, reader)
            self._read, self._line = "".join(lines.waiting) + lines.tail, lines.number
            if isinstance(read, Reject):
                raise ProfileError("INVALID_CSV", f"The header (line {read.line}) cannot be read: {read.reason}")
            if read.cells:
                return [cell.strip() for cell in read.cells]
        raise ProfileError("EMPTY_FILE", "The file is empty: its first line must name the columns.")

    def _next_block(self) -> str | None:
        """Whole lines, a million characters or more; "" when the next line is longer than that, None at the end."""
        while more := self._text.read(BLOCK_CHARACTERS):
            text = self._read + more
            # A CR at the very end may be half of a CRLF.
            end = text.rfind("\n") + 1 or text.rfind("\r", 0, -1) + 1
            self._read = text[end:]
            if end or len(text) >= BLOCK_CHARACTERS:
                return text[:end]
        text, self._read = self._read, ""
        return text or None

    def _parse(self, block: str) -> Chunk:
        """The rows of whole lines. The usual case runs at the speed of C; what is unusual goes row by row."""
        if not block:
            return self._pass_long_line()
        reader = csv.reader(StringIO(block, newline=""), delimiter=self._delimiter, strict=True)
        try:
            rows = list(reader)
        except csv.Error:
            return self._parse_by_row(block)
        width = len(self.header)
        if reader.line_num != len(rows) or set(map(len, rows)) != {width} or unstorable(block):
            return self._parse_by_row(block)
        chunk = Chunk(list(range(self._line + 1, self._line + 1 + len(rows))), rows)
        self._line += len(rows)
        return chunk

    def _parse_by_row(self, block: str) -> Chunk:
        chunk, width = Chunk(), len(self.header)
        lines = Lines(block, self._text, number=self._line, tail=self._read)
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while lines.waiting:
            read = read_row(lines, reader)
            if isinstance(read, Reject):
                chunk.rejects.append(read)
            elif len(read.cells) == width:
                chunk.lines.append(read.line)
                chunk.rows.append(read.cells)
            elif read.cells:
                reason = (
                    f"Has {len(read.cells)} columns where the header has {width}: quote cells that hold a delimiter."
                )
                chunk.rejects.append(Reject(read.line, reason, read.cells))
        self._line, self._read = lines.number, lines.tail
        return chunk

    def _pass_long_line(self) -> Chunk:
        start, self._read = self._read, ""
        while (rest := self._text.readline(BLOCK_CHARACTERS)) and rest[-1] not in "\r\n":
            pass
        self._line += 1
        return Chunk(rejects=[Reject(self._line, f"Is longer than {BLOCK_CHARACTERS} characters.", shown(start))])


class Row(NamedTuple):
    """A row as it was read; a blank line has no cells."""

    line: int
    cells: list[str]


class Lines:
    """Lines for csv.reader that can be given back.

    After a quote that is never closed the reader swallows everything up to its field limit (131,072 characters). Then
    those lines are given back, and only the one with the quote is lost.
    """

    def __init__(self, block: str, text: TextIO, *, number: int, tail: str) -> None:
        self.waiting = deque(StringIO(block, newline=""))
        self._text = text
        self.tail = tail
        """What `text` had before its next line: the beginning of that line."""
        self.number = number
        """Lines given out and not given back."""
        self.taken: list[str] = []
        """Lines given out since `begin`."""

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        if self.waiting:
            line = self.waiting.popleft()
        else:
            # A row that goes on after its block.
            line, self.tail = self.tail + self._text.readline(BLOCK_CHARACTERS), ""
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        return line

    def begin(self) -> None:
        self.taken = []

    def give_back(self) -> str:
        """All lines taken since `begin` but the first, which is the answer."""
        first, *others = self.taken
        self.waiting.extendleft(reversed(others))
        self.number -= len(others)
        return first


def read_row(lines: Lines, reader: Iterator[list[str]]) -> Row | Reject:
    """The next row of `lines`, which `reader` reads."""
    lines.begin()
    try:
        cells = next(reader)
    except csv.Error as e:
        first = lines.give_back()
        return Reject(lines.number, f"Is no CSV ({e}): look for a quote that is not closed.", shown(first))
    line = lines.number - len(lines.taken) + 1
    reason = unstorable("".join(lines.taken))
    return Reject(line, reason, cells) if reason else Row(line, cells)


def shown(line: str) -> list[str]:
    """A raw line as the cells of a reject."""
    return [line.rstrip("\r\n")[:MOST_SHOWN_CHARACTERS]]


def unstorable(text: str) -> str | None:
    """Why `text` cannot be kept, if so. Bytes that are no UTF-8 were read as lone surrogates (PEP 383)."""
    if "\0" in text:
        return "Contains a NUL character: remove it."
    if text.isascii():
        return None
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
        start = peek(binary)
        if start.startswith(UTF_16_MARKS) or b"\0" in start[:2]:
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
