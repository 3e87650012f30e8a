"""What a turn of sending holds, slots and claims, when something goes wrong and when it is not alone (R3 to R5)."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

import pytest

from campaigns import claims, control, ending, sending
from campaigns.answers import Answer, Ready
from campaigns.carrier import Slots
from campaigns.listing import get
from campaigns.models import CampaignStatus, DeliveryState
from campaigns.transmission import Turn
from channels.base import EmailMessage, Outcome, OutcomeKind
from db.transactions import Connection, apart, transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ACCEPTED, ScriptedChannel, carrier, make_campaign, make_people
from tests.campaigns.test_races import somebody_waits
from tests.campaigns.test_sending import deliver_all, states

NAMES = [f"p{place:02}" for place in range(20)]
SENDING = "SELECT count(*) FROM delivery WHERE state = 'sending'"


async def test_a_commit_whose_answer_was_lost_frees_no_slot_before_its_rows_are_settled(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: a kill at that moment, with another turn in the process, leaves no more in doubt than there are slots."""
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    sender = carrier(channel, concurrency=4)
    write = Turn.write
    seen: list[tuple[int, int]] = []

    async def unheard(turn: Turn, answers: Sequence[Answer], group: Sequence[Ready]) -> list[Ready]:
        leaving = await write(turn, answers, group)
        if group and not seen:
            raise ConnectionResetError
        return leaving

    async def look(turn: Turn, trouble: BaseException) -> None:
        async with transaction(workspace) as connection:
            seen.append((await connection.fetchval(SENDING), sender.slots.free))

    monkeypatch.setattr(Turn, "write", unheard)
    monkeypatch.setattr(Turn, "be_patient", look)
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
    assert seen == [(4, 0)]
    assert sender.slots.free == 4
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES]


async def test_a_commit_still_under_way_when_its_answer_is_lost_leaves_no_message_sending_for_ever(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: the server may be at it when the connection breaks, and its rows are seen as before until it is through."""
    await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    sender = carrier(channel, concurrency=4)
    write = Turn.write
    under_way: list[asyncio.Task[None]] = []
    written, through = asyncio.Event(), asyncio.Event()

    async def commit_slowly(turn: Turn, answers: Sequence[Answer], group: Sequence[Ready]) -> None:
        async with transaction(workspace, generic_plans=True):
            await write(turn, answers, group)
            written.set()
            await through.wait()

    async def unheard(turn: Turn, answers: Sequence[Answer], group: Sequence[Ready]) -> list[Ready]:
        if group and not under_way:
            under_way.append(asyncio.create_task(commit_slowly(turn, answers, group)))
            await written.wait()
            raise ConnectionResetError
        return await write(turn, answers, group)

    monkeypatch.setattr(Turn, "write", unheard)
    job = asyncio.create_task(sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60))
    await written.wait()
    while not await somebody_waits(workspace):
        pass
    through.set()
    await asyncio.gather(job, *under_way)
    assert sender.slots.free == 4
    await deliver_all(workspace, campaign.id, channel, now)
    assert sorted(channel.recipients) == [f"{name}@example.com" for name in NAMES[:4]]
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_what_was_read_twice_while_it_waited_leaves_once(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody can tell what a lost commit did, all that waits is read again, and some of it is ready already: one
    group may have it twice."""
    await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    sender = carrier(channel, concurrency=8)
    write = Turn.write
    groups: list[int] = []

    async def lost(turn: Turn, answers: Sequence[Answer], group: Sequence[Ready]) -> list[Ready]:
        groups.append(len(group))
        if len(groups) == 1:
            raise ConnectionResetError
        return await write(turn, answers, group)

    async def read_again(turn: Turn, trouble: BaseException) -> None:
        for _ in range(2):
            turn.leave_behind([0])
            while turn.left_behind is not None:
                await turn.fill()
            await turn.fill()
        assert len(turn.ready) == 2 * 4

    monkeypatch.setattr(Turn, "write", lost)
    monkeypatch.setattr(Turn, "be_patient", read_again)
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:4]]
    assert max(groups) == 4
    assert sender.slots.free == 8


