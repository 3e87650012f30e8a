"""SMTP against a scripted server: TLS, login, limits, the pool, what goes over the wire."""

import asyncio
import re
import ssl
from datetime import timedelta

import pytest

from channels.base import EmailMessage, Outcome, OutcomeKind, OutcomeScope
from channels.smtp import SmtpChannel, SmtpSettings, on_the_wire
from tests.servers import Act, Do, ScriptedSmtp, client_tls, server_tls

K, S = OutcomeKind, OutcomeScope
PATIENCE = timedelta(seconds=30)


def message(data: bytes = b"Subject: x\r\n\r\nHello\r\n", recipient: str = "ann@example.com") -> EmailMessage:
    return EmailMessage("news@shop.example", recipient, data, "delivery-1")


async def send(server: ScriptedSmtp, one: EmailMessage, timeout: timedelta = PATIENCE) -> Outcome:
    channel = SmtpChannel(SmtpSettings.parse(server.url, timeout=timeout))
    try:
        return await channel.send(one)
    finally:
        await channel.close()


async def test_a_server_that_is_not_there_or_has_no_name_is_the_hosts_matter() -> None:
    for url in ("smtp://127.0.0.1:1", "smtp://no-such-host.invalid:25"):
        outcome = await SmtpChannel(SmtpSettings.parse(url)).send(message())
        assert (outcome.kind, outcome.code, outcome.scope) == (K.DEFERRED, "CONNECT_FAILED", S.HOST)


# What goes over the wire


async def test_commands_are_pipelined_only_where_advertised() -> None:
    async with ScriptedSmtp({"mail": [Do.EOF]}) as server:
        await send(server, message())
        assert [line.split()[0] for line in server.commands] == ["EHLO", "MAIL"]
    async with ScriptedSmtp({"rcpt": ["450 later"]}, pipelining=False) as server:
        await send(server, message())
        assert "DATA" not in server.commands


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("data_without_recipient", [True, False])
async def test_after_a_refused_recipient_the_connection_is_reset_and_used_again(
    pipelining: bool, data_without_recipient: bool
) -> None:
    async with ScriptedSmtp(
        {"rcpt": ["550 5.1.1 unknown"]}, pipelining=pipelining, data_without_recipient=data_without_recipient
    ) as server:
        channel = SmtpChannel(SmtpSettings.parse(server.url))
        refused = await channel.send(message(recipient="bob@example.com"))
        accepted = await channel.send(message())
        await channel.close()
    assert (refused.kind, accepted.kind) == (K.REFUSED, K.ACCEPTED)
    assert server.connections == 1
    assert [one.rcpt for one in server.received] == ["RCPT TO:<ann@example.com>"]


DOTS = b"Subject: x\r\n\r\n.\r\n..\r\n.dot\r\nend.\r\n"


async def test_lines_that_begin_with_a_dot_arrive_as_they_were() -> None:
    async with ScriptedSmtp() as server:
        await send(server, message(DOTS))
    assert [one.data for one in server.received] == [DOTS]


@pytest.mark.parametrize(
    "data",
    [
        b"a\n.\nMAIL FROM:<evil@example.com>\n",
        b"a\r\n.\rb\n.\r\n",
        b".",
        b"",
        b"no end",
        b"x\n.\r\nRSET\r\n",
        b"x\r\n.\r\nRSET\r\n",
    ],
)
def test_nothing_in_a_message_can_end_it(data: bytes) -> None:
    wire = on_the_wire(data)
    assert wire.endswith(b"\r\n.\r\n")
    assert re.search(rb"(?:^|\n)\.[\r\n]", wire.removesuffix(b".\r\n")) is None


UNWRITABLE = [
    "ann@example.com\r\nRSET",
    "ann@example.com>\nRCPT TO:<x@y.z",
    "a\x00@b.c",
    "a b@c.d",
    "<a@b.c>",
    "a\u2028@b.c",
    "x",
]


