"""T-7, T-8, T-9: people, clocks and segments that move while a blast is under way."""

import re
from datetime import datetime, timedelta
from random import Random
from time import time
from typing import Any

from killtest.audit import OPEN, Verdict
from killtest.blasts import Blast, blast
from killtest.deaths import end_of, has_ended, is_past
from killtest.forms import Form
from killtest.outages import begin_with_workers
from killtest.waiting import until
from killtest.witness import LAST_TICK, LEDGER, NOW, STARTS
from killtest.yard import Yard

LATEST_START_S = 10.0
SKEWS_S = (-300, -90, 90, 300)
LEAD = timedelta(seconds=5)


# --- T-7 --------------------------------------------------------------------------------------------------------------


async def steered(yard: Yard, form: Form) -> Verdict:
    """T-7: pauses and resumes at random, then cancel: after each answer no more leaves than was under way."""
    verdict = Verdict("T-7", form.people)
    bound = form.workers * yard.settings.concurrency
    draw = Random(f"T-7 {yard.settings.seed}")
    after_pause = []
    async with blast(yard, "T-7", form.people) as one:
        await begin_with_workers(one, form)
        settled = 0
        for _ in range(form.blows):
            point = settled + draw.uniform(0.0, 2.0) * form.point(1)
            standing = await one.reached("the next pause", is_past(point))
            verdict.require(not standing.finished, "the blast was over before the cancel")
            await one.console.send("CampaignPause", input={"id": one.campaign})
            paused_at = time()
            if draw.random() < 0.5:
                await one.reached("the last mails", lambda found: not found.states.get("sending"))
            settled = (await one.standing()).settled
            if draw.random() < 0.5:
                after_pause.append(await mails_since(one, paused_at))
            await one.console.send("CampaignResume", input={"id": one.campaign})
        await one.console.send("CampaignCancel", input={"id": one.campaign})
        cancelled_at = time()
        await one.finished()
        after_cancel = await mails_since(one, cancelled_at)
        standing = await one.standing()
        assert standing.dispatch_id is not None
        found = await one.compared(standing.dispatch_id)
        verdict.count(found)
        cancelled = await one.listed("SKIPPED")
        reasons = {delivery["reason"] for delivery in cancelled}
    verdict.require(standing.status == "CANCELLED", f"the campaign is {standing.status}")
    verdict.require(reasons == {"CANCELLED"}, f"skipped for {reasons}, which leaves nothing to the cancel")
    verdict.require(len(cancelled) + len(found.arrived) == form.people, "mails and skipped messages are not everybody")
    verdict.require(max(after_pause, default=0) <= bound, f"{max(after_pause, default=0)} mails after a pause")
    verdict.require(after_cancel <= bound, f"{after_cancel} mails after the cancel")
    verdict.require(verdict.in_doubt == 0, f"{verdict.in_doubt} in doubt")
    verdict.more |= {
        "pauses": form.blows,
        "most_after_pause": max(after_pause, default=0),
        "after_cancel": after_cancel,
        "after_bound": bound,
        "cancelled": len(cancelled),
    }
    return verdict


async def mails_since(one: Blast, at: float) -> int:
    """Mails of the campaign that reached the sink after that instant."""
    standing = await one.standing()
    assert standing.dispatch_id is not None
    return sum(mail.at > at for mail in one.arrivals(standing.dispatch_id))


# --- T-8 --------------------------------------------------------------------------------------------------------------


