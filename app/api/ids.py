"""Ids as clients see them: a kind and a key, such as `seg_0198c0de...` or `prf_42`.

The prefix catches the commonest mistake, an id of one thing given for another, before anything is looked up.
"""

from enum import StrEnum
from uuid import UUID

from strawberry import ID

from app.problems import ApiError


class Kind(StrEnum):
    """The prefix of each kind of thing that has an id."""

    WORKSPACE = "wsp"
    BRAND = "brd"
    PROFILE = "prf"
    DEVICE = "dev"
    SEGMENT = "seg"
    EVALUATION = "evl"
    SAVED_QUERY = "svq"
    SENDER = "snd"
    PLACEMENT = "plc"
    CAMPAIGN = "cmp"
    DISPATCH = "dsp"
    API_KEY = "key"


KINDS: dict[str, Kind] = {kind.value: kind for kind in Kind}
LARGEST_PROFILE_ID = 2**31 - 1
LARGEST_DEVICE_ID = 2**63 - 1


def encode(kind: Kind, key: UUID | int) -> ID:
    """The client's id of the thing of `kind` with our `key`."""
    return ID(f"{kind}_{key.hex if isinstance(key, UUID) else key}")


def kind_of(text: str) -> Kind | None:
    """Which kind of thing `text` names; None when it is no id of ours."""
    prefix = text.partition("_")[0]
    return KINDS.get(prefix)


def decode_uuid(kind: Kind, text: str, *, field: str = "id") -> UUID:
    """Our key in a client's id; raises ApiError INVALID_ID, naming `field`, when it is of another kind or none."""
    prefix, _, key = text.partition("_")
    if prefix == kind and len(key) == 32:
        try:
            return UUID(hex=key)
        except ValueError:
            pass
    raise ApiError("INVALID_ID", wrong(kind, text), field=(field,))


def decode_int(kind: Kind, text: str, *, field: str = "id", largest: int = LARGEST_PROFILE_ID) -> int:
    """Like `decode_uuid` for the kinds whose key is a number."""
    prefix, _, key = text.partition("_")
    # isascii: isdecimal alone lets through the digits of every script.
    if prefix == kind and key.isascii() and key.isdecimal() and len(key) <= 19 and int(key) <= largest:
        return int(key)
    raise ApiError("INVALID_ID", wrong(kind, text), field=(field,))


def segment_id(text: str, *, field: str = "id") -> UUID:
    """The segment that `text` names; raises ApiError INVALID_ID."""
    return decode_uuid(Kind.SEGMENT, text, field=field)


def campaign_id(text: str, *, field: str = "id") -> UUID:
    """The campaign that `text` names; raises ApiError INVALID_ID."""
    return decode_uuid(Kind.CAMPAIGN, text, field=field)


def profile_id(text: str, *, field: str = "id") -> int:
    """The profile that `text` names; raises ApiError INVALID_ID."""
    return decode_int(Kind.PROFILE, text, field=field)


def optional(kind: Kind, text: str | None, *, field: str) -> UUID | None:
    """Like `decode_uuid`, and None for none."""
    return None if text is None else decode_uuid(kind, text, field=field)


def wrong(kind: Kind, text: str) -> str:
    """What to tell somebody who gave `text` where the id of a `kind` belongs."""
    article = "an" if kind.name[0] in "AEIOU" else "a"
    expected = f"Expected the id of {article} {kind.name.lower().replace('_', ' ')}, which begins with {kind}_"
    other = kind_of(text)
    if other is not None and other != kind:
        article = "an" if other.name[0] in "AEIOU" else "a"
        return f"{expected}; this is the id of {article} {other.name.lower().replace('_', ' ')}."
    return f"{expected}; take ids as the API gives them."
