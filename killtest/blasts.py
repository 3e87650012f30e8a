"""One campaign to many people, made, started and followed through the public API, as a console would."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

import httpx2

from app.administration import make_key, open_database_of
from app.api.ids import campaign_id as campaign_id_of
from app.api.ids import profile_id as profile_number
from app.demo_client import Client
from app.settings import load_settings
from killtest.audit import Comparison, Row, compare, of_dispatch
from killtest.sink import Arrival
from killtest.waiting import until
from killtest.witness import ADDRESSES, ALIVE, FORGET_DEAD, LEDGER, Standing, Witness
from killtest.yard import Yard
from segments import everyone

SCOPES = ["read", "segments", "campaigns", "send", "ingest", "admin"]
SENDER = {
    "fromName": "Kill test",
    "fromAddress": "news@killtest.example",
    "postalAddress": "1 Main Street, Springfield",
}
HTML = """<p>Hello {{ profile.external_id }}</p>
<p>{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">Unsubscribe</a></p>"""
UPSERT_BATCH = 1000
PAGE = 100


@dataclass
class Blast:
    """A workspace with people and what is sent to them."""

    yard: Yard
    witness: Witness
    console: Client
    workspace_id: UUID
    key: str
    sender: str = ""
    addresses: dict[int, str] = field(default_factory=dict)
    """Of the people, by profile id."""
    profile_ids: dict[str, str] = field(default_factory=dict)
    """As the API names them, by external id."""
    campaign: str = ""
    """The one that is being sent, as the API names it."""

    @property
    def campaign_id(self) -> UUID:
        return campaign_id_of(self.campaign)

    async def invite(self, people: int) -> None:
        """Make so many people known: p00000, p00001, ..."""
        for start in range(0, people, UPSERT_BATCH):
            names = [f"p{n:05}" for n in range(start, min(start + UPSERT_BATCH, people))]
            profiles = [{"externalId": name, "email": f"{name}@example.com"} for name in names]
            made = await self.console.send("ProfilesUpsert", input={"profiles": profiles})
            for name, outcome in zip(names, made["outcomes"], strict=True):
                self.profile_ids[name] = outcome["profileId"]
        rows = await self.witness.rows(ADDRESSES, self.workspace_id)
        self.addresses = {row["id"]: row["email"] for row in rows}
        made = await self.console.send("SenderCreate", input=SENDER)
        self.sender = made["sender"]["id"]

    async def draft(self, segments: list[str] | None = None, **more: Any) -> str:
        """A draft to the segments, or to everybody; its id."""
        if segments is None:
            found = await self.console.send("Segments", type="EVERYONE")
            segments = [found["edges"][0]["node"]["id"]]
        content = {"email": {"subject": "News", "html": HTML}}
        wanted = {"name": "News", "content": content, "segmentIds": segments, "senderId": self.sender, **more}
        made = await self.console.send("CampaignCreate", input=wanted)
        self.campaign = made["campaign"]["id"]
        return self.campaign

    def number_of(self, name: str) -> int:
        """The profile id in the database of somebody by their external id."""
        return profile_number(self.profile_ids[name])

    async def begin(self) -> None:
        """Send the draft now."""
        await self.console.send("CampaignSend", input={"id": self.campaign})

    async def hasten(self) -> None:
        """From now on as fast as it goes."""
        await self.console.send("CampaignUpdate", input={"id": self.campaign, "ratePerSecond": None})

    async def standing(self) -> Standing:
        """How the campaign is doing, as the owner of the database sees it."""
        return await self.witness.standing(self.workspace_id, self.campaign_id)

    async def reached(self, what: str, is_so: Callable[[Standing], bool], *, within_s: float = 180.0) -> Standing:
        """Come back when the campaign stands as wished for."""

        async def ask() -> Standing | None:
            found = await self.standing()
            return found if is_so(found) else None

        return await until(what, ask, within_s=within_s)

    async def finished(self) -> Standing:
        """Come back when no message of the campaign is open any more."""
        return await self.reached("the end of the campaign", lambda found: found.finished, within_s=300.0)

    async def workers_announced(self, count: int, *, besides: frozenset[UUID] = frozenset()) -> frozenset[UUID]:
        """The boot ids of workers that have said they live, once there are so many besides those."""

        async def ask() -> frozenset[UUID] | None:
            found = frozenset(row["boot_id"] for row in await self.witness.rows(ALIVE)) - besides
            return found if len(found) >= count else None

        return await until(f"{count} workers", ask)

    def arrivals(self, dispatch_id: UUID) -> list[Arrival]:
        """The mails of a dispatch that the sink has in its record."""
        return of_dispatch(self.yard.record.all(), dispatch_id)

    async def compared(self, dispatch_id: UUID, audience: frozenset[int] | None = None) -> Comparison:
        """Both witnesses about a dispatch to `audience`, or to everybody."""
        rows = await self.witness.rows(LEDGER, dispatch_id)
        ledger = [Row(*row) for row in rows]
        whom = self.addresses.keys() if audience is None else audience
        return compare(ledger, self.arrivals(dispatch_id), self.addresses, whom)

    async def listed(self, status: str) -> list[dict[str, Any]]:
        """All deliveries in that status, as the API lists them to people."""
        found: list[dict[str, Any]] = []
        after = None
        while True:
            page = await self.console.send(
                "Deliveries", campaignId=self.campaign, first=PAGE, after=after, status=status
            )
            found += [edge["node"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]


@asynccontextmanager
async def blast(yard: Yard, name: str, people: int, *, kind: type[Blast] = Blast) -> AsyncIterator[Blast]:
    """A new workspace with so many people; afterwards its workers are stopped."""
    async with open_database_of(load_settings(yard.stack.environ)):
        workspace_id = await everyone.create_workspace(f"{name} {uuid4().hex[:8]}", time_zone="UTC")
        key = await make_key(workspace_id, name="kill test", kind="secret", scopes=SCOPES)
    witness = Witness(yard.stack.owner_url, hurried=yard.hurried)
    try:
        await witness.rows(FORGET_DEAD)
        async with httpx2.AsyncClient(base_url=yard.stack.api_url, timeout=60) as http:
            made = kind(yard, witness, Client(http, "console", key), workspace_id, key)
            await made.invite(people)
            yield made
    finally:
        await witness.close()
        yard.stop_workers()


class Blasts(Protocol):
    """`blast`, or what stands in its place."""

    def __call__(self, yard: Yard, name: str, people: int) -> AbstractAsyncContextManager[Blast]: ...
