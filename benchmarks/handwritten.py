"""What somebody would write by hand for the same sets, in each of the forms that are known to be fast.

It knows the leaves that the benchmarks use (events and one trait), not all that there are, and shares no code with the
engine, so that equal sets mean something. Values stand in the text: a plan is then made for exactly them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

Json: TypeAlias = Any
"""A condition of segments/conditions.py, or a part of one."""

OPERATORS = {"GREATER_OR_EQUAL": ">="}
LIVING = "merged_into IS NULL AND erased_at IS NULL"


@dataclass(frozen=True, slots=True)
class Question:
    """A condition asked of one workspace at one instant; of the profiles `only` when they are given."""

    condition: Json
    workspace_id: UUID
    now: datetime
    only: Collection[int] | None = None

    def of(self, column: str) -> str:
        """The condition on the workspace, and on the profiles asked about."""
        mine = f"workspace_id = '{self.workspace_id}'"
        if self.only is None:
            return mine
        return f"{mine} AND {column} = ANY ('{{{','.join(map(str, self.only))}}}')"

    @property
    def everybody(self) -> str:
        return f"SELECT id FROM profile WHERE {self.of('id')} AND {LIVING}"


def literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def property_test(test: Json) -> str:
    values = test["value"] if test["operator"] == "IN" else [test["value"]]
    return f"properties ->> {literal(test['property'])} IN ({', '.join(map(literal, values))})"


def rows_of(event: Json, now: datetime) -> str:
    """Which events of a leaf's name match."""
    ((unit, amount),) = event["within"].items()
    edge = now - timedelta(**{unit: amount})
    return " AND ".join(
        [f"occurred_at >= '{edge.isoformat()}' AND occurred_at <= '{now.isoformat()}'"]
        + [property_test(test) for test in event.get("where", [])]
    )


def measures(event: Json) -> list[tuple[str, str]]:
    """What is counted or summed over the matching events, and what is demanded of it."""
    found = []
    if "count" in event and event["count"]["value"] > 1:
        found.append(("count(*)", f">= {event['count']['value']}"))
    if "sum" in event:
        value = f"(properties ->> {literal(event['sum']['property'])})::numeric"
        found.append((f"sum({value})", f"{OPERATORS[event['sum']['operator']]} {event['sum']['value']}"))
    return found


def is_negative(condition: Json) -> bool:
    """Whether it holds for those in whom nothing is found."""
    return "not" in condition or bool(condition.get("event", {}).get("never"))


def set_of(leaf: Json, question: Question) -> str:
    """The profiles of one leaf, "never" taken as "performed"."""
    if "trait" in leaf:
        return f"SELECT id FROM profile WHERE {question.of('id')} AND {LIVING} AND {trait_test(leaf['trait'])}"
    event = leaf["event"]
    select = (
        f"SELECT profile_id AS id FROM event WHERE {question.of('profile_id')} AND name = {literal(event['name'])} "
        f"AND {rows_of(event, question.now)}"
    )
    having = " AND ".join(f"{measure} {demand}" for measure, demand in measures(event))
    return f"{select} GROUP BY profile_id HAVING {having}" if having else select


def trait_test(trait: Json) -> str:
    values = trait["value"] if trait["operator"] == "IN" else [trait["value"]]
    return f"traits ->> {literal(trait['key'])} IN ({', '.join(map(literal, values))})"


# --- the forms ----------------------------------------------------------------------------------------------------


def set_algebra(question: Question) -> str:
    """UNION, INTERSECT and EXCEPT of one set a leaf."""

    def of(condition: Json) -> str:
        if "any" in condition:
            return "(" + " UNION ".join(of(item) for item in condition["any"]) + ")"
        if "all" in condition:
            items = condition["all"]
            parts = [of(item) for item in items if not is_negative(item)] or [f"({question.everybody})"]
            sets = " INTERSECT ".join(parts)
            return "(" + " EXCEPT ".join([sets, *(of(inner(item)) for item in items if is_negative(item))]) + ")"
        if is_negative(condition):
            return f"(({question.everybody}) EXCEPT {of(inner(condition))})"
        return f"({set_of(condition, question)})"

    found = of(question.condition)
    return (
        found
        if any("trait" in leaf for leaf in top(question.condition))
        else f"{found} INTERSECT ({question.everybody})"
    )


