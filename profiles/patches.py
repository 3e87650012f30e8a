"""What one caller wants changed about one person, checked; and what that makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from db.unset import UNSET, Unset
from profiles.addresses import AddressHasher, Channel, clean_email
from profiles.errors import ProfileErased, ProfileError
from profiles.identities import clean_external_id
from profiles.text import clean_country, clean_locale, clean_phone, clean_text, clean_time_zone
from profiles.traits import Traits, TraitValue, clean_traits, merged, same_json

ColumnValue = str | bytes | None
COLUMNS = ("email", "email_hash", "phone", "time_zone", "locale", "country", "city")
"""The columns of a profile that a patch may set, besides traits."""


@dataclass(frozen=True, slots=True)
class ProfileInput:
    """One person as a caller knows them, found by `external_id`.

    What is left out stays as it is, None clears it. Traits are merged key by key; a trait of None is removed.
    `brand_ids` replaces the brands the person belongs to.
    """

    external_id: str
    email: str | Unset | None = UNSET
    phone: str | Unset | None = UNSET
    traits: Mapping[str, object] = field(default_factory=dict)
    time_zone: str | Unset | None = UNSET
    locale: str | Unset | None = UNSET
    country: str | Unset | None = UNSET
    city: str | Unset | None = UNSET
    brand_ids: Sequence[UUID] | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class Patch:
    """A checked ProfileInput: the columns to set, the traits to merge, the brands to have (None: as they are)."""

    external_id: str
    values: Mapping[str, ColumnValue]
    traits: Mapping[str, TraitValue | None]
    brand_ids: tuple[UUID, ...] | None = None


@dataclass(slots=True)
class Draft:
    """A profile on its way to the table; `id` is None until it is there."""

    external_id: str
    id: int | None = None
    values: dict[str, ColumnValue] = field(default_factory=lambda: dict.fromkeys(COLUMNS))
    traits: Traits = field(default_factory=dict)
    identified: bool = True
    erased: bool = False
    changed: bool = False
    brand_ids: tuple[UUID, ...] | None = None
    traits_before: Traits = field(default_factory=dict)
    """As they are in the table."""

    def apply(self, patch: Patch) -> bool:
        """Take over what `patch` says; whether that changed a column. Raises ProfileError, and then nothing is taken
        over."""
        if self.erased:
            raise ProfileErased(field=("external_id",))
        changed = not self.identified
        if patch.traits:
            traits = merged(self.traits, patch.traits)
            if not same_json(traits, self.traits):
                self.traits, changed = traits, True
        for column, value in patch.values.items():
            if self.values[column] != value:
                self.values[column], changed = value, True
        if patch.brand_ids is not None:
            self.brand_ids = patch.brand_ids
        self.identified = True
        self.changed |= changed
        return changed


def clean(wanted: ProfileInput, *, hasher: AddressHasher) -> Patch:
    """The patch that `wanted` asks for; raises ProfileError with the field's path."""
    external_id = clean_external_id(wanted.external_id)
    values: dict[str, ColumnValue] = {}
    if wanted.email is not UNSET:
        set_email(values, wanted.email, hasher=hasher)
    if wanted.phone is not UNSET:
        values["phone"] = None if wanted.phone is None else clean_phone(wanted.phone, field=("phone",))
    if wanted.time_zone is not UNSET:
        zone = wanted.time_zone
        values["time_zone"] = None if zone is None else clean_time_zone(zone, field=("time_zone",))
    if wanted.locale is not UNSET:
        values["locale"] = None if wanted.locale is None else clean_locale(wanted.locale, field=("locale",))
    if wanted.country is not UNSET:
        values["country"] = None if wanted.country is None else clean_country(wanted.country, field=("country",))
    if wanted.city is not UNSET:
        values["city"] = None if wanted.city is None else clean_city(wanted.city)
    brands = None if wanted.brand_ids is UNSET else tuple(dict.fromkeys(wanted.brand_ids or ()))
    return Patch(external_id, values, clean_traits(wanted.traits), brands)


def set_email(values: dict[str, ColumnValue], email: object, *, hasher: AddressHasher) -> None:
    """Put an email and its keyed hash into `values`; None clears both. Raises ProfileError INVALID_EMAIL."""
    if email is None:
        values["email"] = values["email_hash"] = None
    else:
        text = clean_email(email)
        values["email"], values["email_hash"] = text, hasher.hash(Channel.EMAIL, text)


def clean_city(value: object) -> str:
    return clean_text(value, what="City", most=200, field=("city",))


def patch_or_refusal(wanted: ProfileInput, *, hasher: AddressHasher) -> Patch | ProfileError:
    """Like `clean`, but the refusal is the answer: one bad item does not spoil its batch."""
    try:
        return clean(wanted, hasher=hasher)
    except ProfileError as refusal:
        return refusal
