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
from operator import itemgetter
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What may be chosen."""

    @property
    def id(self) -> str: ...

    @property
    def weight(self) -> int: ...


C = TypeVar("C", bound=Candidate)
TWO_52 = 2**52


@dataclass(frozen=True, slots=True)
class Weighted:
    """A banner and nothing else: its id and its weight, 0 to 100; 0 is never chosen."""

    id: str
    weight: int


def draw(*, viewer: str, placement: str, window: int, id: str) -> float:
    """A number in (0, 1), evenly spread: the first 52 bits of SHA-256, plus a half, over 2^52.

    52 bits and a half are what a double holds exactly, so that every language gets the same number, never 0 nor 1.
    """
    return drawn(question(viewer, placement, window) + id.encode("utf-8", "replace"))


def question(viewer: str, placement: str, window: int) -> bytes:
    """What is hashed, but for the id that follows."""
    # Only the viewer may hold a line break, and it stands first: no two questions are the same text.
    return f"{viewer}\n{placement}\n{window}\n".encode("utf-8", "replace")


def drawn(asked: bytes) -> float:
    """The number that is drawn for a question with an id."""
    return ((int.from_bytes(sha256(asked).digest()[:7], "big") >> 4) + 0.5) / TWO_52


def choose(eligible: Sequence[Candidate], *, viewer: str, placement: str, window: int) -> str | None:
    """The id of the banner that `viewer` sees in `placement` during rotation window number `window`.

    None when nothing is eligible or all weights are 0. The order of `eligible` does not matter.
    """
    best = ranked(eligible, viewer=viewer, placement=placement, window=window)
    return best[0].id if best else None


def ranked(eligible: Sequence[C], *, viewer: str, placement: str, window: int) -> list[C]:
    """All that may be chosen, the choice first: what further places are given to. Those of weight 0 are left out."""
    asked, scores = question(viewer, placement, window), []
    for one in eligible:
        weight, id = one.weight, one.id
        if weight > 0:
            # The exponential draw with rate `weight` that comes first: -ln(u) / weight, smallest wins.
            scores.append((-log(drawn(asked + id.encode("utf-8", "replace"))) / weight, id, one))
    scores.sort(key=BY_SCORE)
    return [one for _, _, one in scores]


BY_SCORE = itemgetter(0, 1)


def shares(weights: Iterable[int]) -> list[Fraction]:
    """The part of the viewers that each weight gets, in order, exactly; all 0 when all weights are."""
    given = list(weights)
    total = sum(given)
    return [Fraction(weight, total) if total else Fraction(0) for weight in given]
