"""Push campaigns through the whole path for benchmarks/push.py: ledger, rendering, FCM's and APNs' HTTP/2 over TLS.

Real `muster worker` processes send to everybody's one device, as benchmarks/blast.py has it for mail.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from app.pushing import Providers
from app.pushkeys import p8
from app.resources import push_hosts
from app.settings import load_settings
from benchmarks.blast import Blast, House, house
from benchmarks.push_messages import BUNDLE_ID, service_account
from campaigns import push_credentials
from campaigns.push_content import PushContent
from campaigns.push_credentials import ApnsSecret, FcmSecret, Secret
from campaigns.sealing import Sealer
from channels.base import PushProvider

PEOPLE = 100_000
CONTENT = PushContent(
    title="{{ profile.first_name }}, a fifth off roses",
    body="The roses you looked at last week in {{ profile.city }} are a fifth off until Sunday. Only in the app.",
)
PLATFORMS = {PushProvider.FCM: "ANDROID", PushProvider.APNS: "IOS"}
# Everybody's one device is now one of this provider; tokens are of the length that APNs' have.
DEVICES = """
WITH gone AS (DELETE FROM device WHERE workspace_id = $1)
INSERT INTO device (workspace_id, profile_id, provider, token, platform)
SELECT $1, id, $2, lpad(to_hex(id), 64, '0'), $3 FROM profile WHERE workspace_id = $1 AND merged_into IS NULL
"""
NOW = "SELECT now()"
# Seconds after its start at which the newest campaign's ledger was written, its first message and its last were
# answered, and it was SENT; by the server's clock. Answers are written by groups.
PHASES = """
SELECT extract(epoch FROM d.planned_at - c.started_at) AS planned, extract(epoch FROM v.first - c.started_at) AS first,
  extract(epoch FROM v.last - c.started_at) AS last, extract(epoch FROM d.finished_at - c.started_at) AS finished
FROM campaign c JOIN dispatch d ON d.workspace_id = c.workspace_id AND d.campaign_id = c.id
CROSS JOIN LATERAL (
  SELECT min(sent_at) AS first, max(sent_at) AS last FROM delivery WHERE dispatch_id = d.id) AS v
WHERE c.workspace_id = $1 ORDER BY c.started_at DESC LIMIT 1
"""


async def whole_path(folder: Path, port: int, *, providers: Sequence[PushProvider], people: int) -> list[Blast]:
    """How a campaign to `people` went with each of these providers; `port`: of the server that stands for them, whose
    certificate is in `folder`."""
    url, certificate = f"https://127.0.0.1:{port}", str(folder / "certificate.pem")
    settings = {
        "MUSTER_ENV": "development",
        "MUSTER_FCM_URL": url,
        "MUSTER_APNS_URL": url,
        "SSL_CERT_FILE": certificate,
    }
    place = folder / "house"
    place.mkdir(mode=0o711)
    async with house(place, smtp_port=9, settings=settings) as one:
        await one.fill(people)
        for secret in (FcmSecret(service_account()), ApnsSecret(p8(), "ABC1234567", "TEAM123456", BUNDLE_ID)):
            await keep(one, secret)
        one.start_workers()
        return [await blast(one, provider) for provider in providers]


async def keep(one: House, secret: Secret) -> None:
    """Set a credential as the API does it."""
    settings = load_settings(one.environ)
    await push_credentials.set_credential(
        one.workspace_id,
        secret,
        app="default",
        sealer=Sealer({name: key.get_secret_value() for name, key in settings.secret_keys.items()}),
        providers=Providers(push_hosts(settings)),
        now=await one.owner.fetchval(NOW),
    )


async def blast(one: House, provider: PushProvider) -> Blast:
    await one.owner.execute(DEVICES, one.workspace_id, provider.value, PLATFORMS[provider])
    for statement in ("ANALYZE device", "CHECKPOINT"):
        await one.owner.execute(statement)
    await one.reset()
    done = await one.blast(now=await one.owner.fetchval(NOW), content=CONTENT)
    ledger_us = await one.ledger_us(done.recipients)
    sys.stderr.write(f"  {provider}: {done.per_s:,.0f}/s, {ledger_us:.0f} us of the ledger a message\n")
    phases = await one.owner.fetchrow(PHASES, one.workspace_id)
    sys.stderr.write("    " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items()) + "\n")
    for row in await one.dearest(6):
        sys.stderr.write(f"    {row['ms']:>8.0f} ms {row['calls']:>7} x {row['query']}\n")
    return done
