"""What is known of a person, and what an event carries: JSON objects within bounds, and how traits are merged."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import Any

import orjson

from profiles.errors import ProfileError
from profiles.text import check_storable

TraitValue = str | int | float | bool | list[str]
Traits = dict[str, TraitValue]
"""Traits as they are kept."""
TraitChanges = dict[str, TraitValue | None]
"""Traits as they come in: merged key by key, None removes."""
JsonValue = str | int | float | bool | list["JsonValue"] | dict[str, "JsonValue"] | None

MOST_KEYS = 256
MOST_KEY_CHARACTERS = 100
MOST_BYTES = 64 * 1024
MOST_DEPTH = 8
MOST_INTEGER = 2**63 - 1
PLAIN_TYPES = frozenset((str, float, int, bool, type(None)))


def clean_traits(value: object, *, field: tuple[str, ...] = ("traits",)) -> TraitChanges:
    """Trait changes that may be kept: texts, numbers, booleans, lists of text, or None to remove a trait.

    Raises ProfileError with the path of the trait: NOT_AN_OBJECT, TOO_MANY_KEYS, INVALID_KEY, INVALID_VALUE,
    UNSTORABLE_TEXT or TOO_LARGE.
    """
    items = clean_keys(value, field=field)
    traits: TraitChanges = {key: clean_trait(item, field=(*field, key)) for key, item in items.items()}
    check_size(traits, field=field)
    return traits


def clean_trait(value: object, *, field: tuple[str, ...]) -> TraitValue | None:
    """One trait's value; raises ProfileError INVALID_VALUE or UNSTORABLE_TEXT."""
    if value is None or isinstance(value, str | bool | int | float):
        return clean_scalar(value, field=field)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        for item in value:
            check_storable(item, field=field)
        return list(value)
    raise ProfileError(
        "INVALID_VALUE", "A trait is a text, a number, a boolean, a list of texts, or null to remove it.", field=field
    )


def clean_properties(value: object, *, field: tuple[str, ...] = ("properties",)) -> dict[str, JsonValue]:
    """An event's properties: any JSON within the same bounds as traits, nested at most 8 deep, null kept as null.

    Raises ProfileError as `clean_traits` does, and TOO_DEEP.
    """
    properties = {key: clean_json(item, 1, field=(*field, key)) for key, item in clean_keys(value, field=field).items()}
    check_size(properties, field=field)
    return properties


def properties_text(value: object, *, field: tuple[str, ...] = ("properties",)) -> str:
    """Like `clean_properties`, as JSON text. Most are flat and plain, and seen to be so at a tenth of the cost."""
    if not is_plain(value):
        value = clean_properties(value, field=field)
    text = orjson.dumps(value)
    if len(text) > MOST_BYTES:
        check_size(value, field=field)
    return text.decode()


def properties_texts(values: Sequence[object]) -> list[str]:
    """`properties_text` of each; raises ProfileError when one of them is refused.

    Looked at all together where all are objects of plain values, as they are in most batches.
    """
    objects = [value for value in values if type(value) is dict]
    # Many events have none, which need no look.
    told = [value for value in objects if value]
    if len(objects) < len(values) or not are_plain(told):
        return [properties_text(value) for value in values]
    texts = list(map(orjson.dumps, told))
    if max(map(len, texts), default=0) > MOST_BYTES:
        return [properties_text(value) for value in values]
    following = map(bytes.decode, texts)
    return [next(following) if value else "{}" for value in objects]


def is_plain(value: object) -> bool:
    """Whether `value` is surely an object that `clean_properties` would take as it is; False says nothing."""
    return type(value) is dict and are_plain([value])


