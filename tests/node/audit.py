"""What the audit suite of graphql-http says of a server. `python -m tests.node.audit` starts one of its own, asks it
and stops it; the last line is JSON: {"ok": ..., "warn": ..., "error": ...}.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from app.administration import make_key, open_database_of
from app.settings import load_settings
from app.stack import Stack
from segments import everyone
from tests.node import HERE, run


def audit(url: str, key: str) -> list[str]:
    """A line for each check that is not ok, then the JSON line; `url` is that of the server."""
    return run(HERE / "audit.mjs", f"{url}/graphql", key, at=HERE).splitlines()


async def key_of(environ: dict[str, str]) -> str:
    """A secret key of a new workspace in the database of `environ`."""
    async with open_database_of(load_settings(environ)):
        workspace_id = await everyone.create_workspace("audit", time_zone="UTC", consent_default="OPT_OUT")
        return await make_key(workspace_id, name="audit", kind="secret", scopes=["read"])


def main() -> None:
    """Print what the suite says; exit 1 if it warns of anything."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), environ={"PATH": os.environ["PATH"]}, durable=False) as stack,
    ):
        said = audit(stack.api_url, asyncio.run(key_of(stack.environ)))
    sys.stdout.write("\n".join(said) + "\n")
    found = json.loads(said[-1])
    sys.exit(bool(found["warn"] or found["error"]))


if __name__ == "__main__":
    main()
