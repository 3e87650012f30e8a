"""Leaves that the rows of `event` answer: which events match, what is made of them, and how far back they reach."""

from collections.abc import Mapping
from typing import assert_never

from segments.engines import folding
from segments.engines.comparisons import Member, member_is, number_of, text_is
from segments.engines.queries import Query, all_of, counts, in_time, measures
from segments.nodes import Aggregate, ContextField, Event, Operator, Total
from segments.tree import holds_for_none

CONTEXT = {
    ContextField.PAGE_PATH: "page_path",
    ContextField.DEVICE_TYPE: "device_type",
    ContextField.BROWSER: "browser",
    ContextField.COUNTRY: "country",
    ContextField.CITY: "city",
}


class Aggregates:
    """What a grouped subquery selects: each aggregate once, by the name it gets there.

    `values` are the columns it finds properties in, by their keys, when something is summed.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.names: dict[str, str] = {}

    def name(self, aggregate: str, matching: str | None) -> str:
        """The name of an aggregate over the matching rows; over all rows when `matching` is None."""
        made = aggregate if matching is None else f"{aggregate} FILTER (WHERE {matching})"
        return self.names.setdefault(made, f"m{len(self.names)}")

    @property
    def columns(self) -> list[str]:
        """The select list."""
        return [f"{aggregate} AS {name}" for aggregate, name in self.names.items()]


def matching(query: Query, event: Event) -> list[str]:
    """What an event of the leaf's name must be to match."""
    return [
        *([] if event.window is None else [in_time(query, "occurred_at", event.window)]),
        *(text_is(query, CONTEXT[test.field], test.operator, test.value) for test in event.context),
        *(member_is(Member(query, "properties", test.property), test.operator, test.value) for test in event.where),
    ]


ONCE = ((Operator.GREATER_OR_EQUAL, 1), (Operator.GREATER_THAN, 0), (Operator.NOT_EQUALS, 0))


def is_plain(event: Event) -> bool:
    """Whether to have performed it once is all that `event` asks."""
    once = event.count is None or (event.count.operator, event.count.value) in ONCE
    return once and not event.totals and event.first is None and event.last is None


def is_folded(event: Event) -> bool:
    """Whether the ids of its events are all that it takes, since nothing is asked but whether there are as many."""
    counted = event.count is not None and folding.may_fold(event.count)
    return is_plain(event) or (counted and not event.totals and event.first is None and event.last is None)


def reads_index_only(event: Event) -> bool:
    """Whether event_by_name has all that `event` asks about."""
    return not event.totals and not event.where and not event.context


def event_is(query: Query, event: Event, aggregates: Aggregates, match: str | None) -> str | None:
    """Whether a profile's events meet `event`, told from `aggregates`, which are of its events of that name.

    `match` is which of these match; None when all do: then nobody is there without one. Never met without one.
    """
    tests = []
    if event.count is not None:
        tests.append(counts(query, aggregates.name("count(*)", match), event.count))
    if match is not None and may_hold_for_none(event):
        tests.append(f"{aggregates.name('count(*)', match)} > 0")
    tests += [total_is(query, total, aggregates, match) for total in event.totals]
    if event.first is not None:
        tests.append(in_time(query, aggregates.name("min(occurred_at)", match), event.first))
    if event.last is not None:
        tests.append(in_time(query, aggregates.name("max(occurred_at)", match), event.last))
    return all_of(tests)


def may_hold_for_none(event: Event) -> bool:
    """Whether what is measured may be as `event` asks though no event matches; averages and times never are."""
    sums = [total.amount for total in event.totals if total.aggregate is Aggregate.SUM]
    others = len(sums) < len(event.totals) or event.first is not None or event.last is not None
    return not others and all(map(holds_for_none, [*sums, *([] if event.count is None else [event.count])]))


def total_is(query: Query, total: Total, aggregates: Aggregates, match: str | None) -> str:
    number = number_of(aggregates.values[total.property])
    match total.aggregate:
        case Aggregate.SUM:
            return measures(query, f"coalesce({aggregates.name(f'sum({number})', match)}, 0)", total.amount)
        case Aggregate.AVG:
            # Without dividing, so that nothing is rounded; of no number the sum is NULL.
            numbers = aggregates.name(f"count({number})", match)
            return measures(query, aggregates.name(f"sum({number})", match), total.amount, times=numbers)
        case Aggregate.MIN | Aggregate.MAX:
            return measures(query, aggregates.name(f"{total.aggregate.value}({number})", match), total.amount)
        case _:
            assert_never(total.aggregate)
