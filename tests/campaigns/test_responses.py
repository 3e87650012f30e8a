"""Opens and clicks: what is kept of them, what counts, and who learns of it."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from campaigns import links, responses, sending
from campaigns.deliveries import DeliveryKey
from campaigns.emails import EmailContent
from campaigns.machines import MOST_RESPONSES, Visit
from campaigns.models import DeliveryEventKind
from campaigns.responses import DeliveryEvent, LinkClicks, Responses, Target
from db.transactions import transaction
from profiles import changes, workspaces
from profiles.addresses import AddressHasher
from profiles.workspaces import WorkspaceChanges
from tests.campaigns.factories import Run, ScriptedChannel, Sent, carrier, make_campaign, make_delivered, make_people
from tests.segments import factories
from tests.segments.factories import DAY, Person

URLS = ("https://a.example/", "https://b.example/?x=ü", None)
PERSON = Visit("GET", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36")
SCANNER = Visit("GET", "Barracuda Sentinel (EE)")
SECOND = timedelta(seconds=1)
CONTENT = EmailContent(
    "News",
    html='<a href="https://a.example">a</a> {{ sender.postal_address }} <a href="{{ unsubscribe_url }}">No more</a>',
)
OPEN, CLICK = DeliveryEventKind.OPEN, DeliveryEventKind.CLICK
TOUCHED = "SELECT count(*) FROM profile_change WHERE workspace_id = $1 AND kind = 'touched'"


async def make_links(workspace_id: UUID, run: Run, urls: Sequence[str | None] = URLS) -> list[Target]:
    """The links of a dispatch, as who looks one up finds them."""
    async with transaction(workspace_id) as connection:
        made = await links.write_links(
            connection, workspace_id=workspace_id, campaign_id=run.campaign_id, dispatch_id=run.dispatch_id, urls=urls
        )
    found = [await responses.find_target(one.id) for one in made]
    targets = [one for one in found if one is not None]
    assert [target.url for target in targets] == list(urls)
    return targets


async def sent_to(
    workspace_id: UUID, people: int, *, now: datetime, kind: str = "SEND"
) -> tuple[Run, list[int], list[Target]]:
    """A campaign sent yesterday, whom to, and its links."""
    ids = await factories.make_people(workspace_id, *(Person() for _ in range(people)))
    run = await make_delivered(workspace_id, {id: Sent("sent", now - DAY) for id in ids}, now=now, kind=kind)
    return run, ids, await make_links(workspace_id, run)


async def events_of(workspace_id: UUID, run: Run, profile_id: int) -> list[DeliveryEvent]:
    key = DeliveryKey(run.dispatch_id, profile_id, 0)
    return (await responses.of_messages(workspace_id, [key])).get(key, [])


async def touched(workspace_id: UUID) -> Any:
    async with transaction(workspace_id) as connection:
        return await connection.fetchval(TOUCHED, workspace_id)


async def test_opens_and_clicks_are_counted_by_person_and_by_link(workspace: UUID, now: datetime) -> None:
    """S3-27."""
    run, (ann, bob), (first, second, image) = await sent_to(workspace, 2, now=now)
    later = now + 60 * SECOND
    for target, profile_id, at in [
        (image, ann, now), (image, ann, later), (image, bob, now), (first, ann, now), (first, ann, later),
        (first, bob, now), (second, bob, later),
    ]:  # fmt: skip
        await responses.record(target, profile_id=profile_id, visit=PERSON, now=at)
    await responses.record(second, profile_id=ann, visit=SCANNER, now=later + 60 * SECOND)
    other = await make_delivered(workspace, {ann: Sent("sent", now)}, now=now, name="Other")
    assert await responses.of_campaigns(workspace, [run.campaign_id, other.campaign_id]) == {
        run.campaign_id: Responses(opens=3, unique_opens=2, clicks=4, unique_clicks=2),
        other.campaign_id: Responses(),
    }
    assert await responses.of_links(workspace, [run.campaign_id, other.campaign_id]) == {
        run.campaign_id: [LinkClicks("https://a.example/", 3, 2), LinkClicks("https://b.example/?x=ü", 1, 1)]
    }
    assert await events_of(workspace, run, ann) == [
        DeliveryEvent(CLICK, later + 60 * SECOND, "https://b.example/?x=ü", True),
        DeliveryEvent(CLICK, later, "https://a.example/", False),
        DeliveryEvent(OPEN, later, None, False),
        DeliveryEvent(CLICK, now, "https://a.example/", False),
        DeliveryEvent(OPEN, now, None, False),
    ]


async def test_those_who_follow_all_links_at_once_are_machines_whichever_is_written_first(
    workspace: UUID, now: datetime
) -> None:
    """Both requests at the same instant: the one that comes second sees the first, and marks it too."""
    run, (ann,), (first, second, _) = await sent_to(workspace, 1, now=now)
    await asyncio.gather(
        *(responses.record(one, profile_id=ann, visit=PERSON, now=now) for one in (first, second)),
    )
    assert [event.is_by_machine for event in await events_of(workspace, run, ann)] == [True, True]
    assert (await responses.of_campaigns(workspace, [run.campaign_id]))[run.campaign_id] == Responses()
    # One word for who was counted, one for who no longer is.
    assert await touched(workspace) == 2


async def test_nobody_fills_the_table_by_reloading(workspace: UUID, now: datetime) -> None:
    run, (ann,), (first, _, image) = await sent_to(workspace, 1, now=now)
    for place in range(MOST_RESPONSES + 20):
        await responses.record(image, profile_id=ann, visit=PERSON, now=now + place * 11 * SECOND)
        await responses.record(image, profile_id=ann, visit=PERSON, now=now + place * 11 * SECOND + SECOND)
    await responses.record(first, profile_id=ann, visit=PERSON, now=now)
    counted = (await responses.of_campaigns(workspace, [run.campaign_id]))[run.campaign_id]
    assert counted == Responses(opens=MOST_RESPONSES, unique_opens=1, clicks=1, unique_clicks=1)
    assert len(await events_of(workspace, run, ann)) == 100


async def test_nothing_is_kept_of_tests_and_of_people_who_are_gone(workspace: UUID, now: datetime) -> None:
    test, (ann,), (link, _, image) = await sent_to(workspace, 1, now=now, kind="TEST")
    run, (bob,), (other, _, _) = await sent_to(workspace, 1, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE profile SET erased_at = $2 WHERE id = $1", bob, now)
    for target, profile_id in [(link, ann), (image, ann), (other, bob), (other, 2_000_000_000)]:
        await responses.record(target, profile_id=profile_id, visit=PERSON, now=now)
    assert await events_of(workspace, test, ann) == await events_of(workspace, run, bob) == []
    assert await touched(workspace) == 0
    assert await responses.of_links(workspace, [test.campaign_id]) == {}


async def test_a_message_in_doubt_left_when_it_came_into_doubt(workspace: UUID, now: datetime) -> None:
    """Whoever opens it has it: only what is being handed over at this moment is nobody's yet."""
    states = ("in_doubt", "failed", "sending")
    ids = await factories.make_people(workspace, *(Person() for _ in states))
    run = await make_delivered(
        workspace, {id: Sent(state, None) for id, state in zip(ids, states, strict=True)}, now=now
    )
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE delivery SET updated_at = $1", now - 2 * SECOND)
    (link, *_) = await make_links(workspace, run)
    for profile_id in ids:
        await responses.record(link, profile_id=profile_id, visit=PERSON, now=now)
    found = [[event.is_by_machine for event in await events_of(workspace, run, profile_id)] for profile_id in ids]
    assert found == [[False], [False], [True]]
    await responses.record(link, profile_id=ids[0], visit=PERSON, now=now - SECOND)
    assert [event.is_by_machine for event in await events_of(workspace, run, ids[0])] == [False, True]


