"""What a builder can choose from, as people and events show it."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from db.transactions import transaction
from segments import catalogue
from segments.catalogue import Described, EventName, SeenValue, ValueType
from segments.errors import SegmentError
from tests.segments import factories
from tests.segments.factories import DAY, Happened, Person

T = ValueType


async def test_traits_are_told_with_types_and_their_most_frequent_values(workspace: UUID, now: datetime) -> None:
    await factories.make_people(
        workspace,
        Person(traits={"plan": "premium", "seats": 5, "since": "2024-05-01", "tags": ["a", "b"], "vip": True}),
        Person(traits={"plan": "premium", "seats": 7, "since": "yesterday", "tags": ["b"], "nothing": None}),
        Person(traits={"plan": "free", "seats": "many", "nested": {"deep": 1}}),
        Person(traits={"plan": "of the erased"}, erased_at=now),
    )
    found = await catalogue.catalogue(workspace, now=now)
    assert found.people_sampled == 3
    assert found.traits == [
        Described("plan", 3, {T.TEXT: 3}, [SeenValue("premium", 2), SeenValue("free", 1)], False),
        Described(
            "seats", 3, {T.NUMBER: 2, T.TEXT: 1}, [SeenValue("many", 1), SeenValue(5, 1), SeenValue(7, 1)], False
        ),
        Described("since", 2, {T.DATE: 1, T.TEXT: 1}, [SeenValue("2024-05-01", 1), SeenValue("yesterday", 1)], False),
        Described("tags", 2, {T.LIST: 2}, [SeenValue("b", 2), SeenValue("a", 1)], False),
        Described("nested", 1, {T.OBJECT: 1}, [], False),
        Described("vip", 1, {T.BOOLEAN: 1}, [SeenValue(True, 1)], False),
    ]


async def test_addresses_and_phone_numbers_are_left_out(workspace: UUID, now: datetime) -> None:
    await factories.make_people(
        workspace,
        Person(traits={"contact": "ada@example.com"}),
        Person(traits={"contact": "Ada <ada@example.com>"}),
        Person(traits={"contact": "+49 (30) 123456-7"}),
        Person(traits={"contact": "by post"}),
        Person(traits={"contacts": ["bob@example.com", "fax"]}),
        Person(traits={"born": "2001-02-03", "number": 4915112345678}),
    )
    found = {one.name: one for one in (await catalogue.catalogue(workspace, now=now)).traits}
    assert found["contact"] == Described("contact", 4, {T.TEXT: 4}, [SeenValue("by post", 1)], True)
    assert found["contacts"] == Described("contacts", 1, {T.LIST: 1}, [SeenValue("fax", 1)], True)
    assert found["born"] == Described("born", 1, {T.DATE: 1}, [SeenValue("2001-02-03", 1)], False)
    assert found["number"] == Described("number", 1, {T.NUMBER: 1}, [], True)


async def test_of_addresses_and_external_ids_only_the_number_is_told(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, Person(external_id="ada"), Person(external_id="bob"))
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE profile SET email = 'a@b.example', country = 'DE' WHERE external_id = 'ada'")
        await connection.execute("UPDATE profile SET seen_country = 'DE', seen_browser = 'Firefox'")
    assert (await catalogue.catalogue(workspace, now=now)).attributes == [
        Described("BROWSER", 2, {T.TEXT: 2}, [SeenValue("Firefox", 2)], False),
        Described("COUNTRY", 2, {T.TEXT: 2}, [SeenValue("DE", 2)], False),
        Described("EXTERNAL_ID", 2, {T.TEXT: 2}, [], True),
        Described("EMAIL", 1, {T.TEXT: 1}, [], True),
    ]


async def test_event_names_are_told_with_how_often_and_how_lately(workspace: UUID, now: datetime) -> None:
    await factories.make_people(
        workspace,
        Person(
            events=[
                Happened("purchase", now - DAY, {"value": 10, "channel": "web"}),
                Happened("purchase", now - 40 * DAY, {"value": 20, "buyer": "ada@example.com"}),
                Happened("signup", now - 400 * DAY),
                Happened("login", now - 2 * DAY),
                Happened("login", now - 3 * DAY),
                Happened("Ünïcode", now - 29 * DAY),
            ]
        ),
    )
    found = await catalogue.catalogue(workspace, now=now)
    assert found.events == [
        EventName("login", now - 2 * DAY, 2, True),
        EventName("purchase", now - DAY, 1, True),
        EventName("Ünïcode", now - 29 * DAY, 1, True),
        EventName("signup", now - 400 * DAY, 0, True),
    ]
    assert found.is_complete
    assert found.properties == {
        "login": [],
        "purchase": [
            Described("value", 2, {T.NUMBER: 2}, [SeenValue(10, 1), SeenValue(20, 1)], False),
            Described("buyer", 1, {T.TEXT: 1}, [], True),
            Described("channel", 1, {T.TEXT: 1}, [SeenValue("web", 1)], False),
        ],
        "signup": [],
        "Ünïcode": [],
    }
    asked = await catalogue.catalogue(workspace, event_names=["purchase", "unheard of"], now=now)
    assert asked.properties == {"purchase": found.properties["purchase"], "unheard of": []}


async def test_many_events_are_counted_by_their_density(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "COUNTED_AT_MOST", 3)
    at = [now - n * timedelta(hours=12) for n in range(1, 60)]
    await factories.make_people(workspace, Person(events=[Happened("ping", one) for one in at]))
    (ping,) = (await catalogue.catalogue(workspace, now=now)).events
    assert (ping.recent, ping.is_recent_exact) == (60, False)


async def test_more_names_than_can_be_told_are_said_to_be_more(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "MOST_NAMES", 2)
    await factories.make_people(workspace, Person(events=[Happened(name, now) for name in "abc"]))
    found = await catalogue.catalogue(workspace, now=now)
    assert ([one.name for one in found.events], found.is_complete) == (["a", "b"], False)


async def test_pages_are_told(workspace: UUID, now: datetime) -> None:
    await factories.make_people(workspace, Person(events=[Happened("page_view", now - n * DAY) for n in range(3)]))
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE event SET page_path = '/pricing' WHERE occurred_at > $1", now - 1.5 * DAY)
    assert (await catalogue.catalogue(workspace, now=now)).pages == [SeenValue("/pricing", 2)]


async def test_of_an_empty_workspace_and_of_other_tenants_nothing_is_told(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    await factories.make_people(other_workspace, Person(traits={"a": 1}, events=[Happened("page_view", now)]))
    found = await catalogue.catalogue(workspace, now=now)
    assert (found.people_sampled, found.traits, found.attributes, found.events) == (0, [], [], [])
    assert (found.properties, found.pages, found.is_complete) == ({}, [], True)


async def test_too_many_names_at_once_are_refused(workspace: UUID, now: datetime) -> None:
    with pytest.raises(SegmentError) as refusal:
        await catalogue.catalogue(workspace, event_names=[str(n) for n in range(21)], now=now)
    assert (refusal.value.code, refusal.value.field) == ("TOO_MANY_ITEMS", ("event_names",))