@pytest.mark.parametrize("address", UNWRITABLE)
@pytest.mark.parametrize("place", ["sender", "recipient"])
async def test_an_address_that_could_end_a_command_never_reaches_the_wire(address: str, place: str) -> None:
    sender, recipient = (address, "a@b.c") if place == "sender" else ("a@b.c", address)
    one = EmailMessage(sender, recipient, b"", "k")
    async with ScriptedSmtp() as server:
        outcome = await send(server, one)
    assert (outcome.kind, outcome.code) == (K.REFUSED, "NOT_AN_ADDRESS")
    assert [line.split()[0] for line in server.commands] in (["EHLO"], ["EHLO", "QUIT"])


async def test_an_international_domain_is_written_in_a_labels() -> None:
    async with ScriptedSmtp() as server:
        await send(server, message(recipient="ann@bücher.example"))
    assert server.received[0].rcpt == "RCPT TO:<ann@xn--bcher-kva.example>"


async def test_letters_beyond_ascii_before_the_at_need_smtputf8() -> None:
    one = message(recipient="jörg@example.com")
    async with ScriptedSmtp() as plain:
        refused = await send(plain, one)
    async with ScriptedSmtp(extensions=["SMTPUTF8", "8BITMIME"]) as modern:
        accepted = await send(modern, one)
    assert (refused.kind, refused.code, refused.scope) == (K.REFUSED, "UTF8_ADDRESS", S.RECIPIENT)
    assert accepted.kind is K.ACCEPTED
    assert modern.received[0].mail.endswith(" SMTPUTF8")
    assert modern.received[0].rcpt == "RCPT TO:<jörg@example.com>"


async def test_a_message_larger_than_the_server_takes_is_refused_before_it_leaves() -> None:
    async with ScriptedSmtp(extensions=["SIZE 1000"]) as server:
        channel = SmtpChannel(SmtpSettings.parse(server.url))
        assert await channel.largest_message() == 1000
        outcome = await channel.send(message(b"x" * 1001))
        await channel.close()
    assert (outcome.kind, outcome.code, outcome.scope) == (K.REFUSED, "MESSAGE_TOO_LARGE", S.CHANNEL)
    assert not any(line.startswith("MAIL") for line in server.commands)


# TLS and login


@pytest.mark.parametrize("encrypted", [True, False], ids=["smtps", "starttls"])
async def test_mail_goes_over_tls_with_a_login(encrypted: bool) -> None:
    async with ScriptedSmtp(tls=server_tls(), encrypted=encrypted) as server:
        scheme = "smtps" if encrypted else "smtp+starttls"
        url = f"{scheme}://muster:s%40crt@localhost:{server.port}"
        channel = SmtpChannel(SmtpSettings.parse(url, tls=client_tls()))
        outcomes = [await channel.send(message(DOTS)) for _ in range(3)]
        await channel.close()
    assert {outcome.kind for outcome in outcomes} == {K.ACCEPTED}
    assert [one.data for one in server.received] == [DOTS] * 3
    assert any(line.startswith("AUTH PLAIN") for line in server.commands)


@pytest.mark.parametrize(("act", "kind"), [(Do.EOF, K.IN_DOUBT), (Do.HANG, K.IN_DOUBT)])
async def test_a_break_after_the_final_dot_is_in_doubt_over_tls_too(act: Act, kind: OutcomeKind) -> None:
    async with ScriptedSmtp({"final": [act]}, tls=server_tls(), encrypted=True) as server:
        channel = SmtpChannel(
            SmtpSettings.parse(f"smtps://localhost:{server.port}", tls=client_tls(), timeout=timedelta(seconds=2))
        )
        assert (await channel.send(message())).kind is kind
        await channel.close()


async def test_a_certificate_nobody_vouches_for_is_not_accepted() -> None:
    async with ScriptedSmtp(tls=server_tls(), encrypted=True) as server:
        tls = ssl.create_default_context()
        channel = SmtpChannel(SmtpSettings.parse(f"smtps://localhost:{server.port}", tls=tls))
        outcome = await channel.send(message())
    assert (outcome.kind, outcome.code, outcome.scope) == (K.DEFERRED, "CONNECT_FAILED", S.HOST)


