"""Operations that clients name by their SHA-256 instead of sending them; in production, if so set, no others.

Known are the texts of the files in one folder, those of graphql/operations by default. A client sends
`extensions.persistedQuery.sha256Hash` (as Apollo's clients do) or `documentId` in place of `query`, or beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.problems import ApiError

PREFIX = "sha256:"


def hash_of(text: str) -> str:
    """The SHA-256 of an operation's text as it stands in its file, in hexadecimal."""
    return sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations known here, by their hashes."""

    texts: Mapping[str, str]
    only: bool = False
    """Whether others are refused."""

    @classmethod
    def of(cls, texts: Iterable[str], *, only: bool) -> "Operations":
        return cls({hash_of(text): text for text in texts}, only)

    def text(self, asked: Mapping[str, Any]) -> object:
        """The document of a request: what it names, or what it sends. Raises ApiError."""
        query, name = asked.get("query"), named(asked)
        if name is not None:
            return self.known(name, query)
        if self.only and (not isinstance(query, str) or hash_of(query) not in self.texts):
            message = "Only operations that are known here are executed; have this one added to them."
            raise ApiError("UNKNOWN_OPERATION", message)
        return query

    def known(self, name: str, query: object) -> str:
        found = self.texts.get(name)
        if found is not None and query in (None, "", found):
            return found
        if isinstance(query, str) and query:
            if hash_of(query) != name:
                raise ApiError("WRONG_HASH", "The hash is not that of the query that came with it.")
            if not self.only:
                return query
        # The word that Apollo's clients know: they send the whole query then.
        raise ApiError("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")


def named(asked: Mapping[str, Any]) -> str | None:
    """The hash by which a request names its operation; None when it does not."""
    extensions = asked.get("extensions")
    persisted = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
    name = persisted.get("sha256Hash") if isinstance(persisted, dict) else asked.get("documentId")
    return name.removeprefix(PREFIX).lower() if isinstance(name, str) else None


def read(folder: Path) -> list[str]:
    """The texts of the operations in the files of a folder and those in it; none when there is no such folder."""
    return [file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.graphql"))]
