"""Contents that somebody might write to hang, crash or escape from whoever reads them."""

from campaigns.emails import EmailContent, Variable

TEMPLATES = {
    "a text times a billion": "{{ 'a' * 10**9 }}",
    "a power of a power": "{{ 10**10**7 }}",
    "a range": "{% for i in range(100001) %}x{% endfor %}",
    "ranges in each other": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "center": "{{ 'a'|center(10**9) }}",
    "a method that fills": "{{ 'a'.ljust(10**9) }}",
    "a width in a format": "{{ '%1000000000d' % 1 }}",
    "the filter format": "{{ '%1000000000d'|format(1) }}",
    "the method format": "{{ '{:>1000000000}'.format(1) }}",
    "doubling": "{% set n=namespace(s='aaaaaaaaaa') %}{% for i in range(27) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "lipsum": "{{ lipsum(n=200000) }}",
    "a macro without end": "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "a macro that doubles": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a list times a billion": "{{ ([0]*10**9)|length }}",
    "wordwrap": "{{ ('a '*10**7)|wordwrap(1)|length }}",
    "classes": "{{ ''.__class__.__mro__ }}",
    "classes by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "classes by format_map": "{{ '{a.__class__}'.format_map({'a':1}) }}",
    "classes by attr": "{{ ('{0.__class__}'|attr('format'))('') }}",
    "a power": "{{ 7**(7**9) }}",
    "urlize": "{{ ('http://' + 'a.'*200000)|urlize|length }}",
    "striptags": "{{ ('<'*200000)|striptags|length }}",
    # What follows is not in the corpus that this began with.
    "globals": "{{ cycler.__init__.__globals__.os.environ }}",
    "the template itself": "{{ self.__init__.__globals__ }}",
    "a trait's class": "{{ traits['__class__']()|attr('mro') }}",
    "map": "{{ traits|map(attribute='__class__')|list }}",
    "an include": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}{{ os.environ }}",
    "a parent": "{% extends traits.x %}",
    "a block": "{% block a %}{{ super() }}{% endblock %}",
    "a call block": "{% call(x) traits.y() %}{% endcall %}",
    "debugging": "{% debug %}",
    "xmlattr": "{{ {'a onload=alert(1) b': 1}|xmlattr }}",
    "a long sum": "{{ " + "1 + " * 2_400 + "1 }}",
    "a long chain": "{{ " + "traits.a and " * 2_400 + "1 }}",
    "conditions in each other": "{% if traits.a %}" * 700 + "{% endif %}" * 700,
    "a long number": "{{ " + "9" * 50_000 + " }}",
    "a long name": "{{ traits" + ".a" * 2_000 + " }}",
    "filters in a row": "{{ 'a'" + " | upper" * 2_000 + " }}",
    "a constant that grows": "{{ '" + "a" * 6_000 + "' " + "| replace('a', 'aaaaaaaaaaaa')" * 9 + " }}",
    "a slice": "{{ traits.a[::-1][0:10**9] }}",
    "a format of dates": "{{ now | date('%1000000000Y') }}",
    "a flood of tags": "{{a}}" * 20_000,
    "a bracket left open": "{% for" * 15_000,
    "a raw left open": "{% raw %}" * 10_000,
    "a comment left open": "{#" * 50_000,
    "a script": "<script>{{ traits.a }}</script>",
    "a value after a bracket": "<{{ traits.a }} onload=x>",
}
"""Every one is refused; the first 23 are the corpus that templates were designed against."""

SECTION = "<mjml><mj-body><mj-section><mj-column>{}</mj-column></mj-section></mj-body></mjml>"


def mjml(body: str) -> EmailContent:
    return EmailContent("x", mjml=body)


CONTENTS = {name: EmailContent("x", html=template) for name, template in TEMPLATES.items()} | {
    "a subject that calls": EmailContent("{{ range(9) }}", text="x"),
    "a preheader that calls": EmailContent("x", preheader="{{ lipsum() }}", html="<p>x</p>"),
    "a text that calls": EmailContent("x", text="{{ lipsum() }}"),
    "a file": mjml(SECTION.format("<mj-include path='/etc/passwd' />")),
    "an address": mjml("<mjml><mj-head><mj-include path='http://127.0.0.1:1/' /></mj-head><mj-body></mj-body></mjml>"),
    "entities": mjml("<!DOCTYPE a [<!ENTITY b 'cc'><!ENTITY d '&b;&b;'>]><mjml><mj-body>&d;</mj-body></mjml>"),
    "groups in each other": mjml(SECTION.format("<mj-group>" * 4_000 + "</mj-group>" * 4_000)),
    "elements in each other": mjml(SECTION.format("<mj-text>" + "<b>" * 20_000 + "</mj-text>")),
    "many sections": mjml("<mjml><mj-body>" + "<mj-section />" * 7_000 + "</mj-body></mjml>"),
    "a long attribute": mjml(
        f"<mjml><mj-head><mj-attributes><mj-all color='{'a' * 40_000}' /></mj-attributes></mj-head><mj-body>"
        "<mj-section><mj-column>" + "<mj-text>a</mj-text>" * 2_500 + "</mj-column></mj-section></mj-body></mjml>"
    ),
    "HTML in itself": EmailContent("x", html="<div>" * 20_000),
    "styles for everything": EmailContent("x", html="<style>" + "p{a:b}" * 8_000 + "</style>" + "<p>" * 17_000),
    "a name that is a template": EmailContent("x", text="x", variables=(Variable("traits.a }}{{ 'x'*10**9", 1),)),
    "a name of an object": EmailContent("x", text="x", variables=(Variable("sender.__class__", 1),)),
    "many variables": EmailContent("x", text="x", variables=tuple(Variable(f"traits.a{n}", 1) for n in range(1_000))),
}
"""Templates and everything else that is read; every one is refused."""
