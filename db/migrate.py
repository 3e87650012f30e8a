"""Brings a database to the newest schema; safe to run by two at once."""

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.migrations.api import migrate as run_migrations
from tortoise.migrations.schema_generator.state_apps import StateApps

from db.roles import Role, ensure_roles, let_call
from db.transactions import APP_LABEL, tortoise_config

# Session-level: it must outlive the transactions of the single migrations, and ends with the connection.
LOCK = "SELECT pg_advisory_lock(hashtext('muster migrate'))"
LOCK_TIMEOUT = "4s"


def ask_nothing(self: StateApps) -> None:
    """In place of the queries that Tortoise builds for all models as they were, twice for each operation: our
    migrations say SQL and ask no model, and more than half of a `muster migrate` went there (1.8 s of processor time,
    not 0.8)."""


StateApps._build_initial_querysets = ask_nothing  # type: ignore[method-assign]


async def migrate(
    *,
    owner_url: str,
    login_url: str,
    model_modules: list[str],
    target: str = "__latest__",
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Make roles and login, then run every migration not yet applied, as `muster_owner`.

    Tortoise's runner takes no lock of its own, hence the advisory lock: a second caller waits, then finds nothing
    to do. A migration that cannot have its table lock within 4 s fails rather than queue everybody behind it.
    """
    login = urlsplit(login_url)
    guard = await asyncpg.connect(owner_url)
    try:
        await guard.execute(LOCK)
        await ensure_roles(
            guard,
            login=unquote(login.username or ""),
            password=unquote(login.password) if login.password else None,
        )
        config = tortoise_config(owner_url, model_modules=model_modules, connections=1)
        config["connections"]["default"]["credentials"]["server_settings"] |= {
            "role": Role.OWNER.value,
            "lock_timeout": LOCK_TIMEOUT,
        }
        try:
            await run_migrations(
                config=config,
                target=f"{APP_LABEL}.{target}",
                progress=lambda step, app, name: report(f"{step.replace('_', ' ')} {name}"),
            )
        finally:
            await Tortoise.close_connections()
        await let_call(guard, login=unquote(login.username or ""))
    finally:
        await guard.close()
