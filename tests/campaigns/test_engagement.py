"""Who received, opened or clicked campaigns, as conditions ask it."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from pyroaring import BitMap

from campaigns import sending
from campaigns.engagement import EngagementSource
from channels.base import Outcome, OutcomeKind
from db.transactions import transaction
from profiles.addresses import AddressHasher
from profiles.identities import write_touched
from segments import cycles, lifecycle, pulse
from segments.engines.base import EngineError, Look
from segments.engines.postgres import PostgresEngine
from segments.lifecycle import SegmentChanges
from segments.models import Segment
from segments.nodes import Did, Engagement, Period, Side, Unit, Window
from segments.sources import Sources
from tests.campaigns.factories import (
    ACCEPTED,
    ScriptedChannel,
    Sent,
    carrier,
    make_campaign,
    make_delivered,
    make_event,
    make_people,
)
from tests.segments import factories
from tests.segments.factories import DAY, Person

SOURCE = EngagementSource()
REFUSED = Outcome(OutcomeKind.REFUSED, "550", "rcpt")


async def people(workspace_id: UUID, count: int) -> list[int]:
    return await factories.make_people(workspace_id, *(Person() for _ in range(count)))


async def answers(
    workspace_id: UUID, *leaves: Engagement, now: datetime, only: Sequence[int] | None = None
) -> list[set[int]]:
    """Whom the source finds, which is what it makes of each of them and of those who are not found."""
    found = await SOURCE.ids(
        workspace_id=workspace_id, leaves=leaves, now=now, only=None if only is None else BitMap(only)
    )
    async with transaction(workspace_id) as connection:
        living = await connection.fetch("SELECT id FROM profile WHERE merged_into IS NULL")
    for id in only if only is not None else [row["id"] for row in living]:
        looks = await SOURCE.looks(workspace_id=workspace_id, leaves=leaves, now=now, profile_id=id)
        assert [look.matches for look in looks] == [id in one for one in found]
    return [set(one) for one in found]


def days(side: Side, amount: int) -> Window:
    return Window(side, amount, Unit.DAYS)


async def test_received_is_what_was_sent_and_did_not_bounce(workspace: UUID, now: datetime) -> None:
    ids = await people(workspace, 7)
    states = ("sent", "delivered", "complained", "bounced", "in_doubt", "skipped", "pending")
    sent = await make_delivered(
        workspace, {id: Sent(state, now - DAY) for id, state in zip(ids, states, strict=True)}, now=now
    )
    assert await answers(
        workspace,
        Engagement(Did.RECEIVED),
        Engagement(Did.RECEIVED, campaign_id=sent.campaign_id),
        Engagement(Did.RECEIVED, campaign_id=uuid4()),
        now=now,
    ) == [set(ids[:3]), set(ids[:3]), set()]


async def test_opens_and_clicks_are_of_one_campaign_or_of_any_and_no_machines(workspace: UUID, now: datetime) -> None:
    ann, bob, cyd = await people(workspace, 3)
    first = await make_delivered(workspace, {id: Sent("sent", now) for id in (ann, bob, cyd)}, now=now)
    second = await make_delivered(workspace, {bob: Sent("sent", now)}, now=now)
    await make_event(workspace, first, ann, "open", at=now)
    await make_event(workspace, first, ann, "open", at=now, detail={"machine": False})
    await make_event(workspace, first, cyd, "open", at=now, detail={"machine": True})
    await make_event(workspace, second, bob, "click", at=now, detail={"url": "https://example.com"})
    await make_event(workspace, second, bob, "open", at=now)
    assert await answers(
        workspace,
        Engagement(Did.OPENED),
        Engagement(Did.OPENED, campaign_id=first.campaign_id),
        Engagement(Did.CLICKED),
        Engagement(Did.CLICKED, campaign_id=first.campaign_id),
        now=now,
    ) == [{ann, bob}, {ann}, {bob}, set()]


async def test_tests_count_for_nothing(workspace: UUID, now: datetime) -> None:
    (ann,) = await people(workspace, 1)
    test = await make_delivered(workspace, {ann: Sent("sent", now)}, now=now, kind="TEST")
    await make_event(workspace, test, ann, "open", at=now)
    asked = [Engagement(did, campaign_id=of) for did in Did for of in (None, test.campaign_id)]
    assert await answers(workspace, *asked, now=now) == [set()] * 6


@pytest.mark.parametrize("did", [Did.RECEIVED, Did.OPENED])
async def test_windows_have_both_their_edges_where_events_have_them(workspace: UUID, now: datetime, did: Did) -> None:
    """[now - 2 days, now], earlier than that, and [since, until)."""
    tick = timedelta(microseconds=1)
    edge = now - 2 * DAY
    before, at_edge, at_now = await people(workspace, 3)
    times = {before: edge - tick, at_edge: edge, at_now: now}
    sent = await make_delivered(workspace, {id: Sent("sent", at) for id, at in times.items()}, now=now)
    for id, at in times.items():
        await make_event(workspace, sent, id, "open", at=at)
    for of in (None, sent.campaign_id):
        assert await answers(
            workspace,
            Engagement(did, of, days(Side.WITHIN, 2)),
            Engagement(did, of, days(Side.BEFORE, 2)),
            Engagement(did, of, Period(edge, now)),
            Engagement(did, of, Period(None, edge)),
            Engagement(did, of, Period(now, None)),
            now=now,
        ) == [{at_edge, at_now}, {before}, {at_edge}, {before}, {at_now}]


@pytest.mark.parametrize("did", [Did.RECEIVED, Did.CLICKED])
async def test_what_a_merged_profile_did_its_winner_did(workspace: UUID, now: datetime, did: Did) -> None:
    loser, winner, stranger = await people(workspace, 3)
    sent = await make_delivered(workspace, {loser: Sent("sent", now), stranger: Sent("sent", now)}, now=now)
    await make_event(workspace, sent, loser, "click", at=now)
    await make_event(workspace, sent, stranger, "click", at=now)
    await factories.merge(workspace, loser=loser, winner=winner)
    leaf = Engagement(did, sent.campaign_id, days(Side.WITHIN, 1))
    assert await answers(workspace, leaf, now=now) == [{winner, stranger}]
    assert await answers(workspace, leaf, now=now, only=[winner]) == [{winner}]
    assert await answers(workspace, leaf, now=now, only=[]) == [set()]
    seen = now.isoformat().replace("+00:00", "Z")
    for at, look in (
        (now, Look(True, {"count": 1, "last": seen})),
        (now - 3 * DAY, Look(False, {"count": 0, "last": None})),
    ):
        assert await SOURCE.looks(workspace_id=workspace, leaves=[leaf], now=at, profile_id=winner) == [look]
    crossed = await SOURCE.crossed(workspace_id=workspace, leaves=[leaf], since=now + DAY / 2, until=now + 2 * DAY)
    assert set(crossed) == {winner, stranger}


async def test_those_who_come_over_an_edge_of_time_are_found(workspace: UUID, now: datetime) -> None:
    ids = await people(workspace, 3)
    times = [now - 3 * DAY, now - 2 * DAY, now - DAY]
    sent = await make_delivered(workspace, {id: Sent("sent", at) for id, at in zip(ids, times, strict=True)}, now=now)
    for id, at in zip(ids, times, strict=True):
        await make_event(workspace, sent, id, "open", at=at)

    async def crossed(leaf: Engagement, since: datetime, until: datetime) -> set[int]:
        return set(await SOURCE.crossed(workspace_id=workspace, leaves=[leaf], since=since, until=until))

    for side in Side:
        for of in (None, sent.campaign_id):
            leaf = Engagement(Did.OPENED, of, days(side, 5))
            assert await crossed(leaf, now + 2 * DAY - timedelta(seconds=1), now + 2 * DAY) == {ids[0]}
            assert await crossed(leaf, now + 1.5 * DAY, now + 3.5 * DAY) == {ids[0], ids[1]}
            received = Engagement(Did.RECEIVED, of, days(side, 5))
            assert await crossed(received, now + 2 * DAY - timedelta(seconds=1), now + 2 * DAY) == {ids[0]}
    assert await crossed(Engagement(Did.OPENED), now - 4 * DAY, now) == set()
    assert await crossed(Engagement(Did.OPENED, window=Period(now, None)), now - 4 * DAY, now) == set()
    # What is sent writes no profile_change.
    assert await crossed(Engagement(Did.RECEIVED), now - DAY, now) == {ids[2]}


async def test_other_tenants_do_not_matter(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    (theirs,) = await people(other_workspace, 1)
    sent = await make_delivered(other_workspace, {theirs: Sent("sent", now)}, now=now)
    await make_event(other_workspace, sent, theirs, "open", at=now)
    asked = [Engagement(did, campaign_id=of) for did in Did for of in (None, sent.campaign_id)]
    assert await answers(workspace, *asked, now=now) == [set()] * 6


async def test_a_question_that_takes_too_long_is_given_up(workspace: UUID, now: datetime) -> None:
    slow = EngagementSource(statement_timeout=timedelta(milliseconds=50))
    async with transaction(workspace) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(EngineError) as failure:
            async with slow.reading(workspace) as reading:
                await reading.execute("SELECT pg_advisory_xact_lock(1)")
    assert failure.value.code == "CONDITION_TOO_SLOW"


# --- from a send to the members of a live segment -----------------------------------------------------------------

SOURCES = Sources(PostgresEngine(), {Engagement: SOURCE})


async def make_live(workspace_id: UUID, definition: object, *, now: datetime) -> Segment:
    """A live segment, evaluated, with a pulse that is up to date."""
    segment = await factories.make_dynamic(workspace_id, definition, now=now)
    await lifecycle.update(workspace_id, segment.id, SegmentChanges(live=True), now=now)
    while await cycles.run(workspace_id, sources=SOURCES, now=now) is not None:
        continue
    await beat(workspace_id, now=now)
    return segment


async def beat(workspace_id: UUID, *, now: datetime | None = None) -> None:
    done = await pulse.beat(workspace_id, sources=SOURCES, now=now)
    assert done is not None


async def test_whoever_is_sent_a_campaign_enters_a_live_segment_with_the_next_beat(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S4-02. The send writes no row about each profile: it is found by its time."""
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    received = {"campaign": {"did": "RECEIVED", "campaignId": str(campaign.id)}}
    segment = await make_live(workspace, received, now=now)
    waiting = await make_live(workspace, {"not": received}, now=now)
    assert (await factories.members_of(segment), await factories.members_of(waiting)) == (set(), set(people.values()))
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel(lambda message: REFUSED if message.recipient.startswith("bob") else ACCEPTED)
    while await sending.deliver(workspace, campaign.id, carrier=carrier(channel), now=now, until=time.monotonic() + 60):
        continue
    await beat(workspace)
    assert await factories.members_of(segment) == {people["ada"]}
    assert await factories.members_of(waiting) == {people["bob"]}


