"""Users' templates: Jinja2's syntax, of which only a listed part is allowed, compiled by us.

Jinja2 parses; it never compiles or runs a user's template. Its own optimizer alone hangs on `{{ 'a' * 10**9 }}`, and
its sandbox bounds neither time nor memory; `env.parse` does neither fold nor run anything. What parses is walked once:
a node that is not listed below is refused with its line, the rest becomes a campaigns.program.Program.

Allowed: `{{ }}`, `{% if %}`, `{% for %}` over lists of the context (nested at most twice), comparisons, and/or/not,
constants, `is defined`, `a if b else c`, and the filters of campaigns/filters.py. Not allowed: calls, arithmetic,
set, macro, include, import, extends, safe, and everything Jinja2 may come to know.
"""

from collections.abc import Mapping, Sequence

from jinja2 import nodes

from campaigns.comparisons import COMPARISONS, truth
from campaigns.errors import CampaignError, RenderError
from campaigns.filters import FILTERS
from campaigns.program import (
    MISSING,
    PLAIN,
    Encoding,
    Expression,
    Frame,
    Program,
    Read,
    Step,
    Value,
    constant,
    cost,
    dotted,
    missing,
    otherwise,
    own_url,
    path,
    run,
    to_text,
)
from campaigns.syntax import MOST_DEPTH, MOST_OF_OURS, MOST_TOKENS, described, parse, tag_name, unchanged
from campaigns.variables import CONTEXT, LONGEST_NAME, TRACKED_URLS, loop_fields, one_name, unnameable

MOST_LOOPS = 2


def compile_template(
    source: str,
    *,
    field: tuple[str, ...],
    limit: int,
    encoding: Encoding,
    defaults: Mapping[str, Value] | None = None,
    is_tracked: bool = False,
    context: Mapping[str, frozenset[str] | None] = CONTEXT,
) -> Program:
    """The program of a template. Raises CampaignError with `field` and the line: TEMPLATE_TOO_LARGE (`limit` is in
    bytes), TEMPLATE_SYNTAX, TEMPLATE_NOT_ALLOWED.

    `defaults`: what stands for values that a recipient lacks, by the names of `declared_name`. `is_tracked`: it comes
    from `campaigns.tracking.tracked`. `context`: the names it may begin with, as in CONTEXT.
    """
    compiler = Compiler(field, encoding, defaults or {}, is_tracked=is_tracked, context=context)
    most = MOST_TOKENS + MOST_OF_OURS if is_tracked else MOST_TOKENS
    tree = parse(source, field=field, limit=limit, most_tokens=most)
    steps = compiler.steps(tree.body, depth=0)
    return Program(steps, compiler.reads, frozenset(compiler.always))


def declared_name(name: str, *, field: tuple[str, ...]) -> str:
    """The one spelling of what a template calls `profile.first_name` or `traits["first_name"]`.

    Raises CampaignError with `field` unless it is a trait or a profile's own field.
    """
    root, keys = "", list[str | int]()
    if len(name) <= LONGEST_NAME:
        try:
            tree = parse("{{" + name + "}}", field=field, limit=2 * LONGEST_NAME)
            (output,) = tree.find_all(nodes.Output)
            (inner,) = output.nodes
            root, keys = Compiler(field, PLAIN, {}).way(inner)
        except (CampaignError, ValueError):
            root = ""
    if root not in ("profile", "traits") or not keys:
        message = "Name a trait or a field of the profile, such as profile.first_name or traits.address.city."
        raise CampaignError("NOT_A_VARIABLE", message, field=field)
    return one_name(root, keys)


