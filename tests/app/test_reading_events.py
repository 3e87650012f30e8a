"""POST /v1/events reads a batch at once where it can; what comes out is what reading one by one gives."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from hypothesis import example, given
from hypothesis import strategies as st

from app.auth import Caller
from app.ingest import read_event, read_well_formed
from profiles.events import read_each
from profiles.models import KeyKind

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SERVER = Caller(workspace_id=uuid4(), kind=KeyKind.SECRET, scopes=frozenset({"ingest"}))
APP = Caller(workspace_id=uuid4(), kind=KeyKind.PUBLISHABLE, visitor="v")
SIGNED_IN = Caller(workspace_id=uuid4(), kind=KeyKind.PUBLISHABLE, acting_as="ann")

ODD: list[Any] = [None, "", " ", "a", " a", "a ", "|", "a|", "|b", "a||b", "a\t", "a\x1fb", "é😀", "x" * 201, "\u2028"]
ODD += [0, 1, True, 1.5, [], ["a"], {}, {"a": 1}, "ann"]
TEXT = st.one_of(st.sampled_from(["a", "Köln", "ann"]), st.sampled_from(ODD))
TIMES: list[Any] = [
    None,
    "2026-03-01T12:00:00Z",
    "2026-02-01T12:00:00+05:45",
    "2026-02-01",
    "x",
    5,
    "1999-01-01T00:00:00Z",
]
TIMES += [(NOW + timedelta(days=1)).isoformat(), (NOW + timedelta(days=1, seconds=1)).isoformat()]
PROPERTIES: list[Any] = [
    None,
    {},
    {"a": 1, "b": "x", "c": None, "d": 1.5},
    {"a": {"b": [1, {"c": "d"}]}},
    {"": 1},
    {"a": 2**70},
]
PROPERTIES += [[], "x", {"a": "b\x1fc"}, {"k": "x" * 70_000}]
GOOD = {"messageId": "m", "name": "visit", "anonymousId": "v"}
EVENTS = st.one_of(
    st.just(GOOD),
    st.sampled_from(["text", None, [], GOOD | {"nmae": 1}]),
    st.fixed_dictionaries(
        {"messageId": TEXT, "name": TEXT},
        optional={
            "externalId": TEXT,
            "anonymousId": TEXT,
            "occurredAt": st.sampled_from(TIMES),
            "properties": st.sampled_from(PROPERTIES),
            "pagePath": TEXT,
            "deviceType": TEXT,
            "browser": TEXT,
            "country": st.sampled_from(["DE", "de", "XX", "", None, [], 5]),
            "city": TEXT,
            "sessionId": TEXT,
        },
    ),
)


@given(st.lists(EVENTS, max_size=3), st.sampled_from([SERVER, APP, SIGNED_IN]))
@example([GOOD, GOOD | {"country": "DE", "city": "", "properties": {"a": 1}}], SERVER)
def test_reading_all_at_once_says_what_reading_one_by_one_says_or_nothing(events: list[Any], caller: Caller) -> None:
    at_once = read_well_formed(events, caller=caller, now=NOW)
    checked, _, errors = read_each(events, partial(read_event, caller=caller, now=NOW))
    if at_once is not None:
        assert (list(zip(*at_once, strict=True)), []) == (checked, errors)


def test_well_formed_batches_are_read_at_once() -> None:
    full = GOOD | {
        "occurredAt": "2026-02-01T12:00:00+01:00",
        "properties": {"value": 12.5, "items": [{"sku": "ä"}]},
        "pagePath": "/cart?a=b c",
        "deviceType": "mobile",
        "browser": "Firefox",
        "country": "DE",
        "city": "São Paulo",
        "sessionId": "s1",
    }
    for caller, events in [(APP, [GOOD, full]), (SERVER, [full, GOOD | {"anonymousId": None, "externalId": "ann"}])]:
        assert read_well_formed(events, caller=caller, now=NOW) is not None
    # An app may not name people of its own accord.
    assert read_well_formed([GOOD | {"anonymousId": None, "externalId": "ann"}], caller=APP, now=NOW) is None
