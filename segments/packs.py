"""Packs: what was read of everybody for one trait, or for events of one name, kept for the next evaluation.

A pack is true of whoever did not change since its snapshot. Who did is told by the feed that pulses live on
(`profile_change`, and `pulse` once a beat has acted on it). A pack is a cache: deleted at any moment it costs time and
nothing else. docs/adr/0026-packs.md says why it is exact.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from pyroaring import BitMap

from db.idsets import unpack
from db.roles import Role
from db.transactions import Connection, transaction, transaction_apart

KEPT = timedelta(hours=20)
"""So long a pack is used. Less than profile_change is kept where nobody acts on it (profiles/retention.py: a day), and
what somebody does not have any more is gone from it by then."""

# The pack and the feed must be of one moment: between two statements a tick may move what the feed is about to forget
# into packs that were read already. And parts that are read one by one are then all there, whoever deletes them.
# A feed that takes longer to read than everybody is worth nothing: time must be left to do without packs.
ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = '10s'"
MOMENT = """
SELECT pg_current_snapshot()::text AS snapshot,
  (SELECT count(*) FROM profile WHERE workspace_id = $1 AND erased_at IS NOT NULL) AS erased
"""
WANTED = """
SELECT p.id, p.kind, p.name, p.snapshot::text, p.changed, p.facts
FROM unnest($2::text[], $3::text[]) AS u (kind, name)
JOIN pack p ON p.workspace_id = $1 AND p.kind = u.kind AND p.name = u.name
WHERE p.server = (SELECT system_identifier FROM pg_control_system()) AND p.made_at > clock_timestamp() - $4::interval
"""
# Of each snapshot whether it saw the transaction that wrote the word, or the beat that took it. A beat sees what it
# takes: where the beat was over, so was the change.
CHANGED = """
SELECT told.over, string_agg(int4send(u.id), NULL) AS ids
FROM (SELECT ARRAY(SELECT pg_visible_in_snapshot(xact_id, s.taken::pg_snapshot)
      FROM unnest($2::text[]) WITH ORDINALITY AS s (taken, place) ORDER BY s.place) AS over,
    coalesce(profile_ids, ARRAY[profile_id, coalesce(other_id, profile_id)]) AS ids
  FROM profile_change WHERE workspace_id = $1) AS told
CROSS JOIN LATERAL unnest(told.ids) AS u (id)
WHERE false = ANY(told.over) GROUP BY told.over
"""
TAKEN = """
SELECT told.over, told.evaluated
FROM (SELECT ARRAY(SELECT pg_visible_in_snapshot(xact_id, s.taken::pg_snapshot)
      FROM unnest($2::text[]) WITH ORDINALITY AS s (taken, place) ORDER BY s.place) AS over, evaluated
  FROM pulse WHERE workspace_id = $1) AS told
WHERE false = ANY(told.over)
"""
PART = "SELECT content FROM pack_part WHERE workspace_id = $1 AND pack_id = $2 AND place = $3"

# Whoever erases a person waits here for who is about to save what he read of them, and then deletes it; or is waited
# for, and then seen by the number of the erased. Whoever else writes packs takes it too: several, in no order.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pack ' || $1::uuid::text, 0))"
ERASED = "SELECT count(*) FROM profile WHERE workspace_id = $1 AND erased_at IS NOT NULL"
# Erasures wait for whoever keeps packs, but not for one that stands still.
STANDS_STILL = {"idle_in_transaction_session_timeout": "10s"}
REPLACE = "DELETE FROM pack WHERE workspace_id = $1 AND kind = $2 AND name = $3"
ADD = """
INSERT INTO pack (workspace_id, kind, name, server, snapshot, changed, facts)
SELECT $1, $2, $3, system_identifier, $4::text::pg_snapshot, $5, $6 FROM pg_control_system() RETURNING id
"""
ADD_PART = "INSERT INTO pack_part (workspace_id, pack_id, place, traits, content) VALUES ($1, $2, $3, $4, $5)"
DROP = "DELETE FROM pack WHERE workspace_id = $1"
DROP_OLD = "DELETE FROM pack WHERE workspace_id = $1 AND made_at <= $2"
# Both in one statement: what is deleted is what packs are told.
FORGET_PULSES = """
WITH gone AS (DELETE FROM pulse WHERE workspace_id = $1 AND at < $2 RETURNING xact_id, evaluated)
SELECT p.id, gone.evaluated FROM gone JOIN pack p
  ON p.workspace_id = $1 AND NOT pg_visible_in_snapshot(gone.xact_id, p.snapshot)
