"""Lists that can be in several orders, and of a span of time: what clients ask, and cursors that know their order."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeVar
from uuid import UUID

import orjson
from strawberry import ID

from app.api import ids, paging
from app.api.declare import about, argument, enum, input_type
from app.api.ids import Kind
from app.api.paging import Connection, Edge
from app.problems import ApiError
from campaigns.listing import CampaignField
from db.keysets import ALWAYS, Direction, Key, Listed, Order, Place, Span, checked_key
from profiles.profiles import ProfileField
from segments.listing import SegmentField

F = TypeVar("F", bound=StrEnum)
R = TypeVar("R")
T = TypeVar("T")

LONGEST_CURSOR = 4_000
"""Characters; names are a part of them."""

enum(
    Direction,
    "Which end of a list comes first.",
    name="OrderDirection",
    ASC="The smallest, the oldest, A.",
    DESC="The largest, the newest, Z.",
)
enum(
    SegmentField,
    "What segments are ordered by; by their ids where that is the same.",
    name="SegmentOrderField",
    NAME="The name, letter case aside.",
    CREATED_AT="When they were made.",
    UPDATED_AT="When they were last changed.",
    SIZE="How many members they have: EVERYONE is the largest, and those never evaluated come last either way.",
)
enum(
    CampaignField,
    "What campaigns are ordered by; by their ids where that is the same.",
    name="CampaignOrderField",
    NAME="The name, letter case aside.",
    CREATED_AT="When they were made.",
    UPDATED_AT="When they were last changed.",
    SCHEDULED_AT="When they start, or were to start; those without a schedule come last either way.",
    STARTED_AT="When they were started; those that were not come last either way.",
)
enum(
    ProfileField,
    "What people are ordered by.",
    name="ProfileOrderField",
    CREATED_AT="When they were made.",
)


@input_type
class ProfileOrder:
    """In which order people are listed."""

    field: ProfileField = about("By what.", default=ProfileField.CREATED_AT)
    direction: Direction = about("From which end.", default=Direction.ASC)


@input_type
class SegmentOrder:
    """In which order segments are listed."""

    field: SegmentField = about("By what.")
    direction: Direction = about("From which end.", default=Direction.ASC)


@input_type
class CampaignOrder:
    """In which order campaigns are listed."""

    field: CampaignField = about("By what.")
    direction: Direction = about("From which end.", default=Direction.ASC)


@input_type
class TimeSpan:
    """A span of time; an end that is left out is open."""

    from_: datetime | None = about("From this instant on.", name="from", default=None)
    until: datetime | None = about("Up to this instant, and without it.", default=None)


Created = Annotated[TimeSpan | None, argument("Only those made in this span of time.")]
Updated = Annotated[TimeSpan | None, argument("Only those last changed in this span of time.")]
OfBrand = Annotated[ID | None, argument("Only those of this brand; those that are for all brands are of none.")]
Named = Annotated[str | None, argument("Only those whose name holds this, whatever the case.")]


def span_of(wanted: TimeSpan | None) -> Span:
    """The span that was asked for; all of time when none was."""
    return ALWAYS if wanted is None else Span(wanted.from_, wanted.until)


def brand_key(brand_id: ID | None) -> UUID | None:
    """The brand that was asked for; raises ApiError INVALID_ID."""
    return ids.optional(Kind.BRAND, brand_id, field="brand_id")


def some(values: Sequence[T] | None) -> tuple[T, ...] | None:
    """The values that were asked for; None for all."""
    return None if values is None else tuple(values)


def order_of(asked: SegmentOrder | CampaignOrder | ProfileOrder | None, *, otherwise: Order[F]) -> Order[F]:
    """The order that was asked for."""
    return otherwise if asked is None else Order(asked.field, asked.direction)  # type: ignore[arg-type]


def place_of(after: str | None, order: Order[F], keys: Mapping[F, Key]) -> Place | None:
    """The row after which a page begins; None for the first page.

    Raises ApiError INVALID_CURSOR for what is no cursor, or one of another order: there it would skip rows in silence.
    """
    if after is None:
        return None
    try:
        if len(after) > LONGEST_CURSOR:
            raise ValueError
        parts = orjson.loads(base64.urlsafe_b64decode(after.encode("ascii") + b"=" * (-len(after) % 4)))
        said, key, id = parts
        known = {str(Order(field, direction)) for field in keys for direction in Direction}
        if said in known and said != str(order):
            message = f"This cursor is of a page ordered by {said}; ask in that order, or begin without `after`."
            raise ApiError("INVALID_CURSOR", message, field=("after",))
        if said != str(order):
            raise ValueError
        return Place(checked_key(keys[order.field].type, key), UUID(hex=id))
    except (ValueError, TypeError, AttributeError, UnicodeError, binascii.Error) as fault:
        raise paging.bad_cursor() from fault


def cursor(order: Order[F], place: Place) -> str:
    """An opaque cursor of a row in an order."""
    text = orjson.dumps([str(order), place.key, place.id.hex])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def connection(
    rows: Sequence[Listed[R]], *, first: int, after: str | None, order: Order[F], node: Callable[[R], T]
) -> Connection[T]:
    """A page out of `rows`, for which one more than `first` was asked."""
    edges = [Edge(node=node(listed.row), cursor=cursor(order, listed.place)) for listed in rows[:first]]
    info = paging.page_info(rows, first=first, after=after, cursors=[edge.cursor for edge in edges])
    return Connection(edges=edges, page_info=info)
