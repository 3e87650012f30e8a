"""Keeps one program running: `muster worker` starts `python -m workers` again whenever arq gave up."""

import logging
import signal
import subprocess
import time
from types import FrameType

from app.processes import launched

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# A run that lasted so long was no failed start: the next pause is the first one again.
LASTED_S = 60.0
WRONG_SETTINGS = 2


class Supervisor:
    """One child at a time, until we are told to stop."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Run the program again and again; call it in the main thread. The exit code for our own process.

        SIGTERM and SIGINT are handed to the child as SIGTERM; when it has ended, this returns 0. A child that refuses
        its settings (exit code 2) would refuse them again: then this returns 2.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        pause = FIRST_PAUSE_S
        while not self.is_stopping():
            began = time.monotonic()
            # A session of its own: Ctrl-C reaches us only, and is passed on once.
            self._child = subprocess.Popen(launched(self._command, ends_with_us=True), start_new_session=True)
            if self.is_stopping():
                self._child.terminate()
            code = self._child.wait()
            if self.is_stopping():
                break
            if code == WRONG_SETTINGS:
                return code
            if time.monotonic() - began >= LASTED_S:
                pause = FIRST_PAUSE_S
            log.error("child ended, starting it again", extra={"exit_code": code, "pause_s": pause})
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return 0

    def is_stopping(self) -> bool:
        """Whether a signal has come; a method, since the handler changes the answer between any two lines."""
        return self._stopping

    def _sleep(self, seconds: float) -> None:
        # In small steps: a signal's handler does not cut time.sleep short (PEP 475).
        until = time.monotonic() + seconds
        while not self.is_stopping() and time.monotonic() < until:
            time.sleep(0.05)

    def _stop(self, signal_number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()
