"""Previews of push notifications: what every platform would be given for one recipient."""

from collections.abc import Iterator
from contextlib import contextmanager

from strawberry import ID

from app.api import ids
from app.api.content import as_clients_know
from app.api.declare import about, input_type, output, query
from app.api.enums import PushTarget
from app.api.ids import Kind
from app.api.previews import PreviewNote, PreviewRecipientInput, PreviewVariable, profile_key, to_sample
from app.api.push_inputs import PushContentInput, to_push
from app.context import Info
from campaigns import previews, push_proofs
from campaigns.push_rendering import PAYLOAD_LIMIT
from db.errors import MusterError
from profiles.keys import Scope


@input_type
class CampaignPushPreviewInput:
    """What to preview: a campaign, a content that is not saved yet, or a campaign with another content."""

    recipient: PreviewRecipientInput = about("Whom it is for; the language follows from the locale.")
    campaign_id: ID | None = about("The campaign; its content stands where none is given.", default=None)
    content: PushContentInput | None = about("A notification to try.", default=None)


@output
class PushHeader:
    """A header of a request to APNs."""

    name: str = about("Its name.")
    value: str = about("Its value.")


@output
class PushPayload:
    """What one platform would be given."""

    target: PushTarget = about("Who is told, for which platform.")
    locale: str | None = about("Of the translation; null: the notification's own texts.")
    payload: str | None = about(
        "The JSON, byte by byte: APNs' body, or FCM's message without its token; null when it cannot be made."
    )
    headers: list[PushHeader] = about("What APNs is told in headers; FCM has all of it in the payload.")
    size_bytes: int | None = about(f"Bytes of the payload, of which {PAYLOAD_LIMIT:,} are taken.")

    @classmethod
    def of(cls, row: push_proofs.PushSample) -> "PushPayload":
        return cls(
            target=row.target,
            locale=row.locale,
            payload=row.payload,
            headers=[PushHeader(name=name, value=value) for name, value in row.headers],
            size_bytes=row.size,
        )


@output
class CampaignPushPreview:
    """A notification as every platform would be given it."""

    payloads: list[PushPayload] = about("One for each platform.")
    variables: list[PreviewVariable] = about("What the content asks about the recipient, by name.")
    problems: list[PreviewNote] = about("Why this recipient would get none; empty when all is well.")

    @classmethod
    def of(cls, made: push_proofs.PushPreview) -> "CampaignPushPreview":
        return cls(
            payloads=[PushPayload.of(one) for one in made.samples],
            variables=[
                PreviewVariable(name=one.name, value=one.value, is_missing=one.missing) for one in made.variables
            ],
            problems=[PreviewNote.of(one) for one in made.problems],
        )


@output
class PushPreviewQueries:
    @query(needs=Scope.CAMPAIGNS)
    async def campaign_push_preview(self, info: Info, input: CampaignPushPreviewInput) -> CampaignPushPreview:
        """A push notification as every platform would be given it for one recipient. Nothing is saved or sent."""
        recipient = input.recipient
        with notification_paths():
            made = await previews.preview_push(
                info.context.workspace_id,
                previews.PushPreviewInput(
                    campaign_id=ids.optional(Kind.CAMPAIGN, input.campaign_id, field="campaign_id"),
                    content=to_push(input.content) if input.content is not None else None,
                    profile_id=profile_key(recipient.profile_id.value) if recipient.profile_id else None,
                    external_id=recipient.external_id.value if recipient.external_id else None,
                    sample=to_sample(recipient.sample.value) if recipient.sample else None,
                ),
                proofs=info.context.resources.proofs,
                now=info.context.now,
            )
        return CampaignPushPreview.of(made)


@contextmanager
def notification_paths() -> Iterator[None]:
    """Refusals of a notification by the names that its fields have in the API."""
    try:
        yield
    except MusterError as refusal:
        refusal.field = tuple(as_clients_know("push", part) for part in refusal.field)
        raise
