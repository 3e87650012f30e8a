"""Devices that are gone are disabled, and a credential that may be the wrong one stops its campaign instead."""

from collections import Counter
from datetime import UTC, datetime
from uuid import UUID

import pytest

from campaigns import control
from campaigns.breaker import Breaker
from campaigns.listing import get
from campaigns.models import CampaignStatus
from campaigns.push_credentials import FcmSecret
from campaigns.push_guard import LEAST_SAMPLE
from channels.base import Outcome, OutcomeKind, PushProvider
from db.transactions import transaction
from profiles.addresses import AddressHasher
from profiles.devices import GoneDevice
from tests.campaigns.factories import make_people
from tests.campaigns.push_factories import (
    ACCEPTED,
    GONE,
    ScriptedProvider,
    deliver,
    disabled,
    make_device,
    make_devices,
    push_carrier,
    send,
    set_credential,
)

MISMATCH = Outcome(OutcomeKind.REFUSED, "OTHER_APP", "ANSWER", "403 SENDER_ID_MISMATCH", bad_address=True)


async def test_a_credential_of_another_project_pauses_the_campaign_and_disables_nobody(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Of two apps one has the wrong credential: none of its devices are that project's."""
    names = [f"p{place:03}" for place in range(LEAST_SAMPLE + 30)]
    await make_people(workspace, [*names, "ann"], hasher=hasher, now=now)
    await make_devices(workspace, names, now=now)
    await make_device(workspace, "ann", now=now, token="of-the-club", app="club")
    await set_credential(workspace, now=now)
    await set_credential(workspace, FcmSecret("club"), app="club", now=now)
    provider = ScriptedProvider(lambda message: ACCEPTED if message.token == "of-the-club" else MISMATCH)
    campaign_id = await send(workspace, provider, hasher, now)
    campaign = await get(workspace, campaign_id)
    assert (campaign.status, campaign.status_reason) == (CampaignStatus.PAUSED, "TOKENS_GONE")
    assert campaign.status_detail is not None
    assert campaign.status_detail.startswith(
        "100 % of the last 20 devices of FCM for the app 'default' are said to be no devices of that app"
        " (403 SENDER_ID_MISMATCH)."
    )
    assert LEAST_SAMPLE <= sum(message.token != "of-the-club" for message in provider.received) < len(names)
    assert await disabled(workspace) == []
    # Resumed with the right credential: everybody gets theirs, those who were refused before it stopped as well.
    provider.answer = lambda message: ACCEPTED
    await control.resume(workspace, campaign_id, now=now)
    await deliver(workspace, campaign_id, push_carrier(provider, hasher), now=now)
    assert (await get(workspace, campaign_id)).status is CampaignStatus.SENT
    async with transaction(workspace) as connection:
        states = await connection.fetch("SELECT state, count(*) FROM delivery GROUP BY 1")
    assert [tuple(row) for row in states] == [("sent", len(names) + 1)]


async def test_tokens_that_are_foreign_indeed_do_not_stop_a_campaign_for_ever(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """What was refused is tried once more at a resume, and not at the next."""
    names = [f"p{place:03}" for place in range(LEAST_SAMPLE + 4)]
    await make_people(workspace, names, hasher=hasher, now=now)
    await make_devices(workspace, names, now=now)
    await set_credential(workspace, now=now)
    provider = ScriptedProvider(lambda message: MISMATCH)
    campaign_id = await send(workspace, provider, hasher, now)
    for _ in range(3):
        if (await get(workspace, campaign_id)).status is not CampaignStatus.PAUSED:
            break
        await control.resume(workspace, campaign_id, now=now)
        await deliver(workspace, campaign_id, push_carrier(provider, hasher), now=now)
    assert (await get(workspace, campaign_id)).status is CampaignStatus.SENT
    assert sorted(Counter(provider.tokens).values()) == [2] * len(names)


def test_why_a_campaign_pauses_is_told_by_a_refusal_whatever_the_last_answer_was() -> None:
    breaker = Breaker(None)
    for place, outcome in enumerate([MISMATCH] * 10 + [ACCEPTED] * 10):
        assert breaker.pause is None
        gone = GoneDevice(place, f"token-{place}", datetime.now(UTC)) if outcome is MISMATCH else None
        breaker.note_token(("default", PushProvider.FCM), gone, outcome)
    assert breaker.pause is not None
    assert breaker.pause.detail.startswith(
        "50 % of the last 20 devices of FCM for the app 'default' are said to be no devices of that app"
        " (403 SENDER_ID_MISMATCH)."
    )


@pytest.mark.parametrize("devices_gone", [3, LEAST_SAMPLE + 5])
async def test_devices_that_their_own_app_knows_no_more_are_disabled_though_all_of_them_are(
    workspace: UUID, now: datetime, hasher: AddressHasher, devices_gone: int
) -> None:
    """A wrong credential never says UNREGISTERED, so the campaign goes on."""
    names = [f"p{place:03}" for place in range(devices_gone)]
    await make_people(workspace, names, hasher=hasher, now=now)
    await make_devices(workspace, names, now=now)
    await set_credential(workspace, now=now)
    campaign_id = await send(workspace, ScriptedProvider(lambda message: GONE), hasher, now)
    assert (await get(workspace, campaign_id)).status is CampaignStatus.SENT
    assert sorted(await disabled(workspace)) == [f"token-{name}" for name in names]


async def test_of_a_few_devices_none_is_disabled_for_a_credential_that_may_be_wrong(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Half of the tokens or more are foreign; one among others that are known is disabled."""
    await make_people(workspace, ["ann", "ben", "cleo"], hasher=hasher, now=now)
    await make_devices(workspace, ["ann", "ben", "cleo"], now=now)
    await set_credential(workspace, now=now)
    foreign = {"token-ann", "token-ben"}
    provider = ScriptedProvider(lambda message: MISMATCH if message.token in foreign else ACCEPTED)
    await send(workspace, provider, hasher, now)
    assert await disabled(workspace) == []
    foreign.remove("token-ben")
    await send(workspace, provider, hasher, now)
    assert await disabled(workspace) == ["token-ann"]
