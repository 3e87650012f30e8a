"""The workspace, its brands, and the tokens with which apps act as a profile."""

from datetime import datetime, timedelta

from strawberry import Maybe

from app.api import ids
from app.api.declare import about, input_type, mutation, output, query
from app.api.enums import ConsentDefault
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.payloads import Payload, given
from app.api.scalars import Json
from app.auth import LONGEST_CLAIM, LONGEST_CLIENT_TOKEN_LIFE, MOST_CLAIMS, kept_claims
from app.context import Info
from app.problems import ApiError
from profiles import brands, workspaces
from profiles.identities import clean_external_id
from profiles.keys import Scope
from profiles.models import Brand as BrandRow
from profiles.models import Workspace as WorkspaceRow


@output
class Workspace(Node):
    """A tenant: everything belongs to one, and no key sees another."""

    name: str = about("Its name.")
    time_zone: str = about("IANA name of its time zone.")
    consent_default: ConsentDefault = about("What holds for a person who never said yes or no.")
    track_opens: bool = about("Whether mails carry an image that tells of their being opened.")
    track_clicks: bool = about("Whether the links in mails tell of clicks.")
    approval_above: int | None = about(
        "Campaigns to more people than this are sent only when a second person has approved them; null: all are."
    )
    created_at: datetime = about("When it was made.")

    @classmethod
    def of(cls, row: WorkspaceRow) -> "Workspace":
        return cls(
            id=ids.encode(Kind.WORKSPACE, row.id),
            name=row.name,
            time_zone=row.time_zone,
            consent_default=row.consent_default,
            track_opens=row.track_opens,
            track_clicks=row.track_clicks,
            approval_above=row.approval_above,
            created_at=row.created_at,
        )


@output
class Brand(Node):
    """A subdivision of a workspace; people, segments and campaigns may belong to one."""

    name: str = about("Its name, unique in the workspace.")
    created_at: datetime = about("When it was made.")

    @classmethod
    def of(cls, row: BrandRow) -> "Brand":
        return cls(id=ids.encode(Kind.BRAND, row.id), name=row.name, created_at=row.created_at)


@input_type
class WorkspaceUpdateInput:
    """What to change; what is left out stays. Mails of a campaign that was started already stay as they are."""

    track_opens: bool | None = about(
        "Whether mails carry an image that tells of their being opened; true in a new workspace.", default=None
    )
    track_clicks: bool | None = about(
        "Whether the links in mails tell of clicks; true in a new workspace.", default=None
    )
    approval_above: Maybe[int | None] = about(
        "Above how many people a campaign needs a second person's approval, 0 for every one; null: none does."
    )


@output
class WorkspaceUpdatePayload(Payload):
    """The workspace as changed."""

    workspace: Workspace | None = about("The workspace; null when the change was refused.", default=None)


@input_type
class BrandCreateInput:
    """A new brand."""

    name: str = about("Its name, unique in the workspace.")


@output
class BrandCreatePayload(Payload):
    """The new brand."""

    brand: Brand | None = about("The brand; null when it was refused.", default=None)


@input_type
class ClientTokenCreateInput:
    """A token with which an app acts as one profile."""

    external_id: str = about("Your id of the person who is signed in to the app.")
    expires_in_seconds: int = about("How long it holds: 60 to 86,400 seconds.", default=3600)
    claims: Json | None = about(
        f"What banners may say of the person, by the names of their variables: an object of at most {MOST_CLAIMS} "
        "texts, numbers and booleans. The person can read them.",
        default=None,
    )


@output
class ClientTokenCreatePayload(Payload):
    """The token."""

    token: str | None = about(
        "Give it to the app, which sends it in the header X-Muster-Client-Token, or as a bearer token.", default=None
    )
    expires_at: datetime | None = about("When it ends; make a new one before.", default=None)


@output
class WorkspaceQueries:
    @query(needs=Scope.READ)
    async def workspace(self, info: Info) -> Workspace:
        """The workspace that the key belongs to."""
        return Workspace.of(await workspaces.get(info.context.workspace_id))

    @query(needs=Scope.READ)
    async def brands(self, info: Info) -> list[Brand]:
        """The workspace's brands, by name."""
        return [Brand.of(row) for row in await brands.list_brands(info.context.workspace_id)]


@output
class WorkspaceMutations:
    @mutation(needs=Scope.ADMIN)
    async def workspace_update(self, info: Info, input: WorkspaceUpdateInput) -> WorkspaceUpdatePayload:
        """Change the workspace that the key belongs to."""
        changes = workspaces.WorkspaceChanges(
            track_opens=input.track_opens,
            track_clicks=input.track_clicks,
            approval_above=given(input.approval_above),
        )
        return WorkspaceUpdatePayload(
            workspace=Workspace.of(await workspaces.update(info.context.workspace_id, changes))
        )

    @mutation(needs=Scope.ADMIN, once=True)
    async def brand_create(self, info: Info, input: BrandCreateInput) -> BrandCreatePayload:
        """Make a brand."""
        return BrandCreatePayload(brand=Brand.of(await brands.create(info.context.workspace_id, input.name)))

    @mutation(needs=Scope.INGEST)
    async def client_token_create(self, info: Info, input: ClientTokenCreateInput) -> ClientTokenCreatePayload:
        """Make a token with which an app acts as one profile; only after your server has signed that person in."""
        life = timedelta(seconds=input.expires_in_seconds)
        if not timedelta(minutes=1) <= life <= LONGEST_CLIENT_TOKEN_LIFE:
            message = "A client token holds between 60 seconds and a day; make a new one when it ends."
            raise ApiError("OUT_OF_RANGE", message, field=("expires_in_seconds",))
        external_id = clean_external_id(input.external_id)
        expires_at = (info.context.now + life).replace(microsecond=0)
        claims: object = {} if input.claims is None else input.claims
        if not isinstance(claims, dict) or len(kept_claims(claims)) < len(claims):
            message = (
                f"Claims are an object of at most {MOST_CLAIMS} texts, numbers and booleans of at most "
                f"{LONGEST_CLAIM} characters."
            )
            raise ApiError("INVALID_CLAIMS", message, field=("claims",))
        token = info.context.services.authenticator.client_token(
            info.context.workspace_id, external_id, expires_at=expires_at, claims=claims
        )
        return ClientTokenCreatePayload(token=token, expires_at=expires_at)
