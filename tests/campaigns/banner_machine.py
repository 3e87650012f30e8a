"""A model of banners under a clock that the test moves: who sees what, after anything that people and time can do.

What is shown is asked of a board that is read only after something was written, so that starts, expiries and ends of
days must come true on an old board. The model knows nothing of boards, bitmaps and SQL.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from campaigns import banner_events, banner_tracking, control, drafts, placements, sending
from campaigns.banner_content import BannerContent, BannerFace
from campaigns.banner_events import Span
from campaigns.banner_rules import UNLIMITED, BannerRules, Limits, is_held_out
from campaigns.banner_tokens import Impression, ImpressionKind
from campaigns.banners import Viewer, decide
from campaigns.board_reading import BoardReader
from campaigns.errors import CampaignError
from campaigns.models import CampaignStatus
from campaigns.placements import PlacementInput
from campaigns.rotation import Weighted, choose
from campaigns.wanted import CampaignChanges, CampaignInput
from segments import lifecycle, static
from tests.campaigns.factories import ReadHere, everyone_id
from tests.campaigns.ledger_world import World

S = CampaignStatus
WINDOW_S = 60
LATENESS = timedelta(hours=1)
MOST_BANNERS = 6
SLOTS = (1, 2)
LIMITS_OF_PLACES = (UNLIMITED, Limits(lifetime=4, stop_after_dismissal=True))

lives = st.none() | st.sampled_from([None, 1, 30, 90, 7_200]).map(lambda s: s and timedelta(seconds=s))
limits = st.builds(
    Limits,
    st.none(),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.booleans(),
)
rules = st.builds(BannerRules, st.sampled_from([0, 0, 5]), st.sampled_from([0, 0, 0, 50, 100]), limits)
weights = st.sampled_from([100, 50, 1, 0])
places = st.sampled_from([0, 1])
audiences = st.sampled_from(["everyone", "everyone", "team", "others"])
banners = st.tuples(places, audiences, weights, rules, lives, st.booleans())
acts = st.sampled_from(["start", "start", "unschedule", "pause", "resume", "cancel", "reactivate"])


@dataclass
class Told:
    """What one viewer did, with one banner or in one placement."""

    days: Counter[date] = field(default_factory=Counter)
    clicked: bool = False
    dismissed: bool = False

    def stops(self, limits: Limits, today: date) -> bool:
        return (
            (self.clicked and limits.stop_after_click)
            or (self.dismissed and limits.stop_after_dismissal)
            or (limits.lifetime is not None and self.days.total() >= limits.lifetime)
            or (limits.per_day is not None and self.days[today] >= limits.per_day)
        )


@dataclass
class Model:
    """A banner as its owner knows it."""

    id: UUID
    place: int
    weight: int
    rules: BannerRules
    audience: str
    tested: bool
    expires_at: datetime | None
    status: S = S.DRAFT
    scheduled_at: datetime | None = None
    told: dict[int, Told] = field(default_factory=dict)


def best_first(eligible: Iterable[Model], viewer: Viewer, place: str, window: int) -> list[Model]:
    """By drawing again and again without those that were drawn."""
    left = {one.id.hex: one for one in eligible}
    found = []
    while drawn := choose(
        [Weighted(id, one.weight) for id, one in left.items()], viewer=viewer.key, placement=place, window=window
    ):
        found.append(left.pop(drawn))
    return found


class BannerMachine(RuleBasedStateMachine):
    """A marketer, a worker that looks at the clock, viewers, and time."""

    def __init__(self, world: World, stage: "Stage") -> None:
        super().__init__()
        self.world, self.stage = world, stage
        self.now = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        self.banners: list[Model] = []
        self.team: set[int] = set()
        self.team_is_active = True
        self.told_of_places: dict[tuple[int, int], Told] = {}
        self.reader = BoardReader(world.workspace_id)
        self.is_stale = True

    # --- people --------------------------------------------------------------------------------------------------

    @initialize(
        many=st.lists(st.tuples(places, audiences, weights, rules, lives, st.booleans()), min_size=3, max_size=3)
    )
    def begin(self, many: list[tuple[int, str, int, BannerRules, timedelta | None, bool]]) -> None:
        self.world.run(self.stage.make_places(self.now))
        for one in many:
            self.makes(*one)
            self.moves(0, "start")

    @precondition(lambda self: len(self.banners) < MOST_BANNERS)
    @rule(place=places, audience=audiences, weight=weights, rules=rules, life=lives, tested=st.booleans())
    def makes(
        self, place: int, audience: str, weight: int, rules: BannerRules, life: timedelta | None, tested: bool
    ) -> None:
        expires_at = None if life is None else self.now + life
        made = Model(UUID(int=0), place, weight, rules, audience, tested, expires_at)
        made.id = self.world.run(self.stage.make_banner(made, now=self.now))
        self.banners.insert(0, made)
        self.is_stale = True

    @rule(
        at=st.integers(0, 5),
        how=acts,
    )
    def moves(self, at: int, how: str) -> None:
        one = self.banners[at % len(self.banners)]
        moves: dict[str, tuple[tuple[S, ...], S, Callable[[], Awaitable[object]]]] = {
            "start": ((S.DRAFT, S.SCHEDULED), S.ACTIVE, lambda: sending.start(self.home, one.id, now=self.now)),
            "unschedule": ((S.SCHEDULED,), S.DRAFT, lambda: control.unschedule(self.home, one.id, now=self.now)),
            "pause": ((S.ACTIVE,), S.PAUSED, lambda: control.pause(self.home, one.id, now=self.now)),
            "resume": ((S.PAUSED,), S.ACTIVE, lambda: control.resume(self.home, one.id, now=self.now)),
            "cancel": (
                (S.ACTIVE, S.PAUSED, S.SCHEDULED), S.CANCELLED,
                lambda: control.cancel(self.home, one.id, now=self.now),
            ),
            "reactivate": ((S.CANCELLED,), S.ACTIVE, lambda: control.reactivate(self.home, one.id, now=self.now)),
        }  # fmt: skip
        begin, end, act = moves[how]
        may = one.status in begin and (how not in ("start", "reactivate") or self.is_complete(one))
        if self.is_done(act(), may):
            one.status = end
            if how == "unschedule":
                one.scheduled_at = None

    @rule(at=st.integers(0, 5), seconds=st.sampled_from([1, 45, 3_000]))
    def schedules(self, at: int, seconds: int) -> None:
        one = self.banners[at % len(self.banners)]
        then = self.now + timedelta(seconds=seconds)
        may = one.status in (S.DRAFT, S.SCHEDULED) and self.is_complete(one)
        may = may and (one.expires_at is None or one.expires_at > then)
        if self.is_done(control.schedule(self.home, one.id, at=then, now=self.now, maximum_lateness=LATENESS), may):
            one.status, one.scheduled_at = S.SCHEDULED, then

    @rule(at=st.integers(0, 5), life=lives)
    def edits_the_expiry(self, at: int, life: timedelta | None) -> None:
        one = self.banners[at % len(self.banners)]
        then = None if life is None else self.now + life
        may = then is None or one.scheduled_at is None or then > one.scheduled_at
        if self.edits(one, CampaignChanges(expires_at=then), may):
            one.expires_at = then

    @rule(at=st.integers(0, 5), place=places, weight=weights, rules=rules, tested=st.booleans())
    def edits_what_decides(self, at: int, place: int, weight: int, rules: BannerRules, tested: bool) -> None:
        one = self.banners[at % len(self.banners)]
        changes = CampaignChanges(
            placement_id=self.stage.places[place],
            weight=weight,
            rules=rules,
            test_segment_id=self.stage.team_id if tested else None,
        )
        assert self.edits(one, changes, True)
        one.place, one.weight, one.rules, one.tested = place, weight, rules, tested

    @rule(at=st.integers(0, 5), limits=limits)
    def edits_the_limits(self, at: int, limits: Limits) -> None:
        one = self.banners[at % len(self.banners)]
        rules = replace(one.rules, limits=limits)
        assert self.edits(one, CampaignChanges(rules=rules), True)
        one.rules = rules

    @rule(who=st.integers(0, 1), enters=st.booleans())
    def changes_the_team(self, who: int, enters: bool) -> None:
        change = static.add_members if enters else static.remove_members
        name, id = list(self.stage.people.items())[who]
        self.world.run(change(self.home, self.stage.team_id, external_ids=[name], now=self.now))
        self.team = self.team | {id} if enters else self.team - {id}
        self.is_stale = True

    @rule()
    def switches_the_team(self) -> None:
        switch = lifecycle.pause if self.team_is_active else lifecycle.activate
        self.world.run(switch(self.home, self.stage.team_id, now=self.now))
        self.team_is_active = not self.team_is_active
        self.is_stale = True

    # --- time ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 1, 29, 60, 3_600, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def a_worker_looks_at_the_clock(self) -> None:
        for one in self.banners:
            self.world.run(control.act_on_time(self.home, one.id, now=self.now))
            if one.expires_at and one.expires_at <= self.now:
                if one.status in (S.ACTIVE, S.PAUSED):
                    one.status = S.ENDED
                elif one.status is S.SCHEDULED:
                    one.status = S.FAILED
            elif one.status is S.SCHEDULED and one.scheduled_at and one.scheduled_at <= self.now:
                one.status = S.ACTIVE if self.is_complete(one) else S.FAILED
        self.is_stale = True

    # --- viewers -------------------------------------------------------------------------------------------------

    @rule(who=st.integers(0, 2), place=places, times=st.integers(1, 3))
    def a_viewer_looks(self, who: int, place: int, times: int) -> None:
        for _ in range(times):
            self.tell(self.stage.viewers[who], place, "IMPRESSION")

    @rule(who=st.integers(0, 2), place=places, kind=st.sampled_from(["CLICK", "DISMISS"]))
    def a_viewer_clicks_or_dismisses(self, who: int, place: int, kind: str) -> None:
        self.tell(self.stage.viewers[who], place, kind)

    def tell(self, viewer: Viewer, place: int, kind: str) -> None:
        """A viewer looks at a placement, and its app tells this of all that it shows."""
        self.look()
        (seen,) = decide(self.reader.board, viewer, [self.stage.keys[place]], now=self.now).placements
        for shown in seen.shown:
            impression = Impression(
                campaign=shown.banner.campaign_id.bytes,
                placement=self.stage.places[place].bytes,
                content_version=shown.banner.content_version,
                viewer=viewer.id,
                profile_id=viewer.profile_id,
                window_start=seen.window * WINDOW_S,
                kind=shown.kind,
            )
            event = banner_events.clean(
                impression,
                kind=kind,
                id=uuid4().hex,
                session_id=uuid4().hex,
                occurred_at=self.now,
                is_by_machine=False,
                span=Span.of(self.now, late=timedelta(days=30)),
            )
            self.world.run(banner_tracking.record(self.home, [event], now=self.now))
            self.is_stale = True
            if viewer.profile_id is None or shown.kind is ImpressionKind.TEST:
                continue
            one = next(one for one in self.banners if one.id == shown.banner.campaign_id)
            for where in (
                one.told.setdefault(viewer.profile_id, Told()),
                self.told_of_places.setdefault((place, viewer.profile_id), Told()),
            ):
                where.days[self.now.date()] += kind == "IMPRESSION"
                where.clicked |= kind == "CLICK"
                where.dismissed |= kind == "DISMISS"

    @invariant()
    def everybody_sees_what_they_should(self) -> None:
        self.look()
        for viewer in self.stage.viewers:
            answer = decide(self.reader.board, viewer, self.stage.keys, now=self.now)
            for place, made in enumerate(answer.placements):
                shown, hidden = self.expected(viewer, place, made.window)
                who = f"{viewer.key} in {made.placement} at {self.now}, of {self.banners}"
                assert [one.banner.campaign_id for one in made.shown] == [one.id for one in shown], who
                assert [one.banner.campaign_id for one in made.hidden] == [one.id for one in hidden], who
                ends = [one.expires_at for one in shown if one.expires_at]
                assert all(self.now < answer.good_until <= end for end in ends)

    # --- the model -----------------------------------------------------------------------------------------------

    def expected(self, viewer: Viewer, place: int, window: int) -> tuple[list[Model], list[Model]]:
        """What a viewer sees, the best first, and what the holdout keeps away."""
        key, slots = self.stage.keys[place], SLOTS[place]
        here = [one for one in self.banners if one.place == place]
        is_tester = self.team_is_active and viewer.profile_id in self.team
        tests = [
            one for one in here
            if is_tester and one.tested and one.status in (S.DRAFT, S.SCHEDULED)
            and not self.is_over(one) and not self.is_due(one)
        ]  # fmt: skip
        shown, hidden = best_first(tests, viewer, key, window)[:slots], list[Model]()
        today = self.now.date()
        quiet = False
        if viewer.profile_id is not None:
            told = self.told_of_places.get((place, viewer.profile_id), Told())
            quiet = told.stops(LIMITS_OF_PLACES[place], today)
        eligible = [
            one for one in here
            if not quiet and self.is_on(one) and self.is_for(one, viewer)
            and not (viewer.profile_id and one.told.get(viewer.profile_id, Told()).stops(one.rules.limits, today))
        ]  # fmt: skip
        for priority in (5, 0):
            level = [one for one in eligible if one.rules.priority == priority]
            before = len(shown)
            for one in best_first(level, viewer, key, window):
                if len(shown) < slots:
                    is_held = is_held_out(one.rules, viewer=viewer.key, campaign_id=one.id.hex)
                    (hidden if is_held else shown).append(one)
            if len(shown) > before:
                break
        return shown, hidden

    def is_over(self, one: Model) -> bool:
        return one.expires_at is not None and one.expires_at <= self.now

    def is_due(self, one: Model) -> bool:
        return one.status is S.SCHEDULED and one.scheduled_at is not None and one.scheduled_at <= self.now

    def is_on(self, one: Model) -> bool:
        """Live; or its time has come, not too long ago, and only the worker has not come by yet."""
        late = one.scheduled_at is not None and one.scheduled_at + LATENESS <= self.now
        return not self.is_over(one) and (one.status is S.ACTIVE or (self.is_due(one) and not late))

    def is_for(self, one: Model, viewer: Viewer) -> bool:
        match one.audience:
            case "everyone":
                return True
            case "team":
                return self.team_is_active and viewer.profile_id in self.team
            case _:
                return self.team_is_active and viewer.profile_id not in self.team

    def is_complete(self, one: Model) -> bool:
        return not self.is_over(one) and (one.audience == "everyone" or self.team_is_active)

    # --- doing ---------------------------------------------------------------------------------------------------

    @property
    def home(self) -> UUID:
        return self.world.workspace_id

    def edits(self, one: Model, changes: CampaignChanges, may: bool) -> bool:
        return self.is_done(drafts.update(self.home, one.id, changes, proofs=ReadHere(), now=self.now), may)

    def is_done(self, act: Awaitable[object], may: bool) -> bool:
        """Whether it was done; which must be when, and only when, it `may` be."""

        async def run() -> bool:
            try:
                await act
            except CampaignError:
                return False
            return True

        done = self.world.run(run())
        assert done is may
        self.is_stale = True
        return done

    def look(self) -> None:
        """The board is read when something was written, and never because time has passed."""
        if self.is_stale:
            self.world.run(self.reader.refresh(now=self.now))
            self.is_stale = False

    def teardown(self) -> None:
        self.world.run(self.stage.clear(self.team_is_active, self.team, self.now))


class Stage:
    """What all sequences have in common: two people and a stranger, a team, and a workspace of somebody else whose
    placements have the same keys and whose banners are for everyone."""

    def __init__(self, world: World, people: dict[str, int], team_id: UUID, foreign_id: UUID) -> None:
        self.world, self.people, self.team_id, self.foreign_id = world, people, team_id, foreign_id
        self.viewers = [*map(Viewer.known, people.values()), Viewer.stranger()]
        self.keys: list[str] = []
        self.places: list[UUID] = []

    async def make_places(self, now: datetime) -> None:
        self.keys = [f"place-{uuid4().hex[:8]}" for _ in SLOTS]
        self.places = []
        for workspace_id in (self.foreign_id, self.world.workspace_id):
            made = [
                await placements.create(
                    workspace_id,
                    PlacementInput(key, key, rotation_window=timedelta(seconds=WINDOW_S), slots=slots, limits=of_place),
                )
                for key, slots, of_place in zip(self.keys, SLOTS, LIMITS_OF_PLACES, strict=True)
            ]
            self.places = [one.id for one in made]
            if workspace_id == self.foreign_id:
                for place in range(len(SLOTS)):
                    theirs = Model(UUID(int=0), place, 100, BannerRules(priority=100), "everyone", False, None)
                    id = await self.make_banner(theirs, now=now, workspace_id=workspace_id)
                    await sending.start(workspace_id, id, now=now)

    async def make_banner(self, wanted: Model, *, now: datetime, workspace_id: UUID | None = None) -> UUID:
        workspace_id = workspace_id or self.world.workspace_id
        everybody = await everyone_id(workspace_id)
        made = await drafts.create(
            workspace_id,
            CampaignInput(
                name="Sale",
                content=BannerContent(BannerFace("Sale")),
                segment_ids=(self.team_id if wanted.audience == "team" else everybody,),
                excluded_segment_ids=(self.team_id,) if wanted.audience == "others" else (),
                placement_id=self.places[wanted.place],
                weight=wanted.weight,
                rules=wanted.rules,
                test_segment_id=self.team_id if wanted.tested else None,
                expires_at=wanted.expires_at,
            ),
            proofs=ReadHere(),
            now=now,
        )
        return made.id

    async def clear(self, team_is_active: bool, team: set[int], now: datetime) -> None:
        """Leave nothing to the next sequence but the people and an empty team."""
        home = self.world.workspace_id
        await self.world.owner.execute("DELETE FROM campaign")
        await self.world.owner.execute("DELETE FROM placement")
        if not team_is_active:
            await lifecycle.activate(home, self.team_id, now=now)
        names = [name for name, id in self.people.items() if id in team]
        await static.remove_members(home, self.team_id, external_ids=names, now=now)
