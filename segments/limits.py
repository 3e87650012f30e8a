"""How large definitions may be. By itself, since settings name these numbers and need no condition for it: each process
reads its settings, few read conditions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a definition may be: levels from the root to the deepest leaf, and leaves."""

    depth: int = 8
    leaves: int = 100


WIDEST = Limits(depth=20, leaves=1000)
"""What settings may allow at most."""