async def test_a_copy_that_cannot_leave_says_nothing_of_its_twin_that_is_under_way(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4: two commits are lost, and between them messages leave of which the second one's group has copies: that
    nothing of it has left is not true of their rows."""
    await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    channel.go.clear()
    sender = carrier(channel, concurrency=8)
    write, something = Turn.write, Turn.something
    lost: list[bool] = []

    async def unheard(turn: Turn, answers: Sequence[Answer], group: Sequence[Ready]) -> list[Ready]:
        lost.append(bool(group) and len(lost) in (0, 2))
        if lost[-1]:
            raise ConnectionResetError
        return await write(turn, answers, group)

    async def read_again(turn: Turn, trouble: BaseException) -> None:
        for _ in range(3 if len(lost) == 1 else 0):
            turn.leave_behind([0])
            while turn.left_behind is not None:
                await turn.fill()
            await turn.fill()

    async def answer_when_idle(turn: Turn) -> None:
        if channel.received and not turn.ready:
            channel.go.set()
        await something(turn)

    monkeypatch.setattr(Turn, "write", unheard)
    monkeypatch.setattr(Turn, "be_patient", read_again)
    monkeypatch.setattr(Turn, "something", answer_when_idle)
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:4]]
    assert sender.slots.free == 8


async def test_a_turn_that_goes_back_and_one_that_finishes_do_not_wait_for_each_other(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a person who resumes: each has locked the campaign, and then wants the dispatch."""
    await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    write, go_back = Turn.write, claims.go_back
    troubles: list[BaseException] = []
    finishing: list[asyncio.Task[bool]] = []

    async def lost_once(turn: Turn, answers: Sequence[Answer], group: Sequence[Ready]) -> list[Ready]:
        if not troubles:
            raise ConnectionResetError
        return await write(turn, answers, group)

    async def remember(turn: Turn, trouble: BaseException) -> None:
        troubles.append(trouble)

    async def beside_an_end(connection: Connection, *, workspace_id: UUID, dispatch_id: UUID, profile_id: int) -> None:
        if not finishing:
            with apart():
                finishing.append(asyncio.create_task(ending.finish(workspace_id, campaign.id, dispatch_id)))
                while not finishing[0].done() and not await somebody_waits(workspace_id):
                    pass
        await go_back(connection, workspace_id=workspace_id, dispatch_id=dispatch_id, profile_id=profile_id)

    monkeypatch.setattr(Turn, "write", lost_once)
    monkeypatch.setattr(Turn, "be_patient", remember)
    monkeypatch.setattr(claims, "go_back", beside_an_end)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    assert await finishing[0] is False
    assert [type(trouble) for trouble in troubles] == [ConnectionResetError]
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:4]]


async def test_a_channel_that_lets_itself_be_cancelled_costs_no_slot(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, NAMES[:6], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    def answer(message: EmailMessage) -> Outcome:
        if message.recipient.startswith("p00"):
            raise asyncio.CancelledError
        return ACCEPTED

    sender = carrier(ScriptedChannel(answer), concurrency=2)
    await sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60)
    assert sender.slots.free == 2
    assert (await states(workspace, campaign.id))[people["p00"]] == (DeliveryState.IN_DOUBT, "CHANNEL_FAILED")


async def test_what_a_server_calls_a_message_cannot_spoil_the_outcomes_of_others(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, NAMES[:6], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    strange = Outcome(OutcomeKind.ACCEPTED, "ACCEPTED", "FINAL", provider_id="4f\0a\ud800")
    await deliver_all(workspace, campaign.id, ScriptedChannel(lambda message: strange), now)
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), (DeliveryState.SENT, None))


