"""Links in mails: the page and the one-click request that unsubscribe, and the links and images that are tracked.

RFC 8058: mail programs POST to the List-Unsubscribe address by themselves, without cookies or keys, and are not
redirected; it takes effect at once. GET changes nothing, since scanners open every link of a mail: it shows a page
with a button that POSTs.

A tracked link redirects to the address that was stored for it, and to no other: a request names a link by a token that
only we make. What happened is written before the answer, so that it is not lost with this process; but a person never
waits for a slow database, and where a link leads is known without it once somebody followed it here. Who cannot be
unsubscribed now is told so, and can press again: that must not look done when it is not.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.context import Services
from app.patience import UNREACHABLE, within
from campaigns import listing, responses
from campaigns.machines import Visit
from campaigns.responses import Target
from campaigns.tokens import MailLink, UnsubscribeClaim, read_unsubscribe_token
from profiles import consent
from profiles.addresses import Channel
from profiles.consent import EVERY_TOPIC
from profiles.errors import ProfileNotFound

logger = logging.getLogger(__name__)

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

UNSUBSCRIBE_WITHIN_S = 10.0
"""How long a person or a mail program waits until it is told to ask again."""
RECORD_WITHIN_S = 1.0
"""How long somebody who clicked waits for the database at most; what was not written by then is in the log."""
REDIRECT_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}
PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
"""A transparent GIF of one pixel, 43 bytes."""


async def ask(request: Request) -> HTMLResponse:
    """The page with the button; changes nothing."""
    claim = claim_of(request)
    if claim is None:
        return unknown()
    try:
        about = mails(await within(UNSUBSCRIBE_WITHIN_S, topic_of(claim)))
    except UNREACHABLE:
        logger.warning("topic not looked up", exc_info=True, extra=facts_of(claim))
        about = "of these mails"
    return page("Unsubscribe", f"<p>Do you want no more {about}?</p>{BUTTON}")


async def unsubscribe(request: Request) -> HTMLResponse:
    """Unsubscribe the person from the campaign's topic; doing it again is well. 503 when that cannot be done now: mail
    programs ask again (RFC 9110 10.2.3), people have the button, and the log says who it was."""
    claim = claim_of(request)
    if claim is None:
        return unknown()
    try:
        topic = await within(UNSUBSCRIBE_WITHIN_S, take_off(claim))
    except UNREACHABLE:
        logger.exception("not unsubscribed", extra=facts_of(claim))
        return away("Not unsubscribed yet", f"<p>We cannot note it now. Press again in a minute.</p>{BUTTON}")
    return page("You are unsubscribed", f"<p>You will get no more {mails(topic)}.</p>")


async def take_off(claim: UnsubscribeClaim) -> str:
    """Unsubscribes; gives the topic."""
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
    return topic


def mails(topic: str) -> str:
    """What somebody gets no more of, as HTML."""
    return "mails" if topic == EVERY_TOPIC else f"mails about “{escape(topic)}”"


def facts_of(claim: UnsubscribeClaim) -> dict[str, object]:
    """What the log says of a link to unsubscribe."""
    return {
        "workspace_id": claim.workspace_id,
        "profile_id": claim.profile_id,
        "campaign_id": claim.campaign_id,
    }


def claim_of(request: Request) -> UnsubscribeClaim | None:
    """Who unsubscribes; None when the link is not ours or was changed."""
    services: Services = request.app.state.services
    return read_unsubscribe_token(services.resources.signer, request.path_params["token"])


async def topic_of(claim: UnsubscribeClaim) -> str:
    """The topic of the mail's campaign; every topic when the campaign is gone."""
    campaign = (await listing.load(claim.workspace_id, [claim.campaign_id])).get(claim.campaign_id)
    return campaign.topic if campaign else EVERY_TOPIC


async def follow(request: Request) -> Response:
    """302 to where a tracked link leads; 404 for a link that is not ours, or was changed."""
    services: Services = request.app.state.services
    link = services.tracker.read_click(request.path_params["token"])
    if link is None:
        return unknown()
    try:
        target = await services.targets.find(link.link_id)
    except UNREACHABLE:
        logger.exception("link not looked up", extra={"link_id": link.link_id})
        return away("One moment", "<p>This link cannot be looked up now. Try again in a minute.</p>")
    if target is None or target.url is None:
        return unknown()
    await record(request, link, target)
    # What browsers would encode by themselves is encoded here, where a header can carry nothing else.
    location = quote(target.url, safe=":/?#[]@!$&'()*+,;=%")
    return Response(status_code=302, headers=REDIRECT_HEADERS | {"Location": location})


async def seen(request: Request) -> Response:
    """The image that tells of opens; the same for ids that are not ours."""
    services: Services = request.app.state.services
    if link := services.tracker.read_open(request.path_params["token"]):
        try:
            target = await services.targets.find(link.link_id)
        except UNREACHABLE:
            logger.exception("open not recorded", extra={"link_id": link.link_id})
        else:
            if target is not None and target.url is None:
                await record(request, link, target)
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
    return Response(PIXEL, media_type="image/gif", headers=headers)


async def record(request: Request, link: MailLink, target: Target) -> None:
    """Write what happened; whoever asked gets an answer whether or not that was possible."""
    headers = request.headers
    visit = Visit(
        method=request.method,
        user_agent=headers.get("user-agent", ""),
        purpose=" ".join(headers.get(name, "") for name in ("sec-purpose", "purpose", "x-moz")),
    )
    try:
        step = responses.record(target, profile_id=link.profile_id, visit=visit, now=datetime.now(UTC))
        await within(RECORD_WITHIN_S, step)
    except UNREACHABLE:
        facts = {"link_id": link.link_id, "profile_id": link.profile_id, "dispatch_id": target.dispatch_id}
        logger.exception("open or click not recorded", extra=facts)


def away(title: str, body: str) -> HTMLResponse:
    """What is said while the database is away."""
    response = page(title, body, status=503)
    response.headers["Retry-After"] = "60"
    return response


def unknown() -> HTMLResponse:
    return page("Unknown link", "<p>This link is not complete. Copy it from the mail as a whole.</p>", status=404)


def page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=title, body=body), status_code=status, headers=HEADERS)
