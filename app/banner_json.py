"""Writing banners as JSON: what was served, field by field as it was selected, straight into bytes.

What execution and orjson would make of the same selection, in a twentieth of the time: a banner is written once for
all its viewers, but for its impression token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import orjson

from app.api import ids
from app.api.ids import Kind
from app.api.scalars import write_instant
from app.problems import camel
from app.serving import Asked, Served
from campaigns.banner_content import BannerFace, has_placeholders, localized
from campaigns.banner_rules import Limits
from campaigns.banner_tokens import ImpressionKind
from campaigns.banners import LONGEST_AGE, Candidate, PlacementDecision
from campaigns.board import Banner, Place

T = TypeVar("T")
LONG = 100
"""Bytes from which on a part of an answer is worth being shared by several; one object more costs half of it."""


class Out(list[bytes]):
    """An answer that is being written: what is its own is appended."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def share(self, part: bytes) -> None:
        """Write what is the same object in other answers."""
        if len(part) < LONG:
            self.append(part)
            return
        self.made += b"".join(self), part
        self.clear()

    def age(self) -> None:
        """Write the age of the answer, whatever it will be."""
        self.made += b"".join(self), AGE
        self.clear()

    def parts(self) -> tuple[bytes, ...]:
        """All that was written: own and shared parts in turn."""
        return (*self.made, b"".join(self))


Write: TypeAlias = Callable[[Out, Served, Asked, T], None]
"""Writes one value."""

AGE = b"%d" % LONGEST_AGE.total_seconds()
"""The longest age, and where it stands in what is written, always as a part by itself: this object, none that is equal,
is replaced when an answer is younger than that."""
TOKEN = "\0"
"""Stands for the impression token in what is kept of a banner: no content has this character."""
TOKEN_WRITTEN = orjson.dumps(TOKEN)
KEPT_BANNERS = 500
"""Written banners that a writer keeps."""

FACE = {camel(name): name for name in BannerFace.__dataclass_fields__}
LIMITS = {camel(name): name for name in Limits.__dataclass_fields__}
TYPES: dict[str, dict[str, str]] = {
    "BannerDecision": {"maxAgeSeconds": "", "viewerToken": "", "viewer": "", "placements": "PlacementDecision"},
    "PlacementDecision": {
        "placement": "",
        "banner": "Banner",
        "further": "Banner",
        "hidden": "",
        "limits": "BannerLimits",
        "rotation": "BannerRotation",
    },
    "Banner": {
        "id": "",
        "contentVersion": "",
        "content": "BannerFace",
        "inTest": "",
        "limits": "BannerLimits",
        "impressionToken": "",
    },
    "BannerFace": dict.fromkeys(FACE, ""),
    "BannerLimits": dict.fromkeys(LIMITS, ""),
    "BannerRotation": {"windowSeconds": "", "window": "", "slots": "", "candidates": "BannerCandidate"},
    "BannerCandidate": {
        "weight": "",
        "priority": "",
        "held": "",
        "startsAt": "",
        "expiresAt": "",
        "banner": "Banner",
    },
}
"""Fields of each type, with the type of what is below; what is not here is not written by this module."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One field of an answer: under which key, which, and what of it."""

    key: str
    name: str
    below: "tuple[Selection, ...]" = ()


@dataclass(frozen=True, slots=True)
class Here:
    """A banner where it is shown: in which placement and window, and what telling of it means."""

    place: Place
    window: int
    banner: Banner
    kind: ImpressionKind


def decision_writer(selections: Sequence[Selection]) -> Write[None]:
    """Writes a whole answer."""

    def field(one: Selection) -> Write[None]:
        match one.name:
            case "maxAgeSeconds":
                return lambda out, served, asked, _: out.age()
            case "viewerToken":
                return lambda out, served, asked, _: out.append(orjson.dumps(served.sight.token))
            case "viewer":
                return lambda out, served, asked, _: out.append(orjson.dumps(served.viewer.key))
            case "placements":
                write = list_of(placement_writer(one.below))
                return lambda out, served, asked, _: write(out, served, asked, served.decision.placements)
        return typename("BannerDecision")

    return object_of(selections, field)