async def test_a_server_without_starttls_gets_no_mail_when_tls_is_asked_for() -> None:
    async with ScriptedSmtp() as server:
        channel = SmtpChannel(SmtpSettings.parse(f"smtp+starttls://localhost:{server.port}"))
        outcome = await channel.send(message())
    assert (outcome.kind, outcome.code, outcome.scope) == (K.DEFERRED, "TLS_UNAVAILABLE", S.CHANNEL)
    assert server.received == []


@pytest.mark.parametrize(
    ("step", "answer", "code", "scope"),
    [
        ("auth", "535 5.7.8 wrong password", "AUTHENTICATION", S.CHANNEL),
        ("auth", "454 4.7.0 later", "AUTHENTICATION", S.CHANNEL),
        ("auth", "421 4.3.2 closing", "SERVER_CLOSING", S.HOST),
    ],
)
async def test_a_refused_login_holds_the_channel_and_fails_nobody(
    step: str, answer: str, code: str, scope: OutcomeScope
) -> None:
    async with ScriptedSmtp({step: [answer]}) as server:
        channel = SmtpChannel(SmtpSettings.parse(f"smtp://muster:wrong@127.0.0.1:{server.port}"))
        outcome = await channel.send(message())
    assert (outcome.kind, outcome.code, outcome.scope) == (K.DEFERRED, code, scope)


# The pool


async def test_a_connection_is_used_again_and_replaced_after_its_share_of_messages() -> None:
    async with ScriptedSmtp() as server:
        settings = SmtpSettings("127.0.0.1", server.port, messages_per_connection=3)
        channel = SmtpChannel(settings)
        for _ in range(7):
            await channel.send(message())
        await channel.close()
    assert len(server.received) == 7
    assert server.connections == 3


async def test_never_more_connections_than_allowed() -> None:
    async with ScriptedSmtp({"final": [Do.HANG, Do.HANG]}) as server:
        channel = SmtpChannel(SmtpSettings("127.0.0.1", server.port, connections=2, timeout=timedelta(seconds=1)))
        outcomes = await asyncio.gather(*(channel.send(message()) for _ in range(6)))
        await channel.close()
    assert sorted(outcome.kind for outcome in outcomes) == [K.ACCEPTED] * 4 + [K.IN_DOUBT] * 2
    assert server.connections == 4


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    async with ScriptedSmtp() as server:
        channel = SmtpChannel(SmtpSettings("127.0.0.1", server.port, idle=timedelta(seconds=0.05)))
        await channel.send(message())
        await server.reached["hung_up"].wait()
        await channel.send(message())
        await channel.close()
    assert server.connections == 2
    assert server.commands.count("QUIT") >= 1


async def test_a_connection_the_server_closed_while_idle_costs_no_message() -> None:
    # The server hangs up on hearing MAIL, as one that timed the connection out a moment before would.
    async with ScriptedSmtp({"mail": ["250 2.1.0 ok", Do.EOF]}) as server:
        channel = SmtpChannel(SmtpSettings.parse(server.url))
        first = await channel.send(message())
        second = await channel.send(message())
        await channel.close()
    assert (first.kind, second.kind) == (K.ACCEPTED, K.ACCEPTED)
    assert server.connections == 2


# Settings


def test_an_address_of_a_server_is_read() -> None:
    settings = SmtpSettings.parse("smtp+starttls://us%40er:p%3Ass@mail.example.com")
    assert (settings.host, settings.port, settings.starttls, settings.login) == (
        "mail.example.com",
        587,
        True,
        ("us@er", "p:ss"),
    )
    assert "p:ss" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mail.example.com:25", "smtp://"),
        ("http://mail.example.com", "smtp://"),
        ("smtp://", "name a host"),
        ("smtp://mail.example.com:99999", "port"),
        ("smtp://mail.example.com/path", "nothing may follow"),
        ("smtp://user:secret@mail.example.com", "unencrypted"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        SmtpSettings.parse(url)
    assert "secret" not in str(refusal.value)
