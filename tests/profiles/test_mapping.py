"""Which column becomes what, and what a cell is."""

from contextlib import suppress
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import ProfileError
from profiles.mapping import Target, ValueType, parse_mapping, to_boolean, to_number

HEADER = ["customer", "mail", "plan", "age", "plan:x", "twice", "twice"]


def targets(mapping: dict[str, str]) -> list[Target]:
    return parse_mapping(mapping, HEADER, single=("external_id", "email"), prefix="traits.")


def test_columns_go_to_single_targets_and_into_the_object_with_a_type() -> None:
    assert targets(
        {"customer": "external_id", " plan ": "traits.plan", "age": " traits.age:number", "mail": "email"}
    ) == [
        Target(0, "customer", "external_id", False, ValueType.TEXT),
        Target(2, " plan ", "plan", True, ValueType.TEXT),
        Target(3, "age", "age", True, ValueType.NUMBER),
        Target(1, "mail", "email", False, ValueType.TEXT),
    ]


def test_a_key_with_a_colon_says_its_type() -> None:
    assert targets({"plan": "traits.a:b:text"}) == [Target(2, "plan", "a:b", True, ValueType.TEXT)]


@pytest.mark.parametrize(
    ("mapping", "code"),
    [
        ({"nobody": "external_id"}, "MISSING_COLUMN"),
        ({"twice": "email"}, "AMBIGUOUS_COLUMN"),
        ({"mail": "e-mail"}, "UNKNOWN_TARGET"),
        ({"mail": "id"}, "UNKNOWN_TARGET"),
        ({"mail": ""}, "UNKNOWN_TARGET"),
        ({"age": "traits.age:int"}, "UNKNOWN_TARGET"),
        ({"age": "traits.:number"}, "BLANK"),
        ({"age": "traits." + "x" * 101}, "TOO_LONG"),
        ({"customer": "email", "mail": "email"}, "DUPLICATE_TARGET"),
        ({"customer": "traits.a", "mail": "traits.a:number"}, "DUPLICATE_TARGET"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused_by_its_column(mapping: dict[str, str], code: str) -> None:
    with pytest.raises(ProfileError) as refused:
        targets(mapping)
    assert (refused.value.code, refused.value.field) == (code, ("mapping", list(mapping)[-1]))


def test_a_missing_column_is_answered_with_those_there_are() -> None:
    with pytest.raises(ProfileError, match=r"no column 'e-mail', it has: customer, mail, plan"):
        targets({"e-mail": "email"})
    with pytest.raises(ProfileError, match=r"Is the delimiter right\?"):
        parse_mapping({"a": "email"}, ["a;b"], single=("email",), prefix="traits.")


@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_python_writes_it(number: float) -> None:
    read = to_number(str(number))
    assert (read, type(read)) == (number, type(number))


@given(st.text(max_size=30))
def test_no_text_makes_a_number_that_cannot_be_kept(text: str) -> None:
    # Anything but a number or the refusal fails the test.
    with suppress(ProfileError):
        assert isfinite(to_number(text))


@pytest.mark.parametrize(
    "text", ["", "twelve", "1,5", "1_000", "nan", "-inf", "1e999", "٣", "0x10", "9" * 19, "9" * 5000]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="is no number"):
        to_number(text)


def test_booleans_are_written_in_few_ways() -> None:
    assert [to_boolean(text) for text in ("true", "Yes", "1", "T", "y")] == [True] * 5
    assert [to_boolean(text) for text in ("FALSE", "no", "0", "f", "N")] == [False] * 5
    for text in ("", "on", "2", "ja"):
        with pytest.raises(ProfileError, match="is no boolean"):
            to_boolean(text)
