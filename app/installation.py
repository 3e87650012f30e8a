"""What must hold of the database before a process begins. No models here: `muster worker` asks, and then starts a
process of its own that has them; to import them would take as long again as all else it does."""

import asyncpg

from app.settings import Settings
from db.errors import MusterError
from db.roles import Role
from profiles.addresses import AddressHasher

INSTALLATION_KEY = "SELECT installation_key($1)"


class WrongAddressKey(MusterError):
    """The installation was started with another address key before."""


async def check_address_key(connection: asyncpg.Connection, hasher: AddressHasher) -> None:
    """Refuse to run with another address key than before: the whole suppression list would match nobody, and everybody
    who ever said no would be mailed again. The first key ever given is kept.

    `connection` is in a transaction of `muster_app`. Raises WrongAddressKey.
    """
    fingerprint = hasher.fingerprint()
    if await connection.fetchval(INSTALLATION_KEY, fingerprint) != fingerprint:
        raise WrongAddressKey(
            "WRONG_ADDRESS_KEY",
            "MUSTER_ADDRESS_KEY is not the key this database was first started with. Suppressed addresses are kept"
            " under that key and would be mailed again; put the old key back.",
        )


async def check_database(settings: Settings) -> None:
    """Say at once what would stop the process: no database, or another address key than before.

    Raises WrongAddressKey, OSError, asyncpg.PostgresError.
    """
    connection = await asyncpg.connect(settings.database_url, server_settings={"application_name": "muster"})
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {Role.APP.value}")
            await check_address_key(connection, AddressHasher(settings.address_key.get_secret_value().encode()))
    finally:
        await connection.close()
