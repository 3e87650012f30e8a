"""Whatever people do in whatever order, nothing goes to many that a second person has not approved as it is."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from campaigns import approving, control, drafts, lifecycle, listing, sending
from campaigns.approval import Approval, Word
from campaigns.emails import EmailContent
from campaigns.errors import CampaignError
from campaigns.models import Campaign, CampaignStatus, Dispatch
from campaigns.wanted import CampaignChanges
from db.transactions import transaction
from profiles import workspaces
from profiles.addresses import AddressHasher
from profiles.keys import Actor
from profiles.workspaces import WorkspaceChanges
from tests.campaigns.factories import CONTENT, ReadHere, make_campaign, make_people

S = CampaignStatus
PEOPLE = [Actor("key 1", "one (msk_1)"), Actor("person 2", "2"), Actor("key 3", "three (msk_3)")]
STEPS = 400
ONCE = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_approval_covers_a_tenth_more_than_there_were() -> None:
    def given(people: int | None) -> Approval:
        return Approval(None, Word(PEOPLE[0], ONCE, people))

    assert [given(1000).covers(people) for people in (0, 1000, 1100, 1101)] == [True, True, True, False]
    assert not given(None).covers(1)
    assert not Approval(Word(PEOPLE[0], ONCE, 9)).covers(1)


class Office:
    """Some people, one campaign at a time, and the clock."""

    def __init__(self, workspace: UUID, hasher: AddressHasher, now: datetime, random: Random) -> None:
        self.workspace, self.hasher, self.now, self.random = workspace, hasher, now, random
        self.people, self.limit, self.subjects = 0, 0, 0
        self.approved_content: int | None = None
        """Version of the content that was approved last."""
        self.campaign: Campaign
        self.seen: Counter[str] = Counter()

    @property
    def somebody(self) -> Actor:
        return self.random.choice(PEOPLE)

    async def grow(self) -> None:
        names = [f"p{self.people + n}" for n in range(self.random.randint(1, 3))]
        await make_people(self.workspace, names, hasher=self.hasher, now=self.now)
        self.people += len(names)

    async def limit_sends(self) -> None:
        self.limit = self.people - self.random.randint(0, 1)
        await workspaces.update(self.workspace, WorkspaceChanges(approval_above=self.limit))

    async def edit(self) -> None:
        self.subjects += 1
        content = EmailContent(subject=f"Number {self.subjects}", text=CONTENT.text)
        changes = CampaignChanges(content=content)
        await drafts.update(
            self.workspace, self.campaign.id, changes, proofs=ReadHere(), now=self.now, by=self.somebody
        )

    async def submit(self) -> None:
        await approving.submit(self.workspace, self.campaign.id, by=self.somebody, now=self.now)

    async def approve(self) -> None:
        done = await approving.approve(self.workspace, self.campaign.id, by=self.somebody, now=self.now)
        self.approved_content = done.content_version

    async def reject(self) -> None:
        await approving.reject(self.workspace, self.campaign.id, by=self.somebody, now=self.now)

    async def schedule(self) -> None:
        soon = self.now + timedelta(minutes=1)
        await control.schedule(self.workspace, self.campaign.id, at=soon, now=self.now, by=self.somebody)

    async def unschedule(self) -> None:
        await control.unschedule(self.workspace, self.campaign.id, now=self.now)

    async def send(self) -> None:
        await sending.start(self.workspace, self.campaign.id, now=self.now, by=self.somebody)

    async def wait(self) -> None:
        self.now += timedelta(minutes=2)
        await control.act_on_time(self.workspace, self.campaign.id, now=self.now)

    async def resume(self) -> None:
        await control.resume(self.workspace, self.campaign.id, now=self.now)
        await sending.ensure_frozen(self.workspace, self.campaign.id, now=self.now)

    async def check(self, before: CampaignStatus, step: str) -> None:
        """What must hold after each step; a campaign on its way gives place to a new one."""
        after = await listing.get(self.workspace, self.campaign.id)
        given = Approval.of(after)
        through = {S.DRAFT, S.SCHEDULED, S.PREPARING}  # more than one move in one step
        assert after.status is before or after.status in lifecycle.MESSAGE_MOVES[before] | through, step
        if given and given.approved and given.submitted:
            assert given.approved.by != given.submitted.by
            assert self.approved_content == after.content_version, "approved as something else"
        async with transaction(self.workspace):
            run = await Dispatch.get_or_none(workspace_id=self.workspace, campaign_id=after.id)
        if run is None:
            assert after.status is not S.PREPARING
        elif run.audience_size > self.limit:
            assert given is not None
            assert given.covers(run.audience_size)
        if run is not None:
            self.seen["sent to many" if run.audience_size > self.limit else "sent to few"] += 1
            self.campaign = await make_campaign(self.workspace, now=self.now, refresh_before=False)
        elif after.status is S.PAUSED:
            assert after.status_reason == "APPROVAL_MISSING"
            self.seen["held"] += before is not S.PAUSED
        assert after.status is not S.FAILED
        self.campaign = self.campaign if run else after


async def test_nobody_alone_sends_to_many(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    office = Office(workspace, hasher, now, Random(1))
    office.campaign = await make_campaign(workspace, now=now, refresh_before=False)
    await office.grow()
    await office.limit_sends()
    likely: dict[Callable[[], Awaitable[None]], int] = {
        office.grow: 1, office.limit_sends: 4, office.edit: 1, office.submit: 3, office.approve: 4, office.reject: 1,
        office.schedule: 4, office.unschedule: 1, office.send: 2, office.wait: 3, office.resume: 3,
    }  # fmt: skip
    for _ in range(STEPS):
        (step,), before = office.random.choices(list(likely), list(likely.values())), office.campaign.status
        try:
            await step()
        except CampaignError as refusal:
            office.seen[refusal.code] += 1
        await office.check(before, step.__name__)
    assert min(office.seen[one] for one in ("sent to many", "sent to few", "held")) > 1, office.seen
    assert {"APPROVAL_MISSING", "SAME_PERSON", "ILLEGAL_MOVE"} <= office.seen.keys()
