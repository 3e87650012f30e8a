"""What is done with an email's templates before anything is sent: proved when they are written, previewed on request.

Both work on text that nobody has looked at yet, so they run where they can be stopped and can do no harm: in a child
process (app/proofs.py), which use cases reach through the port `Proofs`. The proof is kept with the content; whoever
starts or tests a campaign looks at it and compiles nothing. ADR 0013.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from campaigns.emails import (
    BODY_LIMIT,
    FINISHED_LIMIT,
    SUBJECT_LIMIT,
    EmailContent,
    Finished,
    Recipient,
    Variable,
    common_scope,
    compile_email,
    defaults,
    finish,
    scope_of,
)
from campaigns.errors import CampaignError, RenderError
from campaigns.markup import check_places
from campaigns.mime import HTML_BODY, LONGEST_SUBJECT, TEXT_BODY, SenderInfo, one_line
from campaigns.program import MISSING, PLAIN, Encoding, Frame, Program, Read, Value, plain
from campaigns.templates import compile_template
from campaigns.variables import CONTEXT

if TYPE_CHECKING:  # campaigns/push_proofs.py builds on this module
    from campaigns.push_content import PushContent
    from campaigns.push_proofs import PushPreview, PushTrial

CLIPPED_ABOVE = 102_400
"""Bytes of HTML; Gmail shows no more of a mail."""
ESCAPED = Encoding(plain, lambda value: plain(escape(value, quote=True)))
"""HTML that is not encoded for a mail."""
COSTLY = frozenset({"TOO_LARGE", "TOO_MUCH_WORK"})


@dataclass(frozen=True, slots=True)
class Objection:
    """Something that speaks against a content, and the mend."""

    code: str
    message: str
    field: tuple[str, ...]

    @classmethod
    def of(cls, refusal: CampaignError, *, field: tuple[str, ...] = ()) -> "Objection":
        return cls(refusal.code, refusal.message, refusal.field or field)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Objection":
        return cls(value["code"], value["message"], tuple(value["field"]))


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a content that was found fit to be kept."""

    variables: tuple[Variable, ...]
    """What it asks about recipients and what it declares, by name; the default is None where none is declared."""
    objection: Objection | None
    """Why it must not be sent as marketing; None when it may."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Proof":
        objection = value["objection"]
        return cls(tuple(Variable(**one) for one in value["variables"]), objection and Objection.from_json(objection))


@dataclass(frozen=True, slots=True)
class Trial:
    """What to preview: a content for one recipient."""

    content: EmailContent
    sender: SenderInfo
    campaign_name: str
    recipient: Recipient
    marketing: bool
    unsubscribe_url: str
    now: datetime

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Trial":
        return cls(
            EmailContent.from_json(value["content"]),
            SenderInfo.from_json(value["sender"]),
            value["campaign_name"],
            Recipient(**value["recipient"]),
            value["marketing"],
            value["unsubscribe_url"],
            datetime.fromisoformat(value["now"]),
        )


@dataclass(frozen=True, slots=True)
class Used:
    """Something about the recipient that a content reads."""

    name: str
    value: Any
    """What the template sees: the recipient's, else the declared default; None when there is neither."""
    missing: bool
    """Whether the recipient has none."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A mail as its recipient would get it. A text is None when it cannot be made, and a problem says why."""

    subject: str | None
    preheader: str | None
    text: str | None
    html: str | None
    """Empty for a mail of plain text."""
    size: int | None
    """Bytes of the whole message; None when it cannot be made."""
    variables: tuple[Used, ...]
    problems: tuple[Objection, ...]
    """Why this recipient's mail would fail; empty when it can be made."""
    warnings: tuple[Objection, ...]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preview":
        texts = {name: value[name] for name in ("subject", "preheader", "text", "html", "size")}
        return cls(
            **texts,
            variables=tuple(Used(**one) for one in value["variables"]),
            problems=tuple(map(Objection.from_json, value["problems"])),
            warnings=tuple(map(Objection.from_json, value["warnings"])),
        )


class Proofs(Protocol):
    """Who reads what people write, at no risk to the process that asks."""

    def prepare(self) -> None:
        """Be ready for the first request, in a process that will have some."""

    async def prove(self, content: "EmailContent | PushContent", *, workspace_id: UUID) -> Proof:
        """What is known of a content. Raises CampaignError naming the field: what is wrong, that reading it took too
        long or too much memory, or BUSY. `workspace_id` is who asks: nobody takes all turns."""

    async def preview(self, trial: Trial, *, workspace_id: UUID) -> Preview:
        """A mail as its recipient would get it. Raises CampaignError like `prove`."""

    async def preview_push(self, trial: "PushTrial", *, workspace_id: UUID) -> "PushPreview":
        """A notification as every platform would be given it. Raises CampaignError like `prove`."""


