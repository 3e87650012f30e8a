"""Viewer tokens: what the server said of a viewer, or nothing."""

from datetime import UTC, datetime, timedelta
from string import ascii_letters, digits
from uuid import UUID

import pytest

from app.settings import Settings
from app.viewers import Claim, ViewerTokens
from campaigns.banners import Viewer
from campaigns.tokens import Signer
from tests.app.caller import Caller
from tests.app.test_banner_serving import Moved, process

TOKENS = ViewerTokens(Signer(b"k" * 32))
WORKSPACE = UUID(int=1)
UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
CLAIMS = [
    Claim(Viewer.known(7), "ada", UNTIL),
    Claim(Viewer("ejörg", None), "jörg", UNTIL),
    Claim(Viewer.stranger(), None, UNTIL),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=["profile", "not yet known", "visitor"])
def test_a_token_with_any_one_letter_changed_is_none_of_ours(claim: Claim) -> None:
    """Nobody makes theirs hold for longer, or name another person; nor is there a second way to write it."""
    token = TOKENS.make(WORKSPACE, claim)
    assert TOKENS.read(WORKSPACE, token) == claim
    for place, letter in enumerate(token):
        for other in f"{ascii_letters}{digits}-_+/=.":
            changed = f"{token[:place]}{other}{token[place + 1 :]}"
            assert other == letter or TOKENS.read(WORKSPACE, changed) is None
    for other in (token[:-1], token + "A", token + "=", ""):
        assert TOKENS.read(WORKSPACE, other) is None


@pytest.mark.parametrize("claim", CLAIMS, ids=["profile", "not yet known", "visitor"])
def test_a_token_is_worth_nothing_in_another_workspace_or_under_another_key(claim: Claim) -> None:
    token = TOKENS.make(WORKSPACE, claim)
    assert TOKENS.read(UUID(int=2), token) is None
    assert ViewerTokens(Signer(b"x" * 32)).read(WORKSPACE, token) is None


async def test_a_token_spares_the_look_up_for_a_day_and_of_somebody_unknown_for_five_minutes(
    console: Caller, settings: Settings
) -> None:
    """Who is unknown may be known any moment."""
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    clock = Moved()
    async with process(settings, clock) as (_, client):

        async def new_token(name: str, token: str = "") -> str | None:
            caller = console.with_headers(x_muster_viewer=token)
            asked = {"placement": "home-top", "externalId": name}
            answer = await client.get("/v1/banners", params=asked, headers=caller.all_headers())
            found: str | None = answer.json()["viewerToken"]
            return found

        for name, holds in (("ada", timedelta(hours=24)), ("nobody", timedelta(minutes=5))):
            clock.ahead = timedelta(0)
            token = await new_token(name)
            assert token is not None
            clock.ahead = holds - timedelta(minutes=1)
            assert await new_token(name, token) is None
            clock.ahead = holds
            assert await new_token(name, token) is not None
