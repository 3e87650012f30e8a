"""Who is calling: keys and client tokens, and what each may do.

A secret key (`msk_`) belongs to a server or a person and has scopes. People may also sign in with an identity provider,
whose tokens give them roles (app/people.py). A publishable key (`mpk_`) ships inside apps and pages, so that everybody
has it: alone it acts on anonymous visitors only. A client token lets an app act as one profile: made by a server with
`clientTokenCreate` (`mct_`), or by an identity provider of its own (app/jwks.py).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import orjson

from app.jwks import BadToken, ProfileIssuer
from app.key_uses import KeyUses
from app.patience import UNREACHABLE, within
from app.problems import ApiError
from campaigns.tokens import Signer
from profiles import keys
from profiles.errors import ProfileError
from profiles.identities import clean_external_id
from profiles.keys import ROLES, Actor, KeyIdentity, Scope, role_of
from profiles.models import KeyKind

if TYPE_CHECKING:  # which makes callers itself
    from app.people import SignIn

CLIENT_TOKEN_HEADER = "x-muster-client-token"
CLIENT_TOKEN_PREFIX = "mct_"
CLIENT_TOKEN = "client token"
"""The purpose its signature is for."""
LONGEST_CLIENT_TOKEN_LIFE = timedelta(days=1)
MOST_CLAIMS = 50
LONGEST_CLAIM = 500
"""Characters of a claim's name or text."""
REMEMBERED = timedelta(seconds=5)
"""So long a key that was good is not looked up again."""
REMEMBERED_AWAY = timedelta(hours=1)
"""As long as the last boards are shown (app/boards.py)."""
PATIENCE_S = 5.0
"""For the look-up."""
MOST_REMEMBERED = 10_000

READS = frozenset(Scope) - {Scope.INGEST}
"""Whoever may change something may read too; `ingest` alone reads nothing."""


