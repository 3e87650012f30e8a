"""The mail sink of development: what it takes, what it counts, what its page may do."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from smtplib import SMTP, SMTPDataError

import pytest
from starlette.testclient import TestClient

from app import mailbox, mailstore
from app.mailbox import create_mailbox, open_sink
from app.mailstore import MailStore
from app.settings import Environment, MailboxSettings, SettingsError

HTML = "<p>Hello</p><script>alert(1)</script>"


def mail(
    *, to: str = "anna@example.com", delivery: str = "d-1", campaign: str = "c-1", subject: str = "Hello", **more: str
) -> bytes:
    """A message with a text and an HTML part."""
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return (
        f"From: news@shop.example\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{delivery}@shop.example>\r\n"
        f"X-Muster-Campaign: {campaign}\r\nX-Muster-Delivery: {delivery}\r\n{extra}MIME-Version: 1.0\r\n"
        'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello in text\r\n"
        f"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{HTML}\r\n--b--\r\n"
    ).encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailStore]:
    with MailStore(tmp_path / "messages") as opened:
        yield opened


def take(store: MailStore, to: str = "anna@example.com", **about: str) -> None:
    store.add(sender="news@shop.example", recipients=[to], data=mail(to=to, **about))


# --- the record ---------------------------------------------------------------------------------------------------


def test_the_same_delivery_to_the_same_recipient_is_a_duplicate(store: MailStore) -> None:
    take(store, delivery="d-1")
    take(store, delivery="d-1")
    take(store, delivery="d-2")
    take(store, to="bob@example.com", delivery="d-1", campaign="c-2")
    counts = store.counts()
    assert (counts.received, counts.unique, counts.duplicates) == (4, 3, 1)
    assert {name: (count.received, count.unique) for name, count in counts.campaigns.items()} == {
        "c-1": (3, 2),
        "c-2": (1, 1),
    }


def test_counts_and_messages_survive_a_killed_sink(tmp_path: Path) -> None:
    first = MailStore(tmp_path / "messages")
    take(first, delivery="d-1")
    take(first, delivery="d-2", subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=")
    with (tmp_path / "messages").open("ab") as torn:
        torn.write(b'{"id": 3, "at": "2026')  # killed while it wrote a third
    with MailStore(tmp_path / "messages") as again:
        assert again.counts() == first.counts()
        assert [found.subject for found in again.list(limit=9)] == ["Grüße", "Hello"]
        take(again, delivery="d-1")
        assert again.counts().duplicates == 1
        found = again.find(3)
        assert found
        assert found[1] == mail(delivery="d-1")
    first.close()


def test_only_the_newest_are_listed_and_all_are_counted(store: MailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailstore, "INDEXED", 3)
    for number in range(5):
        take(store, delivery=f"d-{number}")
    assert [found.id for found in store.list(limit=9)] == [5, 4, 3]
    assert store.find(1) is None
    assert store.counts().received == 5


def test_a_record_that_is_full_keeps_envelopes_only(store: MailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailstore, "LARGEST_FILE", 10)
    take(store)
    found = store.find(1)
    assert found
    assert (found[0].subject, found[1]) == ("Hello", b"")
    assert store.counts().received == 1


def test_search_goes_by_recipient_subject_and_campaign(store: MailStore) -> None:
    take(store, to="Anna@example.com", subject="One", campaign="c-1")
    take(store, to="bob@example.com", subject="Two", campaign="c-1")
    take(store, to="bob@example.com", subject="Three", campaign="c-2")
    assert [found.id for found in store.list(limit=9, to="anna")] == [1]
    assert [found.id for found in store.list(limit=9, to="bob", subject="two")] == [2]
    assert [found.id for found in store.list(limit=9, campaign="c-2")] == [3]
    assert [found.id for found in store.list(limit=1, before=3)] == [2]


def test_a_message_without_headers_is_kept_too(store: MailStore) -> None:
    store.add(sender="", recipients=["anna@example.com"], data=b"no header at all")
    store.add(sender="", recipients=["anna@example.com"], data=b"")
    assert store.counts() == mailstore.Counts(received=2, unique=2, duplicates=0, campaigns={})


# --- SMTP ---------------------------------------------------------------------------------------------------------


async def speak(port: int, *sent: bytes) -> list[bytes]:
    """Send each chunk, wait for all replies until the server hangs up; reply lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in sent:
        writer.write(chunk)
        await writer.drain()
    received = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return received.splitlines()


