"""Settings of every process, read once from the environment; all that is wrong is said at once.

Each process reads the class that names what it needs, so that no process holds a secret it has no use for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.setting_kinds import (
    Addresses,
    DatabaseUrl,
    Key,
    NamedKeys,
    NamedRoles,
    Origins,
    Port,
    ProviderUrl,
    PublicUrl,
    RedisUrl,
    Seconds,
    SmtpUrl,
)
from segments.limits import WIDEST, Limits

MAKE_A_KEY = 'Make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"'


SIGN_IN = ("MUSTER_OIDC_JWKS_URL", "MUSTER_OIDC_ISSUER", "MUSTER_OIDC_AUDIENCE", "MUSTER_OIDC_ROLES")
SIGN_IN_WORKSPACE = ("MUSTER_OIDC_WORKSPACE", "MUSTER_OIDC_WORKSPACE_CLAIM")
ISSUER = ("MUSTER_JWKS_URL", "MUSTER_JWT_ISSUER", "MUSTER_JWT_AUDIENCE", "MUSTER_JWT_WORKSPACE")


class SettingsError(Exception):
    """Start-up must stop. `problems` names every variable that is wrong, and the mend, a sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class ProcessSettings(BaseSettings):
    """What every process reads."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: Environment = Field(
        Environment.DEVELOPMENT,
        validation_alias="MUSTER_ENV",
        description="`development` or `production`. Production refuses what only a developer wants.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="MUSTER_LOG_LEVEL", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`."
    )
    log_format: Literal["json", "text"] = Field(
        "text",
        validation_alias="MUSTER_LOG_FORMAT",
        description="`json`, a line an object, or `text`.",
        json_schema_extra={"shown": "`json` in production, else `text`"},
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: no second look at os.environ, no file found by chance."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def fill_in_by_environment(cls, values: dict[str, str]) -> dict[str, str]:
        if values.get("MUSTER_ENV") == Environment.PRODUCTION:
            return {"MUSTER_LOG_FORMAT": "json", "MUSTER_GRAPHIQL": "false", "MUSTER_INTROSPECTION": "false"} | values
        port = values.get("MUSTER_API_PORT", "")
        port = port if port.isdecimal() and int(port) < 65536 else str(DEFAULT_API_PORT)
        return {"MUSTER_PUBLIC_URL": f"http://127.0.0.1:{port}", "MUSTER_SMTP_URL": DEFAULT_SMTP_URL} | values

    @property
    def in_production(self) -> bool:
        return self.environment is Environment.PRODUCTION


DEFAULT_API_PORT = 8000
DEFAULT_SMTP_PORT = 1025
DEFAULT_SMTP_URL = f"smtp://127.0.0.1:{DEFAULT_SMTP_PORT}"


class Settings(ProcessSettings):
    """What API, workers and the commands that work on a workspace read."""

    database_url: DatabaseUrl = Field(
        validation_alias="DATABASE_URL",
        repr=False,
        description="PostgreSQL 18, as a login that owns nothing: `postgresql://login:password@host:5432/muster`. "
        "`muster migrate` makes the login.",
    )
    redis_url: RedisUrl = Field(
        validation_alias="REDIS_URL",
        repr=False,
        description="Valkey or Redis for wake-ups; losing it loses nothing: `redis://:password@host:6379/0`.",
    )
    public_url: PublicUrl = Field(
        validation_alias="MUSTER_PUBLIC_URL",
        description="Where recipients reach this API (the links in mails); https in production.",
        json_schema_extra={"shown": "the API's own address in development"},
    )
    address_key: Key = Field(
        validation_alias="MUSTER_ADDRESS_KEY",
        description="Secret of at least 32 characters that hashes addresses in the suppression list. "
        "It can never be changed: with another key the list would be lost, so start-up refuses that.",
    )
    token_key: Key = Field(
        validation_alias="MUSTER_TOKEN_KEY",
        description="Secret of at least 32 characters that signs the links in mails and client tokens.",
    )
    secret_keys: NamedKeys = Field(
        validation_alias="MUSTER_SECRET_KEYS",
        repr=False,
        description="Secrets of at least 32 characters that seal push credentials, with ids, the newest first: "
        "`2:NEWER,1:OLDER`.",
    )
    api_host: str = Field("127.0.0.1", validation_alias="MUSTER_API_HOST", description="Where the API listens.")
    api_port: Port = Field(DEFAULT_API_PORT, validation_alias="MUSTER_API_PORT", description="Port of the API.")
    worker_port: int = Field(
        0,
        ge=0,
        le=65535,
        validation_alias="MUSTER_WORKER_PORT",
        description="Port where a worker answers /readyz and /livez, on MUSTER_API_HOST; 0: nowhere.",
    )
    graphiql: bool = Field(
        True,
        validation_alias="MUSTER_GRAPHIQL",
        description="`true`: the page to try queries, at /graphql in a browser. Development only.",
        json_schema_extra={"shown": "`true` in development, else `false`"},
    )
    introspection: bool = Field(
        True,
        validation_alias="MUSTER_INTROSPECTION",
        description="`true`: the schema is told to whoever has a key, and mistyped names get suggestions.",
        json_schema_extra={"shown": "`true` in development, else `false`"},
    )
    cors_origins: Origins = Field(
        ("*",),
        validation_alias="MUSTER_CORS_ORIGINS",
        description="Pages that may call from a browser, over WebSockets too: `https://app.example,https://...`, or "
        "`*` for any.",
    )
    trusted_proxies: Addresses = Field(
        (),
        validation_alias="MUSTER_TRUSTED_PROXIES",
        description="Addresses or networks, with commas, of proxies that are believed in `X-Forwarded-For`.",
        json_schema_extra={"shown": "none"},
    )
    rate_limit: int = Field(
        60_000,
        ge=0,
        validation_alias="MUSTER_RATE_LIMIT",
        description="Points a minute for the GraphQL operations of a key (of a publishable key: from one address); a "
        "look-up costs 1, a change 5. 0: no limit.",
    )
    request_rate: int = Field(
        2_000,
        ge=0,
        validation_alias="MUSTER_REQUEST_RATE",
        description="Requests a second that a process answers of one key from one address. 0: no limit.",
    )
    metrics_token: Key | None = Field(
        None,
        validation_alias="MUSTER_METRICS_TOKEN",
        description="Bearer token of at least 32 characters for `/metrics`; without one it answers its own machine.",
        json_schema_extra={"shown": "none"},
    )
    otlp_url: PublicUrl | None = Field(
        None,
        validation_alias="MUSTER_OTLP_URL",
        description="Where traces go, as OTLP over HTTP; needs the extra `tracing`.",
        json_schema_extra={"shown": "none"},
    )
    audit_days: int = Field(
        365,
        ge=1,
        le=36_500,
        validation_alias="MUSTER_AUDIT_DAYS",
        description="Days that entries of the audit log are kept; workers drop older ones every hour.",
    )
    smtp_url: SmtpUrl = Field(
        validation_alias="MUSTER_SMTP_URL",
        repr=False,
        description="Mail server: `smtp://`, `smtp+starttls://` or `smtps://`, then `login:password@host:port`.",
        json_schema_extra={"shown": f"`{DEFAULT_SMTP_URL}` in development"},
    )
    send_concurrency: int = Field(
        64,
        ge=1,
        le=64,
        validation_alias="MUSTER_SEND_CONCURRENCY",
        description="Connections of a worker to it and so messages under way at once, 1 to 64. "
        "If a worker is killed, as many messages are in doubt.",
    )
    smtp_rate: int = Field(
        0,
        ge=0,
        validation_alias="MUSTER_SMTP_RATE",
        description="Messages that all workers together hand over in a second at most; 0 sets no limit.",
    )
    push_concurrency: int = Field(
        500,
        ge=1,
        le=5_000,
        validation_alias="MUSTER_PUSH_CONCURRENCY",
        description="Push notifications of a worker under way at once, 1 to 5000.",
    )
    push_rate: int = Field(
        0,
        ge=0,
        validation_alias="MUSTER_PUSH_RATE",
        description="Push notifications that all workers together hand over in a second at most; 0 sets no limit.",
    )
    fcm_url: ProviderUrl | None = Field(
        None,
        validation_alias="MUSTER_FCM_URL",
        description="A server in FCM's place, with its tokens at /token. Development only.",
        json_schema_extra={"shown": "FCM"},
    )
    apns_url: ProviderUrl | None = Field(
        None,
        validation_alias="MUSTER_APNS_URL",
        description="A server in APNs' place, production and sandbox. Development only.",
        json_schema_extra={"shown": "APNs"},
    )
    send_timeout: Seconds = Field(
        timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(seconds=600),
        validation_alias="MUSTER_SEND_TIMEOUT_S",
        description="Seconds a mail server may take for one answer.",
    )
    lease: Seconds = Field(
        timedelta(seconds=20),
        ge=timedelta(seconds=5),
        le=timedelta(seconds=3600),
        validation_alias="MUSTER_LEASE_S",
        description="Seconds after which the deliveries of a dead worker are taken over.",
    )
    silent_after: Seconds = Field(
        timedelta(minutes=15),
        ge=timedelta(seconds=60),
        le=timedelta(days=7),
        validation_alias="MUSTER_SILENT_AFTER_S",
        description="Seconds without a worker after which a campaign being sent waits for a person, since the database "
        "may be a backup.",
    )
    segment_limit: int = Field(
        100, ge=1, le=10_000, validation_alias="MUSTER_SEGMENT_LIMIT", description="Segments a workspace may have."
    )
    saved_query_limit: int = Field(
        100,
        ge=1,
        le=10_000,
        validation_alias="MUSTER_SAVED_QUERY_LIMIT",
        description="Saved queries a workspace may have.",
    )
    condition_depth: int = Field(
        Limits().depth,
        ge=3,
        le=WIDEST.depth,
        validation_alias="MUSTER_CONDITION_DEPTH",
        description=f"Levels of conditions in a new definition, 3 to {WIDEST.depth}.",
    )
    condition_leaves: int = Field(
        Limits().leaves,
        ge=1,
        le=WIDEST.leaves,
        validation_alias="MUSTER_CONDITION_LEAVES",
        description=f"Single conditions in a new definition, 1 to {WIDEST.leaves}.",
    )
    stale_after: Seconds = Field(
        timedelta(minutes=10),
        ge=timedelta(seconds=1),
        le=timedelta(days=7),
        validation_alias="MUSTER_STALE_AFTER_S",
        description="Seconds that the data of a segment engine may lag; with older data an evaluation is refused.",
    )
    estimate_timeout: Seconds = Field(
        timedelta(seconds=10),
        ge=timedelta(seconds=1),
        le=timedelta(seconds=120),
        validation_alias="MUSTER_ESTIMATE_TIMEOUT_S",
        description="Seconds that estimates, explanations and the field catalogue may take.",
    )
    operations_folder: Path = Field(
        Path("graphql/operations"),
        validation_alias="MUSTER_OPERATIONS",
        description="Folder of operations that clients may name by the SHA-256 of their file's text.",
    )
    only_operations: bool = Field(
        False,
        validation_alias="MUSTER_ONLY_OPERATIONS",
        description="`true`: no other operations are executed.",
        json_schema_extra={"shown": "`false`"},
    )
    banner_late: Seconds = Field(
        timedelta(days=7),
        ge=timedelta(hours=1),
        le=timedelta(days=30),
        validation_alias="MUSTER_BANNER_LATE_S",
        description="Seconds after which what an app without network kept to tell of a banner is refused.",
    )
    banner_event_months: int = Field(
        13,
        ge=4,
        le=1_200,
        validation_alias="MUSTER_BANNER_EVENT_MONTHS",
        description="Months that single banner events are kept; workers drop older ones, and counts stay.",
    )
    jwks_url: PublicUrl | None = Field(
        None,
        validation_alias="MUSTER_JWKS_URL",
        description="Where an identity provider of your own publishes the keys of its tokens; apps may send those in "
        "place of client tokens.",
        json_schema_extra={"shown": "none"},
    )
    jwt_issuer: str | None = Field(
        None,
        validation_alias="MUSTER_JWT_ISSUER",
        description="The `iss` of its tokens.",
        json_schema_extra={"shown": "none"},
    )
    jwt_audience: str | None = Field(
        None,
        validation_alias="MUSTER_JWT_AUDIENCE",
        description="An `aud` that its tokens must have.",
        json_schema_extra={"shown": "none"},
    )
    jwt_workspace: UUID | None = Field(
        None,
        validation_alias="MUSTER_JWT_WORKSPACE",
        description="The id of the one workspace whose profiles its tokens name, by `sub`.",
        json_schema_extra={"shown": "none"},
    )
    oidc_jwks_url: PublicUrl | None = Field(
        None,
        validation_alias="MUSTER_OIDC_JWKS_URL",
        description="Where the identity provider with which your people sign in publishes the keys of its tokens; they "
        "may send those in place of API keys (docs/keys.md).",
        json_schema_extra={"shown": "none"},
    )
    oidc_issuer: str | None = Field(
        None,
        validation_alias="MUSTER_OIDC_ISSUER",
        description="The `iss` of those tokens.",
        json_schema_extra={"shown": "none"},
    )
    oidc_audience: str | None = Field(
        None,
        validation_alias="MUSTER_OIDC_AUDIENCE",
        description="An `aud` that those tokens must have: another one than that of your apps' users.",
        json_schema_extra={"shown": "none"},
    )
    oidc_roles: NamedRoles = Field(
        {},
        validation_alias="MUSTER_OIDC_ROLES",
        description="Which group has which role: `marketing-team=MARKETER,operations=ADMIN`. Of several the highest "
        "counts; who has none may do nothing.",
        json_schema_extra={"shown": "none"},
    )
    oidc_roles_claim: str = Field(
        "groups",
        validation_alias="MUSTER_OIDC_ROLES_CLAIM",
        description="The claim with somebody's groups: a list, or a text with spaces between.",
    )
    oidc_workspace: UUID | None = Field(
        None,
        validation_alias="MUSTER_OIDC_WORKSPACE",
        description="The id of the one workspace that all who sign in belong to.",
        json_schema_extra={"shown": "none"},
    )
    oidc_workspace_claim: str | None = Field(
        None,
        validation_alias="MUSTER_OIDC_WORKSPACE_CLAIM",
        description="The claim that names somebody's workspace, by id or name, in place of MUSTER_OIDC_WORKSPACE.",
        json_schema_extra={"shown": "none"},
    )
    database_connections: int = Field(
        10, ge=2, le=200, validation_alias="MUSTER_DATABASE_CONNECTIONS", description="Connections of each process."
    )

    @property
    def condition_limits(self) -> Limits:
        return Limits(depth=self.condition_depth, leaves=self.condition_leaves)


class MigrationSettings(ProcessSettings):
    """What `muster migrate` reads."""

    database_url: DatabaseUrl = Field(validation_alias="DATABASE_URL", repr=False)
    owner_url: DatabaseUrl = Field(
        validation_alias="DATABASE_OWNER_URL",
        repr=False,
        description="The same database as a login that may create roles and tables; only `muster migrate` needs it.",
    )


class MailboxSettings(ProcessSettings):
    """What `muster mailbox` reads."""

    data_folder: Path = Field(
        Path(".data"),
        validation_alias="MUSTER_DATA_DIR",
        description="Where `muster up`, `muster demo` and `muster mailbox` keep data, keys and ports.",
    )
    host: str = Field(
        "127.0.0.1", validation_alias="MUSTER_MAILBOX_HOST", description="Where the mail sink and its page listen."
    )
    smtp_port: Port = Field(
        DEFAULT_SMTP_PORT, validation_alias="MUSTER_MAILBOX_SMTP_PORT", description="Port of the mail sink."
    )
    page_port: Port = Field(8025, validation_alias="MUSTER_MAILBOX_PORT", description="Port of the mail sink's page.")


KINDS: tuple[type[ProcessSettings], ...] = (Settings, MigrationSettings, MailboxSettings)
Kind = TypeVar("Kind", bound=ProcessSettings)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of API and workers. Raises SettingsError with every problem."""
    return load(Settings, environ)


