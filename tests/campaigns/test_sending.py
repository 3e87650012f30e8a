"""A campaign from start to SENT through the ledger, against a scripted channel and a real database."""

import asyncio
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import pytest

from campaigns import control, counts, deliveries, ledger, rehearsal, sending, sweeping, tallies
from campaigns.errors import CampaignError, IllegalMove, TargetError
from campaigns.listing import get
from campaigns.models import CampaignClass, CampaignStatus, DeliveryState, DispatchKind
from channels.base import EmailMessage, Outcome, OutcomeKind, OutcomeScope
from db.transactions import transaction
from profiles import consent
from profiles.addresses import AddressHasher, Channel
from segments import lifecycle as segment_lifecycle
from segments import static
from segments.lifecycle import SegmentInput
from segments.models import SegmentType
from tests.campaigns.factories import ACCEPTED, ScriptedChannel, carrier, make_campaign, make_people

NAMES = [f"p{place:03}" for place in range(30)]


async def deliver_all(workspace_id: UUID, campaign_id: UUID, channel: ScriptedChannel, now: datetime) -> None:
    again = True
    while again:
        again = await sending.deliver(
            workspace_id, campaign_id, carrier=carrier(channel), now=now, until=monotonic() + 60
        )


async def make_static(workspace_id: UUID, name: str, members: list[str], *, now: datetime) -> UUID:
    segment = await segment_lifecycle.create(workspace_id, SegmentInput(name=name, type=SegmentType.STATIC), now=now)
    await segment_lifecycle.activate(workspace_id, segment.id, now=now)
    await static.add_members(workspace_id, segment.id, external_ids=members, now=now)
    return segment.id


async def states(workspace_id: UUID, campaign_id: UUID) -> dict[int, tuple[DeliveryState, str | None]]:
    rows = await deliveries.page(workspace_id, campaign_id, limit=100)
    return {row.profile_id: (row.state, row.reason) for row in rows}


async def test_everyone_reachable_gets_one_message_and_the_ledger_says_so(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S3-18, S3-23, S3-26, S3-27."""
    people = await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    channel = ScriptedChannel()
    started = await sending.start(workspace, campaign.id, now=now)
    assert started.status is CampaignStatus.PREPARING
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES]
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), (DeliveryState.SENT, None))
    progress = (await counts.of_campaigns(workspace, [campaign.id], max_age=timedelta(0)))[campaign.id]
    assert (progress.audience, progress.sent, progress.pending, progress.no_address) == (30, 30, 0, 0)
    assert await tallies.verify(workspace) == []


async def test_a_person_in_several_segments_gets_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S3-11, S3-17."""
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    first = await make_static(workspace, "first", NAMES[:4], now=now)
    second = await make_static(workspace, "second", NAMES[2:6], now=now)
    campaign = await make_campaign(workspace, now=now, segment_ids=(first, second))
    channel = ScriptedChannel()
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:6]]


async def test_an_excluded_segment_is_spared(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    await make_people(workspace, NAMES[:5], hasher=hasher, now=now)
    spared = await make_static(workspace, "spared", NAMES[:2], now=now)
    campaign = await make_campaign(workspace, now=now, excluded_segment_ids=(spared,))
    channel = ScriptedChannel()
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[2:5]]


async def test_a_segment_to_spare_that_is_paused_stops_the_start(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, NAMES[:5], hasher=hasher, now=now)
    spared = await make_static(workspace, "spared", NAMES[:2], now=now)
    campaign = await make_campaign(workspace, now=now, excluded_segment_ids=(spared,))
    await segment_lifecycle.pause(workspace, spared, now=now)
    with pytest.raises(TargetError) as refusal:
        await sending.start(workspace, campaign.id, now=now)
    assert (refusal.value.code, refusal.value.field) == ("SEGMENT_NOT_ACTIVE", ("excluded_segment_ids", "0"))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.DRAFT


