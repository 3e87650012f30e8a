"""Who an app may be: nobody acts as somebody else with a publishable key, and tokens of other issuers are proven."""

import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app import jwks
from app.auth import kept_claims
from app.settings import load_settings
from tests.app.caller import Caller
from tests.app.conftest import client_of
from tests.app.test_api_banners import show

DEVICE = {"provider": "FCM", "token": "t1", "platform": "ANDROID"}
FORBIDDEN = ("FORBIDDEN", ["input", "anonymousId"])


@pytest.fixture(autouse=True)
def always_read_boards_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.boards.OLDEST_S", 0.0)


@dataclass(frozen=True)
class Visitor:
    """A device that nobody is signed in to, with what the server gave it."""

    app: Caller
    anonymous_id: str

    def event(self, id: str, **more: Any) -> dict[str, Any]:
        return {"messageId": id, "name": "visit", "anonymousId": self.anonymous_id} | more


async def visitor(app: Caller) -> Visitor:
    """A new one: the first fetch of banners says who it is."""
    answer = await app.data("Banners", placements=["home-top"])
    return Visitor(app.with_headers(x_muster_viewer=answer["viewerToken"]), answer["viewer"])


async def told(caller: Caller, *events: dict[str, Any]) -> list[Any]:
    """How many events were accepted, and the code and field of each refusal, by both ways in."""
    payload = (await caller.ask("EventsTrack", input={"events": events}))["data"]["eventsTrack"]
    found = [payload["accepted"], *((e["code"], e["field"][-1]) for e in payload["userErrors"])]
    again = [event | {"messageId": f"again {event['messageId']}"} for event in events]
    response = await caller.http.post("/v1/events", json={"events": again}, headers=caller.all_headers())
    answer = response.json()
    assert found == [answer["accepted"], *((e["code"], e["field"][-1]) for e in answer["errors"])]
    return found


async def signed_in(console: Caller, app: Caller, name: str) -> Caller:
    made = await console.data("ClientTokenCreate", input={"externalId": name})
    return app.with_headers(x_muster_client_token=made["token"])


async def test_an_app_speaks_of_the_visitor_that_the_server_made(app_caller: Caller, console: Caller) -> None:
    """S3-29. Not of one it made up: whoever guesses such an id would be that visitor."""
    one = await visitor(app_caller)
    assert await told(one.app, one.event("1"), {"messageId": "2", "name": "visit"}) == [2]
    assert (await one.app.data("DeviceRegister", input=DEVICE))["deviceId"]
    made_up = one.event("3", anonymousId="v1")
    assert await told(one.app, made_up, one.event("4")) == [1, ("FORBIDDEN", "anonymousId")]
    assert await told(app_caller, one.event("5")) == [0, ("FORBIDDEN", "anonymousId")]
    assert await one.app.refusal("DeviceRegister", input=DEVICE | {"anonymousId": "v1"}) == FORBIDDEN
    # A server may: it knows whom it speaks of.
    assert await told(console, made_up) == [1]


async def test_nobody_is_another_visitor(app_caller: Caller, console: Caller, foreigner: Caller) -> None:
    mine, theirs = await visitor(app_caller), await visitor(app_caller)
    assert await told(mine.app, theirs.event("1")) == [0, ("FORBIDDEN", "anonymousId")]
    spoiled = theirs.app.headers["x-muster-viewer"][:-1]
    assert await told(app_caller.with_headers(x_muster_viewer=spoiled), theirs.event("2")) == [
        0,
        ("FORBIDDEN", "anonymousId"),
    ]
    # Somebody who is signed in is no visitor either.
    ada = (await signed_in(console, app_caller, "ada")).with_headers(
        x_muster_viewer=mine.app.headers["x-muster-viewer"]
    )
    assert await told(ada, theirs.event("3"), {"messageId": "4", "name": "visit"}) == [1, ("FORBIDDEN", "anonymousId")]


