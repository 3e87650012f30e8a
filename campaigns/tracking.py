"""HTML whose links tell of clicks, with an image that tells of opens: which addresses are tracked, and what is put in
their place. What those become in each mail is in campaigns/links.py."""

import re
from dataclasses import dataclass
from html import unescape
from html.entities import html5
from typing import Any
from urllib.parse import urlsplit

from campaigns.markup import ATTRIBUTE, CLOSE, OPEN, end_of_tag, markup_spans, mask
from campaigns.variables import TRACKED_URLS

MOST_LINKS = 200
"""Different addresses of one mail, at a few microseconds each; further ones stay as they are."""
MOST_PLACES = 500
"""Where they may stand. campaigns/syntax.py reads the tags of so many, and what was proved must compile."""
LONGEST_ADDRESS = 2_048
LINK_TAG = re.compile(r"<(?:a|area)[\s/]", re.IGNORECASE)
# In an attribute a name without its semicolon is text before a letter, a digit or "=" (HTML Living Standard 13.2.5.73,
# named character reference state): `?a=1&currency=EUR` says neither "¤cy" nor `&copy=2` "©".
REFERENCE = re.compile(r"&(?:#\w+;?|[A-Za-z][A-Za-z0-9]*+(?:;|(?!=)))")
BODY_ENDS = re.compile(r"</body[\s>]", re.IGNORECASE)
# No display:none: mail programs need not load what they do not show.
IMAGE = '<img src="{}" width="1" height="1" alt="" style="border:0">'


@dataclass(frozen=True, slots=True)
class Tracking:
    """What the mails of a dispatch tell of; frozen with it."""

    opens: bool = False
    clicks: bool = False

    @classmethod
    def from_json(cls, kept: dict[str, Any] | None) -> "Tracking":
        """What `to_json` made; of a dispatch from before there was tracking, none."""
        return cls(**kept) if kept else cls()

    def to_json(self) -> dict[str, bool]:
        return {"opens": self.opens, "clicks": self.clicks}


UNTRACKED = Tracking()


@dataclass(frozen=True, slots=True)
class TrackedHtml:
    """A template of HTML whose links are `{{ tracked_urls[0] }}`, `{{ tracked_urls[1] }}` and so on."""

    html: str
    urls: tuple[str | None, ...]
    """Where each of them leads; None is the image that tells of opens. An address that stands twice is here once."""


def tracked(html: str, tracking: Tracking) -> TrackedHtml:
    """The HTML with links for each recipient in place of its own, as far as `tracking` wants it.

    Links are what `<a>` and `<area>` lead to. Those with a value of the recipient in them stay as they are: where
    they lead is known only when the mail is made. So do those that are no web addresses, and those in comments.
    """
    if not html:
        return TrackedHtml(html, ())
    masked = mask(html)
    places: dict[str | None, int] = {}
    tags = list(masked.tags)
    parts: list[str] = []
    done, body_ends = 0, len(masked.html)
    for start, _ in markup_spans(masked.html):
        if BODY_ENDS.match(masked.html, start):
            body_ends = start
        if not tracking.clicks or len(parts) == 2 * MOST_PLACES or not LINK_TAG.match(masked.html, start):
            continue
        span = href(masked.html, start)
        url = address(masked.html[span[0] : span[1]]) if span else None
        if span is None or url is None or (url not in places and len(places) == MOST_LINKS):
            continue
        place = places.setdefault(url, len(places))
        parts += [masked.html[done : span[0]], f'"{OPEN}{len(tags)}{CLOSE}"']
        tags.append(tag(place))
        done = span[1]
    if tracking.opens:
        # Nothing is a link behind the end of the body.
        body_ends = max(body_ends, done)
        place = places.setdefault(None, len(places))
        parts += [masked.html[done:body_ends], f"{OPEN}{len(tags)}{CLOSE}"]
        tags.append(IMAGE.format(tag(place)))
        done = body_ends
    made = type(masked)("".join([*parts, masked.html[done:]]), tuple(tags))
    return TrackedHtml(made.restore(made.html), tuple(places))


def tag(place: int) -> str:
    """What stands in a template for the address at `place`."""
    return f"{{{{ {TRACKED_URLS}[{place}] }}}}"


def href(html: str, start: int) -> tuple[int, int] | None:
    """Where the value of the first href of the tag at `start` is, its quotes with it."""
    for found in ATTRIBUTE.finditer(html, start, end_of_tag(html, start)):
        if found[1].lower() == "href":
            return found.span(2)
    return None


def address(value: str) -> str | None:
    """The web address that an attribute's value is; None when it is none, or not the same for all recipients."""
    if OPEN in value:
        return None
    quoted = value[0] in "\"'" and value[-1] == value[0]
    url = REFERENCE.sub(character, value[1:-1] if quoted else value).strip()
    if len(url) > LONGEST_ADDRESS or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.hostname else None


def character(reference: re.Match[str]) -> str:
    """What a reference in an attribute stands for; itself when there is none of that name."""
    text = reference[0]
    return unescape(text) if text[1] == "#" or text[1:] in html5 else text
