"""Members: listed now or as of an instant, followed as they change, and asked about one by one for experiments."""

import struct
from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry import ID

from app.api import ids, paging
from app.api.declare import about, argument, looked_up, output, query, resolved
from app.api.enums import ChangeKind, MemberOrder
from app.api.ids import Kind
from app.api.paging import After, Connection, First, PageInfo
from app.api.profiles import Profile
from app.auth import require
from app.context import Info
from profiles.keys import Scope
from segments import changes, members
from segments.changes import Cursor, MemberChange
from segments.members import MOST_PEOPLE, MOST_SEGMENTS, Place


@output
class SegmentMemberEdge:
    """A member, since when, and at which rank."""

    node: Profile = about("The profile.")
    cursor: str = about("Where this member stands.")
    entered_at: datetime = about("Since when the profile has been a member; of EVERYONE, when it was made.")
    rank: int | None = about("The place from 1, in rank order; null in another order.")
    rank_value: float | None = about("What the segment ranks by; null when there is none, or it is not ranked.")


@output
class SegmentMemberConnection:
    """A page of members."""

    edges: list[SegmentMemberEdge] = about("The members, in the order asked for.")
    page_info: PageInfo = about("Whether there is more.")


@output
class SegmentMemberChange:
    """Somebody entered a segment, exited from it, or was re-ranked in it."""

    key: strawberry.Private[int]
    kind: ChangeKind = about("What happened.")
    at: datetime = about("When.")
    reason: str = about("Why: evaluation, pulse, added, removed, imported, merged, erased ...")
    profile_id: ID = about("Whom it happened to.")
    rank_value: float | None = about(
        "What the segment ranks the profile by now; null for who exited, and where there is none."
    )

    @classmethod
    def of(cls, row: MemberChange) -> "SegmentMemberChange":
        return cls(
            key=row.profile_id,
            kind=row.kind,
            at=row.at,
            reason=row.reason,
            profile_id=ids.encode(Kind.PROFILE, row.profile_id),
            rank_value=row.rank_value,
        )

    @looked_up
    async def profile(self, info: Info) -> Profile | None:
        """The profile; null when it was erased meanwhile."""
        require(info.context.caller, Scope.READ)
        row = await info.context.loaders.profiles.load(self.key)
        return Profile.of(row) if row and row.erased_at is None else None


@output
class PersonCheck:
    """Whether one person is in the segment asked about."""

    external_id: str = about("Your own id of the person, as it was asked.")
    member: bool = about("Whether the person is in; false for people who are unknown.")


@output
class SegmentCheck:
    """Whether the person asked about is in one segment."""

    segment_id: ID = about("The segment, as it was asked.")
    member: bool = about("Whether the person is in.")


@output
class MemberReads:
    """What a segment tells of its members."""

    key: strawberry.Private[UUID]

    @resolved
    async def members(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        order_by: Annotated[MemberOrder, argument("ID, or RANK for a segment with a ranking.")] = MemberOrder.ID,
        as_of: Annotated[
            datetime | None, argument("Who was in at this instant, which is over, instead of now; ordered by ID only.")
        ] = None,
    ) -> SegmentMemberConnection:
        """Who is in it. EVERYONE lists all who live now, also as of an earlier instant, when they existed by then."""
        require(info.context.caller, Scope.READ)
        rows = await members.page(
            info.context.workspace_id,
            self.key,
            after=None if after is None else read_place(after, order_by),
            limit=paging.page_size(first) + 1,
            order=order_by,
            as_of=as_of,
        )
        shown = rows[:first]
        people = await info.context.loaders.profiles.load_many([row.profile_id for row in shown])
        cursors = [place_cursor(row.place, order_by) for row in shown]
        edges = [
            SegmentMemberEdge(
                node=Profile.of(one),
                cursor=cursor,
                entered_at=row.entered_at,
                rank=row.rank,
                rank_value=row.rank_value,
            )
            for row, one, cursor in zip(shown, people, cursors, strict=True)
            if one is not None
        ]
        return SegmentMemberConnection(
            edges=edges, page_info=paging.page_info(rows, first=first, after=after, cursors=cursors)
        )

    @resolved
    async def changes(
        self, info: Info, first: First = paging.DEFAULT_PAGE, after: After = None
    ) -> Connection[SegmentMemberChange]:
        """Who entered, exited and was re-ranked, oldest first, each change once; kept 30 days.

        An empty page means nothing new yet: ask again with the same cursor. CURSOR_TOO_OLD: too much was forgotten
        since; take `changesEnd`, read the members anew, and go on from there. EVERYONE has no feed.
        """
        require(info.context.caller, Scope.READ)
        rows = await changes.page(
            info.context.workspace_id,
            self.key,
            after=None if after is None else read_change(after),
            limit=paging.page_size(first) + 1,
        )
        edges = [
            paging.Edge(node=SegmentMemberChange.of(row), cursor=change_cursor(row.cursor)) for row in rows[:first]
        ]
        info_ = paging.page_info(rows, first=first, after=after, cursors=[edge.cursor for edge in edges])
        return Connection(edges=edges, page_info=info_)

    @resolved
    async def changes_end(self, info: Info) -> str | None:
        """Cursor of the newest change; null when there was none, which is the beginning of the feed.

        Take it, then read the members, then follow `changes` from it: nothing is missed in between.
        """
        require(info.context.caller, Scope.READ)
        found = await changes.end(info.context.workspace_id, self.key)
        return None if found is None else change_cursor(found)


