"""`python -m killtest.push_sink RECORD`: FCM that keeps a record of every notification and answers slowly.

As `killtest.sink` for mail: a line of the record is on the disk before the notification is accepted, and half of the
time it takes is spent before that and half after. A line says to which token it went, and under which tag it is shown:
a device shows two of one tag as one.
"""

import argparse
import asyncio
import random
import signal
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path

import orjson
from h2.exceptions import ProtocolError

from app.pushproviders import Fcm
from app.pushsink import Act, Do, Push, PushSink, SinkProtocol
from killtest.sink import Record


class Held(deque[Act]):
    """A script that never ends: every request waits until it is answered by us."""

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Act:
        return Do.HANG


class SlowFcm:
    """Answers the requests of a sink; `pause_s` is what one takes on average."""

    def __init__(self, record: Record, *, pause_s: float, seed: int) -> None:
        self.fcm, self.record, self.pause_s, self.draw = Fcm(), record, pause_s, random.Random(seed)
        self.sink = PushSink(self.fcm)
        self.sink.script = Held()
        self.under_way: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer, for ever."""
        while True:
            await self.sink.reached["request"].wait()
            self.sink.reached["request"].clear()
            held, self.sink.held = self.sink.held, []
            for protocol, stream, push in held:
                task = asyncio.create_task(self.answer(protocol, stream, push))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)

    async def answer(self, protocol: SinkProtocol, stream: int, push: Push) -> None:
        if push.path != "/token":
            await self.think()
            message = orjson.loads(push.body)["message"]
            tag = message.get("android", {}).get("notification", {}).get("tag", "")
            await self.record.keep(tag, message["token"], 0)
            await self.think()
        with suppress(ProtocolError):  # the sender died, or has given the request up
            if not protocol.gone.is_set():
                protocol.say(stream, self.fcm(push))

    async def think(self) -> None:
        """Half of what a notification takes, more or less."""
        await asyncio.sleep(self.pause_s * self.draw.uniform(0.25, 0.75))


async def serve(file: Path, *, pause_s: float, seed: int) -> None:
    """Serve until SIGTERM; the port is the first line of standard output."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    record = Record(file)
    slow = SlowFcm(record, pause_s=pause_s, seed=seed)
    async with slow.sink:
        beside = [asyncio.create_task(record.write_on()), asyncio.create_task(slow.serve())]
        sys.stdout.write(f"{slow.sink.port}\n")
        sys.stdout.flush()
        await stopping.wait()
        for task in beside:
            task.cancel()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--pause", type=float, default=0.2, help="seconds that a notification takes, more or less")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.record, pause_s=chosen.pause, seed=chosen.seed))


if __name__ == "__main__":
    main()
