"""A push campaign from start to SENT: a row a device, who is skipped, what goes again, which devices are disabled."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import orjson
import pytest

from campaigns import claims, control, planning, push_credentials, rehearsal, sending
from campaigns.errors import CampaignError
from campaigns.listing import get
from campaigns.models import CampaignStatus
from campaigns.push_credentials import ApnsSecret, FcmSecret, Secret
from channels.base import Outcome, OutcomeKind, OutcomeScope, PushProvider
from db.transactions import Connection, apart, transaction
from profiles import consent, devices, erasing, merging
from profiles.addresses import AddressHasher, Channel
from profiles.devices import Platform, Provider
from tests.campaigns.factories import make_people
from tests.campaigns.push_factories import (
    ACCEPTED,
    CONTENT,
    GONE,
    ScriptedConnection,
    ScriptedProvider,
    deliver,
    disabled,
    make_device,
    make_devices,
    make_push_campaign,
    push_carrier,
    send,
    set_credential,
)
from tests.campaigns.test_sending import make_static

IPHONE = "a1" * 32
LEDGER = """
SELECT p.external_id, v.token, d.state, d.reason FROM delivery d
JOIN profile p ON p.workspace_id = d.workspace_id AND p.id = d.profile_id
LEFT JOIN device v ON v.workspace_id = d.workspace_id AND v.id = d.device_id ORDER BY 1, 2
"""
Row = tuple[str, str | None, str, str | None]
APNS = ApnsSecret("a key", "ABC1234567", "TEAM123456", "com.example.shop")


async def ledger(workspace: UUID) -> list[Row]:
    """Whose message, to which token, in which state, and why."""
    async with transaction(workspace) as connection:
        return [tuple(row) for row in await connection.fetch(LEDGER)]


async def test_every_device_of_every_profile_gets_one_message_and_a_row(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """S3-19, S3-21."""
    await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now, token="phone")
    await make_device(workspace, "ann", now=now, token=IPHONE, provider=Provider.APNS, platform=Platform.IOS)
    await make_device(workspace, "ben", now=now, token="tablet")
    await set_credential(workspace, now=now)
    await set_credential(workspace, APNS, now=now)
    provider = ScriptedProvider()
    campaign_id = await send(workspace, provider, hasher, now)
    assert await ledger(workspace) == [
        ("ann", IPHONE, "sent", None),
        ("ann", "phone", "sent", None),
        ("ben", "tablet", "sent", None),
        ("cleo", None, "skipped", "NO_DEVICE"),
    ]
    assert {(one.token, one.provider) for one in provider.received} == {
        (IPHONE, PushProvider.APNS),
        ("phone", PushProvider.FCM),
        ("tablet", PushProvider.FCM),
    }
    # FCM gives names of its own; APNs is told one.
    assert [(one.token, bool(UUID(one.message_id))) for one in provider.received if one.message_id] == [(IPHONE, True)]
    assert (await get(workspace, campaign_id)).status is CampaignStatus.SENT


async def test_each_app_has_its_own_credential_and_a_device_without_one_is_skipped(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now, token="of-the-shop", app="shop")
    await make_device(workspace, "ben", now=now, token="of-the-club", app="club")
    await make_device(workspace, "cleo", now=now, token="of-another", app="another")
    await set_credential(workspace, FcmSecret("shop"), app="shop", now=now)
    await set_credential(workspace, FcmSecret("club"), app="club", now=now)
    provider = ScriptedProvider()
    await send(workspace, provider, hasher, now)
    assert await ledger(workspace) == [
        ("ann", "of-the-shop", "sent", None),
        ("ben", "of-the-club", "sent", None),
        ("cleo", "of-another", "skipped", "NO_CREDENTIAL"),
    ]
    assert provider.opened == [FcmSecret("club"), FcmSecret("shop")]


async def test_without_a_credential_nothing_is_started_or_scheduled(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, ["ann"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now)
    campaign = await make_push_campaign(workspace, now=now)
    with pytest.raises(CampaignError) as refusal:
        await control.schedule(workspace, campaign.id, at=now + timedelta(hours=1), now=now)
    assert refusal.value.code == "PUSH_CREDENTIAL_MISSING"
    await set_credential(workspace, APNS, now=now)
    with pytest.raises(CampaignError, match="FCM for the app 'default'") as refusal:
        await sending.start(workspace, campaign.id, now=now)
    assert refusal.value.code == "PUSH_CREDENTIAL_MISSING"
    assert (await get(workspace, campaign.id)).status is CampaignStatus.DRAFT


async def test_whoever_does_not_want_push_is_skipped_at_the_freeze_and_at_the_last_look(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Consent for push, not for mail; suppression by the device's token."""
    people = await make_people(workspace, ["ann", "ben", "cleo", "dan"], hasher=hasher, now=now)
    await make_devices(workspace, list(people), now=now)
    await set_credential(workspace, now=now)

    async def unsubscribe(name: str, channel: Channel) -> None:
        await consent.unsubscribe(
            workspace, profile_id=people[name], channel=channel, topic="*", source="test", now=now
        )

    await unsubscribe("ann", Channel.PUSH)
    await unsubscribe("dan", Channel.EMAIL)
    provider = ScriptedProvider()
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    carrier = push_carrier(provider, hasher)
    await sending.prepare(workspace, campaign.id, carrier=carrier, now=now, until=monotonic() + 60)
    await unsubscribe("ben", Channel.PUSH)
    async with transaction(workspace) as connection:
        await connection.execute(
            "INSERT INTO suppression (workspace_id, channel, address_hash, reason) VALUES ($1, 'PUSH', $2, 'MANUAL')",
            workspace,
            hasher.hash(Channel.PUSH, "token-cleo"),
        )
    await deliver(workspace, campaign.id, carrier, now=now)
    assert await ledger(workspace) == [
        ("ann", "token-ann", "skipped", "UNSUBSCRIBED"),
        ("ben", "token-ben", "skipped", "UNSUBSCRIBED"),
        ("cleo", "token-cleo", "skipped", "SUPPRESSED"),
        ("dan", "token-dan", "sent", None),
    ]


