"""People: reading them, and telling Muster about them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import strawberry
from strawberry import ID, Maybe

from app.api import ids, ordering, paging
from app.api.consents import Consent, Device
from app.api.declare import about, argument, input_type, looked_up, mutation, output, query, resolved
from app.api.ids import Kind
from app.api.nodes import Node
from app.api.ordering import OfBrand, ProfileOrder, brand_key, order_of, place_of
from app.api.paging import After, Connection, First
from app.api.payloads import Payload, converted, given
from app.api.scalars import Json
from app.api.workspaces import Brand
from app.auth import require
from app.context import Info
from app.problems import ApiError, UserError, user_error
from campaigns import erasing, merging
from db.errors import MusterError
from db.keysets import Listed, Place
from profiles import profiles
from profiles.keys import Scope
from profiles.profiles import Profile as ProfileRow
from profiles.profiles import ProfileInput, UpsertOutcome

if TYPE_CHECKING:
    from app.api.segments import Segment

MOST_PROFILES = 1000


@output
class ProfileMembership:
    """A segment that a profile is in now."""

    segment: Annotated["Segment", strawberry.lazy("app.api.segments")] = about("The segment.")
    entered_at: datetime = about("Since when.")


@output
class Profile(Node):
    """A person, or an anonymous visitor."""

    key: strawberry.Private[int]
    external_id: str | None = about("Your own id of the person; null for anonymous visitors.")
    email: str | None = about("Email address.")
    phone: str | None = about("Phone number.")
    traits: Json = about("What you know of the person: an object of texts, numbers, booleans and lists of texts.")
    time_zone: str | None = about("IANA name of the person's time zone.")
    locale: str | None = about("Language tag, such as pt-BR.")
    country: str | None = about("ISO 3166 alpha-2 code.")
    city: str | None = about("City.")
    identified: bool = about("Whether this is somebody you know by an id of yours.")
    first_seen_at: datetime | None = about("Time of the first event.")
    last_seen_at: datetime | None = about("Time of the latest event.")
    created_at: datetime = about("When the profile was made.")
    updated_at: datetime = about("When it was last changed.")

    @classmethod
    def of(cls, row: ProfileRow) -> "Profile":
        return cls(
            id=ids.encode(Kind.PROFILE, row.id),
            key=row.id,
            external_id=row.external_id,
            email=row.email,
            phone=row.phone,
            traits=Json(row.traits),
            time_zone=row.time_zone,
            locale=row.locale,
            country=row.country,
            city=row.city,
            identified=row.identified,
            first_seen_at=row.first_seen_at,
            last_seen_at=row.last_seen_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @looked_up
    async def brands(self, info: Info) -> list[Brand]:
        """The brands the person belongs to."""
        return [Brand.of(row) for row in await info.context.loaders.profile_brands.load(self.key) or ()]

    @resolved
    async def devices(
        self,
        info: Info,
        include_disabled: Annotated[
            bool, argument("Whether those that nothing is sent to any more follow, the last first.")
        ] = False,
    ) -> list[Device]:
        """Devices that push notifications can reach, oldest first."""
        require(info.context.caller, Scope.READ)
        loaders = info.context.loaders
        loader = loaders.all_devices if include_disabled else loaders.devices
        return [Device.of(row) for row in await loader.load(self.key) or []]

    @looked_up
    async def consents(self, info: Info) -> list[Consent]:
        """What the person said about channels and topics; where nothing was said, the workspace's default holds."""
        require(info.context.caller, Scope.READ)
        return [Consent.of(row) for row in await info.context.loaders.consents.load(self.key) or []]

    @looked_up
    async def memberships(self, info: Info) -> list[ProfileMembership]:
        """Segments the profile is in now; EVERYONE is not listed."""
        from app.api.segments import Segment

        require(info.context.caller, Scope.READ)
        entered = await info.context.loaders.memberships.load(self.key) or ()
        return [ProfileMembership(segment=Segment.of(one.segment), entered_at=one.entered_at) for one in entered]

    @looked_up
    async def segments(self, info: Info) -> list[Annotated["Segment", strawberry.lazy("app.api.segments")]]:
        """Segments the profile is in now; EVERYONE is not listed. `memberships` says since when."""
        from app.api.segments import Segment

        require(info.context.caller, Scope.READ)
        return [Segment.of(one.segment) for one in await info.context.loaders.memberships.load(self.key) or ()]


@input_type
class ProfileUpsertInput:
    """A person as you know them. What is left out stays as it is; null clears it."""

    external_id: str = about("Your own id of the person; a new one makes a new profile.")
    email: Maybe[str | None] = about("Email address.")
    phone: Maybe[str | None] = about("Phone number, best with + and the country code.")
    traits: Maybe[Json] = about("An object, merged key by key; null removes a trait.")
    time_zone: Maybe[str | None] = about("IANA name, such as Europe/Berlin.")
    locale: Maybe[str | None] = about("Language tag, such as pt-BR.")
    country: Maybe[str | None] = about("ISO 3166 alpha-2 code.")
    city: Maybe[str | None] = about("City.")
    brand_ids: Maybe[list[ID]] = about("The brands the person belongs to; replaces those of before.")


