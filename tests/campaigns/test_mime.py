"""Mails as bytes: what comes out is what went in, and nothing in it can become a header (T-20)."""

import quopri
import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.emails import CompiledEmail, EmailContent, Recipient, compile_email
from campaigns.errors import RenderError
from campaigns.mime import SenderInfo, encoded_words, mailbox_header, quoted, quoted_html, quoted_text, subject_header

SENDER = SenderInfo("Shop", "news@shop.example", "help@shop.example", "1 High St, Köln")
SENT_AT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
LINK = "https://muster.example/u/" + "A" * 72
FOOTER = "{{ sender.postal_address }} {{ unsubscribe_url }}"
CONTENT = EmailContent(
    subject="Hello {{ profile.first_name }}",
    text="Hi {{ profile.first_name }},\n\n{{ traits.note | default('') }}\n" + FOOTER,
    html="<p>Hi {{ profile.first_name }}</p>\n<p title='{{ traits.note | default('') }}'>é</p>" + FOOTER,
)


def compiled(
    content: EmailContent = CONTENT, sender: SenderInfo = SENDER, *, list_unsubscribe: bool = True
) -> CompiledEmail:
    return compile_email(
        content, sender=sender, list_unsubscribe=list_unsubscribe, campaign_id=UUID(int=7), campaign_name="Spring"
    )


COMPILED = compiled()


def made(
    traits: dict[str, object] | None = None,
    *,
    email: str = "ann@example.com",
    test: bool = False,
    by: CompiledEmail = COMPILED,
) -> bytes:
    data = by.render(
        Recipient(email, traits={"first_name": "Ann", **(traits or {})}),
        message_id="<d1.7.0@shop.example>",
        sent_at=SENT_AT,
        unsubscribe_url=LINK,
        delivery_key="d1.7.0",
        test=test,
    )
    assert data.endswith(b"\r\n")
    assert data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    return data


def parsed(data: bytes) -> EmailMessage:
    message = message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace("\r\n", "\n")


# Pieces of quoted-printable

LETTERS = st.text(max_size=200) | st.text(alphabet="=. \t\n\r-aé€\x00", max_size=200)


@given(st.lists(LETTERS, max_size=6), st.sampled_from([quoted, quoted_text]))
def test_pieces_joined_in_any_order_decode_to_their_texts(texts: list[str], encode: object) -> None:
    assert callable(encode)
    joined = b"".join(encode(text) for text in texts)
    kept = [re.sub(r"\r\n?", "\n", text) for text in texts]
    expected = "".join("".join(letter for letter in text if letter >= " " or letter in "\t\n") for text in kept)
    assert quopri.decodestring(joined).replace(b"\r\n", b"\n") == expected.replace("\x7f", "").encode(
        "utf-8", "replace"
    )
    assert all(len(line) <= 76 and not line.endswith((b" ", b"\t")) for line in joined.split(b"\r\n"))
    assert joined == b"" or joined.endswith(b"\r\n")
    assert joined.isascii()


@pytest.mark.parametrize("length", range(60, 160))
@pytest.mark.parametrize("letter", ["a", "=", "é"])
def test_no_line_is_too_long_whatever_its_length(length: int, letter: str) -> None:
    piece = quoted(letter * length)
    assert max(map(len, piece.split(b"\r\n"))) <= 76
    assert quopri.decodestring(piece).decode() == letter * length


@given(st.text(max_size=100))
def test_a_value_in_html_cannot_leave_its_place(value: str) -> None:
    shown = quopri.decodestring(quoted_html(value)).decode()
    assert not set("<>\"'") & set(shown)
    assert re.sub(r"&(amp|lt|gt|quot|#x27);", "", shown).count("&") == 0


# Headers


@given(st.text(max_size=300))
def test_encoded_words_decode_to_their_text_in_lines_of_76(text: str) -> None:
    clean = "".join(letter for letter in text if not 0xD800 <= ord(letter) <= 0xDFFF)
    lines = f"Subject: {encoded_words(clean)}".split("\r\n ")
    assert all(len(line) <= 76 for line in lines)
    assert str(make_header(decode_header(" ".join(lines)[9:]))) == clean


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Hello Ann", "Hello Ann"),
        ("Grüße", "=?utf-8?b?R3LDvMOfZQ==?="),
        ("a\r\nBcc: evil@example.com", "a Bcc: evil@example.com"),
        ("a\u2028b\x00c\x85d", "a b c d"),
        ("=?utf-8?q?hidden?=", "=?utf-8?b?PT91dGYtOD9xP2hpZGRlbj89?="),
    ],
)
def test_a_subject_is_one_header_and_means_itself(text: str, value: str) -> None:
    assert subject_header(text) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Shop", "Shop <a@b.example>"),
        ('The "Shop", Ltd.', '"The \\"Shop\\", Ltd." <a@b.example>'),
        ("Müller", "=?utf-8?b?TcO8bGxlcg==?=\r\n <a@b.example>"),
        ("x\r\nBcc: y", '"x Bcc: y" <a@b.example>'),
        ("=?utf-8?q?Bank?=", '"=?utf-8?q?Bank?=" <a@b.example>'),
        ("", "a@b.example"),
    ],
)
def test_a_mailbox_shows_its_name(name: str, value: str) -> None:
    assert mailbox_header(name, "a@b.example") == value


