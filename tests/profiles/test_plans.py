"""Hot statements look people up by their keys, also when the statistics are of a time before these people came."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from db.transactions import transaction
from profiles import consent, devices, identities, loading, profiles, seen, storing
from tests.conftest import Database

MANY = """
INSERT INTO profile (workspace_id, external_id, identified)
SELECT $1, $2 || number, true FROM generate_series(1, 2000) AS number
"""
NAMES = "array(SELECT 'b' || number FROM generate_series(1, 500) AS number)"
IDS = "array(SELECT number FROM generate_series(2001, 2500) AS number)"
LOOK_UPS = {
    "identities.HOLD_BY_EXTERNAL_ID": (identities.HOLD_BY_EXTERNAL_ID, NAMES),
    "identities.HOLD_BY_ANONYMOUS_ID": (identities.HOLD_BY_ANONYMOUS_ID, NAMES),
    "identities.FIND_BY_EXTERNAL_ID": (identities.FIND_BY_EXTERNAL_ID, NAMES),
    "identities.FIND_BY_ANONYMOUS_ID": (identities.FIND_BY_ANONYMOUS_ID, NAMES),
    "identities.FIND_BY_ID": (identities.FIND_BY_ID, IDS),
    "identities.HOLD_BY_ID": (identities.HOLD_BY_ID, IDS),
    "storing.LOCK_BY_EXTERNAL_ID": (storing.LOCK_BY_EXTERNAL_ID, NAMES),
    "storing.LOCK_BY_ID": (storing.LOCK_BY_ID, IDS),
    "profiles.LOAD": (profiles.LOAD, IDS),
    "consent.OF_PROFILES": (consent.OF_PROFILES, IDS),
    "devices.OF_PROFILES": (devices.OF_PROFILES, IDS),
}


@pytest.fixture
async def late_workspace(database: Database, workspace: UUID, other_workspace: UUID) -> AsyncIterator[UUID]:
    """A workspace of 2,000 people, of whom the statistics know nothing: they are of another one's 2,000."""
    owner = await asyncpg.connect(database.owner_url)
    try:
        await owner.execute(MANY, workspace, "a")
        await owner.execute("ANALYZE profile")
        await owner.execute("ALTER TABLE profile SET (autovacuum_enabled = off)")
        await owner.execute(MANY, other_workspace, "b")
        yield other_workspace
    finally:
        await owner.close()


@pytest.mark.parametrize("name", LOOK_UPS)
async def test_people_are_looked_up_by_key_whatever_the_statistics_say(late_workspace: UUID, name: str) -> None:
    statement, argument = LOOK_UPS[name]
    # A sub-select, so that the planner does not see the array: as in a statement prepared once for all calls.
    text = statement.replace("$1", f"'{late_workspace}'::uuid").replace("$2", argument)
    async with transaction(late_workspace) as connection:
        plan = [row[0].strip() for row in await connection.fetch(f"EXPLAIN (COSTS OFF) {text}")]
    assert [line for line in plan if line.startswith("Filter") or "Seq Scan" in line] == []
    conditions = [line for line in plan if line.startswith("Index Cond")]
    assert conditions
    assert all(" AND " in line for line in conditions)


@pytest.mark.parametrize("name", ["MEET_BY_EXTERNAL_ID", "MEET_BY_ANONYMOUS_ID"])
async def test_strangers_are_met_by_key_whatever_the_statistics_say(late_workspace: UUID, name: str) -> None:
    nobody = ["\x1f", "b1", "{1}", "{1}", "", "", "", ""]
    arguments = ", ".join(f"'{one}'" for one in nobody)
    async with transaction(late_workspace, generic_plans=True) as connection:
        await connection.execute(f"PREPARE meeting AS {getattr(seen, name)}")
        plan = [row[0].strip() for row in await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE meeting ({arguments})")]
        await connection.execute("DEALLOCATE meeting")
    assert [line for line in plan if "Seq Scan" in line] == []
    conditions = [line for line in plan if line.startswith("Index Cond")]
    assert conditions
    assert all(" AND " in line for line in conditions)


async def test_an_import_looks_people_up_by_key_too(late_workspace: UUID) -> None:
    async with transaction(late_workspace) as connection:
        await connection.execute(loading.CREATE_INCOMING_PROFILES)
        await connection.execute(loading.CREATE_KNOWN_PROFILES)
        statement = loading.INSERT_KNOWN.replace("$1", f"'{late_workspace}'")
        plan = [row[0].strip() for row in await connection.fetch(f"EXPLAIN (COSTS OFF) {statement}")]
    assert [line for line in plan if line.startswith("Filter")] == []
    (condition,) = [line for line in plan if line.startswith("Index Cond")]
    assert "external_id = u.external_id" in condition
