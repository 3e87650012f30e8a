"""`muster`: the processes of an installation, and what people do at a terminal."""

import asyncio
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import asyncpg
import typer

from app import administration, imports, logs
from app.processes import choose_port
from app.settings import (
    MailboxSettings,
    MigrationSettings,
    ProcessSettings,
    Settings,
    SettingsError,
    load,
    load_settings,
)
from db.errors import MusterError

if TYPE_CHECKING:
    from app.stack import Stack

# Commands import what they run when they run it: `muster --help` and `muster migrate` need no GraphQL schema.

FAILED = 1
WRONG_SETTINGS = 2
Kind = TypeVar("Kind", bound=ProcessSettings)

app = typer.Typer(
    name="muster",
    help="Audiences and campaigns: segments, banners, email blasts behind one GraphQL API.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(administration.workspaces, name="workspace")
app.add_typer(administration.keys, name="key")
app.add_typer(imports.imports, name="import")
app.command("verify")(administration.verify)
app.command("reseal")(administration.reseal)


def main() -> None:
    """Entry of the program `muster`: refusals become a sentence and an exit code, 2 for wrong settings."""
    try:
        app()
    except SettingsError as wrong:
        stop(WRONG_SETTINGS, "The settings are wrong:", *(f"- {problem}" for problem in wrong.problems))
    except MusterError as refusal:
        at = f"{'.'.join(refusal.field)}: " if refusal.field else ""
        stop(WRONG_SETTINGS if refusal.code == "WRONG_ADDRESS_KEY" else FAILED, f"{at}{refusal.message}")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as trouble:
        # Servers that are away or refuse us, ports that are taken: the text says which.
        stop(FAILED, logs.without_addresses(f"{type(trouble).__name__}: {trouble}"))
    except KeyboardInterrupt:
        sys.exit(130)


def stop(code: int, *lines: str) -> NoReturn:
    """Say `lines` on standard error and exit."""
    for line in lines:
        typer.echo(line, err=True)
    sys.exit(code)


# --- processes ----------------------------------------------------------------------------------------------------


def start_up(kind: type[Kind]) -> Kind:
    """The settings of this process, with its log lines configured. Raises SettingsError."""
    settings = load(kind, os.environ)
    logs.configure(form=settings.log_format, level=settings.log_level)
    return settings


@app.command()
def api() -> None:
    """Run the API until SIGTERM."""
    settings = start_up(Settings)
    # Nearly nothing of what a start makes is garbage: to look for some took a sixth of its 1.5 s.
    gc.disable()
    import uvicorn

    from app.ending import Server
    from app.installation import check_database
    from app.main import create_app
    from app.sockets import LARGEST_MESSAGE

    asyncio.run(check_database(settings))
    application = create_app(settings)
    # Modules and schema live as long as the process: looking through them for garbage would stop everybody for long.
    gc.collect()
    gc.freeze()
    # What fetches of banners keep is no garbage either, and a look through all of it holds up everybody. Nor are many
    # new objects looked through at once: 20,000 took 12 ms, and those of 50 times 5,000 that were still there 21 ms
    # while new documents came and were kept.
    gc.set_threshold(5_000, 10, 500)
    gc.enable()
    config = uvicorn.Config(
        application,
        # Said, since it returns coroutines and is none, from which uvicorn would take it for ASGI 2.
        interface="asgi3",
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        **behind_proxies(settings),
        ws_max_size=LARGEST_MESSAGE,
        timeout_graceful_shutdown=20,
    )
    server = Server(config, application)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise typer.Exit(3)  # as uvicorn's own command


def behind_proxies(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told of the proxies in front: whom it believes in X-Forwarded-For and -Proto. Nobody by default;
    uvicorn by itself would believe the own machine."""
    return {"proxy_headers": bool(settings.trusted_proxies), "forwarded_allow_ips": list(settings.trusted_proxies)}


@app.command()
def worker(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether it is ready, or any, without MUSTER_WORKER_PORT.")
    ] = False,
) -> None:
    """Run a worker, and start it again when it ends, until SIGTERM; messages under way are finished first."""
    settings = start_up(Settings)
    from app.installation import check_database
    from app.probe import missing_of_worker
    from app.supervisor import Supervisor

    if check and settings.worker_port:
        missing = missing_of_worker(settings.api_host, settings.worker_port)
        stop(FAILED if missing else 0, f"worker lacks: {', '.join(missing)}" if missing else "worker is ready")
    if check:
        alive = asyncio.run(count_workers(settings))
        stop(0 if alive else FAILED, f"workers alive: {alive}")
    asyncio.run(check_database(settings))
    sys.exit(Supervisor([sys.executable, "-m", "workers"]).run())


async def count_workers(settings: Settings) -> int:
    """Workers that have announced themselves lately."""
    from app.wakeups import ALIVE, ALIVE_WITHIN
    from db.transactions import across_workspaces

    async with administration.open_database_of(settings), across_workspaces() as connection:
        alive: int = await connection.fetchval(ALIVE, ALIVE_WITHIN)
    return alive


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema; safe to run by two at once."""
    settings = start_up(MigrationSettings)
    from app.tables import MODEL_MODULES
    from db.migrate import migrate

    asyncio.run(
        migrate(
            owner_url=settings.owner_url,
            login_url=settings.database_url,
            model_modules=MODEL_MODULES,
            report=typer.echo,
        )
    )
    typer.echo("the schema is that of this version")


@app.command()
def mailbox() -> None:
    """Run the mail sink of development: it takes every mail, delivers none and shows all."""
    settings = start_up(MailboxSettings)
    from app.mailbox import run

    run(settings)


@app.command()
def schema(file: Annotated[Path | None, typer.Option("--output", help="Write it there instead.")] = None) -> None:
    """Print the GraphQL schema."""
    from app.schema import export

    if file:
        file.write_text(export(), encoding="utf-8")
    else:
        typer.echo(export(), nl=False)


# --- the whole on one machine -------------------------------------------------------------------------------------


def data_folder() -> Path:
    """Where stack and mailbox keep everything, from the environment. Raises SettingsError."""
    settings = load(MailboxSettings, os.environ)
    if settings.in_production:
        raise SettingsError(["MUSTER_ENV: in production run `muster migrate`, `muster api` and `muster worker`."])
    return settings.data_folder


def interruptible() -> None:
    """Make the first SIGINT, SIGTERM or SIGHUP a KeyboardInterrupt, and have the clean-up undisturbed by more."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


@app.command()
def up() -> None:
    """Run everything for development until Ctrl-C: servers, API, worker and mailbox."""
    folder = data_folder()
    from app.stack import Stack

    interruptible()
    with Stack(folder, environ=os.environ, logs_to_terminal=True, report=typer.echo) as stack:
        wait(
            stack,
            addresses(stack.api_url, stack.mailbox_url),
            "Make a workspace and a key in another terminal:",
            f"  {sys.argv[0]} workspace create acme",
            f"  {sys.argv[0]} key create --workspace acme --kind secret --role ADMIN",
        )


def wait(stack: "Stack", *lines: str) -> None:
    """Print `lines`, then wait for Ctrl-C. Raises CannotStart when a process ends by itself."""
    try:
        for line in (*lines, "Ctrl-C stops everything."):
            typer.echo(line)
        stack.wait()
    except KeyboardInterrupt:
        typer.echo("stopping")


def addresses(api_url: str, mailbox_url: str) -> str:
    return f"\n  GraphiQL  {api_url}/graphql\n  Mailbox   {mailbox_url}\n"


@app.command()
def demo(
    cdnow: Annotated[Path, typer.Option(help="Folder in which the package lifetimes was installed.")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C.")] = False,
) -> None:
    """Start everything, load real purchases and run campaigns through the API; exit 1 if ledger and sink disagree."""
    folder = data_folder()
    from app import cdnow as purchases
    from app.stack import Stack

    interruptible()
    began = time.monotonic()
    push_ports = choose_port(folder / "fcm_port"), choose_port(folder / "apns_port")
    names = ("MUSTER_FCM_URL", "MUSTER_APNS_URL")
    there = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, push_ports, strict=True)}
    with Stack(folder, environ={**os.environ, **there}, report=typer.echo) as stack:
        loaded = asyncio.run(purchases.load(load_settings(stack.environ), cdnow, stack.folder))
        from app import demo

        agreed = asyncio.run(
            demo.run(
                api_url=stack.api_url,
                mailbox_url=stack.mailbox_url,
                secret_key=loaded.secret_key,
                publishable_key=loaded.publishable_key,
                push_ports=push_ports,
                customers=loaded.customers,
                say=typer.echo,
            )
        )
        typer.echo(f"{time.monotonic() - began:.0f} s in all.")
        if keep:
            key = f"  Workspace {loaded.workspace}, secret key {loaded.secret_key}\n"
            wait(stack, addresses(stack.api_url, stack.mailbox_url), key)
    if not agreed:
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
