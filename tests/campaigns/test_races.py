"""What changes about people, segments and schedules while a campaign is under way, one test each (R1, R3, R11)."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest

from campaigns import claims, control, counts, drafts, erasing, intents, planning, sending, tallies
from campaigns.errors import CampaignError, TargetError
from campaigns.intents import Intended, Intent
from campaigns.listing import get
from campaigns.models import CampaignStatus, DeliveryState
from campaigns.senders import SenderInput, create
from campaigns.wanted import CampaignChanges
from db.transactions import apart, transaction
from profiles import brands, consent, merging, profiles
from profiles.addresses import AddressHasher, Channel
from profiles.patches import ProfileInput
from segments import lifecycle as segment_lifecycle
from segments.lifecycle import SegmentInput
from segments.models import SegmentType
from tests.campaigns.factories import ReadHere, ScriptedChannel, carrier, make_campaign, make_people
from tests.campaigns.test_sending import deliver_all, states
from tests.segments.factories import PREMIUM

SENT = (DeliveryState.SENT, None)
DUPLICATE = (DeliveryState.SKIPPED, "DUPLICATE_ADDRESS")
Change = Callable[[], Awaitable[Any]]


async def held_up(
    workspace_id: UUID, campaign_id: UUID, change: Change, *, now: datetime, after: int = 1
) -> ScriptedChannel:
    """Send one message at a time; once `after` have come and the others are made, `change` something, then go on."""
    channel = ScriptedChannel()
    channel.go.clear()
    job = asyncio.create_task(
        sending.deliver(
            workspace_id, campaign_id, carrier=carrier(channel, concurrency=1), now=now, until=monotonic() + 60
        )
    )
    await channel.until_received(after)
    await change()
    channel.go.set()
    await job
    await deliver_all(workspace_id, campaign_id, channel, now)
    return channel


async def move(workspace_id: UUID, name: str, email: str, *, hasher: AddressHasher, now: datetime) -> None:
    await profiles.upsert(workspace_id, [ProfileInput(external_id=name, email=email)], hasher=hasher, now=now)


async def merge(workspace_id: UUID, loser: int, winner: int, *, now: datetime) -> None:
    await merging.merge(workspace_id, loser_id=loser, winner_id=winner, now=now)


async def test_who_is_merged_after_the_freeze_gets_it_as_the_profile_they_are_now(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R1: resolved at intent too. The winner came after the freeze and has no message of its own."""
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        new = await make_people(workspace, ["new"], hasher=hasher, now=now)
        await merge(workspace, people["bob"], new["new"], now=now)

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == ["ada@example.com", "new@example.com"]
    assert b"Hello new" in channel.received[1].data
    assert await states(workspace, campaign.id) == {people["ada"]: SENT, people["bob"]: SENT}


