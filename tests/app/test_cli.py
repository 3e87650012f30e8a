"""The program `muster`, run as people run it: its own process, exit codes, what it prints."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from app import imports
from tests.app.commands import command, muster
from tests.conftest import LOGIN_PASSWORD, Database, Servers, database_url, on_server

PEOPLE = "customer,address,plan\n1,anna@example.com,gold\n2,no address at all,tin\n3,carl@example.com,tin\n"
PURCHASES = "customer,at,euros\n1,2026-01-05T10:00:00Z,12.50\n3,2026-01-06T10:00:00Z,7\n3,never,7\n"


# --- refusing to start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["api", "worker", "migrate"])
def test_wrong_settings_are_all_listed_and_the_exit_code_is_2(command: str, tmp_path: Path) -> None:
    done = muster(command, environ={"MUSTER_LOG_LEVEL": "LOUD", "MUSTER_TYPO": "1"}, folder=tmp_path)
    assert done.returncode == 2
    for name in ("MUSTER_LOG_LEVEL", "MUSTER_TYPO", "DATABASE_URL is missing"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["up"], ["demo", "--cdnow", "."], ["mailbox"]])
def test_what_is_for_development_does_not_start_in_production(arguments: list[str], tmp_path: Path) -> None:
    done = command(*arguments, environ={"MUSTER_ENV": "production"}, folder=tmp_path)
    assert done.returncode == 2
    assert "production" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_said_in_a_sentence(environ: dict[str, str], tmp_path: Path) -> None:
    away = environ | {"DATABASE_URL": "postgresql://muster:secret@127.0.0.1:1/muster"}
    done = muster("api", environ=away, folder=tmp_path)
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_another_address_key_than_before_stops_api_and_worker(environ: dict[str, str], tmp_path: Path) -> None:
    assert command("workspace", "create", "first", environ=environ, folder=tmp_path).returncode == 0
    keep = command("import", "profiles", str(people(tmp_path)), *MAPPED, "--workspace", "first", environ=environ)
    assert keep.returncode == 0, keep.stderr
    for process in ("api", "worker"):
        done = command(process, environ=environ | {"MUSTER_ADDRESS_KEY": "x" * 40}, folder=tmp_path)
        assert done.returncode == 2
        assert "MUSTER_ADDRESS_KEY is not the key" in done.stderr


# --- migrating ----------------------------------------------------------------------------------------------------


async def test_two_migrations_at_once_both_succeed(servers: Servers, tmp_path: Path) -> None:
    await on_server(servers.postgres.url, "CREATE DATABASE migrated_twice")
    environ = {
        "DATABASE_URL": database_url(servers.postgres.url, "migrated_twice", login="muster"),
        "DATABASE_OWNER_URL": database_url(servers.postgres.url, "migrated_twice"),
    }
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda _: command("migrate", environ=environ, folder=tmp_path), range(2)))
    assert [(run.returncode, run.stderr) for run in runs] == [(0, ""), (0, "")]
    assert [run.stdout.splitlines()[-1] for run in runs] == ["the schema is that of this version"] * 2
    connection = await asyncpg.connect(environ["DATABASE_URL"])
    assert await connection.fetchval("SELECT to_regclass('delivery') IS NOT NULL")
    await connection.close()
    await on_server(servers.postgres.url, "DROP DATABASE migrated_twice WITH (FORCE)")
    assert LOGIN_PASSWORD not in runs[0].stdout + runs[1].stdout


# --- one workspace ------------------------------------------------------------------------------------------------

MAPPED = ["--map", "customer=external_id", "--map", "address=email", "--map", "plan=traits.plan"]


def people(folder: Path) -> Path:
    file = folder / "people.csv"
    file.write_text(PEOPLE)
    return file


def test_a_workspace_is_made_filled_and_verified(environ: dict[str, str], tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command(*arguments, environ=environ, folder=tmp_path)

    made = run("workspace", "create", "acme", "--time-zone", "Europe/Berlin", "--consent", "OPT_IN")
    assert (made.returncode, made.stderr) == (0, "")
    assert len(made.stdout.strip()) == 36

    again = run("workspace", "create", "acme")
    assert again.returncode == 1
    assert "exists" in again.stderr

    key = run("key", "create", "--workspace", "acme", "--kind", "secret", "--scope", "read", "--scope", "send")
    assert key.returncode == 0, key.stderr
    assert key.stdout.startswith("msk_")
    (listed,) = run("key", "list", "--workspace", "acme").stdout.splitlines()
    key_id, prefix, kind, state, scopes, *_ = listed.split()
    assert (prefix, kind, state, scopes) == (key.stdout[:12], "secret", "live", "read,send")
    turned = run("key", "rotate", key_id, "--workspace", "acme", "--hours", "2")
    assert (turned.returncode, turned.stderr.split()[:3]) == (0, [prefix, "live", "until"]), turned.stderr
    revoked = run("key", "revoke", f"key_{UUID(key_id).hex}", "--workspace", "acme")  # as the audit log names it
    assert (revoked.returncode, revoked.stdout.split()[:2]) == (0, [prefix, "revoked"]), revoked.stderr
    assert run("key", "create", "--workspace", "acme", "--kind", "secret", "--role", "sender").returncode == 0
    rows = [line.split() for line in run("key", "list", "--workspace", "acme").stdout.splitlines()]
    assert [row[1:4] for row in rows[1:]] == [[turned.stdout[:12], "secret", "live"], [prefix, "secret", "revoked"]]
    assert rows[0][4] == "SENDER"
    assert run("worker", "--check").returncode == 1  # none has announced itself
    wrong_scope = run("key", "create", "--workspace", "acme", "--kind", "secret", "--scope", "everything")
    assert wrong_scope.returncode == 1
    assert "everything" in wrong_scope.stderr

    first = run("import", "profiles", str(people(tmp_path)), "--workspace", "acme", *MAPPED)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("3 rows: 2 new, 0 changed, 0 known already, 1 rejected")
    rejects = (tmp_path / "people.rejects.csv").read_text().splitlines()
    assert len(rejects) == 2
    assert rejects[1].startswith("3,")
    assert "profiles: 3 rows" in first.stderr
    second = run("import", "profiles", str(people(tmp_path)), "--workspace", "acme", *MAPPED, "--strict")
    assert second.returncode == 1
    assert second.stdout.startswith("3 rows: 0 new, 0 changed, 2 known already, 1 rejected")

    purchases = tmp_path / "purchases.csv"
    purchases.write_text(PURCHASES)
    events = run(
        *("import", "events", str(purchases), "--workspace", "acme", "--name", "purchase"),
        *("--map", "customer=external_id", "--map", "at=occurred_at", "--map", "euros=properties.value:number"),
        *("--rejects", str(tmp_path / "bad.csv")),
    )
    assert events.returncode == 0, events.stderr
    assert events.stdout.startswith("3 rows: 2 new, 0 changed, 0 known already, 1 rejected")
    assert (tmp_path / "bad.csv").exists()

    verified = run("verify", "--workspace", "acme")
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "agree" in verified.stdout


def test_a_mistake_at_the_terminal_names_the_mend(environ: dict[str, str], tmp_path: Path) -> None:
    file = str(people(tmp_path))
    unknown = command("import", "profiles", file, *MAPPED, "--workspace", "nobody", environ=environ, folder=tmp_path)
    assert unknown.returncode == 1
    assert "muster workspace create" in unknown.stderr
    unmapped = command("import", "profiles", file, "--workspace", "nobody", environ=environ, folder=tmp_path)
    assert unmapped.returncode == 2
    assert "--map" in unmapped.stderr
    column = command(
        "import", "profiles", file, "--map", "plan", "--workspace", "nobody", environ=environ, folder=tmp_path
    )
    assert column.returncode == 2
    assert "COLUMN=TARGET" in column.stderr


def test_a_column_may_have_an_equals_sign_in_its_name() -> None:
    assert imports.columns(["a=b=external_id", "plan=traits.plan:text"]) == {
        "a=b": "external_id",
        "plan": "traits.plan:text",
    }


async def test_verify_tells_what_disagrees(environ: dict[str, str], database: Database, tmp_path: Path) -> None:
    assert command("workspace", "create", "acme", environ=environ, folder=tmp_path).returncode == 0
    await on_server(
        database.owner_url,
        "INSERT INTO segment (workspace_id, name, description, type, status)"
        " SELECT id, 'Broken', '', 'STATIC', 'ACTIVE' FROM workspace",
        "INSERT INTO profile (workspace_id, external_id) SELECT id, 'anna' FROM workspace",
        "INSERT INTO membership (workspace_id, segment_id, profile_id, entered_at, reason)"
        " SELECT s.workspace_id, s.id, p.id, now(), 'MANUAL' FROM segment s JOIN profile p USING (workspace_id)"
        " WHERE s.name = 'Broken'",
    )
    done = command("verify", environ=environ, folder=tmp_path)
    assert done.returncode == 1
    assert "1 only in the intervals" in done.stdout


# --- keeping a worker running -------------------------------------------------------------------------------------

SUPERVISED = (
    "import sys; from app import supervisor; from app.supervisor import Supervisor\n"
    "supervisor.FIRST_PAUSE_S = 0.01\n"
    "sys.exit(Supervisor([sys.executable, '-c', sys.argv[1], *sys.argv[2:]]).run())"
)
# Notes each start; ends with 1 the first two times, then says so and waits for a signal.
CHILD = (
    "import pathlib, signal, sys\n"
    "file = pathlib.Path(sys.argv[1]); starts = len(file.read_text()) if file.exists() else 0\n"
    "file.write_text('x' * (starts + 1))\n"
    "if starts < 2: sys.exit(1)\n"
    "signal.signal(signal.SIGTERM, lambda *_: (file.write_text('drained'), sys.exit(0)))\n"
    "print('ready', flush=True); signal.pause()"
)


def test_a_child_that_ends_is_started_again_and_sigterm_lets_it_finish(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, CHILD, str(tmp_path / "starts")], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "ready\n"
    assert (tmp_path / "starts").read_text() == "xxx"
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(30) == 0
    assert (tmp_path / "starts").read_text() == "drained"
    supervisor.stdout.close()


def test_a_child_that_refuses_its_settings_is_not_started_again() -> None:
    done = subprocess.run([sys.executable, "-c", SUPERVISED, "import sys; sys.exit(2)"], check=False, timeout=60)
    assert done.returncode == 2
