"""Blocks of headers of one connection: requests' are written, answers' are read as far as somebody asks."""

from collections.abc import Iterator, Mapping

import hpack

from channels.http2_fields import BadBlock, Fields, read_block
from channels.http2_frames import LARGEST_HEADERS, literal, never_kept
from channels.http2_messages import Request

STATUS_200 = b"\x88"
"""How a block begins that says ":status: 200" in one byte (RFC 7541 A); pseudo-headers come first (RFC 9113 8.3)."""
MOST_REMEMBERED = 64
USUAL_TABLE = 4_096


class Written:
    """Writes the headers of requests; hpack compresses those that many of them have in common."""

    def __init__(self, authority: str, scheme: str) -> None:
        self._pseudo = ((":method", "POST"), (":scheme", scheme), (":authority", authority))
        self._encoder = hpack.Encoder()
        self._blocks: dict[tuple[tuple[str, str], ...], tuple[bytes, bytes]] = {}

    def table_has(self, size: int) -> None:
        """The server says how large its table is; a smaller one than the usual is obeyed, a larger one not needed."""
        self._encoder.header_table_size = min(size, USUAL_TABLE)
        self._blocks.clear()

    def block(self, request: Request) -> bytes:
        """The block of headers. Those that change from request to request are written out, which leaves the table
        alone; so the others are encoded once, and their bytes used again as long as nothing else changed it."""
        blocks = self._blocks.get(request.shared)
        if blocks is None:
            table = self._encoder.header_table
            before = tuple(table.dynamic_entries)
            blocks = (self._encoder.encode(self._pseudo), self._encoder.encode(request.shared))
            if tuple(table.dynamic_entries) == before:
                self._blocks[request.shared] = blocks
            else:
                self._blocks.clear()
        pseudo, shared = blocks
        # 4 is ":path" in the table that everybody has.
        parts = [pseudo, b"\x14", literal(request.path), shared]
        for name, value in request.own:
            parts += (never_kept(name), literal(value))
        block = b"".join(parts)
        assert len(block) <= LARGEST_HEADERS, "our own headers are short"
        return block


class Read:
    """Reads the headers of answers. The blocks of many are the same for a second, until their date changes."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, Mapping[str, str]]] = {}

    def status_and_headers(self, block: bytes) -> tuple[int, Mapping[str, str]]:
        """Of an answer; the status is 0 when it has none. Raises BadBlock.

        What was accepted is nearly every answer, and nobody looks at its headers: they are read when somebody does.
        APNs names each notification in them, and reading that was 13 % of what a worker spent on one.
        """
        if block[:1] == STATUS_200:
            return 200, Unread(block)
        known = self._known.get(block)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            known = self._known[block] = read_block(block)
        return known


class Unread(Mapping[str, str]):
    """The fields of a block, read when somebody asks for one. Of what is no block there are none: the request was
    answered all the same, and no table of ours is out of step by it."""

    __slots__ = ("_block", "_fields")

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._fields: Fields | None = None

    def __getitem__(self, name: str) -> str:
        return self._looked_at()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._looked_at())

    def __len__(self) -> int:
        return len(self._looked_at())

    def _looked_at(self) -> Fields:
        if self._fields is None:
            try:
                self._fields = read_block(self._block)[1]
            except BadBlock:
                self._fields = Fields(())
        return self._fields
