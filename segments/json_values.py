"""JSON values as conditions have them: each read strictly, each refusal with the path of its place."""

from collections.abc import Set as AbstractSet
from datetime import datetime
from math import isfinite
from uuid import UUID

from profiles.dates import read_date
from profiles.text import check_storable
from segments.errors import SegmentError, clean
from segments.nodes import Number, Scalar

Path = tuple[str, ...]

MOST_TEXT_CHARACTERS = 1000
MOST_INTEGER = 2**63 - 1
MOST_EXACT = 2**53
"""Up to here a float is a whole number exactly when it looks like one."""


def refusal(code: str, message: str, path: Path) -> SegmentError:
    return SegmentError(code, message, field=path)


def object_of(json: object, path: Path) -> dict[str, object]:
    if not isinstance(json, dict) or not all(isinstance(name, str) for name in json):
        raise refusal("INVALID_CONDITION", f"Expected an object with named parts, not {kind_of(json)}.", path)
    return json


def keys_of(
    json: object, path: Path, *, required: AbstractSet[str], optional: AbstractSet[str] = frozenset()
) -> dict[str, object]:
    """An object that has all `required` keys and no other than these and the `optional` ones."""
    node = object_of(json, path)
    known = required | optional
    for name in node.keys() - known:
        message = f"There is no {name!r} here; known are {', '.join(sorted(known))}."
        raise refusal("UNKNOWN_KEY", message, (*path, name))
    for name in sorted(required - node.keys()):
        raise refusal("MISSING_VALUE", f"{name} is missing; give it.", (*path, name))
    return node


def list_of(json: object, path: Path, *, most: int) -> list[object]:
    if not isinstance(json, list) or not 1 <= len(json) <= most:
        raise refusal("INVALID_VALUE", f"Expected a list of 1 to {most} items, not {kind_of(json)}.", path)
    return json


def text_of(json: object, path: Path, *, most: int) -> str:
    if not isinstance(json, str) or not 1 <= len(json) <= most:
        raise refusal("INVALID_VALUE", f"Expected a text of 1 to {most} characters, not {kind_of(json)}.", path)
    return storable(json, path)


def storable(text: str, path: Path) -> str:
    clean(check_storable, text, field=path)
    return text


def flag_of(json: object, path: Path) -> bool:
    if not isinstance(json, bool):
        raise refusal("INVALID_VALUE", f"Expected true or false, not {kind_of(json)}.", path)
    return json


def number_of(json: object, path: Path) -> Number:
    value = scalar_of(json, path)
    if isinstance(value, bool | str):
        raise refusal("INVALID_VALUE", f"Expected a number, not {kind_of(json)}.", path)
    return value


def scalar_of(json: object, path: Path) -> Scalar:
    """A text, a number or a boolean that PostgreSQL can hold in JSON; 5.0 is read as 5, so that both ask the same."""
    if isinstance(json, str):
        if len(json) > MOST_TEXT_CHARACTERS:
            raise refusal("INVALID_VALUE", f"Texts have at most {MOST_TEXT_CHARACTERS} characters here.", path)
        return storable(json, path)
    if isinstance(json, bool):
        return json
    if isinstance(json, int) and abs(json) <= MOST_INTEGER:
        return json
    if isinstance(json, int) and abs(json) < 2**64:
        # jsonb answers 1e19 as 10000000000000000000, and only beyond this range is that read as a float again.
        return float(json)
    if isinstance(json, float) and isfinite(json):
        return int(json) if json.is_integer() and abs(json) <= MOST_EXACT else json
    raise refusal("INVALID_VALUE", f"Expected a text, a number of 64 bits or a boolean, not {kind_of(json)}.", path)


def instant_of(json: object, path: Path) -> datetime:
    """An aware instant in UTC, of a text as profiles/dates.py reads them."""
    at = read_date(json)
    if at is None:
        message = "Expected a date or an instant, such as 2026-01-31 or 2026-01-31T09:30:00Z"
        raise refusal("INVALID_DATE", f"{message}, not {kind_of(json)}.", path)
    return at


def uuid_of(json: object, path: Path) -> UUID:
    try:
        return UUID(json if isinstance(json, str) else "")
    except ValueError:
        raise refusal("INVALID_ID", f"Expected an id, not {kind_of(json)}.", path) from None


def kind_of(json: object) -> str:
    """What a JSON value is, for messages; values themselves are not repeated."""
    match json:
        case None:
            return "null (leave it out instead)"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case "":
            return "an empty text"
        case str():
            return f"a text of {len(json)} characters"
        case list():
            return f"a list of {len(json)}"
        case dict():
            return "an object"
        case _:
            return type(json).__name__
