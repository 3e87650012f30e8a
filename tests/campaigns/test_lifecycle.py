"""The table of moves holds together (S3-26)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.lifecycle import BANNER_MOVES, MESSAGE_MOVES, may_move, moves
from campaigns.models import Campaign, CampaignChannel, CampaignStatus

S = CampaignStatus
ENDS = {S.SENT, S.FAILED, S.CANCELLED, S.ENDED}


@pytest.mark.parametrize("table", [MESSAGE_MOVES, BANNER_MOVES])
def test_every_state_a_move_leads_to_has_moves_of_its_own(table: dict[S, frozenset[S]]) -> None:
    assert {to for goals in table.values() for to in goals} <= table.keys()


@pytest.mark.parametrize("table", [MESSAGE_MOVES, BANNER_MOVES])
def test_no_campaign_is_stuck(table: dict[S, frozenset[S]]) -> None:
    """From every state an end can be reached."""
    reaches = {state for state in table if state in ENDS}
    while more := {s for s, goals in table.items() if s not in reaches and goals & reaches}:
        reaches |= more
    assert reaches == table.keys()


def test_a_sent_campaign_only_goes_on_sending_for_what_was_in_doubt() -> None:
    """docs/adr/0012."""
    assert MESSAGE_MOVES[S.SENT] == {S.SENDING}


def test_only_a_banner_comes_back_from_cancelled() -> None:
    """S3x-15."""
    assert BANNER_MOVES[S.CANCELLED] == {S.ACTIVE}
    assert MESSAGE_MOVES[S.CANCELLED] == frozenset()


@given(channel=st.sampled_from(CampaignChannel), start=st.sampled_from(S), goal=st.sampled_from(S))
def test_may_move_says_what_the_table_says(channel: CampaignChannel, start: S, goal: S) -> None:
    campaign = Campaign(channel=channel, status=start)
    assert may_move(campaign, goal) == (goal in moves(channel).get(start, frozenset()))
