"""Figures of push: `make bench-push`. Campaigns through the whole path, and the channels alone.

All send to nginx (HTTP/2 over TLS, one worker process): two workers of ours a campaign of FCM and one of APNs, from the
ledger to the last outcome; a channel of ours in one process, from a finished payload to its outcome; and in the same
run `h2load` (which sends one request over and over: the limit), aioapns and pyfcm as they come, and aiohttp over
HTTP/1.1. Prints a table and, last, one JSON line: fcm_per_s, apns_per_s, of_pyfcm, of_aioapns, of_h2load, all of them
of the whole path.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, sleep
from uuid import UUID

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.processes import choose_port, end, launched
from app.pushkeys import p8
from benchmarks.push_messages import APNS_PAYLOAD, BUNDLE_ID, FCM_PAYLOAD, PROJECT, service_account, tokens
from benchmarks.push_path import PEOPLE, whole_path
from benchmarks.tools import Missing, tool
from channels.apns import ApnsChannel, ApnsKey, ApnsSettings
from channels.base import Channel, OutcomeKind, PushMessage, PushProvider
from channels.fcm import FcmChannel, FcmSettings, ServiceAccount

MESSAGES = 60_000
LIMIT_MESSAGES = 200_000
CONNECTIONS, AT_ONCE = 2, 200
TURNS = 3
NGINX = "It is Debian's package nginx-light: apt-get install --no-install-recommends nginx-light"
H2LOAD = "It is part of Debian's package nghttp2-client: apt-get install nghttp2-client"
CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  http2_max_concurrent_streams 1000;
  server {{
    listen 127.0.0.1:{port} ssl http2; listen 127.0.0.1:{plain_port};
    ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
    location /3/device/ {{ add_header apns-id $http_apns_id; return 200; }}
    location /v1/ {{ default_type application/json; return 200 '{{"name": "projects/{project}/messages/0:1%1"}}'; }}
    location /token {{
      default_type application/json;
      return 200 '{{"access_token": "{access_token}", "expires_in": 3600, "token_type": "Bearer"}}';
    }}
  }}
}}
"""


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def make_certificate(folder: Path) -> None:
    """Key and certificate of 127.0.0.1, for a day."""
    from ipaddress import ip_address

    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """The ports, with and without TLS, of a running nginx that accepts every notification."""
    make_certificate(folder)
    port, plain_port = choose_port(folder / "port"), choose_port(folder / "plain_port")
    file = folder / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(
            folder=folder, port=port, plain_port=plain_port, project=PROJECT, access_token="ya29." + "x" * 1_000
        )
    )
    process = subprocess.Popen(launched([tool("nginx", NGINX), "-c", str(file), "-p", str(folder)], ends_with_us=True))
    try:
        sleep(0.5)
        if process.poll() is not None:
            raise Missing(f"nginx ended with {process.returncode}")
        yield port, plain_port
    finally:
        end(process, [signal.SIGTERM])  # else its worker process stays


