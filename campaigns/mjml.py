"""MJML, the markup for mail layouts, made into HTML; template tags in it survive.

The work is done by mrml. It reads nothing from files or the network, and it lets through much that is no MJML: a tag
of an unknown name, an end tag without its start. What it lets through is refused here, with the line.
"""

import re
from collections.abc import Iterator

from campaigns.errors import CampaignError
from campaigns.markup import CLOSE, MARK, OPEN, Masked, end_of_tag, markup_spans, mask

MOST_NESTING = 100
"""Of elements; mrml is recursive, and a stack that overflows ends the process."""
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
TAG_NAME = re.compile(r"</?\s*([a-zA-Z][^\s/>]*)")
POSITION = re.compile(r"\s*(?:in root template)?\s*(?:at position (\d+):(\d+))?$")


def to_html(source: str, *, field: tuple[str, ...], limit: int) -> str:
    """The HTML template of an MJML template. Raises CampaignError with `field`, saying what is wrong and where, or that
    it becomes more than `limit` bytes."""
    # Here as in markup.py and plaintext.py: processes that make no mail need not have the libraries that read it.
    import mrml

    masked = mask(source)
    check_tags(masked, field)
    # mrml writes private-use characters in attributes as \\u{e000}, so a mark is a word here: one the text has not.
    word = unused_word(masked.html)
    commented = masked.commented()
    text = MARK.sub(lambda found: f"{word}{found[1]}z", commented)
    try:
        # No file is included, and no font is fetched from anywhere unless <mj-font> names it; upstream would link
        # Google's.
        options = mrml.ParserOptions(include_loader=mrml.noop_loader())
        html: str = mrml.to_html(text, options, mrml.RenderOptions(fonts={})).content
    except OSError as error:
        raise CampaignError("MJML_NOT_READABLE", explained(str(error), text, masked, word), field=field) from error
    if (size := len(html.encode())) > limit:
        message = f"The MJML becomes {size:,} bytes of HTML; at most {limit:,} are taken."
        raise CampaignError("TEMPLATE_TOO_LARGE", message, field=field)
    html = marked(html, word)
    check_result(html, commented, masked, field)
    return masked.restore(html).rstrip()


def unused_word(text: str) -> str:
    """Letters that `text` has nowhere."""
    word = "mark"
    while word in text:
        word += "q"
    return word


def marked(text: str, word: str) -> str:
    """Marks again where the words for them are."""
    return re.sub(f"{word}(\\d+)z", f"{OPEN}\\1{CLOSE}", text)


def line_of(masked: Masked, before: str) -> int:
    """The line, from 1, that an author sees where the masked text `before` ends."""
    return MARK.sub(lambda found: masked.tags[int(found[1])], before).count("\n") + 1


def check_tags(masked: Masked, field: tuple[str, ...]) -> None:
    """Refuse elements that nest too deeply, and <mj-...> that are not closed in order. Others are HTML inside, where
    mail is forgiving."""
    open_tags: list[tuple[str, int]] = []
    depth = 0
    for start, tag, name in tags(masked.html):
        if not tag.endswith("/>") and name not in VOID:
            depth += -1 if tag.startswith("</") else 1
            if depth > MOST_NESTING:
                message = f"The MJML nests more than {MOST_NESTING} elements deep; use fewer inside each other."
                raise CampaignError("TEMPLATE_TOO_LARGE", message, field=field)
        if not name.startswith("mj"):
            continue
        if not tag.startswith("</"):
            if not tag.endswith("/>"):
                open_tags.append((name, start))
        elif open_tags and open_tags[-1][0] == name:
            open_tags.pop()
        else:
            last, where = open_tags[-1] if open_tags else ("", 0)
            now = f"<{last}> of line {line_of(masked, masked.html[:where])} is open" if open_tags else "nothing is open"
            raise unreadable(f"Line {line_of(masked, masked.html[:start])}: </{name}> does not fit; {now} here.", field)
    if open_tags:
        name, where = open_tags[-1]
        line = line_of(masked, masked.html[:where])
        raise unreadable(f"Line {line}: <{name}> is never closed; add </{name}>.", field)


def tags(html: str) -> Iterator[tuple[int, str, str]]:
    """Where each tag stands, the tag, and the name in it."""
    for start, end in markup_spans(html):
        if found := TAG_NAME.match(html, start, end):
            yield start, html[start : min(end, end_of_tag(html, start))], found[1]


def check_result(html: str, commented: str, masked: Masked, field: tuple[str, ...]) -> None:
    """Refuse what went through unread, and template tags that got lost or moved."""
    left_over = next((name for _, _, name in tags(html) if name.startswith("mj")), None)
    if left_over is not None:
        raise unreadable(f"<{left_over}> is not known to MJML, or cannot stand where it does.", field)
    before, after = block_tags(commented, masked), block_tags(html, masked)
    if before != after:
        lost = next((one for one in before if one not in after), before[0])
        message = (
            f"{masked.tags[lost]} cannot stand where it does; put it inside an <mj-text>, or around whole sections,"
            " columns or <mj-raw>."
        )
        raise CampaignError("TEMPLATE_NOT_ALLOWED", message, field=field)
    kept = {int(found[1]) for found in MARK.finditer(html)}
    for number, tag in enumerate(masked.tags):
        if number not in kept:
            message = f"{tag} gets lost: MJML does not use what stands there."
            raise CampaignError("TEMPLATE_NOT_ALLOWED", message, field=field)


def block_tags(html: str, masked: Masked) -> list[int]:
    """The template's block tags that stand in text (as comments), in order."""
    return [int(number) for number in re.findall(f"<!--{OPEN}(\\d+){CLOSE}-->", html) if masked.is_block(int(number))]


def explained(reason: str, text: str, masked: Masked, word: str) -> str:
    """mrml's reason as a sentence, its position (in bytes) as a line."""
    position = POSITION.search(reason)
    said = (reason[: position.start()] if position else reason).strip()
    if "include" in said:
        said = "files cannot be included; put what <mj-include> names here"
    elif not text.lstrip().startswith("<mjml"):
        said = "MJML begins with <mjml> and ends with </mjml>"
    elif "next template" in said:
        said = "it cannot be parsed; look for a < that is meant as text, and for attributes without a value in quotes"
    line = ""
    if position and position[1]:
        before = text.encode()[: int(position[1])].decode("utf-8", "replace")
        line = f"Line {line_of(masked, marked(before, word))}: "
    return f"{line}{said[:1].upper() if not line else said[:1]}{said[1:]}."


def unreadable(message: str, field: tuple[str, ...]) -> CampaignError:
    return CampaignError("MJML_NOT_READABLE", message, field=field)