async def test_a_message_is_recorded_before_it_is_acknowledged(tmp_path: Path) -> None:
    async with open_sink(tmp_path / "messages") as sink:

        def client() -> None:
            with SMTP("127.0.0.1", sink.port) as smtp:
                smtp.sendmail("news@shop.example", ["anna@example.com", "bob@example.com"], mail())
                assert sink.store.counts().received == 2

        await asyncio.to_thread(client)
        found = sink.store.find(1)
    assert found
    assert found[0].recipients == ["anna@example.com", "bob@example.com"]
    assert found[1] == mail()


async def test_dots_at_the_start_of_lines_arrive_as_they_were_sent(tmp_path: Path) -> None:
    text = b".begins with a dot\r\n..two\r\n.\r\nnot the end\r\n"
    async with open_sink(tmp_path / "messages") as sink:

        def client() -> None:
            with SMTP("127.0.0.1", sink.port) as smtp:
                smtp.sendmail("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n" + text)

        await asyncio.to_thread(client)
        found = sink.store.find(1)
    assert found
    assert found[1] == b"Subject: x\r\n\r\n" + text


async def test_pipelined_commands_are_answered_in_order_however_they_are_cut(tmp_path: Path) -> None:
    group = b"MAIL FROM:<a@b.example> SIZE=9\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    session = b"EHLO me\r\n" + group + b"x\r\n.\r\n" + group + b".\r\n" + b"QUIT\r\n"
    async with open_sink(tmp_path / "messages") as sink:
        for cuts in ([session], [session[at : at + 1] for at in range(len(session))]):
            codes = [line[:4] for line in await speak(sink.port, *cuts)]
            assert codes == [b"220 ", *[b"250-"] * 5, b"250 ", *[b"250 ", b"250 ", b"354 ", b"250 "] * 2, b"221 "]
        bodies = [found[1] for number in range(1, 5) if (found := sink.store.find(number))]
    assert bodies == [b"x\r\n", b"", b"x\r\n", b""]


async def test_commands_out_of_order_are_refused(tmp_path: Path) -> None:
    async with open_sink(tmp_path / "messages") as sink:
        codes = [
            line[:3]
            for line in await speak(
                sink.port,
                b"RCPT TO:<c@d.example>\r\nDATA\r\nMAIL FROM:nobody\r\nMAIL FROM:<>\r\nMAIL FROM:<a@b.example>\r\n",
                b"RCPT TO:<>\r\nRSET\r\nVRFY x\r\nNOOP\r\nHELO me\r\nQUIT\r\n",
            )
        ]
        received = sink.store.counts().received
    assert codes == [b"220", b"503", b"503", b"501", b"250", b"503", b"501", b"250", b"502", b"250", b"250", b"221"]
    assert received == 0


async def test_an_endless_line_ends_the_connection(tmp_path: Path) -> None:
    async with open_sink(tmp_path / "messages") as sink:
        assert (await speak(sink.port, b"A" * 10_000))[-1].startswith(b"500")


async def test_what_cannot_be_recorded_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: MailStore, **message: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(MailStore, "add", full)
    async with open_sink(tmp_path / "messages") as sink:

        def client() -> None:
            with SMTP("127.0.0.1", sink.port) as smtp:
                smtp.sendmail("a@b.example", ["c@d.example"], mail())

        with pytest.raises(SMTPDataError) as refusal:
            await asyncio.to_thread(client)
    assert refusal.value.smtp_code == 451


