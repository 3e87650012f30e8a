"""Whom an app may speak of: the profile of its client token, or the visitor of its viewer token.

Publishable keys are in everybody's hands, and an anonymous id that an app makes up can be guessed: whoever registered a
device under it would get the notifications of the person that the visitor turns out to be. So visitors' ids are made
and signed by the server; the app shows the viewer token that came with them. Once a visitor is identified, only a
client token speaks for that person.
"""

from dataclasses import replace

from app.auth import Caller, own_profile
from app.context import Context
from app.problems import ApiError
from profiles import visitors


async def with_visitor(context: Context) -> Caller:
    """The request's caller, with the visitor whom its viewer token names, if that is still nobody we know."""
    caller, token = context.known_caller, context.viewer_token
    claim = token and context.services.viewer_tokens.read(caller.workspace_id, token)
    if caller.is_server or not claim or claim.external_id is not None or claim.expires_at <= context.now:
        return caller
    if await visitors.is_identified(caller.workspace_id, claim.viewer.key):
        return caller
    return replace(caller, visitor=claim.viewer.key)


def person(caller: Caller, external_id: str | None, anonymous_id: str | None) -> tuple[str | None, str | None]:
    """External and anonymous id that an input is about; a server may name anybody.

    An app that names nobody means the profile of its client token, else the visitor of its viewer token. Raises
    ApiError FORBIDDEN when it names somebody else.
    """
    if caller.is_server:
        return external_id, anonymous_id
    if anonymous_id is not None and anonymous_id != caller.visitor:
        message = (
            "An app may name only the visitor of its viewer token, which a fetch of banners gives it and which it sends"
            " as X-Muster-Viewer; once that visitor is identified, it sends a client token and no anonymous id."
        )
        raise ApiError("FORBIDDEN", message, field=("anonymous_id",))
    if anonymous_id is not None and external_id is None:
        return None, anonymous_id
    named = own_profile(caller, external_id)
    if named is None and anonymous_id is None:
        if caller.visitor is None:
            message = (
                "Nobody is named: an app sends as X-Muster-Viewer the viewerToken that a fetch of banners gave it, or a"
                " client token; only the client token once that visitor is identified."
            )
            raise ApiError("ONE_IDENTITY", message)
        return None, caller.visitor
    return named, anonymous_id
