"""The figures of `benchmarks.segments`, each with the hand-written SQL beside it, repetition by repetition in turn.

Ours are the use cases that a worker calls, against the database that an API and a worker would use. A set that differs
from the SQL's ends the run. Without SQL, which takes most of the time, nothing is compared.
"""

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from benchmarks import changes, handwritten
from benchmarks.databases import Bench
from benchmarks.handwritten import FORMS, Question
from db.transactions import transaction
from segments import cycles, evaluation, membership, pulse
from segments.models import EvaluationCause, EvaluationStatus
from segments.sources import Sources

REPETITIONS = 5
TURNS = 4
"""Of the hundred: in every second one a cycle of all comes first, and then one after the other."""
WITHOUT_PACKS = 2
"""Of those evaluated alone in a turn so many are once more, with everybody to read."""
TOUCHED = 1000
WARMING = 10
"""Beats before those that count, as in a server in service: each of the first reads thousands of pages of the index of
events by person, one by one, that a million people's year was made with and nobody has read since."""
SAMPLED = 10
"""Of the hundred segments every so many are also asked for by hand."""
WORK_MEMORY = "64MB"
"""What the engine gives itself; the hand-written SQL has as much."""

# In the last 60 days looked at two products or more, or bought for 50 or more; on one of two plans; and has not had to
# call support for 30 days.
NESTED = {
    "all": [
        {
            "any": [
                {
                    "event": {
                        "name": "product_viewed",
                        "count": {"operator": "GREATER_OR_EQUAL", "value": 2},
                        "within": {"days": 60},
                    }
                },
                {
                    "event": {
                        "name": "purchase",
                        "sum": {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 50},
                        "within": {"days": 60},
                    }
                },
            ]
        },
        {"trait": {"key": "plan", "operator": "IN", "value": ["free", "pro"]}},
        {"not": {"event": {"name": "support_contacted", "within": {"days": 30}}}},
    ]
}
# What no exact answer to NESTED can do without: its rows, and of these what it asks about. Counted, so that nothing is
# grouped, packed, sent or saved.
LEAST_READ = (
    "SELECT count(*) FROM event WHERE workspace_id = $1 AND name = 'product_viewed'"
    " AND occurred_at >= $2::timestamptz - interval '60 days' AND occurred_at <= $2",
    "SELECT count(properties -> 'value') FROM event WHERE workspace_id = $1 AND name = 'purchase'"
    " AND occurred_at >= $2::timestamptz - interval '60 days' AND occurred_at <= $2",
    "SELECT count(traits -> 'plan') FROM profile WHERE workspace_id = $1 AND $2::timestamptz IS NOT NULL",
    "SELECT count(*) FROM event WHERE workspace_id = $1 AND name = 'support_contacted'"
    " AND occurred_at >= $2::timestamptz - interval '30 days' AND occurred_at <= $2",
)
# Nobody's: so everybody is a member.
EVERYBODY = {"not": {"event": {"name": "account_closed"}}}

TABLE_BY_HAND = "CREATE TABLE by_hand (LIKE membership INCLUDING ALL)"
POPULATE_BY_HAND = """
INSERT INTO by_hand (workspace_id, segment_id, profile_id, entered_at, reason)
SELECT workspace_id, $2, id, $3, 'by hand' FROM profile p
WHERE workspace_id = $1 AND merged_into IS NULL AND erased_at IS NULL AND NOT EXISTS (
  SELECT FROM event e WHERE e.workspace_id = $1 AND e.name = 'account_closed' AND e.profile_id = p.id)
"""


class DifferentSets(Exception):
    """The engine and the hand-written SQL found different people."""


@dataclass(slots=True)
class Figure:
    """Medians of one figure in ms, ours and the SQL's."""

    ours: float
    by_hand: float | None = None
    form: str = ""
    """Which form of SQL was the fastest."""
    note: str = ""