# --- the page -----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Iterator[TestClient]:
    """The page over a record of two messages."""
    with MailStore(tmp_path / "messages") as store:
        take(store, delivery="d-1", subject="First <b>mail</b>")
        take(store, to="bob@example.com", delivery="d-2", subject="Second")
    with TestClient(
        create_mailbox(tmp_path / "messages", host="127.0.0.1", smtp_port=0), base_url="http://localhost"
    ) as client:
        yield client


def test_the_api_lists_finds_counts_and_empties(page: TestClient) -> None:
    listed = page.get("/api/messages", params={"limit": 1}).json()["messages"]
    assert [(found["to"], found["subject"], found["delivery"]) for found in listed] == [
        (["bob@example.com"], "Second", "d-2")
    ]
    assert page.get("/api/messages", params={"to": "nobody"}).json() == {"messages": []}
    message = page.get("/api/messages/1").json()
    assert message["messageId"] == "<d-1@shop.example>"
    assert message["text"].strip() == "Hello in text"
    assert message["html"].strip() == HTML
    assert ["X-Muster-Campaign", "c-1"] in message["headers"]
    assert page.get("/api/counts").json() == {
        "received": 2,
        "unique": 2,
        "duplicates": 0,
        "campaigns": {"c-1": {"received": 2, "unique": 2}},
    }
    assert page.delete("/api/messages").status_code == 204
    assert page.get("/api/counts").json()["received"] == 0


def test_wrong_questions_are_answered_with_the_reason(page: TestClient) -> None:
    assert page.get("/api/messages/99").status_code == 404
    for wrong in ("0", "1001", "many"):
        refused = page.get("/api/messages", params={"limit": wrong})
        assert (refused.status_code, "limit must be" in refused.text) == (400, True)


def test_the_page_shows_messages_newest_first_and_escapes_them(page: TestClient) -> None:
    shown = page.get("/").text
    assert shown.index("Second") < shown.index("First &lt;b&gt;mail&lt;/b&gt;")
    assert "Second" not in page.get("/", params={"to": "anna"}).text


def test_no_script_of_a_mail_can_run_in_the_page(page: TestClient) -> None:
    shown = page.get("/messages/1")
    assert "<script>" not in shown.text
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox" src="/messages/1/html"' in shown.text
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    html = page.get("/messages/1/html")
    policy = html.headers["content-security-policy"]
    assert "<script>" in html.text
    assert policy.startswith("sandbox allow-popups")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    source = page.get("/messages/1/source")
    assert source.headers["content-type"].startswith("text/plain")
    assert source.headers["x-content-type-options"] == "nosniff"


def test_a_name_of_somebody_else_that_points_here_shows_nothing(page: TestClient) -> None:
    assert page.get("/api/messages", headers={"Host": "evil.example"}).status_code == 400


def test_mail_that_is_no_mail_is_shown_all_the_same(tmp_path: Path) -> None:
    with MailStore(tmp_path / "messages") as store:
        for data in (b"\xff\xfe", b"Content-Type: text/html; charset=nonsense\r\n\r\n<p>x", b"To: =?x?q?\r\n\r\n", b""):
            store.add(sender="", recipients=["anna@example.com"], data=data)
    with TestClient(
        create_mailbox(tmp_path / "messages", host="127.0.0.1", smtp_port=0), base_url="http://localhost"
    ) as page:
        for number in range(1, 5):
            for path in (f"/messages/{number}", f"/messages/{number}/html", f"/api/messages/{number}"):
                assert page.get(path).status_code == 200


def test_the_mailbox_does_not_start_in_production(tmp_path: Path) -> None:
    settings = MailboxSettings(MUSTER_ENV=Environment.PRODUCTION, MUSTER_DATA_DIR=tmp_path)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match="production"):
        mailbox.run(settings)
