"""Turns rows of a CSV file into checked patches and events, by a column mapping."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from hashlib import blake2b
from itertools import repeat
from typing import Generic, TypeVar
from zoneinfo import ZoneInfo

import orjson
from pyroaring import BitMap

from profiles.addresses import AddressHasher, Channel, clean_email
from profiles.csvfile import Chunk, Reject
from profiles.errors import ProfileError
from profiles.events import CONTEXT, clean_context, clean_message_id, clean_name, clean_time
from profiles.identities import clean_anonymous_id, clean_external_id
from profiles.loading import EventRow, ProfileRow
from profiles.mapping import Target, converter_of, parse_mapping
from profiles.patches import clean_city
from profiles.text import clean_country, clean_locale, clean_phone, clean_time_zone
from profiles.traits import MOST_BYTES

T = TypeVar("T")
Scalar = str | int | float | bool

NEEDED = frozenset({"external_id", "anonymous_id", "name", "occurred_at", "message_id"})
"""Targets whose cells must not be empty."""


@dataclass(frozen=True, slots=True)
class Cell(Generic[T]):
    """What becomes of one column's cells."""

    index: int
    column: str
    name: str
    convert: Callable[[str], T]
    needed: bool


@dataclass(slots=True)
class Checked(Generic[T]):
    """A chunk's rows with what was made of them, and those of which nothing was."""

    lines: list[int]
    rows: list[list[str]]
    items: list[T]
    rejects: list[Reject]


def cells_of(targets: Sequence[Target], converters: Mapping[str, Callable[[str], T]]) -> list[Cell[T]]:
    """The cells of those targets that stand by themselves and have a converter."""
    return [
        Cell(one.index, one.column, one.name, converters[one.name], one.name in NEEDED)
        for one in targets
        if not one.inside and one.name in converters
    ]


def cells_inside(targets: Sequence[Target]) -> list[Cell[Scalar]]:
    """The cells of those targets that go into the JSON object."""
    return [Cell(one.index, one.column, one.name, converter_of(one.type), False) for one in targets if one.inside]


class Columns:
    """The cells of a chunk, column by column.

    Each distinct text of a column is converted once. By column rather than by row, since a loop over the cells of
    every row alone took as long as everything else together.
    """

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._columns = list(zip(*chunk.rows, strict=True))
        self._refused: dict[int, str] = {}

    def read(self, cells: Sequence[Cell[T]]) -> dict[str, list[T | None]]:
        """The values by name, each as long as the chunk; None for an empty cell, and for one that is refused."""
        return {cell.name: self._read_column(cell) for cell in cells}

    def _read_column(self, cell: Cell[T]) -> list[T | None]:
        column = self._columns[cell.index]
        values: dict[str, T] = {}
        refused: dict[str, str] = {}
        for text in set(column):
            stripped = text.strip()
            if stripped or cell.needed:
                try:
                    values[text] = cell.convert(stripped)
                except ProfileError as refusal:
                    refused[text] = f"{cell.column}: {refusal.message}"
        if refused:
            for place, text in enumerate(column):
                if text in refused:
                    self._refused.setdefault(place, refused[text])
        return list(map(values.get, column))

    def read_json(self, cells: Sequence[Cell[Scalar]]) -> list[str]:
        """A JSON object of each row, as text; empty cells are left out. Too large ones are refused."""
        columns = self.read(cells)
        if not columns:
            return ["{}"] * len(self._chunk.rows)
        objects = list(map(dict, map(zip, repeat(tuple(columns)), zip(*columns.values(), strict=True))))
        for name, column in columns.items():
            if None in column:
                for place, value in enumerate(column):
                    if value is None:
                        del objects[place][name]
        texts = [orjson.dumps(one).decode() for one in objects]
        # A character takes at most 4 bytes.
        if max(map(len, texts), default=0) * 4 > MOST_BYTES:
            for place, text in enumerate(texts):
                if (size := len(text.encode())) > MOST_BYTES:
                    reason = f"The mapped columns have {size} bytes as JSON: at most {MOST_BYTES} can be kept."
                    self._refused.setdefault(place, reason)
        return texts

    def checked(self, items: list[T]) -> Checked[T]:
        """The rows and items that were not refused."""
        chunk = self._chunk
        if not self._refused:
            return Checked(chunk.lines, chunk.rows, items, list(chunk.rejects))
        good = [place for place in range(len(items)) if place not in self._refused]
        rejects = [Reject(chunk.lines[place], reason, chunk.rows[place]) for place, reason in self._refused.items()]
        return Checked(
            [chunk.lines[place] for place in good],
            [chunk.rows[place] for place in good],
            [items[place] for place in good],
            chunk.rejects + rejects,
        )


class ProfileRows:
    """Says what each row says of a person. An empty cell leaves what it maps to as it is."""

    def __init__(self, mapping: Mapping[str, str], header: Sequence[str], *, hasher: AddressHasher) -> None:
        """Raises ProfileError for a mapping that does not fit the header or names no external id."""
        converters: dict[str, Callable[[str], str]] = {
            "external_id": clean_external_id,
            "email": clean_email,
            "phone": clean_phone,
            "time_zone": clean_time_zone,
            "locale": clean_locale,
            "country": clean_country,
            "city": clean_city,
        }
        targets = parse_mapping(mapping, header, single=tuple(converters), prefix="traits.")
        self._texts = cells_of(targets, converters)
        self._traits = cells_inside(targets)
        self._hash = partial(hasher.hash, Channel.EMAIL)
        if not any(cell.name == "external_id" for cell in self._texts):
            raise ProfileError(
                "NO_IDENTITY", "Map one column to external_id: it says whose row it is.", field=("mapping",)
            )

    def convert(self, chunk: Chunk) -> Checked[ProfileRow]:
        """What the chunk's rows say."""
        columns = Columns(chunk)
        texts = columns.read(self._texts)
        traits = columns.read_json(self._traits)
        nothing: list[str | None] = [None] * len(chunk.rows)
        emails = texts.get("email", nothing)
        rows = zip(
            texts["external_id"],
            traits,
            emails,
            [email and self._hash(email) for email in emails],
            *(texts.get(column, nothing) for column in ProfileRow._fields[4:]),
            strict=True,
        )
        return columns.checked(list(map(ProfileRow._make, rows)))