Claims: TypeAlias = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, as proven by its headers."""

    workspace_id: UUID
    kind: KeyKind
    scopes: frozenset[str] = frozenset()
    acting_as: str | None = None
    """External id of the profile that a client token names."""
    visitor: str | None = None
    """Anonymous id of the visitor whom an app may speak of (app/visitors.py)."""
    key_id: UUID | None = None
    """The key, for what is kept of who did what; None for a person and for a client token."""
    family_id: UUID | None = None
    """The first of the keys that took over from one another, of which this is one; None: itself."""
    subject: str | None = None
    """The person, as the identity provider names them; they may what a secret key with their scopes may."""
    label: str = ""
    """Name and beginning of the key, for people."""
    claims: Claims = field(default_factory=dict, hash=False)
    """What a client token says of its profile, for the variables of banners."""
    expires_at: datetime | None = None
    """When what proves it expires; None: nothing it shows does."""

    @property
    def name(self) -> str:
        """What all requests of one key and of those that took over from it, of one person, or of one client token's
        profile have in common in their workspace."""
        if self.subject is not None:
            return f"person {self.subject}"
        return f"key {self.family_id or self.key_id}" if self.key_id else f"profile {self.acting_as}"

    @property
    def actor(self) -> Actor:
        """Who it is, for what is kept of who did what."""
        return Actor(self.name, self.subject or self.label)

    @property
    def is_server(self) -> bool:
        return self.kind is KeyKind.SECRET

    def may(self, scope: Scope) -> bool:
        """Whether the scopes of a secret key or a person grant `scope`; publishable keys and client tokens have
        none."""
        if not self.is_server:
            return False
        return not self.scopes.isdisjoint(READS) if scope is Scope.READ else scope in self.scopes


class LacksScope(ApiError):
    """The caller is known, and may not do this."""

    def __init__(self, caller: Caller, scope: Scope) -> None:
        role = role_of(caller.scopes)
        *others, last = (one for one, scopes in ROLES.items() if scope in scopes)
        having = f"{', '.join(others)} and {last}" if others else last
        roles = f"which the role{'s' if ' ' in having else ''} {having} ha{'ve' if ' ' in having else 's'}"
        if caller.subject is None:
            have = f"it has {', '.join(sorted(caller.scopes))}{f' (the role {role})' if role else ''}"
            mend = "Use a key that has it: an admin makes one with apiKeyCreate, or `muster key create` at a terminal."
            message = f"This key lacks the scope {scope}, {roles}; {have}. {mend}"
        else:
            have = f"You have the role {role}, which lacks" if role else "None of your groups gives you a role with"
            mend = "Ask to be put into a group for which MUSTER_OIDC_ROLES says so, and sign in again."
            message = f"{have} the scope {scope}, {roles}. {mend}"
        super().__init__("FORBIDDEN", message)
        self.scope = scope


def require(caller: Caller | None, scope: Scope, *, from_apps: bool = False) -> Caller:
    """The caller, when it has the right; raises ApiError UNAUTHENTICATED or FORBIDDEN.

    `from_apps`: publishable keys and client tokens may do it too, within `own_profile`.
    """
    if caller is None:
        raise unauthenticated()
    if caller.may(scope) or (from_apps and not caller.is_server):
        return caller
    if caller.is_server:
        raise LacksScope(caller, scope)
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


def unauthenticated(message: str = "Send a key: Authorization: Bearer msk_..., or mpk_... in an app.") -> ApiError:
    return ApiError("UNAUTHENTICATED", message)


@dataclass(frozen=True, slots=True)
class Asked:
    """A key that is being looked up."""

    at: datetime
    answer: asyncio.Task[KeyIdentity | None]


@dataclass(frozen=True, slots=True)
class Known:
    """A key that was good."""

    identity: KeyIdentity
    proven_at: datetime
    tried_at: datetime
    """When the database was asked last, also without an answer."""

    def still(self, now: datetime) -> KeyIdentity | None:
        """Whose it is; None when it has expired since."""
        expires_at = self.identity.expires_at
        return self.identity if expires_at is None or now < expires_at else None


class KnownKeys:
    """Keys that were good a moment ago, so that a busy caller costs no look-up a request (two transactions, about
    1 ms). A revoked key opens for `REMEMBERED` more at the most, and while PostgreSQL is away, when there is no more
    than banners to be had, for `REMEMBERED_AWAY`; an expired one not at all. Unknown ones are not kept: nobody can push
    the good ones out with bad ones.
    """

    def __init__(self) -> None:
        self.uses = KeyUses()
        self.seen: OrderedDict[bytes, Known] = OrderedDict()
        self.asked: dict[bytes, Asked] = {}
        """One for all who use a key at once: a busy one is good for `REMEMBERED`, and then for no request under way."""
        self.away = False
        """Whether the last look-up had no answer."""

    async def find(self, secret: str, *, now: datetime) -> KeyIdentity | None:
        """See `keys.find`; that the key was used is noted."""
        identity = await self.look_up(secret, now=now)
        if identity is not None:
            self.uses.note(identity.key_id, now)
        return identity

    async def look_up(self, secret: str, *, now: datetime) -> KeyIdentity | None:
        # Not the secret itself: this process has no need to keep it.
        hash = keys.hash_of(secret)
        known = self.seen.get(hash)
        if known is not None and known.tried_at <= now < known.tried_at + REMEMBERED:
            return known.still(now)
        may_do = known is not None and known.proven_at <= now < known.proven_at + REMEMBERED_AWAY
        if known is not None and may_do and self.away:
            # One asks whether PostgreSQL is back, and the others do not wait for that: it may not even answer.
            self.seen[hash] = replace(known, tried_at=now)
        asked = self.ask(hash, secret, now=now)
        try:
            identity = await asyncio.shield(asked.answer)  # whoever goes away does not go for the others
        except UNREACHABLE:
            self.away = True
            if known is None or not may_do:
                raise
            self.seen[hash] = replace(known, tried_at=now)
            return known.still(now)
        self.away = False
        self.seen.pop(hash, None)
        if identity is None:
            return None
        found = self.seen[hash] = Known(identity, asked.at, asked.at)
        if len(self.seen) > MOST_REMEMBERED:
            self.seen.popitem(last=False)
        return found.still(now)

    def ask(self, hash: bytes, secret: str, *, now: datetime) -> Asked:
        """The look-up that is under way, or a new one."""
        asked = self.asked.get(hash)
        if asked is None:
            answer = asyncio.create_task(within(PATIENCE_S, keys.find(secret, now=now)))
            asked = self.asked[hash] = Asked(now, answer)
            answer.add_done_callback(partial(self.answered, hash))
        return asked

    def answered(self, hash: bytes, answer: asyncio.Task[KeyIdentity | None]) -> None:
        del self.asked[hash]
        if not answer.cancelled():
            answer.exception()  # heard, also when nobody who asked is still there


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Proves callers; raises ApiError UNAUTHENTICATED for a key or token that is unknown, expired or revoked."""

    signer: Signer
    known: KnownKeys = field(default_factory=KnownKeys)
    issuer: ProfileIssuer | None = None
    """The identity provider whose tokens stand for client tokens; None: none does."""
    sign_in: "SignIn | None" = None
    """The identity provider with which people sign in; None: they use keys."""

    async def caller(self, headers: Mapping[str, str], *, now: datetime) -> Caller | None:
        """Whom the headers prove; None when they carry neither key nor token."""
        bearer = bearer_of(headers.get("authorization"))
        caller = None if bearer is None else await self.bearer(bearer, now=now)
        return await self.acting(caller, headers.get(CLIENT_TOKEN_HEADER), now=now)

    async def bearer(self, bearer: str, *, now: datetime) -> Caller:
        """Whom the token of an Authorization header proves."""
        if self.sign_in is not None and self.sign_in.is_for(bearer):
            return await self.sign_in.person(bearer)
        if bearer.startswith(CLIENT_TOKEN_PREFIX) or bearer.count(".") == 2:
            return await self.client(bearer, now=now)
        identity = await self.known.find(bearer, now=now)
        if identity is None:
            raise unauthenticated("This key is unknown, expired or revoked; create one with `muster key create`.")
        return Caller(
            workspace_id=identity.workspace_id,
            kind=identity.kind,
            scopes=identity.scopes,
            key_id=identity.key_id,
            family_id=identity.family_id,
            label=identity.label,
            expires_at=identity.expires_at,
        )

    async def acting(self, caller: Caller | None, token: str | None, *, now: datetime) -> Caller | None:
        """Who `bearer` proved, together with what the client token beside it says: only a publishable key needs one."""
        if caller is None:
            return await self.client(token, now=now) if token else None
        if token is None or caller.is_server or caller.key_id is None:
            return caller
        client = await self.client(token, now=now)
        if client.workspace_id != caller.workspace_id:
            raise unauthenticated("The client token is of another workspace than the key.")
        ends = [at for at in (caller.expires_at, client.expires_at) if at is not None]
        expires_at = min(ends, default=None)
        return replace(caller, acting_as=client.acting_as, claims=client.claims, expires_at=expires_at)

    def client_token(
        self, workspace_id: UUID, external_id: str, *, expires_at: datetime, claims: Claims | None = None
    ) -> str:
        """A token with which an app acts as one profile until `expires_at`."""
        told = [workspace_id.hex, external_id, int(expires_at.timestamp()), claims or {}]
        return CLIENT_TOKEN_PREFIX + self.signer.sign(CLIENT_TOKEN, orjson.dumps(told))

    async def client(self, token: str, *, now: datetime) -> Caller:
        """Whom a client token names, ours or of the identity provider; raises ApiError UNAUTHENTICATED when it is
        neither, or has expired."""
        if not token.startswith(CLIENT_TOKEN_PREFIX) and self.issuer is not None:
            return await provided(self.issuer, token)
        payload = self.signer.verify(CLIENT_TOKEN, token.removeprefix(CLIENT_TOKEN_PREFIX))
        if payload is None:
            raise unauthenticated("This client token is not valid; have your server make a new one.")
        # Those made before there were claims are of three parts.
        workspace, external_id, expires, *claims = orjson.loads(payload)
        expires_at = datetime.fromtimestamp(expires, UTC)
        if expires_at <= now:
            raise unauthenticated("This client token has expired; have your server make a new one.")
        return Caller(
            workspace_id=UUID(hex=workspace),
            kind=KeyKind.PUBLISHABLE,
            acting_as=external_id,
            claims=claims[0] if claims else {},
            expires_at=expires_at,
        )


async def provided(issuer: ProfileIssuer, token: str) -> Caller:
    """Whom a token of the identity provider names; raises ApiError UNAUTHENTICATED."""
    try:
        person = await issuer.read(token)
        external_id = clean_external_id(person.external_id)
        expires_at = datetime.fromtimestamp(person.expires_at, UTC)
    except (BadToken, ProfileError, TypeError, ValueError, OverflowError) as fault:  # the last three: no such time
        raise unauthenticated("This token is not one of the identity provider's for us, or has expired.") from fault
    return Caller(
        workspace_id=person.workspace_id,
        kind=KeyKind.PUBLISHABLE,
        acting_as=external_id,
        claims=kept_claims(person.claims),
        expires_at=expires_at,
    )


def kept_claims(told: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The claims that can stand for variables: single values of at most so many characters, at most so many."""
    plain = {
        name: value
        for name, value in told.items()
        if isinstance(value, str | int | float) and max(len(name), len(str(value))) <= LONGEST_CLAIM
    }
    return dict(list(plain.items())[:MOST_CLAIMS])


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