async def started_once(yard: Yard, form: Form) -> Verdict:
    """T-8: four schedulers whose clocks are wrong start a campaign once, never early, and at most 10 s late.

    Found late, it does what its policy says. At the end the one that is furthest ahead is alone with a campaign that by
    its clock is due and over: it must neither start it nor end it.
    """
    verdict = Verdict("T-8")
    async with blast(yard, "T-8", form.people) as one:
        missed = await missed_schedules(one)
        for skew in SKEWS_S:
            yard.start_worker(skew_s=skew)
        await one.workers_announced(len(SKEWS_S))
        ends = {}
        for policy, campaign in missed.items():
            one.campaign = campaign
            found = await one.reached("the end of a late campaign", lambda found: found.status not in ("SCHEDULED",
                "PREPARING", "SENDING"))  # fmt: skip
            ends[policy] = found.status
        wanted = {"SEND": "SENT", "SKIP": "CANCELLED", "HOLD": "PAUSED"}
        verdict.require(ends == wanted, f"late campaigns ended as {ends}")
        plan: list[tuple[str, datetime]] = []
        now = await one.witness.value(NOW)
        for number in range(form.blows):
            at = now + LEAD + timedelta(seconds=number * 0.7)
            await one.draft()
            await one.console.send("CampaignSchedule", input={"id": one.campaign, "at": at.isoformat()})
            plan.append((one.campaign, at))
        latest, starts = 0.0, 0
        for campaign, at in [(missed["SEND"], None), *plan]:
            one.campaign = campaign
            await one.finished()
            found_starts = await one.witness.rows(STARTS, one.workspace_id, one.campaign_id)
            verdict.require(len(found_starts) == 1, f"started {len(found_starts)} times")
            starts += len(found_starts)
            await end_of(one, verdict)
            verdict.recipients += form.people
            if at is None:
                continue
            arrivals = one.arrivals(found_starts[0]["id"])
            first = min(mail.at for mail in arrivals)
            verdict.require(first >= at.timestamp(), "a mail came before its time")
            verdict.require(found_starts[0]["created_at"] >= at, "started before its time")
            latest = max(latest, (found_starts[0]["created_at"] - at).total_seconds())
            verdict.require(len(arrivals) == form.people, f"{len(arrivals)} mails of {form.people}")
        left_alone = await with_the_furthest_ahead(one)
        verdict.require(left_alone == "SCHEDULED", f"a clock that is ahead made a later campaign {left_alone}")
        said = [re.search(r"clock off by (-?\d+) s", file.read_text()) for file in sorted(
            yard.stack.log_file("worker").parent.glob("worker*.log"))]  # fmt: skip
        skews = sorted(int(found[1]) for found in said if found)
        verdict.require(set(skews) >= set(SKEWS_S), f"the clocks were off by {skews}")
    verdict.more |= {
        "clocks_off_by_s": list(SKEWS_S),
        "campaigns": starts,
        "missed": ends,
        "latest_start_s": round(latest, 2),
        "start_bound_s": LATEST_START_S,
    }
    verdict.require(latest <= LATEST_START_S, f"a campaign started {latest:.1f} s late")
    verdict.require(verdict.in_doubt == 0, f"{verdict.in_doubt} in doubt")
    return verdict


async def with_the_furthest_ahead(one: Blast) -> str:
    """What becomes of a campaign whose time and end are ahead, but past by the clock of the one scheduler that is left
    to look, twice."""
    *others, _ = one.yard.workers
    for worker in others:
        worker.process.terminate()
    for worker in others:
        await has_ended(worker)
        one.yard.bury(worker)
    ahead = timedelta(seconds=max(SKEWS_S))
    now = await one.witness.value(NOW)
    await one.draft(expiresAt=(now + ahead * 0.9).isoformat())
    await one.console.send("CampaignSchedule", input={"id": one.campaign, "at": (now + ahead * 0.8).isoformat()})
    for _ in range(2):
        before = await one.witness.value(LAST_TICK)

        async def has_ticked(before: datetime = before) -> bool:
            return bool(await one.witness.value(LAST_TICK) > before)

        await until("a tick of the scheduler that is ahead", has_ticked)
    return (await one.standing()).status


async def missed_schedules(one: Blast) -> dict[str, str]:
    """One campaign for each policy, whose time comes while no worker is there; by policy."""
    at = await one.witness.value(NOW) + timedelta(seconds=1.5)
    campaigns = {}
    for policy in ("SEND", "SKIP", "HOLD"):
        campaigns[policy] = await one.draft()
        late = {"at": at.isoformat(), "missedPolicy": policy, "maximumLatenessSeconds": 0}
        await one.console.send("CampaignSchedule", input={"id": campaigns[policy], **late})

    async def has_passed() -> bool:
        return bool(await one.witness.value(NOW) > at + timedelta(seconds=0.5))

    await until("the time of the schedules", has_passed)
    return campaigns


# --- T-9 --------------------------------------------------------------------------------------------------------------


