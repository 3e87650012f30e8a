"""Full evaluations, run together: what is asked in common is asked once, and each result is applied on its own.

A cycle takes what waits of a workspace, asks all leaves in one go, and concludes one segment after the other, those
that others name first. Leaves are asked outside of the transactions that apply results (concluding.py).
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from db.transactions import transaction
from segments import concluding, conditions, evaluation, finding, leases, ranking, references
from segments.concluding import Result
from segments.engines.base import EngineError, Ranks
from segments.errors import SegmentError
from segments.finding import Found, Wanted
from segments.leases import Claimed, Hold, Instant, Lost, Timing
from segments.models import EvaluationCause
from segments.nodes import Condition, Ranking
from segments.sources import Sources

logger = logging.getLogger(__name__)
T = TypeVar("T")

STALE_AFTER = timedelta(minutes=10)
SHARE_TOGETHER = 0.5
"""Of a cycle's time for asking everything at once; the rest is left to find out who is guilty when that fails."""
MOST_LATE = 1_000
"""People evaluated by pulses since results were found, above which all results are brought up to date, before locks
are taken: what `concluding` asks about under the lock of a segment holds up every beat."""
FEWEST_ALONE = 0.1
"""Of a cycle's time: with less than this left no evaluation begins on its own any more."""


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed evaluation whose definition was read."""

    claimed: Claimed
    condition: Condition
    order: Ranking | None

    @property
    def segment_id(self) -> UUID:
        return self.claimed.segment_id

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.condition, self.claimed.brand_id)


async def run(
    workspace_id: UUID,
    *,
    sources: Sources,
    now: datetime | None = None,
    stale_after: timedelta = STALE_AFTER,
    timing: Timing | None = None,
) -> list[UUID] | None:
    """Evaluate what waits in the workspace; the segments whose evaluation ended, or None when nothing was to do.

    Windows end at `now`, by default the database's clock. Safe to call by many: each takes what no other has. Failures
    are recorded with code and sentence and leave members as they were; errors of our own connection pass, and the
    leases then run out. Cancelled, it leaves what it has not ended to others at once.
    """
    timing = timing or Timing()
    taken = await leases.take(workspace_id, engine=sources.engine.name, timing=timing)
    if taken is None:
        return None
    instant = replace(taken.instant, now=now or taken.instant.now)
    if taken.missing:
        async with transaction(workspace_id) as connection:
            cause = EvaluationCause.DEPENDENCY
            await evaluation.request_many(connection, workspace_id, taken.missing, cause=cause, now=instant.now)
    if not taken.claimed:
        return taken.refused
    async with leases.held(workspace_id, taken.claimed, timing) as hold:
        cycle = Cycle(workspace_id, sources, instant, hold, timing, monotonic() + timing.longest.total_seconds())
        try:
            return taken.refused + await cycle.evaluate(taken.claimed, stale_after=stale_after)
        except asyncio.CancelledError:
            # The worker is being stopped. Should PostgreSQL be away as well, the leases run out by themselves.
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await leases.let_go(workspace_id, hold)
            raise


@dataclass(frozen=True, slots=True)
class Cycle:
    """One run over some evaluations."""

    workspace_id: UUID
    sources: Sources
    instant: Instant
    hold: Hold
    timing: Timing
    until: float
    """By the monotonic clock."""

    async def evaluate(self, claimed: Collection[Claimed], *, stale_after: timedelta) -> list[UUID]:
        """Evaluate all of them; the segments whose evaluation ended."""
        tasks = {one.segment_id: one for one in [await self.read(one) for one in claimed] if one is not None}
        ended = [one.segment_id for one in claimed if one.segment_id not in tasks]
        in_order = [tasks[id] for id in finding.in_order({id: one.wanted for id, one in tasks.items()})]
        try:
            await self.require_fresh(stale_after)
            results = await self.ask_together(in_order) if len(in_order) > 1 else None
        except Lost:
            return ended
        except Exception as e:
            for one in in_order:
                await self.fail(one.claimed, e)
            return [*ended, *tasks]
        applied: dict[UUID, bool | None] = {}
        for place, one in enumerate(in_order):
            # None: it is taken again, by this worker or another. False: its members stay as they are.
            before = [applied[id] for id in finding.uses(one.condition) & applied.keys()]
            if None in before or (results is not None and False in before):
                # It was, or would be, computed with members that did not come to be.
                await leases.give_back(self.workspace_id, one.claimed)
                applied[one.segment_id] = None
            else:
                if results is not None and one.claimed.live:
                    results = await self.kept_up(in_order[place:], results)
                result = None if results is None else results[one.segment_id]
                applied[one.segment_id] = await self.settle(one, result)
            self.hold.drop(one.claimed.id)
        return ended + [id for id, outcome in applied.items() if outcome is not None]

    async def read(self, one: Claimed) -> Task | None:
        """The evaluation with its definition read; None when that cannot be, and it failed."""
        try:
            condition = conditions.read(one.definition)
            order = None if one.ranking is None else ranking.parse(one.ranking, field=("ranking",))
        except SegmentError as e:
            await self.fail(one, e)
            return None
        return Task(one, condition, order)

    async def require_fresh(self, stale_after: timedelta) -> None:
        """Raise EngineError STALE_DATA when the engine is too far behind to say who is in."""
        as_of = await self.sources.engine.as_of(workspace_id=self.workspace_id)
        if as_of is not None and self.instant.now - as_of > stale_after:
            message = (
                f"The engine's data ends at {as_of.isoformat()}, and this evaluation is of"
                f" {self.instant.now.isoformat()}: more than {stale_after.total_seconds():g} s later. The members stay"
                " as they are; evaluate again when the engine has caught up."
            )
            raise EngineError("STALE_DATA", message)

    async def settle(self, one: Task, result: Result | None) -> bool | None:
        """Conclude with `result`, by default with what is found for this segment alone; whether it was applied.

        None: it is not this worker's any more, or was given back.
        """
        left = self.until - monotonic()
        if result is None and left < self.timing.longest.total_seconds() * FEWEST_ALONE:
            await leases.give_back(self.workspace_id, one.claimed)
            return None

        async def again(only: BitMap, instant: Instant) -> Result:
            return (await self.results([one], instant, only=only))[one.segment_id]

        try:
            if result is None:
                async with asyncio.timeout(left):
                    result = (await self.unless_lost(self.caught_up([one]), [one]))[one.segment_id]
            return await concluding.conclude(self.workspace_id, one.claimed, result, order=one.order, again=again)
        except Lost:
            return None
        except asyncpg.DeadlockDetectedError:
            logger.warning("segment evaluation met a deadlock", extra={"evaluation_id": one.claimed.id}, exc_info=True)
            await leases.give_back(self.workspace_id, one.claimed)
            return None
        except Exception as e:
            # Every failure belongs to this evaluation: left open, it would be tried again for ever.
            await self.fail(one.claimed, e)
            return False

    # --- asking -------------------------------------------------------------------------------------------------

    async def ask_together(self, tasks: list[Task]) -> dict[UUID, Result] | None:
        """All results, each leaf asked once; None when something failed that may be the fault of one segment.

        Raises Lost.
        """
        try:
            async with asyncio.timeout(self.timing.longest.total_seconds() * SHARE_TOGETHER):
                return await self.unless_lost(self.caught_up(tasks), tasks)
        except Lost:
            raise
        except Exception as e:
            code, _ = explained(e, longest=self.timing.longest)
            logger.warning("evaluations failed together; each is run alone", extra={"code": code}, exc_info=e)
            return None

    async def unless_lost(self, work: Coroutine[Any, Any, T], tasks: Collection[Task]) -> T:
        """What `work` answers. Raises Lost, and stops it, when none of `tasks` is this worker's any more."""
        working = asyncio.create_task(work)
        losing = asyncio.create_task(self.hold.until_lost([one.claimed.id for one in tasks]))
        try:
            await asyncio.wait({working, losing}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Lost
        finally:
            working.cancel()
            losing.cancel()
            await asyncio.gather(working, losing, return_exceptions=True)

    async def kept_up(self, tasks: list[Task], results: dict[UUID, Result]) -> dict[UUID, Result]:
        """`results`, with those of `tasks`, the first of which is live, brought up to date if pulses have gone far on.

        A cycle of a hundred segments beside a busy pulse asked about ever more people for each, at the end about all
        that changed since it began, and no beat came in between. As they were when that fails: it may be the fault of
        one of them, and `concluding` asks for each.
        """
        left = self.until - monotonic()
        try:
            async with transaction(self.workspace_id) as connection:
                since = results[tasks[0].segment_id].instant
                late = await concluding.evaluated_since(connection, self.workspace_id, since)
            if len(late) <= MOST_LATE:
                return results
            async with asyncio.timeout(left * SHARE_TOGETHER):
                return await self.unless_lost(self.amended(tasks, results, since), tasks)
        except Exception as e:
            logger.warning("evaluations not kept up with the pulse", exc_info=e)
            return results

    async def caught_up(self, tasks: list[Task]) -> dict[UUID, Result]:
        """Results by segment id, with all that pulses did while leaves were asked.

        What pulses do from here on is caught up with segment by segment, under its lock: little, in most cases none.
        """
        return await self.amended(tasks, await self.results(tasks, self.instant), self.instant)

    async def amended(self, tasks: list[Task], results: dict[UUID, Result], since: Instant) -> dict[UUID, Result]:
        """`results`, with those of the live ones of `tasks`, which are as of `since`, as of now."""
        live = [one.segment_id for one in tasks if one.claimed.live]
        if not live:
            return results
        async with transaction(self.workspace_id) as connection:
            row = await connection.fetchrow(leases.INSTANT, self.workspace_id)
            late = await concluding.evaluated_since(connection, self.workspace_id, since)
        if late:
            # Those that are not live are asked too, since live ones may name them; their own results stand as found.
            instant = Instant(row["snapshot"], max(row["now"], since.now))
            again = await self.results(tasks, instant, only=late)
            return results | {id: concluding.amended(results[id], again[id], late) for id in live}
        instant = Instant(row["snapshot"], since.now)
        return results | {id: replace(results[id], instant=instant) for id in live}

    async def results(self, tasks: list[Task], instant: Instant, *, only: BitMap | None = None) -> dict[UUID, Result]:
        """Results by segment id as of `instant`; with `only`, of those people. Raises EngineError, SegmentError."""
        wanted = {one.segment_id: one.wanted for one in tasks}
        named = {id for one in tasks for id in finding.uses(one.condition)} - wanted.keys()
        async with transaction(self.workspace_id) as connection:
            members = await references.members(connection, self.workspace_id, named)
        if missing := named - members.keys():
            names = await references.names(self.workspace_id, missing)
            raise SegmentError(*leases.not_evaluated(min(names.values(), default="?")))
        found = await finding.find(
            wanted,
            sources=self.sources,
            workspace_id=self.workspace_id,
            now=instant.now,
            members=members,
            only=only,
        )
        results = {}
        for one in tasks:
            mine = found[one.segment_id]
            results[one.segment_id] = Result(mine.members, nodes(mine), await self.ranks(one, mine, instant), instant)
        return results

    async def ranks(self, one: Task, found: Found, instant: Instant) -> Ranks | None:
        """The values that rank those who were found; None for a segment without an order."""
        if one.order is None:
            return None
        return await self.sources.engine.ranks(
            workspace_id=self.workspace_id, by=one.order.by, now=instant.now, only=found.members
        )

    async def fail(self, one: Claimed, error: Exception) -> None:
        """Record a failure with code and sentence."""
        code, message = explained(error, longest=self.timing.longest)
        extra = {"evaluation_id": one.id, "segment_id": one.segment_id, "code": code}
        logger.warning("segment evaluation failed", extra=extra, exc_info=error)
        await leases.fail(self.workspace_id, one, code=code, message=message)


def explained(error: Exception, *, longest: timedelta) -> tuple[str, str]:
    """Code and sentence for the segment's owner."""
    match error:
        case EngineError() | SegmentError():
            return error.code, error.message
        case TimeoutError():
            minutes = f"{longest / timedelta(minutes=1):g}"
            return "EVALUATION_TOO_SLOW", f"Evaluating took longer than {minutes} minutes; use fewer conditions."
        case _:
            return "ENGINE_FAILED", f"The engine failed ({type(error).__name__}); its log says more. Try again."


def nodes(found: Found) -> list[dict[str, Any]]:
    """Sizes of the parts as they are stored."""
    return [{"path": list(node.path), "size": node.size} for node in found.nodes]
