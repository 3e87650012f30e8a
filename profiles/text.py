"""Single values as they are kept: texts PostgreSQL can store, time zones, locales, countries, phone numbers."""

import re
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TypeGuard, TypeVar
from zoneinfo import available_timezones

from profiles.errors import ProfileError

C = TypeVar("C", bound=StrEnum)

LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,6}")
PHONE = re.compile(r"\+?[0-9 ().\-/]+")
NOT_DIGITS = re.compile(r"[^0-9]")


def check_storable(value: str, *, field: tuple[str, ...] = ()) -> None:
    """Raises ProfileError UNSTORABLE_TEXT for what PostgreSQL refuses: the NUL character and lone surrogates.

    Checked here because one such value would otherwise fail the whole batch it came with.
    """
    if "\0" in value:
        raise ProfileError("UNSTORABLE_TEXT", "Contains a NUL character (U+0000): remove it.", field=field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise ProfileError(
                "UNSTORABLE_TEXT",
                f"Contains half of a surrogate pair at character {e.start + 1}: send complete Unicode characters.",
                field=field,
            ) from e


def is_plain(value: object, most: int) -> TypeGuard[str]:
    """Whether `clean_text` would surely take this text as it is, as it does with most; False says nothing.

    A printable text holds neither U+0000 nor half of a surrogate pair, and of all blanks only the space.
    """
    return type(value) is str and 0 < len(value) <= most and value.isprintable() and value[0] != " " != value[-1]


def clean_text(value: object, *, what: str, most: int, field: tuple[str, ...] = ()) -> str:
    """`value` without surrounding blanks; 1 to `most` characters that PostgreSQL can store.

    `what` names it in messages ("External id"). Raises ProfileError NOT_TEXT, BLANK, TOO_LONG or UNSTORABLE_TEXT.
    """
    if not isinstance(value, str):
        found = "is missing" if value is None else f"must be text, not {type(value).__name__}"
        raise ProfileError("NOT_TEXT", f"{what} {found}: send a string.", field=field)
    text = value.strip()
    if not text:
        raise ProfileError("BLANK", f"{what} is empty: give at least one character.", field=field)
    if len(text) > most:
        raise ProfileError("TOO_LONG", f"{what} has {len(text)} characters: shorten it to at most {most}.", field=field)
    check_storable(text, field=field)
    return text


def clean_time_zone(value: object, *, field: tuple[str, ...] = ()) -> str:
    """An IANA time zone name; raises ProfileError UNKNOWN_TIME_ZONE."""
    text = clean_text(value, what="Time zone", most=64, field=field)
    if text not in time_zones():
        raise ProfileError(
            "UNKNOWN_TIME_ZONE",
            f"{text!r} is no time zone: use an IANA name such as Europe/Berlin or UTC.",
            field=field,
        )
    return text


@cache
def time_zones() -> frozenset[str]:
    """Every IANA time zone name; read from disk once (58 ms)."""
    return frozenset(available_timezones())


def clean_country(value: object, *, field: tuple[str, ...] = ()) -> str:
    """An ISO 3166 alpha-2 code in capitals; raises ProfileError UNKNOWN_COUNTRY."""
    if type(value) is str and value in countries():
        return value
    text = clean_text(value, what="Country", most=64, field=field)
    code = text.upper()
    if code not in countries():
        mend = "the United Kingdom is GB" if code == "UK" else "use two letters such as DE"
        raise ProfileError("UNKNOWN_COUNTRY", f"{text!r} is no ISO 3166 alpha-2 country: {mend}.", field=field)
    return code


@cache
def countries() -> frozenset[str]:
    """ISO 3166 alpha-2 codes, from the table that comes with the time zone data."""
    table = (files("tzdata") / "zoneinfo" / "iso3166.tab").read_text(encoding="utf-8")
    # XK (Kosovo) is user-assigned, but what every geo-IP database answers.
    return frozenset(line.split("\t")[0] for line in table.splitlines() if line and line[0] != "#") | {"XK"}


def clean_locale(value: object, *, field: tuple[str, ...] = ()) -> str:
    """A language tag in the case of RFC 5646 2.1.1 ("pt_br" becomes "pt-BR"); raises ProfileError INVALID_LOCALE."""
    text = clean_text(value, what="Locale", most=64, field=field)
    if len(text) > 35 or not LOCALE.fullmatch(text):
        raise ProfileError(
            "INVALID_LOCALE", f"{text!r} is no language tag: use one such as en, pt-BR or zh-Hant-TW.", field=field
        )
    language, *rest = text.replace("_", "-").split("-")
    return "-".join([language.lower(), *(in_tag_case(part) for part in rest)])


def in_tag_case(subtag: str) -> str:
    """A region in capitals, a script capitalised, everything else small."""
    match len(subtag):
        case 2:
            return subtag.upper()
        case 4 if subtag.isalpha():
            return subtag.capitalize()
        case _:
            return subtag.lower()


def clean_phone(value: object, *, field: tuple[str, ...] = ()) -> str:
    """A phone number as it was given, without surrounding blanks; raises ProfileError INVALID_PHONE.

    Only its characters and the number of its digits are checked: no channel dials it yet.
    """
    text = clean_text(value, what="Phone", most=64, field=field)
    if not PHONE.fullmatch(text) or not 4 <= len(NOT_DIGITS.sub("", text)) <= 15:
        raise ProfileError(
            "INVALID_PHONE",
            f"{text!r} is no phone number: use 4 to 15 digits, best with + and the country code.",
            field=field,
        )
    return text


def clean_choice(choices: type[C], value: str, *, field: tuple[str, ...] = ()) -> C:
    """`value` as one of `choices`; raises ProfileError INVALID_CHOICE."""
    try:
        return choices(value)
    except ValueError as e:
        raise ProfileError(
            "INVALID_CHOICE", f"{value!r} is none of {', '.join(sorted(choices))}: use one of these.", field=field
        ) from e