def limit(folder: Path, port: int, path: str, body: bytes, headers: list[str]) -> float:
    """Requests a second of h2load over as many connections and streams: what nginx and a C client make of this."""
    file = folder / "body"
    file.write_bytes(body)
    counts = ["-n", str(LIMIT_MESSAGES), "-c", str(CONNECTIONS), "-m", str(AT_ONCE // CONNECTIONS), "-t", "1"]
    extra = [part for header in headers for part in ("-H", header)]
    command = [tool("h2load", H2LOAD), *counts, "-d", str(file), *extra, f"https://127.0.0.1:{port}{path}"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"finished in [^,]+, ([0-9.]+) req/s", answer)
    if found is None or f"{LIMIT_MESSAGES} 2xx" not in answer:
        raise Missing(f"h2load got other answers than hoped for: {answer[-500:]}")
    return float(found[1])


def rival(name: str, folder: Path, ports: tuple[int, int]) -> float:
    """Messages a second of somebody else's client."""
    certificate = str(folder / "certificate.pem")
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.push_rivals", name, *map(str, ports), certificate],
        env=dict(os.environ) | {"SSL_CERT_FILE": certificate, "REQUESTS_CA_BUNDLE": certificate},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(answer.stdout)


async def ours(channel: Channel[PushMessage], provider: PushProvider, payload: bytes) -> float:
    """Messages a second of a channel of ours, with AT_ONCE under way."""
    left = iter(tokens(MESSAGES))
    expires = datetime.now(UTC) + timedelta(hours=1)

    async def some() -> None:
        for n, token in enumerate(left):
            outcome = await channel.send(
                PushMessage(provider, token, payload, token, str(UUID(int=n)), expires_at=expires, collapse_id="sale")
            )
            assert outcome.kind is OutcomeKind.ACCEPTED, outcome

    began = perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    took = perf_counter() - began
    await channel.close()
    return MESSAGES / took


def in_one_loop(work: Callable[[], Awaitable[float]]) -> float:
    async def run() -> float:
        return await work()

    return uvloop.run(run())


def apns_per_s(folder: Path, port: int) -> float:
    async def run() -> float:
        tls = ssl.create_default_context(cafile=folder / "certificate.pem")
        key = ApnsKey(p8(), key_id="ABC1234567", team_id="TEAM123456")
        settings = ApnsSettings(key, BUNDLE_ID, f"https://127.0.0.1:{port}", connections=CONNECTIONS, tls=tls)
        return await ours(ApnsChannel(settings), PushProvider.APNS, APNS_PAYLOAD)

    return in_one_loop(run)


def fcm_per_s(folder: Path, port: int) -> float:
    async def run() -> float:
        tls = ssl.create_default_context(cafile=folder / "certificate.pem")
        url = f"https://127.0.0.1:{port}"
        settings = FcmSettings(ServiceAccount(service_account()), url, f"{url}/token", connections=CONNECTIONS, tls=tls)
        return await ours(FcmChannel(settings), PushProvider.FCM, FCM_PAYLOAD)

    return in_one_loop(run)


def measure(folder: Path, people: int) -> dict[str, float]:
    """The figures by name, medians of what was measured in turn."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        say(f"  {name:<18}{value:>10,.0f}/s")

    with server(folder) as ports:
        port = ports[0]
        apns_headers = ["authorization: bearer " + "x" * 200, f"apns-topic: {BUNDLE_ID}", "apns-push-type: alert",
                        "apns-priority: 10", "apns-expiration: 1", "apns-id: " + str(UUID(int=1))]  # fmt: skip
        fcm_headers = ["authorization: Bearer ya29." + "x" * 1_000, "content-type: application/json"]
        for turn in range(TURNS):
            note("h2load_apns", limit(folder, port, f"/3/device/{tokens(1)[0]}", APNS_PAYLOAD, apns_headers))
            note("apns_channel", apns_per_s(folder, port))
            note("h2load_fcm", limit(folder, port, f"/v1/projects/{PROJECT}/messages:send", FCM_PAYLOAD, fcm_headers))
            note("fcm_channel", fcm_per_s(folder, port))
            if turn == 0:
                for name in ("aioapns", "aiohttp", "pyfcm"):
                    note(name, rival(name, folder, ports))
        fcm, apns = asyncio.run(
            whole_path(folder, port, providers=(PushProvider.FCM, PushProvider.APNS), people=people)
        )
        note("fcm_per_s", fcm.per_s)
        note("apns_per_s", apns.per_s)
    figures = {name: sorted(values)[len(values) // 2] for name, values in found.items()}
    figures["of_pyfcm"] = figures["fcm_per_s"] / figures["pyfcm"]
    figures["of_aiohttp"] = figures["fcm_per_s"] / figures["aiohttp"]
    figures["of_aioapns"] = figures["apns_per_s"] / figures["aioapns"]
    figures["of_h2load"] = figures["apns_per_s"] / figures["h2load_apns"]
    figures["fcm_of_h2load"] = figures["fcm_per_s"] / figures["h2load_fcm"]
    figures["materialized_s"] = fcm.materialized_s
    return figures


LINES = (
    ("fcm_per_s", "FCM, whole path, messages a second", "at least 5,000"),
    ("apns_per_s", "APNs, whole path, messages a second", "at least 4,000"),
    ("materialized_s", "from making it to the last row of the ledger, s", ""),
    ("fcm_channel", "FCM, the channel alone", ""),
    ("apns_channel", "APNs, the channel alone", ""),
    ("pyfcm", "pyfcm as it comes", ""),
    ("of_pyfcm", "times as fast", ""),
    ("aiohttp", "aiohttp over HTTP/1.1", ""),
    ("of_aiohttp", "times as fast", ""),
    ("aioapns", "aioapns as it comes", ""),
    ("of_aioapns", "times as fast", "at least 5"),
    ("h2load_apns", "h2load, the limit, as APNs", ""),
    ("of_h2load", "of it", "at least 0.1"),
    ("h2load_fcm", "h2load, the limit, as FCM", ""),
    ("fcm_of_h2load", "of it", ""),
)
KEYS = ("fcm_per_s", "apns_per_s", "of_pyfcm", "of_aioapns", "of_h2load")


def main() -> int:
    """Measure, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=PEOPLE, help="devices that a campaign goes to")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o711)  # nginx's worker process may be nobody, who must pass here
        try:
            found = measure(folder, chosen.people)
        except Missing as missing:
            say(str(missing))
            return 1
    for key, says, budget in LINES:
        value = found[key]
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
        print(f"{says:<45}{shown:>12}   {budget}")
    print(json.dumps({key: round(found[key], 2) for key in KEYS}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
