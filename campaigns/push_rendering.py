"""Push notifications made ready once for a dispatch, and filled in for each device.

What a notification is to a platform (campaigns/push_payloads.py) is JSON with holes (campaigns/push_json.py), one form
for each platform and language.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol
from uuid import UUID

from campaigns import locales
from campaigns.emails import Person, defaults, scope_of
from campaigns.errors import RenderError
from campaigns.program import Encoding, Frame, Step, Value, run
from campaigns.push_content import PushContent, repeats_on
from campaigns.push_json import Hole, checked, encoded
from campaigns.push_payloads import (
    END,
    FOR,
    SECONDS,
    UNTIL,
    Payload,
    PushTarget,
    collapse_id,
    is_urgent,
    languages,
    life_s,
    push_type,
    target_of,
)
from campaigns.templates import compile_template
from campaigns.variables import CONTEXT
from channels.base import PushMessage, PushProvider, PushType

PAYLOAD_LIMIT = 4_096
"""Bytes that FCM and APNs take: of APNs' body, and of FCM's `message` without its token."""
SHORT_LIMIT, LONG_LIMIT, ADDRESS_LIMIT = 1_024, 4_096, 2_048
"""Bytes of a template: of a title, of a body, and of an address."""
KNOWN = {name: CONTEXT[name] for name in ("profile", "traits", "campaign", "now")}
"""What templates of notifications may begin with: nobody sends them, and nobody unsubscribes in them."""
MOST_FOUND = 1_000
TEST_MARK = b"[Test] "
"""As the subject of a test mail begins."""
BLANK = re.compile(rb"(?:\s|\\[nrt])*")
"""What shows nothing, in a JSON string."""
SHOWN = " shown"
"""Under which name the scope keeps that title or body say something to this recipient."""


@dataclass(frozen=True, slots=True)
class Form:
    """A payload for one platform in one language."""

    steps: tuple[Step, ...]
    is_personal: bool
    """Whether it says more of the recipient than how long it lives."""
    may_be_empty: bool
    """Whether what title and body say depends on the recipient."""
    life_s: int
    push_type: PushType
    urgent: bool
    collapse_id: str | None
    replaceable: bool

    def seconds(self, *, expires_at: datetime | None, now: datetime) -> int:
        """For how long a provider may keep it: never beyond the campaign's expiry."""
        if expires_at is None:
            return self.life_s
        return max(0, min(self.life_s, int((expires_at - now).total_seconds())))