"""
CHANGED_OF = "SELECT changed FROM pack WHERE workspace_id = $1 AND id = $2"
TELL = "UPDATE pack SET changed = $3 WHERE workspace_id = $1 AND id = $2"


class Kind(StrEnum):
    """What a pack is about."""

    TRAIT = "TRAIT"
    EVENT = "EVENT"


@dataclass(frozen=True, slots=True)
class Name:
    """Which pack: of a trait by its key, or of events by their name."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that was found."""

    id: int
    facts: Mapping[str, Any]
    changed: BitMap
    """Who changed since its snapshot, or may have: of them it says nothing. More are allowed, fewer are not."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pack that is to be kept; `traits` of a trait's, as JSON's text."""

    content: bytes
    traits: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A pack that is to be kept: all of it was read in the snapshot of a `Moment`, or later."""

    name: Name
    facts: Mapping[str, Any]
    parts: Sequence[Part]
    unknown: BitMap
    """Of whom it says nothing."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The packs as they are in one snapshot."""

    connection: Connection
    """The parts are read by it; it sees nothing that came after."""
    snapshot: str
    erased: int
    """How many people of the workspace had been erased."""
    packs: Mapping[Name, Pack]


@asynccontextmanager
async def moment(workspace_id: UUID, wanted: Collection[Name]) -> AsyncIterator[Moment]:
    """What there is of `wanted` now, and who changed since; all that is read in the block is of one snapshot."""
    async with transaction_apart(workspace_id, role=Role.APP, settings={}) as connection:
        await connection.execute(ONE_MOMENT)
        row = await connection.fetchrow(MOMENT, workspace_id)
        kinds, names = [one.kind.value for one in wanted], [one.name for one in wanted]
        found = await connection.fetch(WANTED, workspace_id, kinds, names, KEPT)
        since = await changed_since(connection, workspace_id, list({one["snapshot"] for one in found}))
        packs = {
            Name(Kind(one["kind"]), one["name"]): Pack(
                one["id"], one["facts"], BitMap.deserialize(one["changed"]) | since[one["snapshot"]]
            )
            for one in found
        }
        yield Moment(connection, row["snapshot"], row["erased"], packs)


async def changed_since(connection: Connection, workspace_id: UUID, snapshots: list[str]) -> dict[str, BitMap]:
    """Who changed since each of `snapshots`, as far as the feed goes back."""
    found = {snapshot: BitMap() for snapshot in snapshots}
    if not snapshots:
        return found
    told = [(row["over"], unpack(row["ids"])) for row in await connection.fetch(CHANGED, workspace_id, snapshots)]
    taken = await connection.fetch(TAKEN, workspace_id, snapshots)
    told += [(row["over"], BitMap.deserialize(row["evaluated"])) for row in taken]
    for place, snapshot in enumerate(snapshots):
        found[snapshot] = BitMap.union(BitMap(), *(ids for over, ids in told if not over[place]))
    return found


async def part(moment: Moment, workspace_id: UUID, pack: Pack, place: int) -> bytes:
    """The part of a pack of `moment` that was the one at `place` when it was kept."""
    content: bytes = await moment.connection.fetchval(PART, workspace_id, pack.id, place)
    return content


async def keep(workspace_id: UUID, made: Sequence[Made], *, snapshot: str, erased: int) -> bool:
    """Keep packs that were made of a `Moment`'s, in place of what there was of the same names; False, and nothing is
    kept, when somebody was erased since."""
    async with transaction_apart(workspace_id, role=Role.APP, settings=STANDS_STILL) as connection:
        await connection.execute(LOCK, workspace_id)
        if await connection.fetchval(ERASED, workspace_id) != erased:
            return False
        for one in made:
            which = (one.name.kind.value, one.name.name)
            await connection.execute(REPLACE, workspace_id, *which)
            changed, facts = one.unknown.serialize(), dict(one.facts)
            id = await connection.fetchval(ADD, workspace_id, *which, snapshot, changed, facts)
            for place, part in enumerate(one.parts):
                await connection.execute(ADD_PART, workspace_id, id, place, part.traits, part.content)
    return True


async def drop(connection: Connection, workspace_id: UUID) -> None:
    """Delete all packs of the workspace, and those that are about to be kept; in the transaction of who erases."""
    await connection.execute(LOCK, workspace_id)
    await connection.execute(DROP, workspace_id)


async def forget_pulses(workspace_id: UUID, *, before: datetime) -> None:
    """Delete the notes of whom beats re-evaluated before that; packs go on knowing who these were."""
    async with transaction(workspace_id) as connection:
        await connection.execute(LOCK, workspace_id)
        told: dict[int, list[BitMap]] = {}
        for row in await connection.fetch(FORGET_PULSES, workspace_id, before):
            told.setdefault(row["id"], []).append(BitMap.deserialize(row["evaluated"]))
        for id, people in sorted(told.items()):
            known = await connection.fetchval(CHANGED_OF, workspace_id, id)
            if known is not None:
                changed = BitMap.union(BitMap.deserialize(known), *people)
                await connection.execute(TELL, workspace_id, id, changed.serialize())


async def forget(workspace_id: UUID, *, now: datetime) -> None:
    """Delete packs that are used no more."""
    async with transaction(workspace_id) as connection:
        await connection.execute(LOCK, workspace_id)
        await connection.execute(DROP_OLD, workspace_id, now - KEPT)
