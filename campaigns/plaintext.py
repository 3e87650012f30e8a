"""The plain text of a mail, out of its HTML."""

import re
from typing import TYPE_CHECKING

from campaigns.errors import CampaignError
from campaigns.markup import CLOSE, MARK, OPEN, Masked, mask

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

MOST_NESTING = 200
"""Of HTML elements; mail has some 20, and we walk it recursively."""


def visible_text(source: str, *, field: tuple[str, ...]) -> str:
    """The plain text of an HTML template, as a template: what a reader sees, links with their addresses.

    Template tags keep their places and conditions. What is hidden (display: none, comments, head) is left out, so
    what is not in here is not visible either. Raises CampaignError with `field` for HTML that nests too deeply.
    """
    from selectolax.lexbor import LexborHTMLParser

    masked = mask(source)
    # A tag before the first element would else stand before <html>, outside of the body.
    body = LexborHTMLParser("<body>" + masked.commented()).body
    writer = TextWriter(masked, field)
    if body is not None:
        writer.children(body, 0)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", "".join(writer.parts)))
    return masked.restore(text.strip()) + "\n"


PARAGRAPHS = frozenset(
    {"blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "pre", "table", "ul"},
)
LINES = frozenset(
    {"address", "article", "aside", "center", "dd", "div", "dt", "fieldset", "figcaption", "figure", "footer", "form"}
    | {"header", "li", "main", "nav", "section", "tbody", "td", "tfoot", "th", "thead", "tr"},
)
BLOCKS = PARAGRAPHS | LINES
UNSEEN = frozenset({"head", "link", "meta", "noscript", "object", "script", "style", "template", "title"})
HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all", re.IGNORECASE)
SPACE = re.compile(r"[ \t\r\n\f]+")


class TextWriter:
    """Collects text; line breaks and spaces wait until something follows them, so that none is doubled.

    An `{% if %}` takes its place at once and leaves breaks waiting: `<p>A</p>{% if x %}<p>B</p>{% endif %}<p>C</p>`
    becomes "A{% if x %}\n\nB{% endif %}\n\nC", right with and without B. A loop has its break at the end of a round.
    """

    def __init__(self, masked: Masked, field: tuple[str, ...]) -> None:
        self.masked, self.field = masked, field
        self.parts: list[str] = []
        self.ended = 2
        """Line ends that the text so far ends with; nothing needs a break before it."""
        self.breaks = 0
        self.space = False
        self.open: list[tuple[str, int]] = []
        """The block tags around this place, each with the breaks that waited where it began."""

    def say(self, text: str) -> None:
        if self.breaks:
            self.break_now()
        elif self.space and not self.ended:
            self.parts.append(" ")
        self.breaks, self.space, self.ended = 0, False, 0
        self.parts.append(text)

    def break_now(self) -> None:
        self.parts.append("\n" * (self.breaks - self.ended))
        self.ended = max(self.ended, self.breaks)
        self.breaks, self.space = 0, False

    def text(self, text: str) -> None:
        """Running text: white space of any length is one space."""
        words = SPACE.sub(" ", text)
        self.space = self.space or words.startswith(" ")
        if words.strip(" "):
            self.say(words.strip(" "))
            self.space = words.endswith(" ")

    def line_break(self, breaks: int) -> None:
        self.breaks, self.space = max(self.breaks, breaks), False

    def block_tag(self, mark: str) -> None:
        """A `{% %}`: in running text its place is after the space before it."""
        words = self.masked.tags[int(mark.strip(OPEN + CLOSE))].strip("{}%-+ \t\n").split(maxsplit=1)
        word = words[0] if words else ""
        around, waited = self.open[-1] if self.open else ("", 0)
        if self.space and not self.breaks and not self.ended:
            self.parts.append(" ")
            self.space = False
        if word == "for" or (around == "for" and word in ("else", "endfor")):
            self.break_now()
        self.parts.append(mark)
        if word in ("if", "for"):
            self.open.append((word, self.breaks))
        elif word.startswith("end") and self.open:
            self.open.pop()
        if word in ("elif", "else", "endif"):
            self.breaks = max(self.breaks, waited)

    def children(self, node: "LexborNode", depth: int) -> None:
        if depth > MOST_NESTING:
            message = "The HTML nests too deeply; use fewer elements inside each other."
            raise CampaignError("TEMPLATE_TOO_LARGE", message, field=self.field)
        child = node.child
        while child is not None:
            self.element(child, depth + 1)
            child = child.next

    def element(self, node: "LexborNode", depth: int) -> None:
        tag = node.tag or ""
        if tag == "-text":
            self.text(node.text_content or "")
        elif tag == "-comment":
            if mark := MARK.fullmatch(node.comment_content or ""):
                self.block_tag(mark[0])
        elif tag == "br":
            self.break_now()
            self.parts.append("\n")
            self.ended += 1
        elif tag == "img":
            self.text(node.attributes.get("alt") or "")
        elif tag not in UNSEEN and not hidden(node):
            self.block(node, tag, depth) if tag in BLOCKS else self.inline(node, tag, depth)

    def block(self, node: "LexborNode", tag: str, depth: int) -> None:
        if tag in ("td", "th"):  # cells of a row stand beside each other
            self.space = not self.breaks
            self.children(node, depth)
            return
        self.line_break(2 if tag in PARAGRAPHS else 1)
        if tag == "hr":
            self.say("-" * 40)
        if tag == "li":
            self.say(item_mark(node))
        self.children(node, depth)
        self.line_break(2 if tag in PARAGRAPHS else 1)

    def inline(self, node: "LexborNode", tag: str, depth: int) -> None:
        before = len(self.parts)
        self.children(node, depth)
        address = (node.attributes.get("href") or "").strip() if tag == "a" else ""
        said = "".join(self.parts[before:]).strip()
        if said and address and not address.startswith("#") and said != address.removeprefix("mailto:"):
            self.say(f"{' ' if self.parts[-1][-1:] not in (' ', chr(10)) else ''}({address})")


def item_mark(node: "LexborNode") -> str:
    """What stands before an item: its number in an ordered list, unless a template tag decides what comes before."""
    number, before = 1, node.prev
    while before is not None:
        if before.tag == "-comment":
            return "- "
        number += before.tag == "li"
        before = before.prev
    parent = node.parent
    return f"{number}. " if parent is not None and parent.tag == "ol" else "- "


def hidden(node: "LexborNode") -> bool:
    """Whether an element is not shown."""
    attributes = node.attributes
    return "hidden" in attributes or bool(HIDDEN_STYLE.search(attributes.get("style") or ""))
