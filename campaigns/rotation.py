"""Which of several banners a viewer sees: weighted rendezvous hashing, the same everywhere (docs/rotation.md).

Pure: server, client library and an offline device choose alike. Each banner draws a number from the viewer, the
placement, the rotation window and its own id; the best weighted draw wins. So shares follow the weights exactly, a
viewer keeps the banner for a window, and taking one banner away moves nobody between the others.
Source: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (2005), the logarithmic method.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from math import log


@dataclass(frozen=True, slots=True)
class Weighted:
    """A banner that may be chosen: its id and its weight, 0 to 100; 0 is never chosen."""

    id: str
    weight: int


def draw(*, viewer: str, placement: str, window: int, id: str) -> float:
    """A number in (0, 1), evenly spread: the first 52 bits of SHA-256, plus a half, over 2^52.

    52 bits and a half are what a double holds exactly, so that every language gets the same number, never 0 nor 1.
    """
    # Only the viewer may hold a line break, and it stands first: no two questions are the same text.
    asked = f"{viewer}\n{placement}\n{window}\n{id}"
    digest = sha256(asked.encode("utf-8", "replace")).digest()
    return ((int.from_bytes(digest[:7], "big") >> 4) + 0.5) / 2**52


def choose(eligible: Sequence[Weighted], *, viewer: str, placement: str, window: int) -> str | None:
    """The id of the banner that `viewer` sees in `placement` during rotation window number `window`.

    None when nothing is eligible or all weights are 0. The order of `eligible` does not matter.
    """
    best: tuple[float, str] | None = None
    for one in eligible:
        if one.weight > 0:
            # The exponential draw with rate `weight` that comes first: -ln(u) / weight, smallest wins.
            score = -log(draw(viewer=viewer, placement=placement, window=window, id=one.id)) / one.weight
            if best is None or (score, one.id) < best:
                best = (score, one.id)
    return best[1] if best else None


def shares(weights: Iterable[int]) -> list[Fraction]:
    """The part of the viewers that each weight gets, in order, exactly; all 0 when all weights are."""
    given = list(weights)
    total = sum(given)
    return [Fraction(weight, total) if total else Fraction(0) for weight in given]
