"""What an email may say, and how its HTML becomes plain text and keeps its templates."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from typing import Any
from uuid import UUID

import pytest

from campaigns.emails import EmailContent, Recipient, compile_email, finish
from campaigns.errors import CampaignError
from campaigns.markup import inline_css
from campaigns.mime import SenderInfo
from campaigns.plaintext import visible_text
from campaigns.proofs import Objection, prove

HTML = ("content", "html")
FOOTER = '{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">Unsubscribe</a>'
TEXT_FOOTER = "\n{{ sender.postal_address }} {{ unsubscribe_url }}"


def refusal_of(content: EmailContent) -> tuple[str, tuple[str, ...]]:
    with pytest.raises(CampaignError) as refusal:
        prove(content)
    return refusal.value.code, refusal.value.field


def objection(content: EmailContent) -> Objection | None:
    """Why a content must not be sent as marketing."""
    return prove(content).objection


def email(html: str = "", **rest: Any) -> EmailContent:
    return replace(EmailContent("Hello", html=html + FOOTER if html else ""), **rest)


@pytest.mark.parametrize(
    ("content", "code", "field"),
    [
        (email("<p>x</p>", subject=" "), "SUBJECT_MISSING", "subject"),
        (email(), "CONTENT_EMPTY", "html"),
        (email("<p>x</p>", subject="{{ x"), "TEMPLATE_SYNTAX", "subject"),
        (email("<p>x</p>", subject="x" * 1_025), "TEMPLATE_TOO_LARGE", "subject"),
        (email("<p>x</p>", preheader="{{ 1 + 1 }}"), "TEMPLATE_NOT_ALLOWED", "preheader"),
        (email("<p>x</p>", text="{% if %}"), "TEMPLATE_SYNTAX", "text"),
        (email("<p>{{ nobody }}</p>"), "TEMPLATE_NOT_ALLOWED", "html"),
        (email("<p>x</p>" * 13_000), "TEMPLATE_TOO_LARGE", "html"),
        (email("<div>" * 300 + "x" + "</div>" * 300), "TEMPLATE_TOO_LARGE", "html"),
    ],
)
def test_a_content_that_cannot_be_sent_is_refused_at_its_field(content: EmailContent, code: str, field: str) -> None:
    assert refusal_of(content) == (code, ("content", field))


@pytest.mark.parametrize(
    ("content", "code", "field", "add"),
    [
        (EmailContent("s", html="<p>x</p>"), "UNSUBSCRIBE_LINK_MISSING", "html",
         '<a href="{{ unsubscribe_url }}">Unsubscribe</a>'),
        (EmailContent("s", text="x"), "UNSUBSCRIBE_LINK_MISSING", "text", "{{ unsubscribe_url }}"),
        (EmailContent("s", text="x {{ unsubscribe_url }}"), "POSTAL_ADDRESS_MISSING", "text",
         "{{ sender.postal_address }}"),
        (EmailContent("s", html=f"<p>x</p>{FOOTER}", text="x"), "UNSUBSCRIBE_LINK_MISSING", "text",
         "{{ unsubscribe_url }}"),
        (EmailContent("s", html="<p>x</p>", text="x" + TEXT_FOOTER), "UNSUBSCRIBE_LINK_MISSING", "html", "<a href"),
        (EmailContent("s", html=f"{{% if traits.x %}}{FOOTER}{{% endif %}}"), "UNSUBSCRIBE_LINK_MISSING", "html", "<a"),
        (EmailContent("s", html=f'<p style="display: none">{FOOTER}</p>x'), "UNSUBSCRIBE_LINK_MISSING", "html", "<a"),
        (EmailContent("s", html=f"<style>.f {{ display: none }}</style><p class='f'>{FOOTER}</p>x"),
         "UNSUBSCRIBE_LINK_MISSING", "html", "<a"),
        (EmailContent("s", html=f"<!-- {FOOTER} -->x"), "UNSUBSCRIBE_LINK_MISSING", "html", "<a"),
        (EmailContent("s", html='<a href="{{ unsubscribe_url }}"></a>{{ sender.postal_address }}'),
         "UNSUBSCRIBE_LINK_MISSING", "html", "<a"),
        (EmailContent("s", html="<p hidden>{{ sender.postal_address }}</p><a href='{{ unsubscribe_url }}'>x</a>"),
         "POSTAL_ADDRESS_MISSING", "html", "{{ sender.postal_address }}"),
        (EmailContent("s", html="<p>x</p>", preheader=FOOTER), "UNSUBSCRIBE_LINK_MISSING", "html", "<a"),
    ],
)  # fmt: skip
def test_marketing_mail_must_show_everybody_how_to_unsubscribe_and_where_it_comes_from(
    content: EmailContent, code: str, field: str, add: str
) -> None:
    found = objection(content)
    assert found is not None
    assert (found.code, found.field) == (code, ("content", field))
    assert add in found.message


@pytest.mark.parametrize(
    "html",
    [
        '<a href="{{ traits.site }}">x</a>',
        '<img src="{{ traits.site }}">',
        "<a href='{% if traits.a %}{{ traits.site }}{% endif %}'>x</a>",
        "<a href='{% if traits.a %}https://{% endif %}{{ traits.site }}'>x</a>",
        '<a href="{{ traits.site | url | upper }}">x</a>',
        '<a href="java{{ traits.site }}">x</a>',
        "<a href={{ traits.site | url }}>x</a>",
        "<p title={{ traits.a }}>x</p>",
        '<p onclick="{{ traits.a }}">x</p>',
        "<p {{ traits.a }}>x</p>",
        '<p {{ traits.a }}="x">x</p>',
        "<{{ traits.a }}>x",
        "</{{ traits.a }}>x",
        "<script>var a = '{{ traits.a }}'</script>",
        '<iframe srcdoc="{{ traits.a }}"></iframe>',
    ],
)
def test_a_value_where_escaping_does_not_make_it_safe_is_refused(html: str) -> None:
    assert refusal_of(email(html)) == ("TEMPLATE_NOT_ALLOWED", ("content", "html"))


@pytest.mark.parametrize(
    "html",
    [
        '<a href="{{ traits.site | url }}">x</a>',
        '<a href="https://shop.example/{{ traits.slug | urlencode }}?a={{ traits.b }}">x</a>',
        '<a href="mailto:{{ traits.address }}">x</a>',
        "<a href='https://shop.example/{% if traits.a %}a{% endif %}{{ traits.slug | urlencode }}'>x</a>",
        "<a href='{% if traits.a %}{{ traits.site | url }}{% else %}https://shop.example{% endif %}'>x</a>",
        '<p class="{% if traits.vip %}gold{% endif %}" title="{{ traits.a }}">{{ traits.b }}</p>',
        "<p{% if traits.vip %} class='gold'{% endif %}>x</p>",
        "<p>1 < 2 {{ traits.a }} > 0</p>",
    ],
)
def test_a_value_in_text_or_quotes_or_behind_a_fixed_scheme_is_allowed(html: str) -> None:
    assert objection(email(html)) is None


def test_css_goes_into_the_elements_and_template_tags_keep_their_places() -> None:
    source = (
        "<style>td { color: red } @media (max-width: 9px) { #x { color: blue } }</style>"
        "<table>{% for one in traits.rows %}<tr><td {% if one.a %}title='{{ one.a }}'{% endif %}>{{ one.b }}</td></tr>"
        "{% endfor %}</table>"
    )
    inlined = inline_css(source, field=HTML)
    assert (
        '<table>{% for one in traits.rows %}<tr><td {% if one.a %}title="{{ one.a }}" {% endif %} style="color: red;">'
        "{{ one.b }}</td></tr>{% endfor %}</table>"
    ) in inlined
    assert "@media" in inlined
    assert objection(email(source)) is None


def test_braces_that_are_text_stay_text() -> None:
    html = "<style>p{color:red}</style><p>&#123;{ not.a.template }} &#123;% nor this %}</p>"
    made = rendered(email(html))
    assert "{{ not.a.template }} {% nor this %}" in made


def test_html_without_styles_is_sent_as_it_was_written() -> None:
    source = "<p>Fish &amp; chips<br/>{{ traits.a }}"
    assert inline_css(source, field=HTML) == source


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>Hello</h1><p>one<br>two</p><p>three</p>", "Hello\n\none\ntwo\n\nthree\n"),
        ("<p>Look <a href='https://a.example/x'>here</a>!</p>", "Look here (https://a.example/x)!\n"),
        ("<p><a href='https://a.example'>https://a.example</a></p>", "https://a.example\n"),
        ("<p><a href='mailto:a@b.example'>a@b.example</a> <a href='#top'>top</a></p>", "a@b.example top\n"),
        ("<ul><li>one</li><li>two <b>bold</b></li></ul>", "- one\n- two bold\n"),
        ("<ol><li>one</li><li>two</li></ol>x", "1. one\n2. two\n\nx\n"),
        ("<ol>{% for t in traits.a %}<li>{{ t }}</li>{% endfor %}</ol>",
         "{% for t in traits.a %}- {{ t }}\n{% endfor %}\n"),
        ("<a href='https://a.example'><img src='x.png' alt='Our shop'></a>", "Our shop (https://a.example)\n"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a b\n1 2\n"),
        ("<p>x</p><hr><p>y</p>", "x\n\n" + "-" * 40 + "\n\ny\n"),
        ("<img src='x.png' alt='Logo'><p>Fish &amp; chips &copy;</p>", "Logo\n\nFish & chips ©\n"),
        ("<head><title>no</title></head><style>p{}</style><script>x</script><p hidden>no</p><p>yes</p>", "yes\n"),
        ("Hi {% if traits.a %}Ms {% else %}Mr {% endif %}X", "Hi {% if traits.a %}Ms {% else %}Mr {% endif %}X\n"),
        ("<p>x</p><br><br>y<br>z", "x\n\ny\nz\n"),
        ("<p>{% for t in traits.a %}{{ t }}, {% endfor %}end</p>", "{% for t in traits.a %}{{ t }}, {% endfor %}end\n"),
        ("<p>A</p>{% if traits.a %}<p>B</p>{% endif %}<p>C</p>", "A{% if traits.a %}\n\nB{% endif %}\n\nC\n"),
        ("<table>{% for r in traits.a %}<tr><td>{{ r.x }}</td><td>{{ r.y }}</td></tr>{% endfor %}</table><p>end</p>",
         "{% for r in traits.a %}{{ r.x }} {{ r.y }}\n{% endfor %}\nend\n"),
        ("<p>{{ '{{' }} &#123;&#123; x }}</p>", "{{ '{{' }} {{ \"{{\" }} x }}\n"),
        ("", "\n"),
    ],
)  # fmt: skip
def test_html_becomes_the_text_that_a_reader_sees(html: str, text: str) -> None:
    assert visible_text(html, field=HTML) == text


def rendered(content: EmailContent, traits: dict[str, Any] | None = None, **facts: str) -> str:
    """All parts of a mail, one after the other."""
    sender = SenderInfo("Shop", "news@shop.example", None, "1 High St")
    mail = compile_email(content, sender=sender, list_unsubscribe=True, campaign_id=UUID(int=1), campaign_name="Spring")
    data = mail.render(
        Recipient("ann@example.com", traits=traits or {}, **facts),
        message_id="<1@shop.example>",
        sent_at=datetime(2026, 11, 22, tzinfo=UTC),
        unsubscribe_url="https://muster.example/u/x",
        delivery_key="1",
    )
    message = message_from_bytes(data, policy=default)
    parts = [part.get_content() for part in message.walk() if not part.is_multipart()]
    return "\n".join(str(part).replace("\r\n", "\n") for part in parts)


def test_the_text_of_a_mail_without_one_is_made_from_its_html_for_each_recipient() -> None:
    content = email("<p>Hi {{ profile.first_name }}</p>{% for one in traits.rows %}<p>{{ one }}</p>{% endfor %}")
    assert objection(content) is None
    made = rendered(content, {"first_name": "Ann & Bo", "rows": ["a", "b"]})
    assert made.startswith("Hi Ann & Bo\n\na\n\nb\n\n1 High St Unsubscribe (https://muster.example/u/x)\n")
    assert "<p>Hi Ann &amp; Bo</p><p>a</p><p>b</p>1 High St <a href=" in made


def test_the_preheader_stands_first_and_hidden() -> None:
    content = email("<html><body class='x'><p>Hi</p></body></html>", preheader="For {{ traits.a }} < 5 €")
    assert objection(content) is None
    made = rendered(content, {"a": "<you>"})
    assert "<body class='x'><div style=\"display:none;" in made
    assert ">For &lt;you&gt; &lt; 5 €</div><p>Hi</p>" in made
    assert "For" not in finish(content).text


def test_a_recipient_is_whoever_has_the_fields_of_one() -> None:
    class Row:
        external_id, email, traits = "c1", "ann@example.com", {"a": 1}
        locale, time_zone, country, city = "de", "Europe/Berlin", "DE", "Köln"

    assert Recipient.of(Row()) == Recipient(
        "ann@example.com", "c1", {"a": 1}, locale="de", time_zone="Europe/Berlin", country="DE", city="Köln"
    )
    text = "{{ profile.email }} {{ profile.locale }} {{ profile.city }} {{ traits.email }}" + TEXT_FOOTER
    made = rendered(EmailContent("x", text=text), {"email": "a trait", "city": "no"}, locale="de", city="Köln")
    assert made.startswith("ann@example.com de Köln a trait")


HOSTILE_HTML = [
    "<a " * 30_000, "<" * 100_000, "<!--" * 25_000, "<style>" * 14_000, "<p>" * 30_000, "<a b='" * 16_000,
    "<x " + "a " * 45_000 + ">{{ campaign.name }}", "{{ campaign.name }}<a " + "a='" * 20_000, "</" * 50_000,
    "<a href=\"{{ campaign.name | url }}" * 2_000, "<table><tr>" * 9_000, "<b>" * 150 + "x" * 90_000,
]  # fmt: skip


@pytest.mark.parametrize("html", HOSTILE_HTML)
def test_broken_html_is_either_a_mail_or_refused(html: str) -> None:
    with suppress(CampaignError):
        assert objection(EmailContent("x", html=html)) is not None
