"""A segment as somebody wants it, and the rules by which it is kept so or refused."""

from dataclasses import dataclass, replace
from uuid import UUID

import orjson

from db.unset import UNSET, Unset
from profiles.text import check_storable, clean_text, clean_time_zone
from segments import conditions, ranking, schedule
from segments.errors import SegmentError, clean
from segments.limits import Limits
from segments.models import BuilderMode, Cadence, Segment, SegmentType
from segments.nodes import Condition, Json, MatchMode, SavedSql, leaves

MOST_NAME_CHARACTERS = 200
MOST_DESCRIPTION_CHARACTERS = 2000
CHANGE_GUARD = 50
"""Per cent, unless somebody wants another."""


@dataclass(frozen=True, slots=True)
class SimpleConditions:
    """What the simple builder makes: a few conditions, all or any of which must be met."""

    match: MatchMode
    conditions: object
    """A list of the JSON of conditions.py."""


@dataclass(frozen=True, slots=True)
class SegmentInput:
    """A segment as somebody wants it."""

    name: str
    type: SegmentType
    description: str = ""
    brand_id: UUID | None = None
    """None: for all brands."""
    definition: object = None
    """The JSON of conditions.py, for dynamic segments."""
    conditions: SimpleConditions | None = None
    """In place of `definition`, by the simple builder."""
    mode: BuilderMode = BuilderMode.NESTED
    """How `definition` was built; `conditions` are SIMPLE whatever it says."""
    ranking: object = None
    """The JSON of ranking.py, for dynamic segments; None: members stand in no order."""
    live: bool | None = None
    """Whether it is kept true between evaluations. None: as it is by default, see `is_live`."""
    change_guard: int | None = CHANGE_GUARD
    """Per cent of its members that one evaluation may remove; None: all."""
    cadence: Cadence | None = None
    """None: DAILY for dynamic segments, NEVER for static ones."""
    cron: str | None = None
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class SegmentChanges:
    """What to change; UNSET leaves a field as it is, None clears one that may be empty."""

    name: str | Unset = UNSET
    description: str | Unset = UNSET
    brand_id: UUID | Unset | None = UNSET
    definition: object = UNSET
    conditions: SimpleConditions | Unset = UNSET
    ranking: object = UNSET
    live: bool | Unset | None = UNSET
    """None: as it is by default."""
    change_guard: int | Unset | None = UNSET
    cadence: Cadence | Unset = UNSET
    cron: str | Unset | None = UNSET
    time_zone: str | Unset = UNSET


@dataclass(frozen=True, slots=True)
class Checked:
    """A segment as it is kept: texts trimmed, conditions and ranking canonical, nothing left to a default."""

    name: str
    type: SegmentType
    description: str
    brand_id: UUID | None
    condition: Condition | None
    field: tuple[str, ...]
    """Where in the input the conditions stand."""
    mode: BuilderMode
    ranking: dict[str, Json] | None
    live: bool
    change_guard: int | None
    cadence: Cadence
    cron: str | None
    time_zone: str

    @property
    def definition(self) -> dict[str, Json] | None:
        """The conditions as JSON; None for types without any."""
        return None if self.condition is None else conditions.to_json(self.condition)


def merged(segment: Segment, changes: SegmentChanges) -> SegmentInput:
    """What is wanted of the segment after `changes`; leaving CRON drops its expression.

    A cadence that becomes NEVER, or is that no more, takes `live` with it unless that is said as well: who wants a
    segment evaluated once does not want it kept true every second.
    """
    before = SegmentInput(
        name=segment.name,
        type=segment.type,
        description=segment.description,
        brand_id=segment.brand_id,
        definition=segment.definition,
        mode=segment.mode,
        ranking=segment.ranking,
        live=segment.live,
        change_guard=segment.change_guard,
        cadence=segment.cadence,
        cron=segment.cron,
        time_zone=segment.time_zone,
    )
    given = {name: getattr(changes, name) for name in changes.__slots__}
    given = {name: value for name, value in given.items() if value is not UNSET}
    after = replace(before, **given)
    if "definition" in given:
        after = replace(after, mode=BuilderMode.NESTED)
    elif "conditions" in given:
        after = replace(after, definition=None)
    if after.cadence is not Cadence.CRON and changes.cron is UNSET:
        after = replace(after, cron=None)
    if "live" not in given and (before.cadence is Cadence.NEVER) != (after.cadence is Cadence.NEVER):
        after = replace(after, live=None)
    return after


