"""Which of several languages somebody is shown: RFC 4647 lookup, and what a browser's header asks for. Pure."""

from collections.abc import Collection, Sequence
from functools import lru_cache

MOST_WANTED = 20
"""Languages of one viewer that are looked at; browsers send five or so."""


def lookup(wanted: Sequence[str], available: Collection[str]) -> str | None:
    """The tag of `available` that suits best, as it is written there; None when none does.

    RFC 4647 3.4: each range in the order of preference is shortened from its end until something matches, so that
    zh-Hant-CN finds zh-Hant and then zh, but never zh-Hans; letters' case does not matter. "*" asks for nothing.
    """
    by_tag = {tag.lower(): tag for tag in available}
    for one in wanted[:MOST_WANTED]:
        parts = one.lower().replace("_", "-").split("-")
        while parts:
            found = by_tag.get("-".join(parts))
            if found is not None:
                return found
            parts.pop()
            # A single letter or digit says that something follows, and means nothing alone.
            if parts and len(parts[-1]) == 1:
                parts.pop()
    return None


@lru_cache(maxsize=1024)
def accepted(header: str) -> tuple[str, ...]:
    """The languages of an Accept-Language header, the best first; those of weight 0 or none left out.

    RFC 9110 12.5.4. What is no weight counts as 0, since nobody knows what was meant. Kept, as browsers send the same
    few.
    """
    found: list[tuple[float, str]] = []
    for part in header.split(",")[:MOST_WANTED]:
        tag, _, parameter = part.partition(";")
        name, _, value = parameter.strip().partition("=")
        weight = 1.0
        if name:
            try:
                weight = float(value) if name.strip().lower() == "q" else 0.0
            except ValueError:
                weight = 0.0
        if tag.strip() and 0 < weight <= 1:
            found.append((weight, tag.strip()))
    return tuple(tag for _, tag in sorted(found, key=lambda one: -one[0]))
