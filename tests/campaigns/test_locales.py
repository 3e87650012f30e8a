"""Which language somebody is shown: RFC 4647 lookup, and what browsers ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.locales import accepted, lookup

TAGS = st.sampled_from(
    ["en", "en-GB", "en-US", "de", "de-CH", "fr", "zh-Hant", "zh-Hant-TW", "zh-Hans", "pt-BR", "sr-Latn"]
)


@pytest.mark.parametrize(
    ("wanted", "available", "found"),
    [
        (["de"], ["en", "de"], "de"),
        (["de-CH"], ["en", "de"], "de"),
        (["DE_ch"], ["en", "de"], "de"),
        (["fr-FR", "de"], ["en", "de"], "de"),
        (["en", "de"], ["de", "en"], "en"),
        (["zh-Hant-CN-x-private1-private2"], ["zh", "zh-Hans"], "zh"),  # the RFC's own example
        (["zh-Hant-CN"], ["zh-Hans"], None),
        (["de"], ["de-CH"], None),
        (["*"], ["de"], None),
        (["*", "fr"], ["de", "fr"], "fr"),
        ([], ["de"], None),
        (["", "-"], ["de"], None),
        (["pt-br"], ["pt-BR"], "pt-BR"),
    ],
)
def test_the_longest_tag_that_a_range_can_be_shortened_to_is_found(
    wanted: list[str], available: list[str], found: str | None
) -> None:
    assert lookup(wanted, available) == found


@given(st.lists(TAGS, max_size=4), st.lists(TAGS, max_size=6, unique=True))
def test_what_is_found_is_available_and_the_beginning_of_what_was_wanted(
    wanted: list[str], available: list[str]
) -> None:
    found = lookup(wanted, available)
    beginnings = [one for want in wanted for one in available if f"{want}-".startswith(f"{one}-")]
    assert (found is None) == (not beginnings)
    if found is not None:
        first = next(want for want in wanted if any(f"{want}-".startswith(f"{one}-") for one in available))
        assert found == max((one for one in available if f"{first}-".startswith(f"{one}-")), key=len)


@given(st.lists(st.text(max_size=12), max_size=5), st.lists(st.text(max_size=12), max_size=5))
def test_anything_may_be_asked_for(wanted: list[str], available: list[str]) -> None:
    assert lookup(wanted, available) in {None, *available}


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("de-CH, de;q=0.9, en;q=0.8, *;q=0.5", ("de-CH", "de", "en", "*")),
        ("en;q=0.2,fr , de; q=1.0", ("fr", "de", "en")),
        ("en;q=0, de", ("de",)),
        ("en;q=x, fr;level=1, de;q=nan, it;q=7, es", ("es",)),
        ("", ()),
        (",;q=1,", ()),
    ],
)
def test_a_header_is_read_by_its_weights(header: str, wanted: tuple[str, ...]) -> None:
    assert accepted(header) == wanted


@given(st.text(max_size=60))
def test_any_header_is_read(header: str) -> None:
    assert len(accepted(header)) <= 20