def placement_writer(selections: Sequence[Selection]) -> Write[PlacementDecision]:
    """Writes what one placement shows."""

    def field(one: Selection) -> Write[PlacementDecision]:
        match one.name:
            case "placement":
                return lambda out, served, asked, row: out.append(orjson.dumps(row.placement))
            case "banner":
                return first_banner(banner_writer(one.below))
            case "further":
                return further_banners(list_of(banner_writer(one.below)))
            case "hidden":
                return lambda out, served, asked, row: out.append(
                    orjson.dumps(served.hidden_tokens(row)) if row.hidden else b"[]"
                )
            case "limits":
                return placement_limits(one.below)
            case "rotation":
                return or_null(rotation_writer(one.below))
        return typename("PlacementDecision")

    return object_of(selections, field)


def placement_limits(selections: Sequence[Selection]) -> Write[PlacementDecision]:
    @lru_cache(maxsize=KEPT_BANNERS)
    def written(limits: Limits) -> bytes:
        return orjson.dumps(read_off(selections, LIMITS, limits, "BannerLimits"))

    return lambda out, served, asked, row: out.append(written(row.place.limits) if row.place else b"null")


def first_banner(write: Write[Here]) -> Write[PlacementDecision]:
    def banner(out: Out, served: Served, asked: Asked, row: PlacementDecision) -> None:
        if row.shown and row.place is not None:
            one = row.shown[0]
            write(out, served, asked, Here(row.place, row.window, one.banner, one.kind))
        else:
            out.append(b"null")

    return banner


def further_banners(write: Write[Sequence[Here]]) -> Write[PlacementDecision]:
    def further(out: Out, served: Served, asked: Asked, row: PlacementDecision) -> None:
        if len(row.shown) > 1 and row.place is not None:
            place, window = row.place, row.window
            write(out, served, asked, [Here(place, window, one.banner, one.kind) for one in row.shown[1:]])
        else:
            out.append(b"[]")

    return further


def or_null(write: Write[PlacementDecision]) -> Write[PlacementDecision]:
    def rotation(out: Out, served: Served, asked: Asked, row: PlacementDecision) -> None:
        if asked.offline and row.place is not None:
            write(out, served, asked, row)
        else:
            out.append(b"null")

    return rotation


def rotation_writer(selections: Sequence[Selection]) -> Write[PlacementDecision]:
    """Writes what an app needs to choose by itself; only for placements that there are."""

    def field(one: Selection) -> Write[PlacementDecision]:
        match one.name:
            case "windowSeconds":
                return plain(lambda row: known(row).window_s)
            case "window":
                return plain(lambda row: row.window)
            case "slots":
                return plain(lambda row: known(row).slots)
            case "candidates":
                write = list_of(candidate_writer(one.below))

                def candidates(out: Out, served: Served, asked: Asked, row: PlacementDecision) -> None:
                    found = served.candidates(known(row))
                    write(out, served, asked, [(row, one) for one in found])

                return candidates
        return typename("BannerRotation")

    return object_of(selections, field)


def known(row: PlacementDecision) -> Place:
    """The placement of a decision that has one."""
    assert row.place is not None
    return row.place


def candidate_writer(selections: Sequence[Selection]) -> Write[tuple[PlacementDecision, Candidate]]:
    """Writes what an app may choose."""
    Found: TypeAlias = tuple[PlacementDecision, Candidate]

    def field(one: Selection) -> Write[Found]:
        match one.name:
            case "weight":
                return plain(lambda found: found[1].banner.weight)
            case "priority":
                return plain(lambda found: found[1].priority)
            case "held":
                return plain(lambda found: found[1].kind is ImpressionKind.HIDDEN)
            case "startsAt":
                return plain(lambda found: instant(found[1].banner.starts_at))
            case "expiresAt":
                return plain(lambda found: instant(found[1].banner.expires_at))
            case "banner":
                write = banner_writer(one.below)

                def banner(out: Out, served: Served, asked: Asked, found: Found) -> None:
                    row, candidate = found
                    write(out, served, asked, Here(known(row), row.window, candidate.banner, candidate.kind))

                return banner
        return typename("BannerCandidate")

    return object_of(selections, field)


