"""Who is calling: keys and client tokens, and what each may do.

A secret key (`msk_`) belongs to a server or a person and has scopes. A publishable key (`mpk_`) ships inside apps
and pages, so that everybody has it: alone it acts on anonymous profiles only. A client token (`mct_`), made by a
server for one profile with `clientTokenCreate`, lets an app act as that profile.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.problems import ApiError
from campaigns.tokens import Signer
from profiles import keys
from profiles.keys import KeyIdentity, Scope
from profiles.models import KeyKind

CLIENT_TOKEN_HEADER = "x-muster-client-token"
CLIENT_TOKEN_PREFIX = "mct_"
CLIENT_TOKEN = "client token"
"""The purpose its signature is for."""
LONGEST_CLIENT_TOKEN_LIFE = timedelta(days=1)
REMEMBERED = timedelta(seconds=5)
"""So long a key that was good is not looked up again."""
MOST_REMEMBERED = 10_000

READS = frozenset(Scope) - {Scope.INGEST}
"""Whoever may change something may read too; `ingest` alone reads nothing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, as proven by its headers."""

    workspace_id: UUID
    kind: KeyKind
    scopes: frozenset[str] = frozenset()
    acting_as: str | None = None
    """External id of the profile that a client token names."""
    key_id: UUID | None = None
    """The key, for what is kept of who did what; None for a client token."""

    @property
    def is_server(self) -> bool:
        return self.kind is KeyKind.SECRET

    def may(self, scope: Scope) -> bool:
        """Whether a secret key's scopes grant `scope`; publishable keys and client tokens have none."""
        if not self.is_server:
            return False
        return not self.scopes.isdisjoint(READS) if scope is Scope.READ else scope in self.scopes


def require(caller: Caller | None, scope: Scope, *, from_apps: bool = False) -> Caller:
    """The caller, when it has the right; raises ApiError UNAUTHENTICATED or FORBIDDEN.

    `from_apps`: publishable keys and client tokens may do it too, within `own_profile`.
    """
    if caller is None:
        raise unauthenticated()
    if caller.may(scope) or (from_apps and not caller.is_server):
        return caller
    if caller.is_server:
        raise ApiError("FORBIDDEN", f"This key lacks the scope {scope}; use one that has it.")
    raise ApiError("FORBIDDEN", "A publishable key or client token may not do this; use a secret key on a server.")


def own_profile(caller: Caller, external_id: str | None, *, field: str = "external_id") -> str | None:
    """The external id that the caller may act on; None for an anonymous visitor.

    A server may name anybody. An app may name the profile of its client token, or nobody; raises ApiError FORBIDDEN
    for any other: a publishable key is public, and would let everybody act as everybody.
    """
    if caller.is_server:
        return external_id
    if external_id is not None and external_id != caller.acting_as:
        message = (
            "An app may name only the profile of its client token; have your server make one with clientTokenCreate"
            f" and send it in the header {CLIENT_TOKEN_HEADER}."
        )
        raise ApiError("FORBIDDEN", message, field=(field,))
    return caller.acting_as


def unauthenticated(message: str = "Send a key: Authorization: Bearer msk_...") -> ApiError:
    return ApiError("UNAUTHENTICATED", message)


class KnownKeys:
    """Keys that were good a moment ago, so that a busy caller costs no look-up a request (two transactions, about
    1 ms). A revoked key opens for `REMEMBERED` more at the most; an expired one not at all. Unknown ones are not kept:
    nobody can push the good ones out with bad ones.
    """

    def __init__(self) -> None:
        self.seen: OrderedDict[bytes, tuple[datetime, KeyIdentity]] = OrderedDict()

    async def find(self, secret: str, *, now: datetime) -> KeyIdentity | None:
        """See `keys.find`."""
        # Not the secret itself: this process has no need to keep it.
        hash = keys.hash_of(secret)
        at, identity = self.seen.get(hash, (None, None))
        if at is not None and identity is not None and at <= now < at + REMEMBERED:
            return identity if identity.expires_at is None or now < identity.expires_at else None
        identity = await keys.find(secret, now=now)
        self.seen.pop(hash, None)
        if identity is not None:
            self.seen[hash] = (now, identity)
            if len(self.seen) > MOST_REMEMBERED:
                self.seen.popitem(last=False)
        return identity


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Proves callers; raises ApiError UNAUTHENTICATED for a key or token that is unknown, expired or revoked."""

    signer: Signer
    known: KnownKeys = field(default_factory=KnownKeys)

    async def caller(self, headers: Mapping[str, str], *, now: datetime) -> Caller | None:
        """Whom the headers prove; None when they carry neither key nor token."""
        bearer = bearer_of(headers.get("authorization"))
        token = headers.get(CLIENT_TOKEN_HEADER)
        if bearer is None:
            return self.client(token, now=now) if token else None
        if bearer.startswith(CLIENT_TOKEN_PREFIX):
            return self.client(bearer, now=now)
        identity = await self.known.find(bearer, now=now)
        if identity is None:
            raise unauthenticated("This key is unknown, expired or revoked; create one with `muster key create`.")
        caller = Caller(
            workspace_id=identity.workspace_id, kind=identity.kind, scopes=identity.scopes, key_id=identity.key_id
        )
        if token is None or caller.is_server:
            return caller
        client = self.client(token, now=now)
        if client.workspace_id != caller.workspace_id:
            raise unauthenticated("The client token is of another workspace than the key.")
        return replace(caller, acting_as=client.acting_as)

    def client_token(self, workspace_id: UUID, external_id: str, *, expires_at: datetime) -> str:
        """A token with which an app acts as one profile until `expires_at`."""
        claims = [workspace_id.hex, external_id, int(expires_at.timestamp())]
        return CLIENT_TOKEN_PREFIX + self.signer.sign(CLIENT_TOKEN, json.dumps(claims).encode())

    def client(self, token: str, *, now: datetime) -> Caller:
        """Whom a client token names; raises ApiError UNAUTHENTICATED when it is not ours or has expired."""
        payload = self.signer.verify(CLIENT_TOKEN, token.removeprefix(CLIENT_TOKEN_PREFIX))
        if payload is None:
            raise unauthenticated("This client token is not valid; have your server make a new one.")
        workspace, external_id, expires = json.loads(payload)
        if datetime.fromtimestamp(expires, UTC) <= now:
            raise unauthenticated("This client token has expired; have your server make a new one.")
        return Caller(workspace_id=UUID(hex=workspace), kind=KeyKind.PUBLISHABLE, acting_as=external_id)


def bearer_of(header: str | None) -> str | None:
    """The token of an Authorization header; None when there is no such header.

    Raises ApiError UNAUTHENTICATED when it has another scheme.
    """
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthenticated()
    return token.strip()
