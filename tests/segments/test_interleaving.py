"""Events, beats, full evaluations and people's own changes all at once: what is true in the end is what members say."""

import asyncio
import random
from collections.abc import Awaitable
from datetime import datetime
from uuid import UUID

from db.transactions import transaction
from profiles.profiles import ProfileInput
from segments import conditions, evaluation, finding, pulse, references, static
from segments.finding import Wanted
from segments.membership import verify
from segments.models import EvaluationCause, Segment
from tests.segments.beats import (
    BOUGHT,
    NEVER_BOUGHT,
    drain,
    in_segment,
    merge,
    named,
    settled,
    static_with,
    track,
    upsert,
)
from tests.segments.factories import PREMIUM, SOURCES, make_dynamic, members_of, run_all

PEOPLE = [f"p{n}" for n in range(24)]
ROUNDS = 12


async def test_whoever_comes_first_members_are_right_in_the_end(workspace: UUID, now: datetime) -> None:
    """Twelve rounds of everything at the same time, in an order that nobody chose."""
    chance = random.Random(7)
    ids = dict(zip(PEOPLE, await named(workspace, *PEOPLE, now=now), strict=True))
    curated = await static_with(workspace, *list(ids.values())[:4], now=now)
    buyers = await make_dynamic(workspace, BOUGHT, now=now, name="buyers")
    others = await make_dynamic(workspace, NEVER_BOUGHT, now=now, name="others")
    premium = await make_dynamic(workspace, PREMIUM, now=now, name="premium")
    mixed: object = {"any": [{"not": in_segment(premium)}, {"all": [in_segment(buyers), in_segment(curated)]}]}
    dynamic = [buyers, others, premium, await make_dynamic(workspace, mixed, now=now, name="mixed")]
    await settled(workspace, now=now)
    alive = list(PEOPLE)
    for _ in range(ROUNDS):
        some = chance.sample(alive, 4)
        plans = [ProfileInput(one, traits={"plan": chance.choice(["premium", "basic"])}) for one in some[:2]]
        work: list[Awaitable[object]] = [
            track(workspace, "purchase", *some[1:3], at=now),
            upsert(workspace, *plans, now=now),
            static.add_members(workspace, curated.id, external_ids=[some[3]], now=now),
            pulse.beat(workspace, sources=SOURCES),
            ask(chance.choice(dynamic), now=now),
            run_all(workspace, now=now),
            pulse.beat(workspace, sources=SOURCES),
        ]
        if len(alive) > len(PEOPLE) // 2 and chance.random() < 0.5:
            loser = alive.pop(chance.randrange(len(alive)))
            work.append(merge(workspace, loser=ids[loser], winner=ids[chance.choice(alive)], now=now))
        chance.shuffle(work)
        await asyncio.gather(*work)
    # The evaluations still open may be of any moment: beats after them make up for it.
    await run_all(workspace, now=now)
    await drain(workspace, now=now)
    assert [await members_of(one) for one in dynamic] == [await truth(one, now=now) for one in dynamic]
    assert (await members_of(curated) or set()) <= {ids[one] for one in alive}
    assert await verify(workspace) == []


async def ask(segment: Segment, *, now: datetime) -> None:
    await evaluation.request(segment.workspace_id, segment.id, cause=EvaluationCause.REQUEST, now=now)


async def truth(segment: Segment, *, now: datetime) -> set[int]:
    """Who meets the segment's conditions now, by the current members of those it names."""
    wanted = Wanted(conditions.read(segment.definition))
    async with transaction(segment.workspace_id) as connection:
        members = await references.members(connection, segment.workspace_id, wanted.plan.uses)
    found = await finding.find(
        {segment.id: wanted}, sources=SOURCES, workspace_id=segment.workspace_id, now=now, members=members
    )
    return set(found[segment.id].members)
