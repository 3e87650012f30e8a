"""Whether a notification fits into what FCM and APNs take, found before the first one leaves (T-15).

When it is written: what is the same for everybody must fit. Before it is sent: PostgreSQL compares the whole audience
by how long the values are that its templates read (campaigns/push_bounds.py), and for those who could be too much the
payloads are really made.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from campaigns.emails import Recipient, defaults
from campaigns.errors import CampaignError, RenderError
from campaigns.program import Encoding, Frame, Value
from campaigns.push_bounds import Bound, Place, bound_of
from campaigns.push_content import PushContent
from campaigns.push_json import Hole, encoded
from campaigns.push_payloads import FOR, UNTIL, Payload, PushTarget, languages, life_s, target_of
from campaigns.push_rendering import PAYLOAD_LIMIT, CompiledPush, limit_of

if TYPE_CHECKING:  # at run time it does without a database, so that app/proofreader.py starts fast
    from pyroaring import BitMap

    from db.transactions import Connection

LOOKED_AT = 2_000
"""People of whom payloads are made, those with the longest values first."""
ANY_NAME = "0" * 32
"""As long as what a notification is called whose author does not say."""
DIGITS_OF_TIME = 10
"""Of an instant in seconds since 1970."""

# Only people who get a message: neither somebody without a device nor one who is skipped holds a campaign up, or takes
# the place of those who are looked at. OFFSET 0: a look-up each, also where the planner takes the ledger, which was
# written just now, for empty.
# $2: the audience, $3: what the templates read, as [{"fact" or "path", "factor"}], $4: bytes that are the same for all,
# $5: bytes that are taken. jsonb escapes as orjson does; a number may be printed longer than it is kept, up to 24.
# `person` keeps those who could be too much if all that is known of them stood wherever any of it is read ($8: how
# often facts are, $9: traits): nearly nobody, at a fifth of what it costs to look at each value of everybody. A byte
# becomes six at most, as a control character does.
HEAVIEST = """
WITH asked AS MATERIALIZED (
  SELECT fact, path, factor FROM jsonb_to_recordset($3::jsonb) AS a (fact text, path text[], factor bigint)),
person AS MATERIALIZED (
  SELECT p.id, p.traits, jsonb_build_object('external_id', p.external_id, 'email', p.email, 'locale', p.locale,
    'time_zone', p.time_zone, 'country', p.country, 'city', p.city) AS facts
  FROM profile p
  WHERE p.workspace_id = $1 AND p.id = ANY($2::int[]) AND p.erased_at IS NULL AND p.merged_into IS NULL
    AND $4::bigint
      + $8::bigint * 6 * octet_length(concat(p.external_id, p.email, p.locale, p.time_zone, p.country, p.city))
      + CASE WHEN $9::bigint = 0 THEN 0 ELSE $9 * greatest(octet_length(p.traits::text), 24) END > $5::bigint),
