"""Who did what."""

from datetime import datetime
from typing import Annotated

from strawberry import ID

from app.api import paging
from app.api.declare import about, argument, output, query
from app.api.paging import After, Connection, First
from app.context import Info
from db.keysets import Span
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
    key_name: str = about("Name of the key that was used; of a person who signed in, `subject`.")
    key_prefix: str = about("Beginning of that key; empty for a person.")
    subject: str | None = about("The person, as the identity provider names them; null for a key.")

    @classmethod
    def of(cls, row: audit.Entry) -> "AuditEntry":
        return cls(
            at=row.at,
            action=row.action,
            object=None if row.object is None else ID(row.object),
            outcome=row.outcome,
            key_name=row.key_name or row.subject or "",
            key_prefix=row.prefix or "",
            subject=row.subject,
        )


@output
class AuditQueries:
    @query(needs=Scope.ADMIN)
    async def audit_log(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        action: Annotated[list[str] | None, argument("Only these mutations, such as campaignSend.")] = None,
        object: Annotated[ID | None, argument("Only what was done to this.")] = None,
        outcome: Annotated[list[str] | None, argument("Only what ended so, such as DONE or FORBIDDEN.")] = None,
        since: Annotated[datetime | None, argument("Only from this time on.")] = None,
        until: Annotated[datetime | None, argument("Only before this time.")] = None,
    ) -> Connection[AuditEntry]:
        """All mutations but those that tell of people and events, newest first."""
        rows = await audit.page(
            info.context.workspace_id,
            after=paging.after_uuid(after),
            limit=paging.page_size(first) + 1,
            actions=action,
            object=object,
            outcomes=outcome,
            span=Span(since, until),
        )
        return paging.connection(rows, first=first, after=after, node=AuditEntry.of, key=lambda row: row.id)
