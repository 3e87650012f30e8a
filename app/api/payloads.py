"""What mutations answer: the thing they made or changed, or why they did not."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from app.api.declare import about, output
from app.problems import UserError
from db.unset import UNSET, Unset

T = TypeVar("T")
V = TypeVar("V")
T_co = TypeVar("T_co", covariant=True)


@output
class Payload:
    """What every mutation answers."""

    user_errors: list[UserError] = about("Why nothing was written; empty when it was.", default_factory=list)


class Some(Protocol[T_co]):
    """An input field that was given (strawberry.Some, which is invariant, does not say so to type checkers)."""

    @property
    def value(self) -> T_co: ...


def given(maybe: Some[T] | None) -> T | Unset:
    """An input field as use cases take it: UNSET when it was left out."""
    return UNSET if maybe is None else maybe.value


def converted(maybe: Some[V] | None, convert: Callable[[V], T]) -> T | Unset:
    """Like `given`, in the use case's terms."""
    return UNSET if maybe is None else convert(maybe.value)
