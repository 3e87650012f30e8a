"""Where it happens: PostgreSQL, Valkey, API, sinks and workers, each a process of its own that can be killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from app.embedded import start_postgres, start_valkey
from app.processes import end, launched
from app.stack import Stack
from killtest.sink import RecordReader

GONE_WITHIN_S = 60.0


@dataclass(slots=True)
class Worker:
    """One `muster worker`: the process that people start, and its child, which does the work."""

    process: subprocess.Popen[bytes]
    watched: bool = True
    """False: no supervisor, the process itself does the work."""

    def working(self) -> int | None:
        """The process id of the one that sends; None while it starts anew or when all of it is dead."""
        if self.process.poll() is not None:
            return None
        if not self.watched:
            return self.process.pid
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return None
        # One that was just forked is the launcher still, and has not taken anything.
        return int(children[0]) if children else None

    def kill(self, *, whole: bool = False) -> int | None:
        """SIGKILL the one that sends; with `whole` its supervisor too, as when a machine dies. The id of the first."""
        sender = self.working()
        if whole and self.watched:
            # The supervisor first: it would start another. Its end asks the child to end gently, but the child is
            # killed right behind.
            self.process.kill()
        if sender is not None:
            os.kill(sender, signal.SIGKILL)
        if whole:
            self.process.wait(GONE_WITHIN_S)
        return sender

    def sockets(self) -> frozenset[str]:
        """The inodes of the sockets of the one that sends."""
        found = set()
        sender = self.working()
        for handle in Path(f"/proc/{sender}/fd").glob("*") if sender else ():
            try:
                target = os.readlink(handle)
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Socket:
    """One TCP connection of this machine, seen from one of its ends."""

    local_port: int
    remote_port: int
    inode: str


def sockets() -> list[Socket]:
    """All that are open (proc(5), /proc/net/tcp)."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        local, remote = (int(end.partition(":")[2], 16) for end in columns[1:3])
        found.append(Socket(local, remote, columns[9]))
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """What every process of a yard is started with."""

    concurrency: int = 64
    lease_s: int = 20
    send_timeout_s: int = 30
    pause_s: float = 0.25
    """What the sink needs for a message."""
    seed: int = 1


