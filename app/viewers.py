"""Viewer tokens: who looks at banners, proven once, so that later fetches ask no database.

The first sight of somebody whom a client token or a server names costs one indexed look-up, and is answered with a
token of ours that has the profile's number. A visitor whom nobody names gets one with a random id. A token is worth
something only beside the key of its workspace and, for a named person, beside what names that person: it spares the
look-up and grants nothing.
"""

import hmac
import struct
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

from pyroaring import BitMap

from app.patience import UNREACHABLE, within
from campaigns.banners import Viewer
from campaigns.tokens import FROM_URL_SAFE, URL_SAFE, Signer
from profiles import profiles

VIEWER_TOKEN = "viewer"
"""The purpose its signature is for."""
MAC_BYTES = 12
HEAD = struct.Struct(">12sqi")
"""MAC, when it expires, profile (0: none); the external id or the visitor's key follows."""
KNOWN_FOR = timedelta(hours=24)
"""How long a profile's viewer token spares the look-up."""
UNKNOWN_FOR = timedelta(minutes=5)
"""The same for somebody who has no profile yet, but may have one any moment."""
ANONYMOUS_FOR = timedelta(days=400)
PATIENCE_S = 2.0
"""For the look-up; without an answer it is as if nobody knew the person."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a viewer token says."""

    viewer: Viewer
    external_id: str | None
    """Who is meant, as they were named; None: a visitor."""
    expires_at: datetime
    """Whole seconds."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Who looks, and the token that says so the next time; None when theirs still holds, or nobody can be sure."""

    viewer: Viewer
    token: str | None
    expires_at: datetime
    """Until when that is so."""


class ViewerTokens:
    """Makes and reads them. The workspace is not in them but signed with them."""

    def __init__(self, signer: Signer) -> None:
        self._keyed = blake2b(digest_size=MAC_BYTES, key=signer.key_for(VIEWER_TOKEN))

    def make(self, workspace_id: UUID, claim: Claim) -> str:
        """A token that names the viewer to this workspace."""
        who = claim.viewer.key if claim.external_id is None else f"e{claim.external_id}"
        body = who.encode("utf-8", "surrogatepass")
        expires, profile = int(claim.expires_at.timestamp()), claim.viewer.profile_id or 0
        mac = self._mac(workspace_id, expires, profile, body)
        return urlsafe(HEAD.pack(mac, expires, profile) + body)

    def read(self, workspace_id: UUID, token: str) -> Claim | None:
        """What `make` was given for this workspace, expired or not; None for anything that it did not make."""
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            whole = a2b_base64(padded.translate(FROM_URL_SAFE))
            mac, expires, profile = HEAD.unpack_from(whole)
        except (ValueError, struct.error):  # binascii.Error and UnicodeError are ValueErrors
            return None
        body = whole[HEAD.size :]
        if not hmac.compare_digest(mac, self._mac(workspace_id, expires, profile, body)):
            return None
        # One claim, one token: base64 has spare bits and other ways to write the same.
        if token != urlsafe(whole):
            return None
        who = body.decode("utf-8", "surrogatepass")
        external_id = who[1:] if who[0] == "e" else None
        viewer = Viewer.known(profile) if profile else Viewer(who, None)
        return Claim(viewer, external_id, datetime.fromtimestamp(expires, UTC))

    def _mac(self, workspace_id: UUID, expires: int, profile: int, body: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(b"%b %d %d %b" % (workspace_id.bytes, expires, profile, body))
        return mac.digest()


def urlsafe(whole: bytes) -> str:
    """In base64url, without padding (RFC 4648 5)."""
    return b2a_base64(whole, newline=False).translate(URL_SAFE).rstrip(b"=").decode("ascii")


async def see(
    tokens: ViewerTokens,
    workspace_id: UUID,
    external_id: str | None,
    token: str | None,
    *,
    merged: BitMap,
    away: bool,
    now: datetime,
) -> Sight:
    """Who looks: `external_id`, or, None, a visitor; by the token they were given, or by a look-up.

    `merged`: profiles that are others' by now, which are looked up anew. While PostgreSQL is away (`away`: that is
    known, so nobody waits for it) an old token still holds, and whoever has none sees what strangers see.
    """
    claim = None if token is None else tokens.read(workspace_id, token)
    if claim is not None and claim.external_id != external_id:
        claim = None
    if claim is not None and now < claim.expires_at and (claim.viewer.profile_id or 0) not in merged:
        return Sight(claim.viewer, None, claim.expires_at)
    if external_id is None:
        made = Claim(Viewer.stranger(), None, whole_seconds(now + ANONYMOUS_FOR))
        return Sight(made.viewer, tokens.make(workspace_id, made), made.expires_at)
    try:
        if away:
            raise TimeoutError
        profile = await within(PATIENCE_S, profiles.find_by_external_id(workspace_id, external_id))
    except UNREACHABLE:
        viewer = Viewer(f"e{external_id}", None) if claim is None else claim.viewer
        return Sight(viewer, None, now)
    if profile is None:
        made = Claim(Viewer(f"e{external_id}", None), external_id, whole_seconds(now + UNKNOWN_FOR))
    else:
        made = Claim(Viewer.known(profile.id), external_id, whole_seconds(now + KNOWN_FOR))
    return Sight(made.viewer, tokens.make(workspace_id, made), made.expires_at)


def whole_seconds(instant: datetime) -> datetime:
    """The second that `instant` is in."""
    return instant.replace(microsecond=0)
