"""A change of the schema that breaks clients of the last release is announced in CHANGELOG, or does not pass."""

import re

from graphql import build_schema, find_breaking_changes

from tests.app.caller import OPERATIONS

GRAPHQL = OPERATIONS.parent
ROOT = GRAPHQL.parent
UNRELEASED = re.compile(r"^## Unreleased.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ANNOUNCED = re.compile(r"^### Breaking\n(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)


def breaks(before: str, after: str) -> list[str]:
    """A sentence for each change of the schema with which an operation or a client of before may fail."""
    return [change.description for change in find_breaking_changes(build_schema(before), build_schema(after))]


def announced(changelog: str) -> str:
    """What the changelog says under `Breaking` of what is not released yet, without line breaks and quotes."""
    unreleased = UNRELEASED.search(changelog)
    said = ANNOUNCED.search(unreleased[0]) if unreleased else None
    return plain(said[1]) if said else ""


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").replace("'", "").split())


def unannounced(before: str, after: str, changelog: str) -> list[str]:
    said = announced(changelog)
    return [sentence for sentence in breaks(before, after) if plain(sentence) not in said]


def test_what_breaks_clients_is_announced() -> None:
    before, after = ((GRAPHQL / name).read_text(encoding="utf-8") for name in ("released.graphql", "schema.graphql"))
    silent = unannounced(before, after, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert silent == [], "undo these, or write each sentence under Unreleased, ### Breaking in CHANGELOG.md"


BEFORE = """
enum Kind { STATIC DYNAMIC }
input Wanted { name: String! }
type Query { segment(name: String!): String, kinds(of: Wanted!): [Kind!]! }
"""
CHANGELOG = """
## Unreleased

### Added

- Much. Field Query.segment was removed.

### Breaking

- Field `Query.segment` was
  removed.

## 0.1.0
"""
GONE = ["Field Query.segment was removed."]


def test_what_adds_breaks_nothing() -> None:
    more = BEFORE.replace("DYNAMIC", "DYNAMIC EVERYONE").replace("name:", "note: String name:")
    assert breaks(BEFORE, more.replace("segment(", "people: Int! segment(")) == []


def test_what_takes_away_is_found_until_it_is_announced_as_breaking() -> None:
    after = BEFORE.replace("segment(name: String!): String,", "")
    assert unannounced(BEFORE, after, "") == GONE
    assert unannounced(BEFORE, after, CHANGELOG.replace("### Breaking", "### Changed")) == GONE
    assert unannounced(BEFORE, after, CHANGELOG.replace("## 0.1.0", "").replace("## Unreleased", "## 0.1.0")) == GONE
    assert unannounced(BEFORE, after, CHANGELOG) == []


def test_a_value_gone_a_field_required_and_another_type_are_breaks() -> None:
    assert len(breaks(BEFORE, BEFORE.replace("STATIC ", ""))) == 1
    assert len(breaks(BEFORE, BEFORE.replace("Wanted { name", "Wanted { note: String! name"))) == 1
    assert len(breaks(BEFORE, BEFORE.replace("): String", "): Int"))) == 1
