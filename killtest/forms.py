"""How large each test is: the long form of `make kill-test`, and the short one that the suite runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """The size of one test."""

    people: int
    blows: int
    """Kills, stops, restarts or pauses."""
    workers: int = 2
    rate: int = 80
    """Messages a second until the last blow has fallen, then as fast as it goes: so every blow falls in the middle of
    the blast, however slow the machine is."""
    spread: float = 0.9
    """The part of the blast over which the blows are spread."""

    away_s: float = 0.0
    """How long a server stays away at the one blow that is to take long."""

    def point(self, blow: float) -> float:
        """How many messages are settled when blow number `blow` falls, counted from 0."""
        return self.people * self.spread * blow / self.blows
