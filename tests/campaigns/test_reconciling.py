"""Messages in doubt settled by the provider's own record."""

from datetime import datetime, timedelta
from uuid import UUID

from campaigns import control, deliveries, reconciling, resolving, sending, tallies
from campaigns.listing import get
from campaigns.models import CampaignStatus, DeliveryState
from campaigns.reconciling import Reconciled
from channels.base import EmailMessage, Evidence, Outcome, OutcomeKind
from db.transactions import transaction
from profiles import changes, merging
from profiles.addresses import AddressHasher
from tests.campaigns.factories import ScriptedChannel, make_campaign, make_people
from tests.campaigns.test_sending import deliver_all, states

LOST = Outcome(OutcomeKind.IN_DOUBT, "CONNECTION_LOST", "FINAL")
NAMES = ["ada", "bob", "cyd"]
NO_TIME = timedelta(0)


class Record:
    """A provider's record; what it does not name it knows nothing of."""

    def __init__(self, known: dict[str, Evidence]) -> None:
        self.known = known

    async def find(self, message_id: str) -> Evidence:
        return self.known.get(message_id, Evidence.UNKNOWN)


async def in_doubt(workspace_id: UUID, *, now: datetime, hasher: AddressHasher) -> tuple[UUID, dict[str, str]]:
    """A campaign that was sent with every answer lost; Message-IDs by name."""
    people = await make_people(workspace_id, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace_id, now=now)
    await sending.start(workspace_id, campaign.id, now=now)
    await deliver_all(workspace_id, campaign.id, ScriptedChannel(lambda message: LOST), now)
    rows = {row.profile_id: row.message_id or "" for row in await deliveries.page(workspace_id, campaign.id, limit=9)}
    return campaign.id, {name: rows[profile_id] for name, profile_id in people.items()}


async def test_the_record_settles_what_it_knows_and_the_rest_stays_in_doubt(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    campaign_id, ids = await in_doubt(workspace, now=now, hasher=hasher)
    record = Record({ids["ada"]: Evidence.SENT, ids["bob"]: Evidence.NOT_SENT})
    assert await reconciling.reconcile(
        workspace, campaign_id, reconciler=record, under_way=NO_TIME, now=now
    ) == Reconciled(1, 1, 1)
    assert (await get(workspace, campaign_id)).status is CampaignStatus.SENDING
    assert sorted((await states(workspace, campaign_id)).values()) == [
        (DeliveryState.IN_DOUBT, "CONNECTION_LOST"),
        (DeliveryState.PENDING, None),
        (DeliveryState.SENT, "RECONCILED"),
    ]
    second = ScriptedChannel()
    await deliver_all(workspace, campaign_id, second, now)
    assert second.recipients == ["bob@example.com"]
    assert (await get(workspace, campaign_id)).status is CampaignStatus.SENT
    assert await tallies.verify(workspace) == []
    kept = {(one.resolved_as, one.messages) for one in await resolving.resolutions(workspace, campaign_id)}
    assert kept == {(resolving.Resolution.SENT, 1), (resolving.Resolution.RETRY, 1)}


async def test_a_message_that_may_be_under_way_is_not_sent_again(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """A worker that lost its lease may be alive, and what it began before may arrive after somebody read the record."""
    campaign_id, ids = await in_doubt(workspace, now=now, hasher=hasher)
    record = Record({ids["ada"]: Evidence.SENT, ids["bob"]: Evidence.NOT_SENT, ids["cyd"]: Evidence.NOT_SENT})
    settled = await reconciling.reconcile(
        workspace, campaign_id, reconciler=record, under_way=timedelta(hours=1), now=now
    )
    assert settled == Reconciled(1, 0, 2)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign_id, channel, now)
    assert channel.received == []
    again = await reconciling.reconcile(workspace, campaign_id, reconciler=record, under_way=NO_TIME, now=now)
    assert again == Reconciled(0, 2, 0)


async def test_what_never_left_a_cancelled_campaign_is_skipped(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    people = await make_people(workspace, NAMES, hasher=hasher, now=now)
    campaign = await make_campaign(workspace, now=now)
    await sending.start(workspace, campaign.id, now=now)
    later = Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "RCPT")

    def answer(message: EmailMessage) -> Outcome:
        return LOST if message.recipient.startswith("ada") else later

    await deliver_all(workspace, campaign.id, ScriptedChannel(answer), now)
    await control.cancel(workspace, campaign.id, now=now)
    await deliver_all(workspace, campaign.id, ScriptedChannel(), now)
    (row,) = await deliveries.page(workspace, campaign.id, limit=9, states=(DeliveryState.IN_DOUBT,))
    record = Record({row.message_id or "": Evidence.NOT_SENT})
    assert await reconciling.reconcile(
        workspace, campaign.id, reconciler=record, under_way=NO_TIME, now=now
    ) == Reconciled(0, 1, 0)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign.id, channel, now)
    assert channel.received == []
    assert (await states(workspace, campaign.id))[people["ada"]] == (DeliveryState.SKIPPED, "CANCELLED")
    assert (await get(workspace, campaign.id)).status is CampaignStatus.CANCELLED


async def test_a_worker_that_was_only_late_is_believed_and_not_the_record(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """The fence of what somebody looked at holds: a row that moved on meanwhile is left alone."""
    campaign_id, ids = await in_doubt(workspace, now=now, hasher=hasher)

    class Late(Record):
        async def find(self, message_id: str) -> Evidence:
            if message_id == ids["ada"]:
                await resolving.resolve(workspace, campaign_id, resolved_as=resolving.Resolution.SENT, by=None, now=now)
            return Evidence.NOT_SENT

    found = await reconciling.reconcile(workspace, campaign_id, reconciler=Late({}), under_way=NO_TIME, now=now)
    assert (found.sent, found.not_sent) == (0, 0)
    channel = ScriptedChannel()
    await deliver_all(workspace, campaign_id, channel, now)
    assert channel.received == []


async def test_live_segments_hear_of_those_who_turn_out_to_have_got_it(
    workspace: UUID, now: datetime, hasher: AddressHasher
) -> None:
    """A pulse looks for what was sent in the last half minute; this was sent when it came into doubt."""
    campaign_id, _ = await in_doubt(workspace, now=now, hasher=hasher)
    ada, bob, cyd = [row.profile_id for row in await deliveries.page(workspace, campaign_id, limit=9)]
    await merging.merge(workspace, loser_id=cyd, winner_id=ada, now=now)
    async with transaction(workspace) as connection:
        await changes.take_touched(connection, workspace, most=100)
    await resolving.resolve(workspace, campaign_id, resolved_as=resolving.Resolution.SENT, by=None, now=now)
    async with transaction(workspace) as connection:
        assert set(await changes.people_waiting(connection, workspace)) == {ada, bob}
