"""Every code that a message can have is explained, in the API and in docs/reasons.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from campaigns import reasons
from channels.smtp_answers import Loss

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.+) \|$", re.MULTILINE)
CODE = re.compile(r"[A-Z0-9]+(?:_[A-Z0-9]+)+")
"""Two words at least, which no SMTP verb has."""
OF_OTHER_KINDS = {"ACCEPTED", "MUSTER_SMTP_URL"}
SOURCES = [*(ROOT / "channels").glob("smtp*.py"), ROOT / "campaigns" / "transmission.py"]
TEMPLATES = [ROOT / "campaigns" / f"{name}.py" for name in ("filters", "mime", "program", "templates")]


def codes_in(file: Path) -> Iterator[str]:
    """Codes that a module gives to an Outcome or a RenderError, or writes anywhere in two words."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="Outcome"), args=[_, ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Call(func=ast.Name(id="RenderError"), args=[ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Constant(value=str(text)) if file in SOURCES and CODE.fullmatch(text):
                yield text


def test_every_code_of_channels_and_templates_has_a_sentence() -> None:
    given = {code for file in (*SOURCES, *TEMPLATES) for code in codes_in(file)} | set(Loss)
    assert {"POLICY", "TLS_UNAVAILABLE", "MISSING_VALUE", "CONNECTION_LOST", "LEASE_ENDED"} <= given
    assert given - OF_OTHER_KINDS - reasons.OF_MESSAGES.keys() == set()


def test_every_reason_of_ours_has_a_sentence() -> None:
    assert set(reasons.SKIPPED) == set(reasons.SkipReason)
    assert set(reasons.PAUSED) == set(reasons.PauseReason)
    assert set(reasons.PREPARING) == set(reasons.PrepareReason)


def test_the_guide_says_what_the_api_says() -> None:
    assert dict(ROW.findall(GUIDE)) == {**reasons.OF_MESSAGES, **reasons.PAUSED, **reasons.PREPARING}


def test_a_code_that_nobody_knows_is_not_hidden() -> None:
    assert reasons.explain("X_OF_A_PROVIDER") == "The provider gave a code of its own; its words say more."