async def test_a_turn_that_hands_its_slots_on_leaves_one_to_a_turn_without_any(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Somebody waits for a test send while a blast of the same process is under way."""
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    blast = await make_campaign(workspace, now=now, name="blast")
    other = await make_campaign(workspace, now=now, name="other")
    for campaign in (blast, other):
        await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    sender = carrier(channel, concurrency=2)
    channel.go.clear()
    until = monotonic() + 60
    first = asyncio.create_task(sending.deliver(workspace, blast.id, carrier=sender, now=now, until=until))
    await channel.until_received(2)
    second = asyncio.create_task(sending.deliver(workspace, other.id, carrier=sender, now=now, until=until))
    while not await is_read(workspace, other.id):
        pass
    channel.go.set()
    await asyncio.gather(first, second)
    async with transaction(workspace) as connection:
        of_other = await connection.fetchval("SELECT id FROM dispatch WHERE campaign_id = $1", other.id)
    places = [place for place, message in enumerate(channel.received) if message.key.startswith(of_other.hex)]
    assert len(places) == 20
    assert places[0] < 8
    assert sender.slots.free == 2
    assert sender.slots.waiting == set()


async def is_read(workspace_id: UUID, campaign_id: UUID) -> bool:
    """Whether a worker has taken messages of a campaign."""
    async with transaction(workspace_id) as connection:
        read: bool = await connection.fetchval(
            "SELECT walked_through >= 0 FROM dispatch WHERE campaign_id = $1", campaign_id
        )
    return read


def test_slots_are_owed_to_who_has_none_until_they_have_some() -> None:
    slots, rich, poor = Slots(2), asyncio.Event(), asyncio.Event()
    with slots.heard_by(rich):
        with slots.heard_by(poor):
            assert not slots.are_owed_to_others(rich)
            slots.wait_for_one(poor)
            assert (slots.are_owed_to_others(rich), slots.are_owed_to_others(poor)) == (True, False)
            slots.stop_waiting(poor)
            assert not slots.are_owed_to_others(rich)
            assert rich.is_set()
            slots.wait_for_one(poor)
        assert not slots.are_owed_to_others(rich)


async def test_a_turn_without_a_slot_takes_nothing_of_a_rate_that_others_could_use(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """What is reserved and lapses is lost to all workers."""
    await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now, rate_per_s=10)
    await sending.start(workspace, campaign.id, now=now)
    sender = carrier(ScriptedChannel(), concurrency=2)
    sender.slots.take(2)
    job = asyncio.create_task(sending.deliver(workspace, campaign.id, carrier=sender, now=now, until=monotonic() + 60))
    while not sender.slots.waiting and not await is_reserved(workspace):
        pass
    assert not await is_reserved(workspace)
    sender.slots.give_back(2)
    await job
    assert await is_reserved(workspace)


async def is_reserved(workspace_id: UUID) -> bool:
    async with transaction(workspace_id) as connection:
        return bool(await connection.fetchval("SELECT next_send_at IS NOT NULL FROM dispatch"))


async def test_what_is_taken_while_the_claim_is_closed_is_not_left_behind(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """A taking whose answer was lost may be committed after the turn has given back what it knew of. Nobody would read
    its rows again, and the campaign never be SENT."""
    await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    stopped = carrier(ScriptedChannel())
    await sending.prepare(workspace, campaign.id, carrier=stopped, now=now, until=monotonic() + 60)
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        ids = {"workspace_id": workspace, "dispatch_id": dispatch_id}
        claim_id = await claims.open_claim(connection, **ids, owner=uuid4(), lease=timedelta(seconds=30))

    async def close() -> None:
        async with transaction(workspace) as connection:
            await claims.close_claim(connection, **ids, claim_id=claim_id, settled=True)

    async with transaction(workspace) as connection:
        lease = timedelta(seconds=30)
        assert len(await claims.take(connection, **ids, claim_id=claim_id, lease=lease, limit=10) or ()) == 4
        with apart():
            closing = asyncio.create_task(close())
            while not await somebody_waits(workspace):
                pass
    await closing
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT count(*) FROM claim") == 0
        assert await connection.fetchval("SELECT min(profile_id) > max(walked_through) FROM delivery, dispatch")


async def test_a_cancelled_campaign_whose_content_is_refused_by_now_ends_too(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """A newer version may refuse what an older one froze: nothing leaves, and the sweeper must not ring for ever."""
    people = await make_people(workspace, NAMES[:2], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    await sending.prepare(workspace, campaign.id, carrier=carrier(channel), now=now, until=monotonic() + 60)
    async with transaction(workspace) as connection:
        await connection.execute(
            "UPDATE dispatch SET content = jsonb_set(content, '{email,subject}', '\"{{ nothing.of.ours( }}\"')"
        )
    await deliver_all(workspace, campaign.id, channel, now)
    assert (await get(workspace, campaign.id)).status is CampaignStatus.PAUSED
    await control.cancel(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    skipped = (DeliveryState.SKIPPED, "CANCELLED")
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), skipped)
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT finished_at IS NOT NULL FROM dispatch")
    assert channel.received == []
