"""FCM and APNs as this process reaches them: channels out of credentials, at the addresses of the settings."""

import asyncio
import ssl
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, assert_never
from uuid import uuid4

from campaigns.push_credentials import ApnsSecret, FcmSecret, Secret
from channels.apns import PRODUCTION, SANDBOX, ApnsChannel, ApnsKey, ApnsSettings
from channels.base import Outcome, PushMessage, PushProvider
from channels.fcm import FCM, TOKENS, FcmChannel, FcmSettings, ServiceAccount

NO_DEVICE = "0" * 64
CHECK_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class PushHosts:
    """Where the providers are; others for local ones."""

    fcm: str = FCM
    fcm_tokens: str = TOKENS
    apns: str = PRODUCTION
    apns_sandbox: str = SANDBOX


class Providers:
    """The port `campaigns.push_credentials.PushProviders`."""

    def __init__(self, hosts: PushHosts) -> None:
        self._hosts = hosts
        self._tls: ssl.SSLContext | None = None

    def facts(self, secret: Secret) -> dict[str, Any]:
        match secret:
            case FcmSecret():
                account = ServiceAccount(secret.service_account)
                return {"project_id": account.project_id, "client_email": account.client_email}
            case ApnsSecret():
                settings = self._apns(secret, CHECK_TIMEOUT)
                return {
                    "key_id": settings.key.key_id,
                    "team_id": settings.key.team_id,
                    "bundle_id": settings.bundle_id,
                    "sandbox": secret.sandbox,
                }
            case _:
                assert_never(secret)

    def channel(self, secret: Secret, *, timeout: timedelta) -> FcmChannel | ApnsChannel:
        """A channel of its own, with connections of its own; whoever asks closes it. It takes a while: ask in a
        thread."""
        if self._tls is None:  # the system's authorities are read once, in some 50 ms
            self._tls = ssl.create_default_context()
        match secret:
            case FcmSecret():
                account = ServiceAccount(secret.service_account)
                hosts = self._hosts
                return FcmChannel(FcmSettings(account, hosts.fcm, hosts.fcm_tokens, timeout, tls=self._tls))
            case ApnsSecret():
                return ApnsChannel(replace(self._apns(secret, timeout), tls=self._tls))
            case _:
                assert_never(secret)

    async def check(self, secret: Secret) -> Outcome:
        channel = await asyncio.to_thread(self.channel, secret, timeout=CHECK_TIMEOUT)
        try:
            if isinstance(channel, FcmChannel):
                return await channel.check()
            payload = b'{"aps":{"alert":"Muster"}}'
            return await channel.check(PushMessage(PushProvider.APNS, NO_DEVICE, payload, "check", str(uuid4())))
        finally:
            await channel.close()

    def _apns(self, secret: ApnsSecret, timeout: timedelta) -> ApnsSettings:
        key = ApnsKey(secret.p8, key_id=secret.key_id, team_id=secret.team_id)
        return ApnsSettings(
            key, secret.bundle_id, self._hosts.apns_sandbox if secret.sandbox else self._hosts.apns, timeout
        )
