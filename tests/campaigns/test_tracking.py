"""Which links of a mail are tracked, and that everything else of it stays as it is."""

import re
import time
from collections.abc import Sequence

import pytest

from campaigns.emails import TRACKED_LIMIT, EmailContent, finish
from campaigns.mime import HTML_BODY
from campaigns.program import PLAIN, Program, Value
from campaigns.proofs import prove
from campaigns.templates import compile_template
from campaigns.tracking import MOST_LINKS, MOST_PLACES, TrackedHtml, Tracking, tracked

BOTH = Tracking(opens=True, clicks=True)
CLICKS = Tracking(clicks=True)


def test_links_that_are_the_same_for_all_are_made_for_each_recipient() -> None:
    """An address that stands twice is one link; the image comes last in the body."""
    found = tracked(
        '<body><a class="x" href="https://a.example/?a=1&amp;b=2#c">a</a> <A HREF=http://b.example>b</A>'
        "<map><area href='https://a.example/?a=1&amp;b=2#c'></map></body></html>",
        BOTH,
    )
    assert found.html == (
        '<body><a class="x" href="{{ tracked_urls[0] }}">a</a> <A HREF="{{ tracked_urls[1] }}">b</A>'
        '<map><area href="{{ tracked_urls[0] }}"></map>'
        '<img src="{{ tracked_urls[2] }}" width="1" height="1" alt="" style="border:0"></body></html>'
    )
    assert found.urls == ("https://a.example/?a=1&b=2#c", "http://b.example", None)


@pytest.mark.parametrize(
    ("written", "leads_to"),
    [
        (
            '"https://a.example/?a=1&currency=EUR&region=eu&section=2"',
            "https://a.example/?a=1&currency=EUR&region=eu&section=2",
        ),
        ('"https://a.example/?a=1&copy=2&amp=3&para&x=4"', "https://a.example/?a=1&copy=2&amp=3¶&x=4"),
        ('"https://a.example/?a=1&amp;copy=2&#38;b=3&#x26;c&nosuch;"', "https://a.example/?a=1&copy=2&b=3&c&nosuch;"),
        ("\"https://a.example/?name='ada'\"", "https://a.example/?name='ada'"),
        ("'https://a.example/?name=\"ada\"'", 'https://a.example/?name="ada"'),
        ("https://a.example/?a=1&copy=2&lt;", "https://a.example/?a=1&copy=2<"),
    ],
    ids=["prefixes of names", "no semicolon", "escaped", "single quotes in it", "double quotes in it", "no quotes"],
)
def test_an_address_is_read_as_browsers_read_it(written: str, leads_to: str) -> None:
    assert tracked(f"<a href={written}>x</a>", CLICKS).urls == (leads_to,)


@pytest.mark.parametrize(
    "html",
    [
        '<a href="{{ unsubscribe_url }}">no more</a>',
        '<a href="https://a.example/{{ profile.external_id }}">yours</a>',
        '<a href="https://a.example/{% if traits.x %}x{% endif %}">yours</a>',
        '<a href="{{ traits.site | url }}">yours</a>',
        '<a href="mailto:a@example.com">write</a><a href="tel:+49891234">call</a><a href="#top">up</a>',
        '<a href="/relative">x</a><a href="//a.example/x">x</a><a href="javascript:alert(1)">x</a><a href="">x</a>',
        '<a href="data:text/html,x">x</a><a href="https:///path">x</a><a href="https://[::1/">x</a><a>x</a>',
        '<a href="https://a.example/&#10;Set-Cookie:x">x</a><a href="https://a.example/&#9;x">x</a>',
        f'<a href="https://a.example/{"x" * 2048}">long</a>',
        '<img src="https://a.example/x.png"><link href="https://a.example/x.css"><abbr href="https://a.example">x</abbr>',
        '<!--[if mso]><a href="https://a.example">x</a><![endif]--><style>a[href="https://a.example"]{}</style>',
        '{% raw %}<a href="https://a.example">x</a>{% endraw %}',
        '<p title="<a href=https://a.example>">&lt;a href="https://a.example"&gt;</p>',
    ],
    ids=range(13),
)
def test_what_is_no_web_address_for_all_stays_as_it_is(html: str) -> None:
    assert tracked(html, CLICKS) == TrackedHtml(html, ())


