"""API keys: made once, found by their secret, expired and revoked."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.transactions import across_workspaces
from profiles import keys
from profiles.errors import KeyNotFound, ProfileError
from profiles.keys import KeyIdentity, Scope
from profiles.models import KeyKind
from tests.conftest import Database
from tests.profiles import people

LAST_USED = "SELECT last_used_at, xmin::text::bigint FROM api_key WHERE id = $1"
WAITERS = "SELECT count(*) FROM pg_locks WHERE NOT granted"
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
        workspace, ours.id, KeyKind.SECRET, frozenset({"read", "send"}), label=f"api ({secret[:12]})"
    )
    assert await keys.find(public, now=now) == KeyIdentity(
        other_workspace, theirs.id, KeyKind.PUBLISHABLE, frozenset({"ingest"}), label=f"web ({public[:12]})"
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


async def test_the_database_is_not_asked_for_what_cannot_be_a_key(
    workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum says so: whoever guesses keys costs no connection."""
    asked = []

    def watched() -> object:
        asked.append(1)
        return across_workspaces()

    monkeypatch.setattr("profiles.keys.across_workspaces", watched)
    secret = keys.new_key(KeyKind.SECRET).secret
    last = "a" if secret[-1] != "a" else "b"
    for none in (secret[:-1] + last, secret[:-1], secret + "0", ""):
        assert await keys.find(none, now=now) is None
    assert asked == []
    assert await keys.find(secret, now=now) is None
    assert asked == [1]


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
        ("a", public, ["ingest", Scope.READ], None, "SCOPE_NOT_PUBLISHABLE", "scopes"),
        ("a", secret, ["read"], now - timedelta(seconds=1), "EXPIRES_IN_THE_PAST", "expires_at"),
        ("a", secret, ["read"], now.replace(tzinfo=None), "NAIVE_TIME", "expires_at"),
    ]
    for name, kind, scopes, expires_at, code, field in wrong:
        with pytest.raises(ProfileError) as refused:
            await keys.create(workspace, name=name, kind=kind, scopes=scopes, expires_at=expires_at)
        assert (refused.value.code, refused.value.field) == (code, (field,))
        assert "<" not in str(refused.value)  # words of people, no code of ours
    assert await keys.list_keys(workspace) == []


