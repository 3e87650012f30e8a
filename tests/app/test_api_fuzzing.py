"""What nobody would think of: operations that schemathesis makes out of the schema, sent to the live API.

None may end in a fault of ours. Seeded, so that a run is like the one before; how many are tried is bounded, not how
long it takes.
"""

import re
from random import Random
from typing import Any

import schemathesis
from graphql import introspection_from_schema
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.graphql import nodes

from app.schema import build_schema
from app.settings import Settings
from tests.app.caller import Caller
from tests.app.conftest import client_of
from tests.app.test_api_tenants import theirs  # noqa: F401

SEED = 7
EXAMPLES = 2
"""Of every field of the schema."""
AN_ID = re.compile(r"""(\b\w*[iI]d: )(?:"[^"]*"|-?\d+)""")
"""An id in an operation, which schemathesis makes up."""
VALUES = st.one_of(
    st.text(max_size=20).map(nodes.String), st.integers().map(nodes.Int), st.booleans().map(nodes.Boolean)
)
for scalar in ("JSON", "ConditionValue"):
    schemathesis.graphql.scalar(
        scalar, st.one_of(VALUES, st.lists(VALUES, max_size=2).map(lambda values: nodes.List(values=[*values])))
    )


def made_up(known: list[str]) -> list[str]:
    """Operations on every query and mutation; of the ids in them some are `known` ones."""
    schema = build_schema(introspection=True)._schema
    fuzzed = schemathesis.graphql.from_dict(dict(introspection_from_schema(schema)))
    random, found = Random(SEED), []

    def with_ids(text: str) -> str:
        return AN_ID.sub(
            lambda match: f'{match[1]}"{random.choice(known)}"' if random.random() < 0.7 else match[0], text
        )

    for operation in fuzzed.get_all_operations():
        assert isinstance(operation, Ok)
        whole = operation.ok()

        @seed(SEED)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(whole.as_strategy())
        def collect(case: Any) -> None:
            found.append(with_ids(case.body))

        collect()
    return found


async def test_whatever_is_asked_no_fault_of_ours_is_the_answer(
    settings: Settings,
    foreigner: Caller,
    theirs: dict[str, str],  # noqa: F811
) -> None:
    """T-17, T-25: no 500 and no INTERNAL, whatever the schema lets clients write."""
    tried = made_up(list(theirs.values()))
    answered, faults = 0, []
    async with client_of(settings.model_copy(update={"rate_limit": 10**9})) as http:
        caller = Caller(http, foreigner.workspace_id, foreigner.key)
        for text in tried:
            response = await caller.post(text)
            body = response.json()
            codes = [error["extensions"]["code"] for error in body.get("errors") or ()]
            answered += "data" in body
            if response.status_code >= 500 or "INTERNAL" in codes or "INTERNAL" in response.text:
                faults.append((text, response.text[:500]))
    assert faults == []
    # Most are executed, and not refused before.
    assert answered > len(tried) / 2, (answered, len(tried))