sized AS MATERIALIZED (
  SELECT p.id, $4 + (
    SELECT coalesce(sum(a.factor * CASE jsonb_typeof(f.found)
      WHEN 'string' THEN octet_length(f.found::text) - 2
      WHEN 'number' THEN greatest(octet_length(f.found::text), 24)
      WHEN 'boolean' THEN 5
      ELSE octet_length(f.found::text) END), 0)
    FROM asked a
    CROSS JOIN LATERAL (SELECT CASE WHEN a.fact IS NULL THEN p.traits #> a.path ELSE p.facts -> a.fact END AS found) f
  ) AS most
  FROM person p),
heaviest AS MATERIALIZED (
  SELECT s.id, s.most FROM sized s
  WHERE s.most > $5 AND EXISTS (
    SELECT 1 FROM delivery d WHERE d.dispatch_id = $7 AND d.profile_id = s.id AND d.state = 'pending' OFFSET 0)
  ORDER BY s.most DESC, s.id LIMIT $6)
SELECT p.id, p.external_id, p.email, p.traits, p.locale, p.time_zone, p.country, p.city,
  k.provider, k.platform, k.device_locale
FROM heaviest h
JOIN profile p ON p.workspace_id = $1 AND p.id = h.id
CROSS JOIN LATERAL (
  SELECT DISTINCT o.provider, o.platform, o.locale AS device_locale FROM device o
  WHERE o.workspace_id = $1 AND o.profile_id = h.id AND o.disabled_at IS NULL OFFSET 0) AS k
ORDER BY h.most DESC, h.id, k.provider, k.platform, k.device_locale
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Stands in a payload for what a template writes."""

    path: tuple[str, ...]
    bound: Bound

    def __call__(self, frame: Frame) -> None:
        raise NotImplementedError("a span is measured, never written")


@dataclass(frozen=True, slots=True)
class Measured:
    """A payload for one platform in one language, as far as its size is known."""

    target: PushTarget
    fixed: int
    """Bytes that no template writes."""
    spans: tuple[Span, ...]

    @property
    def bound(self) -> Bound:
        return reduce(Bound.__add__, (span.bound for span in self.spans), Bound(self.fixed, {}, self.fixed))

    def longest(self, person: Mapping[str, Any]) -> tuple[str, ...]:
        """The field of the template that may write most for somebody (a row of HEAVIEST; empty: for nobody)."""

        def most(span: Span) -> int:
            return span.bound.most + sum(
                factor * bytes_at(place, person) for place, factor in span.bound.factors.items()
            )

        return max(self.spans, key=most).path if self.spans else ("content",)


def measured(content: PushContent, campaign_name: str) -> Iterator[Measured]:
    """All payloads of a content whose templates compile."""
    known = defaults(content)
    made: dict[tuple[tuple[str, ...], Encoding], Hole] = {}

    def text(source: str, path: tuple[str, ...], encoding: Encoding) -> Hole:
        if (path, encoding) not in made:
            bound = bound_of(
                source,
                path=path,
                limit=limit_of(path),
                defaults=known,
                campaign_name=campaign_name,
                encoding=encoding,
            )
            made[path, encoding] = Hole((Span(path, bound),))
        return made[path, encoding]

    for language in languages(content):
        payload = Payload(content, language, text)
        for target in PushTarget:
            fixed, spans = 0, list[Span]()
            for step in encoded(payload.tree(target, replaces=ANY_NAME)):
                if isinstance(step, bytes):
                    fixed += len(step)
                elif isinstance(step, Span):
                    spans.append(step)
                elif step is FOR:
                    fixed += len(str(life_s(payload.content, target)))
                else:
                    assert step is UNTIL
                    fixed += DIGITS_OF_TIME
            yield Measured(target, fixed, tuple(spans))


def require_constant_part_fits(content: PushContent, campaign_name: str) -> None:
    """Raise CampaignError MESSAGE_TOO_LARGE when a notification is too large whoever it is for."""
    for one in measured(content, campaign_name):
        least = one.bound.least
        if least > PAYLOAD_LIMIT:
            has = f"{'' if least == one.bound.most else 'at least '}{least:,} bytes"
            message = f"To {PROVIDERS[one.target]} it has {has}, and {PAYLOAD_LIMIT:,} are taken; shorten this."
            raise CampaignError("MESSAGE_TOO_LARGE", message, field=one.longest({}))


PROVIDERS = {
    PushTarget.APNS: "APNs",
    PushTarget.FCM_IOS: "FCM for iPhones",
    PushTarget.FCM_ANDROID: "FCM for Android",
    PushTarget.FCM_WEB: "FCM for browsers",
}


async def require_push_fits(
    connection: "Connection",
    compiled: CompiledPush,
    audience: "BitMap",
    *,
    workspace_id: UUID,
    dispatch_id: UUID,
    now: datetime,
) -> None:
    """Raise CampaignError MESSAGE_TOO_LARGE when a notification is too large for somebody of the audience who is to get
    one by the ledger, naming the field, the profile and the size.

    Of more than LOOKED_AT people who could be too much those with the shortest values are not looked at; one of theirs
    that is too large all the same fails alone.
    """
    if not compiled.reads_person:
        return  # its size was known when it was written
    every = await asyncio.to_thread(lambda: list(measured(compiled.content, compiled.campaign_name)))
    bound = reduce(Bound.either, (one.bound for one in every))
    people = await connection.fetch(
        HEAVIEST,
        workspace_id,
        list(audience),
        [asked(place, factor) for place, factor in bound.factors.items()],
        bound.most,
        PAYLOAD_LIMIT,
        LOOKED_AT,
        dispatch_id,
        sum(factor for place, factor in bound.factors.items() if place[0] == "profile"),
        sum(factor for place, factor in bound.factors.items() if place[0] != "profile"),
    )
    if people:
        await asyncio.to_thread(require_each_fits, compiled, every, people, now)


def asked(place: Place, factor: int) -> dict[str, Any]:
    """What HEAVIEST is told of a value that templates read."""
    root, *keys = place
    if root == "profile":
        return {"fact": keys[0], "factor": factor}
    return {"path": [str(key) for key in keys], "factor": factor}


def require_each_fits(
    compiled: CompiledPush, every: Sequence[Measured], people: Sequence[Mapping[str, Any]], now: datetime
) -> None:
    """Make the payloads of `people` (rows of HEAVIEST); raise CampaignError for the largest that is too large."""
    worst: tuple[int, Mapping[str, Any]] | None = None
    for row in people:
        recipient = recipient_of(row)
        form = compiled.form(recipient, provider=row["provider"], platform=row["platform"], locale=row["device_locale"])
        try:
            size = len(
                compiled.fill(form, recipient, seconds=form.life_s, end=now + timedelta(seconds=form.life_s), now=now)
            )
        except RenderError:
            continue  # fails alone when its turn comes
        if size > PAYLOAD_LIMIT and (worst is None or size > worst[0]):
            worst = size, row
    if worst is not None:
        size, row = worst
        target = target_of(row["provider"], row["platform"])
        path = next(one for one in every if one.target is target).longest(row)
        message = (
            f"The notification for profile {row['id']} has {size:,} bytes, and {PROVIDERS[target]} takes"
            f" {PAYLOAD_LIMIT:,}; most of it is {'.'.join(path[1:])}. Shorten that, as by | truncate(100)."
        )
        raise CampaignError("MESSAGE_TOO_LARGE", message, field=path)


def recipient_of(row: Mapping[str, Any]) -> Recipient:
    return Recipient(**{name: row[name] for name in FACTS} | {"email": row["email"] or ""})


FACTS = ("external_id", "traits", "locale", "time_zone", "country", "city")


def bytes_at(place: Place, person: Mapping[str, Any]) -> int:
    """Bytes of somebody's value as JSON; 0 where there is none."""
    value: Value = person.get(str(place[1])) if place[0] == "profile" else person.get("traits")
    for key in () if place[0] == "profile" else place[1:]:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            value = value[key]
        else:
            return 0
    return 0 if value is None else len(orjson.dumps(value))
