"""Whom email campaigns come from."""

from datetime import datetime
from uuid import UUID

import strawberry
from strawberry import ID

from app.api import ids
from app.api.declare import about, input_type, looked_up, mutation, output, query
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.payloads import Payload
from app.api.workspaces import Brand
from app.context import Info
from campaigns import senders
from campaigns.models import Sender as SenderRow
from profiles.keys import Scope


@output
class Sender(Node):
    """Whom an email campaign comes from."""

    brand_key: strawberry.Private[UUID | None]
    from_name: str = about("Name that recipients see.")
    from_address: str = about("Address that recipients see.")
    reply_to: str | None = about("Where answers go; null: to the from address.")
    postal_address: str = about("Postal address that marketing mails must show.")
    created_at: datetime = about("When it was made.")

    @classmethod
    def of(cls, row: SenderRow) -> "Sender":
        return cls(
            id=ids.encode(Kind.SENDER, row.id),
            brand_key=row.brand_id,
            from_name=row.from_name,
            from_address=row.from_address,
            reply_to=row.reply_to,
            postal_address=row.postal_address,
            created_at=row.created_at,
        )

    @looked_up
    async def brand(self, info: Info) -> Brand | None:
        """The brand it belongs to; null when it is for all."""
        row = await info.context.loaders.brands.load(self.brand_key) if self.brand_key else None
        return Brand.of(row) if row else None


@input_type
class SenderCreateInput:
    """A new sender."""

    from_name: str = about("Name that recipients see.")
    from_address: str = about("Address that recipients see; your mail server must be allowed to use it.")
    postal_address: str = about("Postal address that marketing mails must show.")
    reply_to: str | None = about("Where answers go; left out: to the from address.", default=None)
    brand_id: ID | None = about("The brand it belongs to; left out: for all.", default=None)


@output
class SenderCreatePayload(Payload):
    """The new sender."""

    sender: Sender | None = about("The sender; null when it was refused.", default=None)


@output
class SenderQueries:
    @query(needs=Scope.READ)
    async def senders(self, info: Info) -> list[Sender]:
        """The workspace's senders, newest first; at most 100."""
        return [Sender.of(row) for row in await senders.list_senders(info.context.workspace_id)]


@output
class SenderMutations:
    @mutation(needs=Scope.CAMPAIGNS, once=True)
    async def sender_create(self, info: Info, input: SenderCreateInput) -> SenderCreatePayload:
        """Make a sender."""
        row = await senders.create(
            info.context.workspace_id,
            senders.SenderInput(
                from_name=input.from_name,
                from_address=input.from_address,
                postal_address=input.postal_address,
                reply_to=input.reply_to,
                brand_id=ids.optional(Kind.BRAND, input.brand_id, field="brand_id"),
            ),
        )
        return SenderCreatePayload(sender=Sender.of(row))
