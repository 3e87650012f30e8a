"""People who sign in with an identity provider: who they are, what their groups may, and which tokens open nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from app import jwks, streams
from app.settings import SettingsError, load_settings
from profiles import workspaces
from tests.app.caller import Caller
from tests.app.conftest import client_of
from tests.app.test_api_identity import (  # noqa: F401
    EC,
    OTHER_RSA,
    RSA,
    SMALL_RSA,
    WRONG,
    Provider,
    provider,
    who,
)

SIGN_IN = {
    "MUSTER_ENV": "development",
    "MUSTER_OIDC_ISSUER": "https://id.example.com/",
    "MUSTER_OIDC_AUDIENCE": "muster",
    "MUSTER_OIDC_ROLES": "guests=VIEWER, marketing=team=MARKETER,senders=SENDER,operations=ADMIN",
}
GROUPS = {"VIEWER": "guests", "MARKETER": "marketing=team", "SENDER": "senders", "ADMIN": "operations"}
ASK = "{ workspace { id } }"


@asynccontextmanager
async def api(environ: dict[str, str], provider: Provider, **more: str) -> AsyncIterator[httpx2.AsyncClient]:  # noqa: F811
    """The API with which people sign in by this provider."""
    settings = load_settings(environ | SIGN_IN | {"MUSTER_OIDC_JWKS_URL": provider.url} | more)
    async with client_of(settings) as client:
        yield client


async def test_people_sign_in_and_may_what_their_groups_may(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
    console: Caller,
) -> None:
    """The highest role of theirs counts; the log of what was done names them, and no key."""
    provider.publish(rsa=RSA, ec=EC)
    async with api(environ, provider, MUSTER_OIDC_WORKSPACE=str(workspace)) as http:

        def signed_in(*groups: str, **claims: Any) -> Caller:
            return Caller(http, workspace, provider.token("rsa", groups=list(groups), **claims))

        brand = {"input": {"name": "Acme"}}
        codes = {}
        for role, group in GROUPS.items():
            one = signed_in("others", group)
            assert (await one.data("Workspace"))["id"] == f"wsp_{workspace.hex}"
            answer = await one.ask("CampaignSend", input={"id": "cmp_1"})
            codes[role] = (answer.get("errors") or [{"message": "none"}])[0]["message"].partition(". ")[0]
        assert codes == {
            "VIEWER": "You have the role VIEWER, which lacks the scope send, which the roles SENDER and ADMIN have",
            "MARKETER": "You have the role MARKETER, which lacks the scope send, which the roles SENDER and ADMIN have",
            "SENDER": "none",
            "ADMIN": "none",
        }
        both = Caller(http, workspace, provider.token("ec", alg="ES256", groups="guests operations", sub="grace"))
        made = await both.with_headers(idempotency_key="1").data("BrandCreate", **brand)
        other = await signed_in("operations").with_headers(idempotency_key="1").refusal("BrandCreate", **brand)
        assert other[0] == "BRAND_EXISTS"  # another person, whose Idempotency-Key is their own
        log = [edge["node"] for edge in (await console.data("AuditLog", action="brandCreate"))["edges"]]
        told = [(one["subject"], one["keyName"], one["keyPrefix"], one["outcome"], one["object"]) for one in log]
        assert told == [("ada", "ada", "", "BRAND_EXISTS", None), ("grace", "grace", "", "DONE", made["brand"]["id"])]

        for nobody in (signed_in(), signed_in("others", "SENDER"), signed_in(group="operations")):
            (error,) = (await nobody.post(ASK)).json()["errors"]
            assert error["extensions"]["code"] == "FORBIDDEN"
            assert error["message"].startswith("None of your groups gives you a role with the scope read")
            rest = await http.post("/v1/events", json={"events": []}, headers=nobody.all_headers())
            assert (rest.status_code, rest.json()["error"]["code"]) == (403, "FORBIDDEN")
        # A stream is broken off when its token ends (app/streams.py).
        services = http._transport.app.state.services  # type: ignore[attr-defined]
        lives, ended = (provider.token("rsa", exp=datetime.now(UTC) + timedelta(seconds=s)) for s in (60, -60))
        proven = [await streams.is_proven(services, {"authorization": f"Bearer {one}"}) for one in (lives, ended)]
        assert proven == [True, False]


async def test_a_token_that_is_not_for_us_signs_nobody_in(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
) -> None:
    """Expired, of another audience or issuer, by an unknown key, unsigned, by the public key as a secret, and so on."""
    provider.publish(rsa=RSA, ec=EC, small=SMALL_RSA)
    async with api(environ, provider, MUSTER_OIDC_WORKSPACE=str(workspace)) as http:
        good = provider.token("rsa", groups=["guests"])
        assert (await Caller(http, workspace, good).post(ASK)).status_code == 200
        for name, spoil in WRONG.items():
            response = await Caller(http, workspace, spoil(provider)).post(ASK)
            assert (response.status_code, response.headers.get("www-authenticate")) == (401, "Bearer"), name
            assert "eyJ" not in response.text
        long = Caller(http, workspace, provider.token("rsa", sub="x" * 256))
        assert (await long.post(ASK)).status_code == 401
        assert provider.asked == 1


async def test_keys_of_the_provider_are_changed_without_a_restart(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = [1000.0]
    monkeypatch.setattr(jwks, "monotonic", lambda: at[0])
    provider.publish(old=RSA)
    old = provider.token("old", groups=["guests"])
    async with api(environ, provider, MUSTER_OIDC_WORKSPACE=str(workspace)) as http:

        async def status(token: str) -> int:
            return (await Caller(http, workspace, token).post(ASK)).status_code

        assert await status(old) == 200
        provider.publish(new=OTHER_RSA)
        new = provider.token("new", groups=["guests"])
        assert await status(new) == 401  # asked a moment ago: not again
        at[0] += jwks.AGAIN_AFTER_S
        assert [await status(new), await status(old), provider.asked] == [200, 401, 2]


async def test_a_claim_says_which_workspace_somebody_belongs_to(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
    other_workspace: UUID,
) -> None:
    """By id or by name. Who signed in to one sees nothing of another."""
    provider.publish(rsa=RSA)
    name = (await workspaces.get(other_workspace)).name
    async with api(environ, provider, MUSTER_OIDC_WORKSPACE_CLAIM="tenant") as http:
        found = {}
        for tenant in (str(workspace), name, str(uuid4()), "nobody", "a\0b", "", 7, None):
            token = provider.token("rsa", groups=["operations"], tenant=tenant)
            for _ in range(2):  # found out, and remembered
                response = await Caller(http, workspace, token).post(ASK)
                found[tenant] = response.json().get("data", {}).get("workspace", {}).get("id", response.status_code)
        there = {str(workspace): f"wsp_{workspace.hex}", name: f"wsp_{other_workspace.hex}"}
        assert found == there | dict.fromkeys((key for key in found if key not in there), 401)


async def test_roles_are_read_from_the_claim_of_the_settings_and_from_no_other(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
) -> None:
    provider.publish(rsa=RSA)
    of_roles = {"MUSTER_OIDC_WORKSPACE": str(workspace), "MUSTER_OIDC_ROLES_CLAIM": "roles"}
    async with api(environ, provider, **of_roles) as http:
        admin = Caller(http, workspace, provider.token("rsa", roles=["operations"]))
        assert (await admin.data("AuditLog"))["edges"] == []
        for roles in (None, ["others"]):
            nobody = Caller(http, workspace, provider.token("rsa", groups=["operations"], roles=roles))
            assert (await nobody.error("AuditLog"))["code"] == "FORBIDDEN"


async def test_tokens_of_people_and_of_an_apps_users_are_told_apart_by_their_audience(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
) -> None:
    """Of one provider: whoever uses the app is no colleague, whatever groups they say that they have."""
    provider.publish(rsa=RSA)
    of_apps = {
        "MUSTER_JWKS_URL": provider.url,
        "MUSTER_JWT_ISSUER": "https://id.example.com/",
        "MUSTER_JWT_AUDIENCE": "shop",
        "MUSTER_JWT_WORKSPACE": str(workspace),
    }
    async with api(environ, provider, MUSTER_OIDC_WORKSPACE=str(workspace), **of_apps) as http:
        user = Caller(http, workspace, provider.token("rsa", aud="shop", groups=["operations"]))
        assert await who(user) == "eada"
        assert (await user.post(ASK)).json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        colleague = Caller(http, workspace, provider.token("rsa", aud=["muster"], groups=["guests"]))
        assert (await colleague.post(ASK)).json()["data"]["workspace"]["id"] == f"wsp_{workspace.hex}"
        # Nor is a colleague's token one that an app may show for a profile.
        beside = await http.post(
            "/v1/events",
            json={"events": []},
            headers={"X-Muster-Client-Token": provider.token("rsa", aud="muster", groups=["guests"])},
        )
        assert beside.status_code == 401


async def test_two_providers_may_call_us_by_one_name(
    environ: dict[str, str],
    provider: Provider,  # noqa: F811
    workspace: UUID,
) -> None:
    """Then the issuer tells people's tokens from those of an app's users."""
    provider.publish(rsa=RSA)
    of_apps = {
        "MUSTER_JWKS_URL": provider.url,
        "MUSTER_JWT_ISSUER": "https://users.example.com/",
        "MUSTER_JWT_AUDIENCE": "muster",
        "MUSTER_JWT_WORKSPACE": str(workspace),
    }
    async with api(environ, provider, MUSTER_OIDC_WORKSPACE=str(workspace), **of_apps) as http:
        user = provider.token("rsa", iss="https://users.example.com/", aud="muster", groups=["operations"])
        assert await who(Caller(http, workspace, user)) == "eada"
        colleague = provider.token("rsa", aud="muster", groups=["guests"])
        assert (await Caller(http, workspace, colleague).post(ASK)).status_code == 200


def test_settings_that_would_let_in_the_wrong_people_stop_the_start(environ: dict[str, str]) -> None:
    good = environ | SIGN_IN | {"MUSTER_ENV": "production", "MUSTER_OIDC_JWKS_URL": "https://id.example.com/keys"}
    one = str(uuid4())
    apps = {"MUSTER_JWKS_URL": "https://id.example.com/keys", "MUSTER_JWT_ISSUER": "https://id.example.com/",
            "MUSTER_JWT_AUDIENCE": "muster", "MUSTER_JWT_WORKSPACE": one}  # fmt: skip
    wrong: list[tuple[dict[str, str], str]] = [
        ({}, "MUSTER_OIDC_WORKSPACE or MUSTER_OIDC_WORKSPACE_CLAIM"),
        ({"MUSTER_OIDC_WORKSPACE": one, "MUSTER_OIDC_WORKSPACE_CLAIM": "t"}, "give one of them"),
        ({"MUSTER_OIDC_WORKSPACE": one, "MUSTER_OIDC_AUDIENCE": ""}, "MUSTER_OIDC_AUDIENCE is missing"),
        ({"MUSTER_OIDC_WORKSPACE": one, "MUSTER_OIDC_ROLES": ""}, "MUSTER_OIDC_ROLES is missing"),
        ({"MUSTER_OIDC_WORKSPACE": one, "MUSTER_OIDC_ROLES": "a=BOSS"}, "roles are VIEWER, MARKETER, SENDER, ADMIN"),
        ({"MUSTER_OIDC_WORKSPACE": one, "MUSTER_OIDC_ROLES": "a=ADMIN,a=VIEWER"}, "one role"),
        ({"MUSTER_OIDC_WORKSPACE": one, "MUSTER_OIDC_JWKS_URL": "http://id.example.com/keys"}, "must be https"),
        ({"MUSTER_OIDC_WORKSPACE": one, **apps}, "an audience of their own"),
    ]
    assert load_settings(good | {"MUSTER_OIDC_WORKSPACE": one}).oidc_roles_claim == "groups"
    for given, told in wrong:
        with pytest.raises(SettingsError) as refused:
            load_settings(good | given)
        assert told in str(refused.value), given
