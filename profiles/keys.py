"""API keys: made once, kept as a hash, found by it."""

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple, assert_never
from uuid import UUID
from zlib import crc32

from db.transactions import across_workspaces, transaction
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


@dataclass(frozen=True, slots=True)
class KeyIdentity:
    """Whom a key belongs to and what it may do."""

    workspace_id: UUID
    key_id: UUID
    kind: KeyKind
    scopes: frozenset[str]
    expires_at: datetime | None = None


class NewKey(NamedTuple):
    """A secret and what is kept of it."""

    secret: str
    prefix: str
    hash: bytes


BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 62^43 > 2^256 and 62^6 > 2^32.
RANDOM_CHARACTERS, CHECKSUM_CHARACTERS, SHOWN_CHARACTERS = 43, 6, 12
FORM = re.compile(rf"m[sp]k_[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}")
USED_AT_MOST_EVERY = timedelta(minutes=1)
MOST_KEYS = 1000

INSERT_KEY = """
INSERT INTO api_key (workspace_id, name, kind, prefix, hash, scopes, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7 WHERE $7::timestamptz IS NULL OR $7::timestamptz > now()
RETURNING id
"""
FIND_BY_HASH = "SELECT workspace_id, key_id FROM key_by_hash($1)"
FIND_LIVE = """
SELECT kind, scopes, expires_at, last_used_at FROM api_key
WHERE workspace_id = $1 AND id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)
"""
# The condition again: of many requests at once, one writes.
TOUCH = """
UPDATE api_key SET last_used_at = $3
WHERE workspace_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at <= $4)
"""
REVOKE = """
UPDATE api_key SET revoked_at = coalesce(revoked_at, $3) WHERE workspace_id = $1 AND id = $2
"""


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
    key = new_key(kind)
    async with transaction(workspace_id) as connection:
        if await ApiKey.filter(workspace_id=workspace_id).count() >= MOST_KEYS:
            raise ProfileError("TOO_MANY_KEYS", f"A workspace has at most {MOST_KEYS} keys.")
        key_id = await connection.fetchval(
            INSERT_KEY, workspace_id, name, kind.value, key.prefix, key.hash, allowed, expires_at
        )
        if key_id is None:
            raise ProfileError(
                "EXPIRES_IN_THE_PAST", "The expiry has passed already: give a later one.", field=("expires_at",)
            )
        return await ApiKey.get(workspace_id=workspace_id, id=key_id), key.secret


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
                f"A publishable key is in everybody's hands and cannot have {scope!r}: only ingest.",
                field=("scopes",),
            )
    if not scopes:
        raise ProfileError("NO_SCOPE", "A key without scopes may do nothing: give at least one.", field=("scopes",))
    return sorted({str(scope) for scope in scopes})


async def find(secret: str, *, now: datetime) -> KeyIdentity | None:
    """Whose key this is; None when it is unknown, ill-formed, revoked or expired.

    `last_used_at` is written at most once a minute, so that a busy key costs no write a request.
    """
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
        stale = now - USED_AT_MOST_EVERY
        if key["last_used_at"] is None or key["last_used_at"] <= stale:
            await connection.execute(TOUCH, workspace_id, key_id, now, stale)
    return KeyIdentity(workspace_id, key_id, KeyKind(key["kind"]), frozenset(key["scopes"]), key["expires_at"])


async def revoke(workspace_id: UUID, key_id: UUID, *, now: datetime) -> ApiKey:
    """The key, which opens nothing any more; revoking again changes nothing. Raises KeyNotFound."""
    async with transaction(workspace_id) as connection:
        await connection.execute(REVOKE, workspace_id, key_id, now)
        key = await ApiKey.get_or_none(workspace_id=workspace_id, id=key_id)
    if key is None:
        raise KeyNotFound(field=("id",))
    return key


async def list_keys(workspace_id: UUID) -> list[ApiKey]:
    """All keys, revoked ones too, newest first; at most 1,000 exist."""
    async with transaction(workspace_id):
        return await ApiKey.filter(workspace_id=workspace_id).order_by("-id").limit(MOST_KEYS)
