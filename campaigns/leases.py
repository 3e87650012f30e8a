"""A turn's lease on a dispatch: the claim it sends under, and until when this process may believe in it."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

import asyncpg

from campaigns import claims
from campaigns.carrier import Carrier, Run
from db.transactions import transaction

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Lease:
    """One that `open_lease` took."""

    run: Run
    length: timedelta
    claim_id: int
    ends: float
    """In monotonic seconds. Counted from before the database was asked, so that this process never believes in a lease
    longer than the database does (R5)."""

    def is_over(self) -> bool:
        """Whether nothing may leave under it any more."""
        return monotonic() >= self.ends

    async def keep(self) -> None:
        """Prolong it four times in its length, until it is cancelled or the lease is lost."""
        while True:
            await asyncio.sleep(self.length.total_seconds() / 4)
            asked = monotonic()
            try:
                async with transaction(self.run.workspace_id, generic_plans=True) as connection:
                    alive = await claims.extend_claim(
                        connection,
                        workspace_id=self.run.workspace_id,
                        claim_id=self.claim_id,
                        lease=self.length,
                    )
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                logger.warning("lease not prolonged", extra={"dispatch_id": self.run.dispatch_id}, exc_info=True)
                continue
            self.ends = asked + self.length.total_seconds() if alive else 0.0
            if not alive:
                return

    async def close(self, *, settled: bool) -> None:
        """Leave what was taken and not begun to others; see `claims.close_claim`."""
        async with transaction(self.run.workspace_id, generic_plans=True) as connection:
            await claims.close_claim(
                connection,
                workspace_id=self.run.workspace_id,
                dispatch_id=self.run.dispatch_id,
                claim_id=self.claim_id,
                settled=settled,
            )


async def open_lease(run: Run, carrier: Carrier) -> Lease:
    """A new claim on the dispatch of `run`, for as long as `carrier` says."""
    began = monotonic()
    async with transaction(run.workspace_id, generic_plans=True) as connection:
        claim_id = await claims.open_claim(
            connection,
            workspace_id=run.workspace_id,
            dispatch_id=run.dispatch_id,
            owner=carrier.owner,
            lease=carrier.lease,
        )
    return Lease(run, carrier.lease, claim_id, began + carrier.lease.total_seconds())
