"""A client of the API: sends the operations of graphql/operations, as a frontend or an app would."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2

OPERATIONS = Path(__file__).parents[2] / "graphql" / "operations"


@cache
def operation_text(name: str) -> str:
    """The published operation called `name`."""
    (found,) = OPERATIONS.glob(f"*/{name}.graphql")
    return found.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Caller:
    """Somebody with a key (None: nobody) of a workspace."""

    http: httpx2.AsyncClient
    workspace_id: UUID
    key: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def with_headers(self, **headers: str) -> "Caller":
        """The same caller, sending more headers: x_muster_viewer="..."."""
        return replace(self, headers=self.headers | {name.replace("_", "-"): text for name, text in headers.items()})

    def all_headers(self) -> dict[str, str]:
        return ({"Authorization": f"Bearer {self.key}"} if self.key else {}) | self.headers

    async def post(self, query: str, variables: dict[str, Any] | None = None, **more: Any) -> httpx2.Response:
        """The HTTP answer to one GraphQL document."""
        body = {"query": query, "variables": variables or {}} | more
        return await self.http.post("/graphql", json=body, headers=self.all_headers())

    async def ask(self, operation: str, **variables: Any) -> dict[str, Any]:
        """The whole GraphQL answer to a published operation."""
        response = await self.post(operation_text(operation), variables, operationName=operation)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def data(self, operation: str, **variables: Any) -> Any:
        """What the operation's one field answers; there must be no errors, and no userErrors."""
        answer = await self.ask(operation, **variables)
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        if isinstance(value, dict):
            assert value.get("userErrors", []) == [], value["userErrors"]
        return value

    async def refusal(self, operation: str, **variables: Any) -> tuple[str, list[str] | None]:
        """Code and field of the one userError of a mutation, whose payload must be empty otherwise."""
        answer = await self.ask(operation, **variables)
        assert "errors" not in answer, answer["errors"]
        (payload,) = answer["data"].values()
        (error,) = payload.pop("userErrors")
        assert not any(payload.values()), payload
        assert len(error["message"]) > 10, error
        return error["code"], error["field"]

    async def error(self, operation: str, **variables: Any) -> dict[str, Any]:
        """The extensions of the one GraphQL error that a query answers."""
        answer = await self.ask(operation, **variables)
        (error,) = answer["errors"]
        found: dict[str, Any] = error["extensions"]
        return found
