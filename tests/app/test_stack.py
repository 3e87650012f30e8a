"""The whole of Muster on one machine, as `muster up` and `muster demo` start it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.processes import CannotStart
from app.stack import Stack, running_settings
from tests.app.commands import MACHINE, command, muster


def fetched(url: str) -> object:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started once for this module, on servers of its own."""
    with Stack(tmp_path_factory.mktemp("stack"), environ=MACHINE, durable=False) as running:
        yield running


def test_everything_answers(stack: Stack) -> None:
    assert fetched(f"{stack.api_url}/readyz") == {"ready": True, "missing": []}
    assert fetched(f"{stack.mailbox_url}/api/counts") == {
        "received": 0,
        "unique": 0,
        "duplicates": 0,
        "campaigns": {},
    }
    assert set(stack.processes) == {"api", "worker", "mailbox"}


def test_commands_in_another_terminal_find_the_running_stack(stack: Stack, tmp_path: Path) -> None:
    place = {"MUSTER_DATA_DIR": str(stack.folder)}
    made = muster("workspace", "create", "acme", environ=place, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    key = command("key", "create", "--workspace", "acme", "--kind", "publishable", "--scope", "ingest", environ=place)
    assert key.stdout.startswith("mpk_"), key.stderr


def test_no_process_has_the_owners_login_and_the_files_are_ours_alone(stack: Stack) -> None:
    assert "DATABASE_OWNER_URL" not in stack.environ
    for name in ("address_key", "token_key", "login", "environment"):
        assert (stack.folder / name).stat().st_mode & 0o077 == 0


def test_a_second_stack_in_the_folder_is_refused(stack: Stack) -> None:
    with pytest.raises(CannotStart, match="in use by process"), Stack(stack.folder, environ=MACHINE):
        pass
    assert fetched(f"{stack.api_url}/readyz") == {"ready": True, "missing": []}


def test_a_port_that_somebody_else_listens_on_is_refused_before_anything_starts(stack: Stack, tmp_path: Path) -> None:
    taken = stack.environ["MUSTER_API_PORT"]
    with pytest.raises(CannotStart, match=f"MUSTER_API_PORT: port {taken} is in use"):
        Stack(tmp_path, environ=MACHINE | {"MUSTER_API_PORT": taken}).start()
    assert not (tmp_path / "postgres").exists()


def test_up_prints_the_addresses_and_ctrl_c_stops_all_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "up"]
    environ = MACHINE | {"MUSTER_DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    up = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert up.stdout is not None
    said = []
    for line in up.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    settings = running_settings(tmp_path)
    up.send_signal(signal.SIGINT)
    rest, _ = up.communicate(timeout=120)
    assert up.returncode == 0, "".join(said) + rest
    assert f"http://127.0.0.1:{settings['MUSTER_API_PORT']}/graphql" in "".join(said)
    assert running_settings(tmp_path) == {}
    assert not (tmp_path / "postgres" / "data" / "postmaster.pid").exists()


def test_a_process_that_dies_is_told_with_its_last_words(stack: Stack) -> None:
    """The last test of the module: nothing of its stack is left afterwards."""
    pids = [process.pid for process in stack.processes.values()]
    stack.processes["api"].kill()
    with pytest.raises(CannotStart, match=r"(?s)api ended with -9.*startup complete") as told:
        stack.wait()
    stack.stop()
    assert told.value.code == "PROCESS_ENDED"
    assert running_settings(stack.folder) == {}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
