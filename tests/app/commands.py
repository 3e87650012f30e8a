"""The program `muster`, run as a process."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from app import cli

MACHINE = {name: text for name, text in os.environ.items() if not name.startswith(("MUSTER_", "DATABASE_", "REDIS_"))}
READY = multiprocessing.get_context("forkserver")
READY.set_forkserver_preload(["app.cli", "app.main", "db.migrate", "tests.app.commands"])


def muster(
    *arguments: str, environ: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One run of the program as at a terminal, in an environment without settings but `environ`."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        command,
        env=MACHINE | {"PYTHONPATH": root} | (environ or {}),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def begin(arguments: tuple[str, ...], environ: dict[str, str], folder: Path, said: list[Path]) -> None:
    """In the new process: what Python does before it comes to `main`."""
    for number, file in enumerate(said, start=1):
        with file.open("ab") as out:
            os.dup2(out.fileno(), number)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["muster", *arguments]
    cli.main()


def started(*arguments: str, environ: dict[str, str], folder: Path, said: list[Path]) -> ForkServerProcess:
    """The program in a process that has its modules already, with no settings but `environ`; to import them takes ten
    times what most commands do. Its output and its errors go to the two files of `said`."""
    process = READY.Process(target=begin, args=(arguments, environ, folder, said))
    process.start()
    return process


def command(
    *arguments: str, environ: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """As `muster`, in a process of `started`."""
    with TemporaryDirectory() as made:
        said = [Path(made, "stdout"), Path(made, "stderr")]
        process = started(*arguments, environ=MACHINE | (environ or {}), folder=folder or Path.cwd(), said=said)
        process.join(120)
        assert process.exitcode is not None, arguments
        out, err = (file.read_text() for file in said)
        return subprocess.CompletedProcess(arguments, process.exitcode, out, err)
