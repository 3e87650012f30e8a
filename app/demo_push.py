"""The demo's push campaign: phones of customers, credentials, and what FCM and APNs received.

FCM and APNs are `app.pushsink` here: they look at what they are given as the real ones do, and show it to nobody.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app import pushkeys
from app.demo_client import Client
from app.pushproviders import Apns, Fcm, Shown
from app.pushsink import PushSink

PHONES = 200
"""Customers with a device; every other one has an iPhone, every fourth an Android tablet besides."""
TITLE = "New records for {{ profile.external_id }}"


@dataclass(frozen=True, slots=True)
class PushServices:
    """FCM and APNs on this machine."""

    fcm: Fcm
    apns: Apns

    def shown(self) -> list[Shown]:
        """What they have accepted."""
        return [*self.fcm.shown, *self.apns.shown]


@asynccontextmanager
async def push_services(*, fcm_port: int, apns_port: int) -> AsyncIterator[PushServices]:
    """Both of them, listening."""
    services = PushServices(Fcm(), Apns())
    async with PushSink(services.fcm, port=fcm_port), PushSink(services.apns, port=apns_port):
        yield services


async def register_phones(client: Client, customers: list[str]) -> int:
    """Register devices as apps do on their start; how many there are now."""
    devices = 0
    for number, customer in enumerate(customers[:PHONES]):
        wanted = [("APNS", "IOS", f"{number:063x}f") if number % 2 else ("FCM", "ANDROID", f"phone-{number:08}")]
        if number % 4 == 0:
            wanted.append(("FCM", "ANDROID", f"tablet-{number:08}"))
        for provider, platform, token in wanted:
            device = {"provider": provider, "platform": platform, "token": token, "externalId": customer}
            await client.send("DeviceRegister", input=device)
            devices += 1
    return devices


async def set_credentials(console: Client) -> list[str]:
    """Give FCM and APNs their credentials and have both tried; what they say."""
    fcm = {"serviceAccount": pushkeys.service_account("muster-demo")}
    apns = {"p8": pushkeys.p8(), "keyId": "ABC1234567", "teamId": "TEAM123456", "bundleId": "com.example.records"}
    said = []
    for provider, secret in (("FCM", {"fcm": fcm}), ("APNS", {"apns": apns})):
        await console.send("PushCredentialSet", input={"secret": secret})
        tried = await console.send("PushCredentialTest", input={"provider": provider})
        said.append(f"{provider} says {tried['credential']['checkCode']}")
    return said


def draft(segment: str) -> dict[str, Any]:
    """What `campaignCreate` is given."""
    push = {"title": TITLE, "body": "Have a look before they are gone", "link": "records://new"}
    return {"name": "New in the app", "content": {"push": push}, "segmentIds": [segment]}


def compared(progress: dict[str, Any], shown: list[Shown], devices: int) -> list[str]:
    """Sentences about what is not as it must be: ledger against what arrived, each device once."""
    twice = [token for token, count in Counter(one.token for one in shown).items() if count > 1]
    if progress["sent"] == len(shown) == devices and not twice:
        return []
    return [
        f"New in the app: the ledger says {progress['sent']} sent, FCM and APNs have {len(shown)} of {devices} devices,"
        f" {len(twice)} of them more than once"
    ]
