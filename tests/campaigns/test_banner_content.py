"""What a banner may say, how it is kept, and what one viewer sees of it."""

import re
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaigns.banner_checks import clean_schemes, cleaned, require_allowed
from campaigns.banner_content import (
    BannerContent,
    BannerFace,
    BannerVariable,
    Translation,
    has_placeholders,
    locale_of,
    localized,
    resolve,
)
from campaigns.errors import CampaignError

FULL = BannerContent(
    face=BannerFace(
        title="Hello {{first_name}}",
        body="Sale",
        image_url="https://cdn.example/sale.png",
        dark_image_url="https://cdn.example/dark.png",
        image_alt="A shelf",
        action_label="Go",
        action_url="https://shop.example/c/{{category}}",
        background_color="#00ffAA",
        text_color="#000000",
        accent_color="#123456",
        data={"tone": "loud", "steps": [1, {"a": None}]},
    ),
    locale="en",
    translations=(
        Translation("de", title="Hallo {{first_name}}", action_url="https://shop.example/de/{{category}}"),
        Translation("pt-BR", body="", data={"tone": "quiet"}),
    ),
    variables=(BannerVariable("first_name", "you"), BannerVariable("category", "all")),
)


def of(**face: Any) -> BannerContent:
    return BannerContent(BannerFace(**({"title": "x"} | face)))


def test_a_content_is_kept_and_read_again() -> None:
    assert BannerContent.from_json(orjson.loads(orjson.dumps(cleaned(FULL).to_json()))) == FULL


def test_a_content_of_before_has_defaults_for_what_is_new() -> None:
    """What the release before kept: a flat object without languages and variables."""
    assert BannerContent.from_json({"title": "Sale", "gone": 1}) == BannerContent(BannerFace("Sale"))


def test_languages_are_written_one_way() -> None:
    made = cleaned(BannerContent(BannerFace("x"), "EN_gb", (Translation("zh-hant-tw", title="y"),)))
    assert (made.locale, made.translations[0].locale) == ("en-GB", "zh-Hant-TW")


