"""Nobody reads or writes another tenant's rows, in any table, whichever way they try (T-25)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from db import api_records, banner_engine, ddl, delivery_engine, live_segments, packs, push_engine
from db.roles import Role
from db.transactions import Connection, across_workspaces, entry, transaction
from tests.conftest import Database

# One row of each table, made by the owner for the workspace $1. Named children of it get ids of their own.
ROWS = {
    "brand": "INSERT INTO brand (workspace_id, name) VALUES ($1, 'b')",
    "api_key": "INSERT INTO api_key (workspace_id, name, kind, prefix, hash, scopes)"
    " VALUES ($1, 'k', 'SECRET', 'p', sha256(($1::uuid)::text::bytea), '{}')",
    "profile": "INSERT INTO profile (workspace_id, external_id) VALUES ($1, 'p')",
    "profile_brand": "INSERT INTO profile_brand (workspace_id, brand_id, profile_id)"
    " SELECT $1, b.id, p.id FROM brand b, profile p WHERE b.workspace_id = $1 AND p.workspace_id = $1",
    "profile_alias": "INSERT INTO profile_alias (workspace_id, anonymous_id, profile_id) VALUES ($1, 'a', 1)",
    "profile_change": "INSERT INTO profile_change (workspace_id, profile_ids, kind) VALUES ($1, '{1}', 'touched')",
    "device": "INSERT INTO device (workspace_id, profile_id, provider, token, platform)"
    " VALUES ($1, 1, 'FCM', 't', 'ANDROID')",
    "consent": "INSERT INTO consent (workspace_id, profile_id, channel, topic, status, source)"
    " VALUES ($1, 1, 'EMAIL', 't', 'SUBSCRIBED', 's')",
    "suppression": "INSERT INTO suppression (workspace_id, channel, address_hash, reason)"
    " VALUES ($1, 'EMAIL', 'h', 'MANUAL')",
    "event": "INSERT INTO event (workspace_id, profile_id, name, occurred_at, message_id)"
    " VALUES ($1, 1, 'e', now(), 'm')",
    "event_key": "INSERT INTO event_key (workspace_id, message_id) VALUES ($1, 'm')",
    "segment": "INSERT INTO segment (workspace_id, name, type, status) VALUES ($1, 's', 'STATIC', 'ACTIVE')",
    "evaluation": "INSERT INTO evaluation (workspace_id, segment_id, definition_version, status, cause)"
    " SELECT $1, id, 1, 'QUEUED', 'REQUEST' FROM segment WHERE workspace_id = $1 AND type = 'STATIC'",
    "segment_membership": "INSERT INTO segment_membership (segment_id, workspace_id, base, added, removed, size,"
    " evaluated_at) SELECT id, $1, '', '', '', 0, now() FROM segment WHERE workspace_id = $1 AND type = 'STATIC'",
    "membership": "INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)"
    " SELECT $1, id, 1, now(), 'r' FROM segment WHERE workspace_id = $1 AND type = 'STATIC'",
    "sender": "INSERT INTO sender (workspace_id, from_name, from_address, postal_address) VALUES ($1, 'n', 'a', 'p')",
    "placement": "INSERT INTO placement (workspace_id, key, name) VALUES ($1, 'k', 'n')",
    "campaign": "INSERT INTO campaign (workspace_id, name, channel, status, content)"
    " VALUES ($1, 'c', 'EMAIL', 'DRAFT', '{}')",
    "campaign_segment": "INSERT INTO campaign_segment (workspace_id, campaign_id, segment_id, excluded)"
    " SELECT $1, c.id, s.id, false FROM campaign c, segment s"
    " WHERE c.workspace_id = $1 AND s.workspace_id = $1 AND s.type = 'STATIC'",
    "dispatch": "INSERT INTO dispatch (workspace_id, campaign_id, kind, content, content_version, audience,"
    " audience_size) SELECT $1, id, 'SEND', '{}', 1, '', 0 FROM campaign WHERE workspace_id = $1",
    "delivery": "INSERT INTO delivery (workspace_id, dispatch_id, profile_id, state)"
    " SELECT $1, id, 1, 'pending' FROM dispatch WHERE workspace_id = $1",
    "claim": "INSERT INTO claim (workspace_id, dispatch_id, owner, lease_until)"
    " SELECT $1, id, id, now() FROM dispatch WHERE workspace_id = $1",
    "delivery_event": "INSERT INTO delivery_event (workspace_id, dispatch_id, campaign_id, profile_id, kind)"
    " SELECT $1, id, campaign_id, 1, 'OPEN' FROM dispatch WHERE workspace_id = $1",
    "profile_date": "INSERT INTO profile_date (workspace_id, key, at, profile_id) VALUES ($1, 'k', now(), 1)",
    "saved_query": "INSERT INTO saved_query (workspace_id, name, sql) VALUES ($1, 'q', 'SELECT 1')",
    "segment_reference": "INSERT INTO segment_reference (workspace_id, segment_id, uses_id)"
    " SELECT $1, s.id, e.id FROM segment s, segment e WHERE s.workspace_id = $1 AND s.type = 'STATIC'"
    " AND e.workspace_id = $1 AND e.type = 'EVERYONE'",
    "segment_query": "INSERT INTO segment_query (workspace_id, segment_id, query_id)"
    " SELECT $1, s.id, q.id FROM segment s, saved_query q"
    " WHERE s.workspace_id = $1 AND s.type = 'STATIC' AND q.workspace_id = $1",
    "segment_rank": "INSERT INTO segment_rank (workspace_id, segment_id, profile_id, order_value)"
    " SELECT $1, id, 1, 0 FROM segment WHERE workspace_id = $1 AND type = 'STATIC'",
    "membership_change": "INSERT INTO membership_change (workspace_id, segment_id, at, reason, entered, exited,"
    " reranked) SELECT $1, id, now(), 'r', '', '', '' FROM segment WHERE workspace_id = $1 AND type = 'STATIC'",
    "pulse_clock": "INSERT INTO pulse_clock (workspace_id, through) VALUES ($1, now())",
    "pulse": "INSERT INTO pulse (workspace_id, at, evaluated) VALUES ($1, now(), '')",
    "link": "INSERT INTO link (workspace_id, campaign_id, dispatch_id, place, url)"
    " SELECT $1, campaign_id, id, 0, 'https://example.com' FROM dispatch WHERE workspace_id = $1",
    "in_doubt_resolution": "INSERT INTO in_doubt_resolution (workspace_id, campaign_id, resolved_as, messages,"
    " resolved_by, resolved_at) SELECT $1, id, 'SENT', 1, 'k', now() FROM campaign WHERE workspace_id = $1",
    "banner_stop": "INSERT INTO banner_stop (workspace_id, subject_id, profile_id, reason)"
    " SELECT $1, id, 1, 'CLICKED' FROM campaign WHERE workspace_id = $1",
    "banner_event": "INSERT INTO banner_event (workspace_id, viewer, event_key, token_month, kind, campaign_id,"
    " placement_id, content_version, occurred_at) SELECT $1, $1, $1, now(), 'CLICK', c.id, p.id, 1, now()"
    " FROM campaign c, placement p WHERE c.workspace_id = $1 AND p.workspace_id = $1",
    "banner_tally": "INSERT INTO banner_tally (workspace_id, subject_id, viewer, impressions, last_day, on_last_day,"
    " days) SELECT $1, id, $1, 1, current_date, 1, 1 FROM campaign WHERE workspace_id = $1",
    "banner_day": "INSERT INTO banner_day (workspace_id, campaign_id, placement_id, day)"
    " SELECT $1, c.id, p.id, current_date FROM campaign c, placement p"
    " WHERE c.workspace_id = $1 AND p.workspace_id = $1",
    "push_credential": "INSERT INTO push_credential (workspace_id, app, provider, facts, sealed, key_id, set_at)"
    " VALUES ($1, 'a', 'FCM', '{}', 's', 'k', now())",
    "request": "INSERT INTO request (workspace_id, actor, key, place, fingerprint, answer, done_at)"
    " VALUES ($1, 'a', 'k', 'p', 'f', '{}', now())",
    "audit_entry": "INSERT INTO audit_entry (workspace_id, at, key_id, action) VALUES ($1, now(), $1, 'a')",
    "pack": "INSERT INTO pack (workspace_id, kind, name, server, snapshot, changed, facts)"
    " VALUES ($1, 'TRAIT', 'plan', 1, pg_current_snapshot(), '', '{}')",
    "pack_part": "INSERT INTO pack_part (workspace_id, pack_id, place, content)"
    " SELECT $1, id, 0, '' FROM pack WHERE workspace_id = $1",
}
TABLES = (
    ddl.TENANT_TABLES
    + live_segments.TENANT_TABLES
    + delivery_engine.TENANT_TABLES
    + banner_engine.TENANT_TABLES
    + push_engine.TENANT_TABLES
    + api_records.TENANT_TABLES
    + packs.TENANT_TABLES
)
LEAF_TABLES = ddl.LEAF_TABLES + live_segments.LEAF_TABLES


@asynccontextmanager
async def as_owner(database: Database) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database.owner_url)
    try:
        await connection.execute("SET ROLE muster_owner")
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def filled(database: Database, workspace: UUID, other_workspace: UUID) -> tuple[UUID, UUID]:
    """Two workspaces with a row in every table."""
    async with as_owner(database) as owner:
        for parent in ("event", "delivery", "delivery_event", "banner_event"):
            await owner.execute("SELECT ensure_month($1, now())", parent)
        for one in (workspace, other_workspace):
            for table in TABLES:
                await owner.execute(ROWS[table], one)
    return workspace, other_workspace


def test_every_table_has_a_row_to_try() -> None:
    assert set(ROWS) == set(TABLES)


async def test_another_tenants_rows_cannot_be_reached(database: Database, filled: tuple[UUID, UUID]) -> None:
    mine, theirs = filled
    for table in TABLES:
        count = f"SELECT count(*) FROM {table} WHERE workspace_id = $1"
        steal = f"UPDATE {table} SET workspace_id = $1 WHERE workspace_id = $2"
        async with transaction(mine) as connection:
            assert await connection.fetchval(count, theirs) == 0, table
            assert await connection.fetchval(count, mine) >= 1, table
            assert await connection.execute(steal, mine, theirs) == "UPDATE 0", table
            assert await connection.execute(f"DELETE FROM {table} WHERE workspace_id = $1", theirs) == "DELETE 0", table
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with transaction(mine) as connection:
                await connection.execute(steal, theirs, mine)
        async with as_owner(database) as owner:
            assert await owner.fetchval(count, theirs) >= 1, table


async def test_a_query_outside_a_workspace_is_an_error(database: Database, filled: tuple[UUID, UUID]) -> None:
    for table in ("workspace", *TABLES):
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            async with across_workspaces() as connection:
                await connection.fetch(f"SELECT * FROM {table}")


async def test_row_level_security_is_forced(database: Database) -> None:
    async with as_owner(database) as owner:
        for table in ("workspace", *TABLES):
            row = await owner.fetchrow(
                "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::regclass", table
            )
            assert tuple(row) == (True, True), table


async def test_the_login_itself_may_nothing(database: Database, filled: tuple[UUID, UUID]) -> None:
    login = await asyncpg.connect(database.url)
    try:
        for table in ("profile", "delivery", "installation", "worker_process"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await login.fetch(f"SELECT * FROM {table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await login.execute("SET ROLE muster_owner")
        row = await login.fetchrow("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
        assert tuple(row) == (False, False)
    finally:
        await login.close()


async def test_a_month_is_reached_through_its_parent_only(database: Database, filled: tuple[UUID, UUID]) -> None:
    mine, _ = filled
    async with as_owner(database) as owner:
        months = await owner.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits JOIN pg_class c"
            " ON c.oid = inhrelid WHERE c.relkind = 'r'"
        )
    assert len(months) >= 3
    for month in months:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with transaction(mine) as connection:
                await connection.fetch(f"SELECT * FROM {month['name']}")


async def test_the_leaf_role_reads_its_tables_and_writes_none(database: Database, filled: tuple[UUID, UUID]) -> None:
    mine, _ = filled
    for table in TABLES:
        if table in LEAF_TABLES:
            async with transaction(mine, role=Role.LEAF) as connection:
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 2
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with transaction(mine, role=Role.LEAF) as connection:
                    await connection.fetch(f"SELECT * FROM {table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with transaction(mine, role=Role.LEAF) as connection:
                await connection.execute(f"DELETE FROM {table}")


async def test_the_next_transaction_of_a_pooled_connection_starts_clean(
    database: Database, filled: tuple[UUID, UUID]
) -> None:
    mine, theirs = filled
    for one in (mine, theirs, mine):
        async with transaction(one) as connection:
            assert await connection.fetchval("SELECT DISTINCT workspace_id FROM profile") == one
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        async with across_workspaces() as connection:
            await connection.fetch("SELECT * FROM profile")


@pytest.mark.parametrize(
    ("role", "workspace_id"),
    [("muster_app", UUID(int=1)), (Role.APP, "0'; RESET ROLE; --"), (Role.APP, str(UUID(int=1))), (Role.APP, 0)],
)
def test_only_a_role_and_a_uuid_enter_a_transaction(role: Any, workspace_id: Any) -> None:
    """Both become part of a statement's text."""
    with pytest.raises(TypeError):
        entry(role, workspace_id)


def test_a_uuid_enters_as_what_it_is_whatever_it_says() -> None:
    class Odd(UUID):
        def __str__(self) -> str:
            return "'; RESET ROLE; --"

    assert entry(Role.LEAF, Odd(int=1)) == (
        "SET LOCAL ROLE muster_leaf; SET LOCAL muster.workspace_id = '00000000-0000-0000-0000-000000000001'"
    )
