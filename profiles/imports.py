"""Takes in whole CSV files of people and of events, at more than 20,000 rows a second.

A file is read in chunks of 20,000 rows, each its own transaction: nothing is half written within a chunk, and after a
failure the same file can simply be imported again, since what is in already is found there.
"""

import asyncio
import csv
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar
from uuid import UUID

from db.transactions import transaction
from profiles.addresses import AddressHasher
from profiles.contention import retried
from profiles.csvfile import Reject, open_csv
from profiles.errors import ProfileErased, ProfileError
from profiles.ingestion import ensure_months, months_made
from profiles.loading import EventColumns, Loaded, LoadedEvents, ProfileColumns, load_events, load_profiles
from profiles.rows import C, Checked, EventRows, ProfileRows

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 2
"""Chunks of events that are written at a time: 1.4 times as many rows a second as one, on two processors."""

CHUNK_ROWS = 20_000
"""A second of work: measured with 200,000 rows, larger chunks are not faster, and progress shows."""

Progress = Callable[[int, int, int], None]
"""Called after each chunk with the rows done so far, and how many of them were accepted and rejected."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file's rows; the other four add up to `rows`.

    `created` are new profiles or events, `updated` profiles that changed. `repeated` rows said nothing new: an event
    with a known message id, a person who is just like that, a second row of one person.
    """

    rows: int
    created: int
    updated: int
    repeated: int
    rejected: int


async def import_profiles(
    workspace_id: UUID,
    source: Path | BinaryIO,
    mapping: Mapping[str, str],
    *,
    hasher: AddressHasher,
    now: datetime,
    progress: Progress = lambda rows, accepted, rejected: None,
    rejects: Path | None = None,
    delimiter: str = ",",
    chunk_rows: int = CHUNK_ROWS,
) -> ImportReport:
    """Upsert a person for each row of a CSV file.

    `mapping` says which column becomes what: external_id (needed), email, phone, time_zone, locale, country, city,
    or traits.<key>, with :number, :boolean or :text after it (text when left out). An empty cell changes nothing.
    Rows that cannot be taken are written to the file `rejects` with their line and the reason; it is made only then,
    and an older one is removed first. Raises ProfileError when the file or the mapping as a whole makes no sense.
    """
    with ExitStack() as open_files:
        file = open_files.enter_context(open_csv(source, delimiter=delimiter))
        rows = ProfileRows(mapping, file.header, hasher=hasher)
        tally = Tally(progress, open_files.enter_context(reject_file(rejects, source, file.header)))
        async with aclosing(read_ahead(map(rows.convert, file.chunks(chunk_rows)))) as chunks:
            async for checked in chunks:
                loaded = await write_profiles(workspace_id, checked.columns, now)
                taken = reject(checked, checked.columns.external_ids, loaded.refused)
                tally.add(taken, created=loaded.created, updated=loaded.updated, rejects=checked.rejects)
        return tally.report()


def reject(checked: Checked[C], people: Sequence[str], refused: Mapping[str, ProfileError]) -> int:
    """How many rows were taken: those of refused people are added to the chunk's rejects."""
    if not refused:
        return len(checked.lines)
    rejects = [
        Reject(line, refused[person].message, row)
        for line, row, person in zip(checked.lines, checked.rows, people, strict=True)
        if person in refused
    ]
    checked.rejects += rejects
    return len(checked.lines) - len(rejects)


async def write_profiles(workspace_id: UUID, columns: ProfileColumns, now: datetime) -> Loaded:
    """What became of a chunk, in one transaction."""

    async def once() -> Loaded:
        async with transaction(workspace_id) as connection:
            return await load_profiles(connection, workspace_id=workspace_id, columns=columns, now=now)

    return await retried(once)


async def import_events(
    workspace_id: UUID,
    source: Path | BinaryIO,
    mapping: Mapping[str, str],
    *,
    now: datetime,
    name: str | None = None,
    time_zone: str = "UTC",
    progress: Progress = lambda rows, accepted, rejected: None,
    rejects: Path | None = None,
    delimiter: str = ",",
    chunk_rows: int = CHUNK_ROWS,
) -> ImportReport:
    """Write an event for each row of a CSV file; the same file again adds nothing, for 35 days.

    `mapping` says which column becomes what: external_id or anonymous_id (one is needed), occurred_at (needed; ISO
    8601, in `time_zone` where it has no offset), name (or `name` for all), message_id, page_path, device_type,
    browser, country, city, session_id, or properties.<key>, with :number, :boolean or :text after it. Without a
    message_id column, ids are made of the rows' content. Otherwise like `import_profiles`.
    """
    with ExitStack() as open_files:
        file = open_files.enter_context(open_csv(source, delimiter=delimiter))
        rows = EventRows(mapping, file.header, name=name, time_zone=time_zone, now=now)
        tally = Tally(progress, open_files.enter_context(reject_file(rejects, source, file.header)))

        async def write(checked: Checked[EventColumns]) -> LoadedEvents:
            return await write_events(workspace_id, checked.columns, rows.anonymous, now)

        async with (
            aclosing(read_ahead(map(rows.convert, file.chunks(chunk_rows)))) as chunks,
            aclosing(side_by_side(chunks, write)) as written,
        ):
            async for checked, loaded in written:
                refused = dict.fromkeys(loaded.erased, ProfileErased())
                taken = reject(checked, checked.columns.people, refused)
                tally.add(taken, created=loaded.created, updated=0, rejects=checked.rejects)
        return tally.report()


