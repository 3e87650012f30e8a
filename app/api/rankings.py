"""Rankings as clients write them, and as segments keep them (JSON of the same shape)."""

from typing import Any

from strawberry import Maybe

from app.api.conditions import TimeConditionInput, to_json
from app.api.declare import about, input_type, one_of
from app.api.enums import Direction, Measure


@input_type
class RankByEventsInput(TimeConditionInput):
    """A measure over events of one name."""

    name: str = about("Name of the event, such as `purchase`.")
    measure: Measure = about("What is made of the events.")
    property: Maybe[str] = about("The numeric property that it is made of; left out for COUNT.")


@one_of
class RankByInput:
    """What members are ranked by. Who has no value ranks last; ties are broken by profile."""

    trait: Maybe[str] = about("The number in this trait.")
    events: Maybe[RankByEventsInput] = about("A measure over events.")
    last_seen: Maybe[bool] = about("True: when the profile was last seen.")
    first_seen: Maybe[bool] = about("True: when the profile was first seen.")


@input_type
class RankingInput:
    """In which order the members stand, and how many there are at most."""

    by: RankByInput = about("What they are ranked by.")
    direction: Direction = about("Which end is the top.", default=Direction.DESC)
    top: Maybe[int] = about("How many of those who match are members; left out: all.")


def to_ranking(ranking: RankingInput) -> dict[str, Any]:
    """The JSON form that segments/ranking.py parses. Nothing is checked here: the rules are the domain's."""
    json: dict[str, Any] = to_json(ranking)
    return json
