"""`make demo`: the main job, end to end, through the public API alone, with real purchases.

Every request is a file of graphql/operations, as a frontend or an app would send it. The last table compares what the
ledger says with what the sinks of mail and push really received; when they disagree, the demo has failed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2

from app import demo_push
from app.demo_client import Client, DemoFailed
from app.demo_push import PushServices, push_services

WAIT = timedelta(seconds=120)
POLL_S = 0.2
VIEWERS = 400
"""Anonymous viewers that fetch the banner: enough for the shares to show."""
KNOWN_VIEWERS = 5

FREQUENT = {
    "event": {
        "name": "purchase",
        "count": {"operator": "GREATER_OR_EQUAL", "value": 3},
        "within": {"days": 180},
    }
}
LAPSED = {
    "all": [
        {"event": {"name": "purchase", "sum": {"property": "value", "operator": "GREATER_OR_EQUAL", "value": 100}}},
        {"not": {"event": {"name": "purchase", "within": {"days": 90}}}},
    ]
}
INTERESTED = {
    "all": [
        {"page": {"path": {"operator": "STARTS_WITH", "value": "/pricing"}, "within": {"days": 30}}},
        {"not": {"event": {"name": "demo_requested"}}},
    ]
}
"""Visited the pricing page in 30 days and has not asked for a demo."""
TEAM = ["00001", "00002", "00003", "00004", "00005"]

EMAIL_HTML = """<html><head><style>h1 { color: #223366 } p { font-family: sans-serif }</style></head><body>
<h1>We miss you</h1>
<p>Hello customer {{ profile.external_id }}, you first bought from us in {{ traits.cohort | default("the past") }}.</p>
<p>There are new records in the shop.</p>
<p><small>{{ sender.postal_address }} · <a href="{{ unsubscribe_url }}">Unsubscribe</a></small></p>
</body></html>"""


@dataclass
class Demo:
    """One run."""

    console: Client
    app: Client
    mailbox: httpx2.AsyncClient
    say: Callable[[str], None]
    sizes: list[tuple[str, str, int, str]] = field(default_factory=list)
    campaigns: dict[str, dict[str, Any]] = field(default_factory=dict)
    tests: dict[str, Any] = field(default_factory=dict)
    shares: Counter[str] = field(default_factory=Counter)
    push: dict[str, Any] = field(default_factory=dict)
    """The push campaign at its end, with `devices` and `received`."""
    moves: list[tuple[str, float]] = field(default_factory=list)
    """What somebody did, and how many seconds later the segment had followed."""

    async def segments(self) -> dict[str, str]:
        """Make the segments and wait until their sizes are known; ids by name."""
        made = {}
        for name, definition in (("Frequent buyers", FREQUENT), ("Lapsed big spenders", LAPSED)):
            segment = await self.console.send(
                "SegmentCreate",
                input={"name": name, "type": "DYNAMIC", "definition": definition, "cadence": "DAILY"},
            )
            made[name] = segment["segment"]["id"]
            await self.console.send("SegmentActivate", input={"id": made[name]})
        team = await self.console.send("SegmentCreate", input={"name": "Our team", "type": "STATIC"})
        made["Our team"] = team["segment"]["id"]
        await self.console.send("SegmentActivate", input={"id": made["Our team"]})
        await self.console.send("SegmentMembersAdd", input={"id": made["Our team"], "externalIds": TEAM})
        everyone = await self.console.send("Segments", type="EVERYONE", first=1)
        made["Everyone"] = everyone["edges"][0]["node"]["id"]
        for name, one in made.items():
            segment = await self.until(f"the size of {name}", "Segment", lambda s: s["size"] is not None, id=one)
            took = segment["lastEvaluation"]
            ms = f"{took['durationMs']} ms" if took and took["durationMs"] is not None else "-"
            self.sizes.append((name, segment["type"], segment["size"], ms))
            self.say(f"  {name}: {segment['size']} ({segment['summary'] or segment['type'].lower()})")
        return made

    async def live(self, customer: str) -> None:
        """Let a customer do two things, and wait each time until a live segment has followed."""
        made = await self.console.send(
            "SegmentCreate", input={"name": "Interested", "type": "DYNAMIC", "definition": INTERESTED}
        )
        segment_id = made["segment"]["id"]
        await self.console.send("SegmentActivate", input={"id": segment_id})
        await self.until("the first evaluation", "Segment", lambda s: s["size"] is not None, id=segment_id)
        self.say(f"  {made['segment']['summary']}")
        for did, enters in (("page_view", True), ("demo_requested", False)):
            event = {"messageId": f"demo-{did}", "name": did, "externalId": customer, "pagePath": "/pricing/teams"}
            await self.console.http.post(
                "/v1/events", json={"events": [event]}, headers={"Authorization": f"Bearer {self.console.key}"}
            )
            began = monotonic()
            deadline = began + WAIT.total_seconds()
            asked = {"segmentId": segment_id, "externalId": customer}
            while await self.console.send("IsMember", **asked) is not enters:
                if monotonic() > deadline:
                    raise DemoFailed(f"the segment Interested did not follow {did}")
                await asyncio.sleep(POLL_S / 4)
            self.moves.append((f"{customer} {'enters' if enters else 'leaves'} by {did}", monotonic() - began))
            self.say(f"  {self.moves[-1][0]}: {self.moves[-1][1]:.1f} s later")

    async def until(self, what: str, operation: str, done: Callable[[Any], bool], **variables: Any) -> Any:
        """Ask until `done` says yes; raises DemoFailed after two minutes."""
        deadline = monotonic() + WAIT.total_seconds()
        while monotonic() < deadline:
            answer = await self.console.send(operation, **variables)
            if answer is not None and done(answer):
                return answer
            await asyncio.sleep(POLL_S)
        raise DemoFailed(f"waited {WAIT.total_seconds():g} s for {what}")

    async def email(self, name: str, segment: str, sender: str, **more: Any) -> str:
        """A draft email campaign; its id."""
        content = {
            "subject": f"{name}: news for {{{{ profile.external_id }}}}",
            "preheader": "New records in the shop",
            "html": EMAIL_HTML,
        }
        made = await self.console.send(
            "CampaignCreate",
            input={"name": name, "content": {"email": content}, "segmentIds": [segment], "senderId": sender, **more},
        )
        campaign_id: str = made["campaign"]["id"]
        return campaign_id

    async def follow(self, campaign_id: str) -> None:
        """Wait until a campaign is at its end, showing how far it is."""
        shown = None

        def done(campaign: Any) -> bool:
            nonlocal shown
            now = (campaign["status"], (campaign["progress"] or {}).get("sent"))
            if now != shown:
                self.say(f"  {campaign['name']}: {now[0]}" + (f", {now[1]} sent" if now[1] is not None else ""))
                shown = now
            return campaign["status"] in ("SENT", "FAILED", "CANCELLED")

        campaign = await self.until("the campaign's end", "Campaign", done, id=campaign_id)
        self.campaigns[campaign_id] = campaign
        if campaign["status"] != "SENT":
            raise DemoFailed(f"{campaign['name']} ended as {campaign['status']}: {campaign['statusDetail']}")

    async def blasts(self, segments: dict[str, str]) -> None:
        """Test-send, send now, and schedule for a few seconds later with an expiry."""
        sender = await self.console.send(
            "SenderCreate",
            input={
                "fromName": "CDNOW",
                "fromAddress": "news@cdnow.example",
                "replyTo": "help@cdnow.example",
                "postalAddress": "CDNOW, 1 Example Street, Springfield",
            },
        )
        sender_id = sender["sender"]["id"]
        first = await self.email("We miss you", segments["Lapsed big spenders"], sender_id)
        self.say("Test-sending to the team")
        await self.console.send("CampaignTestSend", input={"id": first, "segmentId": segments["Our team"]})
        tested = await self.until(
            "the test", "Campaign", lambda c: bool(c["tests"]) and c["tests"][0]["progress"]["finishedAt"], id=first
        )
        self.tests[first] = tested["tests"][0]["progress"]
        self.say(f"  {self.tests[first]['sent']} test mails; the campaign is still {tested['status']}")
        now = datetime.now(UTC)
        second = await self.email(
            "Thank you",
            segments["Frequent buyers"],
            sender_id,
            expiresAt=(now + timedelta(hours=1)).isoformat(),
        )
        at = datetime.now(UTC) + timedelta(seconds=4)
        await self.console.send("CampaignSchedule", input={"id": second, "at": at.isoformat()})
        self.say(f"Scheduled 'Thank you' for {at:%H:%M:%S} UTC, expiring an hour later; sending 'We miss you' now")
        await self.console.send("CampaignSend", input={"id": first})
        await self.follow(first)
        await self.follow(second)

    async def notify(
        self, segments: dict[str, str], phones: Client, customers: list[str], to: PushServices
    ) -> list[str]:
        """Send a push campaign to everybody who has a device; sentences about what is not as it must be."""
        for sentence in await demo_push.set_credentials(self.console):
            self.say(f"  {sentence}")
        devices = await demo_push.register_phones(phones, customers)
        made = await self.console.send("CampaignCreate", input=demo_push.draft(segments["Everyone"]))
        campaign_id = made["campaign"]["id"]
        dry = await self.console.send("CampaignDryRun", id=campaign_id)
        self.say(f"  {devices} devices registered; a dry run would reach {dry['reachable']}")
        await self.console.send("CampaignSend", input={"id": campaign_id})
        await self.follow(campaign_id)
        self.push = self.campaigns.pop(campaign_id)
        shown = to.shown()
        self.push |= {"fcm": len(to.fcm.shown), "apns": len(to.apns.shown)}
        first = shown[0].payload if shown else {}
        self.say(f"  FCM has {self.push['fcm']}, APNs {self.push['apns']}; the first says {first.get('notification')}")
        return demo_push.compared(self.push["progress"], shown, devices)

    async def banners(self, segments: dict[str, str], customers: list[str]) -> None:
        """Two weighted banners in one placement, fetched by customers and by strangers."""
        placement = await self.console.send(
            "PlacementCreate", input={"key": "home-top", "name": "Top of the home screen"}
        )
        for title, weight in (("New records", 80), ("Gift cards", 20)):
            made = await self.console.send(
                "CampaignCreate",
                input={
                    "name": title,
                    "content": {
                        "banner": {"title": title, "body": "Have a look", "actionUrl": "https://cdnow.example"}
                    },
                    "segmentIds": [segments["Everyone"]],
                    "placementId": placement["placement"]["id"],
                    "weight": weight,
                },
            )
            started = await self.console.send("CampaignSend", input={"id": made["campaign"]["id"]})
            self.campaigns[made["campaign"]["id"]] = started["campaign"]
        await self.until_shown()
        for customer in customers[:KNOWN_VIEWERS]:
            token = await self.console.send("ClientTokenCreate", input={"externalId": customer})
            seen = await self.fetch({"X-Muster-Client-Token": token["token"]})
            again = await self.fetch({"X-Muster-Client-Token": token["token"]})
            if seen is None or seen != again:
                raise DemoFailed(f"customer {customer} saw {seen!r}, then {again!r}")
            self.say(f"  customer {customer} sees {seen!r}")
        for _ in range(VIEWERS):
            self.shares[await self.fetch({}) or "nothing"] += 1

    async def until_shown(self) -> None:
        """Wait until the API has taken in the new banners: at most 2 s."""
        deadline = monotonic() + WAIT.total_seconds()
        while await self.fetch({}) is None:
            if monotonic() > deadline:
                raise DemoFailed("no banner is shown")
            await asyncio.sleep(POLL_S)

    async def fetch(self, headers: dict[str, str]) -> str | None:
        """The title that one viewer sees at the top of the home screen."""
        answer = await self.app.send("Banners", headers, placements=["home-top"])
        banner = answer["placements"][0]["banner"]
        return banner["content"]["title"] if banner else None

    async def compare(self) -> list[str]:
        """Sentences about what is not as it must be: ledger against sink, sizes, shares; empty when all is well."""
        wrong = [f"{name} has no members" for name, _, size, _ in self.sizes if not size]
        if self.shares["nothing"] or abs(self.shares["New records"] / self.shares.total() - 0.8) > 0.1:
            wrong.append(f"banners were not shown 80 to 20: {dict(self.shares)}")
        for campaign_id, campaign in self.campaigns.items():
            progress = campaign["progress"]
            if progress is None:
                continue
            received = await self.received(campaign_id)
            tests = self.tests.get(campaign_id, {}).get("sent", 0)
            campaign["received"], campaign["tests_sent"] = received, tests
            if not progress["sent"]:
                wrong.append(f"{campaign['name']} was sent to nobody")
            if received["messages"] != progress["sent"] + tests or received["duplicates"]:
                wrong.append(
                    f"{campaign['name']}: the ledger says {progress['sent']} sent and {tests} tests, the sink has"
                    f" {received['messages']} messages and {received['duplicates']} duplicates"
                )
        return wrong

    async def received(self, campaign_id: str) -> dict[str, int]:
        """Messages of a campaign in the sink, and how many of them came twice."""
        counts = (await self.mailbox.get("/api/counts")).json()
        found = counts["campaigns"].get(str(UUID(campaign_id.removeprefix("cmp_"))), {"received": 0, "unique": 0})
        return {"messages": found["received"], "duplicates": found["received"] - found["unique"]}

    def table(self) -> str:
        """What happened, in rows."""
        lines = ["", "Segment                 type      members  evaluated in"]
        lines += [f"{name:<23} {kind:<9} {size:>7}  {ms}" for name, kind, size, ms in self.sizes]
        lines += ["", "Live segment            seconds after the event"]
        lines += [f"{what:<40} {seconds:>5.1f}" for what, seconds in self.moves]
        lines += ["", "Campaign        state    audience   sent skipped failed in doubt   mails/s  sink received"]
        for campaign in self.campaigns.values():
            progress = campaign["progress"]
            if progress is None:
                lines.append(f"{campaign['name']:<15} {campaign['status']:<8} {'-':>8}")
                continue
            received = f"{campaign['received']['messages']}"
            if campaign["tests_sent"]:
                received += f" (with {campaign['tests_sent']} tests)"
            lines.append(
                f"{campaign['name']:<15} {campaign['status']:<8} {progress['audience']:>8} {progress['sent']:>6}"
                f" {progress['skipped']:>7} {progress['failed']:>6} {progress['inDoubt']:>8}"
                f" {rate(progress):>9,.0f}  {received}"
            )
        if self.push:
            done = self.push["progress"]
            lines += [
                "",
                "Push            state    audience   sent skipped failed in doubt  pushes/s  FCM and APNs received",
            ]
            lines.append(
                f"{self.push['name']:<15} {self.push['status']:<8} {done['audience']:>8} {done['sent']:>6}"
                f" {done['skipped']:>7} {done['failed']:>6} {done['inDoubt']:>8} {rate(done):>9,.0f}"
                f"  {self.push['fcm']} and {self.push['apns']}"
            )
        lines += ["", f"Banner          weight  share of {self.shares.total()} anonymous viewers"]
        for title, weight in (("New records", 80), ("Gift cards", 20)):
            lines.append(f"{title:<15} {weight:>6}  {100 * self.shares[title] / self.shares.total():.1f} %")
        return "\n".join(lines)


def rate(progress: dict[str, Any]) -> float:
    """Messages a second, from the moment the ledger was written to the last answer."""
    began, ended = (datetime.fromisoformat(progress[name]) for name in ("plannedAt", "finishedAt"))
    seconds = (ended - began).total_seconds()
    return float(progress["sent"]) / seconds if seconds > 0 else 0.0


async def run(
    *,
    api_url: str,
    mailbox_url: str,
    secret_key: str,
    publishable_key: str,
    push_ports: tuple[int, int],
    customers: list[str],
    say: Callable[[str], None],
) -> bool:
    """Run the demo against a running stack; True when ledger and sinks agree. `say` gets a line for each step.

    `push_ports`: where the stack has FCM and APNs.
    """
    async with (
        httpx2.AsyncClient(base_url=api_url, timeout=30) as api,
        httpx2.AsyncClient(base_url=mailbox_url, timeout=30) as mailbox,
        push_services(fcm_port=push_ports[0], apns_port=push_ports[1]) as services,
    ):
        demo = Demo(Client(api, "console", secret_key), Client(api, "client", publishable_key), mailbox, say)
        began = monotonic()
        try:
            say("Creating segments")
            segments = await demo.segments()
            say("A live segment follows a customer")
            await demo.live(customers[0])
            await demo.blasts(segments)
            say("Push notifications to everybody's phones and tablets")
            wrong = await demo.notify(segments, Client(api, "client", secret_key), customers, services)
            say("Showing two banners by weight")
            await demo.banners(segments, customers)
            wrong += await demo.compare()
        except DemoFailed as failure:
            say(f"FAILED: {failure}")
            return False
        say(demo.table())
        for sentence in wrong:
            say(f"FAILED: {sentence}")
        say(f"\nLedger and sinks {'disagree' if wrong else 'agree'}. {monotonic() - began:.1f} s through the API.")
        return not wrong
