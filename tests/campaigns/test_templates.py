"""Templates: what they can say, what they may not, and what they may cost (T-19)."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import CampaignError, RenderError
from campaigns.program import OUTPUT_LIMIT, PLAIN, TEXT_LIMIT
from campaigns.templates import compile_template

FIELD = ("content", "html")
ANN: dict[str, Any] = {
    "first_name": "Ann",
    "age": 30,
    "spent": 1234.5,
    "vip": True,
    "gone": None,
    "tags": ["gold", "tea"],
    "items": [{"name": "Tea", "price": 3.5}, {"name": "Cup", "price": 12}],
    "address": {"city": "Köln", "lines": ["1 High St", "2nd floor"]},
    "joined": "2026-01-02T10:00:00Z",
    "site": "https://example.com/?a=1&b=2",
    "empty": "",
    "none": [],
}


def scope(traits: dict[str, Any]) -> dict[str, Any]:
    return {
        "profile": {**traits, "email": "ann@example.com", "external_id": "c1"},
        "traits": traits,
        "campaign": {"name": "Spring"},
        "sender": {"name": "Shop", "address": "news@shop.example", "postal_address": "1 High St"},
        "unsubscribe_url": "https://muster.example/u/abc",
        "now": datetime(2026, 11, 22, 10, tzinfo=UTC),
    }


def rendered(source: str, traits: dict[str, Any] | None = None) -> str:
    program = compile_template(source, field=FIELD, limit=102_400, encoding=PLAIN)
    out: list[bytes] = []
    program.render(scope(ANN if traits is None else traits), out)
    return b"".join(out).decode()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Hello {{ profile.first_name }}!", "Hello Ann!"),
        ("{{ traits.address.city }}, {{ traits['address']['lines'][1] }}", "Köln, 2nd floor"),
        ("{{ profile.nickname | default('friend') }}", "friend"),
        ("{{ profile.gone | default('null is missing too') }}", "null is missing too"),
        ("{{ traits.empty | default('you', true) }}", "you"),
        ("{% if traits.vip %}yes{% else %}no{% endif %}", "yes"),
        ("{% if traits.nothing %}yes{% elif traits.age >= 18 %}adult{% endif %}", "adult"),
        ("{% if traits.nothing > 3 or traits.nothing == 'x' %}yes{% else %}no{% endif %}", "no"),
        ("{% if not traits.nothing and 'gold' in traits.tags %}yes{% endif %}", "yes"),
        ("{% if traits.nothing is defined %}yes{% else %}no{% endif %}", "no"),
        ("{{ 'adult' if 17 < traits.age < 99 else 'other' }}", "adult"),
        ("{% for one in traits['items'] %}{{ loop.index }}:{{ one.name }} {% endfor %}", "1:Tea 2:Cup "),
        ("{% for one in traits.none %}x{% else %}nothing{% endfor %}", "nothing"),
        ("{% for one in traits.nope | default([]) %}x{% else %}nothing{% endfor %}", "nothing"),
        ("{% for a in traits.tags %}{% for b in traits.tags %}{{ a }}{{ b }} {% endfor %}{% endfor %}",
         "goldgold goldtea teagold teatea "),
        ("{{ traits.tags | join(', ') }} {{ traits.tags | length }} {{ traits.tags | last }}", "gold, tea 2 tea"),
        ("{{ traits.spent | number(2) }} {{ traits.age | number }}", "1,234.50 30"),
        ("{{ traits.joined | date('%d %B %Y') }} {{ now | date }}", "02 January 2026 2026-11-22"),
        ("{{ traits.site | url }}", "https://example.com/?a=1&b=2"),
        ("{{ 'a b&c/d' | urlencode }}", "a%20b%26c%2Fd"),
        ("{{ 'hello big world' | truncate(9, false, '…', 0) }}", "hello…"),
        ("{{ '  x ' | trim }}{{ 'some-title here' | title }}{{ 'aXb' | replace('X', '-') }}", "xSome-Title Herea-b"),
        ("{{ campaign.name }} {{ sender.postal_address }} {{ unsubscribe_url }}",
         "Spring 1 High St https://muster.example/u/abc"),
        ("{% raw %}{{ as it stands }}{% endraw %}{# not seen #}", "{{ as it stands }}"),
        ("a\n{%- if traits.vip %} b {%- endif %}\nc", "a b\nc"),
        ("{{ traits.tags.0 }} {{ traits.tags[5] | default('-') }} {{ -1 }} {{ 2.5 }} {{ traits.vip }}",
         "gold - -1 2.5 True"),
    ],
)  # fmt: skip
def test_a_template_says_what_it_should(source: str, text: str) -> None:
    assert rendered(source) == text


# The same templates in Jinja2 itself

paths = st.sampled_from(["profile.first_name", "traits.age", "traits.empty", "traits.address.city", "'x y-z'", "7"])
PLAIN_FILTERS = ["upper", "lower", "title", "trim", "truncate(5)", "length", "e", "capitalize", "first", "last"]
filters = st.sampled_from(
    [*PLAIN_FILTERS, "truncate(3, true, '.', 0)", "replace('n', 'mm')", "default('d')", "join('-')"]
)
texts = st.text(alphabet="ab <&>\n.%", max_size=6)
tests = st.sampled_from(
    ["traits.vip", "not traits.vip", "traits.age > 29", "traits.age <= 29 and traits.vip", "'gold' in traits.tags"]
) | st.sampled_from(["traits.empty or traits.vip", "traits.first_name == 'Ann'", "1 < traits.age < 31", "traits.tags"])


def output(path: str, applied: list[str]) -> str:
    return "{{ " + " | ".join([path, *applied]) + " }}"


outputs = st.builds(output, paths, st.lists(filters, max_size=2))
templates = st.recursive(
    st.lists(outputs | texts, max_size=4).map("".join),
    lambda inner: (
        st.builds(lambda test, a, b: f"{{% if {test} %}}{a}{{% else %}}{b}{{% endif %}}", tests, inner, inner)
        | st.builds(lambda a: f"{{% for t in traits.tags %}}{a}{{{{ loop.index }}}}{{% endfor %}}", inner)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(templates)
def test_what_is_allowed_means_what_it_means_in_jinja2(source: str) -> None:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["e"] = str  # we escape HTML once, whether asked to or not
    with suppress(TypeError, jinja2.UndefinedError):  # ours is laxer with numbers, which it takes for texts
        expected = environment.from_string(source).render(scope(ANN))
        try:
            assert rendered(source) == expected
        except RenderError as refusal:  # and stricter with what is no list
            assert refusal.code in ("NOT_A_LIST", "MISSING_VALUE")  # noqa: PT017 -- the other branch compares
        except CampaignError:  # the inner loop's variable would hide the outer one's
            assert source.count("{% for") > 1


# What a recipient lacks fails that recipient alone


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("{{ profile.nickname }}", "MISSING_VALUE", "profile.nickname"),
        ("{{ profile.nickname | upper }}", "MISSING_VALUE", 'profile.nickname | default("...")'),
        ("{{ traits.gone }}", "MISSING_VALUE", "traits.gone"),
        ("{% for one in traits.nothing %}x{% endfor %}", "MISSING_VALUE", "default([])"),
        ("{% for one in traits.first_name %}x{% endfor %}", "NOT_A_LIST", "traits.first_name"),
        ("{{ traits.tags }}", "NOT_TEXT", "a list"),
        ("{{ traits.address }}", "NOT_TEXT", "an object"),
        ("{% if traits.first_name > 3 %}x{% endif %}", "NOT_COMPARABLE", "traits.first_name"),
        ("{% if traits.tags == traits.tags %}x{% endif %}", "NOT_COMPARABLE", "traits.tags"),
        ("{{ traits.first_name | number }}", "NOT_A_NUMBER", "traits.first_name"),
        ("{{ '1e999999' | number }}", "NOT_A_NUMBER", "number"),
        ("{{ traits.first_name | date }}", "NOT_A_DATE", "traits.first_name"),
        ("{{ 'javascript:alert(1)' | url }}", "NOT_A_URL", "https://"),
        ("{{ ' java\tscript:x' | url }}", "NOT_A_URL", "https://"),
        ("{{ 'data:text/html,x' | url }}", "NOT_A_URL", "https://"),
        ("{{ 'https://x\"onclick=' | url }}", "NOT_A_URL", "https://"),
    ],
)
def test_a_value_that_is_missing_or_unfit_is_named_with_its_mend(source: str, code: str, says: str) -> None:
    with pytest.raises(RenderError) as refusal:
        rendered(source)
    assert refusal.value.code == code
    assert says in refusal.value.message


def test_a_render_error_does_not_repeat_the_value() -> None:
    with pytest.raises(RenderError) as refusal:
        rendered("{{ traits.secret | number }}", {"secret": "hunter2"})
    assert "hunter2" not in refusal.value.message


# What is refused when it is saved


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("a\nb {{ x", "TEMPLATE_SYNTAX", "Line 2"),
        ("{% if traits.a %}", "TEMPLATE_SYNTAX", "endif"),
        ("{% unknown %}", "TEMPLATE_SYNTAX", "unknown"),
        ("{{ " + "9" * 5000 + " }}", "TEMPLATE_SYNTAX", "number"),
        ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "TEMPLATE_SYNTAX", "deep"),
        ("\n{{ 1 + 1 }}", "TEMPLATE_NOT_ALLOWED", "Line 2: templates do not calculate"),
        ("{{ 'a' ~ 'b' }}", "TEMPLATE_NOT_ALLOWED", "calculate"),
        ("{{ range(3) }}", "TEMPLATE_NOT_ALLOWED", "range(...) cannot be called"),
        ("{{ name }}", "TEMPLATE_NOT_ALLOWED", "name is not known"),
        ("{{ profile }}", "TEMPLATE_NOT_ALLOWED", "profile.first_name"),
        ("{{ sender.password }}", "TEMPLATE_NOT_ALLOWED", "sender has address"),
        ("{{ campaign.name.x }}", "TEMPLATE_NOT_ALLOWED", "campaign.name"),
        ("{{ unsubscribe_url.x }}", "TEMPLATE_NOT_ALLOWED", "no fields"),
        ("{{ loop.index }}", "TEMPLATE_NOT_ALLOWED", "loop is not known"),
        ("{{ traits[traits.key] }}", "TEMPLATE_NOT_ALLOWED", "in quotes"),
        ("{{ traits.a[1:2] }}", "TEMPLATE_NOT_ALLOWED", "in quotes"),
        ("{{ 'x'.y }}", "TEMPLATE_NOT_ALLOWED", "only a name can have fields"),
        ("{{ traits.a | safe }}", "TEMPLATE_NOT_ALLOWED", "no filter safe"),
        ("{{ traits.a | upper(1) }}", "TEMPLATE_NOT_ALLOWED", "upper takes nothing"),
        ("{{ traits.a | replace('x') }}", "TEMPLATE_NOT_ALLOWED", "replace takes old, new"),
        ("{{ traits.a | truncate(long=3) }}", "TEMPLATE_NOT_ALLOWED", "takes no long"),
        ("{{ traits.a | date('%1000000000d') }}", "TEMPLATE_NOT_ALLOWED", "date format"),
        ("{{ traits.a | date(traits.b) }}", "TEMPLATE_NOT_ALLOWED", "date format"),
        ("{{ traits.a is callable }}", "TEMPLATE_NOT_ALLOWED", "test"),
        ("{{ {'a': 1} }}", "TEMPLATE_NOT_ALLOWED", "dict"),
        ("{{ [1, 2] }}", "TEMPLATE_NOT_ALLOWED", "list"),
        ("{% set x = 1 %}", "TEMPLATE_NOT_ALLOWED", "{% set %}"),
        ("{% include 'x' %}", "TEMPLATE_NOT_ALLOWED", "{% include %}"),
        ("{% import 'x' as y %}", "TEMPLATE_NOT_ALLOWED", "{% import %}"),
        ("{% extends 'x' %}", "TEMPLATE_NOT_ALLOWED", "{% extends %}"),
        ("{% block x %}{% endblock %}", "TEMPLATE_NOT_ALLOWED", "{% block %}"),
        ("{% macro m() %}{% endmacro %}", "TEMPLATE_NOT_ALLOWED", "{% macro %}"),
        ("{% filter upper %}x{% endfilter %}", "TEMPLATE_NOT_ALLOWED", "{% filter %}"),
        ("{% with a = 1 %}{% endwith %}", "TEMPLATE_NOT_ALLOWED", "{% with %}"),
        ("{% autoescape false %}{% endautoescape %}", "TEMPLATE_NOT_ALLOWED", "{% autoescape %}"),
        ("{% for a, b in traits.x %}{% endfor %}", "TEMPLATE_NOT_ALLOWED", "one variable"),
        ("{% for a in traits.x if a %}{% endfor %}", "TEMPLATE_NOT_ALLOWED", "neither a condition"),
        ("{% for a in traits.x recursive %}{% endfor %}", "TEMPLATE_NOT_ALLOWED", "recursion"),
        ("{% for profile in traits.x %}{% endfor %}", "TEMPLATE_NOT_ALLOWED", "a meaning already"),
        ("{% for a in traits.x %}" * 3 + "{% endfor %}" * 3, "TEMPLATE_NOT_ALLOWED", "a meaning already"),
        ("{% for a in traits.x %}{% for b in a.x %}{% for c in b.x %}" + "{% endfor %}" * 3, "TEMPLATE_NOT_ALLOWED",
         "at most 2"),
        ("{{ traits" + ".a" * 1000 + " }}", "TEMPLATE_NOT_ALLOWED", "too many dots"),
        ("{{ traits" + ".a" * 1000 + "() }}", "TEMPLATE_NOT_ALLOWED", "cannot be called"),
        ("{{ traits.a" + " | upper" * 500 + " }}", "TEMPLATE_NOT_ALLOWED", "deeply"),
        ("{{ traits.a" + " and traits.a" * 500 + " }}", "TEMPLATE_NOT_ALLOWED", "deeply"),
        ("{{a}}" * 20_000, "TEMPLATE_TOO_LARGE", "pieces of syntax"),
        ("{{ " + "a and " * 15_000 + "a }}", "TEMPLATE_TOO_LARGE", "pieces of syntax"),
        ("x" * 102_401, "TEMPLATE_TOO_LARGE", "102,401 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_with_its_place_and_a_mend(source: str, code: str, says: str) -> None:
    with pytest.raises(CampaignError) as refusal:
        rendered(source)
    assert (refusal.value.code, refusal.value.field) == (code, FIELD)
    assert says in refusal.value.message


HOSTILE = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**10**7 }}",
    "{{ 'a'|center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{% set ns=namespace(s='aaaaaaaaaa') %}{% for i in range(27) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{{ lipsum(n=200000) }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{{ ([0]*10**9)|length }}",
    "{{ ('a '*10**7)|wordwrap(1)|length }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{a.__class__}'.format_map({'a':1}) }}",
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{{ 7**(7**9) }}",
    "{{ ('http://' + 'a.'*200000)|urlize|length }}",
    "{{ self.__init__ }}",
    "{{ traits|attr('__class__') }}",
    "{{ traits|map('upper')|list }}",
    "{{ traits.a|xmlattr }}",
    "{% if traits.a %}" * 2_000,
]


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_templates_are_refused_before_anything_of_them_runs(source: str) -> None:
    with pytest.raises(CampaignError):
        compile_template(source, field=FIELD, limit=102_400, encoding=PLAIN)


PIECES = ["{{", "}}", "{%", "%}", "{#", "#}", "if", "for", "in", "endif", "endfor", "else", "traits", ".", "|", "upper"]
SIGNS = ["(", ")", "[", "]", "'", "1", "**", "~", "is", "not", "-", "%", "set", "=", "default", " ", "\n"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, *SIGNS]) | st.text(max_size=3), max_size=25).map("".join))
def test_any_text_is_either_a_template_or_refused(source: str) -> None:
    with suppress(CampaignError):
        rendered(source)


# What a recipient may cost


def test_texts_and_lists_of_the_context_are_cut() -> None:
    assert len(rendered("{{ traits.x }}", {"x": "a" * 50_000})) == TEXT_LIMIT
    assert rendered("{% for a in traits.x %}.{% endfor %}", {"x": [1] * 500}) == "." * 100


@pytest.mark.parametrize(
    ("source", "traits", "code"),
    [
        # nine chained replace() would make 10^9 characters
        ("{{ traits.x" + " | replace('a', 'aaaaaaaaaa')" * 9 + " }}", {"x": "a" * 251}, "TOO_LARGE"),
        ("{{ traits.x | replace('', traits.x) }}", {"x": "a" * 10_000}, "TOO_LARGE"),
        ("{{ traits.x | join(traits.y) }}", {"x": ["a"] * 100, "y": "b" * 10_000}, "TOO_LARGE"),
        ("{{ traits.x | urlencode }}", {"x": "€" * 10_000}, "TOO_LARGE"),
        ("{% for a in traits.x %}{% for b in traits.x %}.{% endfor %}{% endfor %}", {"x": [1] * 100}, "TOO_MUCH_WORK"),
        ("{% for a in traits.x %}{% for b in traits.y %}" + "{% if a %}{% endif %}" * 100 + "{% endfor %}{% endfor %}",
         {"x": [0] * 10, "y": [0] * 100}, "TOO_MUCH_WORK"),
        ("{% for a in traits.x %}" + "{% if traits.y | title == 'x' %}{% endif %}" * 2 + "{% endfor %}",
         {"x": [1] * 100, "y": "é " * 5_000}, "TOO_MUCH_WORK"),
        ("{% for a in traits.x %}{{ traits.y }}{% endfor %}", {"x": [1] * 100, "y": "a" * 10_000}, "TOO_LARGE"),
        ("{% for a in traits.x %}" + "b" * 90_000 + "{% endfor %}", {"x": [1] * 100}, "TOO_LARGE"),
        ("{{ traits.x }}", {"x": 10**5_000}, "NOT_TEXT"),
    ],
)  # fmt: skip
def test_what_grows_too_much_fails_the_recipient(source: str, traits: dict[str, Any], code: str) -> None:
    with pytest.raises(RenderError) as refusal:
        rendered(source, traits)
    assert refusal.value.code == code


def test_a_text_as_large_as_allowed_is_made() -> None:
    source = "{% for a in traits.x %}{{ traits.y }}{% endfor %}"
    made = rendered(source, {"x": [1] * 49, "y": "a" * TEXT_LIMIT})
    assert OUTPUT_LIMIT - TEXT_LIMIT <= len(made) <= OUTPUT_LIMIT


def test_a_program_knows_what_it_reads_and_what_it_always_prints() -> None:
    source = (
        "{{ traits.a | upper }}{% if traits.b %}{{ sender.name }}{% endif %}"
        "{{ unsubscribe_url }}{{ traits.site | url }}{{ campaign.name | truncate(1) }}{{ sender.address if traits.c }}"
    )
    program = compile_template(source, field=FIELD, limit=10_000, encoding=PLAIN)
    assert program.always == {"unsubscribe_url", "traits.site"}
    assert set(program.reads) == {
        "traits.a", "traits.b", "traits.c", "sender.name", "sender.address", "unsubscribe_url", "traits.site",
        "campaign.name",
    }  # fmt: skip