def load(kind: type[Kind], environ: Mapping[str, str]) -> Kind:
    """The settings of one process out of `environ`; an empty variable counts as not set.

    Raises SettingsError with every problem, not only the first.
    """
    known = set(fields_by_name())
    values = {name: environ[name] for name in known if environ.get(name)}
    problems = [*unknown_names(environ, known)]
    try:
        settings = kind.model_validate(values)
    except ValidationError as invalid:
        mine = {str(field.validation_alias): field for field in kind.model_fields.values()}
        problems += [
            sentence(str(error["loc"][0]), mine[str(error["loc"][0])], error["type"], error["msg"])
            for error in invalid.errors()
        ]
    names = {str(field.validation_alias) for field in kind.model_fields.values()}
    problems += broken_rules({name: text for name, text in values.items() if name in names})
    if problems:
        raise SettingsError(problems)
    return settings


def sentence(name: str, field: FieldInfo, kind: str, message: str) -> str:
    """One problem, without the value: it may be a secret."""
    means = field.description or fields_by_name()[name].description or ""
    if kind == "missing":
        secret = f" {MAKE_A_KEY}." if name.endswith(("_KEY", "_KEYS")) else ""
        return f"{name} is missing. {means}{secret} In development `muster up` sets it."
    if kind == "too_short":
        return f"{name} is too short. {means} {MAKE_A_KEY}."
    return f"{name}: {message.removeprefix('Value error, ')}. {means}"


