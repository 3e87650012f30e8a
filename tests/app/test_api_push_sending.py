"""Push campaigns through the public API to FCM and APNs: from credential and device to what arrived and the ledger."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from app import pushkeys
from app.pushing import Providers, PushHosts
from app.pushproviders import Apns, Fcm, apns_error, fcm_error
from app.pushsink import Do, PushSink, Reply
from campaigns import sending
from campaigns.carrier import Carrier, PushCarrier, Slots
from campaigns.push_channels import PushChannels
from campaigns.sealing import Sealer
from tests.app.caller import Caller
from tests.app.conftest import ENVIRON
from tests.campaigns.factories import ScriptedChannel, carrier

IPHONE, OLD_IPHONE = "a1" * 32, "b2" * 32
PUSH = {
    "title": "Hello {{ profile.external_id }}",
    "body": "New records",
    "imageUrl": "https://records.example/new.png",
    "link": "records://new",
    "buttons": [{"id": "buy", "label": "Buy"}],
    "ios": {"subtitle": "Only today", "sound": "default"},
    "android": {"channelId": "offers", "color": "#223366"},
}


@dataclass(frozen=True)
class Sinks:
    """FCM and APNs of a test, and a worker that sends to them."""

    fcm: Fcm
    apns: Apns
    fcm_sink: PushSink
    worker: Carrier

    @property
    def shown(self) -> dict[str, Any]:
        """What arrived, by token."""
        return {one.token: one.payload for one in (*self.fcm.shown, *self.apns.shown)}

    async def work(self, console: Caller, campaign_id: str) -> None:
        """What workers do until nothing of a campaign can leave now."""
        key = UUID(hex=campaign_id.removeprefix("cmp_"))
        ids = {"workspace_id": console.workspace_id, "campaign_id": key}
        while await sending.deliver(**ids, carrier=self.worker, now=datetime.now(UTC), until=monotonic() + 10):
            pass


@asynccontextmanager
async def sinks_for(by_token: dict[str, Reply]) -> AsyncIterator[Sinks]:
    """Both services, of which some devices are answered otherwise."""
    fcm, apns = Fcm(by_token=by_token), Apns(by_token=by_token)
    async with PushSink(fcm) as fcm_sink, PushSink(apns) as apns_sink:
        hosts = PushHosts(fcm_sink.url, f"{fcm_sink.url}/token", apns_sink.url, apns_sink.url)
        key_id, _, key = ENVIRON["MUSTER_SECRET_KEYS"].partition(":")
        channels = PushChannels(partial(Providers(hosts).channel, timeout=timedelta(seconds=5)), Sealer({key_id: key}))
        push = PushCarrier(channels, Slots(8), token_hash=str.encode)
        try:
            yield Sinks(fcm, apns, fcm_sink, carrier(ScriptedChannel(), push=push))
        finally:
            await channels.close()


async def prepare(console: Caller, *devices: tuple[str, str, str, str]) -> dict[str, Any]:
    """Credentials of both services, and devices: person, provider, platform, token; what a campaign is made of."""
    fcm = {"serviceAccount": pushkeys.service_account("records-app")}
    apns = {"p8": pushkeys.p8(), "keyId": "ABC1234567", "teamId": "TEAM123456", "bundleId": "com.example.records"}
    for secret in ({"fcm": fcm}, {"apns": apns}):
        await console.data("PushCredentialSet", input={"secret": secret})
    for person, provider, platform, token in devices:
        device = {"externalId": person, "provider": provider, "platform": platform, "token": token}
        await console.data("DeviceRegister", input=device)
    found = await console.data("Segments", type="EVERYONE")
    return {"name": "News", "content": {"push": PUSH}, "segmentIds": [found["edges"][0]["node"]["id"]]}


async def test_a_push_campaign_reaches_every_device_of_everybody(console: Caller) -> None:
    """S3-19, S3-20, S3-21: text, image, link, buttons and options of each platform, one message a device."""
    async with sinks_for({}) as sinks:
        wanted = await prepare(
            console,
            ("ann", "FCM", "ANDROID", "anns-phone"),
            ("ann", "APNS", "IOS", IPHONE),
            ("ben", "FCM", "ANDROID", "bens-phone"),
        )
        await console.data("ProfileUpsert", input={"externalId": "without-a-device"})
        made = (await console.data("CampaignCreate", input=wanted))["campaign"]
        dry = await console.data("CampaignDryRun", id=made["id"])
        assert dry == {"audience": 3, "reachable": 3, "noAddress": 1, "skipped": []}
        await console.data("CampaignSend", input={"id": made["id"]})
        await sinks.work(console, made["id"])
        assert sinks.shown.keys() == {"anns-phone", IPHONE, "bens-phone"}
        to_android = sinks.shown["anns-phone"]
        assert to_android["notification"]["title"] == "Hello ann"
        assert to_android["android"]["notification"]["channel_id"] == "offers"
        alert = sinks.shown[IPHONE]["aps"]["alert"]
        assert (alert["title"], alert["subtitle"], alert["body"]) == ("Hello ann", "Only today", "New records")
        done = await console.data("Campaign", id=made["id"])
        progress = done["progress"]
        assert (done["status"], progress["audience"], progress["sent"], progress["skipped"]) == ("SENT", 3, 3, 1)


async def test_devices_that_are_gone_are_disabled_and_the_others_get_theirs(console: Caller) -> None:
    """What FCM and APNs know no more is sent to no more; an iPhone that registered after APNs lost it stays."""
    long_ago = apns_error(410, "Unregistered", timestamp=1_600_000_000_000)
    answers = {
        "bens-phone": fcm_error(404, "UNREGISTERED", fcm=True),
        IPHONE: apns_error(410, "Unregistered"),
        OLD_IPHONE: long_ago,
    }
    async with sinks_for(answers) as sinks:
        wanted = await prepare(
            console,
            ("ann", "FCM", "ANDROID", "anns-phone"),
            ("ben", "FCM", "ANDROID", "bens-phone"),
            ("cleo", "APNS", "IOS", IPHONE),
            ("dan", "APNS", "IOS", OLD_IPHONE),
        )
        for sent, failed, reachable in ((1, 3, 4), (1, 1, 2)):
            made = (await console.data("CampaignCreate", input=wanted))["campaign"]
            assert (await console.data("CampaignDryRun", id=made["id"]))["reachable"] == reachable
            await console.data("CampaignSend", input={"id": made["id"]})
            await sinks.work(console, made["id"])
            progress = (await console.data("Campaign", id=made["id"]))["progress"]
            assert (progress["sent"], progress["failed"]) == (sent, failed)


async def test_a_notification_whose_answer_was_lost_waits_to_take_its_own_place(console: Caller) -> None:
    """Without the campaign's leave it is in doubt instead."""
    async with sinks_for({}) as sinks:
        wanted = await prepare(console, ("ann", "FCM", "ANDROID", "anns-phone"))
        for resend, state in ((True, "DEFERRED"), (False, "IN_DOUBT")):
            wanted["content"] = {"push": PUSH | {"resendInDoubt": resend}}
            made = (await console.data("CampaignCreate", input=wanted))["campaign"]
            await console.data("CampaignSend", input={"id": made["id"]})
            sinks.fcm_sink.answer = cut_off(sinks)
            await sinks.work(console, made["id"])
            found = await console.data("Deliveries", campaignId=made["id"], first=10)
            (delivery,) = [edge["node"] for edge in found["edges"]]
            assert (delivery["status"], delivery["reason"]) == (state, "CONNECTION_LOST")


def cut_off(sinks: Sinks) -> Any:
    """FCM that gives tokens, and hangs up when it has heard the whole of a message."""

    def answer(push: Any) -> Any:
        return sinks.fcm(push) if push.path == "/token" else Do.CLOSE

    return answer


async def test_a_test_send_goes_to_all_devices_of_a_colleague(console: Caller) -> None:
    async with sinks_for({}) as sinks:
        wanted = await prepare(
            console,
            ("ann", "FCM", "ANDROID", "anns-phone"),
            ("ann", "APNS", "IOS", IPHONE),
            ("ben", "FCM", "ANDROID", "bens-phone"),
        )
        made = (await console.data("CampaignCreate", input=wanted))["campaign"]
        await console.data("CampaignTestSend", input={"id": made["id"], "externalIds": ["ann"]})
        await sinks.work(console, made["id"])
        assert sinks.shown.keys() == {"anns-phone", IPHONE}
        assert sinks.shown[IPHONE]["aps"]["alert"]["title"] == "[Test] Hello ann"
        assert (await console.data("Campaign", id=made["id"]))["status"] == "DRAFT"