class Device(Protocol):
    """What a message is made for."""

    @property
    def provider(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def locale(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class CompiledPush:
    """A notification ready to be made for any number of devices."""

    content: PushContent
    campaign_name: str
    forms: Mapping[str | None, Mapping[PushTarget, Form]]
    """By the locale of the translation, then by platform; None is the notification's own texts."""
    common: dict[str, Value]
    """What templates see that is the same for all."""
    found: dict[tuple[str | None, str | None], str | None] = field(default_factory=dict)
    """Translations that were looked up, by the locales of device and profile."""

    @property
    def reads_person(self) -> bool:
        """Whether any text depends on the recipient; else only the locale does."""
        return any(form.is_personal for by_target in self.forms.values() for form in by_target.values())

    def may_repeat(self, target: PushTarget) -> bool:
        """Whether a message of which nobody knows whether it arrived may go again by itself."""
        return self.forms[None][target].replaceable

    def render(
        self,
        recipient: Person,
        device: Device,
        *,
        key: str,
        message_id: str,
        expires_at: datetime | None,
        now: datetime,
    ) -> PushMessage:
        """One device's message. The device's language goes before the profile's.

        `expires_at`: of the campaign; no provider keeps the message for longer. `now`: of this attempt. Raises
        RenderError: this recipient's message cannot be made, the others are not affected.
        """
        target = target_of(device.provider, device.platform)
        form = self.forms[self.translation(device.locale, recipient.locale)][target]
        seconds = form.seconds(expires_at=expires_at, now=now)
        end = now + timedelta(seconds=seconds) if seconds else None  # 0: the provider tries once and keeps nothing
        payload = self.fill(form, recipient, seconds=seconds, end=end, now=now)
        if len(payload) > PAYLOAD_LIMIT:
            message = f"The notification has {len(payload):,} bytes for this recipient; {PAYLOAD_LIMIT:,} are taken."
            raise RenderError("TOO_LARGE", message)
        to_apns = target is PushTarget.APNS
        return PushMessage(
            provider=PushProvider.APNS if to_apns else PushProvider.FCM,
            token=device.token,
            payload=payload,
            key=key,
            message_id=message_id,
            push_type=form.push_type,
            urgent=form.urgent,
            expires_at=end if to_apns else None,
            collapse_id=form.collapse_id if to_apns else None,
            replaceable=form.replaceable,
        )

    def form(self, recipient: Person, *, provider: str, platform: str, locale: str | None) -> Form:
        """The payload that a device of these gets."""
        return self.forms[self.translation(locale, recipient.locale)][target_of(provider, platform)]

    def fill(self, form: Form, recipient: Person, *, seconds: int, end: datetime | None, now: datetime) -> bytes:
        """The payload of one of `forms`, of any size. Raises RenderError."""
        scope: dict[str, Value] = {}
        if form.is_personal:
            scope = scope_of(self.common, recipient, unsubscribe_url="", now=now)
        scope[SECONDS] = seconds
        scope[END] = int(end.timestamp()) if end is not None else 0
        frame = Frame(scope, [])
        run(form.steps, frame)
        payload = b"".join(frame.out)
        if form.may_be_empty and SHOWN not in scope:
            raise RenderError("NOTHING_TO_SHOW", "Title and body are both empty for this recipient; say what to show.")
        return payload

    def translation(self, device_locale: str | None, locale: str | None) -> str | None:
        """The locale of the translation for somebody; None for the notification's own texts."""
        if len(self.forms) == 1:
            return None
        asked = (device_locale, locale)
        if asked not in self.found:
            if len(self.found) >= MOST_FOUND:
                self.found.clear()
            own = self.content.locale
            available = [one for one in (*self.forms, own) if one is not None]
            best = locales.lookup([one for one in asked if one], available)
            self.found[asked] = None if best == own else best
        return self.found[asked]


def compile_push(content: PushContent, *, campaign_name: str, dispatch_id: UUID, test: bool = False) -> CompiledPush:
    """A notification made ready: once for each dispatch and process. Raises CampaignError naming the field.

    `test`: it says so before its title, or its text where it has none; a silent one says nothing.
    What the author did not name is called by the dispatch on the screen: a device gets one message of each, so that
    a copy takes the first one's place.
    """
    marked = ("title" if content.title else "body") if test and not content.silent else None
    templates, replaces = Templates(defaults(content), marked), dispatch_id.hex
    forms = {
        language and language[1].locale: {
            target: form_of(Payload(content, language, templates.text), target, replaces) for target in PushTarget
        }
        for language in languages(content)
    }
    return CompiledPush(content, campaign_name, forms, {"campaign": {"name": campaign_name}})


class Templates:
    """Compiles the templates of one content, each once."""

    def __init__(self, known: Mapping[str, Value], marked: str | None) -> None:
        """`marked`: the text that says that it is a test."""
        self.known, self.marked = known, marked
        self.made: dict[tuple[tuple[str, ...], Encoding], Hole] = {}

    def text(self, source: str, path: tuple[str, ...], encoding: Encoding) -> Hole:
        """What stands for a template in a payload. Raises CampaignError with its field."""
        made = self.made.get((path, encoding))
        if made is None:
            program = compile_template(
                source, field=path, limit=limit_of(path), encoding=encoding, defaults=self.known, context=KNOWN
            )
            steps = looked_at(program.steps, path)
            if path[-1] == self.marked:
                steps = (TEST_MARK, *steps)
            made = self.made[path, encoding] = Hole(steps)
        return made


def limit_of(path: tuple[str, ...]) -> int:
    """Bytes that a template may have, by its field."""
    if path[-1] in ("link", "image_url"):
        return ADDRESS_LIMIT
    return LONG_LIMIT if path[-1] in ("body", "value") else SHORT_LIMIT


def looked_at(steps: tuple[Step, ...], path: tuple[str, ...]) -> tuple[Step, ...]:
    """Steps that look at what they have written where it depends on the recipient: an address must stay one, and it is
    remembered that title or body say something."""
    if all(isinstance(step, bytes) for step in steps):
        return steps
    if path[-1] in ("link", "image_url"):
        message = (
            f"The {path[-1].partition('_')[0]} is no address for this recipient; encode values in it by | urlencode."
        )
        return checked(steps, is_address, RenderError("NOT_A_URL", message))
    if path[-1] in ("title", "body") and not says_something(steps):
        return (partial(note_shown, steps),)
    return steps


def is_address(written: bytes) -> bool:
    """Whether what stands in a JSON string may be an address: its beginning is fixed, and nothing in it ends one."""
    return (
        len(written) <= ADDRESS_LIMIT
        and b"\\" not in written
        and written.decode().isprintable()
        and b" " not in written
    )


def says_something(steps: Sequence[Step]) -> bool:
    """Whether there is text that is the same for everybody; a test's mark is none."""
    return any(isinstance(step, bytes) and step is not TEST_MARK and not BLANK.fullmatch(step) for step in steps)


def note_shown(steps: tuple[Step, ...], frame: Frame) -> None:
    start = len(frame.out)
    run(steps, frame)
    if not BLANK.fullmatch(b"".join(frame.out[start:])):
        frame.scope[SHOWN] = True


def form_of(payload: Payload, target: PushTarget, replaces: str) -> Form:
    """The payload of one platform, ready to be filled in."""
    content = payload.content
    steps = encoded(payload.tree(target, replaces=replaces))
    own = payload.text(content.title, "title"), payload.text(content.body, "body")
    texts = [one.steps for one in own if isinstance(one, Hole)]
    priority = content.ios.priority
    return Form(
        steps=steps,
        is_personal=any(callable(step) and step not in (FOR, UNTIL) for step in steps),
        may_be_empty=not content.silent and not any(map(says_something, texts)),
        life_s=life_s(content, target),
        push_type=push_type(content),
        urgent=is_urgent(content, priority),
        collapse_id=collapse_id(content, replaces),
        replaceable=target is not PushTarget.FCM_WEB and bool(repeats_on(content)),
    )
