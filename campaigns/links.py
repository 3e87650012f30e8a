"""The tracked links of a dispatch, and the addresses that stand for them in each mail.

A dispatch has a row of `link` for each address in its HTML, written by whoever compiles it first; its mails carry
tokens of those rows (campaigns/tokens.py), made for each recipient, and no address that anybody could change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from campaigns.mime import quoted_html
from campaigns.tokens import MailLink, MailLinkTokens, Signer
from db.transactions import Connection

LOCK_DISPATCH = "SELECT 1 FROM dispatch WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE"
FIND_LINKS = "SELECT id, place, url FROM link WHERE workspace_id = $1 AND dispatch_id = $2"
INSERT_LINKS = """
WITH made AS (
  INSERT INTO link (workspace_id, campaign_id, dispatch_id, place, url)
  SELECT $1, $2, $3, u.place, u.url FROM unnest($4::smallint[], $5::text[]) AS u (place, url) RETURNING id, url)
SELECT id, url FROM made
"""


@dataclass(frozen=True, slots=True)
class TrackedLink:
    """One link of a dispatch's mails."""

    id: int
    is_image: bool


async def write_links(
    connection: Connection,
    *,
    workspace_id: UUID,
    campaign_id: UUID,
    dispatch_id: UUID,
    urls: Sequence[str | None],
) -> tuple[TrackedLink, ...]:
    """The links of a dispatch, in the order of `urls`; those that have no row yet get one.

    Any number of workers may do this at once. They are found by address and not by place, so that two versions of
    this program that count a mail's links differently still lead everybody to the right one.
    """
    if not urls:
        return ()
    await connection.execute(LOCK_DISPATCH, workspace_id, dispatch_id)
    rows = await connection.fetch(FIND_LINKS, workspace_id, dispatch_id)
    ids: dict[str | None, int] = {row["url"]: row["id"] for row in rows}
    missing = [url for url in urls if url not in ids]
    if missing:
        free = 1 + max((row["place"] for row in rows), default=-1)
        places = list(range(free, free + len(missing)))
        made = await connection.fetch(INSERT_LINKS, workspace_id, campaign_id, dispatch_id, places, missing)
        ids.update({row["url"]: row["id"] for row in made})
    return tuple(TrackedLink(ids[url], url is None) for url in urls)


class Tracker:
    """Makes the addresses that mails carry, and reads the tokens in them."""

    def __init__(self, signer: Signer, public_url: str) -> None:
        self._clicks, self._opens = MailLinkTokens(signer, "click"), MailLinkTokens(signer, "open")
        self._click_url, self._open_url = quoted_html(f"{public_url}/t/"), quoted_html(f"{public_url}/o/")

    def urls(self, links: Sequence[TrackedLink], profile_id: int) -> list[bytes]:
        """The addresses in one profile's mail, in the order of `links`, as pieces of its HTML (campaigns/mime.py)."""
        click, open_ = self._clicks.make, self._opens.make
        return [
            b"%b%b.gif=\r\n" % (self._open_url, open_(link.id, profile_id))
            if link.is_image
            else b"%b%b=\r\n" % (self._click_url, click(link.id, profile_id))
            for link in links
        ]

    def read_click(self, token: str) -> MailLink | None:
        """Whose click on what a token of `/t/` is; None when it is not ours or was changed."""
        return self._clicks.read(token)

    def read_open(self, token: str) -> MailLink | None:
        """Whose open a token of `/o/` is; None when it is not ours or was changed."""
        return self._opens.read(token)
