"""What the documents say is so: links lead somewhere, commands and names exist, and the diagrams are the code's."""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import pytest

from campaigns.lifecycle import BANNER_MOVES, MESSAGE_MOVES
from db import ddl
from db.leaner_ledger import STATES as STATES_OF_DELIVERY
from segments.lifecycle import MOVES as SEGMENT_MOVES

State = TypeVar("State", bound=StrEnum)

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "campaigns", "channels", "db", "profiles", "segments", "workers")
STATES = ROOT / "docs" / "states.md"
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
DECISION_PARTS = ["Context", "Decision", "Consequences", "Alternatives"]
LONGEST_DECISION = 70
"""Lines; a page."""

FENCED = re.compile(r"^(`{3,}|~{3,})(\w*)[^\n]*\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
TARGET = re.compile(r"^([a-z][\w-]*)(?:\s+[a-z][\w-]*)*\s*:(?!=)", re.MULTILINE)
CITED_PAGE = re.compile(r"\bdocs/(?:adr/\d{4}\b(?!-)|[\w/-]+\.md)")
CITED_FILE = re.compile(r"^([\w.-]+(?:/[\w.*-]+)+/?)(?:(?:: |::)(\w+))?$")
CITED_NAME = re.compile(r"^([a-z_]+)\.([A-Za-z_]\w*)$")
ENDINGS = {"graphql", "json", "lock", "md", "py", "sh", "sql", "toml", "txt", "yml"}
TRANSITION = re.compile(r"^\s*(\[\*\]|\w+)\s*-->\s*(\[\*\]|\w+)\s*(?::.*)?$", re.MULTILINE)
RESERVED = re.compile(r"^Not in use yet: ((?:`\w+`(?:, )?)+)", re.MULTILINE)
TOLD_MOVE = re.compile(r"`(\w+) → (\w+)`")
OUTSIDE = "[*]"


# --- reading pages ------------------------------------------------------------------------------------------------


def pages() -> list[Path]:
    """Every Markdown page of the project; what tools put into hidden folders and `build` is not ours."""
    found = [*ROOT.glob("*.md")]
    for folder in ROOT.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name != "build":
            found += folder.rglob("*.md")
    return sorted(found)


PAGES = pages()
FOR_DEVELOPERS = [page for page in PAGES if page.name == "CONTRIBUTING.md" or "docs" in page.relative_to(ROOT).parts]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def spans(text: str) -> list[str]:
    """What stands between backticks, on one line each."""
    return [" ".join(span.split()) for span in CODE_SPAN.findall(FENCED.sub("", text))]


def anchors(text: str) -> set[str]:
    """What a link to a heading may say after its #, as forges write it."""
    headings = HEADING.findall(FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a page that stay inside the project."""
    targets = [inline or reference for inline, reference in LINK.findall(FENCED.sub("", text))]
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def dead_links(page: Path, text: str) -> list[str]:
    return [link for link in links(text) if not leads_somewhere(link, page, text)]


def leads_somewhere(link: str, page: Path, text: str) -> bool:
    path, _, heading = link.partition("#")
    goal = (page.parent / path).resolve() if path else page
    if not goal.exists() or not heading or goal.suffix != ".md":
        return goal.exists()
    return heading in anchors(text if goal == page else goal.read_text())


def make_targets(text: str) -> set[str]:
    """What a page tells people to give to make."""
    lines = [*spans(text), *(line for _, _, code in FENCED.findall(text) for line in code.splitlines())]
    told: set[str] = set()
    for line in lines:
        for command in re.split(r"&&|\|\||[;|]", line.strip().removeprefix("$ ")):
            words = command.split(" #")[0].strip()
            if words == "make" or words.startswith("make "):
                told |= {word for word in shlex.split(words)[1:] if re.fullmatch(r"[a-z][\w-]*", word)}
    return told


# --- reading code -------------------------------------------------------------------------------------------------


def definitions(file: Path) -> set[str]:
    """Names that a module defines, with those of its classes' members."""
    return set(defined(ast.parse(file.read_text()).body))


def defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name, body=members):
                yield name
                yield from defined(members)
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def modules() -> dict[str, list[Path]]:
    """Our modules by the name one says of them in prose: `ledger` is campaigns/ledger.py."""
    found: dict[str, list[Path]] = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            found.setdefault(file.stem, []).append(file)
    return found


MODULES = modules()


def missing_files(text: str) -> list[str]:
    """Files, and names in files (`campaigns/sending.py: start`), that a page cites and nobody has written."""
    missing = []
    for span in spans(text):
        cited = CITED_FILE.match(span)
        if cited is None or not (ROOT / cited[1].split("/")[0]).is_dir():
            continue
        files = list(ROOT.glob(cited[1].rstrip("/")))
        if not files or (cited[2] and not any(cited[2] in definitions(file) for file in files)):
            missing.append(span)
    return missing


def missing_names(text: str) -> list[str]:
    """Names of our modules (`ledger.record`) that a page cites and the module does not define."""
    missing = []
    for span in spans(text):
        cited = CITED_NAME.match(span)
        if cited is None or cited[1] not in MODULES or cited[2] in ENDINGS:
            continue
        if not any(cited[2] in definitions(file) for file in MODULES[cited[1]]):
            missing.append(span)
    return missing


def allowed_states(table: str) -> set[str]:
    """The states that the newest CHECK of a table lets in."""
    if table == "delivery":
        added = r"ADD CONSTRAINT delivery_state_check CHECK \(state IN \((.*?)\)\)"
        newest = re.search(added, STATES_OF_DELIVERY, re.DOTALL)
        assert newest is not None
        return set(re.findall(r"'(\w+)'", newest[1]))
    text = "\n".join((ddl.WORKSPACES, ddl.PROFILES, ddl.SEGMENTS, ddl.CAMPAIGNS))
    columns = re.search(rf"CREATE TABLE {table} \((.*?)\n\)", text, re.DOTALL)
    assert columns is not None
    check = re.search(r"\b(?:state|status) text NOT NULL CHECK \(\w+ IN \((.*?)\)\)", columns[1], re.DOTALL)
    assert check is not None
    return set(re.findall(r"'(\w+)'", check[1]))


# --- reading diagrams ---------------------------------------------------------------------------------------------


def section(heading: str) -> str:
    """The part of docs/states.md under a heading of the second level."""
    parts = re.split(r"^## (.+)$", STATES.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def drawn(text: str) -> set[tuple[str, str]]:
    """The transitions of the one state diagram of a section, as (from, to); [*] is outside."""
    diagrams = [code for _, language, code in FENCED.findall(text) if language == "mermaid"]
    assert len(diagrams) == 1
    lines = [line for line in diagrams[0].splitlines() if line.strip()]
    assert lines[0] == "stateDiagram-v2"
    moves = TRANSITION.findall("\n".join(lines[1:]))
    assert len(moves) == len(set(moves)) == len([line for line in lines if "-->" in line])
    return set(moves)


def between_states(moves: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(start, goal) for start, goal in moves if OUTSIDE not in (start, goal)}


def as_pairs(table: Mapping[State, frozenset[State]]) -> set[tuple[str, str]]:
    return {(start.value, goal.value) for start, goals in table.items() for goal in goals}


DIAGRAMS = {
    "Campaign: email and push": "campaign",
    "Campaign: banner": "campaign",
    "Delivery": "delivery",
    "Segment": "segment",
    "Evaluation": "evaluation",
}


# --- the tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_heading_of_the_project(page: Path) -> None:
    assert dead_links(page, page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_command_exists(page: Path) -> None:
    assert make_targets(page.read_text()) <= set(TARGET.findall((ROOT / "Makefile").read_text()))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_a_page_cites_exists(page: Path) -> None:
    assert missing_files(page.read_text()) == []


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=named)
def test_every_name_a_page_cites_exists(page: Path) -> None:
    assert missing_names(page.read_text()) == []


@pytest.mark.parametrize(
    ("heading", "moves"),
    [
        ("Campaign: email and push", as_pairs(MESSAGE_MOVES)),
        ("Campaign: banner", as_pairs(BANNER_MOVES)),
        ("Segment", as_pairs(SEGMENT_MOVES)),
    ],
)
def test_the_code_moves_as_drawn(heading: str, moves: set[tuple[str, str]]) -> None:
    """S3-26, S3x-15, S2-26: docs/states.md and the tables of moves say the same."""
    picture = drawn(section(heading))
    assert between_states(picture) == moves
    goals_without_a_way_on = {goal for _, goal in moves} - {start for start, _ in moves}
    assert {start for start, goal in picture if goal == OUTSIDE} == goals_without_a_way_on


def test_campaigns_have_the_states_that_the_table_lets_in() -> None:
    assert {state.value for state in MESSAGE_MOVES.keys() | BANNER_MOVES.keys()} == allowed_states("campaign")


@pytest.mark.parametrize("heading", ["Delivery", "Segment", "Evaluation"])
def test_a_diagram_has_the_states_that_the_table_lets_in(heading: str) -> None:
    text = section(heading)
    states = {state for move in drawn(text) for state in move} - {OUTSIDE}
    reserved = {state for line in RESERVED.findall(text) for state in re.findall(r"\w+", line)}
    assert not states & reserved
    assert states | reserved == allowed_states(DIAGRAMS[heading])


@pytest.mark.parametrize("heading", DIAGRAMS)
def test_every_move_that_is_drawn_is_told_and_no_other(heading: str) -> None:
    text = section(heading)
    assert set(TOLD_MOVE.findall(text)) == between_states(drawn(text))


@pytest.mark.parametrize("page", DECISIONS, ids=named)
def test_a_decision_is_a_page_of_four_parts_and_says_what_enforces_it(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == DECISION_PARTS
    assert len(text.splitlines()) <= LONGEST_DECISION
    assert "Enforced by" in text


def test_the_contract_folder_holds_no_python() -> None:
    """One such file, and `import graphql` in the checkout would find it instead of the library (docs/adr/0001)."""
    assert list((ROOT / "graphql").rglob("*.py*")) == []


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [page.name[:4] for page in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    assert DECISIONS


def test_every_page_that_code_cites_exists() -> None:
    """Comments name a decision by its number and other pages by their path."""
    cited = {page for files in MODULES.values() for file in files for page in CITED_PAGE.findall(file.read_text())}
    assert any(page.startswith("docs/adr/") for page in cited)
    assert [page for page in cited if not list(ROOT.glob(page if page.endswith(".md") else f"{page}-*.md"))] == []


def test_a_dead_link_a_wrong_command_and_a_wrong_name_would_be_found() -> None:
    text = (
        "[a](Makefile) [b](docs/nowhere.md) [c](https://example.com/x) ![d](#no-such-part)\n\n"
        "# A `part`\n[e](#a-part)\n\n"
        '```sh\n$ make demo KEEP=1 && make nonsense # make this\n```\n`make test ARGS="-k word"` and make a tea\n\n'
        "`db/nowhere.py`, `db/roles.py: Role`, `db/roles.py: Rule`, `db/*.py`, `ledger.record`, `ledger.clam`\n"
    )
    assert dead_links(ROOT / "CONTRIBUTING.md", text) == ["docs/nowhere.md", "#no-such-part"]
    assert make_targets(text) == {"demo", "nonsense", "test"}
    assert missing_files(text) == ["db/nowhere.py", "db/roles.py: Rule"]
    assert missing_names(text) == ["ledger.clam"]


def test_a_move_drawn_wrongly_would_be_found() -> None:
    diagram = "```mermaid\nstateDiagram-v2\n  [*] --> DRAFT\n  DRAFT --> SENT: at once\n  SENT --> [*]\n```\n"
    assert between_states(drawn(diagram)) == {("DRAFT", "SENT")}
    assert not between_states(drawn(diagram)) <= as_pairs(MESSAGE_MOVES)
