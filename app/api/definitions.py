"""Conditions that clients give once, not as a segment's, and the names that sentences about conditions need."""

from functools import lru_cache
from uuid import UUID

import orjson
from strawberry import ID

from app.api import ids
from app.api.conditions import SegmentConditionInput, SimpleConditionsInput, to_definition, to_simple
from app.api.ids import Kind
from app.context import Info
from app.problems import ApiError
from segments import conditions, references
from segments.json_values import Path
from segments.nodes import Condition, SavedSql

LONGEST_KEPT = 4_096
"""Bytes of a definition whose condition is kept: a body may bring one of 2 MB, and a thousand are kept."""


def to_condition(
    info: Info,
    *,
    definition: SegmentConditionInput | None,
    simple: SimpleConditionsInput | None,
    saved_query_id: ID | None = None,
) -> tuple[Condition, Path]:
    """The one condition that is given in one of these ways, and the field it stands at.

    Raises ApiError when none or several are given, and what `conditions.parse` raises.
    """
    given = [one for one in (definition, simple, saved_query_id) if one is not None]
    if len(given) != 1:
        message = "Say who is meant in exactly one way: by a definition, by conditions, or, where it is known, a query."
        raise ApiError("ONE_DEFINITION", message, field=("definition",))
    limits = info.context.resources.settings.condition_limits
    if saved_query_id is not None:
        query_id = ids.decode_uuid(Kind.SAVED_QUERY, saved_query_id, field="saved_query_id")
        return SavedSql(query_id), ("saved_query_id",)
    if simple is not None:
        match, items = to_simple(simple, "conditions")
        field: Path = ("conditions", "conditions")
        return conditions.parse_simple(match, items, field=field, limits=limits), field
    assert definition is not None
    field = ("definition",)
    return conditions.parse(to_definition(definition, *field), field=field, limits=limits), field


async def names_of(info: Info, condition: Condition) -> dict[UUID, str]:
    """Names of the segments, saved queries and campaigns that a condition names; unknown ones are left out."""
    named = list(references.named(condition))
    # One after the other: all are asked for by then, and load_many costs a callback each.
    asked = [info.context.loaders.condition_names.load(id) for id in named]
    names = [await name for name in asked]
    return {id: name for id, name in zip(named, names, strict=True) if name is not None}


def stored(definition: object) -> Condition:
    """The condition of a definition as it is kept. Lists of segments are looked at again and again, and to read one
    costs more than all else that is told of a segment."""
    text = orjson.dumps(definition)
    return read(text) if len(text) <= LONGEST_KEPT else conditions.read(definition)


@lru_cache(maxsize=1_024)
def read(text: bytes) -> Condition:
    return conditions.read(orjson.loads(text))
