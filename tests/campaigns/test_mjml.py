"""MJML: what becomes of it, and how its mistakes are told."""

import re

import pytest

from campaigns.emails import EmailContent, finish
from campaigns.errors import CampaignError
from campaigns.mjml import to_html
from campaigns.proofs import prove

FIELD = ("content", "mjml")
FOOTER = (
    '<mj-section><mj-column><mj-text>{{ sender.postal_address }} <a href="{{ unsubscribe_url }}">No more</a></mj-text>'
    "</mj-column></mj-section>"
)


def made(body: str, head: str = "") -> str:
    return to_html(f"<mjml><mj-head>{head}</mj-head><mj-body>{body}</mj-body></mjml>", field=FIELD, limit=200_000)


def column(inside: str) -> str:
    return f"<mj-section><mj-column>{inside}</mj-column></mj-section>"


def test_mjml_becomes_tables_with_their_styles() -> None:
    style = '<mj-style inline="inline">.big { color: red }</mj-style>'
    html = made(column('<mj-text css-class="big">Hello</mj-text>'), style)
    assert re.search(r'<td class="big"[^>]*style="color: red;', html)
    assert "</html>" in html
    assert "fonts.googleapis.com" not in html
    font = '<mj-font name="Ubuntu" href="https://fonts.example/ubuntu.css" />'
    assert "https://fonts.example/ubuntu.css" in made(column("<mj-text>Hello</mj-text>"), font)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (column("<mj-text>Hi {{ profile.first_name | default('you') }} <b>{{ traits.a }}</b></mj-text>"),
         ["Hi {{ profile.first_name | default('you') }} <b>{{ traits.a }}</b>"]),
        (column('<mj-button href="{{ traits.site | url }}">Go</mj-button>'), ['<a href="{{ traits.site | url }}"']),
        (column('<mj-image src="https://a.example/{{ traits.pic | urlencode }}.png" alt="{{ traits.pic }}" />'),
         ['src="https://a.example/{{ traits.pic | urlencode }}.png"', 'alt="{{ traits.pic }}"']),
        (column("<mj-text>{% if traits.vip %}Gold{% else %}Dear{% endif %}</mj-text>"),
         ["{% if traits.vip %}Gold{% else %}Dear{% endif %}"]),
        (column('<mj-text color="{% if traits.vip %}red{% else %}blue{% endif %}">x</mj-text>'),
         ["color:{% if traits.vip %}red{% else %}blue{% endif %};"]),
        (column("{% for one in traits.rows %}<mj-text>{{ one.name }}</mj-text>{% endfor %}"),
         ["{% for one in traits.rows %}<tr>", "{{ one.name }}", "</tr>{% endfor %}"]),
        ("{% if traits.vip %}" + column("<mj-text>x</mj-text>") + "{% endif %}", ["{% if traits.vip %}<!--[if mso",
                                                                                  "{% endif %}"]),
        (column("<mj-table>{% for one in traits.rows %}<tr><td>{{ one }}</td></tr>{% endfor %}</mj-table>"),
         ["{% for one in traits.rows %}<tr><td>{{ one }}</td></tr>{% endfor %}"]),
        (column("<mj-raw>{% if traits.a %}<p>x</p>{% endif %}</mj-raw>"), ["{% if traits.a %}<p>x</p>{% endif %}"]),
        (column("<mj-text>{{ '}}' }} mark0z &#123;&#123; x</mj-text>"), ["{{ '}}' }} mark0z"]),
    ],
)  # fmt: skip
def test_template_tags_survive_in_their_places(body: str, found: list[str]) -> None:
    html = made(body)
    for one in found:
        assert one in html
    assert "mark0" not in html.replace("mark0z", "", 1)


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("hello", "MJML_NOT_READABLE", "MJML begins with <mjml>"),
        ("<p>hello</p>", "MJML_NOT_READABLE", "MJML begins with <mjml>"),
        ("<mjml>\n<mj-body>\n<mj-section>\n</mj-body></mjml>", "MJML_NOT_READABLE",
         "Line 4: </mj-body> does not fit; <mj-section> of line 3 is open here."),
        ("<mjml><mj-body></mj-body></mjml></mjml>", "MJML_NOT_READABLE", "nothing is open here"),
        ("<mjml>\n{# two\nlines #}\n<mj-body>", "MJML_NOT_READABLE", "<mj-body> is never closed; add </mj-body>."),
        ("<mjml><mj-body><mj-poem>x</mj-poem></mj-body></mjml>", "MJML_NOT_READABLE", "<mj-poem> is not known to MJML"),
        ("<mjml><mj-body><mj-include path='/etc/passwd' /></mj-body></mjml>", "MJML_NOT_READABLE",
         "files cannot be included"),
        ("<mjml><mj-body><mj-include path='https://a.example/x.mjml' /></mj-body></mjml>", "MJML_NOT_READABLE",
         "cannot be included"),
        ("<mjml>\n<mj-body>\n<mj-section a=></mj-section></mj-body></mjml>", "MJML_NOT_READABLE",
         "attributes without a value in quotes"),
        ("<mjml><mj-body>" + "<mj-section />" * 1_000 + "</mj-body></mjml>", "TEMPLATE_TOO_LARGE", "bytes of HTML"),
        ("<mjml><mj-body><mj-raw>" + "<b>" * 200 + "</mj-raw></mj-body></mjml>", "TEMPLATE_TOO_LARGE", "100 elements"),
        ("<mjml><mj-body><mj-section unknown='{{ traits.a }}'></mj-section></mj-body></mjml>", "TEMPLATE_NOT_ALLOWED",
         "{{ traits.a }} gets lost"),
        ("<mjml>{% if traits.a %}<mj-body></mj-body>{% endif %}</mjml>", "TEMPLATE_NOT_ALLOWED",
         "{% if traits.a %} cannot stand where it does"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(source: str, code: str, says: str) -> None:
    with pytest.raises(CampaignError) as refusal:
        to_html(source, field=FIELD, limit=200_000)
    assert (refusal.value.code, refusal.value.field) == (code, FIELD)
    assert says in refusal.value.message


@pytest.mark.parametrize(
    "body",
    [
        '<mj-button href="{{ traits.site }}">x</mj-button>',
        '<mj-text><a href="{{ traits.site }}">x</a></mj-text>',
        '<mj-raw><p onclick="{{ traits.a }}">x</p></mj-raw>',
        '<mj-image src="{{ traits.pic }}" />',
    ],
)
def test_a_value_must_stand_where_escaping_makes_it_safe(body: str) -> None:
    with pytest.raises(CampaignError) as refusal:
        prove(EmailContent("x", mjml=f"<mjml><mj-body>{column(body)}{FOOTER}</mj-body></mjml>"))
    assert (refusal.value.code, refusal.value.field) == ("TEMPLATE_NOT_ALLOWED", FIELD)


def test_a_mail_of_mjml_has_a_preheader_and_a_text_and_can_be_marketing() -> None:
    """S3-16."""
    body = column("<mj-text>Hi {{ profile.first_name }}</mj-text><mj-button href='https://a.example'>Go</mj-button>")
    content = EmailContent("x", preheader="News", mjml=f"<mjml><mj-body>{body}{FOOTER}</mj-body></mjml>")
    proof = prove(content)
    assert proof.objection is None
    assert [one.name for one in proof.variables] == ["profile.first_name"]
    finished = finish(content)
    assert finished.text == (
        "Hi {{ profile.first_name }}\n\nGo (https://a.example)\n\n"
        "{{ sender.postal_address }} No more ({{ unsubscribe_url }})"
    )
    assert finished.html.index(">News</div>") < finished.html.index("Hi {{ profile.first_name }}")


def test_html_and_mjml_together_are_refused() -> None:
    with pytest.raises(CampaignError) as refusal:
        prove(EmailContent("x", html="<p>x</p>", mjml="<mjml><mj-body></mj-body></mjml>"))
    assert (refusal.value.code, refusal.value.field) == ("HTML_AND_MJML", FIELD)