async def changed_underneath(yard: Yard, form: Form) -> Verdict:
    """T-9: members leave and join the segment, unsubscribe and are erased during the blast.

    It goes to those who were members at its start, without those who were gone before their own message was intended.
    """
    verdict = Verdict("T-9")
    draw = Random(f"T-9 {yard.settings.seed}")
    async with blast(yard, "T-9", form.people) as one:
        names = sorted(one.profile_ids)
        members, outside = names[: len(names) * 3 // 4], names[len(names) * 3 // 4 :]
        verdict.recipients = len(members)
        made = await one.console.send("SegmentCreate", input={"name": "Members", "type": "STATIC"})
        segment = made["segment"]["id"]
        await one.console.send("SegmentActivate", input={"id": segment})
        for start in range(0, len(members), 500):
            await one.console.send(
                "SegmentMembersAdd", input={"id": segment, "externalIds": members[start : start + 500]}
            )
        audience = {one.number_of(name) for name in members}
        for _ in range(form.workers):
            yard.start_worker()
        await one.workers_announced(form.workers)
        await one.draft([segment], ratePerSecond=form.rate)
        await one.begin()
        gone: set[int] = set()
        too_late: set[int] = set()
        chunk = max(2, len(members) // (form.blows * 8))
        for blow in range(form.blows):
            standing = await one.reached("the next change", is_past(form.point(blow + 0.5) * 3 / 4))
            verdict.require(not standing.finished, f"the blast was over before change {blow + 1}")
            leaving, joining = draw.sample(members, chunk), draw.sample(outside, min(chunk, len(outside)))
            await one.console.send("SegmentMembersRemove", input={"id": segment, "externalIds": leaving})
            await one.console.send("SegmentMembersAdd", input={"id": segment, "externalIds": joining})
            going = draw.sample(sorted(audience - gone), chunk)
            await (erase(one, going) if blow % 2 else unsubscribe(one, going))
            gone |= set(going)
            assert standing.dispatch_id is not None
            too_late |= await not_intended(one, standing.dispatch_id, set(going))
        await one.hasten()
        standing = await one.finished()
        assert standing.dispatch_id is not None
        found = await one.compared(standing.dispatch_id, frozenset(audience))
        verdict.count(found)
        rows = await one.witness.rows(LEDGER, standing.dispatch_id)
        skipped = {row["profile_id"] for row in rows if row["state"] == "skipped"}
    verdict.require(standing.status == "SENT", f"the campaign is {standing.status}")
    verdict.require({row["profile_id"] for row in rows} == audience, "the ledger is not the segment as it was")
    verdict.require(found.arrived == audience - skipped, "mails are not those that were not skipped")
    verdict.require(skipped <= gone, f"{len(skipped - gone)} skipped who had not gone")
    verdict.require(too_late <= skipped, f"{len(too_late - skipped)} mailed who had gone before their intent")
    verdict.require(verdict.in_doubt == 0, f"{verdict.in_doubt} in doubt")
    verdict.more |= {
        "changes": form.blows,
        "unsubscribed_or_erased": len(gone),
        "gone_before_intent": len(too_late),
        "skipped": len(skipped),
    }
    return verdict


async def unsubscribe(one: Blast, profiles: list[int]) -> None:
    """Through the API, as a preference page does."""
    names = {one.number_of(name): shown for name, shown in one.profile_ids.items()}
    for profile in profiles:
        wanted: dict[str, Any] = {"profileId": names[profile], "channel": "EMAIL", "topic": "marketing"}
        await one.console.send("ConsentUpdate", input={**wanted, "status": "UNSUBSCRIBED"})


async def erase(one: Blast, profiles: list[int]) -> None:
    """Through the API, as a support desk does."""
    names = {one.number_of(name): shown for name, shown in one.profile_ids.items()}
    for profile in profiles:
        await one.console.send("ProfileErase", input={"profileId": names[profile]})


async def not_intended(one: Blast, dispatch_id: object, profiles: set[int]) -> set[int]:
    """Which of these had no intent when what was written about them was true for everybody: no transaction that began
    before is open any more."""
    await one.witness.older_transactions_ended(await one.witness.value(NOW))
    rows = await one.witness.rows(LEDGER, dispatch_id)
    waiting = set(OPEN) - {"sending"} | {"skipped"}
    return {row["profile_id"] for row in rows if row["profile_id"] in profiles and row["state"] in waiting}
