"""What the package refuses, and why."""

from collections.abc import Callable
from typing import TypeVar

from db.errors import MusterError
from profiles.errors import ProfileError

T = TypeVar("T")


class SegmentError(MusterError):
    """A use case of segments refused its input; nothing was written."""


class SegmentNotFound(SegmentError):
    def __init__(self, *, field: tuple[str, ...] = ("id",)) -> None:
        super().__init__("NOT_FOUND", "No such segment in this workspace; check its id.", field=field)


class EvaluationNotFound(SegmentError):
    def __init__(self, *, field: tuple[str, ...] = ("id",)) -> None:
        super().__init__("NOT_FOUND", "No such evaluation in this workspace; check its id.", field=field)


class IllegalMove(SegmentError):
    """The segment's status does not allow what was asked."""

    def __init__(self, message: str) -> None:
        super().__init__("ILLEGAL_MOVE", message, field=("id",))


def clean(cleaner: Callable[..., T], value: object, *, field: tuple[str, ...], **limits: object) -> T:
    """What a cleaner of profiles.text makes of `value`; its refusal is one of this package."""
    try:
        return cleaner(value, field=field, **limits)
    except ProfileError as e:
        raise SegmentError(e.code, e.message, field=e.field) from e