def instant(at: datetime | None) -> str | None:
    """As the schema writes it."""
    return None if at is None else write_instant(at)


def banner_writer(selections: Sequence[Selection]) -> Write[Here]:
    """Writes a banner."""
    kept: dict[object, list[bytes]] = {}

    def pieces(served: Served, banner: Banner) -> list[bytes]:
        """What is written of a banner, cut where its token belongs."""
        locale = served.locale_of(banner) if banner.content.translations else None
        # All that is written of it follows from these, whatever board it is on.
        key = (banner.id, banner.content_version, locale, banner.in_test, banner.rules.limits)
        found = kept.get(key)
        if found is None:
            found = orjson.dumps(banner_object(selections, banner, served.face(banner))).split(TOKEN_WRITTEN)
            if not has_placeholders(localized(banner.content, locale)):
                if len(kept) >= KEPT_BANNERS:
                    kept.clear()
                kept[key] = found
        return found

    def write(out: Out, served: Served, asked: Asked, here: Here) -> None:
        first, *others = pieces(served, here.banner)
        out.share(first)
        if others:
            token = b'"%b"' % served.impression_token(here.place, here.window, here.banner, here.kind).encode()
            for one in others:
                out.append(token)
                out.share(one)

    return write


def banner_object(selections: Sequence[Selection], banner: Banner, face: BannerFace) -> dict[str, Any]:
    """A banner as it is selected, with TOKEN for its token."""

    def value(one: Selection) -> object:
        match one.name:
            case "id":
                return ids.encode(Kind.CAMPAIGN, banner.campaign_id)
            case "contentVersion":
                return banner.content_version
            case "content":
                return read_off(one.below, FACE, face, "BannerFace")
            case "inTest":
                return banner.in_test
            case "limits":
                return read_off(one.below, LIMITS, banner.rules.limits, "BannerLimits")
            case "impressionToken":
                return TOKEN
        return "Banner"

    return {one.key: value(one) for one in selections}


def read_off(
    selections: Sequence[Selection], names: Mapping[str, str], value: object, type_name: str
) -> dict[str, Any]:
    """Attributes of an object as they are selected; what is none of them is its __typename."""
    return {one.key: getattr(value, names[one.name]) if one.name in names else type_name for one in selections}


# --- parts --------------------------------------------------------------------------------------------------------


def object_of(selections: Sequence[Selection], field: Callable[[Selection], Write[T]]) -> Write[T]:
    """Writes an object of these fields."""
    parts = [
        ((b"," if place else b"{") + orjson.dumps(one.key) + b":", field(one)) for place, one in enumerate(selections)
    ]

    def write(out: Out, served: Served, asked: Asked, value: T) -> None:
        for before, part in parts:
            out.append(before)
            part(out, served, asked, value)
        out.append(b"}")

    return write


def list_of(item: Write[T]) -> Write[Sequence[T]]:
    """Writes a list."""

    def write(out: Out, served: Served, asked: Asked, values: Sequence[T]) -> None:
        out.append(b"[")
        for place, value in enumerate(values):
            if place:
                out.append(b",")
            item(out, served, asked, value)
        out.append(b"]")

    return write


def plain(read: Callable[[T], object]) -> Write[T]:
    """Writes what `read` reads of a value: a number, a text, true, false or null."""
    return lambda out, served, asked, value: out.append(orjson.dumps(read(value)))


def typename(name: str) -> Write[Any]:
    """Writes __typename."""
    written = orjson.dumps(name)
    return lambda out, served, asked, value: out.append(written)
