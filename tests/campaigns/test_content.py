"""What a campaign may say, and how it is kept: every channel's content, and banners."""

import asyncio
from uuid import UUID

import orjson
import pytest

from campaigns.content import BannerContent, Content, content_from_json, proved, require_sendable
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
        (BannerContent("t", "b", "https://a.b/c", action_url="x://y", data={"a": [1]}), CampaignChannel.BANNER),
    ],
)
def test_a_content_is_kept_and_read_again(content: Content, channel: CampaignChannel) -> None:
    assert content_from_json(channel, orjson.loads(orjson.dumps(kept(content)))) == content


def test_a_content_kept_before_a_field_existed_has_its_default() -> None:
    assert content_from_json(CampaignChannel.BANNER, {"title": "Sale", "gone": 1}) == BannerContent("Sale")
    assert content_from_json(CampaignChannel.EMAIL, {"subject": "Sale", "gone": 1}) == EmailContent("Sale")


def test_what_must_not_be_sent_as_marketing_may_be_kept_and_sent_as_something_else() -> None:
    found = kept(EmailContent("s", text="no link"))
    require_sendable(found, channel=CampaignChannel.EMAIL, class_=CampaignClass.TRANSACTIONAL)
    with pytest.raises(CampaignError) as refusal:
        require_sendable(found, channel=CampaignChannel.EMAIL, class_=CampaignClass.MARKETING)
    assert (refusal.value.code, refusal.value.field) == ("UNSUBSCRIBE_LINK_MISSING", ("content", "text"))
    require_sendable(kept(EmailContent("s", text=TEXT)), channel=CampaignChannel.EMAIL, class_=CampaignClass.MARKETING)


@pytest.mark.parametrize(
    ("content", "code", "field"),
    [
        (BannerContent(" "), "TITLE_MISSING", "title"),
        (BannerContent("x" * 201), "TOO_LONG", "title"),
        (BannerContent("x", "y" * 2_001), "TOO_LONG", "body"),
        (BannerContent("x", image_url="javascript:alert(1)"), "NOT_A_URL", "image_url"),
        (BannerContent("x", image_url="data:image/png;base64,x"), "NOT_A_URL", "image_url"),
        (BannerContent("x", image_url="myapp://x"), "NOT_A_URL", "image_url"),
        (BannerContent("x", dark_image_url="https://"), "NOT_A_URL", "dark_image_url"),
        (BannerContent("x", action_url="JavaScript://x%0aalert(1)"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="javascript:alert(1)"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="data://x"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="file:///etc/passwd"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="https://a b"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="https://a\n.example"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="/relative"), "NOT_A_URL", "action_url"),
        (BannerContent("x", action_url="https://a.example/" + "x" * 2_048), "NOT_A_URL", "action_url"),
        (BannerContent("x", background_color="red"), "NOT_A_COLOR", "background_color"),
        (BannerContent("x", text_color="#12345"), "NOT_A_COLOR", "text_color"),
        (BannerContent("x", data={"a": "x" * 4_096}), "TOO_LONG", "data"),
        (BannerContent("x", data={"a": object()}), "NOT_JSON", "data"),
    ],
)
def test_a_banner_that_cannot_be_drawn_or_leads_astray_is_refused_at_its_field(
    content: BannerContent, code: str, field: str
) -> None:
    with pytest.raises(CampaignError) as refusal:
        kept(content)
    assert (refusal.value.code, refusal.value.field) == (code, ("content", field))


@pytest.mark.parametrize(
    "address", ["https://a.example", "http://a.example/x?y#z", "myapp://offers/1", "com.shop+x://a"]
)
def test_a_banner_leads_to_the_web_or_into_its_app(address: str) -> None:
    kept(BannerContent("Sale", "Today", "https://cdn.example/a.png", action_url=address, text_color="#00ffAA"))
