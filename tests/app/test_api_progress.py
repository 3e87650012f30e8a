"""How far a campaign is and what goes wrong, through the public API; and messages in doubt, settled by people."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from campaigns import tallies
from channels.base import EmailMessage, Outcome, OutcomeKind
from db.transactions import apart, transaction
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.app.test_api_campaigns import instant, make, people, work
from tests.campaigns.factories import ACCEPTED, ScriptedChannel

ANSWERS = {
    "bob": Outcome(OutcomeKind.REFUSED, "BAD_ADDRESS", "RCPT", "550 5.1.1 no such user", bad_address=True),
    "cyd": Outcome(OutcomeKind.IN_DOUBT, "CONNECTION_LOST", "FINAL"),
    "dan": Outcome(OutcomeKind.IN_DOUBT, "TIMEOUT", "FINAL"),
    "eve": Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "RCPT", "451 later", retry_after=timedelta(hours=1)),
}
LONG_AGO = "UPDATE dispatch SET created_at = now() - interval '1 hour', planned_at = now() - interval '1 hour'"
WAITS_TO_COUNT = """
SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database
  WHERE NOT granted AND locktype = 'advisory' AND d.datname = current_database())
"""


def answer(message: EmailMessage) -> Outcome:
    return ANSWERS.get(message.recipient.partition("@")[0], ACCEPTED)


async def mixed(console: Caller) -> tuple[str, ScriptedChannel]:
    """A campaign of which one message was sent, and one each came to another end."""
    await people(console, "ada", *ANSWERS)
    await console.data("SuppressionAdd", input={"channel": "EMAIL", "address": "zoe@example.com"})
    await people(console, "zoe")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    return one, await work(console, one, ScriptedChannel(answer))


async def execute(console: Caller, statement: str) -> None:
    async with transaction(console.workspace_id) as connection:
        await connection.execute(statement)


async def progress(console: Caller, one: str) -> dict[str, Any]:
    """Counted anew, whatever is kept."""
    await execute(console, "UPDATE dispatch SET counted_at = NULL, count_took = NULL")
    found: dict[str, Any] = (await console.data("Campaign", id=one))["progress"]
    return found


async def test_progress_says_what_went_wrong_how_often_and_with_an_example(console: Caller) -> None:
    """S3-18, S3-27: counts by state and by reason, each with a sentence."""
    one, _ = await mixed(console)
    found = await progress(console, one)
    counted = {name: found[name] for name in ("sent", "failed", "inDoubt", "deferred", "skipped", "pending")}
    assert counted == {"sent": 1, "failed": 1, "inDoubt": 2, "deferred": 1, "skipped": 1, "pending": 0}
    reasons = {(row["status"], row["reason"]): row["messages"] for row in found["reasons"]}
    assert reasons == {
        ("FAILED", "BAD_ADDRESS"): 1,
        ("IN_DOUBT", "CONNECTION_LOST"): 1,
        ("IN_DOUBT", "TIMEOUT"): 1,
        ("DEFERRED", "TRY_LATER"): 1,
        ("SKIPPED", "SUPPRESSED"): 1,
    }
    assert all(len(row["explanation"]) > 20 for row in found["reasons"])
    errors = {row["reason"]: row["example"] for row in found["lastErrors"]}
    assert errors.keys() == {"BAD_ADDRESS", "CONNECTION_LOST", "TIMEOUT", "TRY_LATER"}
    assert errors["BAD_ADDRESS"]["profile"]["externalId"] == "bob"
    assert errors["BAD_ADDRESS"]["detail"] == "550 5.1.1 no such user"
    assert found["nextAttemptAt"] is not None
    assert found["stalledSince"] is None
    # A mailbox that is not there is written to no more, and nobody else is spared for what went wrong.
    again = await console.data("CampaignDryRun", id=await make(console))
    assert (again["reachable"], again["skipped"]) == (4, [{"reason": "SUPPRESSED", "messages": 2}])


async def test_every_message_says_why_in_a_code_and_a_sentence_and_is_found_by_it(console: Caller) -> None:
    one, _ = await mixed(console)
    nodes = [edge["node"] for edge in (await console.data("Deliveries", campaignId=one))["edges"]]
    without = {node["profile"]["externalId"] for node in nodes if node["reason"] is None}
    assert without == {"ada"}
    assert all(bool(node["explanation"]) == bool(node["reason"]) for node in nodes)
    for reason, name in (("SUPPRESSED", "zoe"), ("TRY_LATER", "eve"), ("BAD_ADDRESS", "bob")):
        (edge,) = (await console.data("Deliveries", campaignId=one, reason=reason))["edges"]
        assert edge["node"]["profile"]["externalId"] == name
    assert (await console.data("Deliveries", campaignId=one, reason="TIMEOUT", status="FAILED"))["edges"] == []


async def test_progress_tells_speed_and_end_and_when_it_stands_still(console: Caller) -> None:
    await people(console, "ada", "bob", "cyd")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    later = Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "RCPT", "451 later", retry_after=timedelta(hours=1))
    await work(console, one, ScriptedChannel(lambda m: later if m.recipient.startswith("cyd") else ACCEPTED))
    # As if one of three were still to come, and two had left within the last half minute.
    await execute(console, "UPDATE dispatch SET planned_at = now() - interval '1 hour'")
    await execute(console, "UPDATE delivery SET state = 'pending', not_before = NULL WHERE state = 'deferred'")
    moving = await progress(console, one)
    assert moving["messagesPerSecond"] == round(2 / 30, 2)
    assert moving["endsAt"] > moving["countedAt"]
    assert moving["stalledSince"] is None
    await execute(
        console, "UPDATE delivery SET updated_at = now() - interval '2 min', sent_at = now() - interval '2 min'"
    )
    await execute(console, "UPDATE dispatch SET created_at = now() - interval '1 hour'")
    still = await progress(console, one)
    assert (still["messagesPerSecond"], still["endsAt"]) == (0.0, None)
    assert still["stalledSince"] is not None
    await console.data("CampaignPause", input={"id": one})
    assert (await progress(console, one))["stalledSince"] is None


async def test_the_speed_after_a_pause_is_not_that_before_it(console: Caller) -> None:
    await people(console, "ada", "bob", "cyd")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    later = Outcome(OutcomeKind.DEFERRED, "TRY_LATER", "RCPT", "451 later", retry_after=timedelta(hours=1))
    await work(console, one, ScriptedChannel(lambda m: later if m.recipient.startswith("cyd") else ACCEPTED))
    assert (await progress(console, one))["messagesPerSecond"] > 0
    await console.data("CampaignPause", input={"id": one})
    await console.data("CampaignResume", input={"id": one})
    found = await progress(console, one)
    assert (found["messagesPerSecond"], found["endsAt"]) == (0.0, None)


async def test_what_was_to_be_tried_again_and_is_not_stands_still(console: Caller) -> None:
    """All workers gone while the last messages wait for their next attempt."""
    one, _ = await mixed(console)
    await execute(console, LONG_AGO)
    await execute(console, "UPDATE delivery SET updated_at = now() - interval '30 min'")
    waits = await progress(console, one)
    assert (waits["deferred"], waits["pending"], waits["stalledSince"]) == (1, 0, None)
    await execute(console, "UPDATE delivery SET not_before = now() - interval '5 min' WHERE state = 'deferred'")
    overdue = await progress(console, one)
    assert overdue["stalledSince"] == overdue["nextAttemptAt"]


async def test_however_many_look_a_dispatch_is_counted_once(console: Caller) -> None:
    one, _ = await mixed(console)
    first = await progress(console, one)
    await execute(console, "UPDATE delivery SET state = 'sent' WHERE state = 'in_doubt'")
    await execute(console, "UPDATE dispatch SET counted_at = now() + interval '1 min'")  # however slow we are
    again = (await console.data("Campaign", id=one))["progress"]
    assert (again["inDoubt"], again["sent"]) == (first["inDoubt"], first["sent"]) == (2, 1)
    assert (await progress(console, one))["sent"] == 3


async def test_what_was_finished_before_counts_were_kept_is_counted_once(console: Caller) -> None:
    await people(console, "ada")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    await work(console, one)
    await execute(console, "UPDATE dispatch SET tally = NULL, counted_at = NULL, count_took = NULL")
    first = (await console.data("Campaign", id=one))["progress"]
    assert (first["sent"], first["finishedAt"] is None) == (1, False)
    assert (await console.data("Campaign", id=one))["progress"]["countedAt"] == first["countedAt"]


async def test_while_somebody_counts_others_are_told_what_is_kept(console: Caller) -> None:
    one, _ = await mixed(console)
    first = await progress(console, one)
    async with transaction(console.workspace_id) as connection:
        dispatch_id: UUID = await connection.fetchval("SELECT id FROM dispatch")
        await connection.fetchval(tallies.WAIT_TO_COUNT, dispatch_id)
        with apart():  # as other processes
            await execute(console, "UPDATE delivery SET state = 'sent' WHERE state = 'in_doubt'")
            await execute(console, "UPDATE dispatch SET counted_at = now() - interval '1 hour'")
            assert (await console.data("Campaign", id=one))["progress"]["inDoubt"] == first["inDoubt"] == 2
    assert (await progress(console, one))["inDoubt"] == 0


async def test_a_ledger_that_nobody_begins_to_write_is_empty_and_at_last_said_to_stand_still(console: Caller) -> None:
    await people(console, "ada")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    begun = (await console.data("Campaign", id=one))["progress"]
    assert (begun["audience"], begun["pending"], begun["plannedAt"], begun["stalledSince"]) == (1, 0, None, None)
    await execute(console, "UPDATE dispatch SET created_at = created_at - interval '2 min'")
    later = (await console.data("Campaign", id=one))["progress"]
    assert later["stalledSince"] is not None
    assert later["countedAt"] > begun["countedAt"]


async def test_messages_in_doubt_are_resolved_as_sent_and_it_is_kept_by_whom(console: Caller) -> None:
    one, channel = await mixed(console)
    answered = await console.data("InDoubtResolve", input={"campaignId": one, "as": "SENT"})
    assert answered["messages"] == 2
    found = await progress(console, one)
    assert (found["inDoubt"], found["sent"], len(channel.received)) == (0, 3, 5)
    settled = (await console.data("Deliveries", campaignId=one, reason="RESOLVED_BY_HAND"))["edges"]
    assert {edge["node"]["profile"]["externalId"] for edge in settled} == {"cyd", "dan"}
    assert {edge["node"]["status"] for edge in settled} == {"SENT"}
    assert all(edge["node"]["sentAt"] for edge in settled)
    (kept,) = (await console.data("Campaign", id=one))["inDoubtResolutions"]
    assert (kept["resolvedAs"], kept["messages"]) == ("SENT", 2)
    assert kept["resolvedBy"].startswith("of a test (msk_")
    assert await console.refusal("InDoubtResolve", input={"campaignId": one, "as": "RETRY"}) == (
        "NOT_IN_DOUBT",
        ["input", "campaignId"],
    )


async def test_messages_in_doubt_are_tried_again_and_a_sent_campaign_goes_on(console: Caller) -> None:
    """docs/adr/0012: SENT -> SENDING -> SENT, under the Message-ID of the first attempt (R10)."""
    await people(console, "ada", "cyd", "dan")
    one = await make(console)
    await console.data("CampaignSend", input={"id": one})
    first = await work(console, one, ScriptedChannel(answer))
    assert (await console.data("Campaign", id=one))["status"] == "SENT"
    await execute(console, LONG_AGO)
    await execute(console, "UPDATE delivery SET updated_at = now() - interval '30 min'")
    resolved = await console.data("InDoubtResolve", input={"campaignId": one, "as": "RETRY"})
    assert (resolved["messages"], resolved["campaign"]["status"], resolved["campaign"]["finishedAt"]) == (
        2,
        "SENDING",
        None,
    )
    # Its rest was no standstill; and who looks first, while somebody counts, waits for a count of what it is now.
    await execute(console, "UPDATE dispatch SET counted_at = NULL")
    async with transaction(console.workspace_id) as connection:
        await connection.fetchval(tallies.WAIT_TO_COUNT, await connection.fetchval("SELECT id FROM dispatch"))
        with apart():
            looking = asyncio.create_task(console.data("Campaign", id=one))
            while not await connection.fetchval(WAITS_TO_COUNT):
                assert not looking.done()
    assert ((await looking)["progress"]["pending"], (await looking)["progress"]["stalledSince"]) == (2, None)
    second = await work(console, one)
    assert second.recipients == ["cyd@example.com", "dan@example.com"]
    again = {m.recipient: m.data for m in first.received if m.recipient in second.recipients}
    assert {m.recipient: m.data for m in second.received} == again
    done = await console.data("Campaign", id=one)
    assert (done["status"], done["progress"]["sent"], done["progress"]["inDoubt"]) == ("SENT", 3, 0)
    assert await tallies.verify(console.workspace_id) == []


async def test_what_is_over_is_not_tried_again(console: Caller, foreigner: Caller, caller: MakeCaller) -> None:
    one, _ = await mixed(console)
    retry = {"campaignId": one, "as": "RETRY"}
    assert await foreigner.refusal("InDoubtResolve", input=retry) == ("NOT_FOUND", ["input", "campaignId"])
    reader = await caller(console.workspace_id, "read", "campaigns")
    assert (await reader.ask("InDoubtResolve", input=retry))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    await console.data("CampaignUpdate", input={"id": one, "expiresAt": instant(hours=1)})
    await execute(console, "UPDATE campaign SET expires_at = now()")
    assert await console.refusal("InDoubtResolve", input=retry) == ("EXPIRED", ["input", "campaignId"])
    await console.data("CampaignUpdate", input={"id": one, "expiresAt": None})
    await console.data("CampaignCancel", input={"id": one})
    assert await console.refusal("InDoubtResolve", input=retry) == ("ILLEGAL_MOVE", ["input", "campaignId"])
    assert (await console.data("InDoubtResolve", input=retry | {"as": "SENT"}))["messages"] == 2