@output
class MemberQueries:
    @query(needs=Scope.READ)
    async def is_member(
        self,
        info: Info,
        segment_id: Annotated[ID, argument("The segment.")],
        external_id: Annotated[str, argument("Your own id of the person.")],
    ) -> bool:
        """Whether a person is in a segment now: for experiments and feature flags. Unknown people are in none."""
        key = ids.segment_id(segment_id, field="segment_id")
        return await members.is_member(info.context.workspace_id, key, external_id=external_id)

    @query(needs=Scope.READ)
    async def are_members(
        self,
        info: Info,
        segment_id: Annotated[ID, argument("The segment.")],
        external_ids: Annotated[list[str], argument(f"Your own ids of at most {MOST_PEOPLE} people.")],
    ) -> list[PersonCheck]:
        """Whether each of these people is in a segment now, in the order asked."""
        key = ids.segment_id(segment_id, field="segment_id")
        found = await members.are_members(info.context.workspace_id, key, external_ids=external_ids)
        return [PersonCheck(external_id=one, member=found[one]) for one in external_ids]

    @query(needs=Scope.READ)
    async def member_of(
        self,
        info: Info,
        external_id: Annotated[str, argument("Your own id of the person.")],
        segment_ids: Annotated[list[ID], argument(f"At most {MOST_SEGMENTS} segments.")],
    ) -> list[SegmentCheck]:
        """In which of these segments a person is now, in the order asked: every flag of a page at once."""
        keys = [ids.segment_id(one, field="segment_ids") for one in segment_ids]
        found = await members.member_of(info.context.workspace_id, external_id, segment_ids=keys)
        return [SegmentCheck(segment_id=id, member=found[key]) for id, key in zip(segment_ids, keys, strict=True)]


# --- cursors ------------------------------------------------------------------------------------------------------


def change_cursor(place: Cursor) -> str:
    return paging.cursor(place.id, place.kind, place.profile_id)


def read_change(after: str) -> Cursor:
    """The place of a cursor of `change_cursor`; raises ApiError INVALID_CURSOR."""
    id, kind, profile_id = paging.after_ints(after, 3)
    return Cursor(id, possible(kind, len(ChangeKind) - 1), possible(profile_id, ids.LARGEST_PROFILE_ID))


def place_cursor(place: Place, order: MemberOrder) -> str:
    """A cursor of `place`: the profile, and in rank order its rank and the bits of what it is ranked by."""
    if order is MemberOrder.ID or place.order_value is None:
        return paging.cursor(place.profile_id)
    return paging.cursor(place.profile_id, place.rank, *struct.unpack(">II", struct.pack(">d", place.order_value)))


def read_place(after: str, order: MemberOrder) -> Place:
    """The place of a cursor of `place_cursor`; raises ApiError INVALID_CURSOR."""
    if order is MemberOrder.ID:
        (profile_id,) = paging.after_ints(after, 1)
        return Place(possible(profile_id, ids.LARGEST_PROFILE_ID))
    profile_id, rank, high, low = paging.after_ints(after, 4)
    possible(max(high, low), 2**32 - 1)
    (order_value,) = struct.unpack(">d", struct.pack(">II", high, low))
    return Place(possible(profile_id, ids.LARGEST_PROFILE_ID), order_value, rank)


def possible(number: int, largest: int) -> int:
    """`number` itself; raises ApiError INVALID_CURSOR when it is larger than any of its kind."""
    if number > largest:
        raise paging.bad_cursor()
    return number