# --- proving ------------------------------------------------------------------------------------------------------


def prove(content: EmailContent) -> Proof:
    """`Proofs.prove`, in this process."""
    return proved(content)[0]


def proved(content: EmailContent) -> tuple[Proof, Finished]:
    """The proof of a content, and its parts as they are sent: a preview makes them no second time, since most of what
    a content costs is making them."""
    check_given(content)
    known = defaults(content)
    for name, source, limit in (
        ("subject", content.subject, SUBJECT_LIMIT),
        ("preheader", content.preheader, SUBJECT_LIMIT),
        ("text", content.text, BODY_LIMIT),
        ("html", content.html, BODY_LIMIT),
        ("mjml", content.mjml, BODY_LIMIT),
    ):
        compile_template(source, field=("content", name), limit=limit, encoding=PLAIN)
    page = ("content", content.page_field)
    if source := content.mjml.strip() or content.html.strip():
        check_places(source, field=page)
    finished = finish(content)
    if content.mjml.strip():
        check_places(finished.html, field=page)
    programs: dict[tuple[str, ...], Program] = {
        ("content", "subject"): compile_template(
            content.subject, field=("content", "subject"), limit=SUBJECT_LIMIT, encoding=PLAIN, defaults=known
        ),
        ("content", "text"): compile_template(
            finished.text, field=("content", "text"), limit=FINISHED_LIMIT, encoding=TEXT_BODY, defaults=known
        ),
        page: compile_template(finished.html, field=page, limit=FINISHED_LIMIT, encoding=HTML_BODY, defaults=known),
    }
    found = {declared.name: declared for declared in content.variables}
    for path, program in programs.items():
        rehearse(program, field=path)
        for name, read in asked(program).items():
            found[name] = Variable(name, None if read.default is MISSING else read.default)
    proof = Proof(tuple(found[name] for name in sorted(found)), marketing_objection(content, finished, programs))
    return proof, finished


def check_given(content: EmailContent) -> None:
    """Raise CampaignError unless there is a subject, and something to say in one way only."""
    if not content.subject.strip():
        raise CampaignError("SUBJECT_MISSING", "Write a subject.", field=("content", "subject"))
    if content.html.strip() and content.mjml.strip():
        message = "Give either html or mjml: the HTML is made from the MJML."
        raise CampaignError("HTML_AND_MJML", message, field=("content", "mjml"))
    if not (content.text.strip() or content.html.strip() or content.mjml.strip()):
        message = "Write the HTML (or MJML), the text, or both."
        raise CampaignError("CONTENT_EMPTY", message, field=("content", "html"))


def asked(program: Program) -> dict[str, Read]:
    """What a program asks about recipients, by the name as the template has it."""
    return {name: read for name, read in program.reads.items() if read.declared_as}


def rehearse(program: Program, *, field: tuple[str, ...]) -> None:
    """Render for somebody whose every value is a word; refuse what would be too much for everybody.

    Other failures are that somebody's: a word is no date and no list.
    """
    scope: dict[str, Value] = {
        name: Anything() if fields != frozenset() else "word" for name, fields in CONTEXT.items()
    }
    try:
        program.render(scope, [])
    except RenderError as refusal:
        if refusal.code in COSTLY:
            raise CampaignError("TEMPLATE_TOO_COSTLY", refusal.message, field=field) from refusal


class Anything(dict[str, Value]):
    """Has a word under every name."""

    def get(self, key: str, default: object = None) -> Value:
        return "word"


UNSUBSCRIBE_SNIPPET = {"html": '<a href="{{ unsubscribe_url }}">Unsubscribe</a>', "text": "{{ unsubscribe_url }}"}


def marketing_objection(
    content: EmailContent, finished: Finished, programs: dict[tuple[str, ...], Program]
) -> Objection | None:
    """What everybody must see of marketing mail and does not, whatever the conditions in the template (CAN-SPAM,
    RFC 8058); None when nothing is missing."""
    text = programs["content", "text"].always
    shown = {"text": text}
    if finished.html and content.text.strip():
        seen = compile_template(finished.seen, field=("content", "html"), limit=FINISHED_LIMIT, encoding=PLAIN)
        shown[content.page_field] = seen.always
    elif finished.html:
        shown = {content.page_field: text}  # made from what is seen of the HTML
    for name, always in shown.items():
        path = ("content", name)
        if "unsubscribe_url" not in always:
            snippet = UNSUBSCRIBE_SNIPPET["text" if name == "text" else "html"]
            message = (
                f"Marketing mail needs a link to unsubscribe that everybody sees, outside of conditions; add {snippet}"
            )
            return Objection("UNSUBSCRIBE_LINK_MISSING", message, path)
        if "sender.postal_address" not in always:
            message = (
                "Marketing mail needs the sender's postal address where everybody sees it, outside of conditions; add"
                " {{ sender.postal_address }}"
            )
            return Objection("POSTAL_ADDRESS_MISSING", message, path)
    return None


