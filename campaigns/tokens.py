"""Signed tokens: what a link or an app carries, and nobody can make up.

A token is base64url(payload + MAC), the MAC being HMAC-SHA256 (RFC 2104) over a purpose and the payload, cut to 16
bytes. A token made for one purpose never passes for another. Nothing in it is secret, and no address is in it.
"""

import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error, b2a_base64
from dataclasses import dataclass
from hashlib import blake2b, sha256
from uuid import UUID

MAC_BYTES = 16
UNSUBSCRIBE = "unsubscribe"


class Signer:
    """Signs and checks tokens with one key; its repr never shows the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # HMAC as RFC 2104 2 has it: hmac.digest looks up its algorithm anew each time, which costs three times as much.
        # Keys longer than a block of 64 bytes are hashed first.
        block = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
        self._inner = sha256(bytes(one ^ 0x36 for one in block))
        self._outer = sha256(bytes(one ^ 0x5C for one in block))

    def sign(self, purpose: str, payload: bytes) -> str:
        """A token of 4/3 x (payload + 16) URL-safe characters."""
        return urlsafe_b64encode(payload + self._mac(purpose, payload)).rstrip(b"=").decode()

    def verify(self, purpose: str, token: str) -> bytes | None:
        """The payload, or None for anything that `sign` did not make for this purpose. Takes constant time."""
        try:
            signed = urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        except (Error, ValueError):
            return None
        payload, mac = signed[:-MAC_BYTES], signed[-MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(purpose, payload)):
            return None
        # One payload, one token: base64 has spare bits, which would let a changed token pass.
        return payload if token == urlsafe_b64encode(signed).rstrip(b"=").decode() else None

    def key_for(self, purpose: str) -> bytes:
        """32 bytes for something else that signs for one purpose; nobody learns this signer's key from them."""
        return hmac.digest(self._key, b"key\0" + purpose.encode(), "sha256")

    def _mac(self, purpose: str, payload: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(purpose.encode() + b"\0" + payload)
        outer.update(inner.digest())
        return outer.digest()[:MAC_BYTES]


@dataclass(frozen=True, slots=True)
class UnsubscribeClaim:
    """Who unsubscribes, and by the mail of which campaign; the topic is the campaign's."""

    workspace_id: UUID
    profile_id: int
    campaign_id: UUID


def unsubscribe_token(signer: Signer, *, workspace_id: UUID, profile_id: int, campaign_id: UUID) -> str:
    """The token of one person's unsubscribe link."""
    payload = workspace_id.bytes + profile_id.to_bytes(4, "big") + campaign_id.bytes
    return signer.sign(UNSUBSCRIBE, payload)


def read_unsubscribe_token(signer: Signer, token: str) -> UnsubscribeClaim | None:
    """What `unsubscribe_token` wrote; None when the token is not ours or was changed."""
    payload = signer.verify(UNSUBSCRIBE, token)
    if payload is None or len(payload) != 36:
        return None
    return UnsubscribeClaim(UUID(bytes=payload[:16]), int.from_bytes(payload[16:20], "big"), UUID(bytes=payload[20:]))


MAIL_LINK = struct.Struct(">qi")
URL_SAFE, FROM_URL_SAFE = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class MailLink:
    """One link in one person's mail: the row of `link`, and whose mail it is."""

    link_id: int
    profile_id: int


class MailLinkTokens:
    """The tokens of links in mails: 32 URL-safe characters each.

    A mail has many, so that they are made by keyed BLAKE2b (RFC 7693 2.9) with 12 bytes of MAC: 24 bytes in all are
    base64 without padding or spare bits.
    """

    def __init__(self, signer: Signer, purpose: str) -> None:
        self._keyed = blake2b(digest_size=12, key=signer.key_for(purpose))

    def make(self, link_id: int, profile_id: int) -> bytes:
        """The token of a link in the mail of a profile, in ASCII."""
        payload = MAIL_LINK.pack(link_id, profile_id)
        mac = self._keyed.copy()
        mac.update(payload)
        return b2a_base64(payload + mac.digest(), newline=False).translate(URL_SAFE)

    def read(self, token: str) -> MailLink | None:
        """What `make` was given; None for anything that it did not make."""
        try:
            link_id, profile_id = MAIL_LINK.unpack_from(urlsafe_b64decode(token.encode()))
        except (ValueError, struct.error):  # binascii.Error is a ValueError
            return None
        # Made again instead of taken apart: of all ways to write these bytes only ours passes.
        whole = hmac.compare_digest(token.encode(), self.make(link_id, profile_id))
        return MailLink(link_id, profile_id) if whole else None
