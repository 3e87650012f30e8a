"""A push campaign to many people, each with a phone: what the tests of mail kill workers at, for push notifications.

Shown twice is what came to one token under two tags, or under none. What came twice under one tag the phone shows once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from app import pushkeys
from app.administration import open_database_of
from app.pushing import Providers
from app.resources import push_hosts
from app.settings import load_settings
from campaigns import push_credentials
from campaigns.push_credentials import FcmSecret
from campaigns.sealing import Sealer
from killtest.blasts import Blast, blast
from killtest.sink import Arrival
from killtest.witness import NOW
from killtest.yard import Yard

# Everybody's one phone; its token names the profile.
MAKE_DEVICES = """
INSERT INTO device (workspace_id, profile_id, provider, token, platform)
SELECT workspace_id, id, 'FCM', 'token-of-' || external_id || '-' || workspace_id, 'ANDROID' FROM profile
WHERE workspace_id = $1 RETURNING profile_id, id, token
"""


@dataclass
class PushBlast(Blast):
    """A workspace with people who have phones, and what is sent to them."""

    devices: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Profile and device, by token."""
    repeated: int = 0
    """Notifications that came once more and took the place of their first."""

    async def invite(self, people: int) -> None:
        await super().invite(people)
        rows = await self.witness.rows(MAKE_DEVICES, self.workspace_id)
        self.devices = {row["token"]: (row["profile_id"], row["id"]) for row in rows}
        self.addresses = {profile: token for token, (profile, _) in self.devices.items()}
        settings = load_settings(self.yard.stack.environ)
        async with open_database_of(settings):
            await push_credentials.set_credential(
                self.workspace_id,
                FcmSecret(pushkeys.service_account("kill-test")),
                app="default",
                sealer=Sealer({name: key.get_secret_value() for name, key in settings.secret_keys.items()}),
                providers=Providers(push_hosts(settings)),
                now=await self.witness.value(NOW),
            )

    async def draft(self, segments: list[str] | None = None, **more: Any) -> str:
        content = {"push": {"title": "News", "body": "Hello {{ profile.external_id }}"}}
        return await super().draft(segments, content=content, senderId=None, **more)

    def arrivals(self, dispatch_id: UUID) -> list[Arrival]:
        """What the phones show, each notification when it came first, by the ids of the ledger."""
        shown: dict[tuple[str, str], Arrival] = {}
        untagged, came = [], 0
        for arrival in self.yard.push_record.all():
            if (device := self.devices.get(arrival.recipient)) is None:
                continue
            came += 1
            named = replace(arrival, message_id=f"<{dispatch_id.hex}.{device[0]}.{device[1]}@>")
            if arrival.message_id:
                shown.setdefault((arrival.recipient, arrival.message_id), named)
            else:
                untagged.append(named)
        self.repeated = came - len(shown) - len(untagged)
        return [*shown.values(), *untagged]


@asynccontextmanager
async def push_blast(yard: Yard, name: str, people: int) -> AsyncIterator[Blast]:
    """A new workspace with so many people and their phones; afterwards its workers are stopped."""
    async with blast(yard, name, people, kind=PushBlast) as one:
        yield one
        assert isinstance(one, PushBlast)
        yard.say(f"{name}: {one.repeated} notifications came once more and took the place of their first")
