"""Conditions as clients write them (a @oneOf tree) and as segments keep them (JSON of the same shape).

The JSON is made by walking the inputs: every field is a key of the same name. Only ids differ, which clients know
with the prefix of their kind. The rules are the domain's (segments/conditions.py); nothing is checked here but ids.
"""

import dataclasses
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from strawberry import ID, Maybe, Some

from app.api import ids
from app.api.declare import about, input_type, one_of
from app.api.enums import AttributeName, ContextField, Did, MatchMode, Operator, ScoreOf
from app.api.ids import Kind
from app.api.scalars import ConditionValue, write_instant
from app.problems import ApiError, camel


@one_of
class DurationInput:
    """A length of time, in exactly one unit."""

    minutes: Maybe[int] = about("Minutes.")
    hours: Maybe[int] = about("Hours.")
    days: Maybe[int] = about("Days of 24 hours.")
    weeks: Maybe[int] = about("Weeks of 7 days.")


@input_type
class TimeConditionInput:
    """When something happened: within or before a duration that is counted back from the evaluation, or since and
    until an instant, or only one of these two."""

    within: Maybe[DurationInput] = about("At most this long ago.")
    before: Maybe[DurationInput] = about("Longer ago than this.")
    since: Maybe[datetime] = about("Then or later.")
    until: Maybe[datetime] = about("Earlier than then.")


@input_type
class TraitConditionInput:
    """A trait of the profile."""

    key: str = about("Name of the trait, such as `plan`.")
    operator: Operator = about("How to compare. One that does not fit the value's type is refused.")
    value: Maybe[ConditionValue] = about("What to compare with; left out for EXISTS and MISSING.")


@input_type
class AttributeConditionInput:
    """What is known of the profile beside its traits; a text."""

    name: AttributeName = about("What to look at.")
    operator: Operator = about("How to compare: as texts, and countries only with codes as a whole.")
    value: Maybe[ConditionValue] = about("A text or a list of texts; left out for EXISTS and MISSING.")


@input_type
class PropertyFilterInput:
    """A property that an event must have."""

    property: str = about("Name of the property, such as `category`.")
    operator: Operator = about("How to compare. One that does not fit the value's type is refused.")
    value: Maybe[ConditionValue] = about("What to compare with; left out for EXISTS and MISSING.")


@input_type
class ContextFilterInput:
    """What must have come with an event; a text."""

    field: ContextField = about("What to look at.")
    operator: Operator = about("How to compare: as texts, and countries only with codes as a whole.")
    value: Maybe[ConditionValue] = about("A text or a list of texts; left out for EXISTS and MISSING.")


@input_type
class CountConditionInput:
    """How often something happened."""

    operator: Operator = about("How to compare.")
    value: int = about("How often.")


@input_type
class AggregateConditionInput:
    """What a numeric property amounts to over the events."""

    property: str = about("Name of the property, such as `value`.")
    operator: Operator = about("How to compare.")
    value: float = about("What to compare with.")


@input_type
class EventConditionInput(TimeConditionInput):
    """Events of one name that the profile performed: at least once, unless more is said. What is said must all
    hold."""

    name: str = about("Name of the event, such as `purchase`.")
    never: bool = about("True: the profile performed none of these.", default=False)
    count: Maybe[CountConditionInput] = about("How often.")
    sum: Maybe[AggregateConditionInput] = about("The total of a property; 0 for who has none.")
    avg: Maybe[AggregateConditionInput] = about("The average of a property; false for who has none.")
    min: Maybe[AggregateConditionInput] = about("The lowest value of a property; false for who has none.")
    max: Maybe[AggregateConditionInput] = about("The highest value of a property; false for who has none.")
    first: Maybe[TimeConditionInput] = about("When the first of these events was.")
    last: Maybe[TimeConditionInput] = about("When the last of these events was.")
    where: Maybe[list[PropertyFilterInput]] = about("Only events with all of these properties.")
    context: Maybe[list[ContextFilterInput]] = about("Only events that came with all of these.")


@input_type
class PagePathInput:
    """The path of a page."""

    operator: Operator = about("EQUALS, STARTS_WITH or MATCHES.")
    value: str = about("A path such as `/pricing`; with MATCHES `*` stands for any characters.")


@input_type
class PageConditionInput(TimeConditionInput):
    """Pages that the profile viewed: events `page_view`."""

    path: PagePathInput = about("Which pages.")
    count: Maybe[CountConditionInput] = about("How often.")
    never: bool = about("True: the profile viewed none of these.", default=False)


@input_type
class SessionsConditionInput(TimeConditionInput):
    """How many sessions the profile had: different session ids of its events."""

    count: CountConditionInput = about("How many.")


