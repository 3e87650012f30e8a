"""Whether a person or a program opened a mail or followed a link in it: guesses, from what is documented of programs.

A guess can be wrong both ways. What a machine did is kept and marked, and counts nowhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

QUICK = timedelta(seconds=2)
"""Nobody has a mail, reads it and clicks so soon after our server handed it over. Filters do, before they deliver
(wordtothewise.com/2013/07/barracuda-filters-clicking-all-links)."""
TOGETHER = timedelta(seconds=1)
"""Whoever follows two links of a mail within so long follows all of them: a filter, or a browser that loads ahead."""
REPEAT = timedelta(seconds=10)
"""The same again within so long is the same: a double click, an image that is loaded for a list and for the mail."""
MOST_RESPONSES = 100
"""Kept for each message and kind, people's and machines' apart: nobody fills the table by reloading."""

PRELOADED = "Mozilla/5.0"
"""The whole user agent of Apple's Mail Privacy Protection, which loads the images of every mail in the background,
read or not (apple.com/legal/privacy/data/en/mail-privacy-protection; bird.com/en-nl/blog/4-insights-on-ios-15-mail-
privacy-protection for the user agent)."""
PROXIES = re.compile(r"GoogleImageProxy|YahooMailProxy", re.IGNORECASE)
"""They hide who asks but ask when somebody reads, and keep the image afterwards: people
(wordtothewise.com/2013/12/gmail-deploys-image-proxy-servers)."""
WATCHERS = r"(?<!cu)bot\b|bots\b|crawl|spider|scan|preview|prefetch|headless|lighthouse|monitor|validator|linkcheck"
"""What programs that look at pages call themselves; Cubot makes telephones."""
CRAWLERS = re.compile(WATCHERS, re.IGNORECASE)
PROGRAMS = re.compile(
    rf"{WATCHERS}|curl/|wget/|python"
    r"|httpx|aiohttp|java/|go-http-client|libwww|axios|node-fetch|barracuda|proofpoint|mimecast|ironport"
    r"|trendmicro|symantec|fortinet|sophos|safelinks",
    re.IGNORECASE,
)
"""What programs call themselves. Two are missing on purpose: MSOffice, as Outlook calls itself
when somebody reads a mail, and okhttp, with which apps on Android load the images of one that is open."""


def is_crawler(user_agent: str) -> bool:
    """Whether somebody with this user agent looks at pages for nobody. Not so the HTTP libraries of apps, nor none."""
    return CRAWLERS.search(user_agent) is not None


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a link or an image of a mail, as far as it tells who made it."""

    method: str
    user_agent: str
    purpose: str = ""
    """Sec-Purpose (Fetch Metadata), or its forerunners Purpose and X-Moz."""

    @property
    def is_by_program(self) -> bool:
        """Whether the request itself says that nobody looks at what it asks for."""
        agent = self.user_agent.strip()
        return (
            self.method == "HEAD"
            or "prefetch" in self.purpose.lower()
            or agent in ("", PRELOADED)
            or (PROGRAMS.search(agent) is not None and PROXIES.search(agent) is None)
        )


@dataclass(frozen=True, slots=True)
class Response:
    """An open or a click that is kept already, of the same message and kind."""

    id: int
    link_id: int | None
    at: datetime
    is_by_machine: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a new open or click is."""

    is_by_machine: bool
    is_new: bool
    """Whether to keep it: no repetition, and not beyond what is kept of one message."""
    also_by_machine: tuple[int, ...]
    """Earlier ones that were taken for a person's and, seen together with this one, are not."""


def judge(
    visit: Visit, *, link_id: int, at: datetime, sent_at: datetime | None, earlier: Sequence[Response]
) -> Judgement:
    """Whether a visit is a machine's and whether it is kept. `sent_at` is when the message left; None while it is on
    its way.

    `earlier` are responses of the same kind to the same message, in any order.
    """
    together = [one for one in earlier if one.link_id != link_id and abs(at - one.at) <= TOGETHER]
    is_by_machine = visit.is_by_program or sent_at is None or at < sent_at + QUICK or bool(together)
    alike = [one for one in earlier if one.is_by_machine == is_by_machine]
    repeated = any(one.link_id == link_id and abs(at - one.at) <= REPEAT for one in alike)
    return Judgement(
        is_by_machine,
        is_new=not repeated and len(alike) < MOST_RESPONSES,
        also_by_machine=tuple(one.id for one in together if not one.is_by_machine),
    )
