"""The numbers among many JSON values, read at once and exactly.

PostgreSQL writes the numbers of jsonb as plain digits, with a point where they have decimals and never with an
exponent; and no JSON text has the byte 1 in it, with which jsonb_send begins each value.
"""

from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Integers: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]
Units: TypeAlias = npt.NDArray[Any]
"""int64, or Decimals as objects."""

EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
"""In which nothing that is made of Decimals is rounded."""
BEGIN, POINT, MINUS, ZERO = 1, ord("."), ord("-"), ord("0")
MOST_DIGITS = 18
"""Every number of so many digits fits into int64."""
POWERS: Integers = 10 ** np.arange(MOST_DIGITS + 1, dtype=np.int64)
TOGETHER = 1 << 17
"""Values looked at together: what is in memory beside the result is bounded by it."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number for each of some values: its `units` are parts of ten to the minus `decimals`, of any value where it is
    not `known`."""

    units: Units
    known: Booleans
    decimals: int


def read(values: bytes) -> Numbers:
    """The numbers among jsonb values, each written by jsonb_send, one after the other; known: which are numbers.

    Where all of them fit, as the numbers of people do, in int64; else as Decimals, which takes ten times as long.
    """
    text = np.frombuffer(values, np.uint8)
    starts = np.flatnonzero(text == BEGIN) + 1
    lengths = np.diff(starts, append=len(text) + 1) - 1
    first = text[starts]
    # Smaller than zero wraps around to more than nine.
    known = (first == MINUS) | (first - np.uint8(ZERO) <= 9)
    after = decimals_of(text, starts, lengths, known)
    before = (lengths - after - (after > 0) - (first == MINUS))[known]
    decimals = int(after.max(initial=0))
    if int(before.max(initial=0)) + decimals > MOST_DIGITS:
        units = np.full(len(starts), Decimal(), dtype=object)
        for place in np.flatnonzero(known):
            units[place] = Decimal(values[starts[place] : starts[place] + lengths[place]].decode())
        return Numbers(units, known, 0)
    units = np.zeros(len(starts), np.int64)
    for at in range(0, len(starts), TOGETHER):
        part = slice(at, at + TOGETHER)
        units[part] = digits(text, starts[part], np.where(known[part], lengths[part], 0))
    units *= POWERS[decimals - after]
    np.negative(units, out=units, where=first == MINUS)
    return Numbers(units, known, decimals)


def decimals_of(text: npt.NDArray[np.uint8], starts: Integers, lengths: Integers, known: Booleans) -> Integers:
    """How many digits each number has after its point; 0 for what is no number."""
    after = np.zeros(len(starts), np.int64)
    points = np.flatnonzero(text == POINT)
    place = np.searchsorted(starts, points, side="right") - 1
    # Texts have points too.
    points, place = points[known[place]], place[known[place]]
    after[place] = starts[place] + lengths[place] - points - 1
    return after


def digits(text: npt.NDArray[np.uint8], starts: Integers, lengths: Integers) -> Integers:
    """What stands at each of `starts` as a whole number, whatever is no digit left out."""
    found = np.zeros(len(starts), np.int64)
    for at in range(int(lengths.max(initial=0))):
        # The text begins with what is no digit: whoever is at his end looks there.
        digit = text[np.where(at < lengths, starts + at, 0)] - np.uint8(ZERO)
        found = np.where(digit <= 9, found * 10 + digit.astype(np.int64), found)
    return found


def as_decimals(units: Units, decimals: int) -> Units:
    """The same numbers as Decimals."""
    if units.dtype == object:
        return units
    return np.array([Decimal(unit).scaleb(-decimals, EXACT) for unit in units.tolist()], dtype=object)
