"""Roles, and keys that are made, rotated and ended over the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from app import key_uses
from app.auth import Authenticator
from profiles import keys
from profiles.models import KeyKind
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller

SEND = '{ campaignSend(input: {id: "cmp_1"}) { userErrors { code } } }'


def authenticator(http: httpx2.AsyncClient) -> Authenticator:
    found: Authenticator = http._transport.app.state.services.authenticator  # type: ignore[attr-defined]
    return found


async def listed(console: Caller) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await console.data("ApiKeys"))["edges"]]


async def test_a_key_may_what_its_role_says_and_whoever_lacks_a_right_is_told_how_to_get_it(
    console: Caller, http: httpx2.AsyncClient
) -> None:
    """Of one role each; the names are the scopes', and none is more than them."""
    made = {}
    for role in ("VIEWER", "MARKETER", "SENDER", "ADMIN"):
        one = await console.data("ApiKeyCreate", input={"name": role, "role": role})
        made[role] = Caller(http, console.workspace_id, one["secret"])
        assert one["apiKey"]["role"] == role
    told = {}
    for role, one in made.items():
        assert (await one.data("Workspace"))["name"]
        error = (await one.post(f"mutation {SEND}")).json().get("errors", [{"message": ""}])[0]
        told[role] = error["message"]
    assert (told["SENDER"], told["ADMIN"]) == ("", "")
    assert told["MARKETER"] == (
        "This key lacks the scope send, which the roles SENDER and ADMIN have; it has campaigns, read, segments (the"
        " role MARKETER). Use a key that has it: an admin makes one with apiKeyCreate, or `muster key create` at a"
        " terminal."
    )
    assert (await made["SENDER"].error("ApiKeys"))["code"] == "FORBIDDEN"
    # An id of a key is for admins too.
    some = (await listed(made["ADMIN"]))[0]["id"]
    assert (await made["ADMIN"].data("Node", id=some))["__typename"] == "ApiKey"
    assert (await made["SENDER"].error("Node", id=some))["code"] == "FORBIDDEN"
    refused = await http.post("/v1/events", json={"events": []}, headers=made["VIEWER"].all_headers())
    assert refused.status_code == 403
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="ingest"'
    assert "the role ADMIN has" in refused.json()["error"]["message"]


WRONG: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"role": "VIEWER", "scopes": ["READ"]}, "ROLE_OR_SCOPES", ["input", "role"]),
    ({}, "ROLE_OR_SCOPES", ["input", "role"]),
    ({"name": " ", "role": "VIEWER"}, "BLANK", ["input", "name"]),
    ({"kind": "PUBLISHABLE", "role": "VIEWER"}, "SCOPE_NOT_PUBLISHABLE", ["input", "scopes"]),
    ({"role": "VIEWER", "expiresAt": "2020-01-01T00:00:00Z"}, "EXPIRES_IN_THE_PAST", ["input", "expiresAt"]),
]


