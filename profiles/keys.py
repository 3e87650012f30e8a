"""API keys: made once, kept as a hash, found by it; rotated, revoked, and who used them when."""

import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple, assert_never
from uuid import UUID
from zlib import crc32

from db.rows import to_model
from db.transactions import Connection, across_workspaces, transaction
from profiles.errors import KeyNotFound, ProfileError
from profiles.models import ApiKey, KeyKind
from profiles.text import clean_text


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    SEGMENTS = "segments"
    CAMPAIGNS = "campaigns"
    SEND = "send"
    ADMIN = "admin"
    INGEST = "ingest"


class Role(StrEnum):
    """A set of scopes with a name; each has all of the one before."""

    VIEWER = "VIEWER"
    MARKETER = "MARKETER"
    SENDER = "SENDER"
    ADMIN = "ADMIN"


ROLES: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.MARKETER: frozenset({Scope.READ, Scope.SEGMENTS, Scope.CAMPAIGNS}),
    Role.SENDER: frozenset({Scope.READ, Scope.SEGMENTS, Scope.CAMPAIGNS, Scope.SEND}),
    Role.ADMIN: frozenset(Scope),
}


def role_of(scopes: Collection[str]) -> Role | None:
    """The role whose scopes are exactly these; None when none's are. A key keeps scopes, never the name of a role: what
    a later version may add to a role is not given to whoever has it already."""
    return next((role for role, granted in ROLES.items() if granted == frozenset(scopes)), None)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something."""

    id: str
    """What tells them apart within a workspace: the family of a key, or a person."""
    label: str
    """For people: name and beginning of the key, or the person's subject."""


@dataclass(frozen=True, slots=True)
class KeyIdentity:
    """Whom a key belongs to and what it may do."""

    workspace_id: UUID
    key_id: UUID
    kind: KeyKind
    scopes: frozenset[str]
    expires_at: datetime | None = None
    family_id: UUID | None = None
    """The first of the keys that took over from one another, this one being the last; None: itself."""
    label: str = ""
    """Name and beginning, for people."""


class NewKey(NamedTuple):
    """A secret and what is kept of it."""

    secret: str
    prefix: str
    hash: bytes


BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 62^43 > 2^256 and 62^6 > 2^32.
RANDOM_CHARACTERS, CHECKSUM_CHARACTERS, SHOWN_CHARACTERS = 43, 6, 12
FORM = re.compile(rf"m[sp]k_[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}")
MOST_KEYS = 1000
"""Of a workspace, those that are revoked or expired too."""
DEFAULT_OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=30)

# Nothing of the key when it was not made; `is_left` says for which of the two reasons.
INSERT_KEY = """
WITH room AS (SELECT count(*) < $9 AS is_left FROM api_key WHERE workspace_id = $1),
made AS (
  INSERT INTO api_key (workspace_id, name, kind, prefix, hash, scopes, expires_at, family_id)
  SELECT $1, $2, $3, $4, $5, $6, $7, $8 FROM room
  WHERE room.is_left AND ($7::timestamptz IS NULL OR $7::timestamptz > now()) RETURNING *)
SELECT room.is_left, made.* FROM room LEFT JOIN made ON true
"""
FIND_BY_HASH = "SELECT workspace_id, key_id FROM key_by_hash($1)"
FIND_LIVE = """
SELECT kind, scopes, expires_at, family_id, name || ' (' || prefix || ')' AS label FROM api_key
WHERE workspace_id = $1 AND id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)
"""
KEEP_USES = "SELECT keys_used($1, $2)"
REVOKE = """
UPDATE api_key SET revoked_at = coalesce(revoked_at, $3) WHERE workspace_id = $1 AND id = $2 RETURNING *
"""
# Locked in one order: of two admins who revoke each other's key, the second finds that it is the last. One that was
# rotated ends soon and does not count.
ADMINS = """
SELECT id FROM api_key
WHERE workspace_id = $1 AND kind = 'SECRET' AND 'admin' = ANY(scopes) AND revoked_at IS NULL AND replaced_by IS NULL
  AND (expires_at IS NULL OR expires_at > $2)
ORDER BY id FOR UPDATE
"""
REPLACE = """
UPDATE api_key SET replaced_by = $3, expires_at = least(coalesce(expires_at, $4), $4)
WHERE workspace_id = $1 AND id = $2 RETURNING *
"""
NEWEST = UUID(int=2**128 - 1)