class Compiler:
    """Walks one template, top down."""

    def __init__(
        self,
        field: tuple[str, ...],
        encoding: Encoding,
        defaults: Mapping[str, Value],
        *,
        is_tracked: bool = False,
        context: Mapping[str, frozenset[str] | None] = CONTEXT,
    ) -> None:
        self.field, self.encoding, self.defaults = field, encoding, defaults
        self.is_tracked, self.context = is_tracked, context
        self.reads: dict[str, Read] = {}
        self.always: set[str] = set()
        self.loops: list[str] = []
        """The item names of the loops around this place."""
        self.conditional = 0
        self.visited = 0

    def refuse(self, node: nodes.Node, message: str) -> CampaignError:
        line = f"Line {node.lineno}: " if node.lineno else ""
        return CampaignError("TEMPLATE_NOT_ALLOWED", line + message, field=self.field)

    def enter(self, node: nodes.Node, depth: int) -> None:
        self.visited += 1
        if depth > MOST_DEPTH:
            raise self.refuse(node, "this nests too deeply; use fewer blocks, filters or conditions inside each other.")

    # Statements

    def steps(self, body: Sequence[nodes.Node], *, depth: int) -> tuple[Step, ...]:
        """The steps of a piece of template. Text that belongs together is encoded as one."""
        made: list[Step] = []
        text: list[str] = []

        def flush() -> None:
            if text:
                made.append(self.encoding.static("".join(text)))
                text.clear()

        for node in body:
            self.enter(node, depth)
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        if isinstance(part, nodes.TemplateData):
                            text.append(part.data)
                        else:
                            flush()
                            made.append(self.output(part, depth))
                case nodes.If():
                    flush()
                    made.append(self.condition(node, depth))
                case nodes.For():
                    flush()
                    made.append(self.loop(node, depth))
                case _:
                    raise self.refuse(node, f"{{% {tag_name(node)} %}} cannot be used here; only if and for can.")
        flush()
        return tuple(step for step in made if step != b"")

    def output(self, node: nodes.Expr, depth: int) -> Step:
        match node:
            case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=int() as place)) if (
                self.is_tracked and name == TRACKED_URLS
            ):
                return own_url(place)
        expression, name = self.expression(node, depth + 1), described(node)
        if not self.conditional and unchanged(node):
            self.always.add(name)
        encode = self.encoding.value

        def write(frame: Frame) -> None:
            value = expression(frame)
            frame.write(encode(value if type(value) is str else to_text(name, value)))

        return write

    def condition(self, node: nodes.If, depth: int) -> Step:
        self.conditional += 1
        branches = [
            (self.expression(branch.test, depth + 1), self.steps(branch.body, depth=depth + 1))
            for branch in (node, *node.elif_)
        ]
        otherwise = self.steps(node.else_, depth=depth + 1)
        self.conditional -= 1

        def choose(frame: Frame) -> None:
            for test, body in branches:
                if truth(test(frame)):
                    run(body, frame)
                    return
            run(otherwise, frame)

        return choose

    def loop(self, node: nodes.For, depth: int) -> Step:
        if node.test is not None or node.recursive:
            raise self.refuse(node, "a loop has neither a condition nor recursion; put an {% if %} inside it.")
        if not isinstance(node.target, nodes.Name):
            raise self.refuse(node, "a loop names one variable, as in {% for item in traits.items %}.")
        if len(self.loops) == MOST_LOOPS:
            raise self.refuse(node, f"at most {MOST_LOOPS} loops may stand inside each other.")
        target = node.target.name
        if target in self.context or target in ("loop", TRACKED_URLS) or target in self.loops:
            raise self.refuse(node, f"{target} has a meaning already; call the loop's variable something else.")
        items, name = self.expression(node.iter, depth + 1), described(node.iter)
        self.conditional += 1
        otherwise = self.steps(node.else_, depth=depth + 1)
        self.loops.append(target)
        visited = self.visited
        body = self.steps(node.body, depth=depth + 1)
        counted = any(name.name == "loop" for name in node.find_all(nodes.Name))
        round_costs = 1 + self.visited - visited
        self.loops.pop()
        self.conditional -= 1

        def repeat(frame: Frame) -> None:
            rows = items(frame)
            if rows is MISSING:
                raise missing(name, instead="[]")
            if not isinstance(rows, list):
                raise RenderError("NOT_A_LIST", f"{name} is not a list, so there is nothing to loop over.")
            if not rows:
                run(otherwise, frame)
                return
            frame.iterations -= len(rows)
            if frame.iterations < 0:
                raise RenderError("TOO_MUCH_WORK", "The loops go round more than 1,000 times; loop over less.")
            scope, around = frame.scope, frame.scope.get("loop")
            for index, row in enumerate(rows):
                frame.spend(round_costs)
                scope[target] = row
                if counted:
                    scope["loop"] = loop_fields(index, len(rows))
                run(body, frame)
                frame.write(b"")
            del scope[target]
            scope["loop"] = around

        return repeat

    # Expressions

    def expression(self, node: nodes.Node, depth: int) -> Expression:
        self.enter(node, depth)
        match node:
            case nodes.Const():
                return constant(node.value)
            case nodes.Neg(node=nodes.Const(value=int() | float() as amount)):
                return constant(-amount)
            case nodes.List() if not node.items:
                return constant([])
            case nodes.Name() | nodes.Getattr() | nodes.Getitem():
                return self.lookup(node)
            case nodes.Filter():
                return self.filtered(node, depth)
            case nodes.Compare():
                return self.comparison(node, depth)
            case nodes.Test() if node.name in ("defined", "undefined") and isinstance(node.node, nodes.Expr):
                value, wanted = self.expression(node.node, depth + 1), node.name == "defined"
                return lambda frame: (value(frame) is not MISSING) == wanted
            case nodes.Not():
                inner = self.expression(node.node, depth + 1)
                return lambda frame: not truth(inner(frame))
            case nodes.And() | nodes.Or():
                return self.junction(node, depth)
            case nodes.CondExpr():
                test, then = self.expression(node.test, depth + 1), self.expression(node.expr1, depth + 1)
                other = self.expression(node.expr2, depth + 1) if node.expr2 else constant("")
                return lambda frame: then(frame) if truth(test(frame)) else other(frame)
            case nodes.Call():
                raise self.refuse(node, f"{described(node.node)}(...) cannot be called; use a filter, as in | upper.")
            case nodes.BinExpr() | nodes.Concat() | nodes.Neg() | nodes.Pos():
                raise self.refuse(node, "templates do not calculate; send the finished value as a trait.")
            case _:
                raise self.refuse(node, f"a {type(node).__name__.lower()} cannot be used here.")

    def lookup(self, node: nodes.Node) -> Expression:
        """What a name stands for: in the context, or what is declared for those who lack it."""
        root, keys = self.way(node)
        wrong = unnameable(root, keys, context=self.context, loops=self.loops)
        if wrong:
            raise self.refuse(node, wrong)
        found = path(root, keys)
        if root not in self.context:
            return found
        declared_as = one_name(root, keys) if root in ("profile", "traits") else ""
        default = self.defaults.get(declared_as, MISSING)
        self.reads[dotted(root, keys)] = Read(found, default, declared_as)
        return found if default is MISSING else otherwise(found, default)

    def way(self, node: nodes.Node) -> tuple[str, list[str | int]]:
        """`a.b.c`, `a["b"]`, `a.items[0]` as (a, [b, c]): only names and places that stand in the template, never
        computed ones."""
        inner, keys = node, list[str | int]()
        while isinstance(inner, nodes.Getattr | nodes.Getitem):
            if isinstance(inner, nodes.Getattr):
                keys.append(inner.attr)
            elif isinstance(inner.arg, nodes.Const) and isinstance(inner.arg.value, str | int):
                keys.append(inner.arg.value)
            else:
                raise self.refuse(inner, "only a name in quotes or a number may stand in [ ].")
            inner = inner.node
        if not isinstance(inner, nodes.Name):
            raise self.refuse(node, "only a name can have fields, as in profile.first_name.")
        if len(keys) > MOST_DEPTH:
            raise self.refuse(node, "this has too many dots.")
        keys.reverse()
        return inner.name, keys

    def filtered(self, node: nodes.Filter, depth: int) -> Expression:
        known = FILTERS.get(node.name)
        if known is None:
            raise self.refuse(node, f"there is no filter {node.name}; there are {', '.join(sorted(FILTERS))}.")
        if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            raise self.refuse(node, f"write the filter as {{{{ profile.city | {node.name} }}}}.")
        given: dict[str, nodes.Node] = dict(zip(known.parameters, node.args, strict=False))
        for pair in node.kwargs:
            key = str(pair.key)  # nodes.Keyword, though Jinja2 types it as nodes.Pair
            if key not in known.parameters or key in given:
                raise self.refuse(node, f"{node.name} takes no {key} here.")
            given[key] = pair.value
        required = known.parameters[: len(known.parameters) - len(known.defaults)]
        if len(node.args) > len(known.parameters) or not given.keys() >= set(required):
            wanted = ", ".join(known.parameters) or "nothing"
            raise self.refuse(node, f"{node.name} takes {wanted} in its parentheses.")
        defaults = dict(zip(known.parameters[len(required) :], known.defaults, strict=True))
        arguments = [
            self.expression(given[one], depth + 1) if one in given else constant(defaults[one])
            for one in known.parameters
        ]
        if known.check is not None:
            written = [part.value if isinstance(part, nodes.Const) else MISSING for part in given.values()]
            wrong = known.check(*written) if written else None
            if wrong:
                raise self.refuse(node, f"{wrong}.")
        value, name = self.expression(node.node, depth + 1), described(node.node)
        apply, takes_missing = known.apply, known.takes_missing
        if known is FILTERS["default"] and "boolean" not in given:  # nearly every filter used
            fallback = arguments[0]
            return lambda frame: fallback(frame) if (found := value(frame)) is MISSING else found

        def applied(frame: Frame) -> Value:
            found = value(frame)
            if found is MISSING and not takes_missing:
                raise missing(name)
            frame.spend(cost(found))
            return apply(name, found, *[argument(frame) for argument in arguments])

        return applied

    def comparison(self, node: nodes.Compare, depth: int) -> Expression:
        left, name = self.expression(node.expr, depth + 1), described(node.expr)
        rest = [(COMPARISONS[one.op], self.expression(one.expr, depth + 1)) for one in node.ops]

        def compare(frame: Frame) -> Value:
            # A chain as Python has it: a < b < c is a < b and b < c.
            one = left(frame)
            for holds, expression in rest:
                other = expression(frame)
                frame.spend(cost(other))
                try:
                    if not holds(one, other):
                        return False
                except TypeError as error:
                    raise RenderError("NOT_COMPARABLE", f"{name} is not of the kind it is compared with.") from error
                one = other
            return True

        return compare

    def junction(self, node: nodes.And | nodes.Or, depth: int) -> Expression:
        left, right = self.expression(node.left, depth + 1), self.expression(node.right, depth + 1)
        if isinstance(node, nodes.And):
            return lambda frame: right(frame) if truth(one := left(frame)) else one
        return lambda frame: one if truth(one := left(frame)) else right(frame)