@dataclass(slots=True)
class Times:
    """Milliseconds of repetitions, by what was timed."""

    taken: dict[str, list[float]] = field(default_factory=dict)

    async def of(self, what: str, work: Awaitable[Any]) -> Any:
        """What `work` answers, its time kept. No garbage of what was before is collected within it."""
        gc.collect()
        began = perf_counter()
        answer = await work
        self.taken.setdefault(what, []).append((perf_counter() - began) * 1000)
        return answer

    def median(self, what: str) -> float:
        return median(self.taken[what])

    def mean(self, what: str) -> float:
        return sum(self.taken[what]) / len(self.taken[what])

    def fastest(self, among: Sequence[str]) -> str:
        return min((what for what in among if what in self.taken), key=self.median)


@dataclass(slots=True)
class Run:
    """One run over one database."""

    bench: Bench
    owner: asyncpg.Connection
    """A superuser's, past row level security: for hand-written SQL and for what happens in between."""
    sources: Sources
    now: datetime
    """Where windows end; it moves on as people act."""
    sql: bool = True
    """Whether the hand-written SQL is run as well."""

    async def cycle(self, segment_ids: Sequence[UUID]) -> None:
        """Evaluate these segments as a worker does, and no others wait."""
        bench = self.bench
        async with transaction(bench.workspace_id) as connection:
            cause = EvaluationCause.REQUEST
            await evaluation.request_many(connection, bench.workspace_id, set(segment_ids), cause=cause, now=self.now)
        await self.run_waiting()

    async def run_waiting(self) -> None:
        """One cycle over what waits."""
        ended = await cycles.run(self.bench.workspace_id, sources=self.sources, now=self.now)
        newest = await evaluation.latest(self.bench.workspace_id, ended or [])
        wrong = [one for one in newest.values() if one.status is not EvaluationStatus.SUCCEEDED]
        assert ended, "nothing was evaluated"
        assert not wrong, (wrong[0].status, wrong[0].error)

    async def members(self, segment_id: UUID) -> BitMap:
        async with transaction(self.bench.workspace_id) as connection:
            return await membership.load(connection, segment_id) or BitMap()

    async def selected(self, sql: str) -> BitMap:
        """The ids that hand-written SQL selects, as rows."""
        return BitMap(row[0] for row in await self.owner.fetch(sql))


