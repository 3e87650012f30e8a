"""Which banners a viewer sees, decided on boards made by hand (S3-12, S3-13, S3-14, S3-25, S3-29)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from campaigns.banner_content import BannerContent, BannerFace
from campaigns.banner_rules import BannerRules
from campaigns.banner_stops import FOREVER
from campaigns.banner_tokens import Impression, ImpressionKind, ImpressionTokens
from campaigns.banners import BannerDecision, Viewer, candidates, decide
from campaigns.board import Audience, Banner, Board, Members, Place, Stops
from campaigns.rotation import ranked
from campaigns.tokens import Signer

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WORKSPACE = UUID(int=7)
FOR_ALL = Audience(everyone=True)


def banner(number: int, weight: int = 10, **more: object) -> Banner:
    """A banner for everyone, unless told otherwise."""
    campaign_id = UUID(int=number)
    one = Banner(
        campaign_id=campaign_id,
        id=str(campaign_id),
        placement="top",
        content=BannerContent(BannerFace(title=f"Banner {number}")),
        content_version=1,
        weight=weight,
        rules=BannerRules(),
        audience=FOR_ALL,
    )
    return replace(one, **more)  # type: ignore[arg-type]


def board(*banners: Banner, slots: int = 1, window_s: int = 3600, stops: Stops | None = None) -> Board:
    """A board with one placement, `top`."""
    place = Place.of(banners, id=UUID(int=99), key="top", window_s=window_s, slots=slots, stops=stops or Stops())
    return Board(WORKSPACE, {"top": place})


def seen(made: BannerDecision) -> list[int]:
    """Numbers of the banners shown in the one placement asked for."""
    (placement,) = made.placements
    return [one.banner.campaign_id.int for one in placement.shown]


def sees(where: Board, viewer: Viewer, now: datetime = NOW) -> list[int]:
    return seen(decide(where, viewer, ["top"], now=now))


ADA, BEN = Viewer.known(1), Viewer.known(2)
STRANGER = Viewer("a" + "A" * 22, None)


def test_a_segment_s_banner_is_for_its_members_and_a_stranger_sees_everyone_s_only() -> None:
    members = Members(BitMap([1, 3]), added=BitMap([2]), removed=BitMap([3]))
    of_members = board(banner(1, audience=Audience(included=(members,))))
    assert [sees(of_members, one) for one in (ADA, BEN, Viewer.known(3), STRANGER)] == [[1], [1], [], []]
    but_members = board(banner(1, audience=Audience(everyone=True, excluded=(members,))))
    assert [sees(but_members, one) for one in (ADA, BEN, Viewer.known(3), STRANGER)] == [[], [], [1], [1]]


def test_a_banner_starts_and_expires_to_the_second() -> None:
    one = board(banner(1, starts_at=NOW, expires_at=NOW + 20 * SECOND))
    answers = {after: sees(one, ADA, NOW + after * SECOND) for after in (-1, 0, 19, 20)}
    assert answers == {-1: [], 0: [1], 19: [1], 20: []}
    for before, left in ((30 * SECOND, 30), (0 * SECOND, 20), (-10 * SECOND, 10)):
        at = NOW - before
        assert decide(one, ADA, ["top"], now=at).good_until - at == left * SECOND


def test_an_answer_outlives_neither_its_window_nor_the_day_of_a_limit() -> None:
    short = board(banner(1), window_s=60)
    assert decide(short, ADA, ["top"], now=NOW).good_until == NOW + 30 * SECOND
    capped = Stops(until=((NOW + 5 * SECOND, BitMap([1])),))
    for where in (board(banner(1, stops=capped)), board(banner(1), stops=capped)):
        made = decide(where, ADA, ["top"], now=NOW)
        assert (seen(made), made.good_until) == ([], NOW + 5 * SECOND)
        assert sees(where, ADA, NOW + 5 * SECOND) == [1]
        assert sees(where, BEN) == [1]


def test_what_has_stopped_for_good_stays_away_from_that_profile_only() -> None:
    one = board(banner(1, stops=Stops(for_good=(BitMap(), BitMap([1])))))
    assert [sees(one, viewer, NOW + timedelta(days=900)) for viewer in (ADA, BEN, STRANGER)] == [[], [1], [1]]


def test_only_the_highest_priority_is_shown_of_which_something_can_be() -> None:
    gold, silver = BannerRules(priority=9), BannerRules(priority=5)
    stopped = Stops(for_good=(BitMap([1]),))
    one = board(banner(1, rules=gold, stops=stopped), banner(2, rules=silver), banner(3, weight=100), slots=2)
    assert (sees(one, ADA), sees(one, BEN)) == ([2], [1])
    idle = board(banner(1, weight=0, rules=gold), banner(2))
    assert sees(idle, ADA) == [2]


def test_several_places_show_the_best_in_order_and_none_twice() -> None:
    three = [banner(1), banner(2, 30), banner(3, 80)]
    for viewer in (Viewer.known(number) for number in range(1, 200)):
        window = int(NOW.timestamp()) // 3600
        order = [one.campaign_id.int for one in ranked(three, viewer=viewer.key, placement="top", window=window)]
        assert [sees(board(*three, slots=slots), viewer) for slots in (1, 2, 3, 5)] == [
            order[:1],
            order[:2],
            order,
            order,
        ]


def test_whoever_is_held_out_sees_the_next_and_is_told_of_what_was_hidden() -> None:
    held = banner(1, weight=100, rules=BannerRules(holdout_percent=30))
    one = board(held, banner(2, weight=1))
    without = board(banner(2, weight=1))
    hidden = 0
    for viewer in (Viewer.known(number) for number in range(1, 2_001)):
        (made,) = decide(one, viewer, ["top"], now=NOW).placements
        if made.hidden:
            hidden += 1
            assert [(h.banner.campaign_id.int, h.kind) for h in made.hidden] == [(1, ImpressionKind.HIDDEN)]
            assert [s.banner.campaign_id.int for s in made.shown] == sees(without, viewer)
    # 30 % of the 99 % to whom it would be shown; four standard deviations.
    assert abs(hidden - 2_000 * 0.297) < 4 * (2_000 * 0.297 * 0.703) ** 0.5


def test_all_held_out_means_the_next_priority() -> None:
    held = banner(1, rules=BannerRules(priority=9, holdout_percent=100))
    (made,) = decide(board(held, banner(2)), ADA, ["top"], now=NOW).placements
    assert ([s.banner.campaign_id.int for s in made.shown], len(made.hidden)) == ([2], 1)


def test_testers_see_what_they_test_first_and_nobody_else_does() -> None:
    testers = Audience(included=(Members(BitMap([1])),))
    capped = Stops(for_good=(BitMap([1]),))
    tried = banner(1, weight=1, audience=testers, in_test=True, rules=BannerRules(holdout_percent=100), stops=capped)
    live = banner(2, rules=BannerRules(priority=100))
    (made,) = decide(board(tried, live, slots=2), ADA, ["top"], now=NOW).placements
    assert [(s.banner.campaign_id.int, s.kind) for s in made.shown] == [
        (1, ImpressionKind.TEST),
        (2, ImpressionKind.SHOWN),
    ]
    assert [sees(board(tried, live), viewer) for viewer in (ADA, BEN, STRANGER)] == [[1], [2], [2]]
    ended, later = replace(tried, expires_at=NOW), replace(tried, starts_at=NOW + SECOND)
    assert [sees(board(one, live), ADA) for one in (ended, later)] == [[2], [2]]
    others = [replace(tried, campaign_id=UUID(int=number), id=str(UUID(int=number))) for number in (3, 4)]
    assert [len(sees(board(tried, *others, live, slots=slots), ADA)) for slots in (1, 2, 3)] == [1, 2, 3]


def test_a_placement_nobody_made_shows_nothing_and_holds_up_nobody() -> None:
    made = decide(board(banner(1)), ADA, ["top", "nowhere"], now=NOW)
    assert [(one.placement, len(one.shown)) for one in made.placements] == [("top", 1), ("nowhere", 0)]


@pytest.mark.parametrize("weights", [(10, 10, 80), (1, 1, 1), (100, 1, 0), (5, 50, 100)])
def test_shares_follow_the_weights(weights: Sequence[int]) -> None:
    """S3-14: chi-square of 20,000 viewers, at one in ten thousand."""
    one = board(*(banner(number, weight) for number, weight in enumerate(weights, 1)))
    counted = Counter(sees(one, Viewer.known(number))[0] for number in range(1, 20_001))
    expected = {number: 20_000 * weight / sum(weights) for number, weight in enumerate(weights, 1) if weight}
    assert counted.keys() == expected.keys()
    chi_square = sum((counted[number] - wanted) ** 2 / wanted for number, wanted in expected.items())
    assert chi_square < {2: 15.14, 3: 18.42}[len(expected)]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=6), st.integers(0, 5), st.integers(1, 10**9))
def test_taking_a_banner_away_moves_only_its_own_viewers(weights: list[int], gone: int, number: int) -> None:
    """S3-14: and adding one takes viewers, but moves nobody between the others."""
    all_of_them = [banner(place, weight) for place, weight in enumerate(weights, 1)]
    gone = gone % len(weights) + 1
    others = [one for one in all_of_them if one.campaign_id.int != gone]
    viewer = Viewer.known(number)
    (before,) = sees(board(*all_of_them), viewer)
    (after,) = sees(board(*others), viewer)
    assert before in (gone, after)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(-100, 100), st.integers(1, 100), st.booleans(), st.integers(0, 3)), min_size=1, max_size=6
    ),
    st.lists(st.integers(-120, 120), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_what_is_not_on_is_never_shown_however_the_clock_moves(
    shapes: list[tuple[int, int, bool, int]], seconds: list[int], slots: int
) -> None:
    """S3-13, S3-25: against a model that looks at each banner alone; and nothing changes before an answer's time."""
    banners = [
        banner(
            number,
            starts_at=NOW + start * SECOND,
            expires_at=NOW + (start + lasts) * SECOND,
            rules=BannerRules(priority=priority),
            audience=Audience(included=(Members(BitMap([1] if mine else [2])),)),
        )
        for number, (start, lasts, mine, priority) in enumerate(shapes, 1)
    ]
    where = board(*banners, slots=slots)
    for at in (NOW + second * SECOND for second in seconds):
        on = [
            one
            for one, (start, lasts, mine, _) in zip(banners, shapes, strict=True)
            if mine and NOW + start * SECOND <= at < NOW + (start + lasts) * SECOND
        ]
        best = max((one.rules.priority for one in on), default=0)
        level = [one for one in on if one.rules.priority == best]
        made = decide(where, ADA, ["top"], now=at)
        found = seen(made)
        assert set(found) <= {one.campaign_id.int for one in level}
        assert len(found) == min(slots, len(level))
        assert at < made.good_until
        assert sees(where, ADA, made.good_until - timedelta(microseconds=1)) == found


