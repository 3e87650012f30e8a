"""Any syntax tree that Jinja2 can make is either refused when it is read or rendered within its budget (T-19)."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.tests import TESTS

from campaigns.errors import CampaignError, RenderError
from campaigns.filters import FILTERS
from campaigns.mime import HTML_BODY
from campaigns.program import OUTPUT_LIMIT
from campaigns.templates import compile_template
from tests.campaigns.test_templates import ANN, scope

NAMES = ["profile", "traits", "sender", "now", "loop", "one", "two", "self", "range", "cycler", "namespace", "_"]
KEYS = ["first_name", "items", "tags", "x", "__class__", "__globals__", "index", "name", "email"]
LITERALS = [
    "0",
    "1",
    "-3",
    "2.5",
    "10**9",
    "'a'",
    "'a b'",
    "''",
    "none",
    "true",
    "[]",
    "[1, 'a']",
    "{'a': 1}",
    "(1, 2)",
]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]
ANY_FILTER = sorted(set(JINJA_FILTERS) | set(FILTERS))
TRAITS: dict[str, Any] = ANN | {
    "x": "a b " * 2_560,
    "tags": ["gold"] * 200,
    "items": [{"name": "x" * 9_000, "tags": ["a"] * 100}] * 100,
}

known = st.builds(
    "{}.{}".format, st.sampled_from(["profile", "traits"]), st.sampled_from(["x", "tags", "items", "first_name"])
)
atoms = known | st.sampled_from(LITERALS) | st.builds("{}.{}".format, st.sampled_from(NAMES), st.sampled_from(KEYS))
growing = ["upper", "title", "urlencode", "replace('a', 'aaaaaaaaaa')", "replace('', traits.x)", "join(traits.x)"]
allowed_expressions = st.builds(
    lambda name, filters: " | ".join([name, *filters]),
    known | st.sampled_from(["one", "two", "traits.tags[0]", "now", "'a b'", "7"]),
    st.lists(
        st.sampled_from([*growing, "length", "first", "truncate(9)", "default('x')", "number", "date"]), max_size=4
    ),
)


def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions one step larger."""
    arguments = st.lists(inner, max_size=3).map(", ".join)
    return st.one_of(
        st.builds("({}) | {}({})".format, inner, st.sampled_from(ANY_FILTER), arguments),
        st.builds("({} {} {})".format, inner, st.sampled_from(BINARY), inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("not ({})".format, inner),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("({})[{}:{}]".format, inner, inner, inner),
        st.builds("{}({})".format, inner, arguments),
        st.builds("({}) is {}".format, inner, st.sampled_from(sorted(TESTS))),
    )


expressions = allowed_expressions | st.recursive(atoms, deeper, max_leaves=4)


def allowed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Templates one step larger, of what may be."""
    lists = st.sampled_from(["traits.tags", "traits['items']", "profile.tags", "one.tags", "traits.none"])
    return st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, allowed_expressions, inner, inner),
        st.builds("{{% for one in {} %}}{}{{% else %}}{}{{% endfor %}}".format, lists, inner, inner),
        st.builds("{{% for two in {} %}}{}{{{{ loop.index }}}}{{% endfor %}}".format, lists, inner),
    )


def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Templates one step larger, of whatever there is."""
    return allowed(inner) | st.one_of(
        st.builds("{{% for one in {} %}}{}{{% endfor %}}".format, expressions, inner),
        st.builds("{{% set one = {} %}}{}".format, expressions, inner),
        st.builds("{{% macro m(a) %}}{}{{% endmacro %}}{{{{ m(m) }}}}".format, inner),
        st.builds("{{% filter {} %}}{}{{% endfilter %}}".format, st.sampled_from(ANY_FILTER), inner),
        st.builds("{{% with one = {} %}}{}{{% endwith %}}".format, expressions, inner),
        st.builds("{{% call {} %}}{}{{% endcall %}}".format, expressions, inner),
        st.builds("{{% include {} %}}{}".format, expressions, inner),
        st.builds("{{% raw %}}{}{{% endraw %}}".format, inner),
    )


texts = st.text(alphabet="ab <>&\n", max_size=8)
allowed_outputs = st.builds("{{{{ {} }}}}".format, allowed_expressions)
outputs = st.builds("{{{{ {} }}}}".format, expressions)
templates = st.one_of(
    st.recursive(allowed_outputs | texts, allowed, max_leaves=6),
    st.recursive(outputs | texts, wider, max_leaves=6),
)


def outcome(source: str) -> tuple[CampaignError | None, int]:
    """What a template is refused for, to begin with or for this recipient, and the bytes that it made."""
    out: list[bytes] = []
    try:
        program = compile_template(source, field=("content", "html"), limit=102_400, encoding=HTML_BODY)
        program.render(scope(TRAITS), out)
    except CampaignError as refusal:
        return refusal, sum(map(len, out))
    return None, sum(map(len, out))


@settings(max_examples=1_000, deadline=None)
@given(templates)
def test_a_fuzzed_template_is_refused_or_rendered_within_its_budget(source: str) -> None:
    """T-19: 1,000 trees, of everything that Jinja2 knows, for a recipient with long texts and lists."""
    refusal, size = outcome(source)
    # The template's own text is counted a round late: so much more may be there when it is refused.
    assert size <= OUTPUT_LIMIT + (0 if refusal is None else len(HTML_BODY.static(source)))
    if isinstance(refusal, RenderError):
        # A code and a sentence: what the ledger keeps of a recipient whose mail cannot be made.
        assert refusal.code.isupper()
        assert refusal.message.endswith(".")
    elif refusal:
        assert refusal.code in ("TEMPLATE_NOT_ALLOWED", "TEMPLATE_SYNTAX", "TEMPLATE_TOO_LARGE")
        assert size == 0
