"""A compiled template: what runs for each recipient, and what it may cost.

A template becomes a tuple of steps: finished bytes, or a closure that appends some. There is no interpreter that could
be led astray: a step reads the frame's values, calls one of our filters, and appends text. Everything that could
grow is counted while it grows, so that the costliest template allowed stays within fractions of a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from campaigns.errors import RenderError

TEXT_LIMIT = 10_240
"""Characters of one text out of the context; longer ones are cut."""
ITEM_LIMIT = 100
"""Items of one list out of the context; what follows is left out."""
FILTER_LIMIT = 65_536
"""Characters that a filter may make; more fails the recipient."""
ITERATION_LIMIT = 1_000
"""Rounds of all loops of one text together."""
WORK_LIMIT = 100_000
"""One unit for each node visited in a loop, each filter and each comparison, 100 for each KB that these read: the
slowest filter (title, 5 ms for 10 KB) then takes half a second at most."""
OUTPUT_LIMIT = 512_000
"""Bytes of one encoded text."""


class Missing(Enum):
    """What a name stands for when the recipient has no such value, or has null."""

    MISSING = "missing"


MISSING = Missing.MISSING
Value = str | int | float | bool | datetime | Missing | list["Value"] | dict[str, "Value"] | None


class Frame:
    """One rendering under way."""

    __slots__ = ("iterations", "out", "room", "scope", "urls", "work")

    def __init__(self, scope: dict[str, Value], out: list[bytes], urls: Sequence[bytes] = ()) -> None:
        self.scope, self.out, self.urls = scope, out, urls
        self.room, self.iterations, self.work = OUTPUT_LIMIT, ITERATION_LIMIT, WORK_LIMIT

    def spend(self, work: int) -> None:
        self.work -= work
        if self.work < 0:
            raise RenderError("TOO_MUCH_WORK", "The template does too much for one recipient; use fewer filters.")

    def write(self, chunk: bytes) -> None:
        self.room -= len(chunk)
        if self.room < 0:
            raise RenderError("TOO_LARGE", f"The text grows beyond {OUTPUT_LIMIT // 1000} KB; loop over less.")
        self.out.append(chunk)


Step = bytes | Callable[[Frame], None]
Expression = Callable[[Frame], Value]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How text becomes bytes, so that what never changes is encoded once and not for each recipient.

    Both must give pieces that can be joined in any order: see campaigns/mime.py for quoted-printable.
    """

    static: Callable[[str], bytes]
    """For the template's own text."""
    value: Callable[[str], bytes]
    """For what comes out of `{{ }}`; escapes it as well."""


def plain(text: str) -> bytes:
    """Text as UTF-8; a lone surrogate, which no encoding has, becomes a question mark."""
    return text.encode("utf-8", "replace")


PLAIN = Encoding(plain, plain)


@dataclass(frozen=True, slots=True)
class Read:
    """A value that a template asks the context for."""

    find: Expression
    default: Value
    """What is declared to stand for a missing one; MISSING when nothing is."""
    declared_as: str
    """The name under which a default can be declared; empty for what no recipient lacks."""


@dataclass(frozen=True, slots=True)
class Program:
    """A template ready to run, any number of times and from any task."""

    steps: tuple[Step, ...]
    reads: dict[str, Read]
    """What it reads out of the context, dotted: "profile.first_name"."""
    always: frozenset[str]
    """What it prints whatever the recipient, dotted: not inside a condition or a loop."""

    def render(self, scope: dict[str, Value], out: list[bytes], urls: Sequence[bytes] = ()) -> None:
        """Append the pieces of one recipient's text to `out`. Raises RenderError for this recipient only.

        `scope` is changed while loops run and restored after them. `urls` are this recipient's addresses in HTML whose
        links are tracked, encoded.
        """
        frame = Frame(scope, out, urls)
        run(self.steps, frame)
        frame.write(b"")


def run(steps: Sequence[Step], frame: Frame) -> None:
    """Run steps in order. What is finished is only counted here; the next value or round looks at the count."""
    out = frame.out
    for step in steps:
        if isinstance(step, bytes):
            frame.room -= len(step)
            out.append(step)
        else:
            step(frame)


def taken(value: Value) -> Value:
    """A value out of the context as templates see it: null is missing, long texts and lists are cut."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_LIMIT else value[:TEXT_LIMIT]
    if value is None:
        return MISSING
    if isinstance(value, list) and len(value) > ITEM_LIMIT:
        return value[:ITEM_LIMIT]
    return value


def to_text(name: str, value: Value) -> str:
    """A value as text. Raises RenderError, naming what it was, for a missing one, a list or an object."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError as error:  # more digits than Python prints
            raise RenderError("NOT_TEXT", f"{name} is too long a number.") from error
    if isinstance(value, datetime):
        return value.date().isoformat()
    if value is MISSING or value is None:
        raise missing(name)
    kind = "a list; loop over it, or join it" if isinstance(value, list) else "an object; name one of its fields"
    raise RenderError("NOT_TEXT", f"{name} is {kind}.")


def cost(value: Value) -> int:
    """Work units of a filter or comparison that reads `value`."""
    return 1 + 100 * (len(value) >> 10) if isinstance(value, str) else 1


def missing(name: str, *, instead: str = '"..."') -> RenderError:
    """The recipient has no such value; `instead` is how a value to take instead may be written."""
    mend = f"write {name} | default({instead})"
    return RenderError("MISSING_VALUE", f"There is no {name} for this recipient; {mend} to say what stands instead.")


def own_url(place: int) -> Step:
    """Appends the recipient's address at `place`: nothing to look up, and encoded already."""
    return lambda frame: frame.write(frame.urls[place])


def constant(value: Value) -> Expression:
    return lambda frame: value


def dotted(root: str, keys: Sequence[str | int]) -> str:
    """A path as templates write it: `traits.address.city`, `traits["first name"]`, `traits.lines[0]`."""
    parts = (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in keys)
    return root + "".join(parts)


def otherwise(expression: Expression, fallback: Value) -> Expression:
    """The value of an expression, or `fallback` where it is missing."""
    return lambda frame: fallback if (found := expression(frame)) is MISSING else found


def path(root: str, keys: Sequence[str | int]) -> Expression:
    """Follow names and places into the context; what is not there is MISSING."""
    if not keys:
        return lambda frame: taken(frame.scope.get(root))
    if len(keys) == 1 and isinstance(keys[0], str):  # nearly every one
        only = keys[0]

        def field(frame: Frame) -> Value:
            around = frame.scope.get(root)
            if not isinstance(around, dict):
                return MISSING
            value = around.get(only)
            return value if type(value) is str and len(value) <= TEXT_LIMIT else taken(value)

        return field

    def deep(frame: Frame) -> Value:
        value: Value = frame.scope.get(root)
        for key in keys:
            if isinstance(value, dict) and isinstance(key, str):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
                value = value[key]
            else:
                return MISSING
        return taken(value)

    return deep