async def test_the_alias_of_somebody_identified_is_worth_nothing_to_a_publishable_key(
    app_caller: Caller, console: Caller
) -> None:
    """No events for them, and no device that would receive their notifications."""
    one = await visitor(app_caller)
    assert await told(one.app, one.event("1")) == [1]
    await console.data("ProfileIdentify", input={"anonymousId": one.anonymous_id, "externalId": "ada"})
    assert await told(one.app, one.event("2")) == [0, ("FORBIDDEN", "anonymousId")]
    assert await one.app.refusal("DeviceRegister", input=DEVICE | {"anonymousId": one.anonymous_id}) == FORBIDDEN
    answer = await one.app.ask("DeviceRegister", input=DEVICE)
    (nobody,) = answer["data"]["deviceRegister"]["userErrors"]
    assert nobody["code"] == "ONE_IDENTITY"
    assert "X-Muster-Viewer" in nobody["message"]  # to a server it would be the two ids
    assert (await console.data("Profile", externalId="ada"))["devices"] == []
    # With a client token she is herself, whatever the device was called before.
    ada = await signed_in(console, one.app, "ada")
    assert await told(ada, {"messageId": "3", "name": "visit"}) == [1]
    assert (await ada.data("DeviceRegister", input=DEVICE))["deviceId"]
    assert len((await console.data("Profile", externalId="ada"))["devices"]) == 1


async def test_identify_merges_what_the_visitor_did(app_caller: Caller, console: Caller) -> None:
    one = await visitor(app_caller)
    first = "2026-01-02T03:04:05Z"
    await told(one.app, one.event("1", occurredAt=first, city="Oslo"))
    await one.app.data("DeviceRegister", input=DEVICE)
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    merged = await console.data("ProfileIdentify", input={"anonymousId": one.anonymous_id, "externalId": "ada"})
    assert merged["merged"] is True
    ada = await console.data("Profile", externalId="ada")
    assert (ada["firstSeenAt"], [device["provider"] for device in ada["devices"]]) == (first, ["FCM"])


async def test_nobody_reads_the_banners_of_somebody_else(app_caller: Caller, console: Caller) -> None:
    """Her viewer token spares a look-up and grants nothing: without her client token it is a stranger's."""
    await console.data("ProfileUpsert", input={"externalId": "ada"})
    segment = (await console.data("SegmentCreate", input={"name": "VIPs", "type": "STATIC"}))["segment"]["id"]
    await console.data("SegmentActivate", input={"id": segment})
    await console.data("SegmentMembersAdd", input={"id": segment, "externalIds": ["ada"]})
    await show(console, "For VIPs", segmentIds=[segment])
    ada = await signed_in(console, app_caller, "ada")
    hers = await ada.data("Banners", placements=["home-top"])
    assert hers["placements"][0]["banner"]["content"]["title"] == "For VIPs"
    thief = app_caller.with_headers(x_muster_viewer=hers["viewerToken"])
    bob = (await signed_in(console, app_caller, "bob")).with_headers(x_muster_viewer=hers["viewerToken"])
    for other in (thief, bob):
        theirs = await other.data("Banners", placements=["home-top"])
        assert theirs["placements"][0]["banner"] is None
        assert theirs["viewer"] != hers["viewer"]
        rest = await other.http.get("/v1/banners", params={"placement": "home-top"}, headers=other.all_headers())
        assert rest.json()["placements"][0]["banner"] is None
    # Nor does it speak for her.
    assert await thief.refusal("DeviceRegister", input=DEVICE) == ("ONE_IDENTITY", None)