def new_key(kind: KeyKind) -> NewKey:
    """A new secret of 256 random bits with a checksum, the part of it that may be shown, and its SHA-256.

    The checksum lets scanners of leaked secrets, and `find`, tell a key from other text without asking the database.
    """
    match kind:
        case KeyKind.SECRET:
            tag = "msk_"
        case KeyKind.PUBLISHABLE:
            tag = "mpk_"
        case _:
            assert_never(kind)
    body = tag + base62(secrets.randbits(256), RANDOM_CHARACTERS)
    secret = body + checksum(body)
    return NewKey(secret, secret[:SHOWN_CHARACTERS], hash_of(secret))


def base62(number: int, characters: int) -> str:
    """`number` in base 62, padded to `characters`."""
    out = []
    for _ in range(characters):
        number, digit = divmod(number, 62)
        out.append(BASE62[digit])
    return "".join(reversed(out))


def checksum(body: str) -> str:
    return base62(crc32(body.encode()), CHECKSUM_CHARACTERS)


def hash_of(secret: str) -> bytes:
    """SHA-256; no slow hash is needed for 256 random bits."""
    return sha256(secret.encode()).digest()


async def create(
    workspace_id: UUID, *, name: str, kind: KeyKind, scopes: Collection[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is shown this once and kept nowhere.

    Raises ProfileError: UNKNOWN_SCOPE, NO_SCOPE, SCOPE_NOT_PUBLISHABLE, EXPIRES_IN_THE_PAST (by the database clock),
    or a name that cannot be kept.
    """
    name = clean_text(name, what="Key name", most=200, field=("name",))
    allowed = clean_scopes(kind, scopes)
    if expires_at is not None and expires_at.tzinfo is None:
        raise ProfileError("NAIVE_TIME", "Give the expiry with its offset from UTC.", field=("expires_at",))
    async with transaction(workspace_id) as connection:
        return await insert(connection, workspace_id, name, kind, allowed, expires_at)


async def insert(
    connection: Connection,
    workspace_id: UUID,
    name: str,
    kind: KeyKind,
    scopes: list[str],
    expires_at: datetime | None,
    *,
    family_id: UUID | None = None,
) -> tuple[ApiKey, str]:
    """`create` with what was checked."""
    key = new_key(kind)
    row = await connection.fetchrow(
        INSERT_KEY,
        workspace_id,
        name,
        kind.value,
        key.prefix,
        key.hash,
        scopes,
        expires_at,
        family_id,
        MOST_KEYS,
    )
    if not row["is_left"]:
        raise ProfileError("TOO_MANY_KEYS", f"A workspace has at most {MOST_KEYS} keys.")
    if row["id"] is None:
        raise ProfileError(
            "EXPIRES_IN_THE_PAST", "The expiry has passed already: give a later one.", field=("expires_at",)
        )
    return to_model(ApiKey, row), key.secret


def scopes_wanted(role: str | None, scopes: Collection[str]) -> list[str]:
    """The scopes of a role, or `scopes` themselves; raises ProfileError unless exactly one of both is given."""
    if (role is None) == (not scopes):
        message = f"Give either a role ({', '.join(Role)}) or scopes ({', '.join(Scope)})."
        raise ProfileError("ROLE_OR_SCOPES", message, field=("role",))
    if role is None:
        return list(scopes)
    if role not in ROLES:
        raise ProfileError("UNKNOWN_ROLE", f"{role!r} is no role: use {', '.join(Role)}.", field=("role",))
    return sorted(ROLES[Role(role)])


def clean_scopes(kind: KeyKind, scopes: Collection[str]) -> list[str]:
    """Scopes in one order, each once; raises ProfileError."""
    known = {scope.value for scope in Scope}
    for scope in scopes:
        if scope not in known:
            raise ProfileError(
                "UNKNOWN_SCOPE", f"{scope!r} is no scope: use {', '.join(sorted(known))}.", field=("scopes",)
            )
        if kind is KeyKind.PUBLISHABLE and scope != Scope.INGEST:
            raise ProfileError(
                "SCOPE_NOT_PUBLISHABLE",
                f"A publishable key is in everybody's hands and cannot have the scope {scope}: only ingest.",
                field=("scopes",),
            )
    if not scopes:
        raise ProfileError("NO_SCOPE", "A key without scopes may do nothing: give at least one.", field=("scopes",))
    return sorted({str(scope) for scope in scopes})


async def find(secret: str, *, now: datetime) -> KeyIdentity | None:
    """Whose key this is; None when it is unknown, ill-formed, revoked or expired. That it was used is not written: see
    `keep_uses`."""
    if not FORM.fullmatch(secret) or secret[-CHECKSUM_CHARACTERS:] != checksum(secret[:-CHECKSUM_CHARACTERS]):
        return None
    async with across_workspaces() as connection:
        owner = await connection.fetchrow(FIND_BY_HASH, hash_of(secret))
    if owner is None:
        return None
    workspace_id, key_id = owner["workspace_id"], owner["key_id"]
    async with transaction(workspace_id) as connection:
        key = await connection.fetchrow(FIND_LIVE, workspace_id, key_id, now)
    if key is None:
        return None
    return KeyIdentity(
        workspace_id,
        key_id,
        KeyKind(key["kind"]),
        frozenset(key["scopes"]),
        key["expires_at"],
        key["family_id"],
        key["label"],
    )


async def keep_uses(used: Mapping[UUID, datetime]) -> None:
    """Write when keys were used last, of any workspaces, in one statement; kept to the minute, never set back."""
    async with across_workspaces() as connection:
        await connection.execute(KEEP_USES, list(used), list(used.values()))


async def rotate(
    workspace_id: UUID,
    key_id: UUID,
    *,
    now: datetime,
    overlap: timedelta = DEFAULT_OVERLAP,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, ApiKey, str]:
    """The new key, the old one, and the new one's secret, which is shown this once.

    The new key has the name and the scopes of the old one, which opens as before for `overlap` (at most 30 days) and
    then nothing more. Unless `expires_at` is given, the new one lives as long as the old one was meant to. Raises
    KeyNotFound, ProfileError.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        message = "The old key goes on for 0 seconds to 30 days."
        raise ProfileError("OUT_OF_RANGE", message, field=("overlap_seconds",))
    async with transaction(workspace_id) as connection:
        old = await get_locked(workspace_id, key_id)
        if old.revoked_at or (old.expires_at and old.expires_at <= now):
            raise ProfileError("KEY_NOT_LIVE", "This key opens nothing any more; create a new one.", field=("id",))
        if old.replaced_by:
            message = "This key was rotated already; rotate the one that took its place, or revoke this one."
            raise ProfileError("ROTATED", message, field=("id",))
        if expires_at is None and old.expires_at:
            expires_at = now + (old.expires_at - old.created_at)
        new, secret = await insert(
            connection,
            workspace_id,
            old.name,
            old.kind,
            old.scopes,
            expires_at,
            family_id=old.family_id or old.id,
        )
        replaced = await connection.fetchrow(REPLACE, workspace_id, old.id, new.id, now + overlap)
        return new, to_model(ApiKey, replaced), secret


async def get_locked(workspace_id: UUID, key_id: UUID) -> ApiKey:
    """The key, locked until the transaction ends. Raises KeyNotFound."""
    key = await ApiKey.filter(workspace_id=workspace_id, id=key_id).select_for_update().first()
    if key is None:
        raise KeyNotFound(field=("id",))
    return key


async def revoke(workspace_id: UUID, key_id: UUID, *, now: datetime, may_be_last: bool = True) -> ApiKey:
    """The key, which opens nothing any more; revoking again changes nothing.

    Raises KeyNotFound; unless it `may_be_last`, ProfileError LAST_ADMIN for the last live key with the scope admin:
    without one nobody could make another but at a terminal.
    """
    async with transaction(workspace_id) as connection:
        if not may_be_last and [row["id"] for row in await connection.fetch(ADMINS, workspace_id, now)] == [key_id]:
            message = (
                "This is the last key with the scope admin: create another one first, or revoke it at a terminal with"
                " `muster key revoke`."
            )
            raise ProfileError("LAST_ADMIN", message, field=("id",))
        row = await connection.fetchrow(REVOKE, workspace_id, key_id, now)
    if row is None:
        raise KeyNotFound(field=("id",))
    return to_model(ApiKey, row)


async def list_keys(workspace_id: UUID) -> list[ApiKey]:
    """All keys, revoked ones too, newest first; at most 1,000 exist."""
    return await page(workspace_id, after=None, limit=MOST_KEYS)


async def page(workspace_id: UUID, *, after: UUID | None, limit: int) -> list[ApiKey]:
    """At most `limit` keys before `after`, newest first."""
    async with transaction(workspace_id):
        keys = ApiKey.filter(workspace_id=workspace_id, id__lt=after or NEWEST)
        return await keys.order_by("-id").limit(limit)


async def load(workspace_id: UUID, key_ids: Collection[UUID]) -> dict[UUID, ApiKey]:
    """Keys by id; unknown ids are left out."""
    async with transaction(workspace_id):
        return {key.id: key for key in await ApiKey.filter(workspace_id=workspace_id, id__in=list(key_ids))}
