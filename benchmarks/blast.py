"""An installation to blast from: a durable PostgreSQL that counts its statements, a Valkey, worker processes, people.

For benchmarks/email.py and benchmarks/push_path.py. Nothing here is scripted: campaigns are made and started as the API
does it, and real `muster worker` processes send.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import asyncpg

from app.embedded import start_postgres, start_valkey
from app.processes import end, launched
from app.proofs import Proofreaders
from app.stack import with_database, with_login
from app.tables import MODEL_MODULES
from app.wakeups import Wakeups
from benchmarks.databases import server_settings
from campaigns import control, drafts, senders, sending
from campaigns.content import Content
from campaigns.emails import EmailContent
from campaigns.senders import SenderInput
from campaigns.wanted import CampaignInput
from db.migrate import migrate
from db.transactions import close_database, open_database, prepare_connection, transaction
from profiles.addresses import AddressHasher
from segments import everyone

WORKERS = 2
ADDRESS_KEY = "an address key of the benchmark, 32+ bytes"
LOOK_EVERY_S = 0.05

NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Alan", "Radia")
CITIES = ("Berlin", "Hamburg", "Boston", "Lyon", "Leeds", "Madrid", "Rome")
PLANS = ("free", "pro", "premium")
PARAGRAPH = (
    '<p style="margin:0 0 16px;font-family:Georgia,serif;color:#222">Autumn has come to the garden, and with it the '
    "time to lift the dahlias, to plant garlic between the roses and to think about what the next summer should bring. "
    "We have gathered what our readers asked for most: bulbs that flower in February, tools that outlive their owners, "
    "and a calendar that says in one line a day what is worth doing before the frost.</p>\n"
)
LINKS = ("bulbs", "tools", "calendar", "roses", "stories")
CONTENT = EmailContent(
    subject="{{ profile.first_name }}, the garden in autumn",
    html=(
        "<html><body><p>Dear {{ profile.first_name }} in {{ profile.city }},</p>\n"
        + "".join(
            PARAGRAPH * 4 + f'<p><a href="https://garden.example/{link}?from=mail">More about {link}</a></p>\n'
            for link in LINKS
        )
        + "<p>Your plan is {{ profile.plan }}, you have {{ profile.points }} points, and we keep "
        "{{ profile.favourite }} for you.</p>\n"
        '<p>{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">Unsubscribe</a></p></body></html>'
    ),
)
"""About 10 KB with five variables and five links that are tracked."""

PEOPLE = "SELECT count(*) FROM profile WHERE workspace_id = $1"
AFTER_LOAD = ("ANALYZE profile", "CHECKPOINT")
STATUS = """
SELECT c.status, c.status_reason, c.started_at, c.finished_at, d.planned_at, d.planned_through, d.counts
FROM campaign c LEFT JOIN dispatch d ON d.workspace_id = c.workspace_id AND d.campaign_id = c.id
WHERE c.id = $1
"""
UNFINISHED = "SELECT count(*) FROM dispatch WHERE campaign_id = $1 AND finished_at IS NULL"
RESET = "SELECT pg_stat_statements_reset()"
# What the server spent on the statements that read or write the ledger; COMMIT has no table and is not among them.
LEDGER_MS = """
SELECT sum(total_exec_time) FROM pg_stat_statements
WHERE query ~ '\\m(delivery|claim|dispatch)\\M' AND query !~ 'pg_stat_statements' AND query NOT ILIKE 'explain%'
"""
DEAREST = """
SELECT total_exec_time AS ms, calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 90) AS query
FROM pg_stat_statements ORDER BY 1 DESC LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class Blast:
    """How one campaign went."""

    recipients: int
    materialized_s: float
    """From its start to the last chunk of the ledger."""
    sent_s: float
    """From there to SENT."""

    @property
    def per_s(self) -> float:
        return self.recipients / self.sent_s


