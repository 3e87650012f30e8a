"""Node packages that tests need: the audit of GraphQL over HTTP, the generator of typed clients, TypeScript.

`python -m tests.node` installs those of tests/node/package-lock.json into .venv/node-tests.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.node import NODE

HERE = Path(__file__).parent
FOLDER = Path(sys.prefix) / "node-tests"
TIMEOUT_S = 300


def run(program: Path, *arguments: str, at: Path) -> str:
    """What a program of Node says on standard output, run in the folder `at`; fails with all it said."""
    assert (FOLDER / "node_modules").is_dir(), "The packages of tests/node are missing. Run: python -m tests.node"
    done = subprocess.run(
        [NODE, program, *arguments],
        cwd=at,
        env={"PATH": str(NODE.parent), "NODE_PATH": str(FOLDER / "node_modules"), "NODE_ENV": "test"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
