"""Log lines: facts beside a constant message, never an address."""

import json
import logging
from collections.abc import Iterator

import pytest

from app import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What `configure` changes is the process's; pytest's own handlers come back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.TALKATIVE}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_json_lines_hold_message_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(form="json", level="INFO")
    logging.getLogger("campaigns.sending").info("claimed", extra={"campaign_id": "c1", "claimed": 500, "took_ms": 1.5})
    logging.getLogger("campaigns.sending").debug("not at this level")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry.pop("at").endswith("+00:00")
    assert entry == {
        "level": "INFO",
        "logger": "campaigns.sending",
        "message": "claimed",
        "campaign_id": "c1",
        "claimed": 500,
        "took_ms": 1.5,
    }


def test_text_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(form="text", level="INFO")
    logging.getLogger("workers").warning("child ended", extra={"exit_code": 1})
    assert capsys.readouterr().err.endswith("WARNING workers child ended exit_code=1\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_addresses_and_passwords_in_urls_are_withheld(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(form="json" if form == "json" else "text", level="INFO")
    text = "Key (email)=(anna@example.com) exists; see postgresql://muster:secret@db/muster"
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("x").exception("refused %s", "<bob@example.com>", extra={"answer": "550 carl@example.com"})
    said = capsys.readouterr().err
    assert "example.com" not in said
    assert "secret" not in said
    assert said.count(logs.WITHHELD) == 4


def test_what_json_has_no_form_for_is_written_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(form="json", level="INFO")
    logging.getLogger("x").info("odd", extra={"half": "\ud800", "large": 2**80, "thing": object})
    entry = json.loads(capsys.readouterr().err)
    assert entry["large"] == 2**80
    assert entry["thing"] == "<class 'object'>"


@pytest.mark.parametrize(
    "library", ["arq.worker", "httpcore2.connection", "httpx2", "strawberry.execution", "tortoise.db_client"]
)
def test_libraries_do_not_write_statements_with_their_values(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor the addresses that they ask, with the tokens in them."""
    logs.configure(form="text", level="DEBUG")
    logging.getLogger(library).debug("SELECT 'private'")
    logging.getLogger(library).info("GET https://private.example")
    logging.getLogger("campaigns").debug("ours")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("DEBUG campaigns ours")


def test_a_long_text_takes_one_look() -> None:
    """The text of an exception may be long: a look from each of its characters would hold up everybody for hours."""
    text = "x" * 1_000_000
    assert logs.without_addresses(f"{text} ada@example.com") == f"{text} {logs.WITHHELD}"
    assert logs.without_addresses("<ada@example.com>,bob@example.com") == f"<{logs.WITHHELD}>,{logs.WITHHELD}"
