"""Who of many can be written to, by channel."""

from datetime import datetime
from uuid import UUID

import pytest
from pyroaring import BitMap

from db.transactions import transaction
from profiles import consent, devices, profiles, reach
from profiles.addresses import AddressHasher, Channel
from profiles.consent import ConsentStatus, SuppressionReason
from profiles.devices import DeviceInput, Platform, Provider
from profiles.errors import ProfileError
from profiles.patches import ProfileInput

OPT_IN = "UPDATE workspace SET consent_default = 'OPT_IN' WHERE id = $1"


async def make(workspace_id: UUID, names: str, *, hasher: AddressHasher, now: datetime, email: bool) -> dict[str, int]:
    made = await profiles.upsert(
        workspace_id,
        [ProfileInput(external_id=name, email=f"{name}@example.com" if email else None) for name in names.split()],
        hasher=hasher,
        now=now,
    )
    return {name: one.profile_id for name, one in zip(names.split(), made, strict=True) if one.profile_id}


async def register(workspace_id: UUID, name: str, token: str, *, now: datetime) -> None:
    wanted = DeviceInput(provider=Provider.FCM, token=token, platform=Platform.ANDROID, external_id=name)
    await devices.register(workspace_id, wanted, now=now)


async def say(workspace_id: UUID, id: int, channel: Channel, topic: str, status: ConsentStatus, now: datetime) -> None:
    await consent.set_consent(
        workspace_id, profile_id=id, channel=channel, topic=topic, status=status, source="test", now=now
    )


async def reached(
    workspace_id: UUID, people: dict[str, int], *, hasher: AddressHasher, topic: str = "marketing"
) -> dict[str, str]:
    """Names by channel."""
    async with transaction(workspace_id) as connection:
        found = await reach.reachable(
            connection, workspace_id=workspace_id, people=BitMap(people.values()), topic=topic, hasher=hasher
        )
    return {channel: " ".join(name for name, id in people.items() if id in ids) for channel, ids in found.items()}


async def test_email_needs_an_address_that_is_not_suppressed_and_nobody_who_said_no(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    people = await make(workspace, "ann bob cyd dee eve fay", hasher=hasher, now=now, email=True)
    people |= await make(workspace, "hal", hasher=hasher, now=now, email=False)
    no, yes = ConsentStatus.UNSUBSCRIBED, ConsentStatus.SUBSCRIBED
    await say(workspace, people["bob"], Channel.EMAIL, "marketing", no, now)
    await say(workspace, people["cyd"], Channel.EMAIL, "*", no, now)
    await say(workspace, people["cyd"], Channel.EMAIL, "marketing", yes, now)
    await say(workspace, people["dee"], Channel.EMAIL, "other", no, now)
    await say(workspace, people["eve"], Channel.PUSH, "marketing", no, now)
    await consent.suppress(
        workspace,
        channel=Channel.EMAIL,
        address_hash=hasher.hash(Channel.EMAIL, "fay@example.com"),
        reason=SuppressionReason.MANUAL,
        now=now,
    )
    assert await reached(workspace, people, hasher=hasher) == {"EMAIL": "ann dee eve", "PUSH": ""}
    assert await reached(workspace, people, hasher=hasher, topic="other") == {"EMAIL": "ann bob eve", "PUSH": ""}
    some = {name: people[name] for name in ("ann", "bob")}
    assert await reached(workspace, some, hasher=hasher) == {"EMAIL": "ann", "PUSH": ""}
    assert await reached(workspace, {}, hasher=hasher) == {"EMAIL": "", "PUSH": ""}


@pytest.mark.parametrize("few", [0, 100])
async def test_of_many_and_of_few_the_same_are_reached(
    workspace: UUID, hasher: AddressHasher, now: datetime, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(reach, "FEW", few)
    people = await make(workspace, "ann bob cyd dee", hasher=hasher, now=now, email=True)
    await register(workspace, "ann", "a1", now=now)
    await register(workspace, "dee", "d1", now=now)
    await say(workspace, people["bob"], Channel.EMAIL, "*", ConsentStatus.UNSUBSCRIBED, now)
    asked = {name: people[name] for name in ("ann", "bob", "cyd")}
    assert await reached(workspace, asked, hasher=hasher) == {"EMAIL": "ann cyd", "PUSH": "ann"}


async def test_where_silence_is_no_only_those_who_said_yes_are_reached(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    people = await make(workspace, "ann bob cyd dee", hasher=hasher, now=now, email=True)
    async with transaction(workspace) as connection:
        await connection.execute(OPT_IN, workspace)
    yes = ConsentStatus.SUBSCRIBED
    await say(workspace, people["ann"], Channel.EMAIL, "marketing", yes, now)
    await say(workspace, people["bob"], Channel.EMAIL, "*", yes, now)
    await say(workspace, people["cyd"], Channel.EMAIL, "other", yes, now)
    assert await reached(workspace, people, hasher=hasher) == {"EMAIL": "ann bob", "PUSH": ""}


async def test_push_needs_a_device_that_is_neither_disabled_nor_suppressed(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    people = await make(workspace, "ann bob cyd dee", hasher=hasher, now=now, email=False)
    for name, token in (("ann", "a1"), ("ann", "a2"), ("bob", "b1"), ("cyd", "c1")):
        await register(workspace, name, token, now=now)
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE device SET disabled_at = now() WHERE token = 'b1'")
    assert await reached(workspace, people, hasher=hasher) == {"EMAIL": "", "PUSH": "ann cyd"}
    for token in ("a1", "c1"):
        await consent.suppress(
            workspace,
            channel=Channel.PUSH,
            address_hash=hasher.hash(Channel.PUSH, token),
            reason=SuppressionReason.HARD_BOUNCE,
            now=now,
        )
    assert await reached(workspace, people, hasher=hasher) == {"EMAIL": "", "PUSH": "ann"}


async def test_another_tenants_answers_do_not_matter(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    people = await make(workspace, "ann", hasher=hasher, now=now, email=True)
    theirs = await make(other_workspace, "bob", hasher=hasher, now=now, email=True)
    await consent.suppress(
        other_workspace,
        channel=Channel.EMAIL,
        address_hash=hasher.hash(Channel.EMAIL, "ann@example.com"),
        reason=SuppressionReason.MANUAL,
        now=now,
    )
    assert await reached(workspace, people | theirs, hasher=hasher) == {"EMAIL": "ann", "PUSH": ""}


async def test_what_is_no_topic_is_refused(workspace: UUID, hasher: AddressHasher) -> None:
    with pytest.raises(ProfileError) as refusal:
        await reached(workspace, {}, hasher=hasher, topic=" ")
    assert (refusal.value.code, refusal.value.field) == ("BLANK", ("topic",))
