"""Frames of HTTP/2 and strings of its headers as bytes (RFC 9113 4 and 6, RFC 7541 5)."""

from functools import lru_cache

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, _, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = range(1, 5)
REFUSED_STREAM, CANCEL = 0x7, 0x8
LARGEST_FRAME = 16_384
"""What we take in, and what any server takes (RFC 9113 4.2)."""
LARGEST_HEADERS = LARGEST_FRAME
STREAM_WINDOW = 65_536
"""Bytes of one answer; of a longer one the rest is refused."""
CONNECTION_WINDOW = 16 * 1024 * 1024
LARGEST_WINDOW = 2**31 - 1
LAST_STREAM = 2**31 - 1


class BrokenProtocol(Exception):
    """The server sent what HTTP/2 does not allow."""


def frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """RFC 9113 4.1."""
    return (length << 48 | kind << 40 | flags << 32 | stream).to_bytes(9, "big")


def setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def literal(text: bytes) -> bytes:
    """A string as header blocks have it, not compressed (RFC 7541 5.2)."""
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    head, rest = [127], length - 127
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    return bytes((*head, rest)) + text


@lru_cache(maxsize=64)
def never_kept(name: bytes) -> bytes:
    """The beginning of a header that no table is to keep."""
    return b"\x10" + literal(name)


def unpadded(payload: bytes, flags: int) -> bytes:
    """RFC 9113 6.1. Raises BrokenProtocol for more padding than there is."""
    if not flags & PADDED:
        return payload
    padding = payload[0]
    if padding >= len(payload):
        raise BrokenProtocol("more padding than frame")
    return payload[1 : len(payload) - padding]
