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


async def test_of_several_operations_the_one_that_is_named_is_executed_and_none_without_a_name(console: Caller) -> None:
    """GraphQL, GetOperation: a request error; executed, the first would cost its caller what a refusal costs."""
    change = 'mutation Make { segmentCreate(input: {name: "x", type: STATIC}) { segment { name } } }'
    several = f"{change} query Ask {{ workspace {{ id }} }}"
    for answer in (
        await console.post(several),
        await console.http.get("/graphql", params={"query": several}, headers=console.all_headers()),
    ):
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["extensions"]["code"]) == (400, "BAD_REQUEST")
        assert "operationName" in error["message"]
    assert (await console.data("Segments", type="STATIC"))["edges"] == []
    named = await console.post(several, operationName="Ask")
    assert list(named.json()["data"]) == ["workspace"]