@input_type
class ProfilesUpsertInput:
    """Many people at once."""

    profiles: list[ProfileUpsertInput] = about(f"At most {MOST_PROFILES}.")


@output
class ProfilePayload(Payload):
    """The profile."""

    key: strawberry.Private[int | None] = None

    @resolved
    def profile_id(self) -> ID | None:
        """The profile's id; null when it was refused."""
        return None if self.key is None else ids.encode(Kind.PROFILE, self.key)

    @looked_up
    async def profile(self, info: Info) -> Profile | None:
        """The profile as it is now; null when it was refused. Needs a key that may read."""
        require(info.context.caller, Scope.READ)
        row = None if self.key is None else await info.context.loaders.profiles.load(self.key)
        return Profile.of(row) if row else None


@output
class ProfileUpsertPayload(ProfilePayload):
    """The profile."""

    created: bool = about("Whether it is new.", default=False)


@output
class ProfileUpsertOutcome:
    """What became of one person of a batch."""

    profile_id: ID | None = about("The profile's id; null when it was refused.", default=None)
    created: bool = about("Whether it is new.", default=False)
    error: UserError | None = about("Why it was refused; the others were written all the same.", default=None)


@output
class ProfilesUpsertPayload(Payload):
    """What became of each."""

    outcomes: list[ProfileUpsertOutcome] = about("One for each, in the order they came.", default_factory=list)


@input_type
class ProfileMergeInput:
    """Two profiles of one person."""

    loser_id: ID = about("The profile that is given up; its id leads to the other one from then on.")
    winner_id: ID = about("The profile that stays. Where both know something, what it says holds.")


@input_type
class ProfileEraseInput:
    """Whom to forget."""

    profile_id: ID = about("The profile; one that was merged into another means that one.")


@input_type
class ProfileIdentifyInput:
    """A visitor who turned out to be somebody you know."""

    anonymous_id: str = about("The id your app made up for the visitor.")
    external_id: str = about("Your own id of the person; a new one makes a new profile.")


@output
class ProfileMergePayload(ProfilePayload):
    """The person's one profile."""

    merged: bool = about("Whether two profiles became one; false when they were one already.", default=False)


@output
class ProfileErasePayload(Payload):
    """Who was forgotten."""

    erased_id: ID | None = about("Id of the profile, of which nothing else is left.", default=None)
    erased_at: datetime | None = about("When it was erased; earlier than now when it had been before.", default=None)


@output
class ProfileIdentifyPayload(ProfilePayload):
    """The person's one profile."""

    merged: bool = about("Whether two profiles became one; else the visitor had none of its own.", default=False)


def to_input(wanted: ProfileUpsertInput) -> ProfileInput:
    """The use case's input; raises ApiError for a brand id of another kind."""
    traits: object = wanted.traits.value if wanted.traits is not None else {}
    return ProfileInput(
        external_id=wanted.external_id,
        email=given(wanted.email),
        phone=given(wanted.phone),
        traits=traits if isinstance(traits, dict) else not_an_object(),
        time_zone=given(wanted.time_zone),
        locale=given(wanted.locale),
        country=given(wanted.country),
        city=given(wanted.city),
        brand_ids=converted(wanted.brand_ids, brand_keys),
    )


def not_an_object() -> dict[str, object]:
    raise ApiError("NOT_AN_OBJECT", "Traits are an object of names and values.", field=("traits",))


def brand_keys(texts: list[ID]) -> list[UUID]:
    """The brands that `texts` name."""
    return [ids.decode_uuid(Kind.BRAND, text, field="brand_ids") for text in texts]


async def living_profile(info: Info, key: int) -> Profile | None:
    """The profile, or the one it was merged into; None when it was erased, or there is none."""
    for _ in range(profiles.MOST_MERGES):
        row = await info.context.loaders.profiles.load(key)
        if row is None or row.erased_at is not None:
            return None
        if row.merged_into is None:
            return Profile.of(row)
        key = row.merged_into
    return None


