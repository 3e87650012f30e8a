"""A model of the ledger: what every commit must have changed, row by row, and what may never happen (R1 to R7).

Each step is one commit of the real functions on a real PostgreSQL, and ends as it should, rolled back, or committed
with nobody told. In the end everybody dies, and one healthy worker must bring the campaign to its end.
"""

import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from campaigns import claims, control, intents, ledger, lifecycle, planning, resolving, sweeping, tallies
from campaigns.ending import close_rest, finish
from campaigns.intents import Intent
from campaigns.ledger import Result
from campaigns.models import CampaignStatus, DeliveryState
from campaigns.resolving import Resolution
from db.transactions import Connection
from profiles import consent, merging
from profiles.addresses import Channel
from tests.campaigns.ledger_hands import (
    ACCEPTED,
    FAR,
    Hands,
    Held,
    News,
    Reply,
    endings,
    living,
    places,
    replies,
    workers,
)
from tests.campaigns.ledger_world import Ending, Person, Row, Stage, World
from tests.contract.test_docs import between_states, drawn, section

LEASE = timedelta(hours=1)
"""Ends when a step says so, never by itself."""
S = CampaignStatus
OPEN = {"pending", "sending", "deferred"}
ON_ITS_WAY = {"sending", "sent", "in_doubt"}
AGAIN = timedelta(0)
"""For so long what was deferred is one worker's: not at all, so that both take it."""
MOVES = between_states(drawn(section("Delivery")))
"""What docs/states.md draws."""

TIME_PASSES = "UPDATE delivery SET not_before = now() WHERE dispatch_id = $1 AND state = 'deferred'"
MOVE_HOUSE = """
UPDATE profile SET email = 'new.' || email, email_hash = sha256(email_hash) WHERE id = $1 AND email IS NOT NULL
"""
SWAP_HOUSES = """
UPDATE profile p SET email = o.email, email_hash = o.email_hash FROM profile o
WHERE p.id = ANY($1) AND o.id = ANY($1) AND o.id <> p.id AND p.merged_into IS NULL AND o.merged_into IS NULL
"""


