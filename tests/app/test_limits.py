"""Each limit by itself: what is hostile is beyond several, so that one that did not hold is not missed."""

from collections.abc import Callable
from typing import Any

import pytest
from graphql import parse

from app import limits
from app.limits import TooMuch, check_document, is_too_much

LIMITS = {
    "MOST_OPERATIONS", "MOST_DEPTH", "MOST_ALIASES", "MOST_DIRECTIVES", "MOST_FIELDS", "MOST_STEPS", "MOST_PAIRS",
}  # fmt: skip


def each(many: int, text: str) -> str:
    """`text` so many times, with its number for an N."""
    return " ".join(text.replace("N", str(number)) for number in range(many))


DOCUMENTS: dict[str, tuple[str, Callable[[int], str]]] = {
    "operations": ("MOST_OPERATIONS", lambda many: each(many, "query QN { a }")),
    "levels": ("MOST_DEPTH", lambda many: "{ a " * many + "}" * many),
    "aliases": ("MOST_ALIASES", lambda many: f"{{ {each(many, 'aN: b')} }}"),
    "aliases of a fragment": ("MOST_ALIASES", lambda many: f"{{ ...F }} fragment F on T {{ {each(many, 'aN: b')} }}"),
    "directives of a field": ("MOST_DIRECTIVES", lambda many: f"{{ a {each(many, '@x')} }}"),
    "directives of an operation": ("MOST_DIRECTIVES", lambda many: f"query {each(many, '@x')} {{ a }}"),
    "directives of a fragment": ("MOST_DIRECTIVES", lambda many: f"fragment F on T {each(many, '@x')} {{ a }}"),
    "directives of a spread": ("MOST_DIRECTIVES", lambda many: f"{{ ...F {each(many, '@x')} }}"),
    "directives of an inline fragment": ("MOST_DIRECTIVES", lambda many: f"{{ ... {each(many, '@x')} {{ a }} }}"),
    "fields": ("MOST_FIELDS", lambda many: f"{{ {each(many, 'aN')} }}"),
    "fields of a fragment": ("MOST_FIELDS", lambda many: f"{{ ...F }} fragment F on T {{ {each(many, 'aN')} }}"),
    "steps": ("MOST_STEPS", lambda many: f"{{ {each(many, 'aN')} }}"),
    "steps of several operations": (
        "MOST_STEPS",
        lambda many: f"query A {{ {each(many // 2, 'aN')} }} query B {{ {each(many - many // 2, 'aN')} }}",
    ),
    "pairs of fields": ("MOST_PAIRS", lambda many: f"{{ {each(many, 'aN aN')} }}"),
}
"""The limit, and documents that cost as much of it as they are told to."""


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_as_much_as_a_limit_says_is_read_and_one_more_is_not(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, costing = DOCUMENTS[document]
    for other in LIMITS - {limit}:
        monkeypatch.setattr(limits, other, 10**6)
    most: int = getattr(limits, limit)
    check_document(parse(costing(most)), "")
    with pytest.raises(TooMuch):
        check_document(parse(costing(most + 1)), "")


def test_every_limit_has_a_document() -> None:
    assert {limit for limit, _ in DOCUMENTS.values()} == LIMITS


def test_what_adds_no_level_to_the_answer_is_not_nested_without_end() -> None:
    deep = limits.MOST_DEPTH * 3 - 1
    check_document(parse("{ " + "... { " * deep + "a" + " }" * deep + " }"), "")
    with pytest.raises(TooMuch):
        check_document(parse("{ " + "... { " * (deep + 1) + "a" + " }" * (deep + 1) + " }"), "")


VALUES: dict[str, tuple[int, Callable[[int], Any]]] = {
    "variables": (limits.MOST_ENTRIES, lambda many: dict.fromkeys(map(str, range(many)))),
    "fields of an input": (limits.MOST_ENTRIES, lambda many: {"a": dict.fromkeys(map(str, range(many)))}),
    "fields of one in a list": (limits.MOST_ENTRIES, lambda many: {"a": [dict.fromkeys(map(str, range(many)))]}),
    "items": (limits.MOST_VALUES, lambda many: {"a": ["x"] * many}),
    "items of lists in lists": (limits.MOST_VALUES, lambda many: {"a": [["x"] * (many - 2), []]}),
    "objects": (1_200, lambda many: {"a": [{}] * many}),
    "objects in objects": (1_200, lambda many: {"a": {"b": [{}] * many}}),
}
"""Variables of so many values, and how many may be; an object counts as ten of 12,000."""


@pytest.mark.parametrize("name", sorted(VALUES))
def test_as_many_values_as_may_be_are_taken_and_one_more_is_not(name: str) -> None:
    most, variables = VALUES[name]
    assert [is_too_much(variables(many)) for many in (most, most + 1)] == [False, True]