async def test_whoever_opens_enters_and_leaves_when_the_window_has_passed(workspace: UUID, now: datetime) -> None:
    """S0-09, S4-02."""
    ada, bob = await people(workspace, 2)
    run = await make_delivered(workspace, {ada: Sent("sent", now), bob: Sent("sent", now)}, now=now)
    segment = await make_live(workspace, {"campaign": {"did": "OPENED", "within": {"minutes": 4}}}, now=now)
    await make_event(workspace, run, ada, "open", at=now)
    async with transaction(workspace) as connection:
        # What the delivery engine does beside the row.
        await write_touched(connection, workspace_id=workspace, profile_ids=[ada])
    await beat(workspace, now=now + timedelta(seconds=1))
    assert await factories.members_of(segment) == {ada}
    await beat(workspace, now=now + timedelta(minutes=4))
    assert await factories.members_of(segment) == {ada}
    await beat(workspace, now=now + timedelta(minutes=4, seconds=1))
    assert await factories.members_of(segment) == set()


async def test_whom_a_blast_reached_is_asked_about_for_half_a_minute(workspace: UUID, now: datetime) -> None:
    """For minutes, a thousand a second are more than a beat follows one by one: it would evaluate everything."""
    ada, bob = await people(workspace, 2)
    past = {ada: Sent("sent", now - timedelta(seconds=29)), bob: Sent("sent", now - timedelta(seconds=31))}
    await make_delivered(workspace, past, now=now)
    leaf = Engagement(Did.RECEIVED)
    until = now + timedelta(seconds=1)
    found = await SOURCE.crossed(workspace_id=workspace, leaves=[leaf], since=now, until=until)
    assert set(found) == {ada}
