"""The HTTP/2 client, against h2, which refuses what RFC 9113 does: what is sent once, what again, what is in doubt."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import uvloop

from app.pushsink import Act, Do, Push, PushSink, Reply
from channels.http2 import Http2Client, Http2Settings
from channels.http2_messages import Loss, Lost, Phase, Request, Response
from tests.servers import Gate, client_tls, server_tls

SHARED = (("apns-topic", "com.example.shop"), ("x-long", "y" * 300))


def echo(push: Push) -> Reply:
    """The answer names what was asked."""
    return Reply(200, push.path.encode() + b" " + push.body[:40], {"x-topic": push.headers.get("apns-topic", "")})


def request(name: str = "a", *, body: bytes = b"hello", **more: Any) -> Request:
    return Request(f"/{name}".encode(), more.get("shared", SHARED), more.get("own", ((b"x-own", name.encode()),)), body)


@asynccontextmanager
async def world(
    *, answer: Any = echo, script: tuple[Act, ...] = (), early: tuple[Do, ...] = (), secure: bool = True, **more: Any
) -> AsyncIterator[tuple[PushSink, Http2Client]]:
    """A server that plays a script, and a client; the server must have nothing to complain about."""
    settings = {name: more.pop(name) for name in ("timeout", "connections", "streams", "ping_every") if name in more}
    tls = server_tls() if secure else None
    async with PushSink(answer, script=script, early=early, tls=tls, **more) as sink:
        client = Http2Client(Http2Settings(sink.url, tls=client_tls() if secure else None, **settings))
        yield sink, client
        await client.close()
        assert sink.complaints == []


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
async def test_an_answer_has_its_status_headers_and_body(secure: bool) -> None:
    async with world(secure=secure) as (_, client):
        assert await client.post(request()) == Response(200, {"x-topic": "com.example.shop"}, b"/a hello")


async def test_answers_belong_to_their_requests_though_many_are_under_way_at_once() -> None:
    async with world() as (sink, client):
        answers = await asyncio.gather(*(client.post(request(f"n{n}", body=b"%d" % n)) for n in range(300)))
    assert [one.body for one in answers if isinstance(one, Response)] == [b"/n%d %d" % (n, n) for n in range(300)]
    assert sink.most_at_once > 100


async def test_no_more_is_under_way_than_the_server_allows() -> None:
    async with world(streams=10, connections=1) as (sink, client):
        answers = await asyncio.gather(*(client.post(request(f"n{n}")) for n in range(60)))
    assert {one.status for one in answers if isinstance(one, Response)} == {200}
    assert len(answers) == 60
    assert (sink.most_at_once, sink.connections) == (10, 1)


async def test_more_connections_are_made_when_one_is_full_and_no_more_than_allowed() -> None:
    async with world(script=(Do.HANG,) * 40, streams=10, connections=3) as (sink, client):
        sending = [asyncio.ensure_future(client.post(request(f"n{n}"))) for n in range(40)]
        while len(sink.held) < 30:
            sink.reached["request"].clear()
            await sink.reached["request"].wait()
        assert sink.connections == 3
        while not all(one.done() for one in sending):
            sink.answer_held()
            await asyncio.wait(sending, timeout=0.01)
    assert {one.result().status for one in sending if isinstance(one.result(), Response)} == {200}  # type: ignore[union-attr]


async def test_a_body_larger_than_the_windows_leaves_in_parts() -> None:
    def size(push: Push) -> Reply:
        return Reply(200, b"%d" % len(push.body))

    async with world(answer=size, window=1_000) as (_, client):
        answers = await asyncio.gather(*(client.post(request(body=b"x" * 90_000)) for _ in range(5)))
    assert [one.body for one in answers if isinstance(one, Response)] == [b"90000"] * 5


@pytest.mark.parametrize("body", [b"", b"x"], ids=["no body", "a body"])
async def test_empty_bodies_go_both_ways(body: bytes) -> None:
    async with world(answer=lambda push: Reply(503)) as (_, client):
        assert await client.post(request(body=body)) == Response(503, {}, b"")


async def test_three_thousand_answers_with_bodies_do_not_exhaust_a_connection() -> None:
    """What aioapns comes to a stop at: received data that is never acknowledged."""
    async with world(answer=lambda push: Reply(410, b"x" * 12_000), connections=1) as (sink, client):
        answers = [
            one for _ in range(10) for one in await asyncio.gather(*(client.post(request()) for _ in range(300)))
        ]
    assert {one.status for one in answers if isinstance(one, Response)} == {410}
    assert (len(answers), sink.connections) == (3_000, 1)


async def test_of_an_endless_answer_only_the_beginning_is_taken() -> None:
    async with world(answer=lambda push: Reply(400, b"x" * 1_000_000)) as (_, client):
        answer = await client.post(request())
        assert isinstance(answer, Response)
        assert (answer.status, len(answer.body)) == (400, 65_536)
        assert isinstance(await client.post(request()), Response)


async def test_a_hung_answer_ends_at_the_timeout_and_is_in_doubt() -> None:
    """T-13: a hung response ends at its timeout, and the others on the connection are not held up."""
    async with world(script=(Do.HANG,), timeout=timedelta(seconds=0.3)) as (sink, client):
        began = asyncio.get_running_loop().time()
        hung = asyncio.ensure_future(client.post(request("hung")))
        await sink.reached["request"].wait()
        assert isinstance(await client.post(request("next")), Response)
        assert await hung == Lost(Loss.TIMEOUT, Phase.ANSWER)
        took = asyncio.get_running_loop().time() - began
        assert 0.3 <= took < 5
        await sink.reached["given_up"].wait()
        assert sink.connections == 1


async def test_what_never_got_a_stream_was_not_sent() -> None:
    async with world(script=(Do.HANG,), streams=1, connections=1, timeout=timedelta(seconds=0.3)) as (sink, client):
        hung = asyncio.ensure_future(client.post(request("hung")))
        await sink.reached["request"].wait()
        waited = await client.post(request("waits"))
        await hung
    assert isinstance(waited, Lost | Response)
    assert not isinstance(waited, Lost) or waited.phase is Phase.QUEUE


async def test_a_reset_request_is_in_doubt_and_a_refused_one_goes_again() -> None:
    async with world(script=(Do.RESET, Do.REFUSE)) as (_, client):
        reset = await client.post(request())
        refused = await client.post(request("again"))
    assert reset == Lost(Loss.RESET, Phase.ANSWER, "stream reset with error 2")
    assert isinstance(refused, Response)


async def test_a_request_that_is_refused_again_and_again_was_not_processed() -> None:
    async with world(script=(Do.REFUSE,) * 9) as (_, client):
        answer = await client.post(request())
    assert isinstance(answer, Lost)
    assert (answer.why, answer.phase) == (Loss.NOT_PROCESSED, Phase.REQUEST)


async def test_what_goaway_leaves_out_goes_again_on_a_new_connection_and_the_rest_is_answered() -> None:
    """T-13: the server goes away mid-flight; nothing is lost and nothing is done twice."""
    done: list[str] = []

    def note(push: Push) -> Reply:
        done.append(push.path)
        return Reply(200)

    async with world(answer=note, script=(*(Do.HANG,) * 20, Do.GOAWAY), connections=1) as (sink, client):
        answers = await asyncio.gather(*(client.post(request(f"n{n}")) for n in range(50)))
    assert {one.status for one in answers if isinstance(one, Response)} == {200}
    assert sorted(done) == sorted(f"/n{n}" for n in range(50))
    assert sink.connections == 2


async def test_what_was_looked_at_before_goaway_is_still_answered() -> None:
    async with world(script=(Do.GOAWAY_AFTER,), connections=1) as (sink, client):
        first = await client.post(request("first"))
        second = await client.post(request("second"))
    assert [isinstance(one, Response) and one.body for one in (first, second)] == [b"/first hello", b"/second hello"]
    assert sink.connections == 2


def test_a_server_that_says_goodbye_and_hangs_up_in_one_breath_is_no_fault() -> None:
    """As providers do with connections that are idle for long; on the event loop that workers run on."""
    faults: list[Any] = []

    async def part() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with world() as (sink, client):
            assert isinstance(await client.post(request()), Response)
            (idle,) = sink._open
            idle._h2.close_connection()
            idle._flush()
            idle.transport.close()
            await idle.gone.wait()
            assert isinstance(await client.post(request()), Response)
        return sink.connections

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(part()) == 2
    assert faults == []


async def test_a_connection_that_breaks_leaves_what_had_left_in_doubt_and_the_next_goes_elsewhere() -> None:
    async with world(script=(Do.CLOSE,), connections=1) as (sink, client):
        assert await client.post(request()) == Lost(Loss.CONNECTION_LOST, Phase.ANSWER)
        assert isinstance(await client.post(request()), Response)
        assert sink.connections == 2


@pytest.mark.parametrize("act", [Do.CLOSE, Do.RESET], ids=lambda act: act.value)
async def test_a_request_whose_end_had_not_left_was_not_processed(act: Do) -> None:
    async with world(early=(act,), window=0) as (_, client):
        answer = await client.post(request())
    assert isinstance(answer, Lost)
    assert answer.phase is Phase.REQUEST


async def test_what_is_no_http2_ends_the_connection() -> None:
    async with world(script=(Do.GARBAGE,)) as (_, client):
        assert await client.post(request()) == Lost(Loss.BAD_REPLY, Phase.ANSWER)
        assert isinstance(await client.post(request()), Response)


async def test_a_cancelled_request_is_given_up_and_the_connection_stays() -> None:
    async with world(script=(Do.HANG,)) as (sink, client):
        sending = asyncio.ensure_future(client.post(request()))
        await sink.reached["request"].wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await sink.reached["given_up"].wait()
        assert isinstance(await client.post(request()), Response)
        assert sink.connections == 1


async def test_a_certificate_of_somebody_else_is_refused() -> None:
    async with PushSink(echo, tls=server_tls()) as sink:
        client = Http2Client(Http2Settings(sink.url))
        answer = await client.post(request())
        await client.close()
    assert isinstance(answer, Lost)
    assert (answer.why, answer.phase) == (Loss.TLS_FAILED, Phase.CONNECT)


async def test_a_silent_server_is_asked_whether_it_is_there_and_given_up() -> None:
    """The way to the server goes dead without a word: what is under way is in doubt, and later ones do not go there."""
    async with PushSink(echo, script=(Do.HANG,)) as sink, Gate(sink.port) as gate:
        url = f"http://127.0.0.1:{gate.port}"
        client = Http2Client(Http2Settings(url, connections=1, ping_every=timedelta(seconds=0.05)))
        sending = asyncio.ensure_future(client.post(request()))
        await sink.reached["request"].wait()
        gate.shut()
        assert await sending == Lost(Loss.TIMEOUT, Phase.ANSWER)
        gate.open()
        assert isinstance(await client.post(request()), Response)
        await client.close()


async def test_an_idle_connection_is_kept_alive_and_closed_when_unused_for_long() -> None:
    async with PushSink(echo) as sink:
        idle = Http2Settings(sink.url, ping_every=timedelta(seconds=0.01), idle=timedelta(seconds=0.1))
        client = Http2Client(idle)
        assert isinstance(await client.post(request()), Response)
        while sink._open:
            await asyncio.wait([asyncio.ensure_future(one.gone.wait()) for one in sink._open])
        assert isinstance(await client.post(request()), Response)
        assert sink.connections == 2
        await client.close()
        assert sink.complaints == []


async def test_headers_in_common_are_sent_once_and_meant_every_time() -> None:
    seen: list[dict[str, str]] = []

    def note(push: Push) -> Reply:
        seen.append({name: value for name, value in push.headers.items() if name.startswith("x-")})
        return Reply(200)

    async with world(answer=note) as (_, client):
        for n in range(12):
            shared = (("x-who", f"w{n % 3}"), ("x-long", "z" * 700))
            await client.post(Request(b"/a", shared, ((b"x-n", b"%d" % n), (b"x-secret", b"s" * 300)), b"x"))
    assert seen == [
        {"x-who": f"w{n % 3}", "x-long": "z" * 700, "x-n": f"{n}", "x-secret": "s" * 300} for n in range(12)
    ]


@pytest.mark.parametrize("url", ["http://fcm.example.com", "ftp://127.0.0.1", "https://", "https://host/path"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        Http2Client(Http2Settings(url))
