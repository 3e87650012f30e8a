"""Child processes that own a folder: started, found again, stopped by their process id.

A child keeps its lock, log and port in its folder. It ends with us, however we end (Linux: app/launcher.py); one that
outlived us all the same is found by its process id at the next start.
"""

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app import launcher
from app.launcher import Mode
from db.errors import MusterError

LINUX: bool = sys.platform.startswith("linux")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PORT_TRIES = 5
LOWEST_PORT = 10_000
"""Below are those of well-known services that may be started later."""
LARGEST_LOG = 10 * 1024 * 1024


class CannotStart(MusterError):
    """A process could not be started; nothing of it is left running."""


def take(folder: Path) -> int:
    """Make `folder` and own it until the returned file is closed; the system does that for whoever is killed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise CannotStart(
            "FOLDER_FORBIDDEN",
            f"{folder} belongs to another user. Remove it as that user, or choose another with MUSTER_DATA_DIR.",
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(file, 20).decode() or "unknown"
        os.close(file)
        raise CannotStart(
            "FOLDER_IN_USE",
            f"{folder} is in use by process {holder}. Stop that one first, or choose another folder with "
            "MUSTER_DATA_DIR.",
        ) from error
    os.truncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)
    return file


def kept(file: Path, make: Callable[[], str]) -> str:
    """The text in `file`; `make` writes it, for our eyes only, when there is none."""
    if not file.exists():
        write_private(file, make())
    return file.read_text()


def write_private(file: Path, text: str) -> None:
    """Replace `file` at once or not at all, readable by its owner only."""
    fresh = file.with_name(file.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    fresh.replace(file)


def start(
    folder: Path,
    *,
    mode: Mode,
    command: Callable[[int], list[str]],
    ready: Callable[[int, int], bool],
    stop_signals: Sequence[signal.Signals],
) -> tuple[subprocess.Popen[bytes], int]:
    """Start `command(port)` on the port kept in `folder`, or on another when that one is taken; wait until `ready`.

    Raises CannotStart with the end of the server's log.
    """
    port_file, log_file = folder / "port", folder / "log"
    if log_file.exists() and log_file.stat().st_size > LARGEST_LOG:
        log_file.replace(folder / "log.old")
    deadline = time.monotonic() + START_TIMEOUT_S
    tries = 0
    while True:
        port = choose_port(port_file)
        with log_file.open("ab") as log:
            begin = log.tell()
            process = subprocess.Popen(
                launched(command(port), mode, ends_with_us=True, by=stop_signals[0]),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the whole session; ours is stopped by its pid, after those who use it.
                start_new_session=True,
            )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if ready(process.pid, port):
                    write_private(port_file, str(port))
                    return process, port
                time.sleep(0.01)
        except BaseException:
            end(process, stop_signals)
            raise
        ended_by_itself = process.poll() is not None
        end(process, stop_signals)
        said = log_file.read_bytes()[begin:].decode(errors="replace").strip()
        tries += 1
        if ended_by_itself and tries < PORT_TRIES and ("Address already in use" in said or "could not bind" in said):
            port_file.unlink(missing_ok=True)
        elif ended_by_itself and "pre-existing shared memory block" in said and time.monotonic() < deadline:
            # The sessions of a PostgreSQL that was killed are still ending.
            time.sleep(0.1)
        else:
            tail = "\n".join(said.splitlines()[-15:]) or "it wrote nothing"
            raise CannotStart("SERVER_START", f"{command(port)[0]} did not start; {log_file} ends with:\n{tail}")


def choose_port(file: Path) -> int:
    """The port in `file` if nobody listens there, else one that is free now (both on 127.0.0.1).

    A new one lies below those the kernel gives to outgoing connections: between now and the moment a server listens
    there, another program could be given one of theirs.
    """
    try:
        wanted = [int(file.read_text())]
    except (FileNotFoundError, ValueError):
        wanted = []
    for port in (*wanted, *secrets.SystemRandom().sample(range(LOWEST_PORT, lowest_given_away()), PORT_TRIES), 0):
        found = free_port(port)
        if found is not None:
            return found
    raise CannotStart("NO_PORT", "No port is free on 127.0.0.1.")


def free_port(port: int) -> int | None:
    """The port, for 0 one that is free; None when somebody listens there on 127.0.0.1."""
    with socket.socket() as probe:
        # As the servers do: a port with closing connections of an earlier run is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return None
        found: int = probe.getsockname()[1]
        return found


def lowest_given_away() -> int:
    """The lowest port that the kernel gives to who asks for any (Linux: ip(7), ip_local_port_range)."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 32_768
    return max(lowest, LOWEST_PORT + PORT_TRIES)


def launched(
    command: list[str], mode: Mode = Mode.PLAIN, *, ends_with_us: bool, by: signal.Signals = signal.SIGTERM
) -> list[str]:
    """`command`, started through app/launcher.py where there is something for it to do.

    With `ends_with_us` it gets the signal `by` when this process dies, however it dies (Linux).
    """
    if not LINUX:
        return command
    # The kernel takes the end of the starting *thread* for the end of the parent (prctl(2), PR_SET_PDEATHSIG).
    in_main_thread = threading.current_thread() is threading.main_thread()
    parent = os.getpid() if ends_with_us and in_main_thread else 0
    return [sys.executable, "-I", "-S", launcher.__file__, mode.value, str(parent), str(by.value), *command]


def stop_left_over(pid_file: Path, *, mark: str, signals: Sequence[signal.Signals]) -> None:
    """Stop a server that outlived its owner, and forget a pid that is nobody's or somebody else's by now.

    Without the latter PostgreSQL refuses to start after a restart of the machine that gave its old pid away.
    `mark` is what the server's command line holds and no other's.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        pid_file.unlink(missing_ok=True)
        return
    for wanted in (*signals, signal.SIGKILL):
        if mark not in command_line(pid):
            break
        os.kill(pid, wanted)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while mark in command_line(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    pid_file.unlink(missing_ok=True)


def command_line(pid: int) -> list[str]:
    """The arguments of process `pid`; empty if there is none. macOS has no /proc, but ps."""
    if LINUX:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            # A process that has ended but was not waited for has an empty one.
            return [argument for argument in arguments if argument]
        except (FileNotFoundError, ProcessLookupError):
            return []
    shown = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.split()


def end(
    process: subprocess.Popen[bytes], signals: Sequence[signal.Signals], *, timeout_s: float = STOP_TIMEOUT_S
) -> None:
    """Send `signals`, SIGKILL last, each when the one before did nothing in `timeout_s`, until the process is gone."""
    for wanted in (*signals, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(wanted)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            continue