def unknown_names(environ: Mapping[str, str], known: set[str]) -> Iterator[str]:
    """A sentence for each MUSTER_ variable that nobody reads: a mistyped one would silently do nothing."""
    for name in sorted(environ):
        if name.startswith("MUSTER_") and name not in known:
            near = get_close_matches(name, known, n=1)
            yield f"{name} is not a setting{f'; did you mean {near[0]}?' if near else '.'} Remove or rename it."


def broken_rules(values: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each rule about more than one variable that `values` break."""
    address_key, token_key = values.get("MUSTER_ADDRESS_KEY"), values.get("MUSTER_TOKEN_KEY")
    if address_key and address_key == token_key:
        yield f"MUSTER_ADDRESS_KEY and MUSTER_TOKEN_KEY must be two different secrets. {MAKE_A_KEY}."
    if login_of(values.get("DATABASE_URL")) and login_of(values.get("DATABASE_URL")) == login_of(
        values.get("DATABASE_OWNER_URL")
    ):
        yield (
            "DATABASE_URL and DATABASE_OWNER_URL name the same login. The first must own nothing, since an owner "
            "passes row level security; give it a name of its own, `muster migrate` makes it."
        )
    for together in (ISSUER, SIGN_IN):
        provider = {name: values.get(name) for name in together}
        if any(provider.values()) and not all(provider.values()):
            missing = ", ".join(name for name in together if not provider[name])
            yield f"{missing} is missing: {', '.join(together)} go together, or none of them."
    if sum(bool(values.get(name)) for name in SIGN_IN_WORKSPACE) != bool(values.get(SIGN_IN[0])):
        yield f"{' or '.join(SIGN_IN_WORKSPACE)}: give one of them with MUSTER_OIDC_JWKS_URL, and none without."
    if all(
        values.get(app) and values.get(app) == values.get(own)
        for app, own in zip(ISSUER[1:3], SIGN_IN[1:3], strict=True)
    ):
        yield (
            "MUSTER_OIDC_AUDIENCE is MUSTER_JWT_AUDIENCE, of the same issuer: a token of somebody who uses your app "
            "would sign them in here. Give your people's tokens an audience of their own."
        )
    if values.get("MUSTER_ENV") == Environment.PRODUCTION:
        for name in ("MUSTER_JWKS_URL", "MUSTER_OIDC_JWKS_URL"):
            if (values.get(name) or "https://").lower().startswith("http://"):
                yield f"{name} must be https in production: whoever can change those keys can be anybody."
        if values.get("MUSTER_PUBLIC_URL", "https://").lower().startswith("http://"):
            yield "MUSTER_PUBLIC_URL must be https in production: mail readers and servers refuse plain http."
        if values.get("MUSTER_GRAPHIQL", "false").lower() in ("1", "true", "yes", "on", "t", "y"):
            yield "MUSTER_GRAPHIQL must be false in production, or left out."
        for name in ("MUSTER_FCM_URL", "MUSTER_APNS_URL"):
            if values.get(name):
                yield f"{name} must be left out in production: credentials go to the providers themselves."


def login_of(url: str | None) -> str | None:
    try:
        return urlsplit(url or "").username
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of docs/settings.md, in Markdown."""

    name: str
    default: str
    meaning: str


def documentation() -> list[Row]:
    """Every variable we read, in the order of this file; a test compares docs/settings.md with it."""
    rows = []
    for name, field in fields_by_name().items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = str(extra.get("shown", "required" if field.is_required() else f"`{shown(field.default)}`"))
        rows.append(Row(name, default, field.description or ""))
    rows.append(
        Row(
            "PG_BIN", "the wheel's", "Folder with initdb and postgres for the embedded server of development and tests."
        )
    )
    return rows


def fields_by_name() -> dict[str, FieldInfo]:
    """Every field of every process by its variable's name; the one with a description where several share it."""
    found: dict[str, FieldInfo] = {}
    for kind in KINDS:
        for field in kind.model_fields.values():
            found.setdefault(str(field.validation_alias), field)
    return found


def shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)