async def test_a_key_above_the_limit_is_refused(
    workspace: UUID, other_workspace: UUID, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked ones count, and the one that takes the place of another does."""
    monkeypatch.setattr(keys, "MOST_KEYS", 2)
    first, _ = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["read"])
    second, _ = await keys.create(workspace, name="b", kind=KeyKind.SECRET, scopes=["read"])
    await keys.revoke(workspace, first.id, now=now)
    for more in (
        keys.create(workspace, name="c", kind=KeyKind.SECRET, scopes=["read"]),
        keys.rotate(workspace, second.id, now=now),
    ):
        with pytest.raises(ProfileError) as refused:
            await more
        assert refused.value.code == "TOO_MANY_KEYS"
    assert [one.id for one in await keys.list_keys(workspace)] == [second.id, first.id]
    await keys.create(other_workspace, name="c", kind=KeyKind.SECRET, scopes=["read"])


async def test_uses_of_many_keys_are_written_to_the_minute_and_never_back(
    workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    """In one statement, of any workspaces; a row is written once in a minute, and looking a key up writes nothing."""
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    ours, secret = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["read"])
    theirs, _ = await keys.create(other_workspace, name="b", kind=KeyKind.SECRET, scopes=["read"])
    assert await keys.find(secret, now=now) is not None

    async def kept() -> list[tuple[datetime | None, int]]:
        """When each was used, and which transaction wrote its row."""
        places = ((workspace, ours), (other_workspace, theirs))
        return [row for of, key in places for row in await people.rows(of, LAST_USED, key.id)]

    (first, by), (second, _) = await kept()
    assert (first, second) == (None, None)
    for seconds, minute, is_written in ((1, 0, True), (59, 0, False), (60, 1, True), (30, 1, False)):
        await keys.keep_uses({ours.id: noon + timedelta(seconds=seconds), theirs.id: noon})
        (used, writer), (other, _) = await kept()
        assert (used, other) == (noon + timedelta(minutes=minute), noon)
        assert (writer != by) is is_written
        by = writer


async def test_a_role_is_a_set_of_scopes_and_each_has_all_of_the_one_before() -> None:
    assert [sorted(keys.ROLES[role]) for role in keys.Role] == [
        ["read"],
        ["campaigns", "read", "segments"],
        ["campaigns", "read", "segments", "send"],
        sorted(Scope),
    ]
    assert [keys.role_of(keys.scopes_wanted(role, ())) for role in keys.Role] == list(keys.Role)
    assert keys.role_of(["read", "send"]) is None
    wrong: list[tuple[str | None, list[str], str]] = [
        (None, [], "ROLE_OR_SCOPES"),
        ("VIEWER", ["read"], "ROLE_OR_SCOPES"),
        ("BOSS", [], "UNKNOWN_ROLE"),
    ]
    for role, scopes, code in wrong:
        with pytest.raises(ProfileError) as refused:
            keys.scopes_wanted(role, scopes)
        assert (refused.value.code, refused.value.field) == (code, ("role",))


async def test_a_rotated_key_goes_on_for_its_time_beside_the_one_in_its_place(workspace: UUID, now: datetime) -> None:
    old, secret = await keys.create(workspace, name="api", kind=KeyKind.SECRET, scopes=["send", "read"])
    second, replaced, newer = await keys.rotate(workspace, old.id, now=now, overlap=timedelta(hours=1))
    assert (second.name, second.scopes, second.expires_at) == ("api", ["read", "send"], None)
    assert (replaced.id, replaced.replaced_by, replaced.expires_at) == (old.id, second.id, now + timedelta(hours=1))
    one, other = await keys.find(secret, now=now), await keys.find(newer, now=now)
    assert one is not None
    assert other is not None
    assert (one.scopes, one.family_id, other.scopes, other.family_id) == (other.scopes, None, one.scopes, old.id)
    assert await keys.find(secret, now=now + timedelta(hours=1)) is None
    assert await keys.find(newer, now=now + timedelta(days=999)) is not None
    # The family goes on; neither a key that was rotated nor one that ended is rotated.
    third, _, _ = await keys.rotate(workspace, second.id, now=now, overlap=timedelta(0))
    assert third.family_id == old.id
    await keys.revoke(workspace, third.id, now=now)
    for key, code in ((old, "ROTATED"), (second, "KEY_NOT_LIVE"), (third, "KEY_NOT_LIVE")):
        with pytest.raises(ProfileError) as refused:
            await keys.rotate(workspace, key.id, now=now)
        assert (refused.value.code, refused.value.field) == (code, ("id",))
    for hours in (-1, 721):
        with pytest.raises(ProfileError, match="30 days"):
            await keys.rotate(workspace, old.id, now=now, overlap=timedelta(hours=hours))


async def test_a_key_with_an_end_is_followed_by_one_that_lives_as_long(workspace: UUID, now: datetime) -> None:
    soon = now + timedelta(hours=2)
    old, _ = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["read"], expires_at=soon)
    later = now + timedelta(hours=1)
    new, replaced, _ = await keys.rotate(workspace, old.id, now=later)
    assert new.expires_at == later + (soon - old.created_at)
    assert replaced.expires_at == soon  # it was to end before the overlap does


async def test_the_last_admin_is_not_revoked_by_mistake(
    database: Database, workspace: UUID, other_workspace: UUID, now: datetime
) -> None:
    """Two who revoke each other's key at once: one of them is told."""
    first, _ = await keys.create(workspace, name="a", kind=KeyKind.SECRET, scopes=["admin"])
    second, _ = await keys.create(workspace, name="b", kind=KeyKind.SECRET, scopes=["admin"])
    await keys.create(other_workspace, name="c", kind=KeyKind.SECRET, scopes=["admin"])
    reader, _ = await keys.create(workspace, name="d", kind=KeyKind.SECRET, scopes=["read"])
    owner = await asyncpg.connect(database.owner_url)
    try:
        # Both are under way before either can be done.
        async with owner.transaction():
            await owner.execute("SELECT FROM api_key FOR UPDATE")
            revoking = asyncio.gather(
                *(keys.revoke(workspace, one.id, now=now, may_be_last=False) for one in (first, second)),
                return_exceptions=True,
            )
            while await owner.fetchval(WAITERS) < 2:
                assert not revoking.done()
        refused = [one for one in await revoking if isinstance(one, BaseException)]
    finally:
        await owner.close()
    assert [getattr(one, "code", one) for one in refused] == ["LAST_ADMIN"]
    (left,) = [one for one in await keys.list_keys(workspace) if not one.revoked_at and "admin" in one.scopes]
    # One that was rotated ends soon, and does not count.
    new, _, _ = await keys.rotate(workspace, left.id, now=now)
    with pytest.raises(ProfileError, match="last key"):
        await keys.revoke(workspace, new.id, now=now, may_be_last=False)
    await keys.revoke(workspace, left.id, now=now, may_be_last=False)
    await keys.revoke(workspace, reader.id, now=now, may_be_last=False)
    assert (await keys.revoke(workspace, new.id, now=now)).revoked_at == now
