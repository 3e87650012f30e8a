"""Rankings as JSON: what is read, what is refused and where, and what they say."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments import ranking
from segments.errors import SegmentError
from segments.nodes import ByTrait, Direction, Measure, Ranking
from tests.segments.definitions import among, joined, names, some, timed

Json = dict[str, Any]


def kind(name: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return inner.map(lambda value: {name: value})


things = st.one_of(
    kind("trait", names),
    kind("events", joined(st.fixed_dictionaries({"name": names, "measure": st.just("COUNT")}), timed)),
    kind(
        "events",
        joined(
            st.fixed_dictionaries({"name": names, "measure": among(set(Measure) - {"COUNT"}), "property": names}), timed
        ),
    ),
    kind("lastSeen", st.just(True)),
    kind("firstSeen", st.just(True)),
)
rankings = some({"by": things}, {"direction": among(Direction), "top": st.integers(1, ranking.MOST_TOP)})


def events(**parts: Any) -> Json:
    return {"events": {"name": "purchase", "measure": "SUM", "property": "value"} | parts}


@settings(max_examples=300, deadline=None)
@given(rankings)
def test_what_is_written_reads_back_as_the_same(json: Json) -> None:
    read = ranking.parse(json)
    written = ranking.to_json(read)
    assert ranking.parse(written) == read
    assert ranking.to_json(ranking.parse(written)) == written
    assert ranking.summary(read).endswith(".")


def test_a_ranking_is_from_the_top_and_of_all_unless_it_says_otherwise() -> None:
    assert ranking.parse({"by": {"trait": "score"}}) == Ranking(ByTrait("score"), Direction.DESC, None)
    assert ranking.to_json(Ranking(ByTrait("score"))) == {"by": {"trait": "score"}, "direction": "DESC"}


@pytest.mark.parametrize(
    ("json", "code", "path"),
    [
        ([], "INVALID_CONDITION", ""),
        ({}, "MISSING_VALUE", "by"),
        ({"by": {}}, "INVALID_CONDITION", "by"),
        ({"by": {"trait": "a", "lastSeen": True}}, "INVALID_CONDITION", "by"),
        ({"by": {"size": "a"}}, "UNKNOWN_CONDITION", "by size"),
        ({"by": {"trait": ""}}, "INVALID_VALUE", "by trait"),
        ({"by": {"lastSeen": False}}, "INVALID_VALUE", "by lastSeen"),
        ({"by": {"trait": "a"}, "direction": "UP"}, "INVALID_VALUE", "direction"),
        ({"by": {"trait": "a"}, "direction": ["ASC"]}, "INVALID_VALUE", "direction"),
        ({"by": {"trait": "a"}, "top": 0}, "INVALID_VALUE", "top"),
        ({"by": {"trait": "a"}, "top": True}, "INVALID_VALUE", "top"),
        ({"by": {"trait": "a"}, "top": None}, "INVALID_VALUE", "top"),
        ({"by": {"trait": "a"}, "top": 2**31}, "INVALID_VALUE", "top"),
        ({"by": events(measure="MEDIAN")}, "INVALID_VALUE", "by events measure"),
        ({"by": events(measure="COUNT")}, "INVALID_VALUE", "by events property"),
        ({"by": {"events": {"name": "purchase", "measure": "AVG"}}}, "MISSING_VALUE", "by events property"),
        ({"by": events(within={"days": 0})}, "INVALID_WINDOW", "by events within days"),
        ({"by": events(never=True)}, "UNKNOWN_KEY", "by events never"),
    ],
)
def test_what_is_wrong_is_refused_where_it_is(json: object, code: str, path: str) -> None:
    with pytest.raises(SegmentError) as refusal:
        ranking.parse(json, field=("ranking",))
    expected = ("ranking", *path.split())
    assert (refusal.value.code, refusal.value.field) == (code, expected)


@pytest.mark.parametrize(
    ("json", "said"),
    [
        ({"by": {"trait": "score"}}, "Ranked by the highest trait score."),
        ({"by": {"trait": "score"}, "direction": "ASC", "top": 5}, "The top 5 by the lowest trait score."),
        (
            {"by": events(within={"days": 90}), "top": 1000},
            "The top 1000 by the highest total value over purchase in the last 90 days.",
        ),
        ({"by": events(measure="AVG"), "direction": "ASC"}, "Ranked by the lowest average value over purchase."),
        ({"by": {"events": {"name": "visit", "measure": "COUNT"}}}, "Ranked by the most often performed visit."),
        (
            {"by": {"events": {"name": "visit", "measure": "COUNT"}}, "direction": "ASC"},
            "Ranked by the least often performed visit.",
        ),
        ({"by": {"lastSeen": True}, "top": 1}, "The top 1 by who was last seen most recently."),
        ({"by": {"firstSeen": True}, "direction": "ASC"}, "Ranked by who was first seen longest ago."),
    ],
)
def test_a_ranking_is_said_in_plain_english(json: Json, said: str) -> None:
    assert ranking.summary(ranking.parse(json)) == said
