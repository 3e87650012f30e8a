"""Requests that are meant to cost much, or to break something (delivery.md 4.3); tests and benchmarks send them."""

from dataclasses import dataclass
from typing import Any

from app.limits import MOST_ALIASES, MOST_MARKS, MOST_NAMES, MOST_OPERATIONS, MOST_TOKENS, MOST_VALUES
from tests.app.caller import operation_text


@dataclass(frozen=True)
class Hostile:
    """A document, and the code with which it is refused."""

    text: str
    code: str = "BAD_REQUEST"


def doubling(levels: int, last: str = "id") -> str:
    """Fragments that each spread the next twice."""
    spread = "".join(f" fragment F{n} on Workspace {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels))
    return f"query {{ workspace {{ ...F0 }} }}{spread} fragment F{levels} on Workspace {{ {last} }}"


def fragments(count: int, what: str) -> str:
    """So many fragments, all spread in one place; `what` each asks for, with its number for an N."""
    spread = " ".join(f"...F{n}" for n in range(count))
    defined = " ".join(f"fragment F{n} on Workspace {{ {what.replace('N', str(n))} }}" for n in range(count))
    return f"{{ workspace {{ {spread} }} }} {defined}"


TOO_COMPLEX = "TOO_COMPLEX"
DOCUMENTS: dict[str, Hostile] = {
    "1000 aliases": Hostile("{ " + " ".join(f"a{n}: workspace {{ id }}" for n in range(1000)) + " }", TOO_COMPLEX),
    "60 aliases": Hostile("{ " + " ".join(f"a{n}: workspace {{ id }}" for n in range(60)) + " }", TOO_COMPLEX),
    "the same field 10000 times": Hostile("{ " + "workspace { id } " * 10_000 + "}", TOO_COMPLEX),
    "the same field 120 times": Hostile("{ " + "workspace { id } " * 120 + "}", TOO_COMPLEX),
    "5000 directives": Hostile("{ workspace " + "@include(if: true) " * 5000 + "{ id } }", TOO_COMPLEX),
    "100 unknown directives": Hostile("{ workspace " + "@x " * 100 + "{ id } }", TOO_COMPLEX),
    "circular fragments": Hostile(
        "{ workspace { ...A } } fragment A on Workspace { ...B } fragment B on Workspace { ...A }"
    ),
    "circular fragments that each spread all": Hostile(
        "{ workspace { ...F0 } }"
        + "".join(f" fragment F{n} on Workspace {{ {' '.join(f'...F{m}' for m in range(14))} }}" for n in range(14)),
        TOO_COMPLEX,
    ),
    **{f"fragments that double {n} times": Hostile(doubling(n), TOO_COMPLEX) for n in (10, 14, 16, 18, 20, 22, 40)},
    "fragments that double to nothing": Hostile(doubling(40, "...Nope"), TOO_COMPLEX),
    "fragments that all ask for the same": Hostile(fragments(48, "id name"), TOO_COMPLEX),
    "fragments that each ask for something else": Hostile(fragments(48, "xN"), TOO_COMPLEX),
    "60 levels": Hostile("{ segments { edges " * 30 + "{ cursor }" + " } }" * 30, TOO_COMPLEX),
    "inline fragments 90 deep": Hostile(
        "{ workspace { " + "... on Workspace { " * 90 + "id" + " }" * 90 + " } }", TOO_COMPLEX
    ),
    "fields that overlap 150 times": Hostile(
        "{ " + " ".join(f"workspace {{ name c{n}: id }}" for n in range(150)) + " }", TOO_COMPLEX
    ),
    "60 operations": Hostile(" ".join(f"query Q{n} {{ workspace {{ id }} }}" for n in range(60)), TOO_COMPLEX),
    "operations that share a chain of fragments": Hostile(
        " ".join(f"query Q{n} {{ workspace {{ ...F0 }} }}" for n in range(12))
        + "".join(f" fragment F{n} on Workspace {{ ...F{n + 1} }}" for n in range(40))
        + " fragment F40 on Workspace { id }",
        TOO_COMPLEX,
    ),
    "an undefined fragment": Hostile("{ workspace { ...Nope } }"),
    "a list 2000 deep": Hostile(
        "{ banners(placements: " + "[" * 2000 + "]" * 2000 + ") { maxAgeSeconds } }", TOO_COMPLEX
    ),
    "a selection 3000 deep": Hostile("{ a " * 3000 + "}" * 3000, TOO_COMPLEX),
    "an input 100 deep": Hostile(
        "mutation { segmentCreate(input: "
        + "{definition: {not: " * 100
        + "1"
        + "}}" * 100
        + ") { userErrors { code } } }",
        TOO_COMPLEX,
    ),
    "a list 200 deep": Hostile("{ banners(placements: " + "[" * 200 + "]" * 200 + ") { maxAgeSeconds } }"),
    "comments": Hostile("{ workspace { id } } " + "#\n" * MOST_TOKENS, TOO_COMPLEX),
    "texts without end": Hostile("{ workspace { id } } " + '"""\\"""' * 2_000, TOO_COMPLEX),
    "introspection": Hostile("{ __schema { types { name } } }"),
    "introspection of a type": Hostile('{ __type(name: "Query") { fields { name } } }'),
    "introspection 10 deep": Hostile(
        "{ __schema { types { " + "fields { type { " * 10 + "name" + " } }" * 10 + " } } }", TOO_COMPLEX
    ),
    "introspection of a type 12 deep": Hostile(
        '{ __type(name: "Query") { ' + "fields { type { " * 12 + "name" + " } }" * 12 + " } }", TOO_COMPLEX
    ),
    "a name that is nearly right": Hostile("{ workspac { id } }"),
    "a megabyte of comment": Hostile("{ workspace { id } } #" + "x" * 1_000_000, TOO_COMPLEX),
    "no document": Hostile("}{"),
    "nothing": Hostile(" "),
    "half a surrogate in a text": Hostile('{ segments(name: "\\uD800") { edges { cursor } } }'),
    "U+0000 in a text": Hostile('{ segments(name: "\\u0000") { edges { cursor } } }'),
    "an undefined variable in a @oneOf": Hostile(
        'mutation { segmentCreate(input: {name: "a", type: DYNAMIC,'
        " definition: {identified: $nope}}) { userErrors { code } } }"
    ),
    # Those that are as much as may be, and wrong at the end.
    "unknown fields": Hostile("{ " + " ".join(f"f{n}" for n in range(MOST_TOKENS - 10)) + " }"),
    "unknown arguments": Hostile(
        "{ segments(" + " ".join(f"a{n}: 1" for n in range((MOST_TOKENS - 20) // 3)) + ") { edges { cursor } } }"
    ),
    "variables that nobody uses": Hostile(
        "query Q(" + " ".join(f"$v{n}: Int" for n in range((MOST_TOKENS - 20) // 4)) + ") { workspace { id } }"
    ),
    "undefined variables": Hostile("{ workspace { id " + " ".join(f"@include(if: $v{n})" for n in range(30)) + " } }"),
    "a wide condition": Hostile(
        'mutation { segmentCreate(input: {name: "a", type: DYNAMIC, definition: {all: ['
        + "{identified: true} " * ((MOST_TOKENS - 40) // 5)
        + "]}}) { userErrors { nope } } }"
    ),
    "a long list": Hostile("{ nodes(ids: [" + '"a" ' * (MOST_TOKENS - 20) + "]) { nope } }"),
    "one field of an input again and again": Hostile(
        "mutation { segmentCreate(input: {" + 'name: "a" ' * ((MOST_TOKENS - 20) // 3) + "}) { userErrors { code } } }"
    ),
    "as many aliases as may be": Hostile(
        "{ " + " ".join(f"a{n}: segments {{ edges {{ node {{ nope }} }} }}" for n in range(MOST_ALIASES)) + " }"
    ),
    "operations that each walk through a fragment": Hostile(
        " ".join(f"query Q{n}($i: ID!) {{ workspace {{ ...F nope }} nodes(ids: [$i]) {{ id }} }}" for n in range(9))
        + " fragment F on Workspace { "
        + " ".join(f"a{n}: id" for n in range(MOST_ALIASES))
        + " }"
    ),
    "19 kB of comment": Hostile("{ nope } #" + "x" * 19_900),
}

ASK = b'"query": "{ workspace { id } }"'
BODIES: dict[str, bytes] = {
    "no JSON": b"{",
    "not UTF-8": b'{"query": "\xff"}',
    "a batch": b'[{"query": "{ workspace { id } }"}]',
    "a batch of 100": b"[" + b", ".join([b"{" + ASK + b"}"] * 100) + b"]",
    "a text": b'"query"',
    "a number": b"5",
    "no query": b"{}",
    "a query that is a list": b'{"query": []}',
    "variables that are a list": b"{" + ASK + b', "variables": []}',
    "extensions that are a text": b"{" + ASK + b', "extensions": "x"}',
    "an operation name that is a list": b"{" + ASK + b', "operationName": ["x"]}',
    "an operation name with a line break": b"{" + ASK + b', "operationName": "a\\nb"}',
    "an operation that is not there": b"{" + ASK + b', "operationName": "Nope"}',
    "NaN": b"{" + ASK + b', "variables": {"a": NaN}}',
    "half a surrogate": b"{" + ASK + b', "variables": {"a": "\\ud800"}}',
    "U+0000": b"{" + ASK + b', "variables": {"a": ["\\u0000"]}}',
    "U+0000 after a backslash": b"{" + ASK + b', "variables": {"a": "\\\\\\u0000"}}',
    "U+0000 as a name": b"{" + ASK + b', "variables": {"\\u0000": 1}}',
    "brackets without end": b"{" + ASK + b', "variables": {"a": ' + b"[" * 100_000 + b"}}",
    "a list of 100000": b"{" + ASK + b', "variables": {"a": [' + b'"a",' * 99_999 + b'"a"]}}',
    "a list in a variable called data": b"{" + ASK + b', "variables": {"data": [' + b'"a",' * 99_999 + b'"a"]}}',
    "objects in their thousands": b"{" + ASK + b', "variables": {"a": [' + b'{"b":1},' * 99_999 + b"{}]}}",
    "a thousand variables": b"{" + ASK + b', "variables": {' + b",".join(b'"v%d":1' % n for n in range(1_000)) + b"}}",
    "lists in lists": b"{" + ASK + b', "variables": {"a": [' + b"[1]," * MOST_VALUES + b"[]]}}",
    "2 MB of objects": b"{" + ASK + b', "variables": {"data": [' + b"{}," * 650_000 + b"{}]}}",
    "2 MB of texts": b"{" + ASK + b', "variables": {"data": [' + b'"a",' * 490_000 + b"1]}}",
    "2 MB of texts that end in a backslash": b"{" + ASK + b', "variables": {"data": [' + b'"\\\\",' * 320_000 + b"1]}}",
    "as many names as may be": b"{"
    + ASK
    + b', "variables": [{'
    + b",".join(b'"v%d":1' % n for n in range(MOST_NAMES - 10))
    + b"}]}",
    "as many values as may be, and too many names": b"{"
    + ASK
    + b', "variables": [{'
    + b",".join(b'"v%d":1' % n for n in range(MOST_MARKS - 10))
    + b"}]}",
    "as many values as may be, of as many names": b"{"
    + ASK
    + b', "variables": [['
    + b",".join(b'{"v%05d":"%030d"}' % (n % (MOST_NAMES - 10), n) for n in range(MOST_MARKS // 4 - 10))
    + b"]]}",
    "2 MB before an escaped backslash and u0000": b"{"
    + ASK
    + b', "variables": ["'
    + b"a" * 1_900_000
    + b'\\\\u0000"]}',
    "2 MB of a text of commas and quotes": b"{" + ASK + b', "variables": ["' + b':\\",' * 490_000 + b'"]}',
    "as many texts as may be, beside a table": b"{"
    + ASK
    + b', "extensions": ["'
    + b"a,b" * 100_000
    + b'"'
    + b',"\\"' * (MOST_MARKS - 10)
    + b"]}",
}


def valid() -> dict[str, str]:
    """Documents that are as much as may be, with which nothing is wrong: all of a document is read then."""
    most = MOST_TOKENS - 40
    operation = "query Q{n}($a: ID!, $b: ID!) {{ workspace {{ ...F }} nodes(ids: [$a, $b]) {{ id }} }}"
    return {
        "a wide condition": 'mutation { segmentCreate(input: {name: "a", type: DYNAMIC, definition: {all: ['
        + "{identified: true} " * (most // 5)
        + "]}}) { userErrors { code } } }",
        "a long list": "{ nodes(ids: [" + '"a" ' * most + "]) { id } }",
        "as many variables as may be": "query Q("
        + " ".join(f"$v{n}: ID!" for n in range(most // 7))
        + ") { nodes(ids: ["
        + " ".join(f"$v{n}" for n in range(most // 7))
        + "]) { id } }",
        "operations that share a fragment": " ".join(operation.format(n=n) for n in range(MOST_OPERATIONS))
        + " fragment F on Workspace { "
        + " ".join(f"a{n}: name" for n in range(MOST_ALIASES))
        + " }",
    }


NUMBERS = [2**63, 2**64, 10**30, -(10**30), 1e308]


def with_variables() -> dict[str, tuple[str, dict[str, Any]]]:
    """Operations with values that no field takes: name, document, variables."""
    pages = {f"first: {number}": ("Segments", {"first": number}) for number in (0, -1, 101, 10**9, *NUMBERS)}
    others: dict[str, tuple[str, dict[str, Any]]] = {
        "an id that is a number": ("Nodes", {"ids": [1, None]}),
        "a text that is a list": ("Profile", {"externalId": ["a"]}),
        "an input that is a text": ("SegmentCreate", {"input": "a"}),
        "fields that no input has": ("SegmentCreate", {"input": {"name": "a", "admin": True, "workspaceId": "x"}}),
        "a state that is none": ("Campaigns", {"status": "SENT; DROP TABLE"}),
    }
    return {name: (operation_text(operation), given) for name, (operation, given) in (pages | others).items()}