# --- previewing ---------------------------------------------------------------------------------------------------


def preview(trial: Trial) -> Preview:
    """`Proofs.preview`, in this process."""
    content = trial.content
    (proof, finished), known = proved(content), defaults(content)
    scope = scope_of(
        common_scope(trial.sender, trial.campaign_name),
        trial.recipient,
        unsubscribe_url=trial.unsubscribe_url,
        now=trial.now,
    )
    made: dict[str, str | None] = {}
    used: dict[str, Used] = {}
    unread = dict(zip(known, content.variables, strict=True))
    problems: list[Objection] = []
    for name, source, encoding in (
        ("subject", content.subject, PLAIN),
        ("preheader", content.preheader, PLAIN),
        ("text", finished.text, PLAIN),
        ("html", finished.html, ESCAPED),
    ):
        path = ("content", content.page_field if name == "html" else name)
        program = compile_template(source, field=path, limit=FINISHED_LIMIT, encoding=encoding, defaults=known)
        for one, read in asked(program).items():
            used[one] = look_up(one, read, scope)
            unread.pop(read.declared_as, None)
        out: list[bytes] = []
        try:
            program.render(scope, out)
            made[name] = b"".join(out).decode()
        except RenderError as refusal:
            made[name] = None
            problems.append(Objection.of(refusal, field=path))
    if made["subject"] is not None:
        made["subject"] = one_line(made["subject"])
    size = None
    if not problems:
        try:
            size = len(whole_message(trial, finished))
        except RenderError as refusal:  # its address is none
            problems.append(Objection.of(refusal))
    return Preview(
        subject=made["subject"] and made["subject"][:LONGEST_SUBJECT],
        preheader=made["preheader"],
        text=made["text"],
        html=made["html"],
        size=size,
        variables=tuple(used[name] for name in sorted(used)),
        problems=tuple(problems),
        warnings=tuple(warnings(trial, proof, made, unread.values())),
    )


def look_up(name: str, read: Read, scope: dict[str, Value]) -> Used:
    """What a template sees under a name."""
    own = read.find(Frame(scope, []))
    value = read.default if own is MISSING else own
    return Used(name, None if value is MISSING else value, own is MISSING)


def whole_message(trial: Trial, finished: Finished) -> bytes:
    """The message as it would be sent."""
    compiled = compile_email(
        trial.content,
        finished=finished,
        sender=trial.sender,
        list_unsubscribe=trial.marketing,
        campaign_id=UUID(int=0),
        campaign_name=trial.campaign_name,
    )
    return compiled.render(
        trial.recipient,
        message_id="<preview@example.com>",
        sent_at=trial.now.replace(microsecond=0),
        unsubscribe_url=trial.unsubscribe_url,
        delivery_key="preview",
    )


def warnings(trial: Trial, proof: Proof, made: dict[str, str | None], unread: Iterable[Variable]) -> list[Objection]:
    """What can be sent and may not be meant."""
    content, found = trial.content, list[Objection]()
    page = ("content", content.page_field)

    def warn(code: str, message: str, field: tuple[str, ...]) -> None:
        found.append(Objection(code, message, field))

    if trial.marketing and proof.objection:
        found.append(proof.objection)
    if len((made["html"] or "").encode()) > CLIPPED_ABOVE:
        warn("CLIPPED", f"Gmail shows only the first {CLIPPED_ABOVE // 1024} KB of the HTML; shorten it.", page)
    if len(made["subject"] or "") > LONGEST_SUBJECT:
        message = f"The subject is cut after {LONGEST_SUBJECT} characters; mail programs show about 60."
        warn("SUBJECT_CUT", message, ("content", "subject"))
    if content.preheader.strip() and not (content.html.strip() or content.mjml.strip()):
        warn("NOT_SHOWN", "A preheader is shown with HTML only.", ("content", "preheader"))
    for variable in unread:
        warn("NOT_READ", f"No template reads {variable.name}; its default changes nothing.", ("content", "variables"))
    return found