class LedgerMachine(RuleBasedStateMachine):
    """Two workers, the sweeper, people and the campaign's owner, one commit after the other."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.stage: Stage = world.begin()
        self.hands = [Hands(), Hands()]
        self.before: dict[int, Row] = {}
        self.perhaps_arrived: set[int] = set()
        """Given to the provider, and the ledger holds no word of its not having been accepted."""
        self.accepted: list[tuple[int, int]] = []
        """By the provider: profile, and how often a person had said before that it is to be tried again."""
        self.said_sent: set[int] = set()
        """On a person's word, who may have spoken before the provider did."""
        self.retried: Counter[int] = Counter()
        self.round_of: dict[Held, tuple[int, int]] = {}
        """What an acceptance of a message under this fence is counted as."""

    # --- looking -------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return datetime.now(UTC)

    def remember(self) -> None:
        self.before = self.stage.rows

    def must_have_become(self, expected: dict[int, str], ending: Ending = Ending.DONE) -> None:
        """These rows have these states now, and no other row has changed in any way."""
        if ending is Ending.LOST:
            expected = {}
        changed = {id: row.state for id, row in self.stage.rows.items() if row != self.before.get(id)}
        assert changed == expected

    @invariant()
    def every_row_keeps_the_rules(self) -> None:
        for id, row in self.stage.rows.items():
            old = self.before.get(id, row)
            assert row.state == old.state or (old.state, row.state) in MOVES
            assert row.fence - old.fence == (row.state == "sending" and old.state in ("pending", "deferred"))
            assert old.first_attempt_at in (None, row.first_attempt_at)
            assert row.claim_id is not None or row.attempt == 0
            assert (row.not_before is not None) == (row.state == "deferred")
            if id in self.perhaps_arrived:
                assert row.state in ("sending", "in_doubt", "sent", "failed")
            if row.state == "sent":
                assert id in self.believed_sent()
            if row.state == "pending":  # somebody will read it: the walk is still to come, or comes back
                assert id > self.stage.standing.walked_through or any(
                    first <= id for first in self.stage.standing.walked_from
                )
        assert self.before.keys() <= self.stage.rows.keys()
        assert len(self.accepted) == len(set(self.accepted))

    def believed_sent(self) -> set[int]:
        return self.said_sent | {id for id, _ in self.accepted}

    @invariant()
    def the_dispatch_keeps_the_rules(self) -> None:
        now = self.stage.standing
        states = [row.state for row in self.stage.rows.values()]
        written = [id for id in self.stage.people if id <= now.planned_through]
        assert self.stage.rows.keys() <= set(written)
        assert (len(states), now.no_address) == (len(written), 0)  # whoever was merged, too, has an address
        if now.planned:
            assert written == self.stage.people
        if now.finished:
            assert not OPEN & set(states)
            assert now.dirty or now.counts == {state: states.count(state) for state in set(states)}
        if now.status == S.SENT:
            assert now.finished

    # --- where it begins -----------------------------------------------------------------------------------------

    @initialize(begun=st.sampled_from([True, True, True, False]))
    def begin(self, begun: bool) -> None:
        while begun and self.stage.standing.status == S.PREPARING:
            if self.stage.standing.planned:
                self.plans(Ending.DONE)
            else:
                self.two_plan(Ending.DONE, Ending.DONE)

    @precondition(lambda self: self.stage.standing.status == S.PREPARING)
    @rule(ending=endings)
    def plans(self, ending: Ending) -> None:
        """The next chunk; or, after the last, the first moment of sending."""
        self.remember()
        was = self.stage.standing
        if was.planned:
            self.stage.commit(self.begin_sending, ending)
            assert self.stage.standing.status == (S.PREPARING if ending is Ending.LOST else S.SENDING)
            self.must_have_become({})
            return
        self.stage.commit(self.write_chunk, ending)
        assert not self.newly_written() or ending is not Ending.LOST

    @precondition(lambda self: self.stage.standing.status == S.PREPARING and not self.stage.standing.planned)
    @rule(first=endings, second=endings)
    def two_plan(self, first: Ending, second: Ending) -> None:
        """Both workers write at once; of the first it is known last whether it lives."""
        self.remember()
        self.stage.commit_both(self.write_chunk, first, second)
        assert not self.newly_written() or (first, second) != (Ending.LOST, Ending.LOST)

    async def write_chunk(self, connection: Connection) -> None:
        await planning.plan_chunk(connection, **self.stage.ids)

    def newly_written(self) -> set[int]:
        new = self.stage.rows.keys() - self.before.keys()
        assert all(self.stage.rows[id].state in ("pending", "skipped") for id in new)
        assert all(id > max(self.before, default=0) for id in new)
        return new

    async def begin_sending(self, connection: Connection) -> None:
        """What `sending.begin_sending` does, without content to compile."""
        campaign = await lifecycle.get_locked(*self.stage.path[:2])
        await lifecycle.move(connection, campaign, S.SENDING, now=self.now())

    # --- a worker ------------------------------------------------------------------------------------------------

    @rule(worker=workers, steps=st.lists(st.tuples(endings, replies), min_size=1, max_size=8))
    def works(self, worker: int, steps: list[tuple[Ending, Reply]]) -> None:
        """What a worker does next, some steps long: open, take, intend, hand over, hear, record."""
        for ending, reply in steps:
            hands = self.hands[worker]
            if hands.answered.keys() - hands.written:
                self.records(worker, ending)
            elif hands.away:
                self.is_answered(worker, reply)
            elif hands.leaving:
                self.hands_over(worker)
            elif hands.taken.keys() - hands.intended:
                self.intends(worker, ending)
            elif hands.claim_id is None:
                self.opens_a_claim(worker, ending)
            elif not self.takes(worker, 3, ending):
                return
            self.every_row_keeps_the_rules()
            self.the_dispatch_keeps_the_rules()

    @rule(worker=workers)
    def dies(self, worker: int) -> None:
        self.hands[worker] = Hands()

    def opens_a_claim(self, worker: int, ending: Ending) -> None:
        self.remember()
        owner = self.stage.dispatch_id
        opened = self.stage.commit(lambda c: claims.open_claim(c, **self.stage.ids, owner=owner, lease=LEASE), ending)
        self.hands[worker].claim_id = opened
        self.must_have_become({})

    @rule(worker=workers, ending=endings)
    def prolongs_its_lease(self, worker: int, ending: Ending) -> None:
        self.remember()
        claim_id = self.hands[worker].claim_id or 0
        alive = self.stage.claims.get(claim_id, False)
        extended = self.stage.commit(
            lambda c: claims.extend_claim(c, workspace_id=self.world.workspace_id, claim_id=claim_id, lease=LEASE),
            ending,
        )
        assert extended in (None, alive)
        assert self.stage.claims.get(claim_id, False) is alive
        self.must_have_become({})

    def takes(self, worker: int, most: int, ending: Ending) -> bool:
        """Whether there was something to take."""
        self.remember()
        hands, was = self.hands[worker], self.stage.standing
        claim_id = hands.claim_id or 0
        may = self.stage.claims.get(claim_id, False) and was.status == S.SENDING and not was.expired
        due = [id for id, row in self.before.items() if row.due and row.claim_id != claim_id]
        waiting = [id for id, row in self.before.items() if row.state == "pending" and id > was.walked_through]
        taken = [*due, *waiting][:most] if may else []
        found = self.stage.commit(
            lambda c: claims.take(c, **self.stage.ids, claim_id=claim_id, lease=AGAIN, limit=most), ending
        )
        changed = {id for id, row in self.stage.rows.items() if row != self.before[id]}
        assert changed == (set(due) if may and ending is not Ending.LOST else set())
        if ending is Ending.LOST or not may or len(due) >= most:
            assert self.stage.standing.walked_through == was.walked_through
        else:
            assert self.stage.standing.walked_through == max(waiting, default=claims.END_OF_WALK)
        if found is not None:
            assert [one.profile_id for one in sorted(found, key=lambda one: one.profile_id)] == sorted(taken)
            hands.taken |= {(one.profile_id, one.fence): one for one in found}
        return bool(taken)

    @rule(worker=workers, ending=endings)
    def goes_back(self, worker: int, ending: Ending) -> None:
        """To the first of those that it has taken, when nothing else is left."""
        self.remember()
        was = self.stage.standing.walked_through
        first = min((id for id, _ in self.hands[worker].taken), default=0)
        waiting = [id for id, row in self.before.items() if row.state == "pending" and id >= first]
        self.stage.commit(lambda c: claims.go_back(c, **self.stage.ids, profile_id=first), ending)
        expected = was if ending is Ending.LOST else min([was, *(id - 1 for id in waiting)])
        assert self.stage.standing.walked_through == expected
        self.must_have_become({})

    @precondition(lambda self: self.hands[0].taken)
    @rule(ending=endings)
    def cannot_render(self, ending: Ending) -> None:
        """One person's message cannot be made."""
        self.remember()
        id, fence = min(self.hands[0].taken)
        result = Result(id, 0, fence, DeliveryState.FAILED, "RENDER")
        self.stage.commit(
            lambda c: ledger.settle_unsent(c, dispatch_id=self.stage.dispatch_id, results=[result]), ending
        )
        row = self.before[id]
        mine = row.state in ("pending", "deferred") and row.fence == fence
        self.must_have_become({id: "failed"} if mine else {}, ending)

    @rule(worker=workers, ending=endings)
    def intends(self, worker: int, ending: Ending) -> None:
        """All that it ever took, again and again; after what it knows and has not heard to be written, as
        `transmission.Turn.write` does: an intent that was lost has used no fence, and the next one has it again."""
        hands = self.hands[worker]
        if hands.answered.keys() - hands.written:
            self.records(worker, ending)
            if hands.answered.keys() - hands.written:
                return
        self.remember()
        if not hands.taken:
            return
        for_the_first_time = hands.taken.keys() - hands.intended
        hands.intended |= hands.taken.keys()
        claim_id = hands.claim_id or 0
        ready = [
            Intent(one.profile_id, 0, one.fence, one.first_attempt_at or self.now(), one.email_hash)
            for one in hands.taken.values()
        ]
        people = self.world.run(self.stage.find_people())
        may = self.stage.claims.get(claim_id, False)
        expected = {one.profile_id: self.decide(one, people) for one in ready if may and self.is_waiting(one)}
        found = self.stage.commit(
            lambda c: intents.intend(
                c,
                intents.MAIL,
                **self.stage.ids,
                campaign_id=self.stage.campaign_id,
                claim_id=claim_id,
                ready=ready,
                consent_matters=True,
                test=False,
            ),
            ending,
        )
        decided = {id: self.stage.rows[id].state for id in expected}
        self.give_up_mailboxes(people)
        self.must_have_become({id: state for id, state in decided.items() if state != self.before[id].state}, ending)
        if ending is not Ending.LOST:
            assert all(state in expected[id] for id, state in decided.items())
            leaving = {id for id, state in decided.items() if state == "sending"}
            self.nobody_gets_two(leaving, people)
            assert found is None or found.leaving == {(id, 0) for id in leaving}
            assert found is None or found.waiting == {(one.profile_id, 0) for one in ready} - {
                (id, 0) for id, state in decided.items() if state in ("sending", "skipped")
            }
        if found is not None:
            hands.leaving |= {(id, self.before[id].fence + 1) for id, _ in found.leaving}
            return
        # Whatever became of the intents, not one byte has left.
        hands.stays("NOT_BEGUN", {(id, fence + 1) for id, fence in for_the_first_time})

    def is_waiting(self, intent: Intent) -> bool:
        row = self.before[intent.profile_id]
        return row.state in ("pending", "deferred") and row.fence == intent.fence

    def decide(self, intent: Intent, people: dict[int, Person]) -> set[str]:
        """The last look, told once more: what may become of a message about to leave."""
        campaign, person = self.stage.standing, living(people, intent.profile_id)
        as_it_was = self.before[intent.profile_id].state
        if campaign.expired or campaign.status == S.CANCELLED:
            return {"skipped"}
        if campaign.status != S.SENDING:
            return {as_it_was}
        if person.suppressed or person.unsubscribed:
            return {"skipped"}
        if [living(people, id) for id in self.before].count(person) > 1:
            return {"sending", as_it_was, "skipped"}  # one of those who are one by now gets it
        if person.email_hash != intent.address_hash:
            return {as_it_was}
        others = {id: row for id, row in self.before.items() if id != intent.profile_id}
        if any(row.state in ON_ITS_WAY and row.address_hash == person.email_hash for row in others.values()):
            return {"skipped"}
        if any(living(people, id).email_hash == person.email_hash for id in others):
            return {"sending", "skipped"}  # one of those who live there
        return {"sending"}

    def give_up_mailboxes(self, people: dict[int, Person]) -> None:
        """Take it for what was before that rows lost the addresses of mailboxes that their people had left."""
        for id, row in self.stage.rows.items():
            old = self.before[id]
            left = row.address_hash is None and living(people, id).email_hash != old.address_hash
            if left and old.state not in ON_ITS_WAY:
                self.before[id] = replace(old, address_hash=None)

    def nobody_gets_two(self, leaving: set[int], people: dict[int, Person]) -> None:
        """Of profiles that are one person by now only one gets the message, and no mailbox gets it twice."""
        on_its_way = {id for id, row in self.before.items() if row.state in ON_ITS_WAY}
        persons = [living(people, id).id for id in leaving]
        assert len(set(persons)) == len(persons)
        assert not set(persons) & {living(people, id).id for id in on_its_way}
        mailboxes = [living(people, id).email_hash for id in leaving]
        assert len(set(mailboxes)) == len(mailboxes)
        assert not set(mailboxes) & {self.before[id].address_hash for id in on_its_way}

    def hands_over(self, worker: int) -> None:
        """Bytes leave: nobody whom an earlier message may have reached gets another."""
        self.remember()
        hands = self.hands[worker]
        for held in hands.leaving:
            assert held[0] not in self.perhaps_arrived
            self.round_of[held] = (held[0], self.retried[held[0]])
            assert self.round_of[held] not in self.accepted
            self.perhaps_arrived.add(held[0])
        hands.away |= hands.leaving
        hands.leaving = set()

    def is_answered(self, worker: int, reply: Reply) -> None:
        """Of half of what is away. Of an answer lost on the way the worker knows nothing, whatever it was."""
        self.remember()
        hands = self.hands[worker]
        for held in sorted(hands.away)[: (len(hands.away) + 1) // 2]:
            hands.away.remove(held)
            hands.answered[held] = reply.result(held)
            if reply.accepted:
                self.accepted.append(self.round_of[held])

    @rule(worker=workers, ending=endings)
    def records(self, worker: int, ending: Ending) -> None:
        """All answers it ever had, again and again: R4 must make the old ones harmless. But for those of intents of
        which it is not known whether they used their fence, which are written once."""
        self.remember()
        hands = self.hands[worker]
        if not hands.answered:
            return
        results, claim_id = list(hands.answered.values()), hands.claim_id or 0
        expected: dict[int, str] = {}
        for one in results:
            row = self.before[one.profile_id]
            mine = row.fence == one.fence and row.claim_id == claim_id
            if mine and row.state in ("sending", "in_doubt"):
                expected[one.profile_id] = self.written(one)
        changing = {id: state for id, state in expected.items() if self.before[id].state != state}
        workspace_id, _, dispatch_id = self.stage.path
        written = self.stage.commit(
            lambda c: ledger.record(
                c, workspace_id=workspace_id, dispatch_id=dispatch_id, claim_id=claim_id, results=results
            ),
            ending,
        )
        assert written in (None, len(expected))
        if written is not None:
            hands.written |= hands.answered.keys()
            hands.forget("NOT_BEGUN")
        assert {id: row.state for id, row in self.stage.rows.items() if row.state != self.before[id].state} == (
            changing if ending is not Ending.LOST else {}
        )
        untouched = self.before.keys() - expected.keys()
        assert all(self.stage.rows[id] == self.before[id] for id in untouched)
        self.perhaps_arrived -= {id for id in changing if self.stage.rows[id].state == "deferred"}

    def written(self, one: Result) -> str:
        if one.state is DeliveryState.DEFERRED and self.stage.standing.finished:
            return "in_doubt"
        return "failed" if one.state is DeliveryState.DEFERRED and one.retry_in == FAR else one.state.value

    @rule(worker=workers, ending=endings)
    def gives_back(self, worker: int, ending: Ending) -> None:
        """The end of a turn. Of what is still away the worker knows, and says that not all is settled."""
        self.remember()
        claim_id = self.hands[worker].claim_id or 0
        busy = any(row.claim_id == claim_id and row.state == "sending" for row in self.before.values())
        was = self.stage.claims.keys()
        self.stage.commit(
            lambda c: claims.close_claim(c, **self.stage.ids, claim_id=claim_id, settled=not busy), ending
        )
        self.must_have_become({})
        gone = set() if busy or ending is Ending.LOST else {claim_id} & was
        assert self.stage.claims.keys() == was - gone

    # --- time, and the sweeper -----------------------------------------------------------------------------------

    @precondition(lambda self: True in self.stage.claims.values())
    @rule(first=st.booleans())
    def a_lease_ends(self, first: bool) -> None:
        """Before that the sweeper takes nothing; from now on its worker hands nothing over (R5)."""
        self.remember()
        alive = sorted(id for id, runs in self.stage.claims.items() if runs)
        claim_id = alive[0 if first else -1]
        assert not self.stage.commit(lambda c: sweeping.release(self.world.workspace_id, claim_id))
        self.must_have_become({})
        self.stage.change("UPDATE claim SET lease_until = now() - interval '1 s' WHERE id = $1", claim_id)
        for hands in self.hands:
            if hands.claim_id == claim_id:
                hands.stays("LEASE_ENDED", hands.leaving)
                hands.leaving = set()

    @precondition(lambda self: False in self.stage.claims.values())
    @rule(ending=endings)
    def sweeps(self, ending: Ending) -> None:
        self.remember()
        claim_id = min(id for id, alive in self.stage.claims.items() if not alive)
        leaving = [id for id, row in self.before.items() if row.claim_id == claim_id and row.state == "sending"]
        expected = dict.fromkeys(leaving, "in_doubt")
        self.stage.commit(lambda c: sweeping.release(self.world.workspace_id, claim_id), ending)
        self.must_have_become(expected, ending)

    @precondition(lambda self: self.stage.standing.status == S.CANCELLED or self.stage.standing.expired)
    @rule(ending=endings)
    def closes_the_rest(self, ending: Ending) -> None:
        self.remember()
        now = self.stage.standing
        until = monotonic() + 60
        self.stage.commit(lambda c: close_rest(*self.stage.path, now=self.now(), until=until), ending)
        after = {"pending": "skipped", "deferred": "failed"}
        over = now.status == S.CANCELLED or (now.expired and now.status != S.PAUSED)
        closed = {
            id: after[row.state]
            for id, row in self.before.items()
            if row.state == "deferred" or (row.state == "pending" and id > now.walked_through)
        }
        self.must_have_become(closed if over else {}, ending)

    @rule(ending=endings)
    def finishes(self, ending: Ending) -> None:
        self.remember()
        was = self.stage.standing
        done = self.stage.commit(lambda c: finish(*self.stage.path), ending)
        has_open = any(row.state in OPEN for row in self.before.values()) or bool(self.stage.claims)
        may = (was.status == S.SENDING and was.planned) or was.status == S.CANCELLED
        finished = was.finished or (may and not has_open)
        assert done in (None, finished)
        if ending is not Ending.LOST:
            assert self.stage.standing.finished is finished
        self.must_have_become({})

    # --- people, and the campaign's owner ------------------------------------------------------------------------

    @rule(what=st.sampled_from(News), place=places, other=places)
    def somebody(self, what: News, place: int, other: int) -> None:
        self.remember()
        workspace_id, person = self.world.workspace_id, self.stage.people[place]
        if what is News.UNSUBSCRIBED:
            said = {"profile_id": person, "channel": Channel.EMAIL, "topic": "marketing", "source": "test"}
            self.stage.commit(lambda c: consent.unsubscribe(workspace_id, now=self.now(), **said))  # type: ignore[arg-type]
        elif what is News.SUPPRESSED:
            why = consent.SuppressionReason.MANUAL
            ids = {"workspace_id": workspace_id, "profile_ids": [person]}
            self.stage.commit(lambda c: consent.suppress_profiles(c, reason=why, **ids))  # type: ignore[arg-type]
        elif what is News.MOVED:
            self.stage.change(MOVE_HOUSE, person)
        elif what is News.SWAPPED:
            self.stage.change(SWAP_HOUSES, [person, self.stage.people[other]])
        elif place != other:
            both = {"loser_id": person, "winner_id": self.stage.people[other]}
            self.stage.commit(lambda c: merging.merge(workspace_id, now=self.now(), **both))
        self.must_have_become({})

    @precondition(lambda self: self.stage.standing.status in (S.PREPARING, S.SENDING))
    @rule(ending=endings)
    def pauses(self, ending: Ending) -> None:
        self.remember()
        self.stage.commit(lambda c: control.pause(*self.stage.path[:2], now=self.now()), ending)

    @precondition(lambda self: self.stage.standing.status == S.PAUSED)
    @rule(ending=endings)
    def resumes(self, ending: Ending) -> None:
        self.remember()
        self.stage.commit(lambda c: control.resume(*self.stage.path[:2], now=self.now()), ending)

    @precondition(lambda self: self.stage.standing.status in (S.PREPARING, S.SENDING, S.PAUSED))
    @rule(ending=endings, how=st.integers(0, 7))
    def is_stopped(self, ending: Ending, how: int) -> None:
        """Rarely: little happens afterwards."""
        self.remember()
        if how == 0:
            self.stage.commit(lambda c: control.cancel(*self.stage.path[:2], now=self.now()), ending)
        elif how == 1:
            self.stage.change("UPDATE campaign SET expires_at = now() WHERE id = $1", self.stage.campaign_id)

    @precondition(lambda self: any(row.state == "in_doubt" for row in self.stage.rows.values()))
    @precondition(lambda self: self.stage.standing.status in (S.SENDING, S.PAUSED, S.SENT))
    @precondition(lambda self: not self.stage.standing.expired)
    @rule(ending=endings, again=st.booleans())
    def settles_doubts(self, ending: Ending, again: bool) -> None:
        """On a person's word, which may be wrong: who had it may get it twice then, and no other way."""
        self.remember()
        doubts = [id for id, row in self.before.items() if row.state == "in_doubt"]
        said = Resolution.RETRY if again else Resolution.SENT
        ids = self.stage.path[:2]
        self.stage.commit(lambda c: resolving.resolve(*ids, resolved_as=said, by=None, now=self.now()), ending)
        self.must_have_become(dict.fromkeys(doubts, "pending" if again else "sent"), ending)
        if ending is Ending.LOST:
            return
        if again:
            self.perhaps_arrived -= set(doubts)
            self.retried.update(doubts)
        else:
            self.said_sent |= set(doubts)

    # --- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Everybody dies, one healthy worker comes: the campaign ends, and nobody is lost or counted wrong."""
        if sys.exc_info()[0] is not None:
            return  # a step has failed already
        self.hands = [Hands(), Hands()]
        self.stage.change("UPDATE claim SET lease_until = now() - interval '1 s'")
        while self.stage.claims:
            self.sweeps(Ending.DONE)
        if self.stage.standing.status == S.PAUSED:
            self.resumes(Ending.DONE)
        self.begin(True)
        while any(row.state in OPEN for row in self.stage.rows.values()):
            if self.stage.standing.status == S.CANCELLED or self.stage.standing.expired:
                self.closes_the_rest(Ending.DONE)
            self.stage.change(TIME_PASSES, self.stage.dispatch_id)
            self.goes_back(0, Ending.DONE)
            self.works(0, [(Ending.DONE, ACCEPTED)] * 8)
        self.gives_back(0, Ending.DONE)
        self.finishes(Ending.DONE)
        self.remember()
        self.every_row_keeps_the_rules()
        self.the_dispatch_keeps_the_rules()
        assert self.stage.standing.finished
        assert self.stage.standing.status in (S.SENT, S.CANCELLED)
        for id, row in self.stage.rows.items():
            if not self.retried[id]:
                ends = ("sent", "in_doubt") if id in self.believed_sent() else ("in_doubt", "skipped", "failed")
                assert row.state in ends
        self.world.run(tallies.recount(self.world.workspace_id, self.stage.campaign_id))
        self.world.run(self.stage.look())
        assert not self.stage.standing.dirty
        self.the_dispatch_keeps_the_rules()
