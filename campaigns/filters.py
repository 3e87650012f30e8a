"""What templates may do to a value: `{{ traits.city | upper }}`.

The names and meanings are Jinja2's where Jinja2 has them. A filter takes what it is applied to by name (for its error
messages), the value, then its arguments in order. It refuses to build more than FILTER_LIMIT characters, before it
builds them: nine chained replace() make 10^9 characters out of 251.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import quote

from campaigns.errors import RenderError
from campaigns.program import FILTER_LIMIT, MISSING, Value, taken, to_text


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as the compiler needs it."""

    apply: Callable[..., Value]
    parameters: tuple[str, ...] = ()
    defaults: tuple[Value, ...] = ()
    """Of the last parameters; those before must be given."""
    takes_missing: bool = False
    check: Callable[..., str | None] | None = None
    """Says what is wrong with arguments that are constants, when the template is saved; None when nothing is."""


def fits(name: str, characters: int) -> None:
    """Raise RenderError when a filter would make more than it may."""
    if characters > FILTER_LIMIT:
        raise RenderError("TOO_LARGE", f"A filter on {name} makes more than {FILTER_LIMIT // 1024} KB.")


def default(name: str, value: Value, fallback: Value, boolean: Value) -> Value:
    return fallback if value is MISSING or (boolean and not value) else value


def upper(name: str, value: Value) -> Value:
    return to_text(name, value).upper()


def lower(name: str, value: Value) -> Value:
    return to_text(name, value).lower()


def capitalize(name: str, value: Value) -> Value:
    return to_text(name, value).capitalize()


WORD_BEGINNING = re.compile(r"([-\s({\[<]+)")


def title(name: str, value: Value) -> Value:
    parts = WORD_BEGINNING.split(to_text(name, value))
    return "".join(part[0].upper() + part[1:].lower() for part in parts if part)


def trim(name: str, value: Value, characters: Value) -> Value:
    return to_text(name, value).strip(None if characters is None else to_text(name, characters))


def truncate(name: str, value: Value, length: Value, killwords: Value, end: Value, leeway: Value) -> Value:
    text, mark = to_text(name, value), to_text(name, end)
    if not isinstance(length, int) or not isinstance(leeway, int):
        raise RenderError("NOT_A_NUMBER", f"The length to truncate {name} to is not a whole number.")
    if len(text) <= length + leeway:
        return text
    kept = text[: max(0, length - len(mark))]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + mark


def replace(name: str, value: Value, old: Value, new: Value) -> Value:
    text, before, after = to_text(name, value), to_text(name, old), to_text(name, new)
    fits(name, len(text) + text.count(before) * (len(after) - len(before)))
    return text.replace(before, after)


def join(name: str, value: Value, separator: Value) -> Value:
    if not isinstance(value, list):
        raise RenderError("NOT_A_LIST", f"{name} is not a list, so it cannot be joined.")
    between = to_text(name, separator)
    parts = [to_text(name, taken(item)) for item in value if item is not None]
    fits(name, sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


def length(name: str, value: Value) -> Value:
    if isinstance(value, str | list | dict):
        return len(value)
    raise RenderError("NOT_A_LIST", f"{name} has no length.")


def first(name: str, value: Value) -> Value:
    if isinstance(value, str | list):
        return taken(value[0]) if value else MISSING
    raise RenderError("NOT_A_LIST", f"{name} is not a list.")


def last(name: str, value: Value) -> Value:
    if isinstance(value, str | list):
        return taken(value[-1]) if value else MISSING
    raise RenderError("NOT_A_LIST", f"{name} is not a list.")


def escape(name: str, value: Value) -> Value:
    """HTML is escaped anyway, once, and plain text never: this changes nothing."""
    return to_text(name, value)


def number(name: str, value: Value, decimals: Value) -> Value:
    """1234.5 as "1,234.50"; takes numbers, and texts that are numbers."""
    try:
        wanted = Decimal(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (InvalidOperation, ValueError):
        wanted = None
    # The exponent is looked at first: "1e999999" is seven characters until somebody prints it.
    if wanted is None or not wanted.is_finite() or wanted.adjusted() > 30:
        raise RenderError("NOT_A_NUMBER", f"{name} is not a number.")
    if not isinstance(decimals, int) or not 0 <= decimals <= 10:
        raise RenderError("NOT_A_NUMBER", f"The decimals of {name} are a whole number from 0 to 10.")
    return f"{wanted:,.{decimals}f}"


DATE_FORMAT = re.compile(r"(?:[^%]|%[YymdjBbAaHIMSpZz%]|%-[mdHIMSj])*")
"""Other directives, and widths as in %1000000000d, are the C library's and not ours to vouch for."""


def check_date(format: Value) -> str | None:
    if isinstance(format, str) and len(format) <= 64 and DATE_FORMAT.fullmatch(format):
        return None
    return "a date format is a text such as '%d %B %Y' of at most 64 characters, with %Y %m %d %B %b %A %a %H %M"


def date(name: str, value: Value, format: Value) -> Value:
    """A date or instant ("2026-11-22", "2026-11-22T10:00:00Z") in another form; instants in UTC."""
    instant = value if isinstance(value, datetime) else None
    if isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value.strip())
        except ValueError:
            instant = None
    if instant is None:
        raise RenderError("NOT_A_DATE", f"{name} is not a date such as 2026-11-22.")
    try:
        return (instant.astimezone(UTC) if instant.tzinfo else instant).strftime(to_text(name, format))
    except (ValueError, OverflowError) as error:
        raise RenderError("NOT_A_DATE", f"{name} is a date beyond what can be printed.") from error


SAFE_URL = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x20\x7f<>\"'\\]+", re.IGNORECASE)


def url(name: str, value: Value) -> Value:
    """A web or mail address that may stand in a link; anything else, javascript: above all, fails the recipient."""
    text = to_text(name, value).strip()
    if not SAFE_URL.fullmatch(text):
        raise RenderError("NOT_A_URL", f"{name} is not an address that begins with https://, http:// or mailto:.")
    return text


def urlencode(name: str, value: Value) -> Value:
    """Text as a part of an address: "a b&c" becomes "a%20b%26c"."""
    encoded = to_text(name, value).encode("utf-8", "replace")
    fits(name, 3 * len(encoded))
    return quote(encoded, safe="")


FILTERS: dict[str, Filter] = {
    "capitalize": Filter(capitalize),
    "date": Filter(date, ("format",), ("%Y-%m-%d",), check=check_date),
    "default": Filter(default, ("default_value", "boolean"), ("", False), takes_missing=True),
    "e": Filter(escape),
    "escape": Filter(escape),
    "first": Filter(first),
    "join": Filter(join, ("d",), ("",)),
    "last": Filter(last),
    "length": Filter(length),
    "lower": Filter(lower),
    "number": Filter(number, ("decimals",), (0,)),
    "replace": Filter(replace, ("old", "new")),
    "title": Filter(title),
    "trim": Filter(trim, ("chars",), (None,)),
    "truncate": Filter(truncate, ("length", "killwords", "end", "leeway"), (255, False, "...", 5)),
    "upper": Filter(upper),
    "url": Filter(url),
    "urlencode": Filter(urlencode),
}