def are_plain(values: Sequence[dict[Any, Any]]) -> bool:
    """Whether all of these are surely taken as they are by `clean_properties`; False says nothing."""
    if max(map(len, values), default=0) > MOST_KEYS:
        return False
    keys = set[Any]().union(*values)
    if not all(type(key) is str and 0 < len(key) <= MOST_KEY_CHARACTERS and key.isprintable() for key in keys):
        return False
    items = list(chain.from_iterable(map(dict.values, values)))
    if not set(map(type, items)) <= PLAIN_TYPES:
        return False
    whole = [item for item in items if type(item) is int]
    # Half a surrogate pair is not printable, nor is U+0000. A sum is not finite if one of its parts is not.
    return (
        "".join([item for item in items if type(item) is str]).isprintable()
        and isfinite(sum([item for item in items if type(item) is float]))
        and min(whole, default=0) >= -MOST_INTEGER
        and max(whole, default=0) <= MOST_INTEGER
    )


def clean_json(value: object, depth: int, *, field: tuple[str, ...]) -> JsonValue:
    """Any JSON value at `depth` of a document."""
    if value is None or isinstance(value, str | bool | int | float):
        return clean_scalar(value, field=field)
    if depth >= MOST_DEPTH:
        raise ProfileError("TOO_DEEP", f"Nested more than {MOST_DEPTH} deep: flatten it.", field=field)
    if isinstance(value, list | tuple):
        return [clean_json(item, depth + 1, field=(*field, str(at))) for at, item in enumerate(value)]
    if isinstance(value, Mapping):
        items = clean_keys(value, field=field)
        return {key: clean_json(item, depth + 1, field=(*field, key)) for key, item in items.items()}
    raise ProfileError("INVALID_VALUE", f"{type(value).__name__} is no JSON value.", field=field)


def clean_scalar(value: str | int | float | bool | None, *, field: tuple[str, ...]) -> str | int | float | bool | None:
    if isinstance(value, str):
        check_storable(value, field=field)
    elif isinstance(value, float):
        if not isfinite(value):
            raise ProfileError("INVALID_VALUE", "A number must be finite: leave it out instead.", field=field)
        return as_read(value)
    elif isinstance(value, int) and abs(value) > MOST_INTEGER:
        raise ProfileError("INVALID_VALUE", "A whole number must fit 64 bits: send it as text.", field=field)
    return value


def as_read(value: float) -> int | float:
    """`value` as jsonb gives it back, so that the same sent again is no change: 1e16 comes back as a whole number,
    -0.0 without its sign."""
    if value == 0:
        return 0.0
    return int(value) if abs(value) >= 1e16 and -(2**63) <= value < 2**64 else value


def clean_keys(value: object, *, field: tuple[str, ...]) -> Mapping[str, object]:
    """`value` as an object whose keys may be kept."""
    if not isinstance(value, Mapping):
        raise ProfileError("NOT_AN_OBJECT", "Must be a JSON object of names and values.", field=field)
    if len(value) > MOST_KEYS:
        raise ProfileError("TOO_MANY_KEYS", f"Has {len(value)} keys: send at most {MOST_KEYS}.", field=field)
    for key in value:
        if not isinstance(key, str) or not 1 <= len(key) <= MOST_KEY_CHARACTERS:
            raise ProfileError(
                "INVALID_KEY", f"A key must be a text of 1 to {MOST_KEY_CHARACTERS} characters.", field=field
            )
        check_storable(key, field=field)
    return value


def check_size(value: object, *, field: tuple[str, ...]) -> None:
    size = len(orjson.dumps(value))
    if size > MOST_BYTES:
        raise ProfileError("TOO_LARGE", f"Has {size} bytes as JSON: send at most {MOST_BYTES}.", field=field)


def merged(traits: Traits, changes: Mapping[str, TraitValue | None]) -> Traits:
    """`traits` after `changes`, key by key; None removes. Neither argument is changed.

    Raises ProfileError TOO_MANY_KEYS or TOO_LARGE when the result passes the bounds of one person's traits.
    """
    after: Traits = dict(traits)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    if len(after) > MOST_KEYS:
        raise ProfileError(
            "TOO_MANY_KEYS",
            f"The profile would have {len(after)} traits: remove some by null, at most {MOST_KEYS} can be kept.",
            field=("traits",),
        )
    check_size(after, field=("traits",))
    return after


def same_json(one: object, other: object) -> bool:
    """Whether two JSON values are the same; unlike ==, which takes 1, 1.0 and True for equal."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
