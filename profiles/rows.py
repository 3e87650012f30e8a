"""Turns rows of a CSV file into checked patches and events, by a column mapping."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from hashlib import blake2b
from typing import Generic, Protocol, Self, TypeVar, cast
from zoneinfo import ZoneInfo

import orjson
from pyroaring import BitMap

from profiles.addresses import AddressHasher, Channel, clean_email
from profiles.csvfile import Chunk, Reject
from profiles.errors import ProfileError
from profiles.events import CONTEXT, clean_context, clean_message_id, clean_name, clean_time
from profiles.identities import clean_anonymous_id, clean_external_id
from profiles.loading import EventColumns, ProfileColumns
from profiles.mapping import Target, converter_of, parse_mapping
from profiles.patches import clean_city
from profiles.text import clean_country, clean_locale, clean_phone, clean_time_zone
from profiles.traits import MOST_BYTES

T = TypeVar("T")

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


class Takes(Protocol):
    """What was made of a chunk's rows, of which some can be taken out."""

    def take(self, places: Sequence[int]) -> Self: ...


C = TypeVar("C", bound=Takes)


@dataclass(slots=True)
class Checked(Generic[C]):
    """A chunk's good rows with what was made of them, and the others."""

    lines: list[int]
    rows: list[list[str]]
    columns: C
    rejects: list[Reject]


def cells_of(targets: Sequence[Target], converters: Mapping[str, Callable[[str], T]]) -> list[Cell[T]]:
    """The cells of those targets that stand by themselves and have a converter."""
    return [
        Cell(one.index, one.column, one.name, converters[one.name], one.name in NEEDED)
        for one in targets
        if not one.inside and one.name in converters
    ]


def cells_inside(targets: Sequence[Target]) -> list[Cell[str]]:
    """The cells of those targets that go into the JSON object, each as its member: "age":42."""
    return [Cell(one.index, one.column, one.name, Member(one), False) for one in targets if one.inside]


class Member:
    """Makes a member of a JSON object of a cell."""

    def __init__(self, target: Target) -> None:
        self._name = orjson.dumps(target.name).decode() + ":"
        self._convert = converter_of(target.type)

    def __call__(self, text: str) -> str:
        """Raises ProfileError INVALID_VALUE."""
        return self._name + orjson.dumps(self._convert(text)).decode()


