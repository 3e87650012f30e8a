"""Links in mails: the page and the one-click request that unsubscribe.

RFC 8058: mail programs POST to the List-Unsubscribe address by themselves, without cookies or keys, and are not
redirected; it takes effect at once. GET changes nothing, since scanners open every link of a mail: it shows a page
with a button that POSTs.
"""

from contextlib import suppress
from datetime import UTC, datetime
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.context import Services
from campaigns import listing
from campaigns.tokens import UnsubscribeClaim, read_unsubscribe_token
from profiles import consent
from profiles.addresses import Channel
from profiles.consent import EVERY_TOPIC
from profiles.errors import ProfileNotFound

SOURCE = "unsubscribe link"
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body {{ font: 1.1em/1.5 sans-serif; max-width: 30em; margin: 4em auto; padding: 0 1em }}
button {{ font: inherit; padding: .5em 1em }}</style>
</head>
<body><h1>{title}</h1>{body}</body>
</html>
"""
# Without an action the form goes to the address of the page, token and all.
BUTTON = '<form method="post"><button name="List-Unsubscribe" value="One-Click">Unsubscribe</button></form>'


async def ask(request: Request) -> HTMLResponse:
    """The page with the button; changes nothing."""
    claim = claim_of(request)
    if claim is None:
        return unknown()
    about = escape(await topic_of(claim))
    return page("Unsubscribe", f"<p>Do you want no more mails about “{about}”?</p>{BUTTON}")


async def unsubscribe(request: Request) -> HTMLResponse:
    """Unsubscribe the person from the campaign's topic; doing it again is well."""
    claim = claim_of(request)
    if claim is None:
        return unknown()
    topic = await topic_of(claim)
    # Not found: erased in the meantime, and nobody is left to write to.
    with suppress(ProfileNotFound):
        await consent.unsubscribe(
            claim.workspace_id,
            profile_id=claim.profile_id,
            channel=Channel.EMAIL,
            topic=topic,
            source=SOURCE,
            now=datetime.now(UTC),
        )
    return page("You are unsubscribed", f"<p>You will get no more mails about “{escape(topic)}”.</p>")


def claim_of(request: Request) -> UnsubscribeClaim | None:
    """Who unsubscribes; None when the link is not ours or was changed."""
    services: Services = request.app.state.services
    return read_unsubscribe_token(services.resources.signer, request.path_params["token"])


async def topic_of(claim: UnsubscribeClaim) -> str:
    """The topic of the mail's campaign; every topic when the campaign is gone."""
    campaign = (await listing.load(claim.workspace_id, [claim.campaign_id])).get(claim.campaign_id)
    return campaign.topic if campaign else EVERY_TOPIC


def unknown() -> HTMLResponse:
    return page("Unknown link", "<p>This link is not complete. Copy it from the mail as a whole.</p>", status=404)


def page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=title, body=body), status_code=status, headers=HEADERS)
