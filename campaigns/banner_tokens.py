"""Tokens of shown banners: whoever tracks an impression proves with one that the banner was shown to this viewer.

Made with every answer, so by keyed BLAKE2b (RFC 7693 2.9) and fixed bytes: about a microsecond each. Without a time
and without a nonce: the same banner shown to the same viewer in the same window has the same token, so that answers
stay the same for caches, and one token is one impression however often it is told. The workspace is not in it but
signed with it.
"""

import hmac
import struct
from binascii import a2b_base64, b2a_base64
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from campaigns.tokens import FROM_URL_SAFE, URL_SAFE, Signer

IMPRESSION = "impression"
"""The purpose its signature is for."""
MAC_BYTES = 12
FIELDS = struct.Struct(">16s16s16sIIIB")
"""Campaign, placement, viewer, profile (0: none), content version, window's start, kind: 61 bytes."""
PADDED = b"\0\0"
"""Beside 73 bytes: 75 are base64 without padding or spare bits."""
MAC = slice(FIELDS.size, FIELDS.size + MAC_BYTES)


class ImpressionKind(IntEnum):
    """What telling of it means."""

    SHOWN = 1
    HIDDEN = 2
    """The viewer is in the holdout: it would have been shown."""
    TEST = 3
    """Shown to testers before it went live; counted nowhere."""


KINDS = {kind.value: kind for kind in ImpressionKind}


class Impression(NamedTuple):
    """One banner in one placement, for one viewer in one rotation window. Ids are their 16 bytes: a busy app tells of
    thousands a second, and UUID objects would be half of what each costs."""

    campaign: bytes
    placement: bytes
    viewer: bytes
    """Of `campaigns.banners.Viewer.id`."""
    profile_id: int | None
    """None: a viewer who has no profile yet."""
    content_version: int
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
            shown.campaign,
            shown.placement,
            shown.viewer,
            shown.profile_id or 0,
            shown.content_version,
            shown.window_start,
            shown.kind,
        )
        return (
            b2a_base64(payload + self._mac(workspace_id, payload) + PADDED, newline=False).translate(URL_SAFE).decode()
        )

    def read(self, workspace_id: UUID, token: str) -> Impression | None:
        """What `make` was given for this workspace; None for anything that it did not make."""
        try:
            written = token.encode()
            whole = a2b_base64(written.translate(FROM_URL_SAFE))
            campaign, placement, viewer, profile_id, version, window_start, kind = FIELDS.unpack_from(whole)
        except (ValueError, struct.error):  # binascii.Error and UnicodeEncodeError are ValueErrors
            return None
        if not hmac.compare_digest(whole[MAC], self._mac(workspace_id, whole[: FIELDS.size])):
            return None
        # One impression, one token: of all ways to write these bytes only ours passes.
        if whole[MAC.stop :] != PADDED or b2a_base64(whole, newline=False).translate(URL_SAFE) != written:
            return None
        return Impression(campaign, placement, viewer, profile_id or None, version, window_start, KINDS[kind])

    def _mac(self, workspace_id: UUID, payload: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(workspace_id.bytes + payload)
        return mac.digest()
