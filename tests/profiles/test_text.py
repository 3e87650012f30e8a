"""Single values: what is kept of them, and what is refused."""

from collections.abc import Callable
from functools import partial

import pytest

from profiles.addresses import Channel
from profiles.errors import ProfileError
from profiles.text import clean_choice, clean_country, clean_locale, clean_phone, clean_text, clean_time_zone

FIELD = ("input", "value")
Clean = Callable[[object], str]


def refusal(clean: Callable[..., str], value: object) -> str:
    """The code of the refusal, which names its field and what to do."""
    with pytest.raises(ProfileError) as refused:
        clean(value, field=FIELD)
    assert refused.value.field == FIELD
    assert refused.value.message.rstrip().endswith(".")
    return refused.value.code


def test_text_is_kept_without_blanks_around_it_and_refused_when_it_cannot_be_kept() -> None:
    name = partial(clean_text, what="Name", most=5)
    assert name("  Zoë 😀 ") == "Zoë 😀"
    bad = {"": "BLANK", " \t\n": "BLANK", "sixsix": "TOO_LONG", "a\0b": "UNSTORABLE_TEXT", "a\ud83d": "UNSTORABLE_TEXT"}
    assert {value: refusal(name, value) for value in bad} == bad
    assert [refusal(name, value) for value in (None, 5, b"abc", ["a"])] == ["NOT_TEXT"] * 4
    with pytest.raises(ProfileError, match=r"^Name is missing: send a string\.$"):
        name(None, field=FIELD)


@pytest.mark.parametrize(
    ("clean", "good", "bad"),
    [
        (
            clean_time_zone,
            {" Europe/Berlin ": "Europe/Berlin", "UTC": "UTC"},
            {
                "Europe/Bonn": "UNKNOWN_TIME_ZONE",
                "europe/berlin": "UNKNOWN_TIME_ZONE",
                "../etc/passwd": "UNKNOWN_TIME_ZONE",
            },
        ),
        (
            clean_country,
            {"de": "DE", " US ": "US", "xk": "XK"},
            {"UK": "UNKNOWN_COUNTRY", "DEU": "UNKNOWN_COUNTRY", "ZZ": "UNKNOWN_COUNTRY", "Germany": "UNKNOWN_COUNTRY"},
        ),
        (
            clean_locale,
            {"pt_br": "pt-BR", "EN": "en", "zh-hant-tw": "zh-Hant-TW", "de-CH-1996": "de-CH-1996", "es-419": "es-419"},
            {
                "e": "INVALID_LOCALE",
                "en--US": "INVALID_LOCALE",
                "en US": "INVALID_LOCALE",
                "en" + "-ab" * 12: "INVALID_LOCALE",
            },
        ),
        (
            clean_phone,
            {" +49 (30) 123-456 ": "+49 (30) 123-456", "0301234": "0301234"},
            {
                "123": "INVALID_PHONE",
                "call me": "INVALID_PHONE",
                "1" * 16: "INVALID_PHONE",
                "49+30123": "INVALID_PHONE",
            },
        ),
    ],
)
def test_a_value_has_one_form_and_what_has_none_is_refused(
    clean: Clean, good: dict[str, str], bad: dict[str, str]
) -> None:
    assert {value: clean(value) for value in good} == good
    assert {value: refusal(clean, value) for value in bad} == bad
    assert [refusal(clean, value) for value in ("", "x\0y", None)] == ["BLANK", "UNSTORABLE_TEXT", "NOT_TEXT"]


def test_a_choice_that_is_none_is_refused_with_the_choices() -> None:
    assert clean_choice(Channel, "PUSH") is Channel.PUSH
    with pytest.raises(ProfileError, match="EMAIL, PUSH") as refused:
        clean_choice(Channel, "FAX", field=FIELD)
    assert (refused.value.code, refused.value.field) == ("INVALID_CHOICE", FIELD)
