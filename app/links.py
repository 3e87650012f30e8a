"""Links in mails: the page and the one-click request that unsubscribe.

RFC 8058: mail programs POST to the List-Unsubscribe address by themselves, without cookies or keys, and it must take
effect at once. GET must change nothing, since scanners open every link of a mail: it shows a page with a button.
"""

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.context import Services
