"""Turns rows of a CSV file into checked patches and events, by a column mapping."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Generic, TypeVar
from zoneinfo import ZoneInfo

from pyroaring import BitMap

from profiles.addresses import AddressHasher, Channel, clean_email
from profiles.errors import ProfileError
from profiles.events import CONTEXT, clean_context, clean_message_id, clean_name, clean_time
from profiles.identities import clean_anonymous_id, clean_external_id
from profiles.ingestion import CleanEvent
from profiles.mapping import Target, converter_of, parse_mapping
from profiles.patches import ColumnValue, Patch, clean_city
from profiles.text import clean_country, clean_locale, clean_phone, clean_time_zone
from profiles.traits import MOST_BYTES, JsonValue, TraitChanges, check_size

T = TypeVar("T")

NEEDED = frozenset({"external_id", "anonymous_id", "name", "occurred_at", "message_id"})
"""Targets whose cells must not be empty."""


@dataclass(frozen=True, slots=True)
class Cell(Generic[T]):
    """What becomes of one cell of each row."""

    index: int
    column: str
    name: str
    convert: Callable[[str], T]
    needed: bool


def cells_of(targets: Sequence[Target], converters: Mapping[str, Callable[[str], T]]) -> list[Cell[T]]:
    """The cells of those targets that stand by themselves and have a converter."""
    return [
        Cell(one.index, one.column, one.name, converters[one.name], one.name in NEEDED)
        for one in targets
        if not one.inside and one.name in converters
    ]


def cells_inside(targets: Sequence[Target]) -> list[Cell[str | int | float | bool]]:
    """The cells of those targets that go into the JSON object."""
    return [Cell(one.index, one.column, one.name, converter_of(one.type), False) for one in targets if one.inside]


def read(row: Sequence[str], cells: Sequence[Cell[T]]) -> dict[str, T]:
    """The values of a row by name; empty cells are left out. Raises ProfileError whose message names the column."""
    values: dict[str, T] = {}
    for cell in cells:
        text = row[cell.index].strip()
        if text or cell.needed:
            try:
                values[cell.name] = cell.convert(text)
            except ProfileError as refusal:
                # In the message, since a reject file has no field paths.
                raise ProfileError(refusal.code, f"{cell.column}: {refusal.message}", field=(cell.column,)) from refusal
    return values


def check_bytes(row: Sequence[str], value: Mapping[str, object]) -> None:
    """Raises ProfileError TOO_LARGE; measured only when it may be: JSON takes at most 6 bytes a character."""
    if sum(map(len, row)) * 6 > MOST_BYTES:
        check_size(value, field=())


class ProfileRows:
    """Makes a patch of each row. An empty cell leaves what it maps to as it is."""

    def __init__(self, mapping: Mapping[str, str], header: Sequence[str], *, hasher: AddressHasher) -> None:
        """Raises ProfileError for a mapping that does not fit the header or names no external id."""
        converters: dict[str, Callable[[str], str]] = {
            "external_id": clean_external_id,
            "email": clean_email,
            "phone": clean_phone,
            # A file has few of these: looked up once each.
            "time_zone": lru_cache(1000)(clean_time_zone),
            "locale": lru_cache(1000)(clean_locale),
            "country": lru_cache(1000)(clean_country),
            "city": clean_city,
        }
        targets = parse_mapping(mapping, header, single=tuple(converters), prefix="traits.")
        self._texts = cells_of(targets, converters)
        self._traits = cells_inside(targets)
        self._hasher = hasher
        if not any(cell.name == "external_id" for cell in self._texts):
            raise ProfileError(
                "NO_IDENTITY", "Map one column to external_id: it says whose row it is.", field=("mapping",)
            )

    def patch(self, row: Sequence[str]) -> Patch:
        """Raises ProfileError whose message names the column."""
        values: dict[str, ColumnValue] = {}
        texts = read(row, self._texts)
        external_id = texts.pop("external_id")
        values.update(texts)
        if "email" in texts:
            values["email_hash"] = self._hasher.hash(Channel.EMAIL, texts["email"])
        scalars = read(row, self._traits)
        traits: TraitChanges = {**scalars}
        check_bytes(row, traits)
        return Patch(external_id, values, traits)


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
            # A file has few of these: looked up once each.
            "name": lru_cache(1000)(clean_name),
            "country": lru_cache(1000)(clean_country),
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
        self._has_message_id = "message_id" in mapped
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

    def event(self, row: Sequence[str]) -> CleanEvent:
        """Raises ProfileError whose message names the column. Rows must come in the order of the file."""
        made_id = None if self._has_message_id else self._made_id(row)
        texts = read(row, self._texts)
        scalars = read(row, self._properties)
        properties: dict[str, JsonValue] = {**scalars}
        check_bytes(row, properties)
        text = texts.get
        return CleanEvent(
            made_id or texts["message_id"],
            text("external_id"),
            text("anonymous_id"),
            self._name or texts["name"],
            read(row, self._times)["occurred_at"],
            properties,
            text("page_path"),
            text("device_type"),
            text("browser"),
            text("country"),
            text("city"),
            text("session_id"),
        )

    def _made_id(self, row: Sequence[str]) -> str:
        content = "\x1f".join((self._name or "", *row))
        digest = blake2b(content.encode(), digest_size=16).digest()
        return f"row-{digest.hex()}-{self._occurrences.count(int.from_bytes(digest[:4]))}"


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
