"""Tokens of an identity provider of your own: signed by a key that it publishes (RFC 7517, RFC 7519).

Its keys are read when a token needs one that is not known, at most every ten seconds however many such tokens come, and
again every five minutes, so that a key that was taken back opens nothing for long. While the provider cannot be reached
the keys of before go on for a day.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2
import jwt
import orjson

from app.settings import Settings

logger = logging.getLogger(__name__)

ALGORITHMS = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""Of signatures we take, and the type of key each belongs to. None that is made with a shared secret: a public key
would pass for it, and everybody could sign (RFC 8725 2.1). Not "none"."""
SMALLEST_RSA = 2_048
"""Bits (RFC 7518 3.3)."""
LONGEST_TOKEN = 8_192
LARGEST_KEYS = 1_000_000
TIMEOUT_S = 5.0
AGAIN_AFTER_S = 10.0
"""So long after one reading the next may come, whatever unknown keys tokens name."""
FRESH_FOR_S = 300.0
KEPT_FOR_S = 86_400.0
LEEWAY_S = 30
"""By which clocks may differ."""
OWN_CLAIMS = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "auth_time", "sid", "scope"})
"""Claims about the token, not about the person."""


class BadToken(Exception):
    """The token is not one that this issuer made for us, or has expired."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a token names, and what it says about them."""

    workspace_id: UUID
    external_id: str
    claims: Mapping[str, Any]
    expires_at: float
    """Unix seconds."""


class Issuer:
    """Verifies the tokens of one identity provider that are meant for one audience."""

    def __init__(self, *, jwks_url: str, issuer: str, audience: str) -> None:
        self.jwks_url = jwks_url
        self.issuer = issuer
        self.audience = audience
        self.keys: dict[str, jwt.PyJWK] = {}
        self.read_at = self.tried_at = -KEPT_FOR_S
        self.reading = asyncio.Lock()

    async def verified(self, token: str) -> dict[str, Any]:
        """What a token says, `sub` and `exp` among it; raises BadToken."""
        if len(token) > LONGEST_TOKEN:
            raise BadToken("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            key = await self.key(header.get("kid"), header.get("alg"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[header["alg"]],
                issuer=self.issuer,
                audience=self.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as fault:
            raise BadToken(str(fault)) from fault
        return claims

    async def key(self, kid: object, algorithm: object) -> jwt.PyJWK:
        """The key called `kid`, if it is one for `algorithm`; raises BadToken."""
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise BadToken(f"its algorithm is none of {', '.join(ALGORITHMS)}")
        if not isinstance(kid, str):
            raise BadToken("it names no key")
        if kid not in self.keys or monotonic() - self.read_at > FRESH_FOR_S:
            await self.read_keys(kid)
        key = self.keys.get(kid)
        if key is None:
            raise BadToken("its key is not among those of the issuer")
        if key.algorithm_name != algorithm:
            raise BadToken("its key is for another algorithm")
        return key

    async def read_keys(self, kid: str) -> None:
        """Read the issuer's keys unless that was done or tried a moment ago. Many at once wait for one reading, those
        whose key is known for none."""
        if kid in self.keys and self.reading.locked():
            return
        async with self.reading:
            if monotonic() - self.tried_at < AGAIN_AFTER_S:
                return
            self.tried_at = monotonic()
            try:
                self.keys = parsed(await self.fetch())
                self.read_at = monotonic()
            except (httpx2.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError):
                logger.warning("keys of the identity provider not read", exc_info=True)
                if monotonic() - self.read_at > KEPT_FOR_S:
                    self.keys = {}

    async def fetch(self) -> bytes:
        """What the issuer publishes; redirects are not followed."""
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            response = await client.get(self.jwks_url, headers={"Accept": "application/json"})
            response.raise_for_status()
            if len(response.content) > LARGEST_KEYS:
                raise ValueError("more than a megabyte of keys")
            return response.content


@dataclass(frozen=True, slots=True)
class ProfileIssuer:
    """The provider whose tokens name profiles of one workspace, in place of client tokens."""

    issuer: Issuer
    workspace_id: UUID

    @classmethod
    def of(cls, settings: Settings) -> "ProfileIssuer | None":
        """The provider in the settings; None when there is none."""
        url, name, audience = settings.jwks_url, settings.jwt_issuer, settings.jwt_audience
        if url is None or name is None or audience is None or settings.jwt_workspace is None:
            return None
        return cls(Issuer(jwks_url=url, issuer=name, audience=audience), settings.jwt_workspace)

    async def read(self, token: str) -> Person:
        """Whom a token names; raises BadToken."""
        claims = await self.issuer.verified(token)
        told = {name: value for name, value in claims.items() if name not in OWN_CLAIMS}
        return Person(self.workspace_id, claims["sub"], told, claims["exp"])


def parsed(document: bytes) -> dict[str, jwt.PyJWK]:
    """Keys by name: public ones for signatures that we take; others are left out. Raises ValueError, KeyError."""
    found: dict[str, jwt.PyJWK] = {}
    for one in orjson.loads(document)["keys"]:
        # One with "d" is a private key, published by mistake: whoever read it can sign.
        if not isinstance(one, dict) or not isinstance(one.get("kid"), str) or "d" in one:
            continue
        if one.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(one)
        except jwt.PyJWTError:
            # Of a kind that the library does not know.
            continue
        if ALGORITHMS.get(key.algorithm_name) != key.key_type:
            continue
        if key.key_type == "RSA" and key.key.key_size < SMALLEST_RSA:
            continue
        found[one["kid"]] = key
    return found
