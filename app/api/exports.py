"""Telling a person what is held of them: a link to the one document that says it all."""

from datetime import datetime

from strawberry import ID

from app.api import ids
from app.api.declare import about, input_type, mutation, output
from app.api.ids import Kind
from app.api.payloads import Payload
from app.context import Info
from app.exports import LIFE, ExportClaim, export_link
from profiles.disclosure import find_person
from profiles.keys import Scope


@input_type
class ProfileExportInput:
    """Whose data is wanted."""

    profile_id: ID = about("The profile; one that was merged into another means that one.")


@output
class ProfileExportPayload(Payload):
    """Where everything held of a person can be fetched."""

    profile_id: ID | None = about("The profile whose data it is; null when it was refused.", default=None)
    url: str | None = about(
        "Answers one JSON document, streamed, to whoever asks without a key: treat it as the data itself.",
        default=None,
    )
    expires_at: datetime | None = about("When the address stops to answer; a quarter of an hour.", default=None)


@output
class ExportMutations:
    @mutation(needs=Scope.ADMIN)
    async def profile_export(self, info: Info, input: ProfileExportInput) -> ProfileExportPayload:
        """Hand out everything that is held of a person (GDPR, articles 15 and 20), with that of profiles merged into
        theirs. The address answers what is held when it is fetched."""
        resources = info.context.resources
        person = await find_person(
            info.context.workspace_id, ids.profile_id(input.profile_id, field="profile_id"), hasher=resources.hasher
        )
        expires_at = (info.context.now + LIFE).replace(microsecond=0)
        claim = ExportClaim(info.context.workspace_id, person.profile_id, expires_at)
        return ProfileExportPayload(
            profile_id=ids.encode(Kind.PROFILE, person.profile_id),
            url=export_link(resources.signer, info.context.services.settings.public_url, claim),
            expires_at=expires_at,
        )
