"""HTML that is a template too: what must happen to the HTML before the template is compiled.

HTML tools would move or mangle template tags: a `{% for %}` between table rows is text where no text may be, and every
parser puts it before the table (libxml2, and so inscriptis; HTML5 calls it foster parenting). So tags are masked
first: each becomes a mark of two private-use characters around a number, a comment where a block tag stands in text
(comments stay where they are), and is put back afterwards.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError

from campaigns.errors import CampaignError
from campaigns.syntax import ENVIRONMENT

OPEN, CLOSE = "\ue000", "\ue001"
MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")
BRACES = re.compile(r"\{[{%#]")
COMMENTED_OR_ATTRIBUTE = re.compile(f'<!--{OPEN}(\\d+){CLOSE}-->|{OPEN}(\\d+){CLOSE}(?:="")?')


@dataclass(frozen=True, slots=True)
class Masked:
    """A template with its tags replaced by marks."""

    html: str
    tags: tuple[str, ...]

    def restore(self, html: str) -> str:
        """Put the tags back; what a tool made of a mark (a comment, an empty attribute) goes with it.

        Braces that the tool made, from `&#123;` or by closing up `{ #id`, are text and stay text.
        """
        html = BRACES.sub(lambda found: f'{{{{ "{found[0]}" }}}}', html)
        return COMMENTED_OR_ATTRIBUTE.sub(lambda found: self.tags[int(found[1] or found[2])], html)

    def commented(self) -> str:
        """The same with block tags that stand in text as comments, as HTML tools need it."""
        text_ends = 0
        made: list[str] = []
        for start, end in markup_spans(self.html):
            made += [self._comment(self.html[text_ends:start]), self.html[start:end]]
            text_ends = end
        return "".join([*made, self._comment(self.html[text_ends:])])

    def _comment(self, text: str) -> str:
        return MARK.sub(lambda found: f"<!--{found[0]}-->" if self.is_block(int(found[1])) else found[0], text)

    def is_block(self, number: int) -> bool:
        return not self.tags[number].startswith("{{")


def mask(source: str) -> Masked:
    """Replace the template tags of a template that is known to parse. Template comments vanish."""
    parts: list[str] = []
    tags: list[str] = []
    tag: list[str] = []
    verbatim = False
    try:
        tokens = list(ENVIRONMENT.lex(source.replace(OPEN, "").replace(CLOSE, "")))
    except TemplateSyntaxError as error:  # checked before; kept for those who call this alone
        raise CampaignError("TEMPLATE_SYNTAX", f"Line {error.lineno}: {error.message}.") from error
    for _, kind, text in tokens:
        if kind in ("data", "raw_begin", "raw_end"):
            if kind == "data" and not verbatim:
                parts.append(text)
                continue
            # What is inside {% raw %} is text, but text that only means itself with the tags around it.
            verbatim = kind != "raw_end"
            tag.append(text)
            if verbatim:
                continue
        elif kind.startswith("comment"):
            continue
        else:
            tag.append(text)
            if not kind.endswith("_end"):
                continue
        parts.append(f"{OPEN}{len(tags)}{CLOSE}")
        tags.append("".join(tag))
        tag.clear()
    return Masked("".join(parts), tuple(tags))


NAME = re.compile(r"[a-zA-Z][^\s/>]*")
QUOTE_OR_END = re.compile(r"[\"'>]")
RAW_TEXT = frozenset({"style", "script", "title", "textarea"})


def markup_spans(html: str) -> Iterator[tuple[int, int]]:
    """Where tags, comments and the insides of style and script are, in order, [start, end).

    One pass, each character looked at a bounded number of times, however broken the HTML is.
    """
    at = 0
    while (start := html.find("<", at)) >= 0:
        if html.startswith("<!--", start):
            closed = html.find("-->", start + 4)
            at = closed + 3 if closed >= 0 else len(html)
        elif html[start + 1 : start + 2].isalpha() or html[start + 1 : start + 2] in ("/", "!", "?"):
            at = end_of_tag(html, start)
            name = NAME.match(html, start + 1)
            if name and name[0].lower() in RAW_TEXT:
                closing = re.compile(f"</{name[0]}", re.IGNORECASE).search(html, at)
                at = closing.start() if closing else len(html)
        else:
            at = start + 1
            continue
        yield start, at


def end_of_tag(html: str, start: int) -> int:
    """Just after the `>` of the tag at `start`, quoted attribute values skipped."""
    at = start
    while found := QUOTE_OR_END.search(html, at):
        if found[0] == ">":
            return found.end()
        quoted = html.find(found[0], found.end())
        if quoted < 0:
            break
        at = quoted + 1
    return len(html)


def inline_css(source: str, *, field: tuple[str, ...]) -> str:
    """A template with the rules of its <style> elements in style attributes; media queries stay where they are.

    Mail programs drop <style>. A template without it comes back untouched. Raises CampaignError with `field`.
    """
    if not re.search("<style", source, re.IGNORECASE):
        return source
    import css_inline

    masked = mask(source)
    # A tag before the first element of a fragment would else end up before <html>, its end inside the body.
    fragment = "" if re.search("<html|<body", source, re.IGNORECASE) else "<body>"
    try:
        # No network and no files: a stylesheet that is linked is not ours to fetch.
        inlined = css_inline.inline(fragment + masked.commented(), load_remote_stylesheets=False, keep_at_rules=True)
    except css_inline.InlineError as error:
        message = f"The CSS cannot be moved into the elements: {str(error)[:200]}."
        raise CampaignError("STYLE_NOT_READABLE", message, field=field) from error
    if "<tbody" not in source.lower():
        # Added by the tool as every HTML parser does, after the mark of a loop over rows: its start would be repeated.
        inlined = inlined.replace("<tbody>", "").replace("</tbody>", "")
    return masked.restore(inlined)


def with_preheader(html: str, preheader: str) -> str:
    """A template with another, of plain text, as its first and invisible words: what mail programs show in lists."""
    masked = mask(preheader)
    escaped = masked.html.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    style = "display:none;max-height:0;overflow:hidden;mso-hide:all"
    hidden = f'<div style="{style}">{masked.restore(escaped)}</div>'
    for start, end in markup_spans(html):
        if html[start : start + 5].lower() == "<body":
            return html[:end] + hidden + html[end:]
    return hidden + html


# What may stand where

URL_ATTRIBUTES = frozenset({"href", "src", "action", "formaction", "background", "poster", "cite", "data"})
ATTRIBUTE = re.compile(r"(?<![^\s\"'/])([^\s=>\"'/]++)\s*+=\s*+(\"[^\"]*\"|'[^']*'|[^\s>]+)")
FIXED_SCHEME = re.compile(r"\s*(?:https?:/|mailto:|tel:|/|#|\?)", re.IGNORECASE)


def check_places(source: str, *, field: tuple[str, ...]) -> None:
    """Refuse a value where escaping does not make it safe: in a script, an event handler, an attribute without
    quotes, or at the beginning of an address without `| url`. Raises CampaignError, naming the tag."""
    masked = mask(source)
    if f"<{OPEN}" in masked.html:
        raise misplaced("A value cannot follow a <; write &lt; if the sign is meant.", field)
    for start, end in markup_spans(masked.html):
        tag = masked.html[start:end]
        if tag.startswith("<!--") or not MARK.search(tag):
            continue
        inside = end_of_tag(tag, 0)
        name = tag[1:inside].split(maxsplit=1)[0].rstrip(">").lower()
        if name == "script" and MARK.search(tag, inside):
            raise misplaced("A value cannot stand inside a script.", field)
        left_over = tag[:inside]
        for found in ATTRIBUTE.finditer(tag, 0, inside):
            attribute, value = found[1].lower(), found[2]
            marks = [int(one[1]) for one in MARK.finditer(value)]
            printed = [one for one in marks if not masked.is_block(one)]
            if not printed:
                continue
            if value[0] not in "\"'":
                raise misplaced(f'Put quotes around the value of {attribute}=, as in {attribute}="...".', field)
            if attribute.startswith("on") or attribute in ("srcdoc", "srcset"):
                raise misplaced(f"A value cannot stand in {attribute}=.", field)
            if attribute in URL_ATTRIBUTES:
                check_url(masked, value[1:-1], attribute, field)
            left_over = left_over.replace(found[0], "")
        if any(not masked.is_block(int(one[1])) for one in MARK.finditer(left_over)):
            raise misplaced("A value can stand in text or in quotes, not as the name of a tag or an attribute.", field)


def check_url(masked: Masked, value: str, attribute: str, field: tuple[str, ...]) -> None:
    """A value in an address must be safe, unless what stands before it settles what kind of address it is, whatever
    the conditions."""
    marks = list(MARK.finditer(value))
    unconditional = next((one.start() for one in marks if masked.is_block(int(one[1]))), len(value))
    for found in marks:
        number = int(found[1])
        before = MARK.sub("", value[: min(found.start(), unconditional)])
        if masked.is_block(number) or FIXED_SCHEME.match(before):
            continue
        inner = masked.tags[number].strip("{}-+ \t\n")
        if inner != "unsubscribe_url" and not re.search(r"\|\s*url$", inner):
            raise misplaced(f"Write {{{{ {inner} | url }}}} in {attribute}=, so that only web addresses get in.", field)


def misplaced(message: str, field: tuple[str, ...]) -> CampaignError:
    return CampaignError("TEMPLATE_NOT_ALLOWED", message, field=field)
