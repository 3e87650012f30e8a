"""`python -m killtest`: the tests one after the other, one JSON line each; exit 1 when one found a breach.

What a test does on the way, and every message in doubt, goes to standard error.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from app.cli import interruptible
from app.settings import Settings as AppSettings
from killtest.audit import Verdict
from killtest.running import FORMS, run_one
from killtest.witness import SAFETY, Witness
from killtest.yard import Settings, Yard


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def safety(yard: Yard) -> dict[str, Any]:
    """How PostgreSQL keeps what it has promised."""
    witness = Witness(yard.stack.owner_url, hurried=False)
    try:
        (row,) = await witness.rows(SAFETY)
    finally:
        await witness.close()
    return dict(row)


def main() -> int:
    """Run what was asked for; 1 after a breach."""
    interruptible()
    default = AppSettings.model_fields["send_concurrency"].default
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(FORMS), help="one test; repeat it for more")
    parser.add_argument("--short", action="store_true", help="hundreds of people and short leases, as the suite does")
    parser.add_argument("--seed", type=int, default=1, help="decides who dies and when")
    parser.add_argument("--concurrency", type=int, default=default, help="messages a worker has under way at most")
    parser.add_argument("--folder", type=Path, help="where servers keep data and logs; else one that is removed")
    chosen = parser.parse_args()
    lease_s, send_timeout_s = (5, 10) if chosen.short else (20, 30)
    settings = Settings(chosen.concurrency, lease_s, send_timeout_s, seed=chosen.seed)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="killtest-"))
    began = monotonic()
    verdicts: list[Verdict] = []
    with Yard(folder, settings, say=say, hurried=chosen.short) as yard:
        told: dict[str, Any] = {"concurrency": settings.concurrency, "lease_s": settings.lease_s, "seed": settings.seed}
        told |= {"send_timeout_s": settings.send_timeout_s, "sink_pause_s": settings.pause_s, "short": chosen.short}
        sys.stdout.write(json.dumps({"settings": {**asyncio.run(safety(yard)), **told}}) + "\n")
        for name in chosen.only or FORMS:
            say(f"--- {name}")
            verdict = run_one(yard, name, short=chosen.short)
            verdicts.append(verdict)
            sys.stdout.write(verdict.line() + "\n")
            sys.stdout.flush()
    failed = [verdict.test for verdict in verdicts if not verdict.ok]
    say(f"{monotonic() - began:.0f} s in all; {'not kept: ' + ', '.join(failed) if failed else 'all kept'}")
    if not chosen.folder and not failed:
        shutil.rmtree(folder, ignore_errors=True)
    elif failed:
        say(f"logs of all processes: {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
