"""T-12: every phase of an SMTP conversation against every way a server can answer it, or not.

The table is the one of delivery rules: only what broke after the final dot is in doubt, only 5.1.x of a recipient
suppresses, 421 never does, and what is about the host or our login fails nobody.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
import uvloop

from channels.base import EmailMessage, OutcomeKind, OutcomeScope
from channels.smtp import SmtpChannel, SmtpSettings
from tests.servers import Act, Do, ScriptedSmtp, client_tls, server_tls

PHASES = ("banner", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "final")
"""`body`: while the message leaves, before its dot; `final`: the server has the dot."""
K, S = OutcomeKind, OutcomeScope
Cell = tuple[OutcomeKind, str, OutcomeScope, bool]
"""Kind, code, scope, and whether the address is suppressed."""


def later(code: str, scope: OutcomeScope) -> Cell:
    return K.DEFERRED, code, scope, False


def refused(code: str) -> Cell:
    return K.REFUSED, code, S.RECIPIENT, code == "BAD_ADDRESS"


AWAY = later("HOST_UNAVAILABLE", S.HOST)
LOGIN = later("AUTHENTICATION", S.CHANNEL)
SENDER = later("SENDER_REFUSED", S.CHANNEL)
TRY = later("TRY_LATER", S.RECIPIENT)
HOST_BUSY = later("TRY_LATER", S.HOST)


def column(handshake: Cell, auth: Cell, mail: Cell, *after: Cell) -> dict[str, Cell]:
    """`after`: RCPT, DATA, body, final dot; one for all four, or each."""
    four = after * 4 if len(after) == 1 else after
    return dict(zip(PHASES, (handshake, handshake, handshake, auth, mail, *four), strict=True))


def silence(code: str, *, handshake: str = "") -> dict[str, Cell]:
    """No answer: definite until the dot, in doubt after."""
    first, host, one = later(handshake or code, S.HOST), later(code, S.HOST), later(code, S.RECIPIENT)
    return column(first, first, host, one, one, one, (K.IN_DOUBT, code, S.RECIPIENT, False))


CLOSING = later("SERVER_CLOSING", S.HOST)
TABLE: dict[Act, dict[str, Cell]] = {
    "450 4.2.0 later": column(AWAY, LOGIN, HOST_BUSY, TRY),
    "451 4.3.0 later": column(AWAY, LOGIN, HOST_BUSY, HOST_BUSY),
    "421 4.3.2 closing": column(CLOSING, CLOSING, CLOSING, CLOSING),
    "421 5.1.1 no such user": column(CLOSING, CLOSING, CLOSING, CLOSING),
    "550 never": column(AWAY, LOGIN, SENDER, refused("REFUSED")),
    "550 5.1.1 no such user": column(AWAY, LOGIN, SENDER, refused("BAD_ADDRESS")),
    "553 5.1.3 bad syntax": column(AWAY, LOGIN, SENDER, refused("BAD_ADDRESS")),
    "550 5.7.1 policy": column(AWAY, LOGIN, SENDER, refused("POLICY")),
    "552 5.2.2 full": column(AWAY, LOGIN, SENDER, refused("MAILBOX_REFUSED")),
    "530 5.7.0 log in first": column(LOGIN, LOGIN, LOGIN, LOGIN),
    Do.EOF: silence("CONNECTION_LOST", handshake="CONNECT_FAILED"),
    Do.HANG: silence("TIMEOUT"),
    Do.HALF_THEN_EOF: silence("CONNECTION_LOST", handshake="CONNECT_FAILED"),
    Do.HALF_THEN_HANG: silence("TIMEOUT"),
    "what?": silence("BAD_REPLY"),
}
SMALL = b"Subject: x\r\n\r\nHello\r\n"
LARGE = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 1_000_000 + b"\r\n"
"""More than the buffers of both kernels hold, so that its final dot cannot leave while nobody reads."""


@dataclass(frozen=True)
class Way:
    """How the conversation is held."""

    pipelining: bool
    encrypted: bool
    loop: Callable[[], asyncio.AbstractEventLoop]


WAYS = {
    "pipelined": Way(True, False, uvloop.new_event_loop),
    "one by one": Way(False, False, asyncio.new_event_loop),
    "encrypted": Way(True, True, uvloop.new_event_loop),
    "encrypted, one by one": Way(False, True, asyncio.new_event_loop),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("act", TABLE, ids=str)
def test_what_a_server_does_means_in_every_phase_what_the_table_says(act: Act, way: Way) -> None:
    async def row() -> list[Cell]:
        return await asyncio.gather(*(cell(phase, act, way) for phase in PHASES))

    with asyncio.Runner(loop_factory=way.loop) as runner:
        found = dict(zip(PHASES, runner.run(row()), strict=True))
    expected = TABLE[act]
    if way.encrypted and expected["final"][0] is K.IN_DOUBT:
        # How much of a message TLS has handed to the kernel it does not say: to be in doubt is then the safe answer.
        expected = expected | {"body": expected["final"]}
    assert found == expected


async def cell(phase: str, act: Act, way: Way) -> Cell:
    """What one message comes to when the server does this in that phase."""
    encrypted = way.encrypted and phase != "starttls"
    scheme = "smtp+starttls" if phase == "starttls" else "smtps" if encrypted else "smtp"
    login = "muster:secret@" if phase == "auth" else ""
    tls = server_tls() if scheme != "smtp" else None
    patience = timedelta(seconds=2 if act in (Do.HANG, Do.HALF_THEN_HANG) else 60)
    async with ScriptedSmtp({phase: [act]}, pipelining=way.pipelining, tls=tls, encrypted=encrypted) as server:
        url = f"{scheme}://{login}localhost:{server.port}"
        channel = SmtpChannel(SmtpSettings.parse(url, timeout=patience, tls=client_tls()))
        data = LARGE if phase == "body" else SMALL
        outcome = await channel.send(EmailMessage("news@shop.example", "ann@example.com", data, "delivery-1"))
        await channel.close()
    assert server.received == []
    return outcome.kind, outcome.code, outcome.scope, outcome.bad_address


def test_the_table_has_the_columns_and_rows_of_the_rules() -> None:
    """Only after the dot in doubt; 421 suppresses nobody, and nothing does but 5.1.x from RCPT on."""
    cells = {(act, phase): found for act, phases in TABLE.items() for phase, found in phases.items()}
    assert {phase for (_, phase), (kind, *_) in cells.items() if kind is K.IN_DOUBT} == {"final"}
    suppressing = {(act, phase) for (act, phase), found in cells.items() if found[3]}
    assert {str(act).split()[1][:4] for act, _ in suppressing} == {"5.1."}
    assert {phase for _, phase in suppressing} == {"rcpt", "data", "body", "final"}
    assert not any(str(act).startswith("421") for act, _ in suppressing)
