"""Tokens of shown banners: whoever tracks an impression proves with one that the banner was shown to this viewer.

Made with every answer, so by keyed BLAKE2b (RFC 7693 2.9) and fixed bytes: about a microsecond each. Without a time
and without a nonce: the same banner shown to the same viewer in the same window has the same token, so that answers
stay the same for caches, and one token is one impression however often it is told. The workspace is not in it but
signed with it.
"""

import hmac
import struct
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from uuid import UUID

from campaigns.tokens import URL_SAFE, Signer

IMPRESSION = "impression"
"""The purpose its signature is for."""
MAC_BYTES = 12
FIELDS = struct.Struct(">16s16s16sIIIB")
"""Campaign, placement, viewer, profile (0: none), content version, window's start, kind: 61 bytes."""
PADDED = b"\0\0"
"""Beside 73 bytes: 75 are base64 without padding or spare bits."""


class ImpressionKind(IntEnum):
    """What telling of it means."""

    SHOWN = 1
    HIDDEN = 2
    """The viewer is in the holdout: it would have been shown."""
    TEST = 3
    """Shown to testers before it went live; counted nowhere."""


@dataclass(frozen=True, slots=True)
class Impression:
    """One banner in one placement, for one viewer in one rotation window."""

    campaign_id: UUID
    placement_id: UUID
    content_version: int
    viewer: UUID
    """`campaigns.banners.Viewer.id`."""
    profile_id: int | None
    """None: a viewer who has no profile yet."""
    window_start: int
    """Unix seconds."""
    kind: ImpressionKind


class ImpressionTokens:
    """Makes and reads them: 100 URL-safe characters each."""

    def __init__(self, signer: Signer) -> None:
        self._keyed = blake2b(digest_size=MAC_BYTES, key=signer.key_for(IMPRESSION))

    def make(self, workspace_id: UUID, shown: Impression) -> str:
        """The token of an impression."""
        payload = FIELDS.pack(
            shown.campaign_id.bytes,
            shown.placement_id.bytes,
            shown.viewer.bytes,
            shown.profile_id or 0,
            shown.content_version,
            shown.window_start,
            shown.kind,
        )
        mac = self._keyed.copy()
        mac.update(workspace_id.bytes + payload)
        return b2a_base64(payload + mac.digest() + PADDED, newline=False).translate(URL_SAFE).decode()

    def read(self, workspace_id: UUID, token: str) -> Impression | None:
        """What `make` was given for this workspace; None for anything that it did not make."""
        try:
            fields = FIELDS.unpack_from(urlsafe_b64decode(token.encode()))
            found = Impression(
                campaign_id=UUID(bytes=fields[0]),
                placement_id=UUID(bytes=fields[1]),
                viewer=UUID(bytes=fields[2]),
                profile_id=fields[3] or None,
                content_version=fields[4],
                window_start=fields[5],
                kind=ImpressionKind(fields[6]),
            )
        except (ValueError, struct.error):  # binascii.Error and UnicodeEncodeError are ValueErrors
            return None
        # Made again instead of taken apart: of all ways to write these bytes only ours passes.
        whole = hmac.compare_digest(token.encode(), self.make(workspace_id, found).encode())
        return found if whole else None