def test_nothing_is_touched_where_nothing_is_tracked() -> None:
    html = '<body><a href="https://a.example">x</a> {{ profile.email }}</body>'
    assert tracked(html, Tracking()).html == html
    assert tracked(html, Tracking(opens=True)).urls == (None,)
    assert tracked("", BOTH).urls == ()


def test_conditions_and_loops_around_links_stay() -> None:
    html = (
        '{% for item in traits.items %}<a href="https://a.example" title="{{ item }}">{{ item }}</a>{% endfor %}'
        '{% if profile.city %}<a href="https://b.example">{{ profile.city }}</a>{% endif %}'
    )
    found = tracked(html, BOTH)
    scope: dict[str, Value] = {
        "traits": {"items": ["<1>", "2"]},
        "profile": {"city": "Rome"},
    }
    urls = (b"https://m.example/t/A", b"https://m.example/t/B", b"https://m.example/o/C.gif")
    assert rendered(found.html, scope, urls) == (
        '<a href="https://m.example/t/A" title="<1>"><1></a><a href="https://m.example/t/A" title="2">2</a>'
        '<a href="https://m.example/t/B">Rome</a>'
        '<img src="https://m.example/o/C.gif" width="1" height="1" alt="" style="border:0">'
    )


def rendered(html: str, scope: dict[str, Value], urls: Sequence[bytes]) -> str:
    program: Program = compile_template(html, field=("html",), limit=10**6, encoding=PLAIN, is_tracked=True)
    out: list[bytes] = []
    program.render(scope, out, urls)
    return b"".join(out).decode()


def test_a_mail_has_so_many_tracked_links_at_most() -> None:
    html = "".join(f'<a href="https://a.example/{n}">{n}</a>' for n in range(MOST_LINKS + 5))
    found = tracked(html + '<a href="https://a.example/0">again</a>', BOTH)
    assert len(found.urls) == MOST_LINKS + 1
    assert found.html.count('href="https://') == 5
    assert found.html.count("{{ tracked_urls[0] }}") == 2


def test_what_was_proved_compiles_with_its_links_tracked() -> None:
    """However often an address stands in it: each is a tag, and a template may have so many."""
    links = '<a href="http://a">a</a>' * 3_000
    content = EmailContent("s", html=f"<body>{links}{'{{now}}' * 1_600}{{{{ unsubscribe_url }}}}</body>")
    prove(content)
    found = tracked(finish(content).html, BOTH)
    assert (found.html.count("{{ tracked_urls[0] }}"), found.html.count("http://a")) == (MOST_PLACES, 2_500)
    assert found.html.endswith('style="border:0"></body>')
    compile_template(found.html, field=("html",), limit=TRACKED_LIMIT, encoding=HTML_BODY, is_tracked=True)


def test_finished_html_is_tracked_wherever_its_css_went() -> None:
    content = EmailContent("s", html="<style>a{color:red}</style><p><a href='https://a.example?x=1&y=2'>x</a></p>")
    found = tracked(finish(content).html, BOTH)
    assert found.urls == ("https://a.example?x=1&y=2", None)
    assert re.search(r'<a href="{{ tracked_urls\[0\] }}" style="color: ?red;?">', found.html)
    assert found.html.index("tracked_urls[1]") < found.html.index("</body>")


def test_broken_html_is_read_once() -> None:
    """The time grows with the length, not with its square: 500 KB that never close a tag are a fraction of a second."""
    for piece in ("<a href=", "<a href='", '<a "', "<a <", "<!--", "<style", "</body"):
        before = time.process_time()
        tracked(piece * (500_000 // len(piece)), BOTH)
        assert time.process_time() - before < 5, piece
