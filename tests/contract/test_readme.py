"""README.md and docs/settings.md are held against the code: settings, limits, commands, and every operation sent."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from graphql import GraphQLSchema, OperationDefinitionNode, build_schema
from graphql.execution import get_variable_values

from app import cli, limits, reading, settings
from app.api.paging import LARGEST_PAGE
from campaigns.banner_checks import DATA_LIMIT
from campaigns.banners import MOST_PLACEMENTS
from campaigns.emails import BODY_LIMIT
from campaigns.ledger import GIVE_UP_AFTER
from campaigns.program import OUTPUT_LIMIT
from campaigns.rehearsal import MOST_TEST_RECIPIENTS
from profiles.events import MOST_AHEAD, MOST_EVENTS, OLDEST
from profiles.profiles import MOST_IDS, MOST_INPUTS
from profiles.retention import EVENT_KEYS_KEPT
from profiles.traits import MOST_BYTES, MOST_KEYS
from segments.limits import Limits
from segments.memberfile import MOST_ROWS
from segments.static import MOST_IDS as MOST_MEMBERS
from tests.app.caller import OPERATIONS

FILE = OPERATIONS.parent / "schema.graphql"
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SETTINGS = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
LONGEST = 290
"""Lines: a page that is read from top to bottom, and tables."""
PAGES = (README, FILE.with_name("README.md").read_text(encoding="utf-8"))
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
# In Docker the program is the image's entry point.
OURS = re.compile(r"(?:^|(?<=[(\s]))(?:muster|docker compose run --rm api) ").finditer

LIMITS = {
    "segments of a workspace, without EVERYONE and archived ones": (
        f"{settings.Settings.model_fields['segment_limit'].default} (`MUSTER_SEGMENT_LIMIT`)"
    ),
    "conditions of a segment": f"{Limits().leaves} (`MUSTER_CONDITION_LEAVES`), nested {Limits().depth} deep"
    " (`MUSTER_CONDITION_DEPTH`)",
    "people added to a static segment at once; as CSV": f"{MOST_MEMBERS:,}; {MOST_ROWS:,} rows",
    "profiles or events in one request": f"{min(MOST_INPUTS, MOST_EVENTS):,}",
    "traits of a profile": f"{MOST_KEYS} keys, {MOST_BYTES // 1024} KB",
    "age of an event; ahead of the clock": f"{OLDEST.days // 365} years; {MOST_AHEAD.days} day",
    "time in which a repeated `messageId` is recognized": f"{EVENT_KEYS_KEPT.days} days",
    "recipients of a test send": f"{MOST_TEST_RECIPIENTS}",
    "text or HTML of an email; finished": f"{BODY_LIMIT // 1024} KB; {OUTPUT_LIMIT // 1000} KB",
    "time in which a mail is tried again": f"{GIVE_UP_AFTER.days} days",
    "placements in one fetch of banners; data of a banner": f"{MOST_PLACEMENTS}; {DATA_LIMIT // 1024} KB",
    "items of a page": f"{LARGEST_PAGE}",
    "body of a GraphQL request; of POST /v1/events; values in one; different names of them": (
        f"{limits.LARGEST_GRAPHQL_BODY // 10**6} MB; {limits.LARGEST_EVENTS_BODY // 10**6} MB; {limits.MOST_MARKS:,};"
        f" {limits.MOST_NAMES:,}"
    ),
    "a GraphQL document": (
        f"{limits.LONGEST_QUERY:,} characters, {limits.MOST_TOKENS} words and signs, {limits.MOST_FIELDS:,} fields,"
        f" {limits.MOST_DEPTH} levels, {limits.MOST_ALIASES} aliases"
    ),
    "profiles of an installation, ever": f"{MOST_IDS:,}",
}


class Sent(NamedTuple):
    """One operation that README sends with its function `ask`."""

    document: str
    variables: dict[str, Any]


def section(heading: str) -> str:
    """What stands under a heading of the second level."""
    parts = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def rows(text: str) -> list[str]:
    """The rows of the one table of a text, without its head."""
    return re.findall(r"^\|.*\|$", text, re.MULTILINE)[2:]


def sent() -> Iterator[Sent]:
    """What README sends. Variables of the shell stay as they are: ids are strings like any other."""
    for block in SHELL.findall(README):
        words = shlex.split(block.replace("\\\n", " "), comments=True)
        for place, word in enumerate(words):
            if word == "ask":
                yield Sent(words[place + 1], json.loads(words[place + 2]))


def told_commands(text: str) -> list[list[str]]:
    """The words of each command of ours that a page tells people to type, without the program's name."""
    blocks = "".join(SHELL.findall(text)).replace("\\\n", " ")
    return [words(line[begin.end() :]) for line in [*SPAN.findall(text), *blocks.splitlines()] for begin in OURS(line)]


def words(line: str) -> list[str]:
    """The words of a shell's line up to where its first command ends."""
    # Not posix: words keep their quotes, so that ';' does not end the command.
    reader = shlex.shlex(line, punctuation_chars=True)
    reader.whitespace_split = True
    return list(takewhile(lambda word: not set(word) <= set("();<>|&"), reader))


def wrong_with(command: list[str]) -> str | None:
    """What of a command does not exist; None when it may be typed."""
    found: Any = typer.main.get_command(cli.app)
    left = list(command)
    while left and hasattr(found, "commands"):
        name = left.pop(0)
        if name not in found.commands:
            return f"there is no {name}"
        found = found.commands[name]
    known = {name for one in found.params for name in one.opts} | {"--help"}
    unknown = [word for word in left if word.startswith("--") and word not in known]
    return f"{found.name} has no {unknown[0]}" if unknown else None


@pytest.fixture(scope="module")
def published() -> GraphQLSchema:
    return build_schema(FILE.read_text(encoding="utf-8"))


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert rows(SETTINGS) == [f"| `{r.name}` | {r.default} | {r.meaning} |" for r in settings.documentation()]


def test_the_table_of_limits_is_that_of_the_code() -> None:
    assert rows(section("Limits")) == [f"| {what} | {most} |" for what, most in LIMITS.items()]


@pytest.mark.parametrize("one", list(sent()), ids=lambda one: re.findall(r"\{ *(\w+)", one.document)[0])
def test_an_operation_and_its_variables_fit_the_schema(published: GraphQLSchema, one: Sent) -> None:
    document, errors = reading.prepared(published, one.document, False)
    assert errors == []
    (operation,) = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    asked = operation.variable_definitions or ()
    values = get_variable_values(published, asked, one.variables)
    assert not isinstance(values, list), values
    assert {declared.variable.name.value for declared in asked} == set(one.variables)


def test_operations_are_found() -> None:
    assert len(list(sent())) >= 10


def test_every_command_exists() -> None:
    told = [command for page in PAGES for command in told_commands(page)]
    assert len(told) >= 10
    assert {" ".join(command): wrong for command in told if (wrong := wrong_with(command))} == {}


def test_a_wrong_command_would_be_found() -> None:
    text = "`muster workspaces create` and\n```sh\nKEY=$(muster key create \\\n  --name ';' --kinds b)\n```\n"
    assert told_commands(text) == [["workspaces", "create"], ["key", "create", "--name", "';'", "--kinds", "b"]]
    assert list(map(wrong_with, told_commands(text))) == ["there is no workspaces", "create has no --kinds"]


def test_the_page_is_short() -> None:
    assert len(README.splitlines()) <= LONGEST
