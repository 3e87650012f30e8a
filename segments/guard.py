"""The change guard: an evaluation that would empty a segment waits for a person.

A condition on a trait that an integration stopped to send is true of nobody overnight. Whoever is removed from the
segment is then no longer spared, or no longer written to, before anybody has looked.
"""

FEWEST = 100
"""Below this many removals nothing is held: half of ten people is an ordinary day."""


def holds(guard: int | None, *, before: int, removed: int) -> bool:
    """Whether `removed` of `before` members are more than `guard` per cent of them; never without a guard."""
    return guard is not None and removed >= FEWEST and removed * 100 > guard * before


def sentence(guard: int, *, before: int, removed: int) -> str:
    """Why it is held, and what to do, for the segment's owner."""
    return (
        f"Would remove {removed:,} of {before:,} members, more than the {guard} % that the segment's change guard"
        " allows; approve it to let it run, or mend the conditions."
    )