async def write_events(workspace_id: UUID, columns: EventColumns, anonymous: bool, now: datetime) -> LoadedEvents:
    """What became of a chunk, in one transaction, after making its months."""

    async def once() -> LoadedEvents:
        await ensure_months(columns.times)
        with months_made():
            async with transaction(workspace_id) as connection:
                return await load_events(
                    connection, workspace_id=workspace_id, columns=columns, anonymous=anonymous, now=now
                )

    return await retried(once)


async def side_by_side(
    chunks: AsyncIterator[T], work: Callable[[T], Coroutine[None, None, R]]
) -> AsyncGenerator[tuple[T, R], None]:
    """Each chunk with what `work` makes of it, in their order; two are worked on at a time.

    Most of the work is PostgreSQL's, which has a process for each. Close it (aclosing): it ends what it began.
    """
    begun: deque[tuple[T, asyncio.Task[R]]] = deque()
    try:
        async for chunk in chunks:
            begun.append((chunk, asyncio.create_task(work(chunk))))
            if len(begun) == AT_ONCE:
                yield begun[0][0], await begun[0][1]
                begun.popleft()
        while begun:
            yield begun[0][0], await begun[0][1]
            begun.popleft()
    finally:
        tasks = [task for _, task in begun]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_ahead(pieces: Iterator[T]) -> AsyncGenerator[T, None]:
    """The same pieces; the next one is made in a thread while the caller works with this one.

    Parsing and the database then each have a processor: 1.7 times as many rows a second. Close it (aclosing): it
    waits for its thread, so that nobody closes the file under it.
    """
    ahead = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
    try:
        while (piece := await ahead) is not None:
            ahead = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
            yield piece
    finally:
        await asyncio.wait([ahead])


class RejectFile:
    """A CSV file of the rows that were not taken: line, reason, then the row as it was. Made at the first of them."""

    def __init__(self, path: Path, header: list[str]) -> None:
        self.path, self.header = path, header
        self.file: TextIO | None = None

    def write(self, rejects: Iterable[Reject]) -> None:
        """Append these rows, by line."""
        for reject in sorted(rejects):
            if self.file is None:
                # The bytes that were no UTF-8 come out as they went in.
                self.file = self.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
                csv.writer(self.file).writerow(["line", "reason", *self.header])
            csv.writer(self.file).writerow([reject.line, reject.reason, *reject.cells])
        if self.file is not None:
            self.file.flush()


@contextmanager
def reject_file(path: Path | None, source: Path | BinaryIO, header: list[str]) -> Iterator[RejectFile | None]:
    """The reject file at `path`, closed at the end; what a former import left there is removed.

    Raises ProfileError REJECTS_NOT_WRITABLE.
    """
    if path is None:
        yield None
        return
    field = ("rejects",)
    if isinstance(source, Path) and path.resolve() == source.resolve():
        raise ProfileError("REJECTS_NOT_WRITABLE", "Rejected rows cannot go to the imported file.", field=field)
    try:
        # Tried now, not at the first reject a million rows later.
        path.open("w").close()
        path.unlink()
    except OSError as e:
        raise ProfileError("REJECTS_NOT_WRITABLE", f"Cannot write {path}: {e.strerror}.", field=field) from e
    rejects = RejectFile(path, header)
    try:
        yield rejects
    finally:
        if rejects.file is not None:
            rejects.file.close()


class Tally:
    """Counts what became of the chunks that are committed."""

    def __init__(self, progress: Progress, rejects: RejectFile | None) -> None:
        self.progress, self.rejects = progress, rejects
        self.taken = self.created = self.updated = self.rejected = 0

    def add(self, taken: int, *, created: int, updated: int, rejects: list[Reject]) -> None:
        """A chunk of `taken` rows and those in `rejects`."""
        self.taken += taken
        self.created += created
        self.updated += updated
        self.rejected += len(rejects)
        if self.rejects is not None:
            self.rejects.write(rejects)
        self.progress(self.taken + self.rejected, self.taken, self.rejected)

    def report(self) -> ImportReport:
        return ImportReport(
            rows=self.taken + self.rejected,
            created=self.created,
            updated=self.updated,
            repeated=self.taken - self.created - self.updated,
            rejected=self.rejected,
        )