async def nested(run: Run) -> Figure:
    """Evaluate, difference and save of NESTED; each time 1 % of its members have left, or come back.

    The evaluation before has left packs of everybody, as a worker's does; the note says what it takes without them.
    """
    bench, times = run.bench, Times()
    (segment,) = await changes.add_segments(bench, [("Nested", NESTED)])
    await run.run_waiting()
    before = await run.members(segment)
    some = random.Random(1).sample(list(before), max(1, len(before) // 100))
    question = Question(NESTED, bench.workspace_id, bench.now)
    for repetition in range(REPETITIONS + REPETITIONS % 2):
        away = repetition % 2 == 0
        await (changes.suspend if away else changes.let_return)(run.owner, bench, some)
        await times.of("ours", run.cycle([segment]))
        ours = await run.members(segment)
        require_same("the 1 %", ours, before - BitMap(some) if away else before)
        await times.of("least", least_read(run))
        for form, write in FORMS.items() if run.sql else ():
            sql = write(question)
            await times.of(form, run.owner.fetch(f"SELECT count(*) FROM ({sql}) AS s"))
            require_same(form, ours, await run.selected(sql))
    for change in (changes.suspend, changes.let_return):
        await changes.forget_packs(run.owner, bench)
        await change(run.owner, bench, some)
        await times.of("cold", run.cycle([segment]))
    require_same("the 1 %, without packs", await run.members(segment), before)
    note = (
        f"{len(before):,} members, {len(some):,} moved; without packs, which it makes: {times.median('cold'):,.0f} ms"
    )
    note += f"; its rows only read: {times.median('least'):,.0f} ms"
    if not run.sql:
        return Figure(times.median("ours"), note=note)
    form = times.fastest(list(FORMS))
    return Figure(times.median("ours"), times.median(form), form, note)


async def least_read(run: Run) -> None:
    """Read what NESTED is about, on two connections at once."""
    waiting = list(LEAST_READ)

    async def read() -> None:
        connection = await asyncpg.connect(run.bench.owner_url)
        try:
            await connection.execute("SET jit = off")
            while waiting:
                await connection.fetch(waiting.pop(0), run.bench.workspace_id, run.bench.now)
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as lanes:
        for _ in range(2):
            lanes.create_task(read())


async def populated(run: Run) -> Figure:
    """The first evaluation of a segment that everybody meets."""
    bench, times = run.bench, Times()
    await run.owner.execute("DROP TABLE IF EXISTS by_hand")
    await run.owner.execute(TABLE_BY_HAND)
    for repetition in range(REPETITIONS):
        (segment,) = await changes.add_segments(bench, [(f"Everybody {repetition}", EVERYBODY)])
        await times.of("ours", run.run_waiting())
        require_same("everybody", await run.members(segment), BitMap(range(1, bench.profiles + 1)))
        if run.sql:
            await times.of("SQL", run.owner.execute(POPULATE_BY_HAND, bench.workspace_id, segment, bench.now))
            await run.owner.execute("TRUNCATE by_hand")
        for statement in changes.FORGET_SEGMENTS:
            await run.owner.execute(statement)
    await run.owner.execute("DROP TABLE by_hand")
    note = f"{bench.profiles:,} members"
    if not run.sql:
        return Figure(times.median("ours"), note=note)
    return Figure(times.median("ours"), times.median("SQL"), "INSERT ... SELECT", note)


async def hundred(run: Run, definitions: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Figure], list[UUID]]:
    """All segments in one cycle, one of them alone (the mean over all), that in times of this, and their ids.

    Both find packs, made a moment ago, and before both 0.5 % of the people act, so that members move and as many must
    be asked about. The notes say what both take without packs, when everybody is read and packs are made. The SQL of a
    tenth of them is run once, one after the other, and what it takes is taken for all: at a million people all of them
    took minutes.
    """
    bench, times, draw = run.bench, Times(), random.Random(2)
    ids = await standing(run, definitions)
    acting = bench.profiles // 200

    async def act() -> None:
        await changes.act(run.owner, bench, changes.active_people(draw, bench, acting), at=bench.now)

    for turn in range(TURNS):
        mine = ids[turn::TURNS]
        for one in mine[:WITHOUT_PACKS]:
            await changes.forget_packs(run.owner, bench)
            await times.of("one, read", run.cycle([one]))
        await changes.forget_packs(run.owner, bench)
        await act()
        await times.of("all, read", run.cycle(ids))
        # Who comes second asks about those of both acts: each comes first as often as the other.
        for together in (True, False) if turn % 2 else (False, True):
            await act()
            if together:
                await times.of("all", run.cycle(ids))
                continue
            for one in mine:
                await times.of("one", run.cycle([one]))
            # The others, so that as many have acted before each.
            await run.cycle(ids)
    sql_ms, form = await by_hand(run, definitions, ids) if run.sql else (None, "")
    all_ms, one_ms, all_read_ms, one_read_ms = (times.mean(what) for what in ("all", "one", "all, read", "one, read"))
    without = "without packs, which it makes"
    found = {
        "all_ms": Figure(all_ms, sql_ms, form, f"{acting:,} people acted before; {without}: {all_read_ms:,.0f}"),
        "one_ms": Figure(one_ms, sql_ms and sql_ms / len(ids), form, f"mean over all; {without}: {one_read_ms:,.0f}"),
        "hundred_ratio": Figure(
            all_ms / one_ms, sql_ms and float(len(ids)), note=f"both without packs: {all_read_ms / one_read_ms:.1f}"
        ),
    }
    return found, ids


async def standing(run: Run, definitions: Sequence[Mapping[str, Any]]) -> list[UUID]:
    """The ids of live segments of these definitions, evaluated for the first time."""
    ids = await changes.add_segments(run.bench, [(one["name"], one["definition"]) for one in definitions])
    await run.run_waiting()
    return ids


async def by_hand(run: Run, definitions: Sequence[Mapping[str, Any]], ids: Sequence[UUID]) -> tuple[float | None, str]:
    """What all sets take by hand, told from a tenth of them by the form that is the fastest for the first three of
    these, and that form; compared with our members."""
    times = Times()
    questions = [Question(one["definition"], run.bench.workspace_id, run.bench.now) for one in definitions]
    sample = list(zip(questions, ids, strict=True))[::SAMPLED]
    for question, _ in sample[:3]:
        for form, write in FORMS.items():
            await times.of(form, run.owner.fetch(f"SELECT count(*) FROM ({write(question)}) AS s"))
    form = times.fastest(list(FORMS))
    for question, segment in sample:
        sql = FORMS[form](question)
        await times.of("one", run.owner.fetch(f"SELECT count(*) FROM ({sql}) AS s"))
        require_same(form, await run.members(segment), await run.selected(sql))
    return times.mean("one") * len(ids), f"{form}, every tenth once"


async def touched(run: Run, definitions: Sequence[Mapping[str, Any]], ids: Sequence[UUID]) -> Figure:
    """One pulse over 1,000 people who acted, with all segments live, against one statement with a FILTER a leaf.

    The note says what the beats before took, when much had to be read from disk.
    """
    bench, times, draw, moved = run.bench, Times(), random.Random(3), 0
    conditions = [one["definition"] for one in definitions]
    for repetition in range(WARMING + 2 * REPETITIONS):
        people = await act_in_a_second(run, draw)
        what = "warming" if repetition < WARMING else "ours"
        beat = await times.of(what, pulse.beat(bench.workspace_id, sources=run.sources, now=run.now))
        assert beat is not None
        assert beat.evaluated >= TOUCHED, beat
        if what == "warming":
            continue
        moved += beat.entered + beat.exited
        if not run.sql:
            continue
        sql = handwritten.one_pass(Question(None, bench.workspace_id, run.now, people), conditions)
        rows = await times.of("SQL", run.owner.fetch(sql))
        asked = BitMap(people)
        for place, segment in enumerate(ids):
            found = BitMap(row["id"] for row in rows if row[place + 1])
            require_same(f"pulse, {definitions[place]['name']}", await run.members(segment) & asked, found)
    wrong = await membership.verify(bench.workspace_id)
    assert not wrong, wrong
    first = times.taken["warming"]
    note = (
        f"{moved // (2 * REPETITIONS):,} moves a pulse; the {WARMING} pulses before, from disk: {first[0]:,.0f} ms,"
        f" at the median {median(first):,.0f}"
    )
    if not run.sql:
        return Figure(times.median("ours"), note=note)
    return Figure(times.median("ours"), times.median("SQL"), "one pass, FILTER", note)


async def act_in_a_second(run: Run, draw: random.Random) -> list[int]:
    """Let a second pass in which 1,000 people do something: who they are."""
    run.now += timedelta(seconds=1)
    people = changes.active_people(draw, run.bench, TOUCHED)
    await changes.act_and_tell(run.owner, run.bench, people, at=run.now)
    return people


def require_same(what: str, ours: BitMap, theirs: BitMap) -> None:
    """Raise DifferentSets when two sets of people differ."""
    if ours != theirs:
        raise DifferentSets(f"{what}: {len(ours - theirs)} only in ours, {len(theirs - ours)} only in the other")


@asynccontextmanager
async def opened(bench: Bench, sources: Sources, *, sql: bool = True) -> AsyncIterator[Run]:
    """A run over `bench`, with hand-written SQL or without, which is taken back to how it was made before and after."""
    owner = await asyncpg.connect(bench.owner_url)
    try:
        await owner.execute(f"SET work_mem = '{WORK_MEMORY}'")
        await changes.take_back(owner, bench)
        yield Run(bench, owner, sources, bench.now, sql)
        await changes.take_back(owner, bench)
    finally:
        await owner.close()
