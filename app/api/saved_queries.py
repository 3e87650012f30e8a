"""Saved queries: SQL that answers profile ids, for conditions that nothing else can say."""

from datetime import UTC, datetime
from typing import Annotated

from strawberry import ID, Maybe

from app.api import ids, paging
from app.api.declare import about, argument, input_type, mutation, output, query
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.paging import After, Connection, First
from app.api.payloads import Payload, given
from app.context import Info
from app.problems import ApiError
from profiles.keys import Scope
from segments import saved_queries
from segments.models import SavedQuery as SavedQueryRow
from segments.saved_queries import SavedQueryChanges, SavedQueryInput


@output
class SavedQuery(Node):
    """SQL that answers profile ids: the condition `savedQuery` takes it."""

    name: str = about("Its name.")
    description: str = about("What it is for.")
    sql: str = about("The SQL as it was written.")
    created_at: datetime = about("When it was made.")
    updated_at: datetime = about("When it was last changed.")

    @classmethod
    def of(cls, row: SavedQueryRow) -> "SavedQuery":
        return cls(
            id=ids.encode(Kind.SAVED_QUERY, row.id),
            name=row.name,
            description=row.description,
            sql=row.sql,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


@output
class SavedQueryPreview:
    """Whom SQL answers now."""

    count: int = about("How many profiles.")
    profile_ids: list[ID] = about(f"The first {saved_queries.SHOWN} of them, by id.")


@input_type
class SavedQueryCreateInput:
    """A new saved query."""

    name: str = about("Its name, 1 to 200 characters; no other saved query has it.")
    sql: str = about(
        "One SELECT over profiles, events and profile_brands that answers a column profile_id; docs/saved-sql.md says"
        " what is allowed."
    )
    description: str = about("What it is for.", default="")


@input_type
class SavedQueryUpdateInput:
    """What to change of a saved query; what is left out stays as it is."""

    id: ID = about("The saved query.")
    name: Maybe[str] = about("Its name, 1 to 200 characters; no other saved query has it.")
    sql: Maybe[str] = about("The SQL; active segments that use it are evaluated anew.")
    description: Maybe[str] = about("What it is for.")


@input_type
class SavedQueryDeleteInput:
    """Which saved query to delete."""

    id: ID = about("The saved query; no segment may use it.")


@output
class SavedQueryCreatePayload(Payload):
    """The new saved query."""

    saved_query: SavedQuery | None = about("The saved query; null when it was refused.", default=None)


@output
class SavedQueryUpdatePayload(Payload):
    """The saved query as it is now."""

    saved_query: SavedQuery | None = about("The saved query; null when it was refused.", default=None)


@output
class SavedQueryDeletePayload(Payload):
    """What was deleted."""

    deleted_id: ID | None = about("The id of what was deleted; null when it was refused.", default=None)


@output
class SavedQueryQueries:
    @query(needs=Scope.READ)
    async def saved_query(self, info: Info, id: ID) -> SavedQuery | None:
        """One saved query; null when there is none."""
        row = await info.context.loaders.saved_queries.load(ids.decode_uuid(Kind.SAVED_QUERY, id))
        return SavedQuery.of(row) if row else None

    @query(needs=Scope.READ)
    async def saved_queries(
        self, info: Info, first: First = paging.DEFAULT_PAGE, after: After = None
    ) -> Connection[SavedQuery]:
        """The workspace's saved queries, newest first."""
        rows = await saved_queries.page(
            info.context.workspace_id, after=paging.after_uuid(after), limit=paging.page_size(first) + 1
        )
        return paging.connection(rows, first=first, after=after, node=SavedQuery.of, key=lambda row: row.id)

    @query(needs=Scope.SEGMENTS)
    async def saved_query_preview(
        self, info: Info, sql: Annotated[str, argument("What to try: as in SavedQueryCreateInput.")]
    ) -> SavedQueryPreview:
        """Whom SQL answers now, within 5 seconds; nothing is saved. Once in a request."""
        if info.context.previewed:
            raise ApiError("TOO_MANY_PREVIEWS", "A request previews one query; send the next by itself.")
        info.context.previewed = True
        found = await saved_queries.preview(
            info.context.workspace_id, sql, engine=info.context.resources.sources.engine, now=datetime.now(UTC)
        )
        return SavedQueryPreview(
            count=found.count, profile_ids=[ids.encode(Kind.PROFILE, one) for one in found.profile_ids]
        )


async def try_out(info: Info, wanted: SavedQueryCreateInput) -> None:
    """Have the database look at the SQL, over a connection of its own."""
    await saved_queries.try_out(info.context.workspace_id, wanted.sql, now=info.context.now)


@output
class SavedQueryMutations:
    @mutation(needs=Scope.SEGMENTS, once=True, beforehand=try_out)
    async def saved_query_create(self, info: Info, input: SavedQueryCreateInput) -> SavedQueryCreatePayload:
        """Save SQL, once it is allowed and the database could run it."""
        wanted = SavedQueryInput(name=input.name, sql=input.sql, description=input.description)
        most = info.context.services.settings.saved_query_limit
        row = await saved_queries.insert(info.context.workspace_id, wanted, most=most)
        return SavedQueryCreatePayload(saved_query=SavedQuery.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def saved_query_update(self, info: Info, input: SavedQueryUpdateInput) -> SavedQueryUpdatePayload:
        """Change a saved query. With other SQL the active segments that use it are evaluated anew."""
        changes = SavedQueryChanges(name=given(input.name), sql=given(input.sql), description=given(input.description))
        workspace_id = info.context.workspace_id
        query_id = ids.decode_uuid(Kind.SAVED_QUERY, input.id)
        row, asked = await saved_queries.update(workspace_id, query_id, changes, now=datetime.now(UTC))
        if asked:
            # One bell: whoever hears it evaluates all that waits in the workspace.
            await info.context.resources.wakeups.evaluate(workspace_id=workspace_id, evaluation_id=asked[0])
        return SavedQueryUpdatePayload(saved_query=SavedQuery.of(row))

    @mutation(needs=Scope.SEGMENTS)
    async def saved_query_delete(self, info: Info, input: SavedQueryDeleteInput) -> SavedQueryDeletePayload:
        """Delete a saved query that no segment uses."""
        await saved_queries.delete(info.context.workspace_id, ids.decode_uuid(Kind.SAVED_QUERY, input.id))
        return SavedQueryDeletePayload(deleted_id=input.id)
