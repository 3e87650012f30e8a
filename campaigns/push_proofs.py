"""What is done with a notification's templates before anything is sent: proved when written, previewed on request.

Runs where campaigns/proofs.py does: in a child that can be killed (ADR 0013).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from campaigns.emails import Recipient, Variable, defaults, scope_of
from campaigns.errors import RenderError
from campaigns.program import MISSING, PLAIN, Encoding, Program
from campaigns.proofs import Objection, Proof, Used, asked, look_up, rehearse
from campaigns.push_content import PushContent
from campaigns.push_json import Tree
from campaigns.push_payloads import Payload, PushTarget, languages
from campaigns.push_rendering import KNOWN, PAYLOAD_LIMIT, CompiledPush, Form, compile_push, limit_of
from campaigns.push_sizing import PROVIDERS, require_constant_part_fits
from campaigns.templates import compile_template


@dataclass(frozen=True, slots=True)
class PushTrial:
    """What to preview: a notification for one recipient."""

    content: PushContent
    campaign_name: str
    recipient: Recipient
    expires_at: datetime | None
    """Of the campaign."""
    now: datetime

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PushTrial":
        expires_at = value["expires_at"]
        return cls(
            PushContent.from_json(value["content"]),
            value["campaign_name"],
            Recipient(**value["recipient"]),
            expires_at and datetime.fromisoformat(expires_at),
            datetime.fromisoformat(value["now"]),
        )


@dataclass(frozen=True, slots=True)
class PushSample:
    """What one platform would be given."""

    target: PushTarget
    locale: str | None
    """Of the translation; None: the notification's own texts."""
    payload: str | None
    """JSON: APNs' body, or FCM's `message` without its token; None when it cannot be made."""
    headers: tuple[tuple[str, str], ...]
    """Of APNs' request; FCM's are the same for all."""
    size: int | None
    """Bytes of the payload."""


@dataclass(frozen=True, slots=True)
class PushPreview:
    """A notification as every platform would be given it."""

    samples: tuple[PushSample, ...]
    variables: tuple[Used, ...]
    problems: tuple[Objection, ...]
    """Why this recipient's would fail; empty when all can be made."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PushPreview":
        return cls(
            samples=tuple(
                PushSample(
                    target=PushTarget(one["target"]),
                    locale=one["locale"],
                    payload=one["payload"],
                    headers=tuple((name, text) for name, text in one["headers"]),
                    size=one["size"],
                )
                for one in value["samples"]
            ),
            variables=tuple(Used(**one) for one in value["variables"]),
            problems=tuple(map(Objection.from_json, value["problems"])),
        )


def prove(content: PushContent) -> Proof:
    """What is known of a content that campaigns/push_checks.py let pass. Raises CampaignError naming the field."""
    found = {declared.name: declared for declared in content.variables}
    for path, program in programs(content).items():
        rehearse(program, field=path)
        for name, read in asked(program).items():
            found[name] = Variable(name, None if read.default is MISSING else read.default)
    require_constant_part_fits(content, campaign_name="")
    return Proof(tuple(found[name] for name in sorted(found)), None)


def programs(content: PushContent) -> dict[tuple[str, ...], Program]:
    """Every template of a content, compiled as text, by its field."""
    known = defaults(content)
    made: dict[tuple[str, ...], Program] = {}

    def text(source: str, path: tuple[str, ...], encoding: Encoding) -> Tree:
        if path not in made:
            made[path] = compile_template(
                source, field=path, limit=limit_of(path), encoding=PLAIN, defaults=known, context=KNOWN
            )
        return None

    for language in languages(content):
        payload = Payload(content, language, text)
        for target in PushTarget:
            payload.tree(target, replaces="")
    return made


def preview(trial: PushTrial) -> PushPreview:
    """A notification as every platform would be given it for one recipient."""
    compiled = compile_push(trial.content, campaign_name=trial.campaign_name, dispatch_id=UUID(int=0))
    locale = compiled.translation(None, trial.recipient.locale)
    samples, problems = list[PushSample](), dict[tuple[str, str], Objection]()
    for target, form in compiled.forms[locale].items():
        sample, problem = sample_of(compiled, form, target, locale, trial)
        samples.append(sample)
        if problem is not None:
            problems.setdefault((problem.code, problem.message), problem)
    scope = scope_of(compiled.common, trial.recipient, unsubscribe_url="", now=trial.now)
    used = {
        name: look_up(name, read, scope)
        for program in programs(trial.content).values()
        for name, read in asked(program).items()
    }
    return PushPreview(tuple(samples), tuple(used[name] for name in sorted(used)), tuple(problems.values()))


def sample_of(
    compiled: CompiledPush, form: Form, target: PushTarget, locale: str | None, trial: PushTrial
) -> tuple[PushSample, Objection | None]:
    """What a platform would be given, and what speaks against it."""
    seconds = form.seconds(expires_at=trial.expires_at, now=trial.now)
    end = trial.now + timedelta(seconds=seconds) if seconds else None
    headers = apns_headers(form, end) if target is PushTarget.APNS else ()
    try:
        payload = compiled.fill(form, trial.recipient, seconds=seconds, end=end, now=trial.now)
    except RenderError as refusal:
        return PushSample(target, locale, None, headers, None), Objection.of(refusal, field=("content",))
    sample = PushSample(target, locale, payload.decode(), headers, len(payload))
    if len(payload) <= PAYLOAD_LIMIT:
        return sample, None
    message = f"{PROVIDERS[target]} takes {PAYLOAD_LIMIT:,} bytes; this has {len(payload):,}. Shorten it."
    return sample, Objection("TOO_LARGE", message, ("content",))


def apns_headers(form: Form, end: datetime | None) -> tuple[tuple[str, str], ...]:
    """The headers of APNs' request that the content decides."""
    headers = (
        ("apns-push-type", form.push_type.value),
        ("apns-priority", "10" if form.urgent else "5"),
        ("apns-expiration", str(int(end.timestamp()) if end else 0)),
    )
    return headers if form.collapse_id is None else (*headers, ("apns-collapse-id", form.collapse_id))
