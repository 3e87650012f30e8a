"""The table of dated traits follows the traits, whoever writes them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from profiles import imports, profiles
from profiles.addresses import AddressHasher
from profiles.profiles import ProfileInput
from tests.profiles import people

DATES = "SELECT p.external_id, d.key, d.at FROM profile_date d JOIN profile p ON p.id = d.profile_id ORDER BY 1, 2, 3"
PLACES = "SELECT count(*), min(ctid::text), max(ctid::text) FROM profile_date"


def day(month: int, year: int = 2026) -> datetime:
    return datetime(year, month, 1, tzinfo=UTC)


async def put(workspace_id: UUID, hasher: AddressHasher, now: datetime, *wanted: tuple[str, dict[str, Any]]) -> None:
    await people.put(
        workspace_id, *(ProfileInput(name, traits=traits) for name, traits in wanted), hasher=hasher, now=now
    )


async def test_dates_come_move_and_go_with_their_traits(workspace: UUID, hasher: AddressHasher, now: datetime) -> None:
    """S2-18."""
    await put(
        workspace,
        hasher,
        now,
        ("ann", {"renewal": "2026-01-01", "born": "1990-02-01T00:00+00:00", "plan": "free"}),
        ("bob", {"renewal": "2026-03-01"}),
        ("bob", {"renewal": "2026-04-01", "note": "2026-02-30"}),
    )
    both = [("ann", "born", day(2, 1990)), ("ann", "renewal", day(1)), ("bob", "renewal", day(4))]
    assert await people.rows(workspace, DATES) == both
    # What is said again, or differs only in its spelling, is no change.
    places = await people.rows(workspace, PLACES)
    await put(workspace, hasher, now, ("ann", {"renewal": "2026-01-01T00:00Z", "plan": "pro"}), ("bob", {}))
    assert await people.rows(workspace, PLACES) == places
    await put(
        workspace,
        hasher,
        now,
        ("ann", {"renewal": None, "born": "long ago"}),
        ("bob", {"renewal": 5, "note": "2026-05-01"}),
    )
    assert await people.rows(workspace, DATES) == [("bob", "note", day(5))]


async def test_imports_write_dates_too(workspace: UUID, hasher: AddressHasher, now: datetime, tmp_path: Path) -> None:
    """New people and known ones, dates that come, move and turn into something else."""
    file = tmp_path / "people.csv"
    mapping = {"who": "external_id", "renewal": "traits.renewal", "score": "traits.score:number"}

    async def load(*lines: str) -> None:
        file.write_text("\n".join(["who,renewal,score", *lines]))
        await imports.import_profiles(workspace, file, mapping, hasher=hasher, now=now)

    await load("ann,2026-01-01,1", "bob,2026-02-01,1", "cem,soon,1")
    assert await people.rows(workspace, DATES) == [("ann", "renewal", day(1)), ("bob", "renewal", day(2))]
    await put(workspace, hasher, now, ("dan", {"score": "2026-06-01", "other": "2026-06-01"}))
    # An empty cell says nothing; a number is no date.
    await load("ann,,2", "bob,never,1", "cem,2026-03-01,1", "dan,,7", "eve,2026-05-01,", "eve,2026-04-01,")
    assert await people.rows(workspace, DATES) == [
        ("ann", "renewal", day(1)),
        ("cem", "renewal", day(3)),
        ("dan", "other", day(6)),
        ("eve", "renewal", day(4)),
    ]
    # The same file again changes nothing.
    before = await people.rows(workspace, PLACES)
    await load("cem,2026-03-01,1", "eve,2026-04-01,")
    assert await people.rows(workspace, PLACES) == before


async def test_dates_of_another_workspace_stay(
    workspace: UUID, other_workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    for tenant in (workspace, other_workspace):
        await put(tenant, hasher, now, ("ann", {"renewal": "2026-01-01"}))
    await put(workspace, hasher, now, ("ann", {"renewal": None}))
    assert await people.rows(workspace, DATES) == []
    assert await people.rows(other_workspace, DATES) == [("ann", "renewal", day(1))]


async def test_writers_at_once_leave_the_dates_of_the_last(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    calls = [
        profiles.upsert(
            workspace,
            [ProfileInput(name, traits={"renewal": f"2026-{month:02}-01", f"k{month}": "2026-01-01"}) for name in "ab"],
            hasher=hasher,
            now=now,
        )
        for month in range(1, 9)
    ]
    await asyncio.gather(*calls)
    for name in "ab":
        traits = (await people.find(workspace, name)).traits
        expected = [(name, key, datetime.fromisoformat(f"{at}T00:00Z")) for key, at in sorted(traits.items())]
        assert [row for row in await people.rows(workspace, DATES) if row[0] == name] == expected
        assert len(expected) == 9


@pytest.mark.parametrize("traits", [{}, {"plan": "free"}])
async def test_nothing_is_written_for_people_without_dates(
    workspace: UUID, hasher: AddressHasher, now: datetime, traits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiles import dating

    monkeypatch.setattr(dating, "WRITE_DATES", "SELECT 1 / 0")
    await put(workspace, hasher, now, ("ann", traits))
    await put(workspace, hasher, now, ("ann", traits | {"plan": "pro"}))
    assert (await people.find(workspace, "ann")).traits == {"plan": "pro"}
