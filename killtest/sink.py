"""`python -m killtest.sink RECORD`: a mail server that keeps a record of every message and answers slowly.

A line of the record is on the disk before the message is accepted: written and flushed (fsync) after the final dot and
before its 250. What is not in the record was never accepted, and what is in it may have been, whether the sender lived
to hear so or not. Half of the time a message takes is spent before its payload and half after the record was written:
there a sender that dies leaves a message that nobody has, and one that nobody was told of.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LARGEST_MESSAGE = 1_000_000
END = b"\r\n.\r\n"
MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*(<[^>\r\n]+>)")
RECIPIENT = re.compile(rb"(?i)^RCPT TO:<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that the server has taken over."""

    message_id: str
    recipient: str
    """Of the envelope."""
    at: float
    """Seconds since 1970, when its line was written."""
    connection: int


class RecordReader:
    """Reads the record of a running sink, each time only what is new."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self._arrivals: list[Arrival] = []

    def all(self) -> list[Arrival]:
        """Every arrival so far, in the order they were written."""
        with self._file.open("rb") as record:
            record.seek(self._offset)
            # A line being written is read next time.
            whole, newline, _ = record.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        self._arrivals += [Arrival(*json.loads(line)) for line in whole.splitlines()]
        return self._arrivals


class Record:
    """The file; lines that come in while the disk works are written and flushed together."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._come = asyncio.Event()

    async def keep(self, message_id: str, recipient: str, connection: int) -> None:
        """Come back when the line is on the disk."""
        line = json.dumps([message_id, recipient, time.time(), connection]).encode() + b"\n"
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, written))
        self._come.set()
        await written

    async def write_on(self) -> None:
        """Write what waits, for ever."""
        while True:
            await self._come.wait()
            self._come.clear()
            group, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, b"".join(line for line, _ in group))
            for _, written in group:
                written.set_result(None)

    def _write(self, lines: bytes) -> None:
        os.write(self._file, lines)
        os.fsync(self._file)


class Sink:
    """The server; `pause_s` is what one message takes on average."""

    def __init__(self, record: Record, *, pause_s: float, seed: int) -> None:
        self._record, self._pause_s = record, pause_s
        self._draw = random.Random(seed)
        self._connections = itertools.count()

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        try:
            await self._serve(reader, writer, next(self._connections))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the sender died, or is no mail program; cancelled only at the end of all, which Python 3.11 logs
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        recipient = ""
        writer.write(b"220 sink.example ESMTP\r\n")
        while line := await reader.readuntil(b"\r\n"):
            match line.split(maxsplit=1)[0].upper() if line.strip() else b"":
                case b"EHLO":
                    writer.write(b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000000\r\n")
                case b"RCPT" if (found := RECIPIENT.match(line)) is not None:
                    recipient = found[1].decode("utf-8", "replace")
                    writer.write(b"250 2.1.5 ok\r\n")
                case b"DATA" if recipient:
                    await self._think()
                    writer.write(b"354 go on\r\n")
                    message = await reader.readuntil(END)
                    message_id = MESSAGE_ID.search(message.partition(b"\r\n\r\n")[0])
                    await self._record.keep(message_id[1].decode() if message_id else "", recipient, connection)
                    await self._think()
                    writer.write(b"250 2.0.0 taken\r\n")
                    recipient = ""
                case b"MAIL" | b"RSET" | b"NOOP":
                    recipient = ""
                    writer.write(b"250 2.0.0 ok\r\n")
                case b"QUIT":
                    writer.write(b"221 2.0.0 bye\r\n")
                    await writer.drain()
                    return
                case _:
                    writer.write(b"503 5.5.1 not now\r\n")
            await writer.drain()

    async def _think(self) -> None:
        """Half of what a message takes, more or less."""
        await asyncio.sleep(self._pause_s * self._draw.uniform(0.25, 0.75))


async def serve(record: Path, *, pause_s: float, seed: int) -> None:
    """Serve until SIGTERM; the port is the first line of standard output."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    kept = Record(record)
    writing = asyncio.create_task(kept.write_on())
    sink = Sink(kept, pause_s=pause_s, seed=seed)
    server = await asyncio.start_server(sink.client, "127.0.0.1", 0, limit=LARGEST_MESSAGE)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stopping.wait()
    server.close()
    writing.cancel()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds that a message takes, more or less")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.record, pause_s=chosen.pause, seed=chosen.seed))


if __name__ == "__main__":
    main()