class Reading:
    """Reads a chunk column by column, and remembers the rows it refuses.

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

    def read_needed(self, cell: Cell[T]) -> list[T]:
        """Like `read` for a cell that must not be empty; a None in it is of a refused row."""
        return cast(list[T], self._read_column(cell))

    def read_json(self, cells: Sequence[Cell[str]]) -> list[str]:
        """A JSON object of each row, as text; empty cells are left out. Too large ones are refused."""
        columns = list(self.read(cells).values())
        if not columns:
            return ["{}"] * len(self._chunk.rows)
        texts = ["{" + ",".join(filter(None, members)) + "}" for members in zip(*columns, strict=True)]
        # A character takes at most 4 bytes.
        if max(map(len, texts), default=0) * 4 > MOST_BYTES:
            for place, text in enumerate(texts):
                if (size := len(text.encode())) > MOST_BYTES:
                    reason = f"The mapped columns have {size} bytes as JSON: at most {MOST_BYTES} can be kept."
                    self._refused.setdefault(place, reason)
        return texts

    def checked(self, columns: C) -> Checked[C]:
        """What was not refused."""
        chunk = self._chunk
        if not self._refused:
            return Checked(chunk.lines, chunk.rows, columns, list(chunk.rejects))
        good = [place for place in range(len(chunk.rows)) if place not in self._refused]
        rejects = [Reject(chunk.lines[place], reason, chunk.rows[place]) for place, reason in self._refused.items()]
        return Checked(
            [chunk.lines[place] for place in good],
            [chunk.rows[place] for place in good],
            columns.take(good),
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
        cells = {cell.name: cell for cell in cells_of(targets, converters)}
        if "external_id" not in cells:
            raise ProfileError(
                "NO_IDENTITY", "Map one column to external_id: it says whose row it is.", field=("mapping",)
            )
        self._external_id = cells.pop("external_id")
        self._texts = list(cells.values())
        self._traits = cells_inside(targets)
        self._hash = partial(hasher.hash, Channel.EMAIL)

    def convert(self, chunk: Chunk) -> Checked[ProfileColumns]:
        """What the chunk's rows say."""
        reading = Reading(chunk)
        texts = reading.read(self._texts)
        emails = texts.get("email", [])
        return reading.checked(
            ProfileColumns(
                external_ids=reading.read_needed(self._external_id),
                traits=reading.read_json(self._traits),
                email_hashes=[self._hash(email) if email else None for email in emails],
                texts=texts,
            )
        )


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
        cells = {cell.name: cell for cell in cells_of(targets, texts)}
        if ("external_id" in cells) == ("anonymous_id" in cells):
            raise ProfileError(
                "NO_IDENTITY", "Map one column to external_id or to anonymous_id, not both.", field=("mapping",)
            )
        if not (time_cells := cells_of(targets, times)):
            raise ProfileError("NO_TIME", "Map one column to occurred_at: when it happened.", field=("mapping",))
        if ("name" in cells) == (name is not None):
            raise ProfileError(
                "NO_NAME", "Map one column to name, or give one name for all events, not both.", field=("name",)
            )
        self.anonymous = "anonymous_id" in cells
        """Whether people are known by anonymous ids."""
        self._person = cells.pop("anonymous_id" if self.anonymous else "external_id")
        self._message_id = cells.pop("message_id", None)
        self._time = time_cells[0]
        self._texts = list(cells.values())
        self._properties = cells_inside(targets)
        self._name = None if name is None else clean_name(name)
        self._occurrences = Occurrences()

    def convert(self, chunk: Chunk) -> Checked[EventColumns]:
        """The chunk's events. Chunks must come in the order of the file."""
        reading = Reading(chunk)
        texts = reading.read(self._texts)
        if self._name is not None:
            texts["name"] = [self._name] * len(chunk.rows)
        return reading.checked(
            EventColumns(
                message_ids=(reading.read_needed(self._message_id) if self._message_id else self._made_ids(chunk.rows)),
                people=reading.read_needed(self._person),
                times=reading.read_needed(self._time),
                properties=reading.read_json(self._properties),
                texts=texts,
            )
        )

    def _made_ids(self, rows: Sequence[Sequence[str]]) -> list[str]:
        name = f"{self._name or ''}\x1f"
        digests = [blake2b((name + "\x1f".join(row)).encode(), digest_size=12).digest() for row in rows]
        before = self._occurrences.count([int.from_bytes(digest[:4]) for digest in digests])
        at = self._time.index
        # The time comes first: entries that follow each other in a file then do so in the index of event_key.
        return [
            f"row-{row[at][:25]}-{digest.hex()}-{often}"
            for row, digest, often in zip(rows, digests, before, strict=True)
        ]


class TimeCell:
    """Reads the time of an event; one without an offset is in `zone`."""

    def __init__(self, zone: tzinfo, now: datetime) -> None:
        self._zone, self._now = zone, now
        self._surely = (now - timedelta(days=3650), now)

    def __call__(self, text: str) -> datetime:
        """In UTC; raises ProfileError INVALID_TIME for what is not ISO 8601, TOO_OLD or IN_THE_FUTURE."""
        try:
            at = datetime.fromisoformat(text)
        except ValueError as e:
            raise ProfileError(
                "INVALID_TIME", f"{text[:50]!r} is no time: write it as 2026-01-31 or 2026-01-31T12:00:00Z."
            ) from e
        if at.tzinfo is None:
            at = at.replace(tzinfo=self._zone)
        if at.tzinfo is UTC and self._surely[0] < at < self._surely[1]:
            return at
        return clean_time(at, now=self._now)


class Occurrences:
    """Counts how often numbers below 2^32 came before, in about 2 bytes a number.

    One bitmap of those that came at all, one of those that came twice, and so on; a dict would take 100 bytes each.
    Two different rows may share a number: the second then counts as one more, which is as good, since their ids
    differ anyway and the same file gives the same count.
    """

    MOST_BITMAPS = 8

    def __init__(self) -> None:
        self._came = [BitMap()]
        self._often: dict[int, int] = {}

    def count(self, numbers: Sequence[int]) -> list[int]:
        """How often each of `numbers` came before, in those calls and in this one."""
        new = BitMap(numbers)
        if len(new) == len(numbers) and new.isdisjoint(self._came[0]):
            self._came[0] |= new
            return [0] * len(numbers)
        return [self._count_one(number) for number in numbers]

    def _count_one(self, number: int) -> int:
        for before, came in enumerate(self._came):
            if number not in came:
                came.add(number)
                return before
        if len(self._came) < self.MOST_BITMAPS:
            self._came.append(BitMap([number]))
            return len(self._came) - 1
        self._often[number] = self._often.get(number, self.MOST_BITMAPS - 1) + 1
        return self._often[number]
