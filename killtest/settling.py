"""Settles what is in doubt by evidence: the record of the mail server says whether it has a message."""

from datetime import timedelta

from app.administration import open_database_of
from app.settings import load_settings
from campaigns import reconciling
from channels.base import Evidence
from killtest.audit import Comparison, Verdict
from killtest.blasts import Blast
from killtest.sink import RecordReader
from killtest.waiting import until
from killtest.witness import NOW

YOUNG = (
    "SELECT EXISTS (SELECT 1 FROM delivery WHERE dispatch_id = $1 AND doubtful AND updated_at > now() - $2::interval)"
)


class SinkEvidence:
    """`channels.base.Reconciler` over the record of the sink: what is not in it was not accepted by now."""

    def __init__(self, record: RecordReader) -> None:
        self._known = {arrival.message_id for arrival in record.all()}

    async def find(self, message_id: str) -> Evidence:
        return Evidence.SENT if message_id in self._known else Evidence.NOT_SENT


async def settle_in_doubt(one: Blast, found: Comparison, verdict: Verdict) -> None:
    """Wait until nothing in doubt can be under way, list it, settle it, let the workers send what never arrived, and
    compare once more. A worker that is alive may settle some of it by itself meanwhile.

    In the end everybody has exactly one mail, and nothing is in doubt.
    """
    if not found.in_doubt:
        return
    standing = await one.standing()
    assert standing.dispatch_id is not None
    under_way = timedelta(seconds=one.yard.settings.send_timeout_s)
    young = (YOUNG, standing.dispatch_id, under_way)

    async def ask() -> bool:
        return not await one.witness.value(*young)

    await until("what is in doubt to be at rest", ask, within_s=under_way.total_seconds() + 30)
    found = await one.compared(standing.dispatch_id)
    if not found.in_doubt:
        verdict.count(found)
        return
    listed = {delivery["messageId"]: delivery["reason"] for delivery in await one.listed("IN_DOUBT")}
    verdict.require(
        listed.keys() == {row.message_id for row in found.in_doubt}, "the API lists others in doubt than the ledger"
    )
    for row in found.in_doubt:
        evidence = "it had arrived" if row.profile_id in found.arrived else "it had not arrived"
        one.yard.say(f"{verdict.test} in doubt: {row.message_id} ({row.reason}); {evidence}")
    async with open_database_of(load_settings(one.yard.stack.environ)):
        settled = await reconciling.reconcile(
            one.workspace_id,
            one.campaign_id,
            reconciler=SinkEvidence(one.yard.record),
            under_way=under_way,
            now=await one.witness.value(NOW),
        )
    arrived = sum(row.profile_id in found.arrived for row in found.in_doubt)
    verdict.require(
        (settled.sent, settled.not_sent, settled.unknown) == (arrived, len(found.in_doubt) - arrived, 0),
        f"settled otherwise than the record says: {settled}",
    )
    verdict.more["settled_as_sent"] = verdict.more.get("settled_as_sent", 0) + settled.sent
    verdict.more["sent_after_all"] = verdict.more.get("sent_after_all", 0) + settled.not_sent
    await one.reached("the end of what was not sent", lambda now: now.finished and not now.states.get("in_doubt"))
    again = await one.compared(standing.dispatch_id)
    verdict.count(again)
    verdict.require(not again.in_doubt, f"{len(again.in_doubt)} in doubt after all")
    missing = len(one.addresses) - len(again.arrived)
    verdict.require(missing == 0, f"{missing} people without a mail in the end")
