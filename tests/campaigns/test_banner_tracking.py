"""Banner events: written once, counted exactly in whatever order they come, and what they stop."""

import asyncio
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from campaigns import banner_counts, banner_events, banner_retention, banner_stops, banner_tracking, merging, placements
from campaigns.banner_content import BannerContent, BannerFace
from campaigns.banner_counts import BannerCounts
from campaigns.banner_events import BannerEvent, BannerEventKind, Span
from campaigns.banner_rules import BannerRules, Limits
from campaigns.banner_stops import Stop, StopReason
from campaigns.banner_tokens import Impression, ImpressionKind
from campaigns.banner_tracking import Became
from campaigns.placements import PlacementInput
from db.errors import MusterError
from db.transactions import Connection, transaction
from profiles.addresses import AddressHasher
from tests.campaigns.factories import make_campaign, make_people
from tests.conftest import Database

LATE = timedelta(days=7)
NOW = datetime.fromisoformat("2026-03-10T12:00:00+00:00")
WINDOW = int(NOW.timestamp()) // 3600 * 3600
WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')"
ACCEPTED, DUPLICATE, UNKNOWN = Became.ACCEPTED, Became.DUPLICATE, Became.UNKNOWN


@dataclass(frozen=True)
class World:
    """A banner in a placement."""

    workspace_id: UUID
    campaign_id: UUID
    placement_id: UUID

    def shown(self, viewer: UUID | int = 1, *, kind: ImpressionKind = ImpressionKind.SHOWN, **more: int) -> Impression:
        """What a token says; a profile's when `viewer` is a number."""
        profile_id = viewer if isinstance(viewer, int) else None
        return Impression(
            campaign=self.campaign_id.bytes,
            placement=self.placement_id.bytes,
            content_version=more.get("version", 1),
            viewer=(UUID(int=viewer) if isinstance(viewer, int) else viewer).bytes,
            profile_id=profile_id,
            window_start=more.get("window", WINDOW),
            kind=kind,
        )

    def event(
        self, id: str, kind: str = "IMPRESSION", *, shown: Impression | None = None, session: str = "s",
        at: datetime = NOW, machine: bool = False,
    ) -> BannerEvent:  # fmt: skip
        return banner_events.clean(
            shown or self.shown(),
            kind=kind,
            id=id,
            session_id=session,
            occurred_at=at,
            is_by_machine=machine,
            span=Span.of(NOW, late=LATE),
        )

    async def record(self, *events: BannerEvent) -> list[Became]:
        return await banner_tracking.record(self.workspace_id, events, now=NOW)

    async def counts(self) -> BannerCounts:
        found = await banner_counts.of_campaigns(self.workspace_id, [self.campaign_id])
        return found.get(self.campaign_id, BannerCounts())

    async def viewers_by_day(self) -> dict[date, int]:
        rows = await banner_counts.days(self.workspace_id, self.campaign_id, first=date.min, last=date.max)
        return {row.day: row.counts.unique_viewers for row in rows}

    async def stops(self, after: int = 0) -> tuple[dict[Stop, BitMap], int]:
        async with transaction(self.workspace_id) as connection:
            subjects = dict.fromkeys((self.campaign_id, self.placement_id), after)
            return await banner_stops.read(connection, self.workspace_id, subjects, now=NOW)


async def world(workspace: UUID, *, limits: Limits | None = None, of_placement: Limits | None = None) -> World:
    place = await placements.create(
        workspace, PlacementInput(key="home-top", name="Top", limits=of_placement or Limits())
    )
    return await banner(workspace, place.id, limits or Limits())


async def banner(workspace: UUID, place: UUID, limits: Limits) -> World:
    campaign = await make_campaign(
        workspace,
        now=NOW,
        content=BannerContent(BannerFace(title="Sale")),
        placement_id=place,
        weight=50,
        sender_id=None,
        rules=BannerRules(limits=limits),
    )
    return World(workspace, campaign.id, place)


async def test_an_event_is_new_once(workspace: UUID) -> None:
    it = await world(workspace)
    click = it.event("c", "CLICK")
    assert await it.record(click, click) == [ACCEPTED, DUPLICATE]
    later = it.event("c", "CLICK", at=NOW - timedelta(days=1))
    assert await it.record(later, it.event("d", "DISMISS")) == [DUPLICATE, ACCEPTED]
    # The id is the viewer's own: somebody else's may be the same.
    assert await it.record(it.event("c", "CLICK", shown=it.shown(2))) == [ACCEPTED]
    assert await it.counts() == BannerCounts(clicks=2, dismissals=1)