@input_type
class ScoreConditionInput:
    """How well the profile fits, by the traits `icp_code` and `icp_score`, or `persona_code` and `persona_score`."""

    of: ScoreOf = about("Which fit.")
    codes: Maybe[list[str]] = about("The code is one of these.")
    at_least: Maybe[float] = about("The score is this or above.")


@input_type
class RandomBucketConditionInput:
    """A random share of the profiles, the same ones at every evaluation."""

    salt: str = about("What is drawn for, such as `experiment-7`; another salt draws others, independently.")
    from_: float = about("Where the share begins: per cent, at most two decimals.", name="from")
    to: float = about("Before where it ends.")


@input_type
class CampaignConditionInput(TimeConditionInput):
    """What the profile did with a campaign's message."""

    did: Did = about("What it did.")
    campaign_id: Maybe[ID] = about("Of which campaign; left out: of any.")


@one_of
class SegmentConditionInput:
    """Who belongs to a dynamic segment: a tree of conditions, in each place exactly one."""

    all: Maybe[list["SegmentConditionInput"]] = about("Profiles that meet every one of these.")
    any: Maybe[list["SegmentConditionInput"]] = about("Profiles that meet at least one of these.")
    not_: Maybe["SegmentConditionInput"] = about("Profiles that do not meet this.", name="not")
    trait: Maybe[TraitConditionInput] = about("By a trait.")
    attribute: Maybe[AttributeConditionInput] = about("By country, device, email address and the like.")
    event: Maybe[EventConditionInput] = about("By events performed, or never performed.")
    page: Maybe[PageConditionInput] = about("By pages viewed, or never viewed.")
    sessions: Maybe[SessionsConditionInput] = about("By the number of sessions.")
    last_seen: Maybe[TimeConditionInput] = about("By when the profile was last seen.")
    first_seen: Maybe[TimeConditionInput] = about("By when the profile was first seen.")
    identified: Maybe[bool] = about("True: profiles with an id of yours; false: anonymous visitors.")
    score: Maybe[ScoreConditionInput] = about("By how well the profile fits.")
    random_bucket: Maybe[RandomBucketConditionInput] = about("By chance.")
    in_segment: Maybe[ID] = about("Members of this segment.")
    campaign: Maybe[CampaignConditionInput] = about("By what the profile did with campaigns.")
    saved_query: Maybe[ID] = about("Whom this saved query answers.")


@input_type
class SimpleConditionsInput:
    """Who belongs to a dynamic segment, without nesting."""

    match: MatchMode = about("Whether all or any of the conditions must be met.")
    conditions: list[SegmentConditionInput] = about("1 to 10 conditions, each a single one or `not` of one.")


ID_KINDS = {"inSegment": Kind.SEGMENT, "campaignId": Kind.CAMPAIGN, "savedQuery": Kind.SAVED_QUERY}
"""The keys of definitions whose values are ids. No other keys are of the clients' making."""


def to_definition(condition: SegmentConditionInput, *path: str) -> dict[str, Any]:
    """The JSON form that segments/conditions.py parses; raises ApiError for an id that is none, below `path`."""
    definition: dict[str, Any] = to_json(condition, path)
    return definition


def to_simple(simple: SimpleConditionsInput, *path: str) -> tuple[MatchMode, list[dict[str, Any]]]:
    """What `conditions.parse_simple` reads; raises ApiError like `to_definition`."""
    return simple.match, [
        to_definition(one, *path, "conditions", str(place)) for place, one in enumerate(simple.conditions)
    ]


def to_json(value: Any, path: tuple[str, ...] = ()) -> Any:
    """An input as JSON, without what was left out; ids as the domain knows them."""
    match value:
        case Some():
            return to_json(value.value, path)
        case Enum():
            return value.value
        case datetime():
            return write_instant(value)
        case list():
            return [to_json(item, (*path, str(place))) for place, item in enumerate(value)]
        case _ if dataclasses.is_dataclass(value):
            given = {camel(field.name): getattr(value, field.name) for field in dataclasses.fields(value)}
            return {name: field_json(name, part, (*path, name)) for name, part in given.items() if part is not None}
        case _:
            return value


def field_json(name: str, value: Any, path: tuple[str, ...]) -> Any:
    """One field of an input as JSON."""
    if name not in ID_KINDS:
        return to_json(value, path)
    try:
        return str(ids.decode_uuid(ID_KINDS[name], value.value))
    except ApiError as refusal:
        raise ApiError(refusal.code, refusal.message, field=path) from refusal


def from_definition(definition: Any) -> Any:
    """A definition that is stored, in the shape in which clients give it: with their ids."""
    match definition:
        case dict():
            return {
                name: ids.encode(ID_KINDS[name], UUID(part)) if name in ID_KINDS else from_definition(part)
                for name, part in definition.items()
            }
        case list():
            return [from_definition(part) for part in definition]
        case _:
            return definition