@dataclass
class Yard:
    """`with Yard(folder, settings) as yard`: servers and API run, workers are started by each test."""

    folder: Path
    settings: Settings
    say: Callable[[str], None] = lambda line: None
    hurried: bool = False
    """Short form: the sweep comes as soon as there is something to sweep, not every ten seconds."""
    workers: list[Worker] = field(default_factory=list)
    started: int = 0
    """Workers so far, for the names of their logs."""
    stack: Stack = field(init=False)
    record: RecordReader = field(init=False)
    sink_port: int = field(init=False)
    push_record: RecordReader = field(init=False)
    push_port: int = field(init=False)
    undo: ExitStack = field(default_factory=ExitStack)
    """Stops what was started, in reverse."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self.folder.chmod(0o711)  # PostgreSQL may have to run as nobody, who must pass here
        try:
            self.start_sinks()
            self.start()
        except BaseException:
            self.undo.close()
            raise
        return self

    def start_sinks(self) -> None:
        """Start the mail server and FCM, and learn their ports."""
        self.record, self.sink_port = self.start_sink("killtest.sink", self.folder / "record")
        self.push_record, self.push_port = self.start_sink("killtest.push_sink", self.folder / "push_record")

    def start_sink(self, module: str, record: Path) -> tuple[RecordReader, int]:
        """Start one; its record and port."""
        record.touch()
        how = ["--pause", str(self.settings.pause_s), "--seed", str(self.settings.seed)]
        sink = subprocess.Popen(
            launched([sys.executable, "-m", module, str(record), *how], ends_with_us=True),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.undo.callback(end, sink, [signal.SIGTERM], timeout_s=GONE_WITHIN_S)
        assert sink.stdout is not None
        with sink.stdout as said:
            return RecordReader(record), int(said.readline())

    def start(self) -> None:
        """Start servers and API and wait until they answer. Raises CannotStart."""
        ours = ("MUSTER_", "DATABASE_", "REDIS_")
        given = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "MUSTER_SMTP_URL": f"smtp://127.0.0.1:{self.sink_port}",
            "MUSTER_FCM_URL": f"http://127.0.0.1:{self.push_port}",
            "MUSTER_PUSH_CONCURRENCY": str(self.settings.concurrency),
            "MUSTER_LEASE_S": str(self.settings.lease_s),
            "MUSTER_SEND_CONCURRENCY": str(self.settings.concurrency),
            "MUSTER_SEND_TIMEOUT_S": str(self.settings.send_timeout_s),
        }
        self.stack = Stack(self.folder, environ=given, report=self.say)
        self.undo.callback(self.stack.stop)
        self.stack.start_servers()
        self.stack.environ = self.stack.settings()
        self.stack.run("migrate", extra={"DATABASE_OWNER_URL": self.stack.owner_url})
        self.stack.start_process("api")
        self.stack.wait_until_ready("api", port=self.stack.environ["MUSTER_API_PORT"], path="/healthz")
        self.undo.callback(self.stop_workers)

    # --- workers ------------------------------------------------------------------------------------------------------

    def start_worker(self, *, skew_s: int | None = None) -> Worker:
        """Start a `muster worker` in a process group of its own; with `skew_s` one whose clock is wrong by so much."""
        skewed = [sys.executable, "-m", "killtest.skewed", str(skew_s)]
        command = self.stack.command("worker") if skew_s is None else skewed
        log = self.stack.log_file(f"worker{self.started}")
        self.started += 1
        with log.open("wb") as out:
            process = subprocess.Popen(
                launched(command, ends_with_us=True),
                env=self.stack.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        worker = Worker(process, watched=skew_s is None)
        self.workers.append(worker)
        return worker

    def bury(self, worker: Worker) -> None:
        """Forget a worker that is dead to its supervisor."""
        self.workers.remove(worker)

    def stop_workers(self) -> None:
        """Stop all of them as a deployment does, and wait."""
        for worker in self.workers:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.terminate()
        for worker in self.workers:
            end(worker.process, [signal.SIGTERM], timeout_s=GONE_WITHIN_S)
        self.workers.clear()

    def some_sender(self, draw: random.Random) -> Worker | None:
        """One of those that have a connection to mail server or FCM now, by lot; None when none has."""
        to_sink = {socket.inode for socket in sockets() if socket.remote_port in (self.sink_port, self.push_port)}
        senders = [worker for worker in self.workers if worker.sockets() & to_sink]
        return draw.choice(senders) if senders else None

    def worker_at(self, local_port: int) -> Worker | None:
        """The worker whose connection comes from that port of this machine."""
        inodes = {socket.inode for socket in sockets() if socket.local_port == local_port}
        return next((worker for worker in self.workers if worker.sockets() & inodes), None)

    # --- servers ------------------------------------------------------------------------------------------------------

    def restart_postgres(self, how: signal.Signals, *, away_s: float = 0.0) -> None:
        """SIGINT is its fast shutdown, SIGQUIT its immediate one, after which it recovers from its log."""
        server = self.stack.postgres
        assert server is not None
        server.process.send_signal(how)
        server.process.wait(GONE_WITHIN_S)
        server.stop()
        time.sleep(away_s)
        self.stack.postgres = start_postgres(self.stack.folder / "postgres")
        assert self.stack.postgres.port == server.port, "somebody took the port of PostgreSQL"

    def restart_valkey(self, *, away_s: float = 0.0) -> None:
        """Stop and start it; the queue in its append-only file stays."""
        server = self.stack.valkey
        assert server is not None
        server.stop()
        time.sleep(away_s)
        self.stack.valkey = start_valkey(self.stack.folder / "valkey")
        assert self.stack.valkey.port == server.port, "somebody took the port of Valkey"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop everything, workers first, and wait until it is gone."""
        self.undo.close()
