"""Forgetting a person, everywhere: who they were (profiles/erasing.py), what servers said of their address here, and
what evaluations keep of everybody (segments/packs.py)."""

from datetime import datetime
from uuid import UUID

from db.transactions import transaction
from profiles import erasing
from profiles.contention import retried
from profiles.erasing import Erased
from segments import packs

# What a mail server says often names the mailbox. That a message was sent, and what came of it, stays: it names nobody.
FORGET_WORDS = """
UPDATE delivery SET detail = NULL WHERE workspace_id = $1 AND profile_id = ANY($2::int[]) AND detail IS NOT NULL
"""


async def erase(workspace_id: UUID, profile_id: int, *, now: datetime) -> Erased:
    """Forget a person for good; their messages that have not left are skipped as ERASED when their turn comes.

    Doing it again changes nothing but the words of servers that came in since. Raises ProfileNotFound, and ProfileError
    CONTENDED when others change the same profile all the while.
    """

    async def once() -> Erased:
        async with transaction(workspace_id) as connection:
            erased = await erasing.erase(connection, workspace_id=workspace_id, profile_id=profile_id, now=now)
            await connection.execute(FORGET_WORDS, workspace_id, [erased.profile_id, *erased.merged_ids])
            await packs.drop(connection, workspace_id)
            return erased

    return await retried(once)
