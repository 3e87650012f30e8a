"""What mutations answer: the thing they made or changed, or why they did not."""

from collections.abc import Callable
from typing import TypeVar

from strawberry import Maybe

from app.api.declare import about, output
from app.problems import UserError
from db.unset import UNSET, Unset


T = TypeVar("T")
V = TypeVar("V")


@output
class Payload:
    """What every mutation answers."""

    user_errors: list[UserError] = about("Why nothing was written; empty when it was.", default_factory=list)


def converted(maybe: Maybe[T], convert: Callable[[T], V]) -> V | Unset:
    """Like `given`, in the use case's terms."""
    return UNSET if maybe is None else convert(maybe.value)


def given(maybe: Maybe[T]) -> T | Unset:
    """An input field as use cases take it: UNSET when it was left out."""
    return UNSET if maybe is None else maybe.value
