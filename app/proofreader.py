"""The child that reads what people write: `python -m app.proofreader MEMORY CPU`, started by app/proofs.py.

It has one socket, its standard input, and takes one request after the other: four bytes of length, then JSON. Once it
has loaded what it needs it gives up the right to open anything, so that whatever a template may make it do, there is no
file, no network and no secret within its reach. It ends when its parent does, since the socket then ends.
"""

import os
import resource
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from campaigns import push_proofs
from campaigns.emails import EmailContent, Recipient
from campaigns.errors import CampaignError
from campaigns.mime import SenderInfo
from campaigns.proofs import Trial, preview, prove
from campaigns.push_content import PushContent
from campaigns.push_proofs import PushTrial

STACK_BYTES = 4 * 1024 * 1024
"""Half of what threads usually have: workers compile in a thread what passed here, and an overflow would end them."""
READY = b"{}"
TOO_MUCH = "Reading this content takes too much memory; simplify it."
MJML = (
    "<mjml><mj-body><mj-section><mj-column><mj-text>{{ now | date }}</mj-text></mj-column></mj-section></mj-body>"
    "</mjml>"
)
CONTENTS: list[dict[str, Any]] = [
    {"subject": "{{ profile.a | default('b') }}", "mjml": MJML, "variables": [{"name": "traits['a']", "default": 1}]},
    {"subject": "ü", "html": "<style>p { color: red }</style><p>{% if 1 < 2 %}&uuml;{% endif %}</p>", "preheader": "a"},
    {"subject": "{{ 'a' | number }}", "text": "{% for a in traits.b %}{{ a | urlencode }}{% endfor %}"},
    {"subject": "a", "text": "{% if"},
    {"subject": "a", "text": "{% macro a() %}{% endmacro %}"},
    {"subject": "a", "mjml": "<mjml>"},
    {"subject": "a", "mjml": "<mjml><mj-body><mj-section <mj-body></mjml>"},
]
"""One of each kind, good and bad: what is loaded when first used is loaded by these."""
TRIAL = {
    "sender": SenderInfo("Ä", "a@bücher.example", None, "b"),
    "campaign_name": "a",
    "recipient": Recipient("a@bücher.example"),
    "marketing": True,
    "unsubscribe_url": "https://example.com",
    "now": "2026-01-01T00:00:00Z",
}


PUSH_TRIAL = {
    "content": {"title": "{{ profile.a | default('b') }}", "link": "a://b/", "translations": [{"locale": "de"}]},
    "campaign_name": "a",
    "recipient": Recipient("", locale="de-CH"),
    "expires_at": None,
    "now": "2026-01-01T00:00:00Z",
}
ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "prove": lambda of: prove(EmailContent.from_json(of)),
    "preview": lambda of: preview(Trial.from_json(of)),
    "prove_push": lambda of: push_proofs.prove(PushContent.from_json(of)),
    "preview_push": lambda of: push_proofs.preview(PushTrial.from_json(of)),
}


def main(memory_bytes: int, cpu_s: int) -> None:
    """Answer requests until there are no more."""
    connection = socket.socket(fileno=sys.stdin.fileno())
    warm_up()
    give_up_rights(memory_bytes)
    send(connection, READY)
    while (request := receive(connection)) is not None:
        allow_cpu(cpu_s)
        said = answer(request)
        send(connection, orjson.dumps(said))
        if said.get("last"):
            return


def warm_up() -> None:
    """Use everything once. Raises RuntimeError when something is broken."""
    trials: list[tuple[str, Any]] = [("preview", TRIAL | {"content": content}) for content in CONTENTS]
    for what, of in (*trials, ("preview_push", PUSH_TRIAL), ("prove_push", PUSH_TRIAL["content"])):
        said = answer(orjson.dumps({"do": what, "of": of}))
        if "fault" in said:
            raise RuntimeError(said["fault"])


def give_up_rights(memory_bytes: int) -> None:
    """From here on: no more memory than told, no new file or socket, nothing written, nothing said."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 3,
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if sys.platform == "linux":  # macOS knows the name and refuses the limit
        limits[resource.RLIMIT_AS] = memory_bytes
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))


def allow_cpu(cpu_s: int) -> None:
    """Let the kernel end this process after `cpu_s` to `cpu_s + 1` more seconds of work (it counts whole ones)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def answer(request: bytes) -> dict[str, Any]:
    """{"value"}, {"refusal"} with code, message and field, or {"fault"} for a mistake of ours.

    `last`: this process is not to be trusted with another request.
    """
    try:
        wanted = orjson.loads(request)
        return {"value": ANSWERS[wanted["do"]](wanted["of"])}
    except CampaignError as refusal:
        return {"refusal": {"code": refusal.code, "message": refusal.message, "field": refusal.field}}
    except MemoryError:
        return {"refusal": {"code": "TEMPLATE_TOO_COSTLY", "message": TOO_MUCH, "field": ("content",)}, "last": True}
    except Exception as fault:
        # Type and place only: the message may hold what somebody wrote.
        return {"fault": f"{type(fault).__name__} at {place(fault)}"}


def place(fault: BaseException) -> str:
    """File and line where an exception was raised."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"


def receive(connection: socket.socket) -> bytes | None:
    """The next request; None when the parent is gone."""
    head = read(connection, 4)
    return read(connection, struct.unpack(">I", head)[0]) if head else None


def read(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        if not (part := connection.recv(size - len(data))):
            return None
        data += part
    return bytes(data)


def send(connection: socket.socket, body: bytes) -> None:
    connection.sendall(struct.pack(">I", len(body)) + body)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