def test_what_an_app_may_choose_from_is_what_the_server_would_choose_from() -> None:
    """Each candidate says when, and whether it is held back; what has stopped or is over is none."""
    later = banner(1, starts_at=NOW + SECOND)
    held = banner(2, rules=BannerRules(priority=3, holdout_percent=100))
    over = banner(3, expires_at=NOW)
    stopped = banner(4, stops=Stops(for_good=(BitMap([1]),)))
    others = banner(5, audience=Audience(included=(Members(BitMap([2])),)))
    tried = banner(6, in_test=True, audience=Audience(included=(Members(BitMap([1])),)))
    for_others = replace(others, campaign_id=UUID(int=7), id=str(UUID(int=7)), in_test=True)
    tried_out = replace(tried, campaign_id=UUID(int=8), id=str(UUID(int=8)), expires_at=NOW)
    where = board(later, held, over, stopped, others, tried, for_others, tried_out)
    found = candidates(where.places["top"], ADA, now=NOW)
    assert [(one.banner.campaign_id.int, one.kind) for one in found] == [
        (6, ImpressionKind.TEST),
        (2, ImpressionKind.HIDDEN),
        (1, ImpressionKind.SHOWN),
    ]
    # Who has had enough of the placement may still be shown what they test.
    enough = board(later, held, tried, stops=Stops(for_good=(BitMap([1]),)))
    assert [one.banner.campaign_id.int for one in candidates(enough.places["top"], ADA, now=NOW)] == [6]


