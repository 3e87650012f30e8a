"""The audit suite of graphql-http finds nothing to say of our server."""

import asyncio
import json
from pathlib import Path

from tests.app.caller import Caller
from tests.app.test_api_server import api_process
from tests.node.audit import audit


async def test_graphql_over_http_is_spoken_to_the_letter(
    environ: dict[str, str], tmp_path: Path, console: Caller
) -> None:
    """T-16."""
    assert console.key is not None
    # In production, with the schema told: the suite asks for it.
    async with api_process(environ | {"MUSTER_INTROSPECTION": "true"}, tmp_path / "log") as (url, _):
        said = await asyncio.to_thread(audit, url, console.key)
    assert json.loads(said[-1]) == {"ok": 61, "warn": 0, "error": 0}, said
