"""How much of the bodies of requests may leave: the server's windows, for each stream and for all (RFC 9113 5.2)."""

from collections import OrderedDict
from collections.abc import Callable

from channels.http2_frames import DATA, END_STREAM, LARGEST_FRAME, LARGEST_WINDOW, BrokenProtocol, frame_head
from channels.http2_messages import Job

USUAL_WINDOW = 65_535
"""Until the server says otherwise (RFC 9113 6.9.2)."""


class Windows:
    """The windows of one connection, and the requests whose body waits for them."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._all = USUAL_WINDOW
        self._each = USUAL_WINDOW
        self._waiting: OrderedDict[int, Job] = OrderedDict()

    def takes_at_once(self, body: bytes) -> bool:
        """Whether the body of a new request may leave whole, in one frame; it counts as sent then."""
        length = len(body)
        if length > self._all or length > self._each or length > LARGEST_FRAME:
            return False
        self._all -= length
        return True

    def wait(self, job: Job, body: bytes) -> None:
        """Send what may leave of the body of a new request, and the rest when it may."""
        job.unsent, job.window = body, self._each
        self._waiting[job.stream] = job
        self.push_on()

    def push_on(self) -> None:
        """Send what the windows allow of the bodies that wait, oldest first."""
        for job in list(self._waiting.values()) if self._waiting else ():
            while job.unsent and (room := min(self._all, job.window, LARGEST_FRAME)) > 0:
                part, job.unsent = job.unsent[:room], job.unsent[room:]
                self._all -= len(part)
                job.window -= len(part)
                flags = 0 if job.unsent else END_STREAM
                self._write(frame_head(len(part), DATA, flags, job.stream) + part)
            if not job.unsent:
                del self._waiting[job.stream]
            if self._all <= 0:
                return

    def begin_with(self, window: int) -> None:
        """The server says what the window of a stream is at its beginning. Raises BrokenProtocol."""
        if window > LARGEST_WINDOW:
            raise BrokenProtocol("a window larger than there can be")
        for job in self._waiting.values():
            job.window += window - self._each
        self._each = window

    def widen(self, stream: int, more: int) -> None:
        """The server takes so much more; stream 0 stands for all. Raises BrokenProtocol."""
        if stream == 0:
            self._all += more
            if self._all > LARGEST_WINDOW:
                raise BrokenProtocol("a window larger than there can be")
        elif (job := self._waiting.get(stream)) is not None:
            job.window += more

    def forget(self, stream: int) -> None:
        """This request ends, whatever has left of it."""
        self._waiting.pop(stream, None)

    def clear(self) -> None:
        """All end."""
        self._waiting.clear()
