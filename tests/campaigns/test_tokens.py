"""Signed tokens: what was signed comes back, anything else is None."""

import hmac
from base64 import urlsafe_b64encode
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.tokens import (
    MailLink,
    MailLinkTokens,
    Signer,
    UnsubscribeClaim,
    read_unsubscribe_token,
    unsubscribe_token,
)

SIGNER = Signer(b"a key of at least thirty-two bytes")
CLAIM = UnsubscribeClaim(UUID(int=1), 2_147_483_647, UUID(int=2**128 - 1))


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
def test_a_token_is_signed_by_hmac_sha_256(length: int) -> None:
    """Also with a key longer than a block (RFC 2104 2, 3)."""
    key = bytes(range(length))
    mac = hmac.digest(key, b"purpose\0payload", "sha256")[:16]
    assert Signer(key).sign("purpose", b"payload") == urlsafe_b64encode(b"payload" + mac).rstrip(b"=").decode()


def token_of(claim: UnsubscribeClaim, signer: Signer = SIGNER) -> str:
    return unsubscribe_token(
        signer, workspace_id=claim.workspace_id, profile_id=claim.profile_id, campaign_id=claim.campaign_id
    )


@given(st.binary(max_size=200), st.sampled_from(["unsubscribe", "viewer", "client"]))
def test_what_was_signed_comes_back_for_the_same_purpose_only(payload: bytes, purpose: str) -> None:
    token = SIGNER.sign(purpose, payload)
    assert SIGNER.verify(purpose, token) == payload
    assert SIGNER.verify(purpose + "x", token) is None
    assert Signer(b"another key of thirty-two bytes!!!").verify(purpose, token) is None


@given(st.data())
def test_a_token_with_any_one_letter_changed_is_none_of_ours(data: st.DataObject) -> None:
    token = token_of(CLAIM)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters().filter(lambda one: one != token[place]))
    assert read_unsubscribe_token(SIGNER, token[:place] + letter + token[place + 1 :]) is None


@given(st.text(max_size=200))
def test_made_up_tokens_are_none_of_ours(token: str) -> None:
    assert read_unsubscribe_token(SIGNER, token) is None


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "A", lambda t: t + "=", lambda t: " " + t, str.lower]
)
def test_a_token_cut_or_lengthened_is_none_of_ours(change: object) -> None:
    assert callable(change)
    assert read_unsubscribe_token(SIGNER, change(token_of(CLAIM))) is None


def test_an_unsubscribe_token_names_its_person_and_campaign_and_no_address() -> None:
    assert read_unsubscribe_token(SIGNER, token_of(CLAIM)) == CLAIM
    assert token_of(CLAIM).replace("-", "").replace("_", "").isalnum()
    assert len(token_of(CLAIM)) <= 80


def test_a_payload_of_another_length_is_no_unsubscribe_claim() -> None:
    assert read_unsubscribe_token(SIGNER, SIGNER.sign("unsubscribe", uuid4().bytes)) is None


def test_the_key_stands_in_no_repr() -> None:
    assert "thirty-two" not in repr(SIGNER)


CLICKS = MailLinkTokens(SIGNER, "click")


@given(st.integers(1, 2**63 - 1), st.integers(1, 2**31 - 1))
def test_a_mails_link_is_32_letters_that_only_one_purpose_and_key_can_read(link_id: int, profile_id: int) -> None:
    token = CLICKS.make(link_id, profile_id).decode()
    assert (len(token), token.isascii(), token.replace("-", "").replace("_", "").isalnum()) == (32, True, True)
    assert CLICKS.read(token) == MailLink(link_id, profile_id)
    assert MailLinkTokens(SIGNER, "open").read(token) is None
    assert MailLinkTokens(Signer(b"another key of thirty-two bytes!!!"), "click").read(token) is None


@given(st.data())
def test_a_mails_link_with_any_one_letter_changed_is_none_of_ours(data: st.DataObject) -> None:
    """T-24. Also `+` for `-` and `/` for `_`, which say the same in another base64."""
    token = CLICKS.make(data.draw(st.integers(1, 2**63 - 1)), 7).decode()
    place = data.draw(st.integers(0, len(token) - 1))
    changes = st.characters() | st.just({"-": "+", "_": "/"}.get(token[place], "A"))
    letter = data.draw(changes.filter(lambda one: one != token[place]))
    assert CLICKS.read(token[:place] + letter + token[place + 1 :]) is None


@given(st.text(max_size=100))
def test_made_up_mail_links_are_none_of_ours(token: str) -> None:
    """T-24."""
    assert CLICKS.read(token) is None
