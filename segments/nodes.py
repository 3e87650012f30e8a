"""The parts of a condition: `all`, `any` and `not` over leaves, each leaf one question about a profile.

What every engine must answer alike
- A trait, attribute or property that is missing, or null, meets no comparison, NOT_EQUALS, NOT_CONTAINS and NOT_IN
  included; the `not` of such a comparison is true. Only MISSING finds it.
- A comparison of numbers sees JSON numbers only, one of texts JSON texts only, one of dates only texts that are ISO
  8601 dates (profiles/dates.py). NOT_EQUALS, NOT_IN and NOT_CONTAINS hold for a value of another type: it is there,
  and it is another one. Texts compare exactly, letter case included. CONTAINS holds for a list of texts that has the
  text as an item. MATCHES compares with a pattern in which `*` stands for any characters, and nothing else does.
- `within` a duration is [now - duration, now], `before` it is earlier than now - duration, `since` and `until` are
  [since, until). No window: whenever, the future included.
- Events that never happened count 0 and sum to 0, and so does a property that is no number. An average, minimum or
  maximum over no number meets no comparison. Neither does the first or last time of what never happened.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID


class Operator(StrEnum):
    EQUALS = "EQUALS"
    NOT_EQUALS = "NOT_EQUALS"
    GREATER_THAN = "GREATER_THAN"
    GREATER_OR_EQUAL = "GREATER_OR_EQUAL"
    LESS_THAN = "LESS_THAN"
    LESS_OR_EQUAL = "LESS_OR_EQUAL"
    BETWEEN = "BETWEEN"
    """Both ends belong to it."""
    CONTAINS = "CONTAINS"
    NOT_CONTAINS = "NOT_CONTAINS"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"
    MATCHES = "MATCHES"
    """A pattern with `*` for any characters, none included."""
    IN = "IN"
    NOT_IN = "NOT_IN"
    EXISTS = "EXISTS"
    MISSING = "MISSING"
    BEFORE = "BEFORE"
    """Earlier than a date or instant."""
    AFTER = "AFTER"
    """At or later than a date or instant."""
    WITHIN_LAST = "WITHIN_LAST"
    """In [now - span, now]."""
    MORE_THAN_AGO = "MORE_THAN_AGO"
    """Earlier than now - span."""


class Unit(StrEnum):
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    """Of 24 hours."""
    WEEKS = "weeks"


class Side(StrEnum):
    """Which side of now - duration a window is on."""

    WITHIN = "within"
    BEFORE = "before"


class Sight(StrEnum):
    """Which sight of a profile a leaf asks about."""

    FIRST = "firstSeen"
    LAST = "lastSeen"


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time: what WITHIN_LAST and MORE_THAN_AGO compare with."""

    amount: int
    unit: Unit

    @property
    def duration(self) -> timedelta:
        return timedelta(**{self.unit.value: self.amount})


class MatchMode(StrEnum):
    """What the simple builder joins its conditions with."""

    ALL = "ALL"
    ANY = "ANY"


Number: TypeAlias = int | float
Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | tuple[Scalar, ...] | datetime | Span | None
"""None for EXISTS and MISSING, a tuple for BETWEEN (two numbers), IN and NOT_IN, an aware datetime in UTC for BEFORE
and AFTER, a Span for WITHIN_LAST and MORE_THAN_AGO."""


@dataclass(frozen=True, slots=True)
class Window:
    """Time counted back from the evaluation: its edge moves."""

    side: Side
    amount: int
    unit: Unit

    @property
    def duration(self) -> timedelta:
        return timedelta(**{self.unit.value: self.amount})


@dataclass(frozen=True, slots=True)
class Period:
    """A part of the calendar that stands still: [since, until), aware instants in UTC; at least one of them given."""

    since: datetime | None
    until: datetime | None


Time: TypeAlias = Window | Period


@dataclass(frozen=True, slots=True)
class Amount:
    """A comparison of a measure with one number: the operators EQUALS to LESS_OR_EQUAL."""

    operator: Operator
    value: Number


class Aggregate(StrEnum):
    """What is made of a numeric property over the matching events."""

    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Total:
    """An aggregate of a numeric property over the matching events, compared."""

    aggregate: Aggregate
    property: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class PropertyTest:
    """What an event's property must be for the event to match. Takes every operator but WITHIN_LAST and MORE_THAN_AGO,
    whose edges nobody could follow."""

    property: str
    operator: Operator
    value: Value = None


class ContextField(StrEnum):
    """What comes with an event beside its properties; all texts."""

    PAGE_PATH = "PAGE_PATH"
    DEVICE_TYPE = "DEVICE_TYPE"
    BROWSER = "BROWSER"
    COUNTRY = "COUNTRY"
    CITY = "CITY"


@dataclass(frozen=True, slots=True)
class ContextTest:
    """What an event's context must be for the event to match; operators of texts, lists, EXISTS and MISSING."""

    field: ContextField
    operator: Operator
    value: Value = None


# --- leaves -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trait:
    key: str
    operator: Operator
    value: Value = None


