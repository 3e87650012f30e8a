"""Messages in doubt: what a person says became of them."""

from strawberry import ID

from app.api import ids
from app.api.campaigns import Campaign
from app.api.declare import about, input_type, mutation, output
from app.api.enums import Resolution
from app.api.payloads import Payload
from app.context import Info
from campaigns import resolving
from profiles.keys import Scope


@input_type
class InDoubtResolveInput:
    """What became of all messages of a campaign that are in doubt."""

    campaign_id: ID = about("The campaign.")
    as_: Resolution = about("What is to become of them.", name="as")


@output
class InDoubtResolvePayload(Payload):
    """The campaign, with nothing in doubt."""

    campaign: Campaign | None = about("The campaign as it is now; null when it was refused.", default=None)
    messages: int | None = about("How many messages were in doubt; null when it was refused.", default=None)


@output
class DoubtMutations:
    @mutation(needs=Scope.SEND)
    async def in_doubt_resolve(self, info: Info, input: InDoubtResolveInput) -> InDoubtResolvePayload:
        """Settle all messages of a campaign that are in doubt: as sent, or to be sent again. It is kept who did it."""
        campaign, resolved = await resolving.resolve(
            info.context.workspace_id,
            ids.campaign_id(input.campaign_id, field="campaign_id"),
            resolved_as=input.as_,
            by=info.context.known_caller.actor,
            now=info.context.now,
        )
        await info.context.resources.wakeups.deliver(workspace_id=campaign.workspace_id, campaign_id=campaign.id)
        return InDoubtResolvePayload(campaign=Campaign.of(campaign), messages=resolved.messages)
