"""The whole of Muster on one machine: servers, API, worker and mailbox as child processes.

`muster up`, `muster demo` and the tests of the whole path use it. Everything is kept in one folder (data, keys, ports,
logs), so that two checkouts do not meet.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.embedded import Server, start_postgres, start_valkey
from app.processes import CannotStart, choose_port, end, free_port, kept, launched, take, write_private

DATABASE = "muster"
LOGIN = "muster"
READY_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 90.0
"""A worker's turn lasts 25 s at most, and the last answers may be as slow as MUSTER_SEND_TIMEOUT_S."""
PORTS = ("MUSTER_API_PORT", "MUSTER_MAILBOX_PORT", "MUSTER_MAILBOX_SMTP_PORT")
STOP_ORDER = ("worker", "api", "mailbox")
"""The mailbox after the worker: messages under way end, claims go back."""
ENVIRONMENT_FILE = "environment"

DATABASE_EXISTS = "SELECT 1 FROM pg_database WHERE datname = $1"


class Stack:
    """Start with `with Stack(folder, environ=os.environ) as stack`, stopped when the block ends.

    DATABASE_URL and REDIS_URL of `environ` are used if they are set; else servers are started in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str],
        durable: bool = True,
        logs_to_terminal: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`durable=False` is for databases of tests; `report` gets a line for each step."""
        self.folder = folder.resolve()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """Our own, by name: api, worker, mailbox."""
        self.environ: dict[str, str] = {}
        """What they are started with: all settings of API, worker and mailbox."""
        self.owner_url = ""
        self.postgres: Server | None = None
        self.valkey: Server | None = None
        self._given = dict(environ)
        self._durable = durable
        self._logs_to_terminal = logs_to_terminal
        self._report = report
        self._lock = -1

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.environ['MUSTER_API_PORT']}"

    @property
    def mailbox_url(self) -> str:
        """Of the mailbox's page and JSON API."""
        return f"http://127.0.0.1:{self.environ['MUSTER_MAILBOX_PORT']}"

    def start(self) -> None:
        """Start everything and wait until it answers. Raises CannotStart; then nothing is left running."""
        self._lock = take(self.folder)
        if os.geteuid() == 0:
            # PostgreSQL may have to run as nobody, who must pass here; what is secret in here is closed by itself.
            self.folder.chmod(0o711)
        try:
            self.check_ports()
            self.start_servers()
            self.environ = self.settings()
            self.run("migrate", extra={"DATABASE_OWNER_URL": self.owner_url})
            for name in ("mailbox", "api", "worker"):
                self.start_process(name)
            self.wait_until_ready("mailbox", port=self.environ["MUSTER_MAILBOX_PORT"], path="/api/counts")
            self.wait_until_ready("api", port=self.environ["MUSTER_API_PORT"], path="/readyz")
            write_private(self.folder / ENVIRONMENT_FILE, "".join(f"{k}={v}\n" for k, v in self.own_settings().items()))
        except BaseException:
            self.stop()
            raise

    def check_ports(self) -> None:
        """Raises CannotStart when a port that was asked for is taken; who listens there would pass for ours."""
        for name in PORTS:
            port = self._given.get(name, "")
            if port.isdecimal() and free_port(int(port)) is None:
                message = f"{name}: port {port} is in use; give another one, or none to have one chosen."
                raise CannotStart("PORT_IN_USE", message)

    def start_servers(self) -> None:
        """PostgreSQL and Valkey, where no URL says that they run elsewhere."""
        if not self._given.get("DATABASE_URL"):
            self._report("starting PostgreSQL")
            self.postgres = start_postgres(self.folder / "postgres", durable=self._durable)
            asyncio.run(create_database(self.postgres.url))
        if not self._given.get("REDIS_URL"):
            self._report("starting Valkey")
            self.valkey = start_valkey(self.folder / "valkey")

    def settings(self) -> dict[str, str]:
        """The environment of our processes: what was given, and the rest from the folder."""
        made: dict[str, str] = {"MUSTER_ENV": "development", "MUSTER_DATA_DIR": str(self.folder)}
        if self.postgres:
            password = kept(self.folder / "login", lambda: secrets.token_hex(32))
            self.owner_url = with_database(self.postgres.url, DATABASE)
            made["DATABASE_URL"] = with_login(self.owner_url, LOGIN, password)
        else:
            self.owner_url = self._given.get("DATABASE_OWNER_URL", "")
        if self.valkey:
            made["REDIS_URL"] = self.valkey.url
        for name in ("MUSTER_ADDRESS_KEY", "MUSTER_TOKEN_KEY"):
            made[name] = kept(self.folder / name.removeprefix("MUSTER_").lower(), lambda: secrets.token_urlsafe(48))
        made["MUSTER_SECRET_KEYS"] = kept(self.folder / "secret_keys", lambda: f"1:{secrets.token_urlsafe(48)}")
        for name in PORTS:
            file = self.folder / name.removeprefix("MUSTER_").lower()
            made[name] = self._given.get(name) or str(choose_port(file))
            write_private(file, made[name])
        made["MUSTER_SMTP_URL"] = f"smtp://127.0.0.1:{made['MUSTER_MAILBOX_SMTP_PORT']}"
        given = {name: value for name, value in self._given.items() if value and name != "DATABASE_OWNER_URL"}
        return made | given | {"MUSTER_DATA_DIR": str(self.folder)}

    def own_settings(self) -> dict[str, str]:
        """Of `environ`, what is ours and not the machine's."""
        return {
            name: value
            for name, value in sorted(self.environ.items())
            if name.startswith("MUSTER_") or name in ("DATABASE_URL", "REDIS_URL")
        }

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "app.cli", name]

    def run(self, name: str, *, extra: Mapping[str, str]) -> None:
        """Run one command of ours to its end. Raises CannotStart with what it said."""
        self._report(f"running muster {name}")
        done = subprocess.run(
            self.command(name), env={**self.environ, **extra}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise CannotStart("COMMAND_FAILED", f"muster {name} ended with {done.returncode}:\n{said}")

    def start_process(self, name: str) -> None:
        """Start API, worker or mailbox; its output goes to logs/NAME.log in the folder, or to the terminal."""
        self._report(f"starting {name}")
        log = None if self._logs_to_terminal else self.log_file(name).open("wb")
        try:
            self.processes[name] = subprocess.Popen(
                launched(self.command(name), ends_with_us=True),
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the whole session; these are stopped in order, by their pids.
                start_new_session=True,
            )
        finally:
            if log:
                log.close()

    def log_file(self, name: str) -> Path:
        logs = self.folder / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        return logs / f"{name}.log"

    def wait_until_ready(self, name: str, *, port: str, path: str) -> None:
        """Wait until the process answers 200. Raises CannotStart when one ends before, or after a minute."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            self.check()
            # Not urllib: it would ask a proxy of the environment for our own address.
            connection = HTTPConnection("127.0.0.1", int(port), timeout=5)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            except (OSError, HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.05)
        raise CannotStart("NOT_READY", f"{name} did not answer 200 to {path}.{self.said(name)}")

    def check(self) -> None:
        """Raises CannotStart when one of the processes or servers has ended."""
        servers = {"postgres": self.postgres, "valkey": self.valkey}
        running = self.processes | {name: server.process for name, server in servers.items() if server}
        for name, process in running.items():
            if process.poll() is not None:
                raise CannotStart("PROCESS_ENDED", f"{name} ended with {process.returncode}.{self.said(name)}")

    def said(self, name: str) -> str:
        """The last lines of a process's log, for a message."""
        file = self.folder / name / "log" if name in ("postgres", "valkey") else self.log_file(name)
        if not file.exists() or (self._logs_to_terminal and name in STOP_ORDER):
            return ""
        lines = file.read_text(errors="replace").strip().splitlines()[-15:]
        return f" {file} ends with:\n" + "\n".join(lines)

    def wait(self) -> None:
        """Wait for ever; raises CannotStart when something has ended by itself, KeyboardInterrupt on Ctrl-C."""
        while True:
            self.check()
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop everything by process id, in order, and wait until it is gone; a second call does nothing."""
        (self.folder / ENVIRONMENT_FILE).unlink(missing_ok=True)
        try:
            for name in ("worker", "api"):
                if name in self.processes:
                    self.processes[name].terminate()
            for name in STOP_ORDER:
                if name in self.processes:
                    end(self.processes.pop(name), [signal.SIGTERM], timeout_s=DRAIN_TIMEOUT_S)
            for server in (self.valkey, self.postgres):
                if server:
                    server.stop()
            self.valkey = self.postgres = None
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


async def create_database(server_url: str) -> None:
    """Make Muster's database on a server of ours, if it is not there."""
    connection = await asyncpg.connect(server_url)
    try:
        if not await connection.fetchval(DATABASE_EXISTS, DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


def with_database(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def with_login(url: str, login: str, password: str) -> str:
    """The same database for another login."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:{password}@{parts.hostname}:{parts.port}"))


def running_settings(folder: Path) -> dict[str, str]:
    """The settings of the stack that runs in `folder`; empty if none does."""
    try:
        lines = (folder / ENVIRONMENT_FILE).read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return {}
    return dict(line.split("=", 1) for line in lines)
