"""API keys, for admins: made, rotated, revoked, and when each was used last."""

from datetime import datetime, timedelta

from strawberry import ID

from app.api import ids, paging
from app.api.declare import about, input_type, mutation, output, query
from app.api.enums import KeyKind, Role, Scope
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.paging import After, Connection, First
from app.api.payloads import Payload
from app.context import Info
from profiles import keys
from profiles.keys import DEFAULT_OVERLAP, LONGEST_OVERLAP
from profiles.models import ApiKey as KeyRow

SHOWN_ONCE = (
    "The key itself. It is shown this once: only a hash of it is kept. Null when it was refused, and for a request that"
    " was sent again."
)


@output
class ApiKey(Node):
    """A key of the workspace; the key itself is kept nowhere."""

    name: str = about("What it is for.")
    prefix: str = about("How it begins.")
    kind: KeyKind = about("Who may hold it.")
    role: Role | None = about("The role that has exactly its scopes; null when none has.")
    scopes: list[Scope] = about("What it may do.")
    created_at: datetime = about("When it was made.")
    expires_at: datetime | None = about("From when on it opens nothing; null: it has no end.")
    revoked_at: datetime | None = about("When it was ended by somebody; null: it was not.")
    last_used_at: datetime | None = about(
        "The minute in which it was used last, known about a minute later; null: it never was."
    )
    replaced_by_id: ID | None = about("The key that took its place, when it was rotated.")

    @classmethod
    def of(cls, row: KeyRow) -> "ApiKey":
        return cls(
            id=ids.encode(Kind.API_KEY, row.id),
            name=row.name,
            prefix=row.prefix,
            kind=row.kind,
            role=keys.role_of(row.scopes),
            scopes=[Scope(scope) for scope in row.scopes],
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            last_used_at=row.last_used_at,
            replaced_by_id=ids.encode(Kind.API_KEY, row.replaced_by) if row.replaced_by else None,
        )


@input_type
class ApiKeyCreateInput:
    """A new key, with either a role or scopes."""

    name: str = about("What it is for, 1 to 200 characters.")
    kind: KeyKind = about("Who may hold it; a publishable one has the scope ingest alone.", default=KeyKind.SECRET)
    role: Role | None = about("What it may do, by name.", default=None)
    scopes: list[Scope] = about("What it may do, one by one.", default_factory=list)
    expires_at: datetime | None = about("From when on it opens nothing; left out: it has no end.", default=None)


@output
class ApiKeyCreatePayload(Payload):
    """The new key."""

    api_key: ApiKey | None = about("The key; null when it was refused.", default=None)
    secret: str | None = about(SHOWN_ONCE, default=None)


@input_type
class ApiKeyRotateInput:
    """Which key to replace, and how long it goes on beside the new one."""

    id: ID = about("The key, which must still be good.")
    overlap_seconds: int = about(
        f"How long the old key still opens: 0 to {LONGEST_OVERLAP.total_seconds():,.0f}.",
        default=int(DEFAULT_OVERLAP.total_seconds()),
    )
    expires_at: datetime | None = about(
        "From when on the new key opens nothing; left out: it lives as long as the old one was meant to.", default=None
    )


@output
class ApiKeyRotatePayload(Payload):
    """The new key, beside the old one."""

    api_key: ApiKey | None = about("The new key; null when it was refused.", default=None)
    replaced: ApiKey | None = about("The old key, with its end; null when it was refused.", default=None)
    secret: str | None = about(SHOWN_ONCE, default=None)


@input_type
class ApiKeyRevokeInput:
    """Which key to end."""

    id: ID = about("The key.")


@output
class ApiKeyRevokePayload(Payload):
    """The key, which opens nothing any more."""

    api_key: ApiKey | None = about("The key; null when it was refused.", default=None)


@output
class ApiKeyQueries:
    @query(needs=Scope.ADMIN)
    async def api_keys(self, info: Info, first: First = paging.DEFAULT_PAGE, after: After = None) -> Connection[ApiKey]:
        """The workspace's keys, newest first, those that are revoked or have expired too."""
        rows = await keys.page(
            info.context.workspace_id, after=paging.after_uuid(after), limit=paging.page_size(first) + 1
        )
        return paging.connection(rows, first=first, after=after, node=ApiKey.of, key=lambda row: row.id)


@output
class ApiKeyMutations:
    @mutation(needs=Scope.ADMIN, once=True)
    async def api_key_create(self, info: Info, input: ApiKeyCreateInput) -> ApiKeyCreatePayload:
        """Make a key."""
        row, secret = await keys.create(
            info.context.workspace_id,
            name=input.name,
            kind=input.kind,
            scopes=keys.scopes_wanted(input.role, input.scopes),
            expires_at=input.expires_at,
        )
        return ApiKeyCreatePayload(api_key=ApiKey.of(row), secret=secret)

    @mutation(needs=Scope.ADMIN, once=True)
    async def api_key_rotate(self, info: Info, input: ApiKeyRotateInput) -> ApiKeyRotatePayload:
        """Make a key in another's place: both open the same until the old one ends."""
        new, old, secret = await keys.rotate(
            info.context.workspace_id,
            ids.decode_uuid(Kind.API_KEY, input.id),
            now=info.context.now,
            overlap=timedelta(seconds=input.overlap_seconds),
            expires_at=input.expires_at,
        )
        return ApiKeyRotatePayload(api_key=ApiKey.of(new), replaced=ApiKey.of(old), secret=secret)

    @mutation(needs=Scope.ADMIN)
    async def api_key_revoke(self, info: Info, input: ApiKeyRevokeInput) -> ApiKeyRevokePayload:
        """End a key for good: within seconds it opens nothing. The last one with the scope admin stays."""
        row = await keys.revoke(
            info.context.workspace_id,
            ids.decode_uuid(Kind.API_KEY, input.id),
            now=info.context.now,
            may_be_last=False,
        )
        return ApiKeyRevokePayload(api_key=ApiKey.of(row))
