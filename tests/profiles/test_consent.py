"""Consent by person, channel and topic, and suppression by address."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from db.transactions import transaction
from profiles import consent
from profiles.addresses import AddressHasher, Channel
from profiles.consent import EVERY_TOPIC, Consent, ConsentStatus, Suppression, SuppressionReason
from profiles.errors import ProfileError, ProfileNotFound
from profiles.profiles import ProfileInput
from tests.profiles import people

EMAIL, PUSH = Channel.EMAIL, Channel.PUSH
YES, NO = ConsentStatus.SUBSCRIBED, ConsentStatus.UNSUBSCRIBED
DAY = timedelta(days=1)


@pytest.fixture
async def ann(workspace: UUID, hasher: AddressHasher, now: datetime) -> int:
    [profile_id] = await people.put(workspace, ProfileInput("ann", email="Ann@example.com"), hasher=hasher, now=now)
    return profile_id


async def say(
    workspace_id: UUID,
    profile_id: int,
    status: ConsentStatus,
    *,
    topic: str = "news",
    channel: Channel = EMAIL,
    source: str = "form",
    now: datetime,
) -> Consent:
    return await consent.set_consent(
        workspace_id, profile_id=profile_id, channel=channel, topic=topic, status=status, source=source, now=now
    )


async def suppressed(workspace_id: UUID, channel: Channel = EMAIL) -> list[Suppression]:
    return await consent.list_suppressions(workspace_id, channel=channel, after=None, limit=1000)


async def test_the_last_word_holds_by_channel_and_topic(workspace: UUID, ann: int, now: datetime) -> None:
    assert await consent.of_profiles(workspace, [ann]) == {}
    assert await say(workspace, ann, YES, now=now) == Consent(ann, EMAIL, "news", YES, "form", now)
    push = await say(workspace, ann, NO, channel=PUSH, now=now)
    everything = await say(workspace, ann, YES, topic=EVERY_TOPIC, now=now)
    off = await consent.unsubscribe(
        workspace, profile_id=ann, channel=EMAIL, topic=" news ", source="link", now=now + DAY
    )
    assert off == Consent(ann, EMAIL, "news", NO, "link", now + DAY)
    assert await consent.of_profiles(workspace, [ann, ann + 1]) == {ann: [everything, off, push]}
    again = await consent.unsubscribe(
        workspace, profile_id=ann, channel=EMAIL, topic="news", source="link", now=now + 2 * DAY
    )
    assert again.status is NO
    assert (await say(workspace, ann, YES, now=now + 3 * DAY)).status is YES


async def test_consent_of_a_merged_person_is_the_winners(
    workspace: UUID, ann: int, hasher: AddressHasher, now: datetime
) -> None:
    between, winner = await people.put_named(workspace, "between", "winner", hasher=hasher, now=now)
    await people.merge(workspace, loser=ann, winner=between)
    await people.merge(workspace, loser=between, winner=winner)
    said = await say(workspace, ann, NO, now=now)
    assert said.profile_id == winner
    assert await consent.of_profiles(workspace, [ann, between, winner]) == {winner: [said]}


async def test_consent_of_nobody_and_of_others_people_is_refused(
    workspace: UUID, other_workspace: UUID, ann: int, hasher: AddressHasher, now: datetime
) -> None:
    [gone] = await people.put_named(other_workspace, "gone", hasher=hasher, now=now)
    await people.erase(other_workspace, gone)
    for profile_id in (ann, gone, 0, -5, 2**31, 2**80):
        with pytest.raises(ProfileNotFound) as refused:
            await say(other_workspace, profile_id, NO, now=now)
        assert (refused.value.code, refused.value.field) == ("NOT_FOUND", ("profile_id",))
    assert await consent.of_profiles(workspace, [ann]) == {}


async def test_a_topic_or_source_that_cannot_be_kept_is_refused(workspace: UUID, ann: int, now: datetime) -> None:
    for topic, source, code, field in [
        (" ", "form", "BLANK", "topic"),
        ("a\0", "form", "UNSTORABLE_TEXT", "topic"),
        ("x" * 101, "form", "TOO_LONG", "topic"),
        ("news", "", "BLANK", "source"),
        ("news", "\ud800", "UNSTORABLE_TEXT", "source"),
    ]:
        with pytest.raises(ProfileError) as refused:
            await say(workspace, ann, NO, topic=topic, source=source, now=now)
        assert (refused.value.code, refused.value.field) == (code, (field,))
    assert await consent.of_profiles(workspace, [ann]) == {}


async def test_two_who_speak_for_one_person_at_the_same_time_leave_one_word(
    workspace: UUID, ann: int, now: datetime
) -> None:
    said = await asyncio.gather(*(say(workspace, ann, status, now=now) for status in (YES, NO) * 4))
    [kept] = (await consent.of_profiles(workspace, [ann]))[ann]
    assert kept in said


async def test_an_address_is_suppressed_once_with_its_first_reason_and_by_channel(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    address = hasher.hash(EMAIL, "ann@example.com")
    bounced, complained = SuppressionReason.HARD_BOUNCE, SuppressionReason.COMPLAINT
    assert await consent.suppress(workspace, channel=EMAIL, address_hash=address, reason=bounced, now=now)
    assert not await consent.suppress(workspace, channel=EMAIL, address_hash=address, reason=complained, now=now + DAY)
    assert await suppressed(workspace) == [Suppression(EMAIL, address, bounced, now)]
    assert await suppressed(workspace, PUSH) == []
    assert await suppressed(other_workspace) == []
    assert not await consent.unsuppress(other_workspace, channel=EMAIL, address_hash=address)
    assert not await consent.unsuppress(workspace, channel=PUSH, address_hash=address)
    assert await consent.unsuppress(workspace, channel=EMAIL, address_hash=address)
    assert not await consent.unsuppress(workspace, channel=EMAIL, address_hash=address)
    assert await suppressed(workspace) == []


async def test_suppressing_people_suppresses_the_addresses_they_have_now(
    workspace: UUID, ann: int, hasher: AddressHasher, now: datetime
) -> None:
    bob, without = await people.put(
        workspace, ProfileInput("bob", email="bob@example.com"), ProfileInput("without"), hasher=hasher, now=now
    )
    await people.put(workspace, ProfileInput("twin", email="ANN@example.com"), hasher=hasher, now=now)
    addresses = [hasher.hash(EMAIL, f"{name}@example.com") for name in ("ann", "bob")]
    before = SuppressionReason.MANUAL
    await consent.suppress(workspace, channel=EMAIL, address_hash=addresses[1], reason=before, now=now)
    for _ in range(2):
        async with transaction(workspace) as connection:
            await consent.suppress_profiles(
                connection,
                workspace_id=workspace,
                profile_ids=[ann, bob, without, 999],
                reason=SuppressionReason.COMPLAINT,
            )
    assert {one.address_hash: one.reason for one in await suppressed(workspace)} == {
        addresses[0]: SuppressionReason.COMPLAINT,
        addresses[1]: before,
    }


async def test_a_suppression_outlives_the_address(
    workspace: UUID, ann: int, hasher: AddressHasher, now: datetime
) -> None:
    """Whoever comes back under the same address, in whatever spelling, is still suppressed."""
    async with transaction(workspace) as connection:
        await consent.suppress_profiles(
            connection, workspace_id=workspace, profile_ids=[ann], reason=SuppressionReason.ERASED
        )
    await people.put(workspace, ProfileInput("ann", email=None), hasher=hasher, now=now)
    assert [one.address_hash for one in await suppressed(workspace)] == [hasher.hash(EMAIL, " ANN@EXAMPLE.com")]


async def test_suppressions_are_paged_by_hash(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    hashes = sorted(hasher.hash(EMAIL, f"{at}@example.com") for at in range(5))
    for one in hashes:
        await consent.suppress(workspace, channel=EMAIL, address_hash=one, reason=SuppressionReason.MANUAL, now=now)
    seen: list[bytes] = []
    while page := await consent.list_suppressions(workspace, channel=EMAIL, after=seen[-1] if seen else None, limit=2):
        seen += [one.address_hash for one in page]
    assert seen == hashes
    for limit in (0, 1001):
        with pytest.raises(ProfileError) as refused:
            await consent.list_suppressions(workspace, channel=EMAIL, after=None, limit=limit)
        assert (refused.value.code, refused.value.field) == ("INVALID_LIMIT", ("limit",))


async def test_what_is_no_address_hash_is_refused(workspace: UUID, now: datetime) -> None:
    reason = SuppressionReason.MANUAL
    for wrong in (b"", b"ann@example.com", bytes(33)):
        with pytest.raises(ProfileError) as refused:
            await consent.suppress(workspace, channel=EMAIL, address_hash=wrong, reason=reason, now=now)
        assert (refused.value.code, refused.value.field) == ("INVALID_HASH", ("address_hash",))
        with pytest.raises(ProfileError):
            await consent.unsuppress(workspace, channel=EMAIL, address_hash=wrong)
