"""Settings: read once, all that is wrong said at once."""

from datetime import timedelta

import pytest

from app.settings import MailboxSettings, MigrationSettings, Settings, SettingsError, documentation, load, load_settings

GOOD = {
    "DATABASE_URL": "postgresql://muster:of-the-database@db.example:5432/muster",
    "REDIS_URL": "redis://:of-valkey@valkey.example:6379/0",
    "MUSTER_ADDRESS_KEY": "a" * 32,
    "MUSTER_TOKEN_KEY": "t" * 32,
    "MUSTER_SECRET_KEYS": "1:" + "s" * 32,
}
PRODUCTION = GOOD | {
    "MUSTER_ENV": "production",
    "MUSTER_PUBLIC_URL": "https://mail.example",
    "MUSTER_SMTP_URL": "smtp+starttls://login:of-the-mail-server@smtp.example:587",
}


def problems(environ: dict[str, str], kind: type[Settings | MigrationSettings | MailboxSettings] = Settings) -> str:
    with pytest.raises(SettingsError) as wrong:
        load(kind, environ)
    return "\n".join(wrong.value.problems)


def test_development_needs_servers_and_keys_only() -> None:
    settings = load_settings(GOOD)
    assert not settings.in_production
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.smtp_url == "smtp://127.0.0.1:1025"
    assert (settings.graphiql, settings.log_format) == (True, "text")


def test_production_turns_the_toys_off() -> None:
    settings = load_settings(PRODUCTION)
    assert settings.in_production
    assert (settings.graphiql, settings.log_format) == (False, "json")


def test_the_public_url_follows_the_port_in_development() -> None:
    assert load_settings(GOOD | {"MUSTER_API_PORT": "9001"}).public_url == "http://127.0.0.1:9001"


def test_everything_that_is_wrong_is_said_at_once_with_name_and_mend() -> None:
    said = problems(
        {
            "MUSTER_ENV": "production",
            "MUSTER_PUBLIC_URL": "http://mail.example",
            "MUSTER_GRAPHIQL": "true",
            "MUSTER_ADDRESS_KEY": "short",
            "MUSTER_TOKEN_KEY": "short",
            "MUSTER_SECRET_KEYS": "1:short",
            "MUSTER_FCM_URL": "http://127.0.0.1:1",
            "MUSTER_APNS_URL": "http://push.example",
            "MUSTER_API_PORT": "http",
            "MUSTER_SEND_CONCURRENCY": "65",
            "MUSTER_LEASE_S": "soon",
            "MUSTER_TYPO": "1",
            "DATABASE_URL": "mysql://db",
            "REDIS_URL": "",
            "MUSTER_LOG_FORMAT": "xml",
        }
    ).splitlines()
    for name in (
        "MUSTER_PUBLIC_URL must be https",
        "MUSTER_GRAPHIQL must be false",
        "MUSTER_ADDRESS_KEY is too short",
        "MUSTER_TOKEN_KEY is too short",
        "MUSTER_SECRET_KEYS: must look like 2:NEWER,1:OLDER",
        "MUSTER_FCM_URL must be left out in production",
        "MUSTER_APNS_URL must be left out in production",
        "MUSTER_APNS_URL: must be https, unless the server is on this machine",
        "MUSTER_ADDRESS_KEY and MUSTER_TOKEN_KEY must be two different secrets",
        "MUSTER_API_PORT:",
        "MUSTER_SEND_CONCURRENCY:",
        "MUSTER_LEASE_S: must be a number of seconds",
        "MUSTER_TYPO is not a setting",
        "MUSTER_SMTP_URL is missing",
        "DATABASE_URL: must look like postgresql://host",
        "REDIS_URL is missing",
        "MUSTER_LOG_FORMAT:",
    ):
        assert sum(line.startswith(name) for line in said) == 1, name
    assert len(said) == 17


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_has_no_default_is_asked_for_by_name(name: str) -> None:
    said = problems({other: text for other, text in GOOD.items() if other != name})
    assert said.startswith(f"{name} is missing")
    assert "muster up" in said


def test_a_mistyped_variable_is_refused_with_the_nearest_known() -> None:
    assert "did you mean MUSTER_SMTP_URL?" in problems(GOOD | {"MUSTER_SMTP_ULR": "smtp://mail.example"})


def test_a_variable_of_another_process_is_no_typo() -> None:
    environ = GOOD | {"MUSTER_MAILBOX_PORT": "9000", "DATABASE_OWNER_URL": "postgresql://owner@db.example/muster"}
    assert load_settings(environ).database_url == GOOD["DATABASE_URL"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("DATABASE_URL", "postgresql://muster@db.example/muster?sslmode=require", "no options after a question mark"),
        ("DATABASE_URL", "postgresql://db.example/muster", "must name a login and a database"),
        ("DATABASE_URL", "postgresql://muster@db.example", "must name a login and a database"),
        ("DATABASE_URL", "postgresql://muster:a/b@db.example:x/muster", "DATABASE_URL"),
        ("REDIS_URL", "valkey.example:6379", "must look like redis://host"),
        ("MUSTER_SMTP_URL", "mail.example", "must look like smtp://host"),
        ("MUSTER_PUBLIC_URL", "https://mail.example/?a=1", "must end with the host or a path"),
        ("MUSTER_LEASE_S", "nan", "must be a number of seconds"),
        ("MUSTER_LEASE_S", "1", "greater than or equal to"),
        ("MUSTER_API_PORT", "70000", "less than or equal to 65535"),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, text: str, words: str) -> None:
    said = problems(GOOD | {name: text})
    assert said.startswith(name)
    assert words in said


def test_no_message_and_no_repr_holds_a_secret() -> None:
    settings = load_settings(PRODUCTION)
    shown = f"{settings!r} {settings}"
    said = problems({name: f"{text}\x00?x" for name, text in PRODUCTION.items() if name != "MUSTER_ENV"} | {"X": ""})
    for secret in ("of-the-database", "of-valkey", "of-the-mail-server", "a" * 32, "t" * 32):
        assert secret not in shown
        assert secret not in said


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(GOOD).api_port = 1


def test_durations_are_durations() -> None:
    assert load_settings(GOOD | {"MUSTER_LEASE_S": "7.5"}).lease == timedelta(seconds=7.5)


def test_nothing_is_read_that_was_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_API_PORT", "9999")
    monkeypatch.setenv("api_port", "9999")
    assert load_settings(GOOD).api_port == 8000


def test_the_login_must_not_be_the_owner() -> None:
    environ = {"DATABASE_URL": GOOD["DATABASE_URL"], "DATABASE_OWNER_URL": GOOD["DATABASE_URL"]}
    assert "name the same login" in problems(environ, MigrationSettings)


def test_migrate_and_mailbox_need_no_keys() -> None:
    owner = "postgresql://owner@db.example/muster"
    migration = load(MigrationSettings, {"DATABASE_URL": GOOD["DATABASE_URL"], "DATABASE_OWNER_URL": owner})
    assert migration.owner_url == owner
    assert load(MailboxSettings, {}).smtp_port == 1025


def test_every_variable_is_documented_once() -> None:
    rows = documentation()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.meaning.endswith(".") or row.meaning.endswith("`.") for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["DATABASE_URL"].default == "required"
    assert by_name["MUSTER_LEASE_S"].default == f"`{load_settings(GOOD).lease.total_seconds():g}`"
