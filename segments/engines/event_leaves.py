"""Which events a leaf is about, as SQL."""

from segments.engines.comparisons import Member, member_is, text_is
from segments.engines.queries import Query, in_time
from segments.nodes import ContextField, Event

CONTEXT = {
    ContextField.PAGE_PATH: "page_path",
    ContextField.DEVICE_TYPE: "device_type",
    ContextField.BROWSER: "browser",
    ContextField.COUNTRY: "country",
    ContextField.CITY: "city",
}


def matching(query: Query, event: Event) -> list[str]:
    """What an event of the leaf's name must be to match."""
    window = [] if event.window is None else [in_time(query, "occurred_at", event.window)]
    return [*window, *filters(query, event)]


def filters(query: Query, event: Event) -> list[str]:
    """`matching` but for the window."""
    return [
        *(text_is(query, CONTEXT[test.field], test.operator, test.value) for test in event.context),
        *(member_is(Member(query, "properties", test.property), test.operator, test.value) for test in event.where),
    ]


def reads_index_only(event: Event) -> bool:
    """Whether event_by_name has all that `event` asks about."""
    return not event.totals and not event.where and not event.context
