"""Conditions as clients write them (a @oneOf tree) and as segments keep them (JSON of the same shape)."""

from typing import Any

from strawberry import Maybe

from app.api.declare import about, input_type, one_of
from app.api.enums import Operator
from app.api.scalars import TraitValue


@one_of
class DurationInput:
    """A length of time, in exactly one unit."""

    minutes: Maybe[int] = about("Minutes.")
    hours: Maybe[int] = about("Hours.")
    days: Maybe[int] = about("Days of 24 hours.")
    weeks: Maybe[int] = about("Weeks of 7 days.")


@one_of
class TimeConditionInput:
    """When something happened, counted back from the evaluation."""

    within: Maybe[DurationInput] = about("At most this long ago.")
    before: Maybe[DurationInput] = about("Longer ago than this.")


@input_type
class TraitConditionInput:
    """A trait of the profile."""

    key: str = about("Name of the trait, such as `plan`.")
    operator: Operator = about("How to compare. One that does not fit the value's type is refused.")
    value: Maybe[TraitValue] = about("What to compare with; left out for EXISTS and MISSING.")


@input_type
class PropertyFilterInput:
    """A property that an event must have."""

    property: str = about("Name of the property, such as `category`.")
    operator: Operator = about("How to compare. One that does not fit the value's type is refused.")
    value: Maybe[TraitValue] = about("What to compare with; left out for EXISTS and MISSING.")


@input_type
class CountConditionInput:
    """How often an event happened."""

    operator: Operator = about("How to compare.")
    value: int = about("Number of events.")


@input_type
class SumConditionInput:
    """The total of a numeric property over the events."""

    property: str = about("Name of the property, such as `value`.")
    operator: Operator = about("How to compare.")
    value: float = about("The total to compare with.")


@input_type
class EventConditionInput:
    """Events of one name that the profile performed: at least once, unless more is said."""

    name: str = about("Name of the event, such as `purchase`.")
    never: bool = about("True: the profile performed none of these.", default=False)
    count: Maybe[CountConditionInput] = about("How often.")
    sum: Maybe[SumConditionInput] = about("How much in total.")
    within: Maybe[DurationInput] = about("Only events at most this long ago.")
    before: Maybe[DurationInput] = about("Only events longer ago than this.")
    where: Maybe[list[PropertyFilterInput]] = about("Only events with all of these properties.")


@one_of
class SegmentConditionInput:
    """Who belongs to a dynamic segment: a tree of conditions, in each place exactly one."""

    all: Maybe[list["SegmentConditionInput"]] = about("Profiles that meet every one of these.")
    any: Maybe[list["SegmentConditionInput"]] = about("Profiles that meet at least one of these.")
    not_: Maybe["SegmentConditionInput"] = about("Profiles that do not meet this.", name="not")
    trait: Maybe[TraitConditionInput] = about("By a trait.")
    event: Maybe[EventConditionInput] = about("By events performed, or never performed.")
    last_seen: Maybe[TimeConditionInput] = about("By when the profile was last seen.")
    first_seen: Maybe[TimeConditionInput] = about("By when the profile was first seen.")
    identified: Maybe[bool] = about("True: profiles with an id of yours; false: anonymous visitors.")


def to_definition(condition: SegmentConditionInput) -> dict[str, Any]:
    """The JSON form that segments/conditions.py parses. Nothing is checked here: the rules are the domain's."""
    if condition.all is not None:
        return {"all": [to_definition(item) for item in condition.all.value]}
    if condition.any is not None:
        return {"any": [to_definition(item) for item in condition.any.value]}
    if condition.not_ is not None:
        return {"not": to_definition(condition.not_.value)}
    if condition.trait is not None:
        trait = condition.trait.value
        return {"trait": {"key": trait.key, "operator": trait.operator.value} | value_of(trait.value)}
    if condition.event is not None:
        return {"event": event_to_definition(condition.event.value)}
    if condition.last_seen is not None:
        return {"lastSeen": time_to_definition(condition.last_seen.value)}
    if condition.first_seen is not None:
        return {"firstSeen": time_to_definition(condition.first_seen.value)}
    assert condition.identified is not None  # GraphQL has made sure that exactly one is given
    return {"identified": condition.identified.value}


def event_to_definition(event: EventConditionInput) -> dict[str, Any]:
    """The JSON form of an event condition."""
    out: dict[str, Any] = {"name": event.name}
    if event.never:
        out["never"] = True
    if event.count is not None:
        out["count"] = {"operator": event.count.value.operator.value, "value": event.count.value.value}
    if event.sum is not None:
        total = event.sum.value
        out["sum"] = {"property": total.property, "operator": total.operator.value, "value": total.value}
    if event.within is not None:
        out["within"] = duration_to_definition(event.within.value)
    if event.before is not None:
        out["before"] = duration_to_definition(event.before.value)
    if event.where is not None:
        out["where"] = [
            {"property": item.property, "operator": item.operator.value} | value_of(item.value)
            for item in event.where.value
        ]
    return out


def time_to_definition(time: TimeConditionInput) -> dict[str, Any]:
    """The JSON form of a time condition."""
    if time.within is not None:
        return {"within": duration_to_definition(time.within.value)}
    assert time.before is not None
    return {"before": duration_to_definition(time.before.value)}


def duration_to_definition(duration: DurationInput) -> dict[str, int]:
    """The JSON form of a duration."""
    units = {"minutes": duration.minutes, "hours": duration.hours, "days": duration.days, "weeks": duration.weeks}
    return {unit: length.value for unit, length in units.items() if length is not None}


def value_of(value: Maybe[TraitValue]) -> dict[str, Any]:
    return {} if value is None else {"value": value.value}
