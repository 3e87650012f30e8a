"""What the text of a setting must look like, by kind; whoever wrote it wrongly is told how it should be.

No message repeats the text: it may hold a password.
"""

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

SHORTEST_KEY = 32


def url_parts(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of `url`. Raises ValueError, without the URL since it may hold a password."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("is no URL that can be read; a special character in a password is written as %XX") from None
    if parts.scheme not in schemes or not has_host:
        raise ValueError(f"must look like {' or '.join(f'{scheme}://host' for scheme in schemes)}")
    return parts


def database_url(url: str) -> str:
    parts = url_parts(url, ("postgresql", "postgres"))
    if not parts.username or not parts.path.strip("/"):
        raise ValueError("must name a login and a database: postgresql://login:password@host:5432/muster")
    if parts.query:
        # The connection is opened from the parts; an option such as sslmode would silently be lost.
        raise ValueError("must have no options after a question mark; TLS is used whenever the server offers it")
    return url


def redis_url(url: str) -> str:
    url_parts(url, ("redis", "rediss"))
    return url


def smtp_url(url: str) -> str:
    url_parts(url, ("smtp", "smtps", "smtp+starttls"))
    return url


def public_url(url: str) -> str:
    parts = url_parts(url, ("https", "http"))
    if parts.query or parts.fragment:
        raise ValueError("must end with the host or a path")
    return url.rstrip("/")


def seconds(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a number of seconds") from None


DatabaseUrl = Annotated[str, AfterValidator(database_url)]
RedisUrl = Annotated[str, AfterValidator(redis_url)]
SmtpUrl = Annotated[str, AfterValidator(smtp_url)]
PublicUrl = Annotated[str, AfterValidator(public_url)]
Seconds = Annotated[timedelta, BeforeValidator(seconds)]
Key = Annotated[SecretStr, Field(min_length=SHORTEST_KEY)]
Port = Annotated[int, Field(ge=1, le=65535)]