HEADERS = [
    "Content-Type",
    "Date",
    "From",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "MIME-Version",
    "Message-ID",
    "Reply-To",
    "Subject",
    "To",
    "X-Muster-Campaign",
    "X-Muster-Delivery",
]


def test_a_mail_has_the_headers_of_bulk_mail() -> None:
    message = parsed(made())
    assert sorted(message.keys()) == HEADERS
    assert message["From"] == "Shop <news@shop.example>"
    assert message["Reply-To"] == "help@shop.example"
    assert message["To"] == "ann@example.com"
    assert message["Date"].datetime == SENT_AT
    assert message["Message-ID"] == "<d1.7.0@shop.example>"
    assert message["List-Unsubscribe"] == f"<{LINK}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["X-Muster-Campaign"] == str(UUID(int=7))
    assert message["X-Muster-Delivery"] == "d1.7.0"


def test_transactional_mail_offers_no_unsubscribing() -> None:
    message = parsed(made(by=compiled(list_unsubscribe=False)))
    assert "List-Unsubscribe" not in message
    assert "List-Unsubscribe-Post" not in message


def test_a_test_send_is_marked_in_its_subject() -> None:
    """S3-22."""
    assert parsed(made(test=True))["Subject"] == "[Test] Hello Ann"


def test_both_parts_say_what_the_templates_say() -> None:
    """S3-16: subject, plain text and HTML."""
    message = parsed(made({"first_name": "Zoë & <Co>", "note": "A \"quote\" = 'this'\nand 100 % €"}))
    assert message["Subject"] == "Hello Zoë & <Co>"
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    footer = f"{SENDER.postal_address} {LINK}"
    expected = f"Hi Zoë & <Co>,\n\nA \"quote\" = 'this'\nand 100 % €\n{footer}\n"
    assert body(message, "plain") == expected
    note = "A &quot;quote&quot; = &#x27;this&#x27;\nand 100 % €"
    assert body(message, "html") == f"<p>Hi Zoë &amp; &lt;Co&gt;</p>\n<p title='{note}'>é</p>{footer}\n"


def test_a_mail_without_html_is_one_part() -> None:
    message = parsed(
        made(by=compiled(EmailContent(subject="Hi", text="Only text, {{ profile.first_name }}. " + FOOTER)))
    )
    assert message.get_content_type() == "text/plain"
    assert body(message, "plain") == f"Only text, Ann. {SENDER.postal_address} {LINK}\n"


def test_a_subject_of_10_kb_is_cut_and_folded() -> None:
    subject = parsed(made({"first_name": "ü" * 10_000}))["Subject"]
    assert subject == ("Hello " + "ü" * 10_000)[:255]


HOSTILE = st.text(max_size=60) | st.text(alphabet="\r\n\x00\x0b\x0c\x85\u2028\u2029:=?<>,;\"' aé", max_size=60)


@settings(max_examples=200)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_of_a_profile_a_sender_or_a_template_makes_a_header_or_a_part(
    name: str, note: str, sender_name: str
) -> None:
    """T-20: any unicode, from profile data and from the template, adds no header."""
    sender = SenderInfo(sender_name, "news@shop.example", "help@shop.example", "1 High St")
    subject = "{{ profile.first_name }} " + note.replace("{", "(")
    mail = compiled(EmailContent(subject=subject, text=CONTENT.text, html=CONTENT.html), sender)
    data = made({"first_name": name, "note": note}, by=mail)
    message = message_from_bytes(data, policy=default)
    assert sorted(message.keys()) == HEADERS
    assert message["From"].addresses[0].addr_spec == "news@shop.example"
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@pytest.mark.parametrize(
    "email",
    ["", "no address", "a@b.example\r\nBcc: x@y.example", "a@b.example, c@d.example", "Ann <a@b.example>", "a@\x00"],
)
def test_what_is_no_address_fails_its_recipient(email: str) -> None:
    with pytest.raises(RenderError) as refusal:
        made(email=email)
    assert refusal.value.code == "NOT_AN_ADDRESS"
    assert not email or email not in refusal.value.message


def test_an_international_address_is_written_as_the_wire_has_it() -> None:
    assert b"To: ann@xn--bcher-kva.example\r\n" in made(email="ann@bücher.example")
    assert "To: jörg@example.com\r\n".encode() in made(email="jörg@example.com")


def test_rendering_twice_gives_the_same_bytes() -> None:
    """R10: a repeated attempt is the same mail, so that receivers can see that it is."""
    assert made() == made()
