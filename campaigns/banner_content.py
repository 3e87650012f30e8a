"""What a banner says: as a marketer writes it, and as one viewer sees it. Pure, and fast enough for every fetch.

A viewer's language picks one of the translations (campaigns/locales.py); {{name}} in texts and addresses becomes what
the viewer's client token claims under that name, or the default that the banner declares. No template language: apps
fetch banners in microseconds, and what a claim says is only ever text. Apps draw banners, so what is unsafe within
HTML is theirs to escape.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self
from urllib.parse import quote

from campaigns import locales


class BannerField(StrEnum):
    """What a placement may allow or not."""

    TITLE = "TITLE"
    BODY = "BODY"
    IMAGE = "IMAGE"
    DARK_IMAGE = "DARK_IMAGE"
    ACTION = "ACTION"
    COLORS = "COLORS"
    DATA = "DATA"


@dataclass(frozen=True, slots=True)
class BannerFace:
    """What one viewer sees. Apps draw it, so it has facts and no markup."""

    title: str = ""
    body: str = ""
    image_url: str | None = None
    dark_image_url: str | None = None
    """The image on a dark background."""
    image_alt: str = ""
    action_label: str = ""
    action_url: str | None = None
    """A web address, or one of the app's own (`myapp://offers/1`)."""
    background_color: str | None = None
    """#RRGGBB, as the others."""
    text_color: str | None = None
    accent_color: str | None = None
    """Of its button."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """For the app alone."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A banner in another language; None is as it is in the banner's own."""

    locale: str
    title: str | None = None
    body: str | None = None
    image_url: str | None = None
    dark_image_url: str | None = None
    image_alt: str | None = None
    action_label: str | None = None
    action_url: str | None = None
    data: Mapping[str, Any] | None = None

    def given(self) -> dict[str, Any]:
        """What it says, by the names of BannerFace."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "locale"}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class BannerVariable:
    """A claim that a banner's texts name, and what is shown to viewers who have none."""

    name: str
    default: str


@dataclass(frozen=True, slots=True)
class BannerContent:
    """A banner as it is written."""

    face: BannerFace
    locale: str | None = None
    """Language of `face`; None: whatever it is, it is shown to those whose language no translation speaks."""
    translations: tuple[Translation, ...] = ()
    variables: tuple[BannerVariable, ...] = ()

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` made. Fields that came after it was kept have their defaults."""
        return cls(
            face=BannerFace(**{one.name: kept[one.name] for one in fields(BannerFace) if one.name in kept}),
            locale=kept.get("locale"),
            translations=tuple(Translation(**one) for one in kept.get("translations", ())),
            variables=tuple(BannerVariable(**one) for one in kept.get("variables", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """What a campaign's row keeps of it."""
        return asdict(self.face) | {
            "locale": self.locale,
            "translations": [{"locale": one.locale} | one.given() for one in self.translations],
            "variables": [asdict(one) for one in self.variables],
        }


TEXTS = ("title", "body", "image_alt", "action_label")
ADDRESSES = ("image_url", "dark_image_url", "action_url")
"""With TEXTS, where {{name}} stands for something."""

PLACEHOLDER = re.compile(r"\{\{ ?([A-Za-z_][A-Za-z0-9_]{0,63}) ?\}\}")
LONGEST_VALUE = 200
"""Characters of a claim that are shown."""
NEVER_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, other ends of lines, what turns the direction of the text around it, and halves of characters."""


def resolve(content: BannerContent, wanted: Sequence[str], claims: Mapping[str, object]) -> BannerFace:
    """What a viewer sees who wants these languages, the best first, and whose client token claims `claims`."""
    return filled(localized(content, locale_of(content, wanted)), content.variables, claims)


def locale_of(content: BannerContent, wanted: Sequence[str]) -> str | None:
    """The locale of the translation that a viewer of these languages sees; None for the banner's own texts."""
    if not content.translations:
        return None
    available = [one.locale for one in content.translations]
    if content.locale is not None:
        available.append(content.locale)
    found = locales.lookup(wanted, available)
    return None if found == content.locale else found


def localized(content: BannerContent, locale: str | None) -> BannerFace:
    """The banner in the language of one of its translations, with placeholders; None: its own."""
    for one in content.translations:
        if one.locale == locale:
            return replace(content.face, **one.given())
    return content.face


def has_placeholders(face: BannerFace) -> bool:
    """Whether what is shown depends on the viewer's claims; if not, one answer does for all who see it."""
    return any("{{" in text for name in (*TEXTS, *ADDRESSES) if (text := getattr(face, name)))


def filled(face: BannerFace, variables: Sequence[BannerVariable], claims: Mapping[str, object]) -> BannerFace:
    """`face` with what a viewer claims in place of {{name}}; within addresses it is percent-encoded (RFC 3986 2.1)."""
    if not has_placeholders(face):
        return face
    values = {one.name: shown(claims.get(one.name)) or one.default for one in variables}
    escaped = {name: quote(value, safe="") for name, value in values.items()}
    changed: dict[str, Any] = {name: put_in(getattr(face, name), values) for name in TEXTS}
    changed |= {name: put_in(text, escaped) for name in ADDRESSES if (text := getattr(face, name))}
    return replace(face, **changed)


def put_in(text: str, values: Mapping[str, str]) -> str:
    """`text` with its placeholders replaced, once: what a value says is never read as a placeholder."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], ""), text)


def shown(claim: object) -> str:
    """A claim as text, cut to what can be shown; empty for none, and for what is neither a text nor a number."""
    if isinstance(claim, str):
        return NEVER_SHOWN.sub("", claim[: 2 * LONGEST_VALUE])[:LONGEST_VALUE]
    if isinstance(claim, int | float) and not isinstance(claim, bool):
        return str(claim)[:LONGEST_VALUE]
    return ""