WRONG: list[tuple[BannerContent, str, tuple[str, ...]]] = [
    (of(title=" "), "EMPTY", ("title",)),
    (of(title="x" * 201), "TOO_LONG", ("title",)),
    (of(title="x\0"), "UNSTORABLE_TEXT", ("title",)),
    (of(body="y" * 2_001), "TOO_LONG", ("body",)),
    (of(title="", image_url="https://a.example/b"), "ALT_MISSING", ("image_alt",)),
    (of(dark_image_url="https://a.example/b"), "IMAGE_MISSING", ("image_url",)),
    (of(image_url="javascript:alert(1)"), "NOT_A_URL", ("image_url",)),
    (of(image_url="data:image/png;base64,x"), "NOT_A_URL", ("image_url",)),
    (of(image_url="myapp://x"), "NOT_A_URL", ("image_url",)),
    (of(image_url="http://a.example/b"), "NOT_A_URL", ("image_url",)),
    (of(image_url="https://a.example", dark_image_url="https://"), "NOT_A_URL", ("dark_image_url",)),
    (of(action_url="JavaScript://x%0aalert(1)"), "NOT_A_URL", ("action_url",)),
    (of(action_url="javascript:alert(1)"), "NOT_A_URL", ("action_url",)),
    (of(action_url=" javascript:alert(1)"), "NOT_A_URL", ("action_url",)),
    (of(action_url="java\tscript:alert(1)"), "NOT_A_URL", ("action_url",)),
    (of(action_url="data:text/html,x"), "NOT_A_URL", ("action_url",)),
    (of(action_url="file:///etc/passwd"), "NOT_A_URL", ("action_url",)),
    (of(action_url="intent://scan/#Intent;scheme=zxing;end"), "NOT_A_URL", ("action_url",)),
    (of(action_url="http://a.example"), "NOT_A_URL", ("action_url",)),
    (of(action_url="https:/a.example"), "NOT_A_URL", ("action_url",)),
    (of(action_url="https://a b"), "NOT_A_URL", ("action_url",)),
    (of(action_url="https://a\n.example"), "NOT_A_URL", ("action_url",)),
    (of(action_url="https://a.example\\@b.example"), "NOT_A_URL", ("action_url",)),
    (of(action_url="/relative"), "NOT_A_URL", ("action_url",)),
    (of(action_url="https://a.example/" + "x" * 2_048), "NOT_A_URL", ("action_url",)),
    (of(background_color="red"), "NOT_A_COLOR", ("background_color",)),
    (of(text_color="#12345"), "NOT_A_COLOR", ("text_color",)),
    (of(accent_color="#1234567"), "NOT_A_COLOR", ("accent_color",)),
    (of(data={"a": "x" * 4_096}), "TOO_LONG", ("data",)),
    (of(data={"a": object()}), "NOT_JSON", ("data",)),
    (of(data={"a": [[[[[[[[1]]]]]]]]}), "TOO_DEEP", ("data",)),
    (of(title="{{name}}"), "UNDECLARED_VARIABLE", ("title",)),
    (of(title="{{ first name }}"), "NOT_A_PLACEHOLDER", ("title",)),
    (of(title="{{ 1 + 1 }}"), "NOT_A_PLACEHOLDER", ("title",)),
    (of(title="}} x"), "NOT_A_PLACEHOLDER", ("title",)),
    (BannerContent(BannerFace("x"), "x y"), "INVALID_LOCALE", ("locale",)),
    (BannerContent(BannerFace("x"), "en", (Translation("EN"),)), "TWICE", ("translations", "0", "locale")),
    (BannerContent(BannerFace("x"), None, (Translation("?"),)), "INVALID_LOCALE", ("translations", "0", "locale")),
    (
        BannerContent(BannerFace("x"), None, (Translation("de"), Translation("fr", title="x" * 201))),
        "TOO_LONG",
        ("translations", "1", "title"),
    ),
    (
        BannerContent(BannerFace("x"), None, (Translation("de", action_url="javascript:1"),)),
        "NOT_A_URL",
        ("translations", "0", "action_url"),
    ),
    (
        BannerContent(BannerFace("x"), variables=(BannerVariable("a b", ""),)),
        "INVALID_NAME",
        ("variables", "0", "name"),
    ),
    (
        BannerContent(BannerFace("x"), variables=(BannerVariable("a", ""), BannerVariable("a", "b"))),
        "TWICE",
        ("variables", "1", "name"),
    ),
    (
        BannerContent(BannerFace("x"), variables=(BannerVariable("a", "x" * 201),)),
        "TOO_LONG",
        ("variables", "0", "default"),
    ),
    (
        BannerContent(BannerFace("{{a}}" * 21), variables=(BannerVariable("a", ""),)),
        "TOO_MANY",
        ("title",),
    ),
    (
        BannerContent(BannerFace("x", action_url="https://{{a}}.example/"), variables=(BannerVariable("a", ""),)),
        "VARIABLE_IN_HOST",
        ("action_url",),
    ),
    (
        BannerContent(BannerFace("x", action_url="https://a.example{{a}}"), variables=(BannerVariable("a", ""),)),
        "VARIABLE_IN_HOST",
        ("action_url",),
    ),
    (
        BannerContent(BannerFace("x", action_url="{{a}}://a.example/"), variables=(BannerVariable("a", ""),)),
        "VARIABLE_IN_HOST",
        ("action_url",),
    ),
    (
        BannerContent(BannerFace("x"), None, tuple(Translation(f"x{n:05}"[:7]) for n in range(51))),
        "TOO_MANY",
        ("translations",),
    ),
    (
        BannerContent(
            BannerFace("x"), None, tuple(Translation(f"q{chr(97 + n)}", data={"a": "x" * 4_000}) for n in range(20))
        ),
        "TOO_LONG",
        (),
    ),
]


@pytest.mark.parametrize(
    ("content", "code", "path"), WRONG, ids=[f"{code}-{n}" for n, (_, code, _) in enumerate(WRONG)]
)
def test_a_banner_that_cannot_be_drawn_or_leads_astray_is_refused_at_its_field(
    content: BannerContent, code: str, path: tuple[str, ...]
) -> None:
    with pytest.raises(CampaignError) as refusal:
        cleaned(content)
    assert (refusal.value.code, refusal.value.field) == (code, ("content", *path))


@pytest.mark.parametrize(
    "address", ["https://a.example", "https://a.example/x?y#z", "myapp://offers/1", "tel:+4930123"]
)
def test_a_banner_leads_to_the_web_or_into_its_app(address: str) -> None:
    assert cleaned(of(action_url=address)) == of(action_url=address)


@pytest.mark.parametrize(
    ("face", "part", "name"),
    [
        ({"title": "x"}, "BODY", "title"),
        ({"title": "", "body": "x"}, "TITLE", "body"),
        ({"image_url": "https://a.example/x"}, "TITLE", "image_url"),
        ({"title": "", "image_url": "https://a.example/x", "image_alt": "x", "dark_image_url": "https://a.b"},
         "IMAGE", "dark_image_url"),
        ({"action_label": "Go"}, "TITLE", "action_label"),
        ({"action_url": "https://a.example"}, "TITLE", "action_url"),
        ({"text_color": "#000000"}, "TITLE", "text_color"),
        ({"data": {"a": 1}}, "TITLE", "data"),
    ],
)  # fmt: skip
def test_what_a_placement_does_not_allow_is_refused_by_its_name(face: dict[str, Any], part: str, name: str) -> None:
    with pytest.raises(CampaignError) as refusal:
        require_allowed(of(**face), allowed=[part], link_schemes=[])
    assert (refusal.value.code, refusal.value.field) == ("FIELD_NOT_ALLOWED", ("content", name))


