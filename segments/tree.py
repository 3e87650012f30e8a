"""The tree of a condition over the answers to its leaves: set algebra in memory, pure.

AND, OR and ANDNOT of bitmaps of a million take microseconds, and the size of every node falls out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from hashlib import sha256
from operator import and_, or_
from typing import TypeAlias, assert_never
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
class Census:
    """A universe that was counted and not listed: those who are not of it are fewer."""

    gone: BitMap
    """Whoever the answers may name and who is not of the universe."""
    size: int = 0
    """How many are of it; anything where `Plan.counts_everybody` is False."""


Universe: TypeAlias = BitMap | Census


@dataclass(frozen=True, slots=True)
class Met:
    """Who meets a step: `ids`, or everybody of the universe but `ids`. All ids are of the universe."""

    ids: BitMap
    but: bool = False

    def size(self, universe: Universe) -> int:
        if not self.but:
            return len(self.ids)
        return (universe.size if isinstance(universe, Census) else len(universe)) - len(self.ids)


@dataclass(frozen=True, slots=True)
class Plan:
    """A condition made ready: what to ask, and how the answers are combined. Where a condition is asked again and
    again its plan is kept: making one takes longer than using it."""

    questions: Mapping[str, Leaf]
    """What an engine must be asked, by `canonical.key`; equal questions once."""
    root: Step
    uses: frozenset[UUID]
    """The segments that the condition names."""
    lists_everybody: bool
    """Whether those who meet it are everybody but some: it takes the universe listed, not counted, to say who."""
    counts_everybody: bool
    """Whether the size of the universe is part of the size of a node."""

    def combine(
        self, found: Mapping[str, BitMap], universe: Universe, *, sized: bool = True
    ) -> tuple[BitMap, list[NodeSize]]:
        """Who of `universe` meets the condition, and the size of every node, parents before their children; no sizes
        unless `sized`.

        `found` has the engine's answer to each of `questions`. Nothing given is changed. No Census where
        `lists_everybody`.
        """
        sizes: list[NodeSize] = []
        members = resolve(self.root, found, universe, sizes if sized else None)
        if not members.but:
            return members.ids, sizes
        assert not isinstance(universe, Census)
        return universe - members.ids, sizes


def plan(condition: Condition) -> Plan:
    """The plan of `condition`."""
    asked: dict[str, Leaf] = {}
    root = step(condition, (), asked)
    uses = frozenset(one.segment_id for one in asked.values() if isinstance(one, InSegment))
    counts = any(is_but(one) and one.path is not None for one in steps(root))
    return Plan(asked, root, uses, lists_everybody=is_but(root), counts_everybody=counts)


def questions(condition: Condition) -> Mapping[str, Leaf]:
    """See `Plan`."""
    return plan(condition).questions


def combine(condition: Condition, found: Mapping[str, BitMap], universe: Universe) -> tuple[BitMap, list[NodeSize]]:
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


def steps(step: Step) -> Iterator[Step]:
    """A step and all below it."""
    yield step
    for part in step.parts:
        yield from steps(part)


def is_but(step: Step) -> bool:
    """Whether who meets a step is everybody but some: see `resolve`."""
    match step.join:
        case Join.ALL:
            return all(map(is_but, step.parts))
        case Join.ANY:
            return any(map(is_but, step.parts))
        case Join.NOT:
            return not is_but(step.parts[0])
        case Join.ASK:
            return False
        case _:
            assert_never(step.join)


def resolve(step: Step, found: Mapping[str, BitMap], universe: Universe, sizes: list[NodeSize] | None) -> Met:
    """Who of `universe` meets a step; the sizes of the drawn ones are added, parents before their children, to `sizes`
    if it is given.

    Complements are not worked out but carried along (de Morgan): most conditions never need everybody.
    """
    place = 0 if sizes is None else len(sizes)
    match step.join:
        case Join.ALL:
            parts, others = apart(step, found, universe, sizes)
            without = reduce(or_, others, NOBODY)
            members = Met(reduce(and_, parts) - without) if parts else Met(without, but=True)
        case Join.ANY:
            parts, others = apart(step, found, universe, sizes)
            together = reduce(or_, parts, NOBODY)
            members = Met(reduce(and_, others) - together, but=True) if others else Met(together)
        case Join.NOT:
            inside = resolve(step.parts[0], found, universe, sizes)
            members = Met(inside.ids, but=not inside.but)
        case Join.ASK:
            answer = found[step.key]
            members = Met(answer - universe.gone if isinstance(universe, Census) else answer & universe)
        case _:
            assert_never(step.join)
    if sizes is not None and step.path is not None:
        sizes.insert(place, NodeSize(step.path, members.size(universe)))
    return members


def apart(
    step: Step, found: Mapping[str, BitMap], universe: Universe, sizes: list[NodeSize] | None
) -> tuple[list[BitMap], list[BitMap]]:
    """The ids of the parts that are those ids, and of those that are everybody but those ids."""
    parts = [resolve(part, found, universe, sizes) for part in step.parts]
    return [part.ids for part in parts if not part.but], [part.ids for part in parts if part.but]


NOBODY = BitMap()


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
