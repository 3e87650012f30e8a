"""Parses documents: graphql-core's parser, which reads the tokens that nearly all documents are made of by a pattern.

graphql-core looks at one character after the other, which is half of what parsing costs. What the pattern does not know
(texts, numbers, comments, what is no GraphQL) is read as before, so that every token and every error is the same.
"""

import re
from itertools import islice

from graphql import DocumentNode, Source, TokenKind
from graphql.language.ast import Token
from graphql.language.lexer import Lexer
from graphql.language.parser import Parser, nested_too_deeply_error

TOKEN = re.compile(
    r'"""(?:\\"""|[^"]|"(?!""))*+(?:"""|\Z)'
    r'|"(?:[^"\\\n\r]|\\.)*+"?'
    r"|#[^\n\r]*+"
    r"|\.\.\."
    r"|[_A-Za-z][_0-9A-Za-z]*+"
    r"|-?[0-9][0-9.eE+-]*+"
    r"|[!$&()*:=@\[\]{|}]"
)
"""Every match goes on behind the last, and none looks back: to count takes a time linear in the text."""
USUAL = re.compile(r"[ \t,\n]*+(?:([_A-Za-z][_0-9A-Za-z]*+)|([!$&():=@\[\]{|}])|\.\.\.)")
COMMENT = re.compile(r"#[^\n\r\ud800-\udfff]*+(?=[\n\r]|\Z)")
PUNCTUATORS = {kind.value: kind for kind in TokenKind if len(kind.value) == 1}


def has_more_tokens(text: str, most: int) -> bool:
    """Whether a text has more than so many tokens, comments included; of one that is no GraphQL it may be too few."""
    return next(islice(TOKEN.finditer(text), most, None), None) is not None


class QuickLexer(Lexer):
    """Reads names, punctuators, spreads and comments by patterns."""

    def read_next_token(self, start: int) -> Token:
        body = self.source.body
        found = USUAL.match(body, start)
        if found is None:
            return super().read_next_token(start)
        name, punctuator = found.groups()
        end = found.end()
        begin = end - (len(name) if name else 1 if punctuator else 3)
        if begin != start:
            lines = body.count("\n", start, begin)
            if lines:
                self.line += lines
                self.line_start = body.rindex("\n", start, begin) + 1
        kind = TokenKind.NAME if name else PUNCTUATORS[punctuator] if punctuator else TokenKind.SPREAD
        return Token(kind, begin, end, self.line, 1 + begin - self.line_start, name)

    def read_comment(self, start: int) -> Token:
        # How many there are is bounded by the tokens; parsed() sets no other bound.
        found = COMMENT.match(self.source.body, start)
        if found is None:
            return super().read_comment(start)
        return self.create_token(TokenKind.COMMENT, start, found.end(), found[0][1:])


def parsed(text: str, *, most_tokens: int) -> DocumentNode:
    """Like graphql-core's parse; raises GraphQLError."""
    source = Source(text)
    lexer = QuickLexer(source)
    parser = Parser(source, max_tokens=most_tokens, lexer=lexer)
    try:
        return parser.parse_document()
    except RecursionError:
        pass
    finally:
        unlink(lexer.token)
    raise nested_too_deeply_error(parser)


def unlink(token: Token | None) -> None:
    """Let tokens know the next one only, from the last on: those that know each other are garbage for long, of which a
    look through held up everybody for 80 ms while many documents came."""
    while token is not None and token.next is not None:
        token = token.next
    while token is not None:
        before = token.prev
        token.prev = None
        token = before
