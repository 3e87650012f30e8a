"""Sets of profile ids between PostgreSQL and memory."""

import sys
from array import array

from pyroaring import BitMap


def unpack(packed: bytes | None) -> BitMap:
    """The ids of `string_agg(int4send(id), ''::bytea)`: four bytes each, big-endian, any order; None is no id.

    One value instead of rows: 990,000 ids in 146 ms where rows took 1,430 ms.
    """
    return BitMap(numbers(packed))


def numbers(packed: bytes | None) -> "array[int]":
    """The ids of `unpack` as they were packed: in that order, and as often."""
    ids = array("I")
    ids.frombytes(packed or b"")
    if sys.byteorder == "little":
        ids.byteswap()
    return ids


def to_parameter(ids: BitMap) -> "array[int]":
    """`ids` as a value for an int[] parameter, ascending.

    unnest of a million costs about as much as a tenth of inserting them; a binary COPY into a temporary table halved
    that tenth, which was not worth a second way in.
    """
    return ids.to_array()
