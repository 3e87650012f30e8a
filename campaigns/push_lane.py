"""How push notifications leave: each device by the credential of the app that it runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha1
from typing import cast
from uuid import UUID

from campaigns import intents, push_intents
from campaigns.answers import PushReady, Ready, unsent
from campaigns.breaker import Breaker
from campaigns.carrier import PushCarrier, PushRun
from campaigns.claims import Taken
from campaigns.errors import RenderError
from campaigns.intents import Intended, Intent
from campaigns.lanes import Keep
from campaigns.making import AT_ONCE, Unmade, key_of
from campaigns.models import CampaignChannel, DeliveryState
from campaigns.push_channels import Credential, Routes
from campaigns.reasons import SkipReason
from channels.base import Outcome, OutcomeKind, OutcomeScope, PushProvider
from db.transactions import Connection, transaction
from profiles import devices
from profiles.devices import Device, GoneDevice

MOST_AT_ONCE = 5_000
"""Devices disabled in one transaction."""
LONGEST_DETAIL = 500
"""Characters, as of every outcome's detail."""
LATEST = timedelta(seconds=60)
"""Between the making of a notification and its arrival at FCM, at most: a turn's length and an attempt's timeout. FCM
is told how long it may keep a notification, not until when."""
PROVIDERS = {one.value: one for one in PushProvider}
EXPIRES_AT = "SELECT expires_at FROM campaign WHERE workspace_id = $1 AND id = $2"


class PushGate:
    """Shut while all providers of a workspace are; one that is away alone holds up its own messages only."""

    def __init__(self, routes: Routes) -> None:
        self._gates = [route.gate for route in routes.values()]

    def is_shut(self) -> bool:
        return all(gate.is_shut() for gate in self._gates)

    def let_through(self, most: int) -> int:
        if any(gate.is_open() for gate in self._gates):
            return most
        return 0 if self.is_shut() else min(1, most)

    def saw(self, outcome: Outcome) -> None:
        """Each provider's own gate sees its own answers."""


