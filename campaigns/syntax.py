"""Jinja2's syntax: parsed within bounds, and called by the names that authors know it by.

Only `env.parse` is used of Jinja2, which neither folds nor runs anything; campaigns/templates.py walks what it gives.
"""

from jinja2 import Environment, TemplateSyntaxError, nodes

from campaigns.errors import CampaignError

MOST_TOKENS = 5_000
"""Jinja2 takes 10 us a token, and each template is read several times before it is sent."""
MOST_OF_OURS = 5_000
"""Tokens of the at most 500 links, and an image, that campaigns/tracking.py puts into HTML: nine each."""
MOST_DEPTH = 40
"""Of syntax nested in syntax. Jinja2's parser makes chains (`a and a and ...`) without recursion; we recurse."""

ENVIRONMENT = Environment(autoescape=False)
"""Parses only; nothing is ever rendered by it."""


def parse(source: str, *, field: tuple[str, ...], limit: int, most_tokens: int = MOST_TOKENS) -> nodes.Template:
    """The syntax tree of a template of bearable size. Raises CampaignError like `compile_template`."""
    size = len(source.encode("utf-8", "replace"))
    if size > limit:
        message = f"The template has {size:,} bytes; at most {limit:,} are taken."
        raise CampaignError("TEMPLATE_TOO_LARGE", message, field=field)
    try:
        # Counted while they are made, so that a flood of them stops early.
        for tokens, _ in enumerate(ENVIRONMENT.lex(source), start=1):
            if tokens > most_tokens:
                message = f"The template has more than {most_tokens:,} pieces of syntax; simplify it."
                raise CampaignError("TEMPLATE_TOO_LARGE", message, field=field)
        return ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        message = f"Line {error.lineno}: {(error.message or 'this is no template syntax').rstrip('.')}."
        raise CampaignError("TEMPLATE_SYNTAX", message, field=field) from error
    except RecursionError as error:
        message = "The template nests too deeply; use fewer parentheses and blocks inside each other."
        raise CampaignError("TEMPLATE_SYNTAX", message, field=field) from error
    except ValueError as error:  # a number of more than 4,300 digits
        message = "The template has a number or a text that cannot be read."
        raise CampaignError("TEMPLATE_SYNTAX", message, field=field) from error


def tag_name(node: nodes.Node) -> str:
    """What a refused statement is called in a template."""
    kind = type(node).__name__.lower()
    return TAGS.get(kind, kind)


TAGS = {
    "assign": "set",
    "assignblock": "set",
    "callblock": "call",
    "filterblock": "filter",
    "fromimport": "from",
    "scope": "autoescape",
}


def described(node: nodes.Node | None, depth: int = 0) -> str:
    """An expression as its author would recognize it, filters left away."""
    if depth > MOST_DEPTH:
        return "this value"
    match node:
        case nodes.Filter():
            return described(node.node, depth + 1)
        case nodes.Name():
            return node.name
        case nodes.Getattr():
            return f"{described(node.node, depth + 1)}.{node.attr}"
        case nodes.Getitem(arg=nodes.Const(value=str() as key)) if key.isidentifier():
            return f"{described(node.node, depth + 1)}.{key}"
        case nodes.Getitem(arg=nodes.Const(value=key)):
            shown = repr(key[:40]) if isinstance(key, str) else str(key)
            return f"{described(node.node, depth + 1)}[{shown}]"
        case _:
            return "this value"


def unchanged(node: nodes.Node | None) -> bool:
    """Whether an expression prints the value of a name as it is."""
    while isinstance(node, nodes.Filter) and node.name in ("url", "trim", "e", "escape"):
        node = node.node
    return isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem)