@output
class ProfileQueries:
    @query(needs=Scope.READ)
    async def profile(
        self,
        info: Info,
        id: ID | None = None,
        external_id: Annotated[str | None, argument("Your own id of the person, instead of `id`.")] = None,
    ) -> Profile | None:
        """One profile, by its id or by yours; null when there is none."""
        if (id is None) == (external_id is None):
            raise ApiError("ONE_IDENTITY", "Give either `id` or `externalId`.", field=("id",))
        if id is not None:
            return await living_profile(info, ids.profile_id(id))
        row = await profiles.find_by_external_id(info.context.workspace_id, external_id or "")
        return Profile.of(row) if row else None

    @query(needs=Scope.READ)
    async def profiles(
        self,
        info: Info,
        first: First = paging.DEFAULT_PAGE,
        after: After = None,
        search: Annotated[str | None, argument("A whole external id or a whole email address.")] = None,
        brand_id: OfBrand = None,
        order_by: Annotated[ProfileOrder | None, argument("In which order; null: the oldest first.")] = None,
    ) -> Connection[Profile]:
        """People and visitors, the oldest first unless another order is asked for. Who has which traits or did what is
        for segments to say."""
        order = order_of(order_by, otherwise=profiles.OLDEST_FIRST)
        place = place_of(after, order, profiles.KEYS)
        rows = await profiles.page(
            info.context.workspace_id,
            after=None if place is None else int(place.key),
            limit=paging.page_size(first) + 1,
            order=order,
            search=search,
            brand_id=brand_key(brand_id),
            hasher=info.context.resources.hasher,
        )
        listed = [Listed(row, Place(str(row.id), UUID(int=row.id))) for row in rows]
        return ordering.connection(listed, first=first, after=after, order=order, node=Profile.of)


@output
class ProfileMutations:
    @mutation(needs=Scope.INGEST)
    async def profile_upsert(self, info: Info, input: ProfileUpsertInput) -> ProfileUpsertPayload:
        """Make a person known, or change what is known of them."""
        outcome = (await upsert(info, [to_input(input)]))[0]
        if outcome.error is not None:
            raise outcome.error
        return ProfileUpsertPayload(key=outcome.profile_id, created=outcome.created)

    @mutation(needs=Scope.INGEST)
    async def profiles_upsert(self, info: Info, input: ProfilesUpsertInput) -> ProfilesUpsertPayload:
        """Make up to 1,000 people known; one that is refused does not hold up the others."""
        inputs = [input_or_refusal(one) for one in input.profiles]
        written = iter(await upsert(info, [one for one in inputs if isinstance(one, ProfileInput)]))
        return ProfilesUpsertPayload(
            outcomes=[
                refused(one, place) if isinstance(one, MusterError) else outcome_of(next(written), place)
                for place, one in enumerate(inputs)
            ]
        )

    @mutation(needs=Scope.INGEST)
    async def profile_merge(self, info: Info, input: ProfileMergeInput) -> ProfileMergePayload:
        """Make one profile of two. Events, devices, consents and brands of the loser become the winner's; a person who
        unsubscribed as either stays unsubscribed. It cannot be undone."""
        done = await merging.merge(
            info.context.workspace_id,
            loser_id=ids.profile_id(input.loser_id, field="loser_id"),
            winner_id=ids.profile_id(input.winner_id, field="winner_id"),
            now=info.context.now,
        )
        return ProfileMergePayload(key=done.profile_id, merged=done.merged)

    @mutation(needs=Scope.ADMIN)
    async def profile_erase(self, info: Info, input: ProfileEraseInput) -> ProfileErasePayload:
        """Forget a person: traits, addresses, events, devices, consents and what mail servers said of them. The address
        stays suppressed, by its hash; what still comes in under their external id is refused. It cannot be undone."""
        done = await erasing.erase(
            info.context.workspace_id, ids.profile_id(input.profile_id, field="profile_id"), now=info.context.now
        )
        return ProfileErasePayload(erased_id=ids.encode(Kind.PROFILE, done.profile_id), erased_at=done.erased_at)

    @mutation(needs=Scope.INGEST)
    async def profile_identify(self, info: Info, input: ProfileIdentifyInput) -> ProfileIdentifyPayload:
        """Say who a visitor is, as when somebody signs in. What the visitor did is the person's from then on; doing it
        again changes nothing."""
        done = await merging.identify(
            info.context.workspace_id,
            anonymous_id=input.anonymous_id,
            external_id=input.external_id,
            now=info.context.now,
        )
        return ProfileIdentifyPayload(key=done.profile_id, merged=done.merged)


async def upsert(info: Info, wanted: list[ProfileInput]) -> list[UpsertOutcome]:
    """What became of each input."""
    return await profiles.upsert(
        info.context.workspace_id, wanted, hasher=info.context.resources.hasher, now=info.context.now
    )


def input_or_refusal(wanted: ProfileUpsertInput) -> ProfileInput | MusterError:
    """Like `to_input`, but the refusal is the answer: one bad item does not spoil its batch."""
    try:
        return to_input(wanted)
    except MusterError as refusal:
        return refusal


def outcome_of(outcome: UpsertOutcome, place: int) -> ProfileUpsertOutcome:
    """What became of the item at `place`."""
    if outcome.error is not None:
        return refused(outcome.error, place)
    assert outcome.profile_id is not None
    return ProfileUpsertOutcome(profile_id=ids.encode(Kind.PROFILE, outcome.profile_id), created=outcome.created)


def refused(refusal: MusterError, place: int) -> ProfileUpsertOutcome:
    return ProfileUpsertOutcome(error=user_error(refusal, "input", "profiles", str(place)))
