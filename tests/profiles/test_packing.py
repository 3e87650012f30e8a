"""Columns packed into one parameter come out as they went in."""

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from db.transactions import transaction
from profiles.packing import SEPARATOR, pack, pack_numbers, seconds_of

TEXTS = st.lists(st.one_of(st.none(), st.text(alphabet=SEPARATOR + "ab é", max_size=4)), min_size=1, max_size=9)
SPLIT = """
SELECT array_agg(u.one), array_agg(u.other) FROM unnest($1::int[], string_to_array($3, $2, ''),
  string_to_array($4, $2, '')) AS u (place, one, other)
"""

INSTANTS = "SELECT array_agg(to_timestamp(u.at)) FROM unnest($1::text::float8[]) AS u (at)"
NUMBERS = "SELECT $1::text::int[]"
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@given(TEXTS)
def test_splitting_gives_every_text_back(texts: list[str | None]) -> None:
    separator, packed, other = pack(texts, ["x"] * len(texts))
    assert packed.split(separator) == [text or "" for text in texts]
    assert other.split(separator) == ["x"] * len(texts)


async def test_postgresql_splits_it_the_same_way(workspace: UUID) -> None:
    columns: list[tuple[list[str | None], list[str | None]]] = [
        (["a", None, "", "ü 😀", "'\"\\{},NULL"], [None] * 5),
        ([f"a{SEPARATOR}b", SEPARATOR, "c"], ["x", None, "z"]),
        ([None], ["x"]),
        ([None], [None]),
    ]
    async with transaction(workspace) as connection:
        for one, other in columns:
            places = list(range(len(one)))
            row = await connection.fetchrow(SPLIT, places, *pack(one, other))
            assert tuple(row) == ([text or None for text in one], other)


def test_nothing_is_packed_as_nothing() -> None:
    assert pack([]) == [SEPARATOR, ""]


async def test_times_come_out_to_the_microsecond(workspace: UUID) -> None:
    draw = Random(1)
    instants = [EARLIEST + timedelta(microseconds=draw.randrange(10**15 * 3)) for _ in range(5000)]
    async with transaction(workspace) as connection:
        found = await connection.fetchval(INSTANTS, pack_numbers(seconds_of(instants)))
        assert found == instants
        assert await connection.fetchval(NUMBERS, pack_numbers([2**31 - 1, 1, 2])) == [2**31 - 1, 1, 2]
        assert await connection.fetchval(NUMBERS, pack_numbers([])) == []
