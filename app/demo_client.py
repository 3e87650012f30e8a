"""Sends the operations of graphql/operations, as a frontend or an app would."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

OPERATIONS = Path(__file__).parents[1] / "graphql" / "operations"


class DemoFailed(Exception):
    """Something did not come out as it must; the text says what."""


@dataclass
class Client:
    """Sends the operations of one folder of the contract."""

    http: httpx2.AsyncClient
    folder: str
    key: str
    texts: dict[str, str] = field(default_factory=dict)

    async def send(self, operation: str, headers: dict[str, str] | None = None, **variables: Any) -> Any:
        """The data of one operation; raises DemoFailed for errors and for userErrors."""
        if operation not in self.texts:
            self.texts[operation] = (OPERATIONS / self.folder / f"{operation}.graphql").read_text(encoding="utf-8")
        reply = await self.http.post(
            "/graphql",
            json={"query": self.texts[operation], "operationName": operation, "variables": variables},
            headers={"Authorization": f"Bearer {self.key}", **(headers or {})},
        )
        body = reply.json()
        if "errors" in body or not body.get("data"):
            raise DemoFailed(f"{operation} answered {reply.status_code}: {body.get('errors')}")
        (answer,) = body["data"].values()
        if isinstance(answer, dict) and answer.get("userErrors"):
            raise DemoFailed(f"{operation} was refused: {answer['userErrors']}")
        return answer
