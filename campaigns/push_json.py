"""JSON that is written once for all recipients, with holes for what is each one's own.

Building a dict and encoding it for each recipient costs several times as much as putting escaped texts between bytes
that are finished. The result is what orjson makes of the same dict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from campaigns.errors import RenderError
from campaigns.program import Encoding, Frame, Step, plain, run


def escaped(text: str) -> bytes:
    """Text as it stands between the quotes of a JSON string; half a character (a lone surrogate) is a question mark."""
    try:
        return orjson.dumps(text)[1:-1]
    except orjson.JSONEncodeError:
        return orjson.dumps(plain(text).decode())[1:-1]


def escaped_twice(text: str) -> bytes:
    """Text as it stands in JSON that is itself the text of a JSON string."""
    return escaped(escaped(text).decode())


IN_JSON = Encoding(escaped, escaped)
IN_JSON_TEXT = Encoding(escaped_twice, escaped_twice)


@dataclass(frozen=True, slots=True)
class Hole:
    """A JSON string of which `steps` write what is between the quotes."""

    steps: tuple[Step, ...]


Tree = str | int | float | bool | Hole | Sequence["Tree"] | Mapping[str, "Tree"] | None
"""What a payload is made of: JSON, with holes."""


def encoded(tree: Tree) -> tuple[Step, ...]:
    """The steps that write `tree` as JSON; of a tree without holes one piece of bytes."""
    made: list[Step] = []
    write(tree, made, lambda piece: piece)
    return joined(made)


def as_text(tree: Tree) -> Hole:
    """`tree` as JSON in a JSON string; its holes were compiled with IN_JSON_TEXT."""
    made: list[Step] = []
    write(tree, made, lambda piece: escaped(piece.decode()))
    return Hole(joined(made))


def write(tree: Tree, made: list[Step], wrapped: Callable[[bytes], bytes]) -> None:
    """Append the steps of `tree`; what is finished goes through `wrapped`, holes are as they must be already."""
    match tree:
        case Hole():
            made += (wrapped(b'"'), *tree.steps, wrapped(b'"'))
        case Mapping():
            made.append(wrapped(b"{"))
            for place, (name, value) in enumerate(tree.items()):
                made.append(wrapped((b"," if place else b"") + b'"' + escaped(name) + b'":'))
                write(value, made, wrapped)
            made.append(wrapped(b"}"))
        case list() | tuple():
            made.append(wrapped(b"["))
            for place, value in enumerate(tree):
                if place:
                    made.append(wrapped(b","))
                write(value, made, wrapped)
            made.append(wrapped(b"]"))
        case str():
            made.append(wrapped(b'"' + escaped(tree) + b'"'))
        case _:
            made.append(wrapped(orjson.dumps(tree)))


def joined(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The same steps, with finished bytes beside each other in one piece."""
    made: list[Step] = []
    for step in steps:
        if isinstance(step, bytes) and made and isinstance(made[-1], bytes):
            made[-1] += step
        elif step != b"":
            made.append(step)
    return tuple(made)


def digits_of(name: str) -> Step:
    """Writes the whole number that the scope has under `name`."""
    return lambda frame: frame.write(b"%d" % cast(int, frame.scope[name]))


def checked(steps: tuple[Step, ...], accepts: Callable[[bytes], object], refusal: RenderError) -> tuple[Step, ...]:
    """Steps that raise `refusal` unless `accepts` what they have written, all of it together."""

    def write_checked(frame: Frame) -> None:
        start = len(frame.out)
        run(steps, frame)
        if not accepts(b"".join(frame.out[start:])):
            raise RenderError(refusal.code, refusal.message)

    return (write_checked,)
