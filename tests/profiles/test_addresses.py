"""Addresses: what is accepted, which spellings are one address, and the hash that stands for it."""

import pytest
from email_validator import validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.addresses import AddressHasher, Channel, address_key, clean_address, clean_email, is_plain
from profiles.errors import ProfileError

KEY = b"an address key of the tests, 32+ bytes"
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PARTS = st.text("abcXYZ019._+-", min_size=1, max_size=12)
LOOKS_PLAIN = st.builds(
    lambda local, *domain: f"{local}@{'.'.join(domain)}",
    PARTS,
    PARTS,
    st.sampled_from(["com", "x", "test", "TEST", "ORG", "c0m"]),
)
ADDRESSES = st.one_of(
    UNICODE,
    st.builds(lambda local, domain: f"{local}@{domain}", UNICODE, UNICODE),
    st.builds(lambda local, domain: f"{local}@{domain}.example", UNICODE, st.text("äßÖİıΣςéABZ-09", max_size=20)),
    LOOKS_PLAIN,
)


EMAILS: list[str] = [
    "ada@example.com",
    "Ada.Lovelace+news@Mail.Example.co.uk",
    "o'hara@example.org",
    "grüße@münchen.example.de",
    "用户@例子.广告",
    "a" * 64 + "@" + "b" * 63 + ".com",
]


def test_an_email_is_kept_as_it_was_written_without_blanks_around_it() -> None:
    assert [clean_email(f" \t{text}\n") for text in EMAILS] == EMAILS


NO_EMAILS: list[object] = [
    "",
    "ada",
    "ada@",
    "@example.com",
    "ada@localhost",
    "ada@@example.com",
    "ada@exa mple.com",
    "a..b@example.com",
    ".a@example.com",
    "ada@-example.com",
    "ada@example.invalid",
    "ada@[127.0.0.1]",
    "Ada <ada@example.com>",
    "ada@example.com, bob@example.com",
    "ada@example.com\r\nBcc: bob@example.com",
    "a" * 65 + "@example.com",
    "ada@" + "b" * 64 + ".com",
    "a\0da@example.com",
    "a\ud800da@example.com",
    None,
    17,
]


def test_what_is_no_email_address_is_refused_by_its_field() -> None:
    for text in NO_EMAILS:
        with pytest.raises(ProfileError) as refused:
            clean_email(text, field=("profiles", "3", "email"))
        assert (refused.value.code, refused.value.field) == ("INVALID_EMAIL", ("profiles", "3", "email"))


@given(LOOKS_PLAIN)
@settings(max_examples=100, deadline=None)
def test_the_short_way_accepts_nothing_that_the_thorough_one_refuses(text: str) -> None:
    if is_plain(text):
        validate_email(text, check_deliverability=False, strict=True)


SPELLINGS: list[tuple[str, str]] = [
    ("Ada@Example.COM", "ada@example.com"),
    ("  ada@example.com ", "ada@example.com"),
    ("ada@MÜNCHEN.example", "ada@xn--mnchen-3ya.example"),
    ("ada@mu\u0308nchen.example", "ada@münchen.example"),
    ("GRU\u0308SSE@example.com", "grüße@example.com"),
]


def test_spellings_of_one_address_have_one_key() -> None:
    for one, other in SPELLINGS:
        assert address_key(Channel.EMAIL, one) == address_key(Channel.EMAIL, other)


def test_different_mailboxes_and_push_tokens_keep_their_own_key() -> None:
    assert address_key(Channel.EMAIL, "ada+news@example.com") != address_key(Channel.EMAIL, "ada@example.com")
    assert address_key(Channel.EMAIL, "a.da@example.com") != address_key(Channel.EMAIL, "ada@example.com")
    assert address_key(Channel.PUSH, " ToKeN ") == "ToKeN"


@given(ADDRESSES)
@settings(max_examples=100, deadline=None)
def test_a_key_is_its_own_key_whatever_the_text(text: str) -> None:
    key = address_key(Channel.EMAIL, text)
    assert address_key(Channel.EMAIL, key) == key
    assert address_key(Channel.EMAIL, f" {text}\t") == key


@given(st.text("abcäöüßéABCÄÖÜ", min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_capitals_never_make_another_address(name: str) -> None:
    keys = {address_key(Channel.EMAIL, f"{form}@{form}.example") for form in (name, name.upper(), name.lower())}
    assert len(keys) == 1


def test_a_hash_depends_on_the_address_the_channel_and_the_key_and_on_nothing_else() -> None:
    hasher, other = AddressHasher(KEY), AddressHasher(KEY + b"!")
    assert len(hasher.hash(Channel.EMAIL, "ada@example.com")) == 32
    assert hasher.hash("EMAIL", " ADA@example.com") == AddressHasher(KEY).hash(Channel.EMAIL, "ada@example.com")
    assert hasher.hash(Channel.EMAIL, "ada@example.com") != hasher.hash(Channel.PUSH, "ada@example.com")
    assert hasher.hash(Channel.EMAIL, "ada@example.com") != other.hash(Channel.EMAIL, "ada@example.com")
    assert hasher.fingerprint() == AddressHasher(KEY).fingerprint() != other.fingerprint()


def test_the_key_is_neither_shown_nor_allowed_to_be_short() -> None:
    assert "key of the tests" not in repr(AddressHasher(KEY))
    with pytest.raises(ValueError, match="16 bytes"):
        AddressHasher(b"short")


def test_a_push_token_is_any_text_that_can_be_kept() -> None:
    assert clean_address(Channel.PUSH, " Ab:cD ") == "Ab:cD"
    assert clean_address(Channel.EMAIL, " a@example.com ") == "a@example.com"
    for bad, code in [("", "BLANK"), ("x" * 4097, "TOO_LONG"), ("a\0", "UNSTORABLE_TEXT"), (7, "NOT_TEXT")]:
        with pytest.raises(ProfileError) as refused:
            clean_address(Channel.PUSH, bad, field=("token",))
        assert (refused.value.code, refused.value.field) == (code, ("token",))
