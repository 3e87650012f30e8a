"""Programs of others that benchmarks run beside us."""

import os
import shutil


class Missing(Exception):
    """A tool is not there; the message says how to get it."""


def tool(name: str, how: str) -> str:
    """Where a program is, also in /usr/sbin. Raises Missing."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"{name} is missing. {how}")
    return found