async def test_what_a_merged_profile_does_is_told_of_its_winner(workspace: UUID, now: datetime) -> None:
    run, (loser, winner), (link, _, _) = await sent_to(workspace, 2, now=now)
    await factories.merge(workspace, loser=loser, winner=winner)
    async with transaction(workspace) as connection:
        await connection.execute("DELETE FROM profile_change")
    await responses.record(link, profile_id=loser, visit=PERSON, now=now)
    assert len(await events_of(workspace, run, loser)) == 1
    assert await told_of(workspace) == [winner]


async def told_of(workspace_id: UUID) -> list[int]:
    """Whom the packages above hear of."""
    async with transaction(workspace_id) as connection:
        return sorted((await changes.take_touched(connection, workspace_id=workspace_id, most=100)).profile_ids)


async def test_links_are_found_by_their_address_whoever_numbers_them(workspace: UUID, now: datetime) -> None:
    """Two versions of this program may see different links in one mail; both lead to the right place."""
    (ann,) = await factories.make_people(workspace, Person())
    run = await make_delivered(workspace, {ann: Sent("sent", now)}, now=now)
    one = await make_links(workspace, run, ("https://a.example", "https://c.example", None))
    two = await make_links(workspace, run, ("https://a.example", "https://b.example", "https://c.example", None))
    assert [target.link_id for target in two if target.url != "https://b.example"] == [t.link_id for t in one]
    again = await asyncio.gather(*(make_links(workspace, run, [t.url for t in two]) for _ in range(4)))
    assert again == [two] * 4


async def test_other_tenants_do_not_matter(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    run, (ann,), (link, _, _) = await sent_to(other_workspace, 1, now=now)
    await responses.record(link, profile_id=ann, visit=PERSON, now=now)
    assert await responses.of_campaigns(workspace, [run.campaign_id]) == {run.campaign_id: Responses()}
    assert await responses.of_links(workspace, [run.campaign_id]) == {}
    assert await events_of(workspace, run, ann) == []
    assert await responses.find_target(link.link_id + 1_000) is None


async def test_what_the_workspace_tracks_is_frozen_when_a_campaign_starts(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """And nothing is in mails of what is not tracked."""
    await make_people(workspace, ["ada"], hasher=hasher, now=now)
    for switched, wanted in [
        (WorkspaceChanges(), ["https://a.example", None]),
        (WorkspaceChanges(track_opens=False), ["https://a.example"]),
        (WorkspaceChanges(track_opens=True, track_clicks=False), [None]),
        (WorkspaceChanges(track_opens=False), []),
    ]:
        await workspaces.update(workspace, switched)
        campaign = await make_campaign(workspace, now=now, content=CONTENT)
        await sending.start(workspace, campaign.id, now=now)
        before = await workspaces.get(workspace)
        await workspaces.update(workspace, WorkspaceChanges(track_opens=True, track_clicks=True))
        channel = ScriptedChannel()
        sender = carrier(channel)
        while await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=time.monotonic() + 60):
            continue
        async with transaction(workspace) as connection:
            rows = await connection.fetch("SELECT url FROM link WHERE campaign_id = $1 ORDER BY place", campaign.id)
        assert [row["url"] for row in rows] == wanted
        (mail,) = [one.data for one in channel.received]
        carried = (b"muster.example/t/" in mail, b"muster.example/o/" in mail)
        assert carried == ("https://a.example" in wanted, None in wanted)
        undone = WorkspaceChanges(track_opens=before.track_opens, track_clicks=before.track_clicks)
        await workspaces.update(workspace, undone)