def test_viewers_of_impressions_are_told_apart() -> None:
    named = Viewer("eada", None)
    assert [one.id for one in (ADA, STRANGER)] == [UUID(int=1).bytes, UUID(int=0).bytes]
    assert len({one.id for one in (ADA, STRANGER, named, Viewer("eben", None), Viewer.stranger())}) == 5


TOKENS = ImpressionTokens(Signer(b"a key of the tests, at least 32 bytes"))
SHOWN = Impression(
    campaign=UUID(int=1).bytes,
    placement=UUID(int=2).bytes,
    content_version=3,
    viewer=UUID(int=4).bytes,
    profile_id=4,
    window_start=int(NOW.timestamp()),
    kind=ImpressionKind.SHOWN,
)


def test_an_impression_token_says_what_was_shown_and_is_always_the_same() -> None:
    token = TOKENS.make(WORKSPACE, SHOWN)
    assert TOKENS.read(WORKSPACE, token) == SHOWN
    assert token == TOKENS.make(WORKSPACE, SHOWN)
    assert len(token) == 100
    nobody = SHOWN._replace(profile_id=None, viewer=STRANGER.id, kind=ImpressionKind.HIDDEN)
    assert TOKENS.read(WORKSPACE, TOKENS.make(WORKSPACE, nobody)) == nobody


@settings(max_examples=300)
@given(st.integers(0, 99), st.sampled_from("AZaz09-_+/= é"))
def test_a_changed_impression_token_is_worth_nothing(place: int, letter: str) -> None:
    token = TOKENS.make(WORKSPACE, SHOWN)
    changed = token[:place] + letter + token[place + 1 :]
    assert TOKENS.read(WORKSPACE, changed) == (SHOWN if changed == token else None)


def test_an_impression_token_is_worth_nothing_elsewhere() -> None:
    token = TOKENS.make(WORKSPACE, SHOWN)
    assert TOKENS.read(UUID(int=8), token) is None
    assert ImpressionTokens(Signer(b"another key of the tests, 32 bytes")).read(WORKSPACE, token) is None
    assert [TOKENS.read(WORKSPACE, text) for text in ("", "x", token[:-1], token + "A", "é" * 100)] == [None] * 5


def test_stops_end_when_they_say() -> None:
    stops = Stops(for_good=(BitMap([2]),), until=((NOW, BitMap([1])), (NOW + SECOND, BitMap([1]))))
    assert [stops.end(one, NOW) for one in (1, 2, 3)] == [NOW + SECOND, FOREVER, None]
