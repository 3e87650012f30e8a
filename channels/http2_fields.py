"""Blocks of header fields as they come, read only as far as somebody asks (RFC 7541, without a dynamic table).

We tell servers that our table has no room, so that a block means the same whenever it comes and nothing has to be kept
in step. hpack's decoder reads every field of every block: nginx's date, server and the rest, 110 us an answer of which
one number is looked at.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

STATIC = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
"""The 61 fields that everybody has; counted from 1 on the wire."""
MOST_FIELDS = 200

Text = tuple[bytes, bool]
"""A string as it stood in the block, and whether it is compressed."""


class BadBlock(Exception):
    """This is no block of header fields, or one that refers to a table that we do not have."""


class Fields(Mapping[str, str]):
    """The fields of one block by lower-case name, without the pseudo-fields; of one that came twice the last."""

    __slots__ = ("_fields",)

    def __init__(self, fields: tuple[tuple[Text, Text], ...]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        wanted = name.encode()
        for field, value in reversed(self._fields):
            if plain(field) == wanted and wanted[:1] != b":":
                return plain(value).decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(plain(field).decode("latin-1") for field, _ in self._fields)
        return (name for name in names if not name.startswith(":"))

    def __len__(self) -> int:
        return len(list(iter(self)))


def read_block(block: bytes) -> tuple[int, Fields]:
    """The status of an answer (0 when it has none) and its fields. Raises BadBlock."""
    fields: list[tuple[Text, Text]] = []
    status, at, end = 0, 0, len(block)
    try:
        while at < end:
            first = block[at]
            if first & 0x80:
                place, at = number(block, at, 7)
                name, value = static(place)
                fields.append(((name, False), (value, False)))
            elif first & 0xE0 == 0x20:
                size, at = number(block, at, 5)
                if size:
                    raise BadBlock("a table larger than we have")
                continue
            else:
                place, at = number(block, at, 6 if first & 0x40 else 4)
                if place:
                    field: Text = (static(place)[0], False)
                else:
                    field, at = text(block, at)
                found, at = text(block, at)
                fields.append((field, found))
            if not status and plain(fields[-1][0]) == b":status":
                status = int(plain(fields[-1][1]))
            if len(fields) > MOST_FIELDS:
                raise BadBlock("fields without end")
    except (IndexError, ValueError) as error:
        raise BadBlock("no block of header fields") from error
    return status, Fields(tuple(fields))


def number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """RFC 7541 5.1: the number whose prefix of so many bits is at `at`, and where it ends."""
    full = (1 << bits) - 1
    value = block[at] & full
    at += 1
    if value < full:
        return value, at
    for shift in range(0, 35, 7):
        more = block[at]
        at += 1
        value += (more & 127) << shift
        if more < 128:
            return value, at
    raise BadBlock("a number without end")


def text(block: bytes, at: int) -> tuple[Text, int]:
    """RFC 7541 5.2: the string at `at`, not read yet, and where it ends."""
    compressed = bool(block[at] & 0x80)
    length, at = number(block, at, 7)
    end = at + length
    if end > len(block):
        raise BadBlock("a string longer than its block")
    return (block[at:end], compressed), end


def static(place: int) -> tuple[bytes, bytes]:
    if not 0 < place <= len(STATIC):
        raise BadBlock("a field of a table that we do not have")
    return STATIC[place - 1]


def plain(text: Text) -> bytes:
    """The string itself. Raises BadBlock when it is compressed wrongly."""
    return unpacked(text[0]) if text[1] else text[0]


@lru_cache(maxsize=1_024)
def unpacked(compressed: bytes) -> bytes:
    """RFC 7541 5.2, Huffman. Kept, since names are the same in every answer."""
    try:
        return bytes(decode_huffman(compressed))
    except Exception as error:  # hpack's, of several kinds
        raise BadBlock("compressed wrongly") from error
