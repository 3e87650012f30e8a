"""What the text of a setting must look like, by kind; whoever wrote it wrongly is told how it should be.

No message repeats the text: it may hold a password.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

SHORTEST_KEY = 32
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


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


def named_keys(value: Any) -> Any:
    """Keys by their ids, in the order they stand in."""
    if not isinstance(value, str):
        return value
    keys: dict[str, SecretStr] = {}
    for part in value.split(","):
        key_id, _, key = part.strip().partition(":")
        if not KEY_ID.fullmatch(key_id) or len(key) < SHORTEST_KEY:
            raise ValueError(f"must look like 2:NEWER,1:OLDER, each an id and a key of {SHORTEST_KEY} characters")
        if key_id in keys:
            raise ValueError("must give each key an id of its own")
        keys[key_id] = SecretStr(key)
    return keys


def provider_url(url: str) -> str:
    parts = url_parts(url, ("https", "http"))
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must end with the host or the port")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("must be https, unless the server is on this machine")
    return url.rstrip("/")


def seconds(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a number of seconds") from None


def parts_of(value: Any) -> Any:
    return tuple(one.strip() for one in value.split(",") if one.strip()) if isinstance(value, str) else value


def named_roles(value: Any) -> Any:
    """Roles by the names of groups; a group's name may hold anything but commas, also `=`."""
    if not isinstance(value, str):
        return value  # the default, of every process that has no people
    # Not above: it takes tables with it, and no process starts faster for that.
    from profiles.keys import Role

    roles: dict[str, str] = {}
    for part in parts_of(value):
        group, _, role = part.rpartition("=")
        if not group.strip() or role.strip() not in Role.__members__:
            raise ValueError(f"must look like GROUP=ROLE,OTHER=ROLE; roles are {', '.join(Role)}")
        if group.strip() in roles:
            raise ValueError("must give each group one role")
        roles[group.strip()] = role.strip()
    return roles


def origins(found: tuple[str, ...]) -> tuple[str, ...]:
    for one in found:
        parts = urlsplit(one)
        if one != "*" and one != f"{parts.scheme}://{parts.netloc}".lower():
            raise ValueError("must be * or origins such as https://app.example: scheme, host and port, nothing behind")
    return found


def addresses(found: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for one in found:
            ip_network(one)
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.1,10.1.0.0/16") from None
    return found


DatabaseUrl = Annotated[str, AfterValidator(database_url)]
RedisUrl = Annotated[str, AfterValidator(redis_url)]
SmtpUrl = Annotated[str, AfterValidator(smtp_url)]
PublicUrl = Annotated[str, AfterValidator(public_url)]
Seconds = Annotated[timedelta, BeforeValidator(seconds)]
Origins = Annotated[tuple[str, ...], BeforeValidator(parts_of), AfterValidator(origins)]
Addresses = Annotated[tuple[str, ...], BeforeValidator(parts_of), AfterValidator(addresses)]
Key = Annotated[SecretStr, Field(min_length=SHORTEST_KEY)]
NamedRoles = Annotated[Mapping[str, str], BeforeValidator(named_roles)]
NamedKeys = Annotated[Mapping[str, SecretStr], BeforeValidator(named_keys)]
ProviderUrl = Annotated[str, AfterValidator(provider_url)]
Port = Annotated[int, Field(ge=1, le=65535)]