@dataclass
class House:
    """A running installation."""

    owner: asyncpg.Connection
    environ: dict[str, str]
    wakeups: Wakeups
    workspace_id: UUID
    log_folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def fill(self, people: int) -> None:
        """Have so many people; those there stay."""
        there: int = await self.owner.fetchval(PEOPLE, self.workspace_id)
        hasher = AddressHasher(ADDRESS_KEY.encode())
        for first in range(there, people, 50_000):
            await self.owner.copy_records_to_table(
                "profile",
                records=[self.person(n, hasher) for n in range(first, min(first + 50_000, people))],
                columns=("workspace_id", "external_id", "email", "email_hash", "traits", "city", "identified"),
            )
        for statement in AFTER_LOAD:
            await self.owner.execute(statement)

    def person(self, n: int, hasher: AddressHasher) -> tuple[Any, ...]:
        address = f"c{n}@example.com"
        traits = {
            "first_name": NAMES[n % len(NAMES)],
            "plan": PLANS[n % len(PLANS)],
            "points": n % 5000,
            "favourite": "the green one",
        }
        city = CITIES[n % len(CITIES)]
        return self.workspace_id, f"c{n}", address, hasher.hash("EMAIL", address), traits, city, True

    def start_workers(self) -> None:
        """`muster worker` as often as WORKERS says, each with a log of its own."""
        for number in range(len(self.workers), WORKERS):
            with (self.log_folder / f"worker{number}.log").open("wb") as log:
                command = launched([sys.executable, "-m", "app.cli", "worker"], ends_with_us=True)
                self.workers.append(
                    subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, start_new_session=True)
                )

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            end(worker, [signal.SIGTERM])
        self.workers.clear()

    def sending_processes(self) -> list[int]:
        """The processes that work: the children of `muster worker`."""
        found: list[int] = []
        for worker in self.workers:
            children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
            found += [int(one) for one in children]
        return found

    def peak_mb(self) -> float:
        """The most memory that one of them has had."""
        peaks = []
        for pid in self.sending_processes():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
        return max(peaks)

    async def start_campaign(self, *, now: datetime, content: Content = CONTENT) -> UUID:
        """A campaign to everybody, started and rung for as the API does it."""
        sender_id = await self.make_sender() if isinstance(content, EmailContent) else None
        async with transaction(self.workspace_id) as connection:
            everybody = await everyone.segment_id(connection)
        wanted = CampaignInput(name="Autumn", content=content, sender_id=sender_id, segment_ids=(everybody,))
        proofs = Proofreaders()
        try:
            campaign = await drafts.create(self.workspace_id, wanted, proofs=proofs, now=now)
        finally:
            await proofs.close()
        await sending.start(self.workspace_id, campaign.id, now=now)
        await self.wakeups.deliver(workspace_id=self.workspace_id, campaign_id=campaign.id)
        return campaign.id

    async def make_sender(self) -> UUID:
        """Whom mails come from."""
        wanted = SenderInput("Garden", "news@garden.example", postal_address="1 Main St, Springfield")
        sender_id: UUID = (await senders.create(self.workspace_id, wanted)).id
        return sender_id

    async def cancel(self, campaign_id: UUID, *, now: datetime) -> None:
        """Stop a campaign, and wait until what was written of its ledger is settled."""
        await control.cancel(self.workspace_id, campaign_id, now=now)
        await self.until(UNFINISHED, campaign_id, lambda dispatches: not dispatches)

    async def until(self, question: str, campaign_id: UUID, holds: Callable[[Any], bool]) -> Any:
        """Ask about a campaign until `holds` is true of the answer, and give it back."""
        while True:
            answer = await self.owner.fetchval(question, campaign_id)
            if holds(answer):
                return answer
            await asyncio.sleep(LOOK_EVERY_S)

    async def blast(self, *, now: datetime, content: Content = CONTENT) -> Blast:
        """Send one campaign to its end. Raises RuntimeError when it ends as anything but SENT."""
        began = perf_counter()
        campaign_id = await self.start_campaign(now=now, content=content)
        planned = 0.0
        while True:
            row = await self.owner.fetchrow(STATUS, campaign_id)
            if row["planned_at"] is not None and not planned:
                planned = perf_counter()
            if row["status"] not in ("PREPARING", "SENDING"):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        if row["status"] != "SENT":
            raise RuntimeError(f"the campaign is {row['status']} ({row['status_reason']})")
        recipients = sum(row["counts"].values())
        if row["counts"] != {"sent": recipients}:
            raise RuntimeError(f"not everybody was sent a message: {row['counts']}")
        return Blast(recipients, planned - began, perf_counter() - planned)

    async def ledger_us(self, messages: int) -> float:
        """Microseconds of PostgreSQL's time a message since `reset`."""
        return float(await self.owner.fetchval(LEDGER_MS)) * 1000 / messages

    async def reset(self) -> None:
        await self.owner.execute(RESET)

    async def dearest(self, most: int) -> list[asyncpg.Record]:
        """What the server spent most on since `reset`: ms, calls, query."""
        rows: list[asyncpg.Record] = await self.owner.fetch(DEAREST, most)
        return rows


@asynccontextmanager
async def house(folder: Path, *, smtp_port: int, settings: dict[str, str]) -> AsyncIterator[House]:
    """A new installation in `folder`, whose mails go to `smtp_port` on this machine; `settings` are the workers'."""
    async with AsyncExitStack() as stack:
        counting = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.max": "1000"}
        postgres = stack.enter_context(start_postgres(folder / "postgres", settings=server_settings() | counting))
        valkey = stack.enter_context(start_valkey(folder / "valkey"))
        owner_url = with_database(postgres.url, "muster")
        login_url = with_login(owner_url, "muster", "benchmark")
        server = await asyncpg.connect(postgres.url)
        await server.execute("CREATE DATABASE muster")
        await server.close()
        await migrate(owner_url=owner_url, login_url=login_url, model_modules=MODEL_MODULES)
        owner = await asyncpg.connect(owner_url)
        stack.push_async_callback(owner.close)
        await prepare_connection(owner)
        await owner.execute("CREATE EXTENSION pg_stat_statements")
        await open_database(login_url, model_modules=MODEL_MODULES)
        stack.push_async_callback(close_database)
        workspace_id = await everyone.create_workspace("benchmark", time_zone="UTC")
        wakeups = Wakeups(valkey.url)
        stack.push_async_callback(wakeups.close)
        environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": login_url,
            "REDIS_URL": valkey.url,
            "MUSTER_ADDRESS_KEY": ADDRESS_KEY,
            "MUSTER_TOKEN_KEY": "a token key of the benchmark, 32+ bytes long",
            "MUSTER_SECRET_KEYS": "1:a key that seals secrets of the benchmark",
            "MUSTER_PUBLIC_URL": "https://mail.garden.example",
            "MUSTER_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
            "MUSTER_LOG_LEVEL": "WARNING",
            **settings,
        }
        made = House(owner, environ, wakeups, workspace_id, folder)
        stack.callback(made.stop_workers)
        yield made
