"""People, what they did, and the segments they are in: through the public API, as a customer would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from app.api.scalars import write_instant
from app.resources import segment_sources
from segments import cycles, pulse
from tests.app.caller import Caller


@dataclass(frozen=True)
class Did:
    """An event: its name, how long ago it was, and what it carries (fields of EventTrackInput)."""

    name: str
    ago: timedelta
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Somebody:
    """Fields of ProfileUpsertInput, and events; a duration among the traits becomes a date so long ago."""

    traits: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Did] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)


MESSAGES = count(1)


async def make_people(console: Caller, people: Mapping[str, Somebody], *, now: datetime) -> None:
    """Make these people, by external id, and let them do what they did."""
    if people:
        await console.data(
            "ProfilesUpsert",
            input={
                "profiles": [
                    {"externalId": name, "traits": {key: dated(value, now) for key, value in one.traits.items()}}
                    | dict(one.profile)
                    for name, one in people.items()
                ]
            },
        )
    events = [
        {
            "messageId": f"message {next(MESSAGES)}",
            "name": event.name,
            "externalId": name,
            "occurredAt": write_instant(now - event.ago),
        }
        | dict(event.more)
        for name, one in people.items()
        for event in one.events
    ]
    if events:
        report = await console.data("EventsTrack", input={"events": events})
        assert report["accepted"] == len(events)


def dated(value: Any, now: datetime) -> Any:
    return f"{now - value:%Y-%m-%d}" if isinstance(value, timedelta) else value


async def make_segment(console: Caller, definition: Mapping[str, Any] | None = None, **wanted: Any) -> str:
    """The id of a new segment, active and evaluated; static unless there is a definition."""
    given = {"name": "Who", "type": "STATIC"} if definition is None else {"name": "Who", "type": "DYNAMIC"}
    if definition is not None:
        wanted = {"definition": definition} | wanted
    made = await console.data("SegmentCreate", input=given | wanted)
    segment_id: str = made["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment_id})
    await evaluate(console)
    return segment_id


async def evaluate(console: Caller) -> None:
    """What a worker does when it is rung: evaluate all that waits."""
    while await cycles.run(console.workspace_id, sources=segment_sources()) is not None:
        continue


async def follow(console: Caller) -> None:
    """What a worker does every second."""
    while (done := await pulse.beat(console.workspace_id, sources=segment_sources())) is not None and done.more:
        continue


async def members(console: Caller, segment_id: str) -> set[str]:
    """External ids of the members, who all have one, as the API lists them."""
    page = (await console.data("SegmentMembers", id=segment_id, first=100))["members"]
    assert not page["pageInfo"]["hasNextPage"]
    return {edge["node"]["externalId"] for edge in page["edges"]}
