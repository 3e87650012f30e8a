"""What others make of the same server: `python -m benchmarks.push_rivals pyfcm|aioapns|aiohttp PORT PLAIN_PORT`.

A process of its own, since pyfcm and requests find the certificate by the environment only. Prints messages a second.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from app.pushkeys import p8
from benchmarks.push_messages import APNS_PAYLOAD, BUNDLE_ID, FCM_PAYLOAD, PROJECT, service_account, tokens

AT_ONCE = 100
AIOAPNS_MESSAGES, AIOHTTP_MESSAGES, PYFCM_MESSAGES = 5_000, 10_000, 1_000


async def aioapns(port: int, certificate: str) -> float:
    """aioapns as it comes, but for the address it sends to."""
    from aioapns import APNs, NotificationRequest
    from aioapns.connection import APNsTLSClientProtocol

    class Here(APNsTLSClientProtocol):
        APNS_SERVER, APNS_PORT = "127.0.0.1", port

    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    client = APNs(key=p8(), key_id="ABC1234567", team_id="TEAM123456", topic=BUNDLE_ID, ssl_context=context)
    client.pool.protocol_class = Here
    payload = json.loads(APNS_PAYLOAD)

    async def one(token: str) -> None:
        result = await asyncio.wait_for(client.send_notification(NotificationRequest(token, payload)), 20)
        assert result.is_successful

    return await per_s(one, tokens(AIOAPNS_MESSAGES))


async def aiohttp(port: int, certificate: str) -> float:
    """aiohttp over HTTP/1.1, as many connections as messages under way."""
    import aiohttp as library

    context = ssl.create_default_context(cafile=certificate)
    url = f"https://127.0.0.1:{port}/v1/projects/{PROJECT}/messages:send"
    headers = {"authorization": "Bearer " + "x" * 1_000, "content-type": "application/json"}
    connector = library.TCPConnector(limit=AT_ONCE, ssl=context)
    async with library.ClientSession(connector=connector, headers=headers) as session:

        async def one(token: str) -> None:
            body = b'{"message":{"token":"%s",%s}' % (token.encode(), FCM_PAYLOAD[1:])
            async with session.post(url, data=body) as response:
                assert response.status == 200
                await response.read()

        return await per_s(one, tokens(AIOHTTP_MESSAGES))


def pyfcm(port: int, plain_port: int) -> float:
    """pyfcm's asynchronous path as it comes: it runs a loop of its own."""
    from google.oauth2.service_account import Credentials
    from pyfcm import FCMNotification

    FCMNotification.FCM_END_POINT_BASE = f"https://127.0.0.1:{port}/v1/projects"
    info = json.loads(service_account()) | {"token_uri": f"http://127.0.0.1:{plain_port}/token"}
    client = FCMNotification(credentials=Credentials.from_service_account_info(info, scopes=["x"]), project_id=PROJECT)
    notification = json.loads(FCM_PAYLOAD)["notification"]
    params: list[dict[str, Any]] = [
        {"fcm_token": token, "notification_title": notification["title"], "notification_body": notification["body"]}
        for token in tokens(AT_ONCE)
    ]
    began = perf_counter()
    for _ in range(PYFCM_MESSAGES // AT_ONCE):
        results = client.async_notify_multiple_devices(params)
        assert all("name" in one for one in results)
    return PYFCM_MESSAGES / (perf_counter() - began)


async def per_s(one: Any, wanted: list[str]) -> float:
    """Messages a second with AT_ONCE under way."""
    left = iter(wanted)

    async def some() -> None:
        for token in left:
            await one(token)

    began = perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return len(wanted) / (perf_counter() - began)


def main() -> None:
    name, port, plain_port, certificate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    assert Path(certificate).exists()
    if name == "pyfcm":
        print(pyfcm(port, plain_port))
    else:
        print(asyncio.run({"aioapns": aioapns, "aiohttp": aiohttp}[name](port, certificate)))


if __name__ == "__main__":
    main()
