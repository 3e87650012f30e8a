"""API keys: made once, found by their secret, expired and revoked."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from profiles import keys
from profiles.errors import KeyNotFound, ProfileError
from profiles.keys import KeyIdentity, Scope
from profiles.models import KeyKind
from tests.profiles import people

LAST_USED = "SELECT last_used_at FROM api_key WHERE id = $1"
STORED = "SELECT to_jsonb(k)::text FROM api_key k"


def test_a_secret_has_256_random_bits_a_checksum_and_says_its_kind() -> None:
    made = [keys.new_key(kind) for kind in (KeyKind.SECRET, KeyKind.PUBLISHABLE) for _ in range(20)]
    assert {one.secret[:4] for one in made[:20]} == {"msk_"}
    assert {one.secret[:4] for one in made[20:]} == {"mpk_"}
    assert {len(one.secret) for one in made} == {4 + 43 + 6}
    assert len({one.hash for one in made}) == 40
    for one in made:
        assert one.secret.startswith(one.prefix)
        assert one.secret.isascii()
        assert len(one.prefix) == 12
        assert one.hash == keys.hash_of(one.secret)
        assert one.secret.endswith(keys.checksum(one.secret[:-6]))


async def test_a_key_opens_its_workspace_with_its_scopes(workspace: UUID, other_workspace: UUID, now: datetime) -> None:
    ours, secret = await keys.create(workspace, name=" api ", kind=KeyKind.SECRET, scopes=["send", "read", "send"])
    theirs, public = await keys.create(other_workspace, name="web", kind=KeyKind.PUBLISHABLE, scopes=[Scope.INGEST])
    assert (ours.name, ours.scopes, ours.kind, ours.prefix) == ("api", ["read", "send"], KeyKind.SECRET, secret[:12])
    assert await keys.find(secret, now=now) == KeyIdentity(
        workspace, ours.id, KeyKind.SECRET, frozenset({"read", "send"})
    )
    assert await keys.find(public, now=now) == KeyIdentity(
        other_workspace, theirs.id, KeyKind.PUBLISHABLE, frozenset({"ingest"})
    )
    assert [one.id for one in await keys.list_keys(workspace)] == [ours.id]


async def test_the_secret_itself_is_kept_nowhere(workspace: UUID) -> None:
    _, secret = await keys.create(workspace, name="api", kind=KeyKind.SECRET, scopes=["read"])
    [(stored,)] = await people.rows(workspace, STORED)
    assert secret[:12] in str(stored)
    assert secret[12:] not in str(stored)


async def test_what_is_no_key_of_ours_opens_nothing(workspace: UUID, now: datetime) -> None:
    _, secret = await keys.create(workspace, name="api", kind=KeyKind.SECRET, scopes=["read"])
    last = "a" if secret[-1] != "a" else "b"
    middle = "a" if secret[20] != "a" else "b"
    wrong = {
        "checksum": secret[:-1] + last,
        "a typo": secret[:20] + middle + secret[21:],
        "kind": "mpk_" + secret[4:],
        "cut off": secret[:-1],
        "longer": secret + "0",
        "newline": secret + "\n",
        "empty": "",
        "nul": "\0",
        "surrogate": "msk_" + "\ud800" * 49,
        "digits of another script": "msk_" + "٣" * 49,
        "well-formed but unknown": keys.new_key(KeyKind.SECRET).secret,
    }
    assert {why: await keys.find(text, now=now) for why, text in wrong.items()} == dict.fromkeys(wrong)
    assert await keys.find(secret, now=now) is not None


async def test_a_key_opens_nothing_from_the_moment_it_expires(workspace: UUID, now: datetime) -> None:
    end = now + timedelta(hours=1)
    key, secret = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["read"], expires_at=end)
    assert key.expires_at == end
    assert await keys.find(secret, now=end - timedelta(microseconds=1)) is not None
    assert await keys.find(secret, now=end) is None


async def test_a_revoked_key_opens_nothing_and_keeps_the_time_of_its_end(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    key, secret = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["read"])
    with pytest.raises(KeyNotFound) as unknown:
        await keys.revoke(other_workspace, key.id, now=now)
    assert (unknown.value.code, unknown.value.field) == ("NOT_FOUND", ("id",))
    assert await keys.find(secret, now=now) is not None
    assert (await keys.revoke(workspace, key.id, now=now)).revoked_at == now
    assert await keys.find(secret, now=now) is None
    assert (await keys.revoke(workspace, key.id, now=now + timedelta(days=1))).revoked_at == now
    assert [one.revoked_at for one in await keys.list_keys(workspace)] == [now]
    with pytest.raises(KeyNotFound):
        await keys.revoke(workspace, uuid4(), now=now)


async def test_a_key_that_makes_no_sense_is_refused(workspace: UUID, now: datetime) -> None:
    secret, public = KeyKind.SECRET, KeyKind.PUBLISHABLE
    wrong: list[tuple[str, KeyKind, list[str], datetime | None, str, str]] = [
        ("", secret, ["read"], None, "BLANK", "name"),
        ("a\0", secret, ["read"], None, "UNSTORABLE_TEXT", "name"),
        ("a", secret, [], None, "NO_SCOPE", "scopes"),
        ("a", secret, ["read", "everything"], None, "UNKNOWN_SCOPE", "scopes"),
        ("a", public, ["ingest", "read"], None, "SCOPE_NOT_PUBLISHABLE", "scopes"),
        ("a", secret, ["read"], now - timedelta(seconds=1), "EXPIRES_IN_THE_PAST", "expires_at"),
        ("a", secret, ["read"], now.replace(tzinfo=None), "NAIVE_TIME", "expires_at"),
    ]
    for name, kind, scopes, expires_at, code, field in wrong:
        with pytest.raises(ProfileError) as refused:
            await keys.create(workspace, name=name, kind=kind, scopes=scopes, expires_at=expires_at)
        assert (refused.value.code, refused.value.field) == (code, (field,))
    assert await keys.list_keys(workspace) == []


async def test_use_is_written_down_at_most_once_a_minute(workspace: UUID, now: datetime) -> None:
    key, secret = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["read"])
    seen = []
    for seconds in (0, 59, 60, 61):
        assert await keys.find(secret, now=now + timedelta(seconds=seconds)) is not None
        seen += await people.rows(workspace, LAST_USED, key.id)
    first, second = now, now + timedelta(seconds=60)
    assert seen == [(first,), (first,), (second,), (second,)]