def checked(wanted: SegmentInput, *, limits: Limits | None = None, live_is_given: bool = True) -> Checked:
    """The input as it is kept. Raises SegmentError naming the field.

    `limits` are for its conditions. `live_is_given` False: `live` is from before, and gives way to a saved query.
    """
    dynamic = wanted.type is SegmentType.DYNAMIC
    cadence = wanted.cadence or (Cadence.DAILY if dynamic else Cadence.NEVER)
    condition: Condition | None = None
    match wanted.type:
        case SegmentType.EVERYONE:
            message = "Every workspace has its EVERYONE already; make a STATIC or a DYNAMIC segment."
            raise SegmentError("SEGMENT_IS_BUILT_IN", message, field=("type",))
        case SegmentType.DYNAMIC:
            condition = read_conditions(wanted, limits)
        case SegmentType.STATIC:
            require_plain(wanted, cadence)
    queried = condition is not None and any(isinstance(leaf, SavedSql) for leaf in leaves(condition))
    live = wanted.live
    if queried and live and not live_is_given:
        live = None
    return Checked(
        name=clean(clean_text, wanted.name, field=("name",), what="Segment name", most=MOST_NAME_CHARACTERS),
        type=wanted.type,
        description=checked_description(wanted.description),
        brand_id=wanted.brand_id,
        condition=condition,
        field=("definition",) if wanted.conditions is None else ("conditions", "conditions"),
        mode=wanted.mode if wanted.conditions is None else BuilderMode.SIMPLE,
        ranking=None if wanted.ranking is None else ranking.to_json(ranking.parse(wanted.ranking, field=("ranking",))),
        live=is_live(live, dynamic=dynamic, cadence=cadence, queried=queried),
        change_guard=checked_guard(wanted.change_guard),
        cadence=cadence,
        cron=checked_cron(cadence, wanted.cron),
        time_zone=clean(clean_time_zone, wanted.time_zone, field=("time_zone",)),
    )


def read_conditions(wanted: SegmentInput, limits: Limits | None) -> Condition:
    """The conditions of a dynamic segment, from whichever builder."""
    if wanted.conditions is not None and wanted.definition is not None:
        message = "Has both definition and conditions; give the definition, or the conditions of the simple builder."
        raise SegmentError("CONDITIONS_TWICE", message, field=("conditions",))
    if wanted.conditions is not None:
        simple = wanted.conditions
        return conditions.parse_simple(
            simple.match, simple.conditions, field=("conditions", "conditions"), limits=limits
        )
    if wanted.definition is None:
        message = "A dynamic segment needs conditions; give its definition."
        raise SegmentError("DEFINITION_REQUIRED", message, field=("definition",))
    return conditions.parse(wanted.definition, field=("definition",), limits=limits)


def require_plain(wanted: SegmentInput, cadence: Cadence) -> None:
    """A static segment has members, and nothing that would find them."""
    for field, value in (("definition", wanted.definition), ("conditions", wanted.conditions)):
        if value is not None:
            message = "A static segment has members and no conditions; leave them out, or make it DYNAMIC."
            raise SegmentError("DEFINITION_NOT_ALLOWED", message, field=(field,))
    if cadence is not Cadence.NEVER:
        message = "A static segment is never evaluated; its cadence is NEVER."
        raise SegmentError("CADENCE_NOT_ALLOWED", message, field=("cadence",))
    if wanted.ranking is not None:
        message = "A static segment has no order; leave the ranking out, or make it DYNAMIC."
        raise SegmentError("RANKING_NOT_ALLOWED", message, field=("ranking",))


def is_live(wanted: bool | None, *, dynamic: bool, cadence: Cadence, queried: bool) -> bool:
    """Whether a segment is kept true between evaluations: dynamic ones are, unless somebody wants otherwise.

    By default not with the cadence NEVER, which means once. Raises LIVE_NOT_ALLOWED where it cannot be.
    """
    if wanted and not dynamic:
        message = "A static segment changes only by hand; leave live out, or make it DYNAMIC."
        raise SegmentError("LIVE_NOT_ALLOWED", message, field=("live",))
    if wanted and queried:
        message = (
            "Nobody can know whom a saved query is about without running all of it, so such a segment is not live;"
            " leave live out, and evaluate it by a cadence."
        )
        raise SegmentError("LIVE_NOT_ALLOWED", message, field=("live",))
    if wanted is not None:
        return wanted
    return dynamic and not queried and cadence is not Cadence.NEVER


def checked_guard(per_cent: int | None) -> int | None:
    if per_cent is not None and not 1 <= per_cent <= 100:
        message = "Is per cent of the members, 1 to 100; null lets every change through."
        raise SegmentError("INVALID_VALUE", message, field=("change_guard",))
    return per_cent


def checked_description(description: str) -> str:
    text = description.strip()
    if len(text) > MOST_DESCRIPTION_CHARACTERS:
        message = f"Has {len(text)} characters; shorten it to at most {MOST_DESCRIPTION_CHARACTERS}."
        raise SegmentError("TOO_LONG", message, field=("description",))
    clean(check_storable, text, field=("description",))
    return text


def checked_cron(cadence: Cadence, cron: str | None) -> str | None:
    if cadence is Cadence.CRON:
        if cron is None:
            message = "The cadence CRON needs an expression; give cron."
            raise SegmentError("CRON_REQUIRED", message, field=("cron",))
        return schedule.clean_cron(cron)
    if cron is not None:
        message = f"The cadence {cadence} takes no expression; leave cron out, or set the cadence to CRON."
        raise SegmentError("CRON_NOT_ALLOWED", message, field=("cron",))
    return None


def same(one: object, other: object) -> bool:
    """Whether two JSON values are the same; == would take true for 1."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
