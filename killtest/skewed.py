"""`python -m killtest.skewed SECONDS`: a worker whose clock is wrong by so much.

Everything that asks Python for the time of day in this process gets the wrong one: modules that imported `datetime` or
`time`, ours and arq's alike. Nothing of the kind exists outside this file. Time that only passes (`monotonic`) stays.
"""

import datetime
import logging
import os
import sys
import time
from typing import Any

from workers.__main__ import run

REAL = datetime.datetime
REAL_TIME = time.time


class AnyDatetime(type):
    """What a database answers is the real kind, and must count as the wrong one too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, REAL)


def shift(seconds: int) -> None:
    """Put the clock of this process forward, or back when negative."""
    by = datetime.timedelta(seconds=seconds)

    class Shifted(REAL, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return REAL.now(tz) + by

        @classmethod
        def utcnow(cls) -> Any:
            return REAL.now(datetime.UTC).replace(tzinfo=None) + by

    def shifted_time() -> float:
        return REAL_TIME() + seconds

    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if value is REAL and module.__name__ != __name__:
                setattr(module, name, Shifted)
            elif value is REAL_TIME and module.__name__ != __name__:
                setattr(module, name, shifted_time)


def main() -> int:
    """Shift the clock, say so, and work until SIGTERM."""
    shift(int(sys.argv[1]))
    told = datetime.datetime.now(datetime.UTC).timestamp() - REAL_TIME()
    logging.getLogger(__name__).setLevel(logging.INFO)
    sys.stdout.write(f"clock off by {told:.0f} s\n")
    sys.stdout.flush()
    return run(os.environ)


if __name__ == "__main__":
    sys.exit(main())
