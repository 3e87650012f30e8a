"""How many bytes of JSON a template may become, whoever the recipient: bounds that PostgreSQL can compare people by.

A bound is a number of bytes and for each value that the template reads a factor of its length. It is never below what
is really written; where a template has conditions, loops or filters it may be far above, so it only says whom to look
at (campaigns/push_sizing.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jinja2 import nodes

from campaigns.program import FILTER_LIMIT, ITEM_LIMIT, MISSING, PLAIN, Encoding, Value
from campaigns.push_json import IN_JSON_TEXT, escaped
from campaigns.syntax import parse
from campaigns.templates import Compiler
from campaigns.variables import PROFILE_FIELDS, one_name

LONGEST_NUMBER, LONGEST_DATE, LONGEST_BOOLEAN = 64, 300, 5
"""Bytes that the filters `number` and `date` write at most, and True or False."""
OF_CASE = {"upper": 3, "title": 3, "capitalize": 3, "lower": 2}
"""How many times as many bytes a text may have in another case: U+0390 has 2, and 6 in capitals."""
UNCHANGED = frozenset({"e", "escape", "trim", "url"})
"""Filters that make nothing longer."""


Place = tuple[str | int, ...]
"""Where a value is: ("profile", "email"), or ("traits", "address", "city")."""


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `most` bytes and, for each value its bytes in JSON times a factor; at least `least`."""

    most: int = 0
    factors: Mapping[Place, int] = field(default_factory=dict)
    least: int = 0

    def __add__(self, other: "Bound") -> "Bound":
        factors = dict(self.factors)
        for name, factor in other.factors.items():
            factors[name] = factors.get(name, 0) + factor
        return Bound(self.most + other.most, factors, self.least + other.least)

    def times(self, number: int) -> "Bound":
        """Of what is at most `number` times as long."""
        return Bound(self.most * number, {name: number * factor for name, factor in self.factors.items()})

    def either(self, other: "Bound") -> "Bound":
        """Of what is one or the other."""
        factors = {
            name: max(self.factors.get(name, 0), other.factors.get(name, 0))
            for name in {**self.factors, **other.factors}
        }
        return Bound(max(self.most, other.most), factors, min(self.least, other.least))


def bound_of(
    source: str,
    *,
    path: tuple[str, ...],
    limit: int,
    defaults: Mapping[str, Value],
    campaign_name: str,
    encoding: Encoding,
) -> Bound:
    """The bound of a template that compiles, written in IN_JSON or IN_JSON_TEXT."""
    # What is escaped once has no controls left: escaped again, a byte is at most two.
    growth = 2 if encoding is IN_JSON_TEXT else 1
    measure = Measure(path, defaults, campaign_name, encoding, growth)
    return measure.body(parse(source, field=path, limit=limit).body)


class Measure:
    """Walks one template like `campaigns.templates.Compiler`, which has accepted it."""

    def __init__(
        self,
        path: tuple[str, ...],
        defaults: Mapping[str, Value],
        campaign_name: str,
        encoding: Encoding,
        growth: int,
    ) -> None:
        self.compiler = Compiler(path, PLAIN, {})  # only its way of reading names is used
        self.defaults, self.campaign_name = defaults, campaign_name
        self.encoding, self.growth = encoding, growth
        self.items: dict[str, Bound] = {}
        """What the variables of the loops around this place may have."""

    def body(self, body: list[nodes.Node]) -> Bound:
        bound = Bound()
        for node in body:
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        if isinstance(part, nodes.TemplateData):
                            size = len(self.encoding.static(part.data))
                            bound += Bound(size, {}, size)
                        else:
                            bound += self.expression(part).times(self.growth)
                case nodes.If():
                    found = self.body(node.else_)
                    for branch in (node, *node.elif_):
                        found = found.either(self.body(branch.body))
                    bound += found
                case nodes.For():
                    bound += self.loop(node)
        return bound

    def loop(self, node: nodes.For) -> Bound:
        """Each item's JSON stands in the list's once, so what a body writes of items is bounded by the whole list."""
        assert isinstance(node.target, nodes.Name)
        items, name = self.expression(node.iter), node.target.name
        item: Place = ("loop", name)
        self.items[name] = Bound(0, {item: 1})
        body = self.body(node.body)
        del self.items[name]
        own = body.factors.get(item, 0)
        others = {one: factor for one, factor in body.factors.items() if one != item}
        rounds = Bound(body.most, others).times(ITEM_LIMIT)
        return (rounds + items.times(2 * own)).either(self.body(node.else_))

    def expression(self, node: nodes.Node | None) -> Bound:
        match node:
            case nodes.Const():
                return Bound(len(written(node.value)))
            case nodes.Neg():
                return Bound(LONGEST_NUMBER)
            case nodes.Name() | nodes.Getattr() | nodes.Getitem():
                return self.lookup(node)
            case nodes.Filter():
                return self.filtered(node)
            case nodes.And() | nodes.Or():
                return self.expression(node.left).either(self.expression(node.right))
            case nodes.CondExpr():
                return self.expression(node.expr1).either(self.expression(node.expr2))
            case None | nodes.List():
                return Bound()
            case _:
                return Bound(LONGEST_BOOLEAN)

    def lookup(self, node: nodes.Node) -> Bound:
        root, keys = self.compiler.way(node)
        if root in self.items:
            return self.items[root]
        if root in ("profile", "traits"):
            default = self.defaults.get(one_name(root, keys), MISSING)
            own = root == "profile" and keys[0] in PROFILE_FIELDS
            place: Place = ("profile" if own else "traits", *keys)
            return Bound(0 if default is MISSING else len(written(default)), {place: 1})
        if root == "campaign":
            return Bound(len(written(self.campaign_name)))
        return Bound(LONGEST_DATE)  # now, and what `loop` counts

    def filtered(self, node: nodes.Filter) -> Bound:
        inner, name = self.expression(node.node), node.name
        given: dict[str | int, nodes.Expr] = {str(pair.key): pair.value for pair in node.kwargs}
        given |= dict(enumerate(node.args))
        if name in UNCHANGED:
            return inner
        if name in OF_CASE:
            return inner.times(OF_CASE[name])
        match name:
            case "default":
                return inner.either(self.expression(given.get(0) or given.get("default_value")))
            case "join":
                between = self.expression(given.get(0) or given.get("d"))
                return inner.times(2) + between.times(ITEM_LIMIT)
            case "truncate":
                return inner + self.expression(given.get(2) or given.get("end")) + Bound(len("..."))
            case "urlencode":
                return inner.times(3)
            case "first" | "last":
                return inner.times(2)  # an item is within the list's JSON; a number may be written longer than there
            case "number" | "length":
                return Bound(LONGEST_NUMBER)
            case "date":
                return Bound(LONGEST_DATE)
            case "replace":
                new = given.get(1) or given.get("new")
                if isinstance(new, nodes.Const):
                    # At most each letter, and the place before the first, becomes the new text.
                    size = len(written(new.value))
                    return inner.times(1 + size) + Bound(size)
        return Bound(6 * FILTER_LIMIT)


def written(value: object) -> bytes:
    """A constant as a template may write it."""
    return escaped(str(value))
