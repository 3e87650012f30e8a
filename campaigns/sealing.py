"""Secrets at rest: AES-256-GCM, with keys that have names, so that they can be changed one after the other."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from campaigns.errors import CampaignError

NONCE = 12


@dataclass(frozen=True, slots=True)
class Sealed:
    key_id: str
    data: bytes
    """The nonce, then what AES-GCM made."""


class Sealer:
    """Seals with the first of its keys, and opens what any of them sealed.

    To change the key: put the new one first, have everything sealed anew (`push_credentials.reseal`), take the old out.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys` by id, the newest first; a key is any text of 32 characters or more."""
        assert keys, "the settings see to that"
        self._ciphers = {key_id: AESGCM(hashlib.sha256(key.encode()).digest()) for key_id, key in keys.items()}
        self.newest = next(iter(keys))

    def seal(self, secret: str, *, where: str) -> Sealed:
        """`where` says whose it is: elsewhere it cannot be opened, so that nobody can use it by copying the row."""
        nonce = os.urandom(NONCE)
        data = self._ciphers[self.newest].encrypt(nonce, secret.encode(), where.encode())
        return Sealed(self.newest, nonce + data)

    def open(self, sealed: Sealed, *, where: str) -> str:
        """The secret. Raises CampaignError when its key is not among ours, or somebody changed it."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            message = f"The key {sealed.key_id} is not among MUSTER_SECRET_KEYS; add it there, or set the secret again."
            raise CampaignError("KEY_UNKNOWN", message)
        try:
            return cipher.decrypt(sealed.data[:NONCE], sealed.data[NONCE:], where.encode()).decode()
        except InvalidTag:
            message = "The secret cannot be opened: the key has another value, or the row was changed. Set it again."
            raise CampaignError("SECRET_DAMAGED", message) from None
