"""Who did what."""

from datetime import datetime
from typing import Annotated

from strawberry import ID

from app.api import paging
from app.api.declare import about, argument, output, query
from app.api.paging import After, Connection, First
from app.context import Info
from profiles import audit
from profiles.keys import Scope


@output
class AuditEntry:
    """One mutation: who asked for it, and how it ended. It holds ids, never what was written."""

    at: datetime = about("When it was asked for.")
    action: str = about("The mutation, such as campaignSend.")
    object: ID | None = about("What it was done to, or what it made; null when that has no id.")
    outcome: str | None = about(
        "DONE, the code of the refusal, or FAILED for a fault of ours; null when a crash left nobody who knows."
    )
    key_name: str = about("Name of the key that was used.")
    key_prefix: str = about("Beginning of that key.")

    @classmethod
    def of(cls, row: audit.Entry) -> "AuditEntry":
        return cls(
            at=row.at,
            action=row.action,
            object=None if row.object is None else ID(row.object),
            outcome=row.outcome,
            key_name=row.key_name,
            key_prefix=row.prefix,
        )


@output
class AuditQueries:
    @query(needs=Scope.ADMIN)
    async def audit_log(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        action: Annotated[str | None, argument("Only this mutation, such as campaignSend.")] = None,
        object: Annotated[ID | None, argument("Only what was done to this.")] = None,
        since: Annotated[datetime | None, argument("Only from this time on.")] = None,
    ) -> Connection[AuditEntry]:
        """All mutations but those that tell of people and events, newest first."""
        rows = await audit.page(
            info.context.workspace_id,
            after=paging.after_uuid(after),
            limit=paging.page_size(first) + 1,
            action=action,
            object=object,
            since=since,
        )
        return paging.connection(rows, first=first, after=after, node=AuditEntry.of, key=lambda row: row.id)