async def test_a_key_is_made_shown_once_rotated_and_ended(console: Caller, http: httpx2.AsyncClient) -> None:
    """Old and new are listed and open side by side, as one: what was sent with the old one is not done again with the
    new one."""
    for given, code, field in WRONG:
        assert await console.refusal("ApiKeyCreate", input={"name": "a"} | given) == (code, field)
    ends = (datetime.now(UTC) + timedelta(days=90)).replace(microsecond=0)
    wanted = {"name": "shop", "scopes": ["SEND", "READ", "ADMIN"], "expiresAt": ends.isoformat()}
    asked = console.with_headers(idempotency_key="1")
    made = await asked.data("ApiKeyCreate", input=wanted)
    again = await asked.data("ApiKeyCreate", input=wanted)
    assert (again["apiKey"], again["secret"]) == (made["apiKey"], None)
    key = made["apiKey"]
    facts = (key["prefix"], key["kind"], key["role"], key["scopes"], key["lastUsedAt"], key["revokedAt"])
    assert facts == (made["secret"][:12], "SECRET", None, ["ADMIN", "READ", "SEND"], None, None)
    assert datetime.fromisoformat(key["expiresAt"]) == ends

    old = Caller(http, console.workspace_id, made["secret"])
    brand = await old.with_headers(idempotency_key="2").data("BrandCreate", input={"name": "Acme"})
    turned = await console.data("ApiKeyRotate", input={"id": key["id"], "overlapSeconds": 3600})
    new = Caller(http, console.workspace_id, turned["secret"])
    assert await new.with_headers(idempotency_key="2").data("BrandCreate", input={"name": "Acme"}) == brand
    first, second = turned["replaced"], turned["apiKey"]
    assert (first["id"], first["replacedById"], second["replacedById"]) == (key["id"], second["id"], None)
    left = datetime.fromisoformat(first["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert [one["id"] for one in await listed(console)][:2] == [second["id"], first["id"]]
    default = await console.data("ApiKeyRotate", input={"id": second["id"]})
    left = datetime.fromisoformat(default["replaced"]["expiresAt"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24)
    assert await console.refusal("ApiKeyRotate", input={"id": key["id"]}) == ("ROTATED", ["input", "id"])
    wrong = {"id": default["apiKey"]["id"], "overlapSeconds": -1}
    assert await console.refusal("ApiKeyRotate", input=wrong) == ("OUT_OF_RANGE", ["input", "overlapSeconds"])

    for one in (second["id"], key["id"]):
        ended = await console.data("ApiKeyRevoke", input={"id": one})
        assert ended["apiKey"]["revokedAt"] is not None
    authenticator(http).known.seen.clear()  # as after five seconds
    for caller in (old, new):
        assert (await caller.post("{ workspace { id } }")).status_code == 401
    log = (await console.data("AuditLog", object=key["id"]))["edges"]
    assert [edge["node"]["action"] for edge in log][:2] == ["apiKeyRevoke", "apiKeyRotate"]


async def test_the_last_admin_cannot_lock_everybody_out(caller: MakeCaller, console: Caller) -> None:
    for one in await listed(console):
        await caller(console.workspace_id, "read", "send")
        assert await console.refusal("ApiKeyRevoke", input={"id": one["id"]}) == ("LAST_ADMIN", ["input", "id"])


async def test_a_used_key_costs_one_write_for_all_keys_and_requests_of_a_while(
    console: Caller, http: httpx2.AsyncClient, caller: MakeCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a key is remembered for five seconds and not looked up: each use counts."""
    other = await caller(console.workspace_id, "read")
    unused = await caller(console.workspace_id, "read")
    written: list[int] = []
    real = keys.keep_uses

    async def counted(used: Any) -> None:
        written.append(len(used))
        await real(used)

    monkeypatch.setattr(keys, "keep_uses", counted)
    for _ in range(3):
        for one in (console, other):
            await one.data("Workspace")
    uses = authenticator(http).known.uses
    assert written == []
    await uses.write()
    await uses.write()
    assert written == [2]
    by_prefix = {one["prefix"]: one["lastUsedAt"] for one in await listed(console)}
    minutes = [datetime.fromisoformat(by_prefix[(one.key or "")[:12]]) for one in (console, other)]
    for at in minutes:
        assert (at.second, at.microsecond) == (0, 0)
        assert datetime.now(UTC) - timedelta(minutes=2) < at <= datetime.now(UTC)
    assert by_prefix[(unused.key or "")[:12]] is None

    async def away(used: Any) -> None:
        raise OSError("no database")

    monkeypatch.setattr(keys, "keep_uses", away)
    await other.data("Workspace")
    await uses.write()
    assert len(uses.used) >= 1  # kept for the next time


async def test_uses_are_written_in_time_and_at_the_end(
    console: Caller, monkeypatch: pytest.MonkeyPatch, now: datetime
) -> None:
    monkeypatch.setattr(key_uses, "WRITTEN_EVERY_S", 3600)
    row, _ = await keys.create(console.workspace_id, name="a", kind=KeyKind.SECRET, scopes=["read"])
    async with key_uses.KeyUses().running() as uses:
        uses.note(row.id, now)
    (found,) = [one for one in await keys.list_keys(console.workspace_id) if one.id == row.id]
    assert found.last_used_at == now.replace(second=0, microsecond=0)