def top(condition: Json) -> list[Json]:
    return condition.get("all", [])  # type: ignore[no-any-return]


def inner(condition: Json) -> Json:
    """What a negative condition negates."""
    if "not" in condition:
        return condition["not"]
    return {"event": {key: value for key, value in condition["event"].items() if key != "never"}}


def semi_joins(question: Question) -> str:
    """Living profiles whose id is in, or not in, the set of each leaf; a trait is looked at in the row at hand."""

    def of(condition: Json) -> str:
        for word, sign in (("any", " OR "), ("all", " AND ")):
            if word in condition:
                return "(" + sign.join(of(item) for item in condition[word]) + ")"
        if is_negative(condition):
            return f"NOT {of(inner(condition))}"
        if "trait" in condition:
            return trait_test(condition["trait"])
        return f"id IN ({set_of(condition, question)})"

    return f"{question.everybody} AND {of(question.condition)}"


def bits(question: Question) -> str:
    """A bit a leaf, collected by profile in one GROUP BY over all sets."""
    sets: list[str] = [question.everybody]

    def of(condition: Json) -> str:
        for word, sign in (("any", " OR "), ("all", " AND ")):
            if word in condition:
                return "(" + sign.join(of(item) for item in condition[word]) + ")"
        if is_negative(condition):
            return f"NOT {of(inner(condition))}"
        sets.append(set_of(condition, question))
        return f"bit_or(b) & {1 << len(sets) - 1} <> 0"

    demand = of(question.condition)
    union = " UNION ALL ".join(f"(SELECT id, {1 << place} AS b FROM ({one}) AS s)" for place, one in enumerate(sets))
    return f"SELECT id FROM ({union}) AS u GROUP BY id HAVING bit_or(b) & 1 <> 0 AND {demand}"


FORMS: Mapping[str, Callable[[Question], str]] = {
    "set algebra": set_algebra,
    "semi joins": semi_joins,
    "bit_or": bits,
}


# --- many segments at once ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Filters:
    """One pass over the events of some profiles, a FILTER for each distinct leaf and a column for each segment."""

    question: Question
    leaves: dict[str, str] = field(default_factory=dict)

    def select(self, conditions: Sequence[Json]) -> str:
        columns = [f"{self.of(condition)} AS s{place}" for place, condition in enumerate(conditions)]
        q = self.question
        inside = ", ".join(f"{measure} AS {name}" for measure, name in self.leaves.items())
        return (
            f"SELECT p.id, {', '.join(columns)} FROM ({q.everybody}) AS p LEFT JOIN (SELECT profile_id, {inside} "
            f"FROM event WHERE {q.of('profile_id')} GROUP BY profile_id) AS e ON e.profile_id = p.id"
        )

    def of(self, condition: Json) -> str:
        for word, sign in (("any", " OR "), ("all", " AND ")):
            if word in condition:
                return "(" + sign.join(self.of(item) for item in condition[word]) + ")"
        if is_negative(condition):
            return f"NOT {self.of(inner(condition))}"
        event = condition["event"]
        which = f"FILTER (WHERE name = {literal(event['name'])} AND {rows_of(event, self.question.now)})"
        parts = []
        for measure, demand in measures(event) or [("count(*)", ">= 1")]:
            name = self.leaves.setdefault(f"{measure} {which}", f"l{len(self.leaves)}")
            parts.append(f"coalesce({name} {demand}, false)")
        return "(" + " AND ".join(parts) + ")"


def one_pass(question: Question, conditions: Sequence[Json]) -> str:
    """A row a profile, with its id and one boolean for each of `conditions`."""
    return Filters(question).select(conditions)
