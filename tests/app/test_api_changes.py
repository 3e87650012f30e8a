"""How many statements mutations run that need a state of their own: of one campaign, evaluation or credential each. All
others are counted in test_api_queries.py."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app import auth
from app.pushsink import PushSink
from tests.app.caller import Caller
from tests.app.conftest import MakeCaller
from tests.app.test_api_banners import show
from tests.app.test_api_campaigns import make, people
from tests.app.test_api_evaluations import full, held  # noqa: F401
from tests.app.test_api_progress import mixed
from tests.app.test_api_push import by_providers  # noqa: F401
from tests.app.test_api_queries import APART, statements
from tests.channels.pushing import service_account_json
from tests.segments.factories import run_all

PLAN = {"trait": {"key": "plan", "operator": "EQUALS", "value": "premium"}}


@pytest.fixture(autouse=True)
async def known(monkeypatch: pytest.MonkeyPatch, console: Caller) -> None:
    """Who calls is known from before."""
    monkeypatch.setattr(auth, "REMEMBERED", timedelta(hours=1))
    await console.data("Workspace")


async def count(caller: Caller, operation: str, **given: Any) -> int:
    """How many statements a mutation runs that is not refused."""
    with statements() as found:
        await caller.data(operation, input=given)
    return len(found)


async def test_a_campaign_is_approved_and_given_back_in_few_statements(
    console: Caller, caller: MakeCaller, workspace: UUID
) -> None:
    await people(console, "ada")
    one = await make(console)
    marketer = await caller(workspace, "campaigns")
    await marketer.data("CampaignSubmitForApproval", input={"id": one})
    assert await count(console, "CampaignApprove", id=one) <= APART["CampaignApprove"]
    assert await count(console, "CampaignReject", id=one) <= APART["CampaignReject"]


async def test_a_banner_is_shown_again_in_few_statements(console: Caller) -> None:
    one = await show(console, "a")
    await console.data("CampaignCancel", input={"id": one})
    assert await count(console, "CampaignReactivate", id=one) <= APART["CampaignReactivate"]


@pytest.mark.parametrize("resolution", ["SENT", "RETRY"])
async def test_messages_in_doubt_are_resolved_in_few_statements(console: Caller, resolution: str) -> None:
    one, _ = await mixed(console)
    given = {"campaignId": one, "as": resolution}
    assert await count(console, "InDoubtResolve", **given) <= APART["InDoubtResolve"]


async def test_an_evaluation_is_let_through_in_few_statements(console: Caller, held: str) -> None:  # noqa: F811
    assert await count(console, "SegmentEvaluationApprove", id=held) <= APART["SegmentEvaluationApprove"]


async def test_credentials_are_set_tried_and_forgotten_in_few_statements(
    by_providers: tuple[Caller, PushSink, PushSink],  # noqa: F811
) -> None:
    console, _, _ = by_providers
    await console.data("PushCredentials")
    given = {"secret": {"fcm": {"serviceAccount": service_account_json()}}}
    assert await count(console, "PushCredentialSet", **given) <= APART["PushCredentialSet"]
    assert await count(console, "PushCredentialTest", provider="FCM") <= APART["PushCredentialTest"]
    assert await count(console, "PushCredentialDelete", provider="FCM") <= APART["PushCredentialDelete"]


async def test_a_campaign_to_many_segments_is_made_and_sent_in_no_more_statements(console: Caller) -> None:
    """Also where each is evaluated first."""
    await people(console, "ada")
    segments = []
    for number in range(5):
        wanted = {"name": f"s{number}", "type": "DYNAMIC", "definition": PLAN}
        segments.append((await console.data("SegmentCreate", input=wanted))["segment"]["id"])
        await console.data("SegmentActivate", input={"id": segments[-1]})
    await run_all(console.workspace_id, now=datetime.now(UTC))
    taken = []
    for some in (segments[:1], segments[1:]):
        one = await make(console)
        changed = await count(console, "CampaignUpdate", id=one, segmentIds=some)
        taken.append((changed, await count(console, "CampaignSend", id=one)))
    assert taken[0] == taken[1]