async def test_a_token_counts_once_in_a_session(workspace: UUID) -> None:
    it = await world(workspace)
    next_window = it.shown(window=WINDOW + 3600)
    assert await it.record(
        it.event("1", session="a"),
        it.event("2", session="a", at=NOW - timedelta(days=2)),
        it.event("3", session="b"),
        it.event("3", session="c"),
        it.event("4", session="a", shown=next_window),
    ) == [ACCEPTED, DUPLICATE, ACCEPTED, DUPLICATE, ACCEPTED]
    assert await it.counts() == BannerCounts(impressions=3, unique_viewers=1)


async def test_the_same_batch_sent_by_many_at_once_counts_once(workspace: UUID) -> None:
    it = await world(workspace)
    events = [it.event(str(place), shown=it.shown(uuid4())) for place in range(40)]
    answers = await asyncio.gather(*(it.record(*reversed(events)) for _ in range(4)))
    assert sum(answer.count(ACCEPTED) for answer in answers) == 40
    assert await it.counts() == BannerCounts(impressions=40, unique_viewers=40)


async def test_batches_that_deadlock_over_their_days_are_both_counted(
    workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are locked in one order within a day only; whom PostgreSQL ends goes on alone, and is not ended again."""
    it = await world(workspace)
    other = await banner(workspace, it.placement_id, Limits())
    # Whoever makes a month's partition is alone until it is committed.
    await it.record(it.event("0", "CLICK"))
    yesterday, both_began, tried = NOW - timedelta(days=1), asyncio.Barrier(2), list[bool]()
    add, begin, begun = banner_tracking.add, banner_tracking.begin, list[date]()

    async def adding(connection: Connection, workspace_id: UUID, day: date, *more: Any) -> Any:
        rows = await add(connection, workspace_id, day, *more)
        begun.append(day)
        if len(begun) <= 2:
            await both_began.wait()
        return rows

    async def beginning(*given: Any, alone: bool) -> Any:
        tried.append(alone)
        return await begin(*given, alone=alone)

    monkeypatch.setattr(banner_tracking, "add", adding)
    monkeypatch.setattr(banner_tracking, "begin", beginning)
    became = await asyncio.gather(
        it.record(it.event("1", at=yesterday, session="1"), other.event("2", session="1")),
        it.record(other.event("3", at=yesterday, session="2"), it.event("4", session="2")),
    )
    assert [*became] == [[ACCEPTED] * 2] * 2
    assert tried == [False, False, True]
    assert [await one.counts() for one in (it, other)] == [
        BannerCounts(impressions=2, unique_viewers=1, clicks=clicks) for clicks in (1, 0)
    ]
    assert await banner_counts.verify(workspace) == []


async def test_what_testers_saw_and_what_was_deleted_counts_nowhere(workspace: UUID) -> None:
    it = await world(workspace)
    gone = World(workspace, uuid4(), it.placement_id)
    tested = it.event("t", shown=it.shown(kind=ImpressionKind.TEST))
    assert await it.record(tested, gone.event("g"), tested) == [ACCEPTED, UNKNOWN, ACCEPTED]
    assert await it.counts() == BannerCounts()


async def test_machines_are_kept_and_counted_nowhere(workspace: UUID) -> None:
    it = await world(workspace, limits=Limits(lifetime=1))
    machine = [it.event("1", machine=True), it.event("2", "CLICK", machine=True)]
    assert await it.record(*machine) == [ACCEPTED, ACCEPTED]
    assert await it.record(*machine) == [DUPLICATE, DUPLICATE]
    assert (await it.counts(), (await it.stops())[0]) == (BannerCounts(), {})
    async with transaction(workspace) as connection:
        assert await connection.fetchval("SELECT count(*) FROM banner_event WHERE machine") == 2


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "IMPRESSION", "token": ImpressionKind.HIDDEN}, "WRONG_KIND", "kind"),
    ({"kind": "CLICK", "token": ImpressionKind.HIDDEN}, "WRONG_KIND", "kind"),
    ({"kind": "HIDDEN"}, "WRONG_KIND", "kind"),
    ({"kind": "VIEW"}, "INVALID_CHOICE", "kind"),
    ({"at": NOW - LATE - timedelta(seconds=1)}, "TOO_OLD", "occurred_at"),
    ({"window": int((NOW - LATE - timedelta(days=31)).timestamp())}, "TOO_OLD", "occurred_at"),
    ({"at": NOW + timedelta(days=1, seconds=1)}, "IN_THE_FUTURE", "occurred_at"),
    ({"id": ""}, "BLANK", "id"),
    ({"session": None}, "NOT_TEXT", "session_id"),
    ({"token": None}, "UNKNOWN_TOKEN", "token"),
]


def test_what_cannot_be_is_refused() -> None:
    it = World(uuid4(), uuid4(), uuid4())
    for wrong, code, field in WRONG:
        right = {"kind": "IMPRESSION", "token": ImpressionKind.SHOWN, "at": NOW, "id": "1", "session": "s"}
        given: dict[str, Any] = right | wrong
        token = given["token"]
        shown = it.shown(kind=token, window=given.get("window", WINDOW)) if token else None
        with pytest.raises(MusterError) as refused:
            banner_events.clean(
                shown, kind=given["kind"], id=given["id"], session_id=given["session"], occurred_at=given["at"],
                is_by_machine=False, span=Span.of(NOW, late=LATE),
            )  # fmt: skip
        assert (refused.value.code, refused.value.field) == (code, (field,))


def test_a_clock_that_is_ahead_counts_as_now() -> None:
    it = World(uuid4(), uuid4(), uuid4())
    assert it.event("1", at=NOW + timedelta(hours=5)).occurred_at == NOW


async def test_a_viewer_is_counted_on_each_day_exactly_whatever_comes_first(workspace: UUID) -> None:
    it = await world(workspace)
    ago = [NOW - timedelta(days=days) for days in range(7)]
    one, two = it.shown(uuid4()), it.shown(uuid4())
    # Told late and in turns: days 0, 6, 3, 3, 6; the second viewer on day 3.
    for place, (shown, at) in enumerate(
        [(one, ago[0]), (one, ago[6]), (one, ago[3]), (two, ago[3]), (one, ago[3]), (one, ago[6])]
    ):
        await it.record(it.event(str(place), shown=shown, session=str(place), at=at))
    assert await it.viewers_by_day() == {ago[6].date(): 1, ago[3].date(): 2, ago[0].date(): 1}
    assert await it.counts() == BannerCounts(impressions=6, unique_viewers=2)


async def test_a_viewer_who_comes_back_after_months_is_a_viewer_of_that_day(workspace: UUID) -> None:
    it = await world(workspace)
    shown = it.shown(uuid4())
    await it.record(it.event("1", shown=shown))
    for place, days in enumerate((63, 64, 200)):
        later = NOW + timedelta(days=days)
        event = BannerEvent(shown, BannerEventKind.IMPRESSION, uuid4().bytes, uuid4().bytes, later)
        assert await banner_tracking.record(workspace, [event], now=later) == [ACCEPTED], place
    assert list((await it.viewers_by_day()).values()) == [1, 1, 1, 1]
    assert (await it.counts()).unique_viewers == 1


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["IMPRESSION", "CLICK", "DISMISS"]),
        st.integers(0, 4).map(str),  # event ids, some of which come again
        st.integers(1, 3),  # viewers
        st.integers(0, 6).map(lambda days: NOW - timedelta(days=days)),
        st.sampled_from(["a", "b"]),  # sessions
        st.booleans(),  # machine
    ),
    max_size=30,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(EVENTS, max_size=4))
async def test_counts_are_those_of_the_events_that_were_kept(
    workspace: UUID, batches: list[list[tuple[str, str, int, datetime, str, bool]]]
) -> None:
    """Whatever comes, in whatever order and however often: `muster verify` finds nothing."""
    async with transaction(workspace) as connection:
        await connection.execute("DELETE FROM campaign")
        await connection.execute("DELETE FROM placement")
    it = await world(workspace)
    for batch in batches:
        await it.record(
            *(
                it.event(id, kind, shown=it.shown(viewer), session=session, at=at, machine=machine)
                for kind, id, viewer, at, session, machine in batch
            )
        )  # fmt: skip
    assert await banner_counts.verify(workspace) == []


async def test_verify_says_which_counts_are_wrong(workspace: UUID) -> None:
    it = await world(workspace)
    await it.record(it.event("1"))
    async with transaction(workspace) as connection:
        await connection.execute("UPDATE banner_day SET impressions = 2")
    assert await banner_counts.verify(workspace) == [f"banner {it.campaign_id}: its counts are not those of its events"]


async def test_clicks_and_dismissals_stop_whatever_the_rules_say_now(workspace: UUID) -> None:
    it = await world(workspace)
    stranger = it.shown(uuid4())
    await it.record(
        it.event("1", "CLICK"), it.event("2", "DISMISS", shown=it.shown(2)), it.event("3", "CLICK", shown=stranger)
    )
    people, last = await it.stops()
    clicked, dismissed = Stop(it.campaign_id, StopReason.CLICKED), Stop(it.campaign_id, StopReason.DISMISSED)
    assert people == {
        clicked: BitMap([1]),
        Stop(it.placement_id, StopReason.CLICKED): BitMap([1]),
        dismissed: BitMap([2]),
        Stop(it.placement_id, StopReason.DISMISSED): BitMap([2]),
    }
    # Either rule stops for its own reason alone.
    after_click, after_dismissal = Limits(stop_after_click=True), Limits(stop_after_dismissal=True)
    kept_away = [
        [stop.holds(rule, now=NOW) for rule in (Limits(), after_click, after_dismissal)]
        for stop in (clicked, dismissed)
    ]
    assert kept_away == [[False, True, False], [False, False, True]]
    # Nothing new: told again, and read after what is known.
    await it.record(it.event("4", "CLICK"))
    assert await it.stops(last) == ({}, last)


async def test_limits_stop_when_they_are_reached(workspace: UUID) -> None:
    it = await world(workspace, limits=Limits(lifetime=3, per_day=2), of_placement=Limits(per_day=3))
    yesterday = NOW - timedelta(days=1)
    await it.record(it.event("1", session="1", at=yesterday), it.event("2", session="2"))
    assert await it.stops() == ({}, 0)
    await it.record(it.event("3", session="3"))
    midnight = datetime.fromisoformat("2026-03-11T00:00:00+00:00")
    lifetime = Stop(it.campaign_id, StopReason.LIFETIME, 3)
    per_day = Stop(it.campaign_id, StopReason.PER_DAY, 2, midnight)
    people, last = await it.stops()
    assert people == {lifetime: BitMap([1]), per_day: BitMap([1])}
    await it.record(it.event("4", session="4"))
    assert (await it.stops(last))[0] == {Stop(it.placement_id, StopReason.PER_DAY, 3, midnight): BitMap([1])}
    # Rules of another day: a higher limit is not reached by it, a lower one is; and a day ends.
    assert [lifetime.holds(Limits(lifetime=times), now=NOW) for times in (2, 3, 4)] == [True, True, False]
    assert [per_day.holds(Limits(per_day=2), now=at) for at in (NOW, midnight)] == [True, False]


async def test_what_came_late_stops_nothing_today(workspace: UUID) -> None:
    it = await world(workspace, limits=Limits(per_day=1))
    await it.record(it.event("1", at=NOW - timedelta(days=1)))
    assert (await it.stops())[0] == {}


async def test_a_lowered_limit_stops_those_who_are_past_it(workspace: UUID) -> None:
    it = await world(workspace, limits=Limits(lifetime=10))
    stranger = it.shown(uuid4())
    await it.record(
        *(it.event(f"1{place}", session=str(place)) for place in range(3)),
        it.event("2", shown=it.shown(2)),
        *(it.event(f"3{place}", session=str(place), shown=stranger) for place in range(3)),
    )
    async with transaction(workspace) as connection:
        await banner_stops.restate(connection, workspace, it.campaign_id, Limits(lifetime=3, per_day=1), now=NOW)
    assert (await it.stops())[0] == {
        Stop(it.campaign_id, StopReason.LIFETIME, 3): BitMap([1]),
        Stop(it.campaign_id, StopReason.PER_DAY, 1, banner_stops.day_of(NOW) + timedelta(days=1)): BitMap([1, 2]),
    }


async def test_stops_are_seen_in_the_order_of_their_numbers(workspace: UUID) -> None:
    """A reader goes on after the last number it saw: were a lower one committed later, it would never be read."""
    it = await world(workspace)
    seen: set[int] = set()
    last = 0

    async def dismiss(profile_id: int) -> None:
        await it.record(it.event("x", "DISMISS", shown=it.shown(profile_id)))

    writing = asyncio.gather(*(dismiss(id) for id in range(1, 61)))
    while len(seen) < 60:
        written = writing.done()  # asked before reading: the last may be written in between
        people, last = await it.stops(last)
        seen |= set(people.get(Stop(it.campaign_id, StopReason.DISMISSED), BitMap()))
        assert not written or len(seen) == 60 or people, "a stop was passed by"
    await writing


async def test_who_stops_somebody_waits_for_whoever_took_a_lower_number(database: Database, workspace: UUID) -> None:
    it = await world(workspace)
    stop = Stop(it.campaign_id, StopReason.DISMISSED)
    is_first = asyncio.Event()

    async def follow() -> None:
        await is_first.wait()
        async with transaction(workspace) as connection:
            await banner_stops.write(connection, workspace, [(stop, 2)])

    # Made out here: a task goes on in the transaction that it is made in.
    following = asyncio.create_task(follow())
    owner = await asyncpg.connect(database.owner_url)
    try:
        async with transaction(workspace) as connection:
            await banner_stops.write(connection, workspace, [(stop, 1)])
            is_first.set()
            while not await owner.fetchval(WAITING):
                assert not following.done()
        await following
    finally:
        await owner.close()
    assert (await it.stops())[0] == {stop: BitMap([1, 2])}


async def test_the_winner_of_a_merge_inherits_what_stopped(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    it = await world(workspace)
    people = await make_people(workspace, ["ada", "bob"], hasher=hasher, now=now)
    await it.record(it.event("1", "DISMISS", shown=it.shown(people["bob"])))
    _, last = await it.stops()
    await merging.merge(workspace, loser_id=people["bob"], winner_id=people["ada"], now=now)
    inherited, last = await it.stops(last)
    assert inherited[Stop(it.campaign_id, StopReason.DISMISSED)] == BitMap([people["ada"]])
    # Told after the merge, with a token from before it.
    await it.record(it.event("2", "CLICK", shown=it.shown(people["bob"])))
    assert (await it.stops(last))[0][Stop(it.campaign_id, StopReason.CLICKED)] == BitMap([people["ada"]])


async def test_stops_of_days_that_are_over_are_forgotten(workspace: UUID) -> None:
    it = await world(workspace, limits=Limits(per_day=1))
    await it.record(it.event("1"), it.event("2", "CLICK"))
    assert await banner_stops.forget(workspace, now=NOW) == 0
    assert await banner_stops.forget(workspace, now=NOW + timedelta(days=3)) == 1
    assert await banner_stops.forget(workspace, now=NOW + timedelta(days=3)) == 0


async def test_an_id_counts_once_whenever_its_tokens_began(workspace: UUID) -> None:
    """S3-14: also when they began in different months, in one batch, in two, and in two at once."""
    it = await world(workspace)
    last_month = it.shown(window=int((NOW - timedelta(days=20)).timestamp()))
    assert await it.record(it.event("1", "CLICK"), it.event("1", "CLICK", shown=last_month)) == [ACCEPTED, DUPLICATE]
    assert await it.record(it.event("2", "CLICK", shown=last_month)) == [ACCEPTED]
    assert await it.record(it.event("2", "CLICK")) == [DUPLICATE]
    answers = await asyncio.gather(
        *(it.record(it.event(f"{id} at once", "CLICK", shown=shown)) for id in range(5) for shown in (None, last_month))
    )
    assert sorted(became for (became,) in answers) == [ACCEPTED] * 5 + [DUPLICATE] * 5
    assert await it.counts() == BannerCounts(clicks=7)
    assert await banner_counts.verify(workspace) == []


async def test_a_stop_never_has_everybody_read_not_even_by_a_plan_of_an_empty_workspace(workspace: UUID) -> None:
    """Such a plan is kept by its connection, whatever the workspace grows to."""
    async with transaction(workspace, generic_plans=True) as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute(f"PREPARE planned AS {banner_stops.WRITE}")
        plan = [row[0] for row in await connection.fetch("EXPLAIN EXECUTE planned(NULL, NULL, NULL, NULL, NULL, NULL)")]
        await connection.execute("DEALLOCATE planned")
    (scan,) = [line for line in plan if " on profile " in line]
    assert "profile_merged" in scan, plan


async def test_counts_outlive_the_months_of_their_events(workspace: UUID) -> None:
    """Months that ended long ago are dropped; what was counted stays, and is compared as far as events are kept."""
    it = await world(workspace)
    long_ago = NOW - timedelta(days=500)
    old = it.event("1")._replace(shown=it.shown(window=int(long_ago.timestamp()) // 3600 * 3600), occurred_at=long_ago)
    assert await banner_tracking.record(workspace, [old], now=long_ago) == [ACCEPTED]
    assert await it.record(it.event("2", session="t")) == [ACCEPTED]
    assert await banner_counts.verify(workspace) == []
    assert await banner_retention.drop_months(13, now=NOW) == 1
    assert await banner_retention.drop_months(13, now=NOW) == 0
    # Whoever asks for all of them gets no further than events that may still be told again.
    assert await banner_retention.drop_months(0, now=NOW) == 0
    assert await it.counts() == BannerCounts(impressions=2, unique_viewers=1)
    assert await it.record(it.event("2", session="t")) == [DUPLICATE]
    since = banner_retention.complete_since(13, now=NOW)
    assert timedelta(days=300) < NOW.date() - since < timedelta(days=400)
    assert await banner_counts.verify(workspace, since=since) == []
    assert len(await banner_counts.verify(workspace)) == 1
