"""Help for those who build segments: how many, why, how much in common, and what there is to choose from."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from strawberry import ID

from app.api import ids
from app.api.conditions import SegmentConditionInput, SimpleConditionsInput
from app.api.declare import about, argument, input_type, output, query
from app.api.definitions import names_of, to_condition
from app.api.enums import AttributeName, Channel, ValueType
from app.api.ids import Kind
from app.api.profiles import Profile
from app.api.scalars import Json
from app.api.segments import Segment
from app.context import Info
from app.problems import ApiError
from profiles import profiles, reach
from profiles.errors import ProfileNotFound
from profiles.keys import Scope
from segments import catalogue, conditions, estimate, explain, overlap
from segments.catalogue import Described, SeenValue


@input_type
class SegmentEstimateInput:
    """Conditions to count; exactly one of `definition` and `conditions`."""

    definition: SegmentConditionInput | None = about("A tree of conditions.", default=None)
    conditions: SimpleConditionsInput | None = about("Conditions side by side.", default=None)
    brand_id: ID | None = about("Count people of this brand; left out: of all.", default=None)
    topic: str = about("What they would be written to about, for consent.", default=reach.DEFAULT_TOPIC)


@output
class SegmentNodeCount:
    """A condition within the tree, and how many meet it."""

    path: list[str] = about("Where it stands: keys and places from the root, as in the definition.")
    summary: str = about("The condition as one sentence.")
    size: int = about("How many people meet it, of those who are asked about.")


@output
class ChannelReach:
    """How many can be written to by a channel."""

    channel: Channel = about("The channel.")
    people: int = about(
        "Those with an address (an email address; a device that is not disabled) that is not suppressed, who did not "
        "say no to the topic or, where silence is no, said yes."
    )


@output
class SegmentEstimate:
    """What conditions would find now. Nothing was written."""

    size: int = about("How many people meet them.")
    nodes: list[SegmentNodeCount] = about("Every condition of the tree, parents before their children: the funnel.")
    reachable: list[ChannelReach] = about("How many of them could be sent marketing, channel by channel.")
    evaluated_at: datetime = about("The instant that windows of time ended at.")


@output
class SegmentExplanationNode:
    """A condition within the tree, for one person."""

    path: list[str] = about("Where it stands: keys and places from the root, as in the definition.")
    summary: str = about("The condition as one sentence.")
    matches: bool = about("Whether the person meets it.")
    value: Json | None = about(
        "What it looked at: a trait's value, a count, an instant; null for a group, and for what is not there."
    )


@output
class SegmentExplanation:
    """Why a person is in a segment, or is not."""

    segment: Segment = about("The segment.")
    profile: Profile = about("The person: of a merged profile the one it was merged into.")
    is_member: bool = about("Whether the person is a member now.")
    entered_at: datetime | None = about("Since when; null for those who are not, and in EVERYONE.")
    would_match: bool | None = about(
        "Whether the conditions hold now and the person is of the segment's brand; null where there are no conditions."
    )
    reason: str = about("Why, in a sentence or two.")
    nodes: list[SegmentExplanationNode] = about("Every condition of the tree, parents before their children.")
    evaluated_at: datetime = about("The instant that windows of time ended at.")


@output
class SegmentOverlapSize:
    """A segment and its size."""

    segment: Segment = about("The segment.")
    size: int = about("How many are in it.")


@output
class SegmentOverlapPair:
    """Two segments and what they have in common."""

    first: Segment = about("One segment.")
    second: Segment = about("Another one.")
    size: int = about("How many are in both.")
    share_of_first: float = about("The share of the first that is in the second too, 0 to 1.")
    share_of_second: float = about("The share of the second that is in the first too, 0 to 1.")


@output
class SegmentOverlap:
    """What segments have in common now."""

    segments: list[SegmentOverlapSize] = about("The segments, in the order asked.")
    pairs: list[SegmentOverlapPair] = about("Each two of them.")
    in_all: int = about("How many are in all of them.")
    in_any: int = about("How many are in at least one.")


@output
class FieldValue:
    """A value and how often it was seen."""

    value: Json | None = about("The value; of a list, one of its items.")
    seen: int = about("How many of the sample have it.")

    @classmethod
    def of(cls, seen: SeenValue) -> "FieldValue":
        return cls(value=Json(seen.value), seen=seen.seen)


@output
class FieldTypeShare:
    """How many of the values are of a type."""

    type: ValueType = about("The type.")
    share: float = about("The share of the values that are of it, 0 to 1.")


@output
class FieldDescription:
    """A trait or a property, as a sample shows it."""

    name: str = about("Its name.")
    seen: int = about("How many of the sample have it.")
    types: list[FieldTypeShare] = about("Of which types its values are, the most frequent first.")
    values: list[FieldValue] = about("Its most frequent plain values, at most 10.")
    example: Json | None = about("One value; null when there is none to show.")
    values_left_out: bool = about(
        "Whether values were left out because they look like email addresses or phone numbers."
    )

    @classmethod
    def of(cls, one: Described) -> "FieldDescription":
        return cls(
            name=one.name,
            seen=one.seen,
            types=[FieldTypeShare(type=type, share=seen / one.seen) for type, seen in one.types.items()],
            values=[FieldValue.of(value) for value in one.values],
            example=Json(one.values[0].value) if one.values else None,
            values_left_out=one.left_out,
        )


@output
class AttributeDescription:
    """What is known of people beside their traits, as a sample shows it."""

    attribute: AttributeName = about("Which attribute.")
    seen: int = about("How many of the sample have it.")
    values: list[FieldValue] = about("Its most frequent values, at most 10; none of addresses and external ids.")


@output
class EventDescription:
    """Events of one name."""

    name: str = about("The name.")
    latest_at: datetime = about("When the latest occurred.")
    last_30_days: int = about("How many occurred in the last 30 days.", name="last30Days")
    is_exact: bool = about("False: `last30Days` was worked out from the latest 10,000 of them.")
    properties: list[FieldDescription] | None = about(
        "What the newest 1,000 of them carry; null when that was not asked for."
    )


@output
class FieldCatalogue:
    """What conditions can be about. Traits, attributes, properties and pages are those of samples of the newest."""

    people_sampled: int = about("How many people were looked at: the newest, at most 10,000.")
    traits: list[FieldDescription] = about("Traits of those people, the most frequent first, at most 200.")
    attributes: list[AttributeDescription] = about("Attributes of those people.")
    events: list[EventDescription] = about("Event names, the most frequent first, at most 200.")
    is_complete: bool = about("False: there are more event names.")
    page_paths: list[FieldValue] = about("The most frequent paths of the newest 5,000 page views, at most 20.")


@output
class BuilderQueries:
    @query(needs=Scope.READ)
    async def segment_estimate(self, info: Info, input: SegmentEstimateInput) -> SegmentEstimate:
        """How many people conditions would find now, condition by condition, and how many could be written to."""
        condition, field = to_condition(info, definition=input.definition, simple=input.conditions)
        resources = info.context.resources
        found = await estimate.estimate(
            info.context.workspace_id,
            condition,
            brand_id=ids.optional(Kind.BRAND, input.brand_id, field="brand_id"),
            topic=input.topic,
            sources=resources.sources,
            hasher=resources.hasher,
            now=info.context.now,
            limit=resources.settings.estimate_timeout,
            field=field,
        )
        names = await names_of(info, condition)
        return SegmentEstimate(
            size=found.size,
            nodes=[
                SegmentNodeCount(
                    path=list(node.path), summary=conditions.summary(node.condition, names), size=node.size
                )
                for node in found.nodes
            ],
            reachable=[ChannelReach(channel=channel, people=people) for channel, people in found.reachable.items()],
            evaluated_at=found.evaluated_at,
        )

    @query(needs=Scope.READ)
    async def segment_explain(
        self,
        info: Info,
        segment_id: Annotated[ID, argument("The segment.")],
        profile_id: Annotated[ID | None, argument("The person; or give `externalId`.")] = None,
        external_id: Annotated[str | None, argument("Your own id of the person; or give `profileId`.")] = None,
    ) -> SegmentExplanation:
        """Why a person is in a segment or is not: each of its conditions, with the value it looked at."""
        person = await asked_profile(info, profile_id, external_id)
        resources = info.context.resources
        found = await explain.explain(
            info.context.workspace_id,
            ids.segment_id(segment_id, field="segment_id"),
            profile=person,
            sources=resources.sources,
            now=info.context.now,
            limit=resources.settings.estimate_timeout,
        )
        names = await names_of(info, found.nodes[0].condition) if found.nodes else {}
        return SegmentExplanation(
            segment=Segment.of(found.segment),
            profile=Profile.of(found.profile),
            is_member=found.is_member,
            entered_at=found.entered_at,
            would_match=found.would_match,
            reason=found.reason,
            nodes=[
                SegmentExplanationNode(
                    path=list(node.path),
                    summary=conditions.summary(node.condition, names),
                    matches=node.matches,
                    value=None if node.value is None else Json(node.value),
                )
                for node in found.nodes
            ],
            evaluated_at=found.evaluated_at,
        )

    @query(needs=Scope.READ)
    async def segment_overlap(
        self, info: Info, ids: Annotated[list[ID], argument("2 to 10 segments, EVERYONE possibly among them.")]
    ) -> SegmentOverlap:
        """What segments have in common now."""
        keys = segment_keys(ids)
        found = await overlap.overlap(info.context.workspace_id, keys)
        rows = await info.context.loaders.segments.load_many(keys)
        segments = {row.id: Segment.of(row) for row in rows if row is not None}
        return SegmentOverlap(
            segments=[SegmentOverlapSize(segment=segments[key], size=size) for key, size in found.sizes.items()],
            pairs=[
                SegmentOverlapPair(
                    first=segments[pair.first_id],
                    second=segments[pair.second_id],
                    size=pair.size,
                    share_of_first=pair.share_of_first,
                    share_of_second=pair.share_of_second,
                )
                for pair in found.pairs
            ],
            in_all=found.in_all,
            in_any=found.in_any,
        )

    @query(needs=Scope.READ)
    async def field_catalogue(
        self,
        info: Info,
        event_names: Annotated[
            list[str] | None,
            argument("Events whose properties are wanted, at most 20; left out: the most frequent ones."),
        ] = None,
    ) -> FieldCatalogue:
        """What conditions can be about: traits, attributes, events, their properties, and pages.

        Out of samples of the newest people and events, so that it answers soon however many there are. Values that
        look like email addresses or phone numbers are left out.
        """
        found = await catalogue.catalogue(
            info.context.workspace_id,
            event_names=event_names,
            now=info.context.now,
            limit=info.context.resources.settings.estimate_timeout,
        )
        return FieldCatalogue(
            people_sampled=found.people_sampled,
            traits=[FieldDescription.of(one) for one in found.traits],
            attributes=[
                AttributeDescription(
                    attribute=AttributeName(one.name),
                    seen=one.seen,
                    values=[FieldValue.of(value) for value in one.values],
                )
                for one in found.attributes
            ],
            events=[
                EventDescription(
                    name=one.name,
                    latest_at=one.latest_at,
                    last_30_days=one.recent,
                    is_exact=one.is_recent_exact,
                    properties=(
                        [FieldDescription.of(each) for each in found.properties[one.name]]
                        if one.name in found.properties
                        else None
                    ),
                )
                for one in found.events
            ],
            is_complete=found.is_complete,
            page_paths=[FieldValue.of(one) for one in found.pages],
        )


async def asked_profile(info: Info, profile_id: ID | None, external_id: str | None) -> profiles.Profile:
    """The profile that is named in one of two ways; raises ApiError, ProfileNotFound."""
    if (profile_id is None) == (external_id is None):
        message = "Name the person in exactly one way: by profileId or by externalId."
        raise ApiError("ONE_PROFILE", message, field=("profile_id",))
    if profile_id is not None:
        key = ids.decode_int(Kind.PROFILE, profile_id, field="profile_id")
        found = (await profiles.load(info.context.workspace_id, [key])).get(key)
        if found is None:
            raise ProfileNotFound(field=("profile_id",))
        return found
    assert external_id is not None
    known = await profiles.find_by_external_id(info.context.workspace_id, external_id)
    if known is None:
        raise ProfileNotFound(field=("external_id",))
    return known


def segment_keys(texts: list[ID]) -> list[UUID]:
    """Our keys of segments; raises ApiError naming the place of one that is no segment's id."""
    keys = []
    for place, text in enumerate(texts):
        try:
            keys.append(ids.segment_id(text))
        except ApiError as refusal:
            raise ApiError(refusal.code, refusal.message, field=("ids", str(place))) from refusal
    return keys
