"""What is asked of the database before a process begins."""

import pytest

from app.installation import WrongAddressKey, check_database
from app.settings import load_settings
from tests.conftest import Database


async def test_the_first_address_key_is_the_only_one_that_may_start(
    database: Database, environ: dict[str, str]
) -> None:
    ours = load_settings(environ)
    other = load_settings(environ | {"MUSTER_ADDRESS_KEY": "another key of thirty-two bytes or more"})
    await check_database(ours)
    with pytest.raises(WrongAddressKey, match="put the old key back"):
        await check_database(other)
    await check_database(ours)
