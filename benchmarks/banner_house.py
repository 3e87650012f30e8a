"""The workspace that `benchmarks.banners` measures: a million people in bitmaps, segments, placements, live banners."""

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
from pyroaring import BitMap

from app.auth import Authenticator
from app.embedded import start_postgres, start_valkey
from app.proofs import Proofreaders
from app.stack import with_database, with_login
from app.tables import MODEL_MODULES
from app.viewers import Claim, ViewerTokens
from campaigns import drafts, placements, sending
from campaigns.banner_content import BannerContent, BannerFace
from campaigns.banners import Viewer
from campaigns.placements import PlacementInput
from campaigns.tokens import Signer
from campaigns.wanted import CampaignInput
from db.migrate import migrate
from db.transactions import close_database, open_database, transaction
from profiles import keys
from profiles.models import KeyKind
from segments import everyone

PROFILES = 1_000_000
BANNERS, PLACEMENTS, SEGMENTS = 50, 10, 20
TOKEN_KEY = "a token key of the benchmark, 32+ bytes long"

ADD_SEGMENT = "INSERT INTO segment (workspace_id, name, type, status) VALUES ($1, $2, 'STATIC', 'ACTIVE') RETURNING id"
ADD_MEMBERS = """
INSERT INTO segment_membership (workspace_id, segment_id, base, added, removed, size, evaluated_at, base_version)
VALUES ($1, $2, $3, $4, $4, $5, now(), 1)
"""


@dataclass(frozen=True, slots=True)
class House:
    """A workspace with banners, and what makes requests to it."""

    workspace_id: UUID
    owner: asyncpg.Connection
    environ: dict[str, str]
    key: str
    campaigns: Sequence[UUID]
    places: Sequence[UUID]
    signer: Signer

    def viewers(self, count: int, draw: Random) -> list[tuple[str, str]]:
        """Client token and viewer token of people of the million."""
        authenticator, tokens = Authenticator(self.signer), ViewerTokens(self.signer)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=12)
        found = []
        for profile_id in draw.sample(range(1, PROFILES + 1), count):
            name = f"customer-{profile_id}"
            claim = Claim(Viewer.known(profile_id), name, expires_at)
            client = authenticator.client_token(self.workspace_id, name, expires_at=expires_at)
            found.append((client, tokens.make(self.workspace_id, claim)))
        return found


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """A new installation, filled."""
    with ExitStack() as stack:
        postgres = stack.enter_context(start_postgres(folder / "postgres"))
        valkey = stack.enter_context(start_valkey(folder / "valkey"))
        owner_url = with_database(postgres.url, "muster")
        login_url = with_login(owner_url, "muster", "benchmark")
        server = await asyncpg.connect(postgres.url)
        await server.execute("CREATE DATABASE muster")
        await server.close()
        await migrate(owner_url=owner_url, login_url=login_url, model_modules=MODEL_MODULES)
        owner = await asyncpg.connect(owner_url)
        await open_database(login_url, model_modules=MODEL_MODULES)
        workspace_id = await everyone.create_workspace("benchmark", time_zone="UTC")
        segments = await add_segments(owner, workspace_id)
        places, campaigns = await add_banners(workspace_id, segments)
        _, key = await keys.create(workspace_id, name="app", kind=KeyKind.PUBLISHABLE, scopes=("ingest",))
        environ = {
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": login_url,
            "REDIS_URL": valkey.url,
            "MUSTER_ADDRESS_KEY": "an address key of the benchmark, 32+ bytes",
            "MUSTER_TOKEN_KEY": TOKEN_KEY,
            "MUSTER_SECRET_KEYS": "1:a key that seals secrets of the benchmark",
            "MUSTER_PUBLIC_URL": "https://banners.garden.example",
            "MUSTER_SMTP_URL": "smtp://127.0.0.1:1",
            "MUSTER_LOG_LEVEL": "WARNING",
            "MUSTER_GRAPHIQL": "false",
            # Everything is counted, and nobody reaches the limits.
            "MUSTER_RATE_LIMIT": "1000000000",
            "MUSTER_REQUEST_RATE": "1000000000",
        }
        try:
            yield House(workspace_id, owner, environ, key, campaigns, places, Signer(TOKEN_KEY.encode()))
        finally:
            await close_database()
            await owner.close()


async def add_segments(owner: asyncpg.Connection, workspace_id: UUID) -> list[UUID]:
    """Segments of 1 to 60 per cent of the million, drawn at random: as large as bitmaps get."""
    draw = Random(1)
    found = []
    for number in range(SEGMENTS):
        size = PROFILES * draw.randint(1, 60) // 100
        members = BitMap(draw.sample(range(1, PROFILES + 1), size))
        segment_id = await owner.fetchval(ADD_SEGMENT, workspace_id, f"Segment {number}")
        nobody = BitMap().serialize()
        await owner.execute(ADD_MEMBERS, workspace_id, segment_id, members.serialize(), nobody, size)
        found.append(segment_id)
    return found


async def add_banners(workspace_id: UUID, segments: Sequence[UUID]) -> tuple[list[UUID], list[UUID]]:
    """Placements and live banners, five in each; one of five is for everyone, the others for two segments each."""
    draw, now, proofs = Random(2), datetime.now(UTC), Proofreaders()
    async with transaction(workspace_id) as connection:
        everybody = await everyone.segment_id(connection)
    places = [
        (await placements.create(workspace_id, PlacementInput(f"place-{n}", f"Place {n}"))).id
        for n in range(PLACEMENTS)
    ]
    campaigns = []
    for number in range(BANNERS):
        wanted = CampaignInput(
            name=f"Banner {number}",
            content=BannerContent(
                BannerFace(
                    title=f"Autumn has come, offer {number}",
                    body="Tools that outlive their owners, and bulbs that flower in February.",
                    image_url=f"https://cdn.garden.example/banners/{number}.png",
                    image_alt="A garden",
                    action_label="See them all",
                    action_url=f"https://garden.example/offers/{number}",
                    background_color="#0A3D2E",
                    text_color="#FFFFFF",
                    data={"tone": "calm"},
                )
            ),
            segment_ids=(everybody,) if number % 5 == 0 else tuple(draw.sample(list(segments), 2)),
            placement_id=places[number % PLACEMENTS],
            weight=draw.randint(1, 100),
        )
        campaign = await drafts.create(workspace_id, wanted, proofs=proofs, now=now)
        await sending.start(workspace_id, campaign.id, now=now)
        campaigns.append(campaign.id)
    await proofs.close()
    return places, campaigns