async def test_gated_people_are_skipped_with_the_reason(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    people = await make_people(workspace, NAMES[:3], hasher=hasher, now=now)
    twin = await make_people(workspace, ["zz"], hasher=hasher, now=now)
    async with transaction(workspace) as connection:
        await connection.execute(
            "UPDATE profile SET email = o.email, email_hash = o.email_hash FROM profile o"
            " WHERE profile.id = $1 AND o.id = $2",
            twin["zz"],
            people["p002"],
        )
        await connection.execute("INSERT INTO profile (workspace_id, external_id) VALUES ($1, 'no address')", workspace)
    await consent.set_consent(
        workspace_id=workspace,
        profile_id=people["p000"],
        channel=Channel.EMAIL,
        topic="marketing",
        status=consent.ConsentStatus.UNSUBSCRIBED,
        source="test",
        now=now,
    )
    async with transaction(workspace) as connection:
        await consent.suppress_profiles(
            connection,
            workspace_id=workspace,
            profile_ids=[people["p001"]],
            reason=consent.SuppressionReason.HARD_BOUNCE,
        )
    campaign = await make_campaign(workspace, now=now)
    dry = await rehearsal.dry_run(workspace, campaign.id)
    assert (dry.audience, dry.reachable, dry.no_address) == (5, 1, 1)
    assert dry.skipped == {"UNSUBSCRIBED": 1, "SUPPRESSED": 1, "DUPLICATE_ADDRESS": 1}
    channel = ScriptedChannel()
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == ["p002@example.com"]
    assert await states(workspace, campaign.id) == {
        people["p000"]: (DeliveryState.SKIPPED, "UNSUBSCRIBED"),
        people["p001"]: (DeliveryState.SKIPPED, "SUPPRESSED"),
        people["p002"]: (DeliveryState.SENT, None),
        twin["zz"]: (DeliveryState.SKIPPED, "DUPLICATE_ADDRESS"),
    }
    assert (await counts.of_campaigns(workspace, [campaign.id]))[campaign.id].no_address == 1


async def test_a_transactional_campaign_ignores_consent_and_never_suppression(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, NAMES[:2], hasher=hasher, now=now)
    await consent.set_consent(
        workspace_id=workspace,
        profile_id=people["p000"],
        channel=Channel.EMAIL,
        topic="marketing",
        status=consent.ConsentStatus.UNSUBSCRIBED,
        source="test",
        now=now,
    )
    async with transaction(workspace) as connection:
        await consent.suppress_profiles(
            connection, workspace_id=workspace, profile_ids=[people["p001"]], reason=consent.SuppressionReason.MANUAL
        )
    campaign = await make_campaign(workspace, now=now, class_=CampaignClass.TRANSACTIONAL)
    channel = ScriptedChannel()
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == ["p000@example.com"]


async def test_an_unsubscribe_after_the_start_holds_before_the_next_intent(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """T-23: in a blast under way no intent follows the commit."""
    people = await make_people(workspace, NAMES[:10], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    channel = ScriptedChannel()
    channel.go.clear()
    await sending.start(workspace, campaign.id, now=now)
    job = asyncio.create_task(
        sending.deliver(
            workspace, campaign.id, carrier=carrier(channel, concurrency=2), now=now, until=monotonic() + 60
        )
    )
    await channel.until_received(2)
    await consent.set_consent(
        workspace_id=workspace,
        profile_id=people["p009"],
        channel=Channel.EMAIL,
        topic="marketing",
        status=consent.ConsentStatus.UNSUBSCRIBED,
        source="test",
        now=now,
    )
    channel.go.set()
    await job
    assert "p009@example.com" not in channel.recipients
    assert (await states(workspace, campaign.id))[people["p009"]] == (DeliveryState.SKIPPED, "UNSUBSCRIBED")


async def test_a_paused_campaign_sends_nothing_more_and_resumes_where_it_stopped(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    channel = ScriptedChannel()
    channel.go.clear()
    await sending.start(workspace, campaign.id, now=now)
    until = monotonic() + 600  # the job must end because nothing can be taken, not because its time is up
    job = asyncio.create_task(
        sending.deliver(workspace, campaign.id, carrier=carrier(channel, concurrency=3), now=now, until=until)
    )
    await channel.until_received(3)
    await control.pause(workspace, campaign.id, now=now)
    channel.go.set()
    await job
    assert len(channel.received) == 3
    progress = (await counts.of_campaigns(workspace, [campaign.id], max_age=timedelta(0)))[campaign.id]
    assert (progress.sent, progress.pending, progress.sending) == (3, 27, 0)
    await control.resume(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES]
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_a_cancelled_campaign_skips_the_rest(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    await make_people(workspace, NAMES[:10], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    channel = ScriptedChannel()
    channel.go.clear()
    await sending.start(workspace, campaign.id, now=now)
    job = asyncio.create_task(
        sending.deliver(
            workspace, campaign.id, carrier=carrier(channel, concurrency=2), now=now, until=monotonic() + 60
        )
    )
    await channel.until_received(2)
    await control.cancel(workspace, campaign.id, now=now)
    channel.go.set()
    await job
    await deliver_all(workspace, campaign.id, channel, now)
    progress = (await counts.of_campaigns(workspace, [campaign.id], max_age=timedelta(0)))[campaign.id]
    assert (progress.sent, progress.skipped, progress.pending) == (2, 8, 0)
    assert progress.finished_at is not None
    with pytest.raises(IllegalMove):
        await sending.start(workspace, campaign.id, now=now)


async def test_a_campaign_cancelled_before_its_ledger_was_written_ends_without_one(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, NAMES[:3], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await control.cancel(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    progress = (await counts.of_campaigns(workspace, [campaign.id], max_age=timedelta(0)))[campaign.id]
    assert channel.received == []
    # Not planned: its rows, of which there are none, are not the audience.
    assert (progress.audience, progress.skipped, progress.planned_at) == (3, 0, None)
    assert progress.finished_at is not None


async def test_an_expired_campaign_skips_the_rest_and_is_sent(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S3-25."""
    people = await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now, expires_at=now + timedelta(hours=1))
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE campaign SET expires_at = now()")
    later = now + timedelta(hours=2)
    assert await control.act_on_time(workspace, campaign.id, now=later) is None
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, later)
    assert channel.received == []
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), (DeliveryState.SKIPPED, "EXPIRED"))
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_an_answer_lost_after_the_payload_is_in_doubt_and_never_sent_again(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, NAMES[:3], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)

    def answer(message: EmailMessage) -> Outcome:
        lost = message.recipient.startswith("p001")
        return Outcome(OutcomeKind.IN_DOUBT, "ANSWER_LOST", "after-dot") if lost else ACCEPTED

    channel = ScriptedChannel(answer)
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert len(channel.received) == 3
    assert (await states(workspace, campaign.id))[people["p001"]] == (DeliveryState.IN_DOUBT, "ANSWER_LOST")
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_a_bad_address_fails_and_is_suppressed(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    people = await make_people(workspace, NAMES[:2], hasher=hasher, now=now)
    refused = Outcome(OutcomeKind.REFUSED, "BAD_ADDRESS", "rcpt", "550 5.1.1 no such user", bad_address=True)
    campaign = await make_campaign(workspace, now=now)
    channel = ScriptedChannel(lambda m: refused if m.recipient.startswith("p000") else ACCEPTED)
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert (await states(workspace, campaign.id))[people["p000"]] == (DeliveryState.FAILED, "BAD_ADDRESS")
    again = await make_campaign(workspace, now=now)
    assert (await rehearsal.dry_run(workspace, again.id)).skipped == {"SUPPRESSED": 1}


async def test_what_was_deferred_is_sent_with_the_same_message_id_and_date(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R10."""
    await make_people(workspace, NAMES[:1], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    later = Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "rcpt", "451", retry_after=timedelta(0))
    answers = iter([later, ACCEPTED])
    channel = ScriptedChannel(lambda m: next(answers))
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENDING
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE delivery SET not_before = now()")
    await deliver_all(workspace, campaign.id, channel, now + timedelta(minutes=1))
    first, second = channel.received
    assert first.data == second.data
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_a_channel_that_refuses_everybody_pauses_the_campaign_with_the_reason(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    wrong = Outcome(OutcomeKind.DEFERRED, "LOGIN_REFUSED", "auth", "535 wrong password", scope=OutcomeScope.CHANNEL)
    channel = ScriptedChannel(lambda m: wrong)
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    found = await get(workspace, campaign.id)
    assert (found.status, found.status_reason) == (CampaignStatus.PAUSED, "LOGIN_REFUSED")
    progress = (await counts.of_campaigns(workspace, [campaign.id], max_age=timedelta(0)))[campaign.id]
    assert (progress.failed, progress.sent) == (0, 0)


async def test_rows_of_a_dead_worker_go_back_or_into_doubt(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R2, R3: what was only read is provably unsent, sending may have left."""
    people = await make_people(workspace, NAMES[:4], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = ScriptedChannel()
    channel.go.clear()
    job = asyncio.create_task(
        sending.deliver(
            workspace, campaign.id, carrier=carrier(channel, concurrency=2), now=now, until=monotonic() + 60
        )
    )
    await channel.until_received(2)
    async with transaction(workspace) as connection:
        claim_id = await connection.fetchval("UPDATE claim SET lease_until = now() - interval '1 s' RETURNING id")
    assert await sweeping.release(workspace, claim_id)
    assert not await sweeping.release(workspace, claim_id)
    second = ScriptedChannel()
    await deliver_all(workspace, campaign.id, second, now)
    assert len(second.received) == 2
    in_doubt = {p for p, (state, _) in (await states(workspace, campaign.id)).items() if state == "in_doubt"}
    assert len(in_doubt) == 2
    # The first worker was only slow: its answers come in under its own fence and settle the doubt.
    channel.go.set()
    await job
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), (DeliveryState.SENT, None))
    assert len({m.recipient for m in channel.received + second.received}) == 4
    # The dispatch was finished meanwhile: its stored counts are counted again.
    assert (await counts.of_campaigns(workspace, [campaign.id], max_age=timedelta(0)))[campaign.id].sent == 4
    await deliver_all(workspace, campaign.id, second, now)
    assert await tallies.verify(workspace) == []
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT counts FROM dispatch") == {"sent": 4}


async def test_an_outcome_under_an_old_fence_is_not_written(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R4."""
    people = await make_people(workspace, NAMES[:1], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, ScriptedChannel(), now)
    row = (await deliveries.page(workspace, campaign.id, limit=1))[0]
    old = ledger.Result(people["p000"], 0, 0, DeliveryState.FAILED)
    async with transaction(workspace) as connection:
        claim_id = await connection.fetchval("SELECT claim_id FROM delivery")
        ids = {"workspace_id": workspace, "dispatch_id": row.dispatch_id}
        assert await ledger.record(connection, **ids, claim_id=claim_id, results=[old]) == 0
        of_another = ledger.Result(people["p000"], 0, 1, DeliveryState.FAILED)
        assert await ledger.record(connection, **ids, claim_id=claim_id + 1, results=[of_another]) == 0
    assert await states(workspace, campaign.id) == {people["p000"]: (DeliveryState.SENT, None)}


async def test_a_test_send_leaves_state_and_counts_alone(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    """S3-22."""
    await make_people(workspace, NAMES, hasher=hasher, now=now)
    colleagues = await make_static(workspace, "colleagues", NAMES[:5], now=now)
    campaign = await make_campaign(workspace, now=now)
    dispatch = await rehearsal.send_test(workspace, campaign.id, segment_id=colleagues)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:5]]
    assert all(b"\r\nSubject: [Test] Hello p00" in message.data for message in channel.received)
    assert (await get(workspace, campaign.id)).status is CampaignStatus.DRAFT
    assert await counts.of_campaigns(workspace, [campaign.id]) == {}
    asked = (campaign.id, DispatchKind.TEST)
    assert [(run.id, run.progress.sent) for run in (await counts.runs(workspace, [asked]))[asked]] == [(dispatch.id, 5)]
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, channel, now)
    assert len(channel.received) == 35


async def test_a_campaign_that_lacks_something_is_refused_by_field(workspace: UUID, now: datetime) -> None:
    cases: dict[tuple[str, tuple[str, ...]], dict[str, object]] = {
        ("SEGMENT_MISSING", ("segment_ids",)): {"segment_ids": ()},
        ("SENDER_MISSING", ("sender_id",)): {"sender_id": None},
    }
    for (code, field), wanted in cases.items():
        campaign = await make_campaign(workspace, now=now, **wanted)
        with pytest.raises(CampaignError) as refusal:
            await sending.start(workspace, campaign.id, now=now)
        assert (refusal.value.code, refusal.value.field) == (code, field)
        assert (await get(workspace, campaign.id)).status is CampaignStatus.DRAFT


async def test_nobody_to_send_to_is_sent(workspace: UUID, now: datetime) -> None:
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, ScriptedChannel(), now)
    assert (await get(workspace, campaign.id)).status is CampaignStatus.SENT


async def test_the_audience_is_frozen_when_sending_starts(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """T-9: who comes later is not mailed."""
    await make_people(workspace, NAMES[:3], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await make_people(workspace, NAMES[3:6], hasher=hasher, now=now)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.recipients == [f"{name}@example.com" for name in NAMES[:3]]
