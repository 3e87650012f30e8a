"""What a banner may say: texts of sensible length, addresses that lead somewhere harmless, languages that exist."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import orjson

from campaigns.banner_content import (
    ADDRESSES,
    PLACEHOLDER,
    TEXTS,
    BannerContent,
    BannerFace,
    BannerField,
    BannerVariable,
    Translation,
)
from campaigns.errors import CampaignError
from profiles.errors import ProfileError
from profiles.text import check_storable, clean_locale

DATA_LIMIT = 4_096
"""Bytes of a banner's data as JSON."""
DEEPEST_DATA = 8
"""Objects and lists within each other, the data itself counted."""
CONTENT_LIMIT = 65_536
"""Bytes of all that a banner says, in all its languages, as JSON."""
URL_LIMIT = 2_048
MOST_TRANSLATIONS = 50
MOST_VARIABLES = 20
MOST_PLACEHOLDERS = 20
"""In one text: what is shown stays short whatever people claim."""
LENGTHS = {"title": 200, "body": 2_000, "image_alt": 500, "action_label": 100}
LONGEST_DEFAULT = 200
COLORS = ("background_color", "text_color", "accent_color")

FIELD_OF = {
    "title": BannerField.TITLE,
    "body": BannerField.BODY,
    "image_url": BannerField.IMAGE,
    "image_alt": BannerField.IMAGE,
    "dark_image_url": BannerField.DARK_IMAGE,
    "action_label": BannerField.ACTION,
    "action_url": BannerField.ACTION,
    "background_color": BannerField.COLORS,
    "text_color": BannerField.COLORS,
    "accent_color": BannerField.COLORS,
    "data": BannerField.DATA,
}
"""Under which name a placement allows what a face has."""

COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
WEB_ADDRESS = re.compile(r"https://[^\s/?#\\]+[^\s\\]*")
LINK = re.compile(r"([a-z][a-z0-9+.-]*):[^\s\\]+")
FIXED_START = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\\{}]+[/?#]")
"""What stands before the first placeholder of an address: who is claimed to be somebody never changes where it leads
to, only what is asked there."""
SCHEME = re.compile(r"[a-z][a-z0-9+.-]{1,31}")
NEVER_A_SCHEME = frozenset(
    {"about", "blob", "content", "data", "file", "filesystem", "ftp", "http", "https", "intent", "jar", "javascript",
     "vbscript", "view-source", "ws", "wss"}
)  # fmt: skip
"""They run code, or read what is not the banner's, where an app opens them blindly; https is always allowed, and http
never."""
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def cleaned(content: BannerContent) -> BannerContent:
    """The content with its languages as RFC 5646 writes them.

    Raises CampaignError for the first thing that is wrong with it, naming its field, such as ("content", "title") or
    ("content", "translations", "0", "body"). What its placement allows is `require_allowed`'s.
    """
    check_variables(content.variables)
    known = {one.name for one in content.variables}
    check_face(content.face, known)
    content = replace(content, locale=clean_tag(content.locale, ("locale",)))
    seen = {content.locale}
    if len(content.translations) > MOST_TRANSLATIONS:
        message = f"A banner has at most {MOST_TRANSLATIONS} translations."
        raise CampaignError("TOO_MANY", message, field=("content", "translations"))
    translations = []
    for place, one in enumerate(content.translations):
        path = ("translations", str(place))
        locale = clean_tag(one.locale, (*path, "locale")) or ""
        if locale in seen:
            message = f"{locale} is there already; every language once."
            raise CampaignError("TWICE", message, field=("content", *path, "locale"))
        seen.add(locale)
        check_parts(one, known, path)
        translations.append(replace(one, locale=locale))
    content = replace(content, translations=tuple(translations))
    size = len(orjson.dumps(content.to_json()))
    if size > CONTENT_LIMIT:
        message = f"The banner has {size:,} bytes in all its languages; at most {CONTENT_LIMIT:,} are taken."
        raise CampaignError("TOO_LONG", message, field=("content",))
    return content


def require_allowed(content: BannerContent, *, allowed: Collection[str] | None, link_schemes: Sequence[str]) -> None:
    """Raise CampaignError when a placement that allows these fields (None: all) and link schemes cannot show a content
    that was cleaned; the message and the field path name what it does not allow."""
    for name, value, path in parts_of(content):
        kind = FIELD_OF[name]
        if allowed is not None and kind not in allowed:
            message = f"The placement does not allow {kind}; leave it out, or allow it with placementUpdate."
            raise CampaignError("FIELD_NOT_ALLOWED", message, field=("content", *path))
        if name == "action_url" and (scheme := value.partition(":")[0]) not in ("https", *link_schemes):
            schemes = ", ".join(f"{one}:" for one in ("https", *link_schemes))
            message = (
                f"Links here begin with {schemes}; add {scheme} to the placement's link schemes, if it is your app's."
            )
            raise CampaignError("SCHEME_NOT_ALLOWED", message, field=("content", *path))


def parts_of(content: BannerContent) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Everything a content says in any language: (name of the face's field, value, where it stands)."""
    for one in fields(BannerFace):
        value = getattr(content.face, one.name)
        if value:
            yield one.name, value, (one.name,)
    for place, translation in enumerate(content.translations):
        for name, value in translation.given().items():
            if value:
                yield name, value, ("translations", str(place), name)


def check_variables(variables: Sequence[BannerVariable]) -> None:
    if len(variables) > MOST_VARIABLES:
        message = f"A banner has at most {MOST_VARIABLES} variables."
        raise CampaignError("TOO_MANY", message, field=("content", "variables"))
    seen: set[str] = set()
    for place, one in enumerate(variables):
        path = ("variables", str(place))
        if not VARIABLE_NAME.fullmatch(one.name):
            message = "A variable's name is 1 to 64 letters, digits and '_', beginning with no digit, as the claim's."
            raise CampaignError("INVALID_NAME", message, field=("content", *path, "name"))
        if one.name in seen:
            raise CampaignError("TWICE", f"{one.name} is there already.", field=("content", *path, "name"))
        seen.add(one.name)
        check_text(one.default, LONGEST_DEFAULT, (*path, "default"))


def check_face(face: BannerFace, variables: Collection[str]) -> None:
    if not (face.title.strip() or face.body.strip() or face.image_url or face.data):
        message = "There is nothing to show: write a title or a body, or give an image or data."
        raise CampaignError("EMPTY", message, field=("content", "title"))
    if face.image_url and not (face.title.strip() or face.body.strip() or face.image_alt.strip()):
        message = "Say what the image shows, for those who cannot see it: the banner has no other text."
        raise CampaignError("ALT_MISSING", message, field=("content", "image_alt"))
    if face.dark_image_url and not face.image_url:
        message = "A dark image stands in for an image; give that as well."
        raise CampaignError("IMAGE_MISSING", message, field=("content", "image_url"))
    for name in COLORS:
        color = getattr(face, name)
        if color is not None and not COLOR.fullmatch(color):
            raise CampaignError("NOT_A_COLOR", "Write a colour as #RRGGBB, such as #1A2B3C.", field=("content", name))
    check_parts(face, variables, ())


def check_parts(part: BannerFace | Translation, variables: Collection[str], path: tuple[str, ...]) -> None:
    """Texts, addresses and data of a face or a translation."""
    for name in TEXTS:
        text = getattr(part, name)
        if text:
            check_text(text, LENGTHS[name], (*path, name))
            check_placeholders(text, variables, (*path, name))
    for name in ADDRESSES:
        address = getattr(part, name)
        if address is not None:
            check_address(address, variables, (*path, name), link=name == "action_url")
    if part.data is not None:
        check_data(part.data, (*path, "data"))


def check_text(text: str, longest: int, path: tuple[str, ...]) -> None:
    if len(text) > longest:
        raise CampaignError("TOO_LONG", f"At most {longest:,} characters are shown.", field=("content", *path))
    try:
        check_storable(text)
    except ProfileError as refusal:
        raise CampaignError(refusal.code, refusal.message, field=("content", *path)) from refusal


def check_placeholders(text: str, variables: Collection[str], path: tuple[str, ...]) -> None:
    names = PLACEHOLDER.findall(text)
    rest = PLACEHOLDER.sub("", text)
    if "{{" in rest or "}}" in rest:
        message = "{{ and }} stand around the name of a variable, such as {{first_name}}; nothing else is known there."
        raise CampaignError("NOT_A_PLACEHOLDER", message, field=("content", *path))
    for name in names:
        if name not in variables:
            message = f"Declare what viewers without {name} see: add it to the variables with a default."
            raise CampaignError("UNDECLARED_VARIABLE", message, field=("content", *path))
    if len(names) > MOST_PLACEHOLDERS:
        message = f"A text names variables at most {MOST_PLACEHOLDERS} times."
        raise CampaignError("TOO_MANY", message, field=("content", *path))


def check_address(address: str, variables: Collection[str], path: tuple[str, ...], *, link: bool) -> None:
    """An https address, or for a link one of any scheme that may be allowed; a variable only behind the host."""
    check_placeholders(address, variables, path)
    plain = PLACEHOLDER.sub("x", address)
    form = LINK if link else WEB_ADDRESS
    found = form.fullmatch(plain) if len(address) <= URL_LIMIT and plain.isprintable() else None
    if found and link and found[1] != "https":
        found = None if found[1] in NEVER_A_SCHEME else found
    elif found and link:
        found = WEB_ADDRESS.fullmatch(plain)
    if not found:
        example = "https://example.com/sale or myapp://sale" if link else "https://cdn.example.com/sale.png"
        message = f"Write an address such as {example}, of at most {URL_LIMIT:,} characters."
        raise CampaignError("NOT_A_URL", message, field=("content", *path))
    if "{{" in address and not FIXED_START.match(address):
        message = "A variable may stand behind the host of an address only, such as https://example.com/{{category}}."
        raise CampaignError("VARIABLE_IN_HOST", message, field=("content", *path))


def check_data(data: Any, path: tuple[str, ...]) -> None:
    def wrong(code: str, message: str) -> CampaignError:
        return CampaignError(code, message, field=("content", *path))

    try:
        size = len(orjson.dumps(dict(data)))
    except (TypeError, ValueError, RecursionError) as error:
        raise wrong("NOT_JSON", "The data must be a JSON object.") from error
    if size > DATA_LIMIT:
        raise wrong("TOO_LONG", f"The data has {size:,} bytes as JSON; at most {DATA_LIMIT:,} are taken.")
    if deeper_than(data, DEEPEST_DATA):
        raise wrong("TOO_DEEP", f"The data may be nested at most {DEEPEST_DATA} levels deep.")


def deeper_than(value: Any, levels: int) -> bool:
    """Whether objects and lists stand within each other more than `levels` deep."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(deeper_than(one, levels - 1) for one in inside)


def clean_tag(tag: str | None, path: tuple[str, ...]) -> str | None:
    if tag is None:
        return None
    try:
        return clean_locale(tag)
    except ProfileError as refusal:
        raise CampaignError(refusal.code, refusal.message, field=("content", *path)) from refusal


def clean_schemes(schemes: Sequence[str]) -> list[str]:
    """Link schemes that a placement may allow beside https, each once, in small letters and without a colon.

    Raises CampaignError, naming the one of ("link_schemes", place).
    """
    found: list[str] = []
    for place, one in enumerate(schemes):
        scheme = one.strip().lower().removesuffix("://").removesuffix(":")
        if scheme == "https":
            continue
        if not SCHEME.fullmatch(scheme) or scheme in NEVER_A_SCHEME:
            message = "Give the scheme of your app, such as myapp; web addresses are https, and none that runs code."
            raise CampaignError("SCHEME_NOT_ALLOWED", message, field=("link_schemes", str(place)))
        if scheme not in found:
            found.append(scheme)
    if len(found) > 20:
        raise CampaignError("TOO_MANY", "A placement has at most 20 link schemes.", field=("link_schemes",))
    return found
