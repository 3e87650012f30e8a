"""Whatever a template or a profile says, a received mail has the headers that we gave it and no other (T-20)."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from time import monotonic
from uuid import UUID

from campaigns import sending
from channels.smtp import SmtpChannel, SmtpSettings
from tests.app.caller import Caller
from tests.app.test_api_campaigns import make
from tests.campaigns.factories import carrier
from tests.servers import ScriptedSmtp

HEADERS = [
    "Content-Type",
    "Date",
    "From",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "MIME-Version",
    "Message-ID",
    "Subject",
    "To",
    "X-Muster-Campaign",
    "X-Muster-Delivery",
]
INJECTIONS = {
    "crlf": "Hi\r\nBcc: thief@example.com\r\n\r\nanother body",
    "lf": "Hi\nBcc: thief@example.com\n\nanother body",
    "cr": "Hi\rBcc: thief@example.com\r\ranother body",
    "folded": "Hi\r\n\tBcc: thief@example.com\r\n folded",
    "line-separator": "Hi\u2028Bcc: thief@example.com\u2029\u2029another body",
    "next-line": "Hi\x85Bcc: thief@example.com\x0b\x0c\x1c\x1d\x1e",
    "encoded-word": "=?utf-8?q?Hi=0D=0ABcc=3A_thief=40example=2Ecom?=",
    "encoded-word-b64": "=?utf-8?b?SGkNCkJjYzogdGhpZWZAZXhhbXBsZS5jb20=?=",
    "half-encoded": "=?utf-8?q?" + "=0D=0A" * 30,
    "long": "Bcc: thief@example.com " * 450,
    "long-foreign": "ü\u2028" * 5_000,
    "boundary": "--=_muster_\r\nContent-Type: text/html\r\n\r\n<b>",
}
"""What might end a header, begin another, or hide one; the edge refuses U+0000 before anybody reads it."""
CONTENT = {
    "html": '<p title="{{ traits.evil }}">{{ traits.evil }} {{ sender.postal_address }}'
    ' <a href="{{ unsubscribe_url }}">No</a></p>',
    "preheader": "{{ traits.evil }}",
}


async def sent(console: Caller, campaign_id: str, server: ScriptedSmtp) -> None:
    """What workers do, to a real SMTP server."""
    channel = SmtpChannel(SmtpSettings.parse(server.url, connections=4))
    try:
        await console.data("CampaignSend", input={"id": campaign_id})
        key = UUID(hex=campaign_id.removeprefix("cmp_"))
        while await sending.deliver(
            console.workspace_id, key, carrier=carrier(channel), now=datetime.now(UTC), until=monotonic() + 10
        ):
            pass
    finally:
        await channel.close()


def headers_of(data: bytes) -> list[str]:
    """The headers of a mail and of its parts; there must be nothing wrong with it."""
    message = message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    for part in message.iter_parts():
        assert sorted(part.keys()) == ["Content-Transfer-Encoding", "Content-Type"]
    assert len(str(message["Subject"])) <= 255
    return sorted(message.keys())


async def test_no_text_of_a_profile_becomes_a_header(console: Caller) -> None:
    """T-20: CR, LF, line separators, encoded words and 10 KB, as traits in subject, preheader and body."""
    profiles = [
        {"externalId": name, "email": f"{name}@example.com", "traits": {"evil": text}}
        for name, text in INJECTIONS.items()
    ]
    await console.data("ProfilesUpsert", input={"profiles": profiles})
    campaign = await make(console, content={"email": CONTENT | {"subject": "For {{ traits.evil }}"}})
    async with ScriptedSmtp() as server:
        await sent(console, campaign, server)
        assert sorted(one.rcpt for one in server.received) == sorted(
            f"RCPT TO:<{name}@example.com>" for name in INJECTIONS
        )
        assert [headers_of(one.data) for one in server.received] == [HEADERS] * len(INJECTIONS)


async def test_no_text_of_a_template_becomes_a_header(console: Caller) -> None:
    """T-20: the same as the subject that somebody wrote; one of 10 KB is refused."""
    profile = {"externalId": "ada", "email": "ada@example.com", "traits": {"evil": "good"}}
    await console.data("ProfileUpsert", input=profile)
    for name, text in INJECTIONS.items():
        email = CONTENT | {"subject": text}
        if len(text.encode()) > 1_024:
            wanted = {"name": name, "content": {"email": email}}
            code, path = await console.refusal("CampaignCreate", input=wanted)
            assert (code, path) == ("TEMPLATE_TOO_LARGE", ["input", "content", "email", "subject"])
            continue
        campaign = await make(console, name="News", content={"email": email})
        async with ScriptedSmtp() as server:
            await sent(console, campaign, server)
            (received,) = server.received
            assert headers_of(received.data) == HEADERS, name


async def test_headers_are_ascii_whatever_the_domain_of_the_sender(console: Caller) -> None:
    """RFC 5322 2.2: other letters in a header need SMTPUTF8, which few servers take."""
    await console.data("ProfileUpsert", input={"externalId": "ada", "email": "ada@bücher.example", "traits": {}})
    sender = await console.data(
        "SenderCreate",
        input={"fromName": "Bücher", "fromAddress": "news@bücher.example", "postalAddress": "1 Main Street"},
    )
    content = {"email": {"subject": "Grüße", "text": "{{ sender.postal_address }} {{ unsubscribe_url }}"}}
    campaign = await make(console, content=content, senderId=sender["sender"]["id"])
    async with ScriptedSmtp() as server:
        await sent(console, campaign, server)
        (received,) = server.received
    assert received.data.isascii()
    message = message_from_bytes(received.data, policy=default)
    assert str(message["Message-ID"]).endswith("@xn--bcher-kva.example>")
