"""Connections: pages that go on after a key, so that rows inserted meanwhile neither repeat nor hide a row.

Relay Cursor Connections Specification, forward only: `last` and `before` are not offered.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from app.api.declare import about, argument, output
from app.problems import ApiError

T = TypeVar("T")
Row = TypeVar("Row")
E = TypeVar("E")

DEFAULT_PAGE = 20
LARGEST_PAGE = 100

First = Annotated[int, argument(f"How many to answer, 1 to {LARGEST_PAGE}.")]
After = Annotated[str | None, argument("Where to go on: `pageInfo.endCursor` of the page before.")]


@output
class PageInfo:
    """Whether there is more, and where it begins."""

    has_next_page: bool = about("Whether a page follows.")
    has_previous_page: bool = about("Whether this page was asked for with `after`.")
    start_cursor: str | None = about("Cursor of the first edge; null when there is none.")
    end_cursor: str | None = about("Cursor of the last edge: give it as `after`; null when there is none.")


@output
class Edge(Generic[T]):
    """One item of a page."""

    node: T = about("The item.")
    cursor: str = about("Where this item stands.")


@output
class Connection(Generic[T]):
    """A page of items."""

    edges: list[Edge[T]] = about("The items, in order.")
    page_info: PageInfo = about("Whether there is more.")


def page_size(first: int) -> int:
    """`first` itself; raises ApiError when it is below 1 or above the cap."""
    if not 1 <= first <= LARGEST_PAGE:
        message = f"Ask for 1 to {LARGEST_PAGE} at once, then go on with `after`; {first} were asked for."
        raise ApiError("PAGE_SIZE", message, field=("first",))
    return first


def cursor(*keys: UUID | int) -> str:
    """An opaque cursor of a row's keys."""
    text = ",".join(key.hex if isinstance(key, UUID) else str(key) for key in keys)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor_keys(after: str, count: int) -> list[str]:
    """The keys in a cursor of `cursor`, as texts; raises ApiError when it is none."""
    try:
        text = base64.urlsafe_b64decode(after.encode("ascii") + b"=" * (-len(after) % 4)).decode("ascii")
    except (ValueError, UnicodeError, binascii.Error) as fault:
        raise bad_cursor() from fault
    keys = text.split(",")
    if len(keys) != count or len(text) > 100:
        raise bad_cursor()
    return keys


def bad_cursor() -> ApiError:
    message = "This is no cursor of this connection; give `pageInfo.endCursor` of the page before."
    return ApiError("INVALID_CURSOR", message, field=("after",))


def after_uuid(after: str | None) -> UUID | None:
    """The id after which a page begins; None for the first page."""
    if after is None:
        return None
    try:
        return UUID(hex=cursor_keys(after, 1)[0])
    except ValueError as fault:
        raise bad_cursor() from fault


def after_int(after: str | None) -> int | None:
    """The number after which a page begins; None for the first page."""
    if after is None:
        return None
    return after_ints(after, 1)[0]


def after_ints(after: str, count: int) -> list[int]:
    """The numbers of a cursor made of `count` of them, each of 64 bits at most."""
    keys = cursor_keys(after, count)
    if not all(key.isascii() and key.isdecimal() and len(key) <= 18 for key in keys):
        raise bad_cursor()
    return [int(key) for key in keys]


def page_info(rows: Sequence[object], *, first: int, after: str | None, cursors: Sequence[str]) -> PageInfo:
    """PageInfo of a page for which one row more than `first` was asked; `cursors` are those of the page alone."""
    return PageInfo(
        has_next_page=len(rows) > first,
        has_previous_page=after is not None,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


def connection(
    rows: Sequence[Row],
    *,
    first: int,
    after: str | None,
    node: Callable[[Row], T],
    key: Callable[[Row], UUID | int],
) -> Connection[T]:
    """A page out of `rows`, for which one more than `first` was asked."""
    edges = [Edge(node=node(row), cursor=cursor(key(row))) for row in rows[:first]]
    info = page_info(rows, first=first, after=after, cursors=[edge.cursor for edge in edges])
    return Connection(edges=edges, page_info=info)
