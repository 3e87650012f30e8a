"""The tree of a condition over the answers to its leaves: set algebra in memory, pure.

AND, OR and ANDNOT of bitmaps of a million take microseconds, and the size of every node falls out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from hashlib import sha256
from operator import and_, or_
from typing import assert_never
from uuid import UUID

from pyroaring import BitMap

from segments.canonical import key
from segments.nodes import (
    PAGE_VIEW,
    Aggregate,
    All,
    Amount,
    AnyOf,
    Condition,
    ContextField,
    ContextTest,
    Event,
    InSegment,
    Leaf,
    Not,
    Operator,
    Page,
    Score,
    Sessions,
    Total,
    Trait,
)


@dataclass(frozen=True, slots=True)
class NodeSize:
    """How many meet one node: the builder's funnel. `path` leads to it from the root, as in the JSON form."""

    path: tuple[str, ...]
    size: int


class Join(StrEnum):
    """How a step is answered."""

    ALL = "all"
    ANY = "any"
    NOT = "not"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a plan."""

    join: Join
    parts: "tuple[Step, ...]" = ()
    key: str = ""
    """Of the question, of ASK."""
    path: tuple[str, ...] | None = None
    """None: no part of what the builder drew, only of what stands for a leaf of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A condition made ready: what to ask, and how the answers are combined. Where a condition is asked again and
    again its plan is kept: making one takes longer than using it."""

    questions: Mapping[str, Leaf]
    """What an engine must be asked, by `canonical.key`; equal questions once."""
    root: Step
    uses: frozenset[UUID]
    """The segments that the condition names."""

    def combine(self, found: Mapping[str, BitMap], universe: BitMap) -> tuple[BitMap, list[NodeSize]]:
        """Who of `universe` meets the condition, and the size of every node, parents before their children.

        `found` has the engine's answer to each of `questions`. Nothing given is changed.
        """
        sizes: list[NodeSize] = []
        return resolve(self.root, found, universe, sizes), sizes


def plan(condition: Condition) -> Plan:
    """The plan of `condition`."""
    asked: dict[str, Leaf] = {}
    root = step(condition, (), asked)
    return Plan(asked, root, frozenset(one.segment_id for one in asked.values() if isinstance(one, InSegment)))


def questions(condition: Condition) -> Mapping[str, Leaf]:
    """See `Plan`."""
    return plan(condition).questions


def combine(condition: Condition, found: Mapping[str, BitMap], universe: BitMap) -> tuple[BitMap, list[NodeSize]]:
    """See `Plan.combine`."""
    return plan(condition).combine(found, universe)


def step(condition: Condition, path: tuple[str, ...] | None, asked: dict[str, Leaf]) -> Step:
    """The step of one node and those below it; its questions are added to `asked`."""

    def below(item: Condition, *more: str) -> Step:
        return step(item, None if path is None else (*path, *more), asked)

    match condition:
        case All(items):
            return Step(Join.ALL, tuple(below(item, "all", str(at)) for at, item in enumerate(items)), path=path)
        case AnyOf(items):
            return Step(Join.ANY, tuple(below(item, "any", str(at)) for at, item in enumerate(items)), path=path)
        case Not(item):
            return Step(Join.NOT, (below(item, "not"),), path=path)
        case leaf:
            stands_for_it = positive(leaf)
            if stands_for_it is leaf:
                at = key(leaf)
                asked[at] = leaf
                return Step(Join.ASK, key=at, path=path)
            return replace(step(stands_for_it, None, asked), path=path)


def resolve(step: Step, found: Mapping[str, BitMap], universe: BitMap, sizes: list[NodeSize]) -> BitMap:
    """Who of `universe` meets a step; the sizes of the drawn ones are added, parents before their children."""
    place = len(sizes)
    match step.join:
        case Join.ALL:
            members = reduce(and_, [resolve(part, found, universe, sizes) for part in step.parts])
        case Join.ANY:
            members = reduce(or_, [resolve(part, found, universe, sizes) for part in step.parts])
        case Join.NOT:
            members = universe - resolve(step.parts[0], found, universe, sizes)
        case Join.ASK:
            members = found[step.key] & universe
        case _:
            assert_never(step.join)
    if step.path is not None:
        sizes.insert(place, NodeSize(step.path, len(members)))
    return members


def positive(leaf: Leaf) -> Condition:
    """The same condition in questions that nobody without a matching event could be an answer to.

    Engines look at events, so they cannot find those who have none. "Less than 3 times" holds for those: it is asked
    as NOT "3 times or more", and "never" as NOT "performed". A page becomes its event and a score its traits. Other
    leaves are as they were.
    """
    match leaf:
        case Event():
            return positive_event(leaf)
        case Page(operator, path, count, window, never):
            test = ContextTest(ContextField.PAGE_PATH, operator, path)
            return positive_event(Event(PAGE_VIEW, count=count, window=window, context=(test,), never=never))
        case Sessions(count):
            return Not(replace(leaf, count=opposite(count))) if holds_for_none(count) else leaf
        case Score(of, codes, at_least):
            traits: list[Condition] = []
            if codes:
                traits.append(Trait(f"{of.lower()}_code", Operator.IN, codes))
            if at_least is not None:
                traits.append(Trait(f"{of.lower()}_score", Operator.GREATER_OR_EQUAL, at_least))
            return traits[0] if len(traits) == 1 else All(tuple(traits))
        case _:
            return leaf


def positive_event(event: Event) -> Condition:
    """See `positive`.

    One thing that does not hold for none keeps the whole event one question. Where all of them do, none of which an
    average, a minimum, a maximum or a time of events can be, each is asked as the NOT of its opposite.
    """
    plain = replace(event, never=False, count=None, totals=())
    if event.never:
        return Not(plain)
    measures = [] if event.count is None else [(replace(plain, count=opposite(event.count)), event.count)]
    measures += [(replace(plain, totals=(inverse(total),)), total.amount) for total in event.totals]
    others = [total for total in event.totals if total.aggregate is not Aggregate.SUM]
    if not measures or others or event.first or event.last or not all(holds_for_none(one) for _, one in measures):
        return event
    parts = tuple(Not(asked) for asked, _ in measures)
    return parts[0] if len(parts) == 1 else All(parts)


def inverse(total: Total) -> Total:
    return replace(total, amount=opposite(total.amount))


def holds_for_none(amount: Amount) -> bool:
    """Whether a profile without any matching event meets `amount`: it counts 0, and sums to 0."""
    match amount.operator:
        case Operator.EQUALS:
            return amount.value == 0
        case Operator.NOT_EQUALS:
            return amount.value != 0
        case Operator.GREATER_THAN:
            return amount.value < 0
        case Operator.GREATER_OR_EQUAL:
            return amount.value <= 0
        case Operator.LESS_THAN:
            return amount.value > 0
        case Operator.LESS_OR_EQUAL:
            return amount.value >= 0
        case _:
            raise ValueError(f"{amount.operator} compares no amount")


OPPOSITES = {
    Operator.EQUALS: Operator.NOT_EQUALS,
    Operator.NOT_EQUALS: Operator.EQUALS,
    Operator.GREATER_THAN: Operator.LESS_OR_EQUAL,
    Operator.GREATER_OR_EQUAL: Operator.LESS_THAN,
    Operator.LESS_THAN: Operator.GREATER_OR_EQUAL,
    Operator.LESS_OR_EQUAL: Operator.GREATER_THAN,
}


def opposite(amount: Amount) -> Amount:
    """What holds exactly when `amount` does not."""
    return replace(amount, operator=OPPOSITES[amount.operator])


BUCKETS = 10_000


def bucket(profile_id: int, salt: str) -> int:
    """Which of 10,000 buckets a profile is in under `salt`: the same for ever and on every engine.

    Mixing of 32-bit integers (a multiply-xorshift hash, of published constants), so that SQL can do the same with
    bigint: nothing in between exceeds 64 bits. The two seeds make salts independent of each other.
    """
    first, second = salt_seeds(salt)
    return mix(mix(profile_id ^ first) ^ second) % BUCKETS


def salt_seeds(salt: str) -> tuple[int, int]:
    """Two numbers of 32 bits each: the first eight bytes of the SHA-256 of `salt` in UTF-8, big-endian."""
    digest = sha256(salt.encode()).digest()
    return int.from_bytes(digest[:4]), int.from_bytes(digest[4:8])


MIX_FACTOR = 0x45D9F3B
MASK = 0xFFFFFFFF


def mix(x: int) -> int:
    """A permutation of the integers below 2^32."""
    x = (((x >> 16) ^ x) * MIX_FACTOR) & MASK
    x = (((x >> 16) ^ x) * MIX_FACTOR) & MASK
    return (x >> 16) ^ x