class AttributeName(StrEnum):
    """What is known of a profile beside its traits; all texts.

    COUNTRY and CITY are the profile's own, else those of the latest event that carried one; DEVICE_TYPE and BROWSER
    those of the latest event that carried one.
    """

    COUNTRY = "COUNTRY"
    CITY = "CITY"
    DEVICE_TYPE = "DEVICE_TYPE"
    BROWSER = "BROWSER"
    LOCALE = "LOCALE"
    TIME_ZONE = "TIME_ZONE"
    EMAIL = "EMAIL"
    PHONE = "PHONE"
    EXTERNAL_ID = "EXTERNAL_ID"


@dataclass(frozen=True, slots=True)
class Attribute:
    """Operators of texts, lists, EXISTS and MISSING."""

    name: AttributeName
    operator: Operator
    value: Value = None


@dataclass(frozen=True, slots=True)
class Event:
    """Performed (no count, no totals), performed so many times, amounting to so much, or never performed.

    `totals` has at most one of each aggregate, in the order of Aggregate. `first` and `last` say when the first and the
    last of the matching events must have been. What is given must all hold.
    """

    name: str
    count: Amount | None = None
    totals: tuple[Total, ...] = ()
    window: Time | None = None
    first: Time | None = None
    last: Time | None = None
    where: tuple[PropertyTest, ...] = ()
    context: tuple[ContextTest, ...] = ()
    never: bool = False


PAGE_VIEW = "page_view"
"""The event that says that a page was viewed; which one is its context's page path."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page was viewed: an event page_view with this path (EQUALS, STARTS_WITH or MATCHES)."""

    operator: Operator
    path: str
    count: Amount | None = None
    window: Time | None = None
    never: bool = False


@dataclass(frozen=True, slots=True)
class Sessions:
    """How many sessions the profile had: different session ids of events of any name."""

    count: Amount
    window: Time | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    sight: Sight
    window: Time


@dataclass(frozen=True, slots=True)
class Identified:
    """False: anonymous visitors."""

    value: bool


class ScoreOf(StrEnum):
    """Whose fit a score is: traits <of>_code and <of>_score, in small letters."""

    ICP = "ICP"
    PERSONA = "PERSONA"


@dataclass(frozen=True, slots=True)
class Score:
    """A code out of a list, a floor of the score, or both."""

    of: ScoreOf
    codes: tuple[str, ...] = ()
    at_least: Number | None = None


@dataclass(frozen=True, slots=True)
class RandomBucket:
    """A stable share of the profiles: those whose bucket of 10,000 under `salt` is in [start, end) hundredths of a
    per cent. tree.bucket is the function."""

    salt: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class InSegment:
    segment_id: UUID


class Did(StrEnum):
    """What somebody did with a campaign's message."""

    RECEIVED = "RECEIVED"
    OPENED = "OPENED"
    CLICKED = "CLICKED"


@dataclass(frozen=True, slots=True)
class Engagement:
    """Of one campaign, or of any. Machine opens do not count."""

    did: Did
    campaign_id: UUID | None = None
    window: Time | None = None


@dataclass(frozen=True, slots=True)
class SavedSql:
    """Whom a saved query answers."""

    query_id: UUID


@dataclass(frozen=True, slots=True)
class All:
    items: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    items: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    item: "Condition"


EngineLeaf: TypeAlias = Trait | Attribute | Event | Sessions | Seen | Identified | RandomBucket
"""What an engine answers; `tree.positive` turns Page and Score into these."""
Leaf: TypeAlias = EngineLeaf | Page | Score | InSegment | Engagement | SavedSql
Condition: TypeAlias = All | AnyOf | Not | Leaf
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


# --- ranking ------------------------------------------------------------------------------------------------------


class Direction(StrEnum):
    DESC = "DESC"
    ASC = "ASC"


class Measure(StrEnum):
    """What ranks by events are made of."""

    COUNT = "COUNT"
    SUM = "SUM"
    AVG = "AVG"
    MIN = "MIN"
    MAX = "MAX"


@dataclass(frozen=True, slots=True)
class ByTrait:
    """The number in a trait."""

    key: str


@dataclass(frozen=True, slots=True)
class ByEvents:
    """A measure over events of one name; `property` for all but COUNT."""

    name: str
    measure: Measure
    property: str | None = None
    window: Time | None = None


@dataclass(frozen=True, slots=True)
class BySeen:
    """When the profile was first or last seen, in seconds since 1970."""

    sight: Sight


RankBy: TypeAlias = ByTrait | ByEvents | BySeen


@dataclass(frozen=True, slots=True)
class Ranking:
    """In which order the members stand, and how many there are at most. No value ranks last; ties by profile id."""

    by: RankBy
    direction: Direction = Direction.DESC
    top: int | None = None


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Every leaf of `condition`, in reading order; equal ones as often as they occur."""
    match condition:
        case All(items) | AnyOf(items):
            for item in items:
                yield from leaves(item)
        case Not(item):
            yield from leaves(item)
        case _:
            yield condition
