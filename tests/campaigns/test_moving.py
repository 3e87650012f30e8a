"""People who change mailboxes with each other, or become one, while a campaign is under way: one message each (R1, R3).

The plain cases are in test_races.py.
"""

import asyncio
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

from campaigns import claims, intents, sending
from campaigns.intents import Intent
from campaigns.models import DeliveryState
from db.transactions import apart, transaction
from profiles import profiles
from profiles.addresses import AddressHasher
from profiles.patches import ProfileInput
from segments import static
from tests.campaigns.factories import ScriptedChannel, carrier, make_campaign, make_people
from tests.campaigns.test_races import DUPLICATE, SENT, held_up, merge, move, somebody_waits
from tests.campaigns.test_sending import make_static, states

EXCLUDED = (DeliveryState.SKIPPED, "EXCLUDED")


async def swap(workspace_id: UUID, one: str, other: str, *, hasher: AddressHasher, now: datetime) -> None:
    """Each has the other's mailbox from now on."""
    changed = [
        ProfileInput(external_id=one, email=f"{other}@example.com"),
        ProfileInput(external_id=other, email=f"{one}@example.com"),
    ]
    await profiles.upsert(workspace_id, changed, hasher=hasher, now=now)


async def test_two_who_swap_mailboxes_get_a_message_each(workspace: UUID, now: datetime, hasher: AddressHasher) -> None:
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = await held_up(
        workspace, campaign.id, lambda: swap(workspace, "bob", "cyd", hasher=hasher, now=now), now=now
    )
    assert channel.recipients == ["ada@example.com", "bob@example.com", "cyd@example.com"]
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), SENT)
    of_bobs = next(message for message in channel.received if message.recipient == "bob@example.com")
    assert b"Hello cyd" in of_bobs.data


async def test_three_who_swap_mailboxes_in_a_ring_get_a_message_each(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, ["ada", "bob", "cyd", "dan"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        for name, mailbox in (("bob", "cyd"), ("cyd", "dan"), ("dan", "bob")):
            await move(workspace, name, f"{mailbox}@example.com", hasher=hasher, now=now)

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == [f"{name}@example.com" for name in people]
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), SENT)