async def test_who_is_merged_between_the_freeze_and_the_ledger_gets_it_once(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R1: by then they are a tombstone. One winner came after the freeze, one is in the audience, one has said no."""
    people = await make_people(workspace, ["ada", "bob", "cyd", "dan"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    people |= await make_people(workspace, ["eve", "fox"], hasher=hasher, now=now)
    await consent.unsubscribe(
        workspace, profile_id=people["fox"], channel=Channel.EMAIL, topic="marketing", source="test", now=now
    )
    for loser, winner in (("bob", "eve"), ("cyd", "ada"), ("dan", "fox")):
        await merge(workspace, people[loser], people[winner], now=now)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == ["ada@example.com", "eve@example.com"]
    assert await states(workspace, campaign.id) == {
        people["ada"]: SENT,
        people["bob"]: SENT,
        people["cyd"]: DUPLICATE,
        people["dan"]: (DeliveryState.SKIPPED, "UNSUBSCRIBED"),
    }
    found = (await counts.of_campaigns(workspace, [campaign.id]))[campaign.id]
    assert (found.audience, found.no_address, found.sent, found.skipped) == (4, 0, 2, 2)


@pytest.mark.parametrize(("loser", "winner"), [("bob", "cyd"), ("cyd", "bob")])
async def test_two_who_are_merged_before_their_turn_get_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher, loser: str, winner: str
) -> None:
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = await held_up(
        workspace, campaign.id, lambda: merge(workspace, people[loser], people[winner], now=now), now=now
    )
    assert channel.recipients == sorted(["ada@example.com", f"{winner}@example.com"])
    assert await states(workspace, campaign.id) == {
        people["ada"]: SENT,
        people[winner]: SENT,
        people[loser]: DUPLICATE,
    }


async def test_who_is_merged_with_somebody_already_served_gets_no_second_message(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = await held_up(
        workspace, campaign.id, lambda: merge(workspace, people["ada"], people["bob"], now=now), now=now
    )
    assert channel.recipients == ["ada@example.com"]
    assert (await states(workspace, campaign.id))[people["bob"]] == DUPLICATE


async def test_two_merged_into_one_who_came_later_get_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        new = await make_people(workspace, ["new"], hasher=hasher, now=now)
        await merge(workspace, people["bob"], new["new"], now=now)
        await merge(workspace, people["cyd"], new["new"], now=now)

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == ["ada@example.com", "new@example.com"]
    assert (await states(workspace, campaign.id))[people["cyd"]] == DUPLICATE


async def test_a_winner_who_is_merged_between_two_looks_at_people_has_an_address(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Whoever is taken is read first, then their winner, who leads on by then: else NO_ADDRESS."""
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    await merge(workspace, people["ada"], people["bob"], now=now)

    class Between:
        looks = 0

        async def fetch(self, *question: Any) -> Any:
            rows = await connection.fetch(*question)
            self.looks += 1
            if self.looks == 1:
                with apart():
                    await merge(workspace, people["bob"], people["cyd"], now=now)
            return rows

    async with transaction(workspace) as connection:
        found = await claims.read_people(Between(), workspace, [people["ada"], 0])
    assert [(one, row[0], row[3]) for one, row in found.items()] == [(people["ada"], people["cyd"], "cyd@example.com")]


async def test_who_is_erased_before_their_turn_gets_nothing(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """T-9."""
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def erase() -> None:
        await erasing.erase(workspace, people["cyd"], now=now)

    channel = await held_up(workspace, campaign.id, erase, now=now)
    assert channel.recipients == ["ada@example.com", "bob@example.com"]
    assert (await states(workspace, campaign.id))[people["cyd"]] == (DeliveryState.SKIPPED, "ERASED")


async def test_who_moves_before_their_turn_gets_it_at_the_new_address_only(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S3-21: the address is the one of the moment it leaves."""
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = await held_up(
        workspace, campaign.id, lambda: move(workspace, "bob", "new@x.example", hasher=hasher, now=now), now=now
    )
    assert channel.recipients == ["ada@example.com", "new@x.example"]
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), SENT)


@pytest.mark.parametrize("mailbox", ["ada@example.com", "cyd@example.com"])
async def test_who_moves_to_the_mailbox_of_another_recipient_leaves_it_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher, mailbox: str
) -> None:
    """S3-17, whether the other had theirs already or not."""
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = await held_up(
        workspace, campaign.id, lambda: move(workspace, "bob", mailbox, hasher=hasher, now=now), now=now
    )
    assert channel.recipients == ["ada@example.com", "cyd@example.com"]
    assert (await states(workspace, campaign.id))[people["bob"]] == DUPLICATE


async def test_two_who_move_to_the_same_new_mailbox_get_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        await move(workspace, "bob", "both@x.example", hasher=hasher, now=now)
        await move(workspace, "cyd", "both@x.example", hasher=hasher, now=now)

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == ["ada@example.com", "both@x.example"]
    assert (await states(workspace, campaign.id))[people["cyd"]] == DUPLICATE


async def test_two_who_move_to_one_mailbox_in_two_groups_at_once_get_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The second group waits for the first to be committed, and then sees where its message goes."""
    people = await make_people(workspace, ["bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await sending.prepare(workspace, campaign.id, carrier=carrier(ScriptedChannel()), now=now, until=monotonic() + 60)
    await move(workspace, "bob", "both@x.example", hasher=hasher, now=now)
    await move(workspace, "cyd", "both@x.example", hasher=hasher, now=now)
    lease = timedelta(minutes=1)
    async with transaction(workspace) as connection:
        ids = {"workspace_id": workspace, "dispatch_id": await connection.fetchval("SELECT id FROM dispatch")}
        claim_id = await claims.open_claim(connection, **ids, owner=uuid4(), lease=lease)
        taken = await claims.take(connection, **ids, claim_id=claim_id, lease=lease, limit=9) or []
    bob, cyd = (Intent(one.profile_id, 0, one.fence, now, one.email_hash) for one in taken)

    async def intend(one: Intent) -> Intended:
        async with transaction(workspace) as connection:
            return await intents.intend(
                connection,
                intents.MAIL,
                **ids,
                campaign_id=campaign.id,
                claim_id=claim_id,
                ready=[one],
                consent_matters=True,
                test=False,
            )

    async with transaction(workspace):
        first = await intend(cyd)
        with apart():
            other = asyncio.create_task(intend(bob))
            while not await somebody_waits(workspace):
                pass
    second = await other
    assert (first.leaving, second.leaving) == (frozenset({(people["cyd"], 0)}), frozenset())
    assert await states(workspace, campaign.id) == {
        people["bob"]: DUPLICATE, people["cyd"]: (DeliveryState.SENDING, None),
    }  # fmt: skip


async def test_what_expires_while_it_is_sent_is_skipped_from_that_instant(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S3-25."""
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now, expires_at=now + timedelta(days=1))
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        async with transaction(workspace) as connection:
            await connection.execute("UPDATE campaign SET expires_at = now()")

    channel = await held_up(workspace, campaign.id, change, now=now)
    await deliver_all(workspace, campaign.id, channel, now + timedelta(days=2))
    assert channel.recipients == ["ada@example.com"]
    skipped = (DeliveryState.SKIPPED, "EXPIRED")
    assert await states(workspace, campaign.id) == {
        people["ada"]: SENT, people["bob"]: skipped, people["cyd"]: skipped,
    }  # fmt: skip
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


WAITING = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND a.datname = current_database()
"""


async def test_a_schedule_that_is_moved_while_the_clock_looks_at_it_does_not_start(
    workspace: UUID, now: datetime
) -> None:
    """The tick found it due and waits for the row, which an edit holds."""
    campaign = await make_campaign(workspace, now=now)
    due, later = now + timedelta(hours=1), now + timedelta(hours=5)
    await control.schedule(workspace, campaign.id, at=due, now=now)
    async with transaction(workspace):
        await control.schedule(workspace, campaign.id, at=later, now=now)
        with apart():
            tick = asyncio.create_task(control.act_on_time(workspace, campaign.id, now=due))
            while not await somebody_waits(workspace):
                pass
    assert await tick is None
    found = await get(workspace, campaign.id)
    assert (found.status, found.scheduled_at) == (CampaignStatus.SCHEDULED, later)


async def somebody_waits(workspace_id: UUID) -> bool:
    """Whether a transaction of this database waits for a lock."""
    async with transaction(workspace_id) as connection:
        return bool(await connection.fetchval(WAITING))


async def test_an_excluded_segment_that_was_never_evaluated_stops_the_start(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R1: else the very people to spare would be mailed."""
    await make_people(workspace, ["ada"], hasher=hasher, now=now)
    spared = await segment_lifecycle.create(
        workspace,
        SegmentInput(name="spared", type=SegmentType.DYNAMIC, definition=PREMIUM),
        now=now,
    )
    await segment_lifecycle.activate(workspace, spared.id, now=now)
    campaign = await make_campaign(workspace, now=now, excluded_segment_ids=(spared.id,), refresh_before=False)
    with pytest.raises(TargetError) as refusal:
        await sending.start(workspace, campaign.id, now=now)
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_NOT_EVALUATED", ("excluded_segment_ids", "0"))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.DRAFT


async def test_a_brands_campaign_goes_to_its_people_from_its_senders_and_segments(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    mine, other = await brands.create(workspace, "Mine"), await brands.create(workspace, "Other")
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    async with transaction(workspace) as connection:
        await connection.execute(
            "INSERT INTO profile_brand (workspace_id, brand_id, profile_id) VALUES ($1, $2, $3)",
            workspace, mine.id, people["ada"],
        )  # fmt: skip
    foreign = await create(
        workspace,
        SenderInput(from_name="O", from_address="o@other.example", postal_address="2 Main St", brand_id=other.id),
    )
    segment = await segment_lifecycle.create(
        workspace, SegmentInput(name="theirs", type=SegmentType.STATIC, brand_id=other.id), now=now
    )
    campaign = await make_campaign(workspace, now=now, brand_id=mine.id)
    for changes, field in (
        (CampaignChanges(sender_id=foreign.id), ("sender_id",)),
        (CampaignChanges(segment_ids=(segment.id,)), ("segment_ids", "0")),
        (CampaignChanges(excluded_segment_ids=(segment.id,)), ("excluded_segment_ids", "0")),
    ):
        with pytest.raises(CampaignError) as refusal:
            await drafts.update(workspace, campaign.id, changes, proofs=ReadHere(), now=now)
        assert (refusal.value.code, refusal.value.field) == ("OTHER_BRAND", field)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == ["ada@example.com"]


TRY_TO_COUNT = "SELECT pg_try_advisory_xact_lock(hashtextextended('count ' || $1::uuid::text, 0))"


async def test_who_waits_for_a_count_of_somebody_else_keeps_nobody_waiting(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Two pages of campaigns, each of which counts what the other waits for, would wait for each other for good."""
    await make_people(workspace, ["ada"], hasher=hasher, now=now)
    for _ in range(2):
        campaign = await make_campaign(workspace, now=now)
        await sending.start(workspace, campaign.id, now=now)
        worker = carrier(ScriptedChannel())
        assert await sending.prepare(workspace, campaign.id, carrier=worker, now=now, until=monotonic() + 60)
    async with transaction(workspace) as connection:
        one, other = [row["id"] for row in await connection.fetch("SELECT id FROM dispatch ORDER BY id")]
        assert (await tallies.count(connection, workspace, [other])).keys() == {other}
        with apart():
            page = asyncio.create_task(tallies.counted(workspace, [one, other], {}))
            while not await somebody_waits(workspace):
                pass
        assert await connection.fetchval(TRY_TO_COUNT, one)
    states_of = {id: dict(tally.states) for id, (tally, _) in (await page).items()}
    assert states_of == {key: {DeliveryState.PENDING: 1} for key in (one, other)}


CHUNKS_WAITED_FOR = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted
"""
LEDGER = "SELECT array_agg(profile_id ORDER BY profile_id) FROM delivery"
WRITTEN = "SELECT planned_through, no_address, planned_at IS NOT NULL FROM dispatch"


async def test_whoever_waits_for_chunks_that_were_lost_writes_them_too(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: of three workers the first is lost at its commit, and the second while it waits for the first."""
    monkeypatch.setattr(planning, "CHUNK", 1)
    people = sorted((await make_people(workspace, ["ada", "bob", "cyd", "dan"], hasher=hasher, now=now)).values())
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        ids = {"workspace_id": workspace, "dispatch_id": await connection.fetchval("SELECT id FROM dispatch")}
    written, may_end = asyncio.Event(), asyncio.Event()

    async def plan() -> None:
        async with transaction(workspace, generic_plans=True) as connection:
            await planning.plan_chunk(connection, **ids)

    async def plan_and_die() -> None:
        async with transaction(workspace, generic_plans=True) as connection:
            await planning.plan_chunk(connection, **ids)
            written.set()
            await may_end.wait()
            raise ConnectionError("killed")

    async def until_waited_for(chunks: int) -> None:
        async with asyncio.timeout(60):
            while True:
                async with transaction(workspace) as connection:
                    if await connection.fetchval(CHUNKS_WAITED_FOR) == chunks:
                        return

    first = asyncio.create_task(plan_and_die())
    await written.wait()
    second = asyncio.create_task(plan())
    await until_waited_for(1)
    third = asyncio.create_task(plan())
    await until_waited_for(2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    may_end.set()
    with pytest.raises(ConnectionError):
        await first
    await third
    async with transaction(workspace) as connection:
        assert await connection.fetchval(LEDGER) == people[:3]
        assert tuple(await connection.fetchrow(WRITTEN)) == (people[2], 0, False)
    await plan()
    async with transaction(workspace) as connection:
        assert await connection.fetchval(LEDGER) == people
        assert tuple(await connection.fetchrow(WRITTEN)) == (people[3], 0, True)
