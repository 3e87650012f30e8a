"""One form for addresses: checked when they come in, compared by key, remembered by keyed hash."""

import re
from enum import StrEnum
from hashlib import blake2b
from unicodedata import normalize

import idna
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from profiles.errors import ProfileError
from profiles.text import check_storable, clean_text


class Channel(StrEnum):
    """What an address is for; consent and suppression are kept per channel."""

    EMAIL = "EMAIL"
    PUSH = "PUSH"


# Addresses of the plain kind, which email-validator accepts too (a property test says so): it takes 24 us where this
# takes under 1 us, and an import of 20,000 rows/s has 50 us a row for everything.
PLAIN_EMAIL = re.compile(
    r"[A-Za-z0-9_+\-]+(?:\.[A-Za-z0-9_+\-]+)*@((?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+([A-Za-z]{2,}))"
)
SPECIAL_TOP_DOMAINS = frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)


def clean_email(text: object, *, field: tuple[str, ...] = ("email",)) -> str:
    """An email address without surrounding blanks, otherwise as given; raises ProfileError INVALID_EMAIL.

    Syntax only: nobody is asked whether the mailbox exists.
    """
    if not isinstance(text, str):
        raise ProfileError("INVALID_EMAIL", f"An email address must be text, not {type(text).__name__}.", field=field)
    email = text.strip()
    if is_plain(email):
        return email
    try:
        check_storable(email, field=field)
        validate_email(email, check_deliverability=False, strict=True)
    except (EmailNotValidError, ProfileError) as e:
        raise ProfileError(
            "INVALID_EMAIL", f"Not an email address: {e} Use one such as ada@example.com.", field=field
        ) from e
    return email


def is_plain(email: str) -> bool:
    """Whether `email` is of the plain kind and surely valid; false says nothing."""
    if len(email) > 120 or (found := PLAIN_EMAIL.fullmatch(email)) is None:
        return False
    domain, top = found.groups()
    # A domain of at most 63 characters has no label that is too long.
    return len(domain) <= 63 and len(email) - len(domain) <= 65 and top.lower() not in SPECIAL_TOP_DOMAINS


def address_key(channel: str, text: str) -> str:
    """The form under which two spellings of one address are equal: trimmed, NFC, IDNA domain, casefolded.

    Nothing is stripped after a plus sign: ada+news@example.com may be another person's mailbox. Push tokens are
    compared as they are, since their case matters.
    """
    text = text.strip()
    if channel != Channel.EMAIL:
        return text
    if text.isascii():
        return text.lower()
    local, at, domain = text.rpartition("@")
    return folded(local) + at + ascii_domain(folded(domain))


def folded(text: str) -> str:
    """`text` in the form that ignores case (Unicode 3.13, canonical caseless match), composed again."""
    return normalize("NFC", normalize("NFD", text).casefold())


def ascii_domain(domain: str) -> str:
    """`domain` in its ASCII form (IDNA 2008 after UTS 46); one that has none stays as it is."""
    try:
        return idna.encode(domain, uts46=True).decode().lower() if domain else domain
    except idna.IDNAError:
        return domain


class AddressHasher:
    """Turns addresses into keyed hashes, so that a suppression outlives the erasure of the address itself.

    The key belongs to the installation: with another one no stored hash would ever match again, which is why
    start-up compares `fingerprint` (app/installation.py).
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the address key must have at least 16 bytes")
        # blake2b takes keys of at most 64 bytes; any length is reduced to that.
        self._key = blake2b(key, digest_size=64, person=b"muster address").digest()

    def __repr__(self) -> str:
        return "AddressHasher(...)"

    def hash(self, channel: str, address: str) -> bytes:
        """32 bytes that stand for `address` on `channel`, whatever its spelling (see `address_key`)."""
        text = f"{channel}\0{address_key(channel, address)}"
        return blake2b(text.encode(), digest_size=32, key=self._key).digest()

    def fingerprint(self) -> bytes:
        """32 bytes that tell one key from another and reveal neither."""
        return blake2b(b"muster address key", digest_size=32, key=self._key).digest()


def clean_address(channel: str, address: object, *, field: tuple[str, ...] = ()) -> str:
    """An address of `channel` as it is kept; raises ProfileError."""
    if channel == Channel.EMAIL:
        return clean_email(address, field=field)
    return clean_text(address, what="Push token", most=4096, field=field)