class EventRows:
    """Makes an event of each row.

    Without a column for the message id, one is made of the row's content, and of how often that content came before
    in the same file: two equal rows are two events, and the same file again is no new one.
    """

    def __init__(
        self, mapping: Mapping[str, str], header: Sequence[str], *, name: str | None, time_zone: str, now: datetime
    ) -> None:
        """`name` is the name of every event when no column has it; `time_zone` is of times without an offset.

        Raises ProfileError for a mapping that does not fit the header, or lacks a person, a time or a name.
        """
        zone = clean_time_zone(time_zone, field=("time_zone",))
        texts: dict[str, Callable[[str], str]] = {
            "external_id": clean_external_id,
            "anonymous_id": clean_anonymous_id,
            "message_id": clean_message_id,
            "name": clean_name,
            "country": clean_country,
            **{column: partial(clean_context, column) for column in CONTEXT},
        }
        times = {"occurred_at": TimeCell(UTC if zone == "UTC" else ZoneInfo(zone), now)}
        targets = parse_mapping(mapping, header, single=(*texts, *times), prefix="properties.")
        self._texts = cells_of(targets, texts)
        self._times = cells_of(targets, times)
        self._properties = cells_inside(targets)
        self._name = None if name is None else clean_name(name)
        self._occurrences = Occurrences()
        mapped = {one.name for one in targets if not one.inside}
        self.anonymous = "anonymous_id" in mapped
        """Whether people are known by anonymous ids."""
        if len(mapped & {"external_id", "anonymous_id"}) != 1:
            raise ProfileError(
                "NO_IDENTITY", "Map one column to external_id or to anonymous_id, not both.", field=("mapping",)
            )
        if "occurred_at" not in mapped:
            raise ProfileError("NO_TIME", "Map one column to occurred_at: when it happened.", field=("mapping",))
        if ("name" in mapped) == (name is not None):
            raise ProfileError(
                "NO_NAME", "Map one column to name, or give one name for all events, not both.", field=("name",)
            )

    def convert(self, chunk: Chunk) -> Checked[EventRow]:
        """The chunk's events. Chunks must come in the order of the file."""
        columns = Columns(chunk)
        texts = columns.read(self._texts)
        times = columns.read(self._times)["occurred_at"]
        nothing: list[str | None] = [None] * len(chunk.rows)
        rows = zip(
            texts.get("message_id") or self._made_ids(chunk.rows),
            texts["anonymous_id" if self.anonymous else "external_id"],
            texts.get("name") or [self._name] * len(chunk.rows),
            times,
            columns.read_json(self._properties),
            *(texts.get(column, nothing) for column in EventRow._fields[5:]),
            strict=True,
        )
        return columns.checked(list(map(EventRow._make, rows)))

    def _made_ids(self, rows: Sequence[Sequence[str]]) -> list[str]:
        first = self._name or ""
        made = []
        for row in rows:
            digest = blake2b("\x1f".join((first, *row)).encode(), digest_size=16).digest()
            made.append(f"row-{digest.hex()}-{self._occurrences.count(int.from_bytes(digest[:4]))}")
        return made


class TimeCell:
    """Reads the time of an event; one without an offset is in `zone`."""

    def __init__(self, zone: tzinfo, now: datetime) -> None:
        self._zone, self._now = zone, now

    def __call__(self, text: str) -> datetime:
        """Raises ProfileError INVALID_TIME for what is not ISO 8601, TOO_OLD or IN_THE_FUTURE."""
        try:
            at = datetime.fromisoformat(text)
        except ValueError as e:
            raise ProfileError(
                "INVALID_TIME", f"{text[:50]!r} is no time: write it as 2026-01-31 or 2026-01-31T12:00:00Z."
            ) from e
        return clean_time(at if at.tzinfo is not None else at.replace(tzinfo=self._zone), now=self._now)


class Occurrences:
    """Counts how often a number below 2^32 came before, in about 2 bytes a number.

    One bitmap of those that came at all, one of those that came twice, and so on; a dict would take 100 bytes each.
    Two different rows may share a number: the second then counts as one more, which is as good, since their ids
    differ anyway and the same file gives the same count.
    """

    MOST_BITMAPS = 8

    def __init__(self) -> None:
        self._came: list[BitMap] = []
        self._often: dict[int, int] = {}

    def count(self, number: int) -> int:
        """How often `number` was asked for before."""
        for before, came in enumerate(self._came):
            if number not in came:
                came.add(number)
                return before
        if len(self._came) < self.MOST_BITMAPS:
            self._came.append(BitMap([number]))
            return len(self._came) - 1
        self._often[number] = self._often.get(number, self.MOST_BITMAPS - 1) + 1
        return self._often[number]
