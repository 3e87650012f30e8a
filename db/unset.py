"""The difference between "leave it" and "make it empty" in inputs that change something."""

from enum import Enum
from typing import Final


class Unset(Enum):
    UNSET = "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = Unset.UNSET
"""A field that was not given; None means: clear it."""