@dataclass
class Provider:
    """An identity provider on a socket of its own, and the keys it publishes."""

    url: str = ""
    document: Any = None
    asked: int = 0
    keys: dict[str, Any] = field(default_factory=dict)

    def publish(self, **keys: Any) -> None:
        """Only these from now on, by kid."""
        self.keys = keys
        self.document = {"keys": [public_jwk(key) | {"kid": kid, "use": "sig"} for kid, key in keys.items()]}

    def token(self, kid: str, *, key: Any = None, alg: str = "RS256", **claims: Any) -> str:
        """A token as the provider makes it."""
        told = {
            "iss": "https://id.example.com/",
            "aud": "muster",
            "sub": "ada",
            "exp": datetime.now(UTC) + timedelta(hours=1),
        } | claims
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key or self.keys[kid], algorithm=alg, headers={"kid": kid})


def public_jwk(key: Any) -> dict[str, Any]:
    kinds = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", ed25519.Ed25519PrivateKey: "EdDSA"}
    (name,) = [name for kind, name in kinds.items() if isinstance(key, kind)]
    algorithm: Any = jwt.get_algorithm_by_name(name)
    found: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return found | {"alg": name}


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            body = json.dumps(made.document).encode()
            self.send_response(200 if made.document is not None else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/keys"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def api(environ: dict[str, str], provider: Provider, workspace_id: UUID) -> AsyncIterator[httpx2.AsyncClient]:
    """The API with this provider for one workspace."""
    settings = load_settings(
        environ
        | {
            "MUSTER_ENV": "development",
            "MUSTER_JWKS_URL": provider.url,
            "MUSTER_JWT_ISSUER": "https://id.example.com/",
            "MUSTER_JWT_AUDIENCE": "muster",
            "MUSTER_JWT_WORKSPACE": str(workspace_id),
        }
    )
    async with client_of(settings) as client:
        yield client


async def who(caller: Caller) -> str | None:
    """The external id that the caller's events are written for; None when it is refused."""
    response = await caller.post('{ banners(placements: ["x"]) { viewer } }')
    if response.status_code == 401:
        assert "eyJ" not in response.text
        return None
    found: str = response.json()["data"]["banners"]["viewer"]
    return found


async def test_tokens_of_an_identity_provider_stand_for_client_tokens(
    environ: dict[str, str], provider: Provider, workspace: UUID, app_caller: Caller, console: Caller
) -> None:
    """As a bearer, or beside the publishable key; by each algorithm; its claims fill the variables of banners."""
    provider.publish(rsa=RSA, ec=EC, ed=ED)
    await show(
        console,
        "Sale",
        content={"banner": {"title": "Hi {{given_name}}", "variables": [{"name": "given_name", "default": "you"}]}},
    )
    async with api(environ, provider, workspace) as http:
        for kid, alg in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")):
            bearer = Caller(http, workspace, provider.token(kid, alg=alg))
            assert await who(bearer) == "eada"
            both = Caller(http, workspace, app_caller.key, {"x-muster-client-token": provider.token(kid, alg=alg)})
            assert await who(both) == "eada"
        claims = provider.token("rsa", given_name="Ada", groups=["a"], address={"city": "Oslo"})
        answer = await Caller(http, workspace, claims).data("Banners", placements=["home-top"])
        assert answer["placements"][0]["banner"]["content"]["title"] == "Hi Ada"
        assert provider.asked == 1


Spoil = Callable[[Provider], str]
HMAC_KEY = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hand(header: dict[str, Any], signature_of: Callable[[bytes], bytes]) -> str:
    """A token that no library would make."""
    encode = jwt.utils.base64url_encode
    claims = {"iss": "https://id.example.com/", "aud": "muster", "sub": "ada", "exp": 4102444800}
    signed = encode(json.dumps(header).encode()) + b"." + encode(json.dumps(claims).encode())
    return (signed + b"." + encode(signature_of(signed))).decode()


def with_public_key_as_secret(signed: bytes) -> bytes:
    return hmac.digest(HMAC_KEY, signed, "sha256")


def with_small_key(signed: bytes) -> bytes:
    return SMALL_RSA.sign(signed, PKCS1v15(), SHA256())


NESTED = jwt.utils.base64url_encode(b'{"alg": "RS256", "a": ' + b"[" * 2800).decode()
"""Deeper than a reader of JSON goes, and short enough to be read."""
WRONG: dict[str, Spoil] = {
    "expired": lambda one: one.token("rsa", exp=datetime.now(UTC) - timedelta(minutes=1)),
    "an end that no calendar has": lambda one: one.token("rsa", exp=4_102_444_800_000),
    "without an end": lambda one: one.token("rsa", exp=None),
    "not yet": lambda one: one.token("rsa", nbf=datetime.now(UTC) + timedelta(hours=1)),
    "another audience": lambda one: one.token("rsa", aud="somebody else"),
    "no audience": lambda one: one.token("rsa", aud=None),
    "another issuer": lambda one: one.token("rsa", iss="https://id.example.org/"),
    "nobody": lambda one: one.token("rsa", sub=None),
    "an empty name": lambda one: one.token("rsa", sub=" "),
    "unknown key": lambda one: one.token("other", key=OTHER_RSA),
    "signed by another": lambda one: one.token("rsa", key=OTHER_RSA),
    "a small key": lambda one: by_hand({"alg": "RS256", "kid": "small"}, with_small_key),
    "unsigned": lambda one: by_hand({"alg": "none", "kid": "rsa", "typ": "JWT"}, lambda signed: b""),
    "by the public key as a secret": lambda one: by_hand({"alg": "HS256", "kid": "rsa"}, with_public_key_as_secret),
    "by a published secret": lambda one: one.token("oct", key=b"a shared secret of 32 bytes or more", alg="HS256"),
    "by a private key that was published": lambda one: one.token("leaked", key=OTHER_RSA),
    "by a key for other ends": lambda one: one.token("sealing", key=OTHER_RSA),
    "another algorithm of its key": lambda one: one.token("rsa", alg="RS512"),
    "another kind of key": lambda one: one.token("ec", key=RSA),
    "no kid": lambda one: by_hand({"alg": "RS256"}, lambda signed: b"x"),
    "cut": lambda one: one.token("rsa")[:-4],
    "no token": lambda one: "a.b.c",
    "lists in lists": lambda one: f"{NESTED}.{NESTED}.AA",
    "lists in lists under a good head": lambda one: f"{one.token('rsa').partition('.')[0]}.{NESTED}.AA",
    "an end in words": lambda one: one.token("rsa", exp="4102444800"),
    "too long": lambda one: one.token("rsa", more="x" * 9000),
}


async def test_a_token_that_is_not_for_us_opens_nothing(
    environ: dict[str, str], provider: Provider, workspace: UUID, app_caller: Caller
) -> None:
    provider.publish(rsa=RSA, ec=EC, small=SMALL_RSA)
    secret = {"kty": "oct", "kid": "oct", "alg": "HS256", "k": "YSBzaGFyZWQgc2VjcmV0IG9mIDMyIGJ5dGVzIG9yIG1vcmU"}
    leaked = {"kid": "leaked", "alg": "RS256", **jwt.get_algorithm_by_name("RS256").to_jwk(OTHER_RSA, as_dict=True)}
    sealing = public_jwk(OTHER_RSA) | {"kid": "sealing", "use": "enc"}
    provider.document["keys"] += [secret, leaked, sealing]
    provider.document["keys"] += [{"kty": "new"}, {"kty": "RSA", "kid": "broken", "n": "AQ", "e": "?"}]
    async with api(environ, provider, workspace) as http:
        assert await who(Caller(http, workspace, provider.token("rsa"))) == "eada"
        for name, spoil in WRONG.items():
            token = spoil(provider)
            assert await who(Caller(http, workspace, token)) is None, name
            beside = Caller(http, workspace, app_caller.key, {"x-muster-client-token": token})
            assert await who(beside) is None, name
        # However many unknown keys were named: the provider was not asked about each.
        assert provider.asked == 1


async def test_a_provider_speaks_for_its_one_workspace_only(
    environ: dict[str, str], provider: Provider, workspace: UUID, foreigner: Caller
) -> None:
    provider.publish(rsa=RSA)
    async with api(environ, provider, workspace) as http:
        there = Caller(http, foreigner.workspace_id, foreigner.key, {"x-muster-client-token": provider.token("rsa")})
        assert (await there.post("{ workspace { id } }")).status_code == 200  # a server is not asked who it is
        alone = Caller(http, foreigner.workspace_id, provider.token("rsa"))
        await alone.data("EventsTrack", input={"events": [{"messageId": "1", "name": "visit"}]})
        assert await foreigner.data("Profile", externalId="ada") is None


async def test_keys_are_changed_without_a_restart(
    environ: dict[str, str], provider: Provider, workspace: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key is read when a token names it; one that was taken back opens nothing when keys are next read. While the
    provider is away, known keys go on."""
    at = [1000.0]
    monkeypatch.setattr(jwks, "monotonic", lambda: at[0])
    provider.publish(old=RSA)
    old = provider.token("old")
    async with api(environ, provider, workspace) as http:
        assert await who(Caller(http, workspace, old)) == "eada"
        provider.publish(new=OTHER_RSA)
        new = provider.token("new")
        # Asked a moment ago: not again.
        assert (await who(Caller(http, workspace, new)), provider.asked) == (None, 1)
        at[0] += jwks.AGAIN_AFTER_S
        assert (await who(Caller(http, workspace, new + "")), provider.asked) == ("eada", 2)
        assert await who(Caller(http, workspace, provider.token("old", key=RSA))) is None
        provider.document = None
        at[0] += jwks.FRESH_FOR_S + 1
        assert (await who(Caller(http, workspace, provider.token("new", jti="2"))), provider.asked) == ("eada", 3)
        at[0] += jwks.KEPT_FOR_S
        assert (await who(Caller(http, workspace, provider.token("new", jti="3"))), provider.asked) == (None, 4)


async def test_keys_without_end_are_not_read(environ: dict[str, str], provider: Provider, workspace: UUID) -> None:
    """What claims to be the provider may send anything."""
    provider.publish(rsa=RSA)
    provider.document["more"] = "x" * jwks.LARGEST_KEYS
    async with api(environ, provider, workspace) as http:
        assert (await who(Caller(http, workspace, provider.token("rsa"))), provider.asked) == (None, 1)


async def test_what_a_providers_token_says_of_itself_is_no_variable(
    environ: dict[str, str], provider: Provider, workspace: UUID, console: Caller
) -> None:
    """Nor is what is no single value, or too long to be one."""
    provider.publish(rsa=RSA)
    names = ("given_name", "sub", "iss", "jti", "groups", "essay")
    variables = [{"name": name, "default": "-"} for name in names]
    title = " ".join(f"{{{{{name}}}}}" for name in names)
    await show(console, "Sale", content={"banner": {"title": title, "variables": variables}})
    async with api(environ, provider, workspace) as http:
        token = provider.token("rsa", given_name="Ada", jti="1", groups=["a"], essay="x" * 501)
        answer = await Caller(http, workspace, token).data("Banners", placements=["home-top"])
        assert answer["placements"][0]["banner"]["content"]["title"] == "Ada - - - - -"
    many = {str(number): number for number in range(99)}
    assert kept_claims(many | {"deep": {"er": 1}}) == {str(number): number for number in range(50)}


async def test_claims_of_a_client_token_are_single_values(console: Caller) -> None:
    wrong: list[Any] = [[], "x", {"a": {}}, {"a": None}, {"a": "x" * 501}, {str(n): n for n in range(51)}]
    for claims in wrong:
        assert await console.refusal("ClientTokenCreate", input={"externalId": "ada", "claims": claims}) == (
            "INVALID_CLAIMS",
            ["input", "claims"],
        )
    good = {"first_name": "Ada", "vip": True, "orders": 3, "rate": 0.5}
    assert (await console.data("ClientTokenCreate", input={"externalId": "ada", "claims": good}))["token"]