async def test_who_moves_to_the_mailbox_of_one_who_has_left_it_gets_the_message_there(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, ["ada", "bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        await move(workspace, "cyd", "new@x.example", hasher=hasher, now=now)
        await move(workspace, "bob", "cyd@example.com", hasher=hasher, now=now)

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == ["ada@example.com", "cyd@example.com", "new@x.example"]
    assert await states(workspace, campaign.id) == dict.fromkeys(people.values(), SENT)


async def test_who_comes_back_to_a_mailbox_that_another_took_meanwhile_leaves_it_one_message(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Cyd's row was written for the mailbox where Cyd is again: what Bob's turn has left there says it is taken."""
    people = await make_people(workspace, ["bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await sending.prepare(workspace, campaign.id, carrier=carrier(ScriptedChannel()), now=now, until=monotonic() + 60)
    await swap(workspace, "bob", "cyd", hasher=hasher, now=now)
    assert await leaving(workspace, campaign.id, [(await taken(workspace, now=now))[people["bob"]]]) == {people["bob"]}
    await move(workspace, "bob", "new@x.example", hasher=hasher, now=now)
    await move(workspace, "cyd", "cyd@example.com", hasher=hasher, now=now)
    assert await leaving(workspace, campaign.id, [(await taken(workspace, now=now))[people["cyd"]]]) == set()
    assert await states(workspace, campaign.id) == {
        people["bob"]: (DeliveryState.SENDING, None), people["cyd"]: DUPLICATE,
    }  # fmt: skip


async def taken(workspace_id: UUID, *, now: datetime) -> dict[int, Intent]:
    """All that waits, as it would be made now, by profile."""
    lease = timedelta(minutes=1)
    async with transaction(workspace_id) as connection:
        ids = {"workspace_id": workspace_id, "dispatch_id": await connection.fetchval("SELECT id FROM dispatch")}
        claim_id = await claims.open_claim(connection, **ids, owner=uuid4(), lease=lease)
        await claims.go_back(connection, **ids, profile_id=0)
        found = await claims.take(connection, **ids, claim_id=claim_id, lease=lease, limit=9) or []
    return {one.profile_id: Intent(one.profile_id, 0, one.fence, now, one.email_hash) for one in found}


async def leaving(workspace_id: UUID, campaign_id: UUID, group: list[Intent]) -> set[int]:
    """Commit the intents of a group: whose messages may leave."""
    async with transaction(workspace_id) as connection:
        intended = await intents.intend(
            connection,
            intents.MAIL,
            workspace_id=workspace_id,
            campaign_id=campaign_id,
            dispatch_id=await connection.fetchval("SELECT id FROM dispatch"),
            claim_id=await connection.fetchval("SELECT max(id) FROM claim"),
            ready=group,
            consent_matters=True,
            test=False,
        )
    return {profile_id for profile_id, _ in intended.leaving}


async def test_a_message_made_out_to_a_mailbox_left_since_does_not_keep_it_from_whoever_lives_there_now(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Of two who swapped one was read before that, and the other after, in one group."""
    people = await make_people(workspace, ["bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await sending.prepare(workspace, campaign.id, carrier=carrier(ScriptedChannel()), now=now, until=monotonic() + 60)
    before = await taken(workspace, now=now)
    await swap(workspace, "bob", "cyd", hasher=hasher, now=now)
    after = await taken(workspace, now=now)
    group = [before[people["bob"]], after[people["cyd"]]]
    assert await leaving(workspace, campaign.id, group) == {people["cyd"]}
    assert await leaving(workspace, campaign.id, [after[people["bob"]]]) == {people["bob"]}


async def test_a_mailbox_is_not_taken_over_from_one_whose_message_is_leaving_for_it(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """Whoever moves in waits until the intent of the one who has just moved out is committed."""
    people = await make_people(workspace, ["bob", "cyd"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    await sending.prepare(workspace, campaign.id, carrier=carrier(ScriptedChannel()), now=now, until=monotonic() + 60)
    before = await taken(workspace, now=now)
    async with transaction(workspace):
        assert await leaving(workspace, campaign.id, [before[people["cyd"]]]) == {people["cyd"]}
        with apart():
            await move(workspace, "cyd", "new@x.example", hasher=hasher, now=now)
            await move(workspace, "bob", "cyd@example.com", hasher=hasher, now=now)
            [bob] = [one for one in (await taken(workspace, now=now)).values() if one.profile_id == people["bob"]]
            moving_in = asyncio.create_task(leaving(workspace, campaign.id, [bob]))
            while not moving_in.done() and not await somebody_waits(workspace):
                pass
    assert await moving_in == set()
    assert await states(workspace, campaign.id) == {
        people["bob"]: DUPLICATE, people["cyd"]: (DeliveryState.SENDING, None),
    }  # fmt: skip


async def test_who_moved_after_their_message_gets_no_second_one_by_a_merge(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The winner had theirs at another mailbox."""
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)

    async def change() -> None:
        await move(workspace, "ada", "new@x.example", hasher=hasher, now=now)
        await merge(workspace, people["bob"], people["ada"], now=now)

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == ["ada@example.com"]
    assert await states(workspace, campaign.id) == {people["ada"]: SENT, people["bob"]: DUPLICATE}


async def test_who_is_merged_into_somebody_to_spare_gets_nothing(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R1: the campaign excludes cyd, who is dan as well by the time of dan's turn; and eve before the ledger is
    written. Also when the segment to spare has let cyd go since."""
    people = await make_people(workspace, ["ada", "bob", "cyd", "dan", "eve", "fox"], hasher=hasher, now=now)
    spared = await make_static(workspace, "spared", ["cyd", "fox"], now=now)
    campaign = await make_campaign(workspace, now=now, excluded_segment_ids=(spared,))
    await sending.start(workspace, campaign.id, now=now)
    await merge(workspace, people["eve"], people["fox"], now=now)

    async def change() -> None:
        await merge(workspace, people["dan"], people["cyd"], now=now)
        await static.remove_members(
            workspace, spared, external_ids=["cyd"], now=datetime.now(now.tzinfo) + timedelta(seconds=1)
        )

    channel = await held_up(workspace, campaign.id, change, now=now)
    assert channel.recipients == ["ada@example.com", "bob@example.com"]
    assert await states(workspace, campaign.id) == {
        people["ada"]: SENT,
        people["bob"]: SENT,
        people["dan"]: EXCLUDED,
        people["eve"]: EXCLUDED,
    }


async def test_who_is_merged_into_somebody_to_spare_as_another_gets_nothing(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """R1: the segment to spare has cyd by the id of eve, who was merged into cyd before the freeze."""
    people = await make_people(workspace, ["ada", "bob", "cyd", "eve"], hasher=hasher, now=now)
    spared = await make_static(workspace, "spared", ["eve"], now=now)
    campaign = await make_campaign(workspace, now=now, excluded_segment_ids=(spared,))
    await merge(workspace, people["eve"], people["cyd"], now=now)
    await sending.start(workspace, campaign.id, now=now)
    channel = await held_up(
        workspace, campaign.id, lambda: merge(workspace, people["bob"], people["cyd"], now=now), now=now
    )
    assert channel.recipients == ["ada@example.com"]
    assert await states(workspace, campaign.id) == {people["ada"]: SENT, people["bob"]: EXCLUDED}
