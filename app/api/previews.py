"""Previews of emails: what one recipient would get."""

from strawberry import ID, Maybe

from app.api import ids
from app.api.content import EmailContentInput, to_email
from app.api.declare import about, input_type, one_of, output, query
from app.api.enums import CampaignClass
from app.api.ids import Kind
from app.api.scalars import Json
from app.context import Info
from app.problems import ApiError, camel
from campaigns import previews, proofs
from campaigns.emails import Recipient
from profiles.keys import Scope


@input_type
class SampleRecipientInput:
    """Somebody made up."""

    traits: Json | None = about("What templates see as traits: an object.", default=None)
    email: str = about("Whose mail it is.", default="someone@example.com")
    external_id: str | None = about("Your own id of them.", default=None)
    locale: str | None = about("Such as de-CH.", default=None)
    time_zone: str | None = about("IANA name of their time zone.", default=None)
    country: str | None = about("Where they are, such as CH.", default=None)
    city: str | None = about("Where they are.", default=None)


@one_of
class PreviewRecipientInput:
    """Whom a preview is for."""

    profile_id: Maybe[ID] = about("A profile.")
    external_id: Maybe[str] = about("Your own id of a profile.")
    sample: Maybe[SampleRecipientInput] = about("Somebody made up.")


@input_type
class CampaignPreviewInput:
    """What to preview: a campaign, a content that is not saved yet, or a campaign with another content."""

    recipient: PreviewRecipientInput = about("Whom it is for.")
    campaign_id: ID | None = about(
        "The campaign; its content, sender and class stand where none is given.", default=None
    )
    content: EmailContentInput | None = about("An email to try.", default=None)
    sender_id: ID | None = about("Whom it comes from; without one in the campaign either: a sample.", default=None)
    class_: CampaignClass | None = about(
        "What kind of message it is by law; without a campaign: MARKETING.", name="class", default=None
    )


@output
class PreviewVariable:
    """Something about the recipient that the content asks for."""

    name: str = about("As the template writes it, such as profile.first_name.")
    value: Json | None = about("What the template sees: the recipient's own, else the declared default; else null.")
    is_missing: bool = about("Whether the recipient has none.")


@output
class PreviewNote:
    """Something that speaks against a content."""

    code: str = about("For programs: a stable word such as MISSING_VALUE.")
    message: str = about("For people: what is wrong, and what to do about it.")
    field: list[str] = about("Path of the text it is about, such as content, html; empty when it is about none.")

    @classmethod
    def of(cls, note: proofs.Objection) -> "PreviewNote":
        return cls(code=note.code, message=note.message, field=[camel(part) for part in note.field])


@output
class CampaignPreview:
    """An email as its recipient would get it; links are not tracked and unsubscribe nobody."""

    subject: str | None = about("The subject; null when it cannot be made for this recipient, as below.")
    preheader: str | None = about("What mail programs show beside the subject.")
    text: str | None = about("The plain text.")
    html: str | None = about("The HTML; empty for a mail of plain text.")
    size_bytes: int | None = about(
        "Bytes of the whole message with this preview's addresses in it; null when it cannot be made."
    )
    variables: list[PreviewVariable] = about("What the content asks about the recipient, by name.")
    problems: list[PreviewNote] = about("Why this recipient would get no mail; empty when all is well.")
    warnings: list[PreviewNote] = about("What is allowed and may not be meant.")

    @classmethod
    def of(cls, made: proofs.Preview) -> "CampaignPreview":
        return cls(
            subject=made.subject,
            preheader=made.preheader,
            text=made.text,
            html=made.html,
            size_bytes=made.size,
            variables=[
                PreviewVariable(name=one.name, value=one.value, is_missing=one.missing) for one in made.variables
            ],
            problems=[PreviewNote.of(one) for one in made.problems],
            warnings=[PreviewNote.of(one) for one in made.warnings],
        )


def to_sample(sample: SampleRecipientInput) -> Recipient:
    """The use case's recipient; raises ApiError when the traits are no object."""
    traits: object = {} if sample.traits is None else sample.traits
    if not isinstance(traits, dict):
        message = "Traits are an object of names and values."
        raise ApiError("NOT_AN_OBJECT", message, field=("recipient", "sample", "traits"))
    return Recipient(
        email=sample.email,
        external_id=sample.external_id,
        traits=traits,
        locale=sample.locale,
        time_zone=sample.time_zone,
        country=sample.country,
        city=sample.city,
    )


def profile_key(text: ID) -> int:
    """The profile whom a preview is for; raises ApiError INVALID_ID."""
    try:
        return ids.profile_id(text)
    except ApiError as refusal:
        raise ApiError(refusal.code, refusal.message, field=("recipient", "profile_id")) from refusal


@output
class PreviewQueries:
    @query(needs=Scope.CAMPAIGNS)
    async def campaign_preview(self, info: Info, input: CampaignPreviewInput) -> CampaignPreview:
        """An email as one recipient would get it. Nothing is saved, nothing is sent."""
        recipient = input.recipient
        resources = info.context.resources
        made = await previews.preview(
            info.context.workspace_id,
            previews.PreviewInput(
                campaign_id=ids.optional(Kind.CAMPAIGN, input.campaign_id, field="campaign_id"),
                content=to_email(input.content) if input.content is not None else None,
                sender_id=ids.optional(Kind.SENDER, input.sender_id, field="sender_id"),
                class_=input.class_,
                profile_id=profile_key(recipient.profile_id.value) if recipient.profile_id else None,
                external_id=recipient.external_id.value if recipient.external_id else None,
                sample=to_sample(recipient.sample.value) if recipient.sample else None,
            ),
            proofs=resources.proofs,
            unsubscribe_url=f"{resources.settings.public_url}/u/preview",
            now=info.context.now,
        )
        return CampaignPreview.of(made)