class PushLane:
    """The way out for one push dispatch. Made for one turn."""

    channel = CampaignChannel.PUSH

    def __init__(self, run: PushRun, carrier: PushCarrier, routes: Routes) -> None:
        self.run, self.routes = run, routes
        self.slots, self.rate, self.gate = carrier.slots, carrier.rate, PushGate(routes)
        self.token_hash = carrier.token_hash

    async def make(self, taken: Sequence[Taken], *, now: datetime, keep: Keep) -> Unmade:
        workspace_id, unmade = self.run.workspace_id, Unmade()
        async with transaction(workspace_id, generic_plans=True) as connection:
            found = await devices.find_by_ids(connection, workspace_id, [one.device_id for one in taken])
            expires_at = await connection.fetchval(EXPIRES_AT, workspace_id, self.run.campaign_id)
        for place, one in enumerate(taken, 1):
            if place % AT_ONCE == 0:
                await asyncio.sleep(0)
            device = found.get(one.device_id)
            credential = None if device is None else self.credential_of(device)
            reason = self.reason_against(one, device, credential)
            if device is None or credential is None or reason is not None:
                unmade.settled.append(unsent(one, DeliveryState.SKIPPED, reason or SkipReason.DEVICE_GONE))
                continue
            try:
                ready = self.made(one, device, credential, expires_at, now)
            except RenderError as refusal:
                unmade.settled.append(unsent(one, DeliveryState.FAILED, refusal.code, refusal.message))
                unmade.refusals.append((one.profile_id, refusal))
                continue
            keep(ready)
        return unmade

    def credential_of(self, device: Device) -> Credential:
        """What a device is reached with."""
        return device.app, PROVIDERS[device.provider]

    def reason_against(self, one: Taken, device: Device | None, credential: Credential | None) -> SkipReason | None:
        """Why nothing is made for a device, as far as can be seen before the last look.

        Whose device it is, is not: it may have moved because its owner was merged since the taking.
        """
        if one.erased:
            return SkipReason.ERASED
        if device is None or device.disabled_at is not None:
            return SkipReason.DEVICE_GONE
        if credential not in self.routes:
            return SkipReason.NO_CREDENTIAL
        return None

    def made(
        self, one: Taken, device: Device, credential: Credential, expires_at: datetime | None, now: datetime
    ) -> PushReady:
        """One device's notification. Raises RenderError."""
        key = key_of(self.run.dispatch_id, one)
        if expires_at is not None and credential[1] is PushProvider.FCM:
            expires_at -= LATEST
        name = message_id(self.run.dispatch_id, one) if credential[1] is PushProvider.APNS else ""
        message = self.run.content.render(one, device, key=key, message_id=name, expires_at=expires_at, now=now)
        token_hash = self.token_hash(device.token)
        intent = Intent(one.profile_id, one.device_id, one.fence, one.first_attempt_at or now, token_hash)
        return PushReady(one, intent, message, device, credential, now)

    async def intend(self, connection: Connection, group: Sequence[Ready], *, claim_id: int) -> Intended:
        return await intents.intend(
            connection,
            push_intents.PUSH,
            workspace_id=self.run.workspace_id,
            campaign_id=self.run.campaign_id,
            dispatch_id=self.run.dispatch_id,
            claim_id=claim_id,
            ready=[one.intent for one in group],
            consent_matters=self.run.consent_matters,
            test=self.run.test,
        )

    async def send(self, ready: Ready) -> Outcome:
        """Hand one notification to its provider. In doubt only where a second copy would be seen (R10)."""
        one = cast(PushReady, ready)
        route = self.routes[one.credential]
        if route.gate.let_through(1) == 0:
            wait, scope = route.gate.shut_for(), OutcomeScope.HOST
            return Outcome(OutcomeKind.DEFERRED, "HOST_UNAVAILABLE", "queue", retry_after=wait, scope=scope)
        outcome = await route.channel.send(one.message)
        route.gate.saw(outcome)
        if outcome.scope is OutcomeScope.CHANNEL:
            # The whole campaign pauses for it: whoever mends it must know which app of several it is.
            app, provider = one.credential
            return replace(outcome, detail=f"{provider} for the app {app!r}: {outcome.detail}"[:LONGEST_DETAIL])
        if outcome.kind is OutcomeKind.IN_DOUBT and one.message.replaceable:
            return replace(outcome, kind=OutcomeKind.DEFERRED)
        return outcome

    def note(self, ready: Ready, outcome: Outcome, breaker: Breaker, *, threshold: int | None) -> None:
        """Devices that are gone are a matter of the guard's alone: some always are."""
        one = cast(PushReady, ready)
        gone = None
        if outcome.bad_address:
            gone = GoneDevice(one.device.id, one.device.token, outcome.gone_at or one.read_at)
        else:
            breaker.note_answer(one.taken.profile_id, outcome, threshold=threshold)
        if gone is not None or outcome.kind is OutcomeKind.ACCEPTED:
            breaker.note_token(one.credential, gone, outcome)

    def to_suppress(self, ready: Ready, outcome: Outcome) -> bytes | None:
        """Devices are disabled, not suppressed: the same one may register again."""
        return None

    async def end(self, breaker: Breaker) -> None:
        """Disable the devices that are gone."""
        gone = [one for guard in breaker.tokens.values() for one in guard.to_disable()]
        for start in range(0, len(gone), MOST_AT_ONCE):
            async with transaction(self.run.workspace_id) as connection:
                now: datetime = await connection.fetchval("SELECT now()")
                await devices.disable_gone(self.run.workspace_id, gone[start : start + MOST_AT_ONCE], now=now)


def message_id(dispatch_id: UUID, one: Taken) -> str:
    """A UUID, the same at every attempt, and another for each device: uuid.uuid5 of both, which takes 10 us."""
    digits = sha1(b"%b%d.%d" % (dispatch_id.bytes, one.profile_id, one.device_id), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
