"""What a campaign may say, and how it is kept: every channel's content."""

import asyncio
from uuid import UUID

import orjson
import pytest

from campaigns.banner_content import BannerContent, BannerFace
from campaigns.content import Content, content_from_json, proved, require_sendable
from campaigns.emails import EmailContent, Variable
from campaigns.errors import CampaignError
from campaigns.models import CampaignChannel, CampaignClass
from tests.campaigns.factories import ReadHere

TEXT = "{{ sender.postal_address }} {{ unsubscribe_url }}"


def kept(content: Content) -> dict[str, object]:
    return asyncio.run(proved(content, ReadHere(), workspace_id=UUID(int=1)))


@pytest.mark.parametrize(
    ("content", "channel"),
    [
        (EmailContent("s", "p", "t", html="h", variables=(Variable("profile.a", [1]),)), CampaignChannel.EMAIL),
        (EmailContent("s", mjml="<mjml><mj-body></mj-body></mjml>"), CampaignChannel.EMAIL),
        (BannerContent(BannerFace("t", "b", "https://a.b/c", data={"a": [1]}), "en"), CampaignChannel.BANNER),
    ],
)
def test_a_content_is_kept_and_read_again(content: Content, channel: CampaignChannel) -> None:
    assert content_from_json(channel, orjson.loads(orjson.dumps(kept(content)))) == content


def test_a_content_kept_before_a_field_existed_has_its_default() -> None:
    assert content_from_json(CampaignChannel.EMAIL, {"subject": "Sale", "gone": 1}) == EmailContent("Sale")


def test_what_must_not_be_sent_as_marketing_may_be_kept_and_sent_as_something_else() -> None:
    found = kept(EmailContent("s", text="no link"))
    require_sendable(found, channel=CampaignChannel.EMAIL, class_=CampaignClass.TRANSACTIONAL)
    with pytest.raises(CampaignError) as refusal:
        require_sendable(found, channel=CampaignChannel.EMAIL, class_=CampaignClass.MARKETING)
    assert (refusal.value.code, refusal.value.field) == ("UNSUBSCRIBE_LINK_MISSING", ("content", "text"))
    require_sendable(kept(EmailContent("s", text=TEXT)), channel=CampaignChannel.EMAIL, class_=CampaignClass.MARKETING)