def test_translations_are_held_to_what_the_placement_allows() -> None:
    content = BannerContent(BannerFace("x"), None, (Translation("de", body="y"),))
    with pytest.raises(CampaignError) as refusal:
        require_allowed(content, allowed=["TITLE"], link_schemes=[])
    assert refusal.value.field == ("content", "translations", "0", "body")
    require_allowed(content, allowed=None, link_schemes=[])


def test_links_begin_as_the_placement_allows() -> None:
    require_allowed(of(action_url="myapp://x"), allowed=None, link_schemes=["myapp"])
    require_allowed(of(action_url="https://x.example"), allowed=None, link_schemes=[])
    for schemes in ([], ["my"], ["myapp2"]):
        with pytest.raises(CampaignError) as refusal:
            require_allowed(of(action_url="myapp://x"), allowed=None, link_schemes=schemes)
        assert (refusal.value.code, refusal.value.field) == ("SCHEME_NOT_ALLOWED", ("content", "action_url"))


def test_schemes_that_run_code_are_never_allowed() -> None:
    assert clean_schemes(["MyApp://", "myapp:", "https", "tel", "com.shop+x"]) == ["myapp", "tel", "com.shop+x"]
    for wrong in ("javascript", "JAVASCRIPT:", " data ", "http", "intent", "", "my app", "vbscript://"):
        with pytest.raises(CampaignError) as refusal:
            clean_schemes(["ok-1", wrong])
        assert (refusal.value.code, refusal.value.field) == ("SCHEME_NOT_ALLOWED", ("link_schemes", "1"))


@pytest.mark.parametrize(
    ("wanted", "locale", "title", "tone"),
    [
        ((), None, "Hello {{first_name}}", "loud"),
        (("de-AT",), "de", "Hallo {{first_name}}", "loud"),
        (("en-GB", "de"), None, "Hello {{first_name}}", "loud"),
        (("fr", "pt-br"), "pt-BR", "Hello {{first_name}}", "quiet"),
        (("fr",), None, "Hello {{first_name}}", "loud"),
    ],
)
def test_a_viewer_sees_the_best_language(wanted: tuple[str, ...], locale: str | None, title: str, tone: str) -> None:
    assert locale_of(FULL, wanted) == locale
    face = localized(FULL, locale)
    assert (face.title, face.data["tone"], face.image_alt) == (title, tone, "A shelf")


def test_claims_stand_for_variables_and_defaults_for_those_that_are_missing() -> None:
    face = resolve(FULL, ["de"], {"first_name": "Ada & Co", "category": "a/b ?&#%"})
    assert face.title == "Hallo Ada & Co"
    assert face.action_url == "https://shop.example/de/a%2Fb%20%3F%26%23%25"
    face = resolve(FULL, [], {"category": 7, "first_name": None})
    assert (face.title, face.action_url) == ("Hello you", "https://shop.example/c/7")


@pytest.mark.parametrize(
    ("claim", "seen"),
    [
        ("Ada", "Ada"),
        ("{{category}}", "{{category}}"),
        ("<b>", "<b>"),
        ("A\x00d\x1b[31ma\n", "Ad[31ma"),
        ("\u202eadA\u2066", "adA"),
        ("\ud800", "you"),
        ("x" * 1_000, "x" * 200),
        ("", "you"),
        (True, "you"),
        (1.5, "1.5"),
        ({"a": 1}, "you"),
        ([1], "you"),
    ],
)
def test_a_claim_is_only_ever_text(claim: object, seen: str) -> None:
    assert resolve(FULL, [], {"first_name": claim}).title == f"Hello {seen}"


# The first draw of a text makes Hypothesis's table of characters, which takes seconds on a busy machine.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["first_name", "category", "x"]), st.text() | st.integers() | st.floats()))
def test_whatever_is_claimed_the_link_leads_to_the_same_host_and_all_is_json(claims: dict[str, object]) -> None:
    face = resolve(FULL, ["en"], claims)
    assert urlsplit(face.action_url or "")[:2] == ("https", "shop.example")
    assert re.fullmatch(r"https://shop\.example/c/[A-Za-z0-9._~%+-]*", face.action_url or "")
    assert not set(map(chr, range(32))) & set(face.title)
    assert orjson.loads(orjson.dumps(face))["title"] == face.title
    assert not has_placeholders(BannerFace("x"))


def test_a_banner_without_variables_is_the_same_object_for_everybody() -> None:
    content = of(title="Sale")
    assert resolve(content, ["de"], {"first_name": "Ada"}) is content.face
