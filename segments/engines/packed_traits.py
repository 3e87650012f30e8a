"""A trait of everybody, packed: the people of each of its values. For traits of few values, which most conditions ask
about.

A condition is put to the values and not to the people, by the same SQL as ever: each part of the pack has the traits of
somebody with that value.
"""

from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
from pyroaring import BitMap

from segments.engines.profile_leaves import profile_is
from segments.engines.queries import Query, Statement, joined, packed
from segments.nodes import Trait
from segments.packs import Kind, Made, Name, Part

SAMPLED = 5_000
"""People whose values are taken for those that a trait has."""
MOST_VALUES = 100
"""Of a trait that is packed, among those of the sample: each row is compared with all of them."""
MOST_OTHERS = 200
"""One in so many may have another value than those of the sample."""


def values_of(key: str) -> Statement:
    """The values that the trait has among some of the people, as JSON's text; NULL where they have none."""
    query = Query()
    # In an order that an index has: else all people of the workspace are looked up, for the sake of the first pages
    # (among a million 700 ms, on a busy machine).
    rows = f"{query.rows_of('profile')} ORDER BY id LIMIT {SAMPLED}"
    some = f"SELECT traits -> {query.bind(key, 'text')} AS value {rows}"
    return query.made(
        f"SELECT value::text FROM ({some}) AS sample GROUP BY value ORDER BY count(*) DESC LIMIT {MOST_VALUES + 1}"
    )


def of_traits(values: Mapping[str, Sequence[str | None]]) -> Statement:
    """Everybody, and for each trait where in its `values` theirs is, from 1 on; 0 for another."""
    query = Query()
    columns = [packed("id")]
    for key, known in values.items():
        place = f"array_position({query.bind(tuple(known), 'text[]')}::jsonb[], traits -> {query.bind(key, 'text')})"
        columns.append(joined(f"int2send(coalesce({place}, 0)::smallint)"))
    return query.made(f"SELECT {', '.join(columns)} {query.rows_of('profile')}")


def packs_of(values: Mapping[str, Sequence[str | None]], columns: Sequence[bytes | None]) -> list[Made]:
    """The packs, of what `of_traits` answered; of traits of which too many have other values none."""
    ids = np.frombuffer(columns[0] or b"", ">u4").astype(np.uint32)
    made = []
    for (key, known), column in zip(values.items(), columns[1:], strict=True):
        places = np.frombuffer(column or b"", ">i2").astype(np.int16)
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(len(known) + 2))
        people = [bitmap(ids[order[start:end]]) for start, end in pairwise(edges)]
        others = people.pop(0)
        if len(others) * MOST_OTHERS > len(ids):
            continue
        parts = [Part(people.serialize(), traits(key, value)) for people, value in zip(people, known, strict=True)]
        everybody = Part(bitmap(ids).serialize())
        made.append(Made(Name(Kind.TRAIT, key), {}, [everybody, *parts], others))
    return made


def traits(key: str, value: str | None) -> str:
    """The traits of somebody who has this value, given as JSON's text: as text too, so that no number is rounded."""
    return "{}" if value is None else f"{{{orjson.dumps(key).decode()}: {value}}}"


def bitmap(ids: "np.ndarray[Any, np.dtype[np.uint32]]") -> BitMap:
    numbers = array("I")
    numbers.frombytes(ids.tobytes())
    found = BitMap(numbers)
    found.run_optimize()
    return found


def asked(leaves: Sequence[Trait], pack_id: int) -> Statement:
    """The people of each value, and of each leaf whether it is met by them; NULL for everybody, in a part of their
    own."""
    query = Query()
    tests = [f"CASE WHEN traits IS NOT NULL THEN coalesce({profile_is(query, leaf)}, false) END" for leaf in leaves]
    rows = query.rows_of("pack_part", f"pack_id = {query.bind(pack_id, 'bigint')}")
    return query.made(f"SELECT content, {', '.join(tests)} {rows}")


def answered(leaves: int, rows: Sequence[Sequence[Any]]) -> tuple[list[BitMap], BitMap]:
    """Who meets each leaf, and everybody, by the rows of `asked`."""
    found, everybody = [BitMap() for _ in range(leaves)], BitMap()
    for content, *met in rows:
        people = BitMap.deserialize(content)
        if met[0] is None:
            everybody = people
        for place, is_met in enumerate(met):
            if is_met:
                found[place] |= people
    return found, everybody
