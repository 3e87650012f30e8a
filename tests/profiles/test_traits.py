"""Traits and properties: their bounds, and how traits are merged."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.addresses import AddressHasher
from profiles.errors import ProfileError
from profiles.profiles import ProfileInput
from profiles.traits import (
    MOST_BYTES,
    TraitChanges,
    Traits,
    clean_properties,
    clean_traits,
    merged,
    properties_texts,
    same_json,
)
from tests.profiles import people

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
KEYS = st.sampled_from(["plan", "age", "tags", "vip", "città"])
VALUES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(TEXTS, max_size=3),
)
TRAITS = st.dictionaries(KEYS, VALUES)
CHANGES = st.dictionaries(KEYS, st.none() | VALUES)


@given(TRAITS, CHANGES, CHANGES)
@settings(max_examples=100, deadline=None)
def test_merging_sets_what_is_given_removes_what_is_null_and_keeps_the_rest(
    traits: Traits, changes: TraitChanges, later: TraitChanges
) -> None:
    changes, later = clean_traits(changes), clean_traits(later)
    before = orjson.dumps([traits, changes])
    after = merged(traits, changes)
    assert all(same_json(after.get(key), value) for key, value in changes.items())
    untouched = {key: value for key, value in traits.items() if key not in changes}
    assert same_json({key: value for key, value in after.items() if key not in changes}, untouched)
    assert None not in after.values()
    # Twice is once, one after the other is both at once, and the arguments are as they were.
    assert same_json(merged(after, changes), after)
    assert same_json(merged(after, later), merged(traits, changes | later))
    assert orjson.dumps([traits, changes]) == before


def test_merging_past_the_bounds_of_one_person_is_refused() -> None:
    full: Traits = {f"trait {at}": at for at in range(256)}
    with pytest.raises(ProfileError) as refused:
        merged(full, {"one more": 1})
    assert (refused.value.code, refused.value.field) == ("TOO_MANY_KEYS", ("traits",))
    assert len(merged(full, {"one more": 1, "trait 0": None})) == 256
    with pytest.raises(ProfileError) as refused:
        merged({"long": "x" * 40_000}, {"longer": "y" * 40_000})
    assert (refused.value.code, refused.value.field) == ("TOO_LARGE", ("traits",))


UNKEPT: list[tuple[object, str, tuple[str, ...]]] = [
    ("text", "NOT_AN_OBJECT", ()),
    (["plan"], "NOT_AN_OBJECT", ()),
    (None, "NOT_AN_OBJECT", ()),
    ({str(at): 1 for at in range(257)}, "TOO_MANY_KEYS", ()),
    ({"": 1}, "INVALID_KEY", ()),
    ({"k" * 101: 1}, "INVALID_KEY", ()),
    ({5: 1}, "INVALID_KEY", ()),
    ({"a\0": 1}, "UNSTORABLE_TEXT", ()),
    ({"plan": "a\0b"}, "UNSTORABLE_TEXT", ("plan",)),
    ({"plan": "a\udfff"}, "UNSTORABLE_TEXT", ("plan",)),
    ({"tags": ["ok", "\ud800"]}, "UNSTORABLE_TEXT", ("tags",)),
    ({"tags": ["ok", 1]}, "INVALID_VALUE", ("tags",)),
    ({"home": {"city": "Bonn"}}, "INVALID_VALUE", ("home",)),
    ({"since": datetime(2026, 1, 1, tzinfo=UTC)}, "INVALID_VALUE", ("since",)),
    ({"id": uuid4()}, "INVALID_VALUE", ("id",)),
    ({"age": float("nan")}, "INVALID_VALUE", ("age",)),
    ({"age": float("-inf")}, "INVALID_VALUE", ("age",)),
    ({"age": 2**63}, "INVALID_VALUE", ("age",)),
    ({"bio": "x" * 65_536}, "TOO_LARGE", ()),
]


def test_traits_that_cannot_be_kept_are_refused_by_their_path() -> None:
    for value, code, path in UNKEPT:
        with pytest.raises(ProfileError) as refused:
            clean_traits(value)
        assert (refused.value.code, refused.value.field) == (code, ("traits", *path))


def nested(depth: int) -> object:
    value: object = "deep"
    for _ in range(depth):
        value = [value]
    return value


def test_properties_are_any_json_within_bounds() -> None:
    kept = {"none": None, "list": [1, 2.5, {"a": [True]}], "text": "ü", "deep": nested(7)}
    assert clean_properties(kept) == kept
    refused: dict[tuple[str, tuple[str, ...]], object] = {
        ("TOO_DEEP", ("properties", "a", *["0"] * 7)): {"a": nested(8)},
        ("UNSTORABLE_TEXT", ("properties", "a", "1", "b")): {"a": [0, {"b": "\0"}]},
        ("UNSTORABLE_TEXT", ("properties", "a")): {"a": {"\ud800": 1}},
        ("INVALID_VALUE", ("properties", "a", "0")): {"a": [UUID(int=1)]},
        ("INVALID_VALUE", ("properties", "n")): {"n": float("inf")},
        ("NOT_AN_OBJECT", ("properties",)): [1],
        ("TOO_LARGE", ("properties",)): {"a": ["x" * 40_000, "y" * 40_000]},
    }
    for expected, value in refused.items():
        with pytest.raises(ProfileError) as refusal:
            clean_properties(value)
        assert (refusal.value.code, refusal.value.field) == expected


def test_properties_of_a_batch_are_each_in_its_place() -> None:
    """Whether all are flat or not, and those that have none too."""
    flat: list[object] = [{}, {"a": 1}, {}, {}, {"b": "ü", "c": None}, {}]
    texts = ["{}", '{"a":1}', "{}", "{}", '{"b":"ü","c":null}', "{}"]
    assert properties_texts(flat) == texts
    assert properties_texts([*flat, {"d": {}}]) == [*texts, '{"d":{}}']
    assert properties_texts([]) == []
    refused: list[object] = [[], "", 0, None, {"a": "x" * MOST_BYTES}, {"": 1}]
    for value in refused:
        with pytest.raises(ProfileError):
            properties_texts([*flat, value])


def test_values_that_python_takes_for_equal_are_told_apart() -> None:
    assert not same_json({"vip": True}, {"vip": 1})
    assert not same_json({"vip": 1}, {"vip": 1.0})
    assert same_json({"a": 1, "b": ["x"]}, {"b": ["x"], "a": 1})


async def test_a_number_sent_again_as_it_was_is_no_change(
    workspace: UUID, hasher: AddressHasher, now: datetime
) -> None:
    """The database writes numbers in its own way."""
    numbers = [0, -0.0, 2.0, 0.1, 1e-7, 1e15, 1e16, -1e16, 1e19, -1e19, 1e22, 1.7976931348623157e308, 2**63 - 1]
    wanted = ProfileInput("ann", traits={str(at): number for at, number in enumerate(numbers)})
    for _ in range(2):
        [ann] = await people.put(workspace, wanted, hasher=hasher, now=now)
        assert list((await people.find(workspace, "ann")).traits.values()) == numbers
    assert await people.touched(workspace) == [ann]