async def test_a_device_that_goes_meanwhile_is_skipped_with_the_reason(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Disabled, moved to another profile, erased with its owner; one whose owner was merged is sent to."""
    people = await make_people(workspace, ["ann", "ben", "cleo", "dan", "eve"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben", "cleo", "dan"], now=now)
    await set_credential(workspace, now=now)
    provider = ScriptedProvider()
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    carrier = push_carrier(provider, hasher)
    await sending.prepare(workspace, campaign.id, carrier=carrier, now=now, until=monotonic() + 60)
    await devices.unregister(workspace, Provider.FCM, "token-ann", now=now)
    await make_device(workspace, "eve", now=now, token="token-ben")
    async with transaction(workspace) as connection:
        await erasing.erase(connection, workspace_id=workspace, profile_id=people["cleo"], now=now)
    await merging.merge(workspace, winner_id=people["eve"], loser_id=people["dan"], now=now)
    await deliver(workspace, campaign.id, carrier, now=now)
    async with transaction(workspace) as connection:
        rows = await connection.fetch("SELECT profile_id, state, reason FROM delivery WHERE device_id <> 0")
    assert {row["profile_id"]: (row["state"], row["reason"]) for row in rows} == {
        people["ann"]: ("skipped", "DEVICE_GONE"),
        people["ben"]: ("skipped", "DEVICE_MOVED"),
        people["cleo"]: ("skipped", "ERASED"),
        people["dan"]: ("sent", None),
    }
    assert provider.tokens == ["token-dan"]


async def test_a_device_whose_owner_is_merged_between_the_taking_and_the_making_gets_its_message(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to another profile than was taken, and yet has not moved."""
    people = await make_people(workspace, ["ann", "ben"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann"], now=now)
    await set_credential(workspace, now=now)
    campaign, provider = await make_push_campaign(workspace, now=now), ScriptedProvider()
    await sending.start(workspace, campaign.id, now=now)
    find = devices.find_by_ids

    async def merged_first(connection: Connection, workspace_id: UUID, ids: list[int]) -> dict[int, devices.Device]:
        with apart():
            await merging.merge(workspace_id, winner_id=people["ben"], loser_id=people["ann"], now=now)
        return await find(connection, workspace_id, ids)

    monkeypatch.setattr(devices, "find_by_ids", merged_first)
    await deliver(workspace, campaign.id, push_carrier(provider, hasher), now=now)
    assert provider.tokens == ["token-ann"]


async def test_a_device_whose_owner_is_merged_between_the_freeze_and_the_ledger_gets_its_message_once(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """With somebody who came after the freeze, and with somebody of the audience."""
    people = await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben", "cleo"], now=now)
    await set_credential(workspace, now=now)
    campaign, provider = await make_push_campaign(workspace, now=now), ScriptedProvider()
    await sending.start(workspace, campaign.id, now=now)
    people |= await make_people(workspace, ["dan"], hasher=hasher, now=now)
    await merging.merge(workspace, winner_id=people["dan"], loser_id=people["ann"], now=now)
    await merging.merge(workspace, winner_id=people["cleo"], loser_id=people["ben"], now=now)
    await deliver(workspace, campaign.id, push_carrier(provider, hasher), now=now)
    assert sorted(provider.tokens) == ["token-ann", "token-ben", "token-cleo"]


async def test_a_device_whose_owner_is_merged_into_somebody_to_spare_gets_nothing(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The campaign excludes cleo, who is ben as well since the freeze: R1."""
    people = await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben", "cleo"], now=now)
    await set_credential(workspace, now=now)
    spared = await make_static(workspace, "spared", ["cleo"], now=now)
    campaign = await make_push_campaign(workspace, now=now, excluded_segment_ids=(spared,))
    provider = ScriptedProvider()
    await sending.start(workspace, campaign.id, now=now)
    await merging.merge(workspace, winner_id=people["cleo"], loser_id=people["ben"], now=now)
    await deliver(workspace, campaign.id, push_carrier(provider, hasher), now=now)
    assert provider.tokens == ["token-ann"]
    assert {row[1:] for row in await ledger(workspace)} == {
        ("token-ann", "sent", None),
        ("token-ben", "skipped", "EXCLUDED"),
        ("token-cleo", "skipped", "EXCLUDED"),
    }


async def test_a_device_that_moves_at_the_last_moment_is_seen_by_the_intent(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Made ready and waiting for a slot: the last look finds what has changed since."""
    await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben", "cleo"], now=now)
    await set_credential(workspace, now=now)
    provider = ScriptedProvider()
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    carrier = push_carrier(provider, hasher, concurrency=1)
    provider.go.clear()
    work = asyncio.create_task(deliver(workspace, campaign.id, carrier, now=now))
    await provider.until_received(1)
    first = provider.received[0].token.removeprefix("token-")
    second, third = [name for name in ("ann", "ben", "cleo") if name != first]
    await devices.unregister(workspace, Provider.FCM, f"token-{second}", now=now)
    await make_device(workspace, first, now=now, token=f"token-{third}")
    provider.go.set()
    await work
    assert provider.tokens == [f"token-{first}"]
    assert {row[:1] + row[2:] for row in await ledger(workspace)} == {
        (first, "sent", None),
        (second, "skipped", "DEVICE_GONE"),
        (third, "skipped", "DEVICE_MOVED"),
    }


async def test_a_device_that_is_gone_is_disabled_and_one_that_came_back_is_not(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """APNs says since when: a device that registered after that is there all the same. A payload's mistake disables
    nobody."""
    await make_people(workspace, ["ann", "ben", "cleo", "dan"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben", "cleo", "dan"], now=now)
    await set_credential(workspace, now=now)
    long_ago = Outcome(
        OutcomeKind.REFUSED, "UNREGISTERED", "ANSWER", bad_address=True, gone_at=now - timedelta(hours=2)
    )
    answers = {
        "token-ann": GONE,
        "token-ben": long_ago,
        "token-cleo": Outcome(OutcomeKind.REFUSED, "REFUSED", "ANSWER"),
        "token-dan": ACCEPTED,
    }
    provider = ScriptedProvider(lambda message: answers[message.token])
    await send(workspace, provider, hasher, now)
    assert [(row[0], *row[2:]) for row in await ledger(workspace)] == [
        ("ann", "failed", "UNREGISTERED"),
        ("ben", "failed", "UNREGISTERED"),
        ("cleo", "failed", "REFUSED"),
        ("dan", "sent", None),
    ]
    assert await disabled(workspace) == ["token-ann"]


async def test_a_device_that_moves_while_the_ledger_is_written_gets_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in two chunks: the later owner's row is kept."""
    monkeypatch.setattr(planning, "CHUNK", 1)
    await make_people(workspace, ["ann", "ben"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now, token="tablet")
    await set_credential(workspace, now=now)
    provider = ScriptedProvider()
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    async with transaction(workspace) as connection:
        dispatch_id = await connection.fetchval("SELECT id FROM dispatch")
        assert await planning.plan_chunk(connection, workspace_id=workspace, dispatch_id=dispatch_id)
    await make_device(workspace, "ben", now=now, token="tablet")
    carrier = push_carrier(provider, hasher)
    await sending.prepare(workspace, campaign.id, carrier=carrier, now=now, until=monotonic() + 60)
    assert await ledger(workspace) == [
        ("ann", "tablet", "skipped", "DEVICE_MOVED"),
        ("ben", "tablet", "pending", None),
    ]
    await deliver(workspace, campaign.id, carrier, now=now)
    assert provider.tokens == ["tablet"]


async def test_a_test_send_whose_credential_is_deleted_meanwhile_says_so(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, ["ann"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann"], now=now)
    await set_credential(workspace, now=now)
    campaign = await make_push_campaign(workspace, now=now)
    await rehearsal.send_test(workspace, campaign.id, external_ids=["ann"])
    await push_credentials.delete_credential(workspace, app="default", provider=PushProvider.FCM)
    await deliver(workspace, campaign.id, push_carrier(ScriptedProvider(), hasher), now=now)
    assert await ledger(workspace) == [("ann", "token-ann", "skipped", "NO_CREDENTIAL")]


@pytest.mark.parametrize(
    ("wanted", "token", "platform", "state"),
    [
        ({}, "phone", Platform.ANDROID, "deferred"),
        ({"resend_in_doubt": False}, "phone", Platform.ANDROID, "in_doubt"),
        ({}, "browser", Platform.WEB, "in_doubt"),
        ({"silent": True, "title": "", "body": ""}, "phone", Platform.ANDROID, "in_doubt"),
    ],
)
async def test_what_is_in_doubt_goes_again_only_where_a_copy_takes_its_place(
    workspace: UUID,
    now: datetime,
    hasher: AddressHasher,
    wanted: dict[str, Any],
    token: str,
    platform: Platform,
    state: str,
) -> None:
    """R10: silent and web push wait for inDoubtResolve, as does all of a campaign that says so; the same rule holds
    for the messages of a worker that died."""
    await make_people(workspace, ["ann"], hasher=hasher, now=now)
    device = await make_device(workspace, "ann", now=now, token=token, platform=platform)
    await set_credential(workspace, now=now)
    lost = Outcome(OutcomeKind.IN_DOUBT, "CONNECTION_LOST", "ANSWER")
    provider = ScriptedProvider(lambda message: lost)
    campaign_id = await send(workspace, provider, hasher, now, content=replace(CONTENT, **wanted))
    assert await ledger(workspace) == [("ann", token, state, "CONNECTION_LOST")]
    await lose_a_worker(workspace, device.id)
    assert await ledger(workspace) == [("ann", token, state, "WORKER_LOST")]
    provider.answer = lambda message: ACCEPTED
    await deliver(workspace, campaign_id, push_carrier(provider, hasher), now=now)
    again = state == "deferred"
    assert await ledger(workspace) == [("ann", token, "sent", None) if again else ("ann", token, state, "WORKER_LOST")]
    assert len({(one.message_id, one.collapse_id) for one in provider.received}) == 1
    assert len(provider.received) == (2 if again else 1)


async def lose_a_worker(workspace: UUID, device_id: int) -> None:
    """Have the message of a device be leaving under a claim whose worker is dead, and the sweeper find it."""
    async with transaction(workspace) as connection:
        claim_id = await connection.fetchval(
            "INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until)"
            " SELECT $1, dispatch_id, gen_random_uuid(), now() - interval '1 s' FROM delivery RETURNING id",
            workspace,
        )
        await connection.execute(
            "UPDATE delivery SET state = 'sending', claim_id = $1, not_before = NULL WHERE device_id = $2",
            claim_id,
            device_id,
        )
    async with transaction(workspace) as connection:
        assert await claims.release_expired(connection, workspace_id=workspace, claim_id=claim_id)


async def test_a_provider_that_is_away_holds_up_its_own_messages_only(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben"], now=now)
    await make_device(workspace, "cleo", now=now, token=IPHONE, provider=Provider.APNS, platform=Platform.IOS)
    await set_credential(workspace, now=now)
    await set_credential(workspace, APNS, now=now)
    busy = Outcome(
        OutcomeKind.DEFERRED, "TRY_LATER", "ANSWER", scope=OutcomeScope.HOST, retry_after=timedelta(minutes=2)
    )
    provider = ScriptedProvider(lambda message: busy if message.provider is PushProvider.FCM else ACCEPTED)
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await deliver(workspace, campaign.id, push_carrier(provider, hasher, concurrency=1), now=now)
    assert [(row[0], *row[2:]) for row in await ledger(workspace)] == [
        ("ann", "deferred", "TRY_LATER"),
        ("ben", "deferred", "HOST_UNAVAILABLE"),
        ("cleo", "sent", None),
    ]
    assert provider.tokens == [IPHONE, "token-ann"]
    async with transaction(workspace) as connection:
        waits = await connection.fetch(
            "SELECT attempt, not_before - updated_at AS wait FROM delivery WHERE state = 'deferred' ORDER BY 1"
        )
    assert [row["attempt"] for row in waits] == [0, 0]
    assert all(timedelta(minutes=1, seconds=55) < row["wait"] < timedelta(minutes=2, seconds=15) for row in waits)


async def test_a_credential_that_is_refused_pauses_the_campaign_and_is_named(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Of several apps one has to be mended: the reason says which. Then all get theirs, and nobody twice."""
    await make_people(workspace, ["ann", "ben"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now, token="of-the-shop", app="shop")
    await make_device(workspace, "ben", now=now, token="of-the-club", app="club")
    await set_credential(workspace, FcmSecret("shop"), app="shop", now=now)
    await set_credential(workspace, FcmSecret("club"), app="club", now=now)
    refused = Outcome(
        OutcomeKind.DEFERRED, "AUTHENTICATION", "ANSWER", "403 PERMISSION_DENIED", scope=OutcomeScope.CHANNEL
    )
    provider = ScriptedProvider(lambda message: refused if message.token == "of-the-club" else ACCEPTED)
    campaign_id = await send(workspace, provider, hasher, now)
    paused = await get(workspace, campaign_id)
    assert (paused.status, paused.status_reason, paused.status_detail) == (
        CampaignStatus.PAUSED,
        "AUTHENTICATION",
        "FCM for the app 'club': 403 PERMISSION_DENIED",
    )
    assert [row[2] for row in await ledger(workspace)] == ["sent", "deferred"]


async def test_nothing_is_kept_longer_than_the_campaign_lasts(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """T-14: apns-expiration and TTL end with the campaign, FCM's a minute before, since it counts from the arrival."""
    await make_people(workspace, ["ann", "ben"], hasher=hasher, now=now)
    await make_device(workspace, "ann", now=now, token="phone")
    await make_device(workspace, "ben", now=now, token=IPHONE, provider=Provider.APNS, platform=Platform.IOS)
    await set_credential(workspace, now=now)
    await set_credential(workspace, APNS, now=now)
    provider = ScriptedProvider()
    expires_at = now + timedelta(hours=1)
    await send(workspace, provider, hasher, now, expires_at=expires_at)
    by_token = {message.token: message for message in provider.received}
    ends = by_token[IPHONE].expires_at
    assert ends is not None
    assert timedelta(0) <= expires_at - ends < timedelta(seconds=2)
    ttl = orjson.loads(by_token["phone"].payload)["android"]["ttl"]
    assert 3_480 < float(ttl.removesuffix("s")) <= 3_540


async def test_a_credential_that_is_changed_gets_a_channel_of_its_own_and_the_old_one_is_closed(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, ["ann"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann"], now=now)
    await set_credential(workspace, FcmSecret("old"), now=now)
    provider = ScriptedProvider()
    carrier = push_carrier(provider, hasher)
    for secret in (None, None, FcmSecret("new")):
        if secret is not None:
            await set_credential(workspace, secret, now=now)
        campaign = await make_push_campaign(workspace, now=now)
        await sending.start(workspace, campaign.id, now=now)
        await deliver(workspace, campaign.id, carrier, now=now)
    assert (provider.opened, provider.closed) == ([FcmSecret("old"), FcmSecret("new")], [FcmSecret("old")])
    await push_credentials.delete_credential(workspace, app="default", provider=PushProvider.FCM)
    assert carrier.push is not None
    assert await carrier.push.channels.of_workspace(workspace) == {}
    await carrier.push.channels.close()
    assert provider.closed == [FcmSecret("old"), FcmSecret("new")]


async def test_channels_are_made_while_the_ledger_is_written(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The first message to FCM waits for no library, and for no key to be read."""
    await make_people(workspace, ["ann"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann"], now=now)
    await set_credential(workspace, now=now)
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    loop, locked, made, written = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Told(ScriptedProvider):
        def connect(self, secret: Secret) -> ScriptedConnection:
            loop.call_soon_threadsafe(made.set)
            return super().connect(secret)

    async def hold_up_the_ledger() -> None:
        async with transaction(workspace) as connection:
            await connection.execute("SELECT FROM dispatch FOR UPDATE")
            locked.set()
            await written.wait()

    holding = asyncio.create_task(hold_up_the_ledger())
    await locked.wait()
    carrier = push_carrier(Told(), hasher)
    preparing = asyncio.create_task(
        sending.prepare(workspace, campaign.id, carrier=carrier, now=now, until=float("inf"))
    )
    async with asyncio.timeout(60):
        await made.wait()
    assert not preparing.done()
    written.set()
    await holding
    assert await preparing


async def test_a_credential_that_is_deleted_meanwhile_pauses_the_campaign(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    await make_people(workspace, ["ann"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann"], now=now)
    await set_credential(workspace, now=now)
    campaign = await make_push_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await push_credentials.delete_credential(workspace, app="default", provider=PushProvider.FCM)
    await deliver(workspace, campaign.id, push_carrier(ScriptedProvider(), hasher), now=now)
    paused = await get(workspace, campaign.id)
    assert (paused.status, paused.status_reason) == (CampaignStatus.PAUSED, "PUSH_CREDENTIAL_MISSING")


async def test_a_dry_run_counts_devices_and_a_test_send_goes_to_all_of_a_colleagues(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben"], now=now)
    await make_device(workspace, "ann", now=now, token="tablet")
    await set_credential(workspace, now=now)
    await consent.unsubscribe(
        workspace, profile_id=people["ben"], channel=Channel.PUSH, topic="*", source="test", now=now
    )
    campaign = await make_push_campaign(workspace, now=now)
    dry = await rehearsal.dry_run(workspace, campaign.id)
    assert (dry.audience, dry.reachable, dry.no_address, dry.skipped) == (3, 2, 1, {"UNSUBSCRIBED": 1})
    await rehearsal.send_test(workspace, campaign.id, external_ids=["ann", "ben"])
    provider = ScriptedProvider()
    await deliver(workspace, campaign.id, push_carrier(provider, hasher), now=now)
    assert provider.tokens == ["tablet", "token-ann", "token-ben"]
    titles = {orjson.loads(one.payload)["notification"]["title"] for one in provider.received}
    assert titles == {f"[Test] {CONTENT.title}"}
    assert (await get(workspace, campaign.id)).status is CampaignStatus.DRAFT
