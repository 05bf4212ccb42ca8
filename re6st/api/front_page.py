"""The page for a browser that opens the registry's address, or an invitation: what this is, and how to join.

An invitation is the address with a fragment, which no browser sends: so token and fingerprint are in no log, and only
the script of the page sees them. It takes them only in the form that the registry makes them, so that a link cannot
put other words into the commands that people copy. The page loads nothing else: script and style are in it, named by
their digests in the content security policy.
"""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

PATHS = ("/", "/index.html")
ICON = "/favicon.ico"
HERE = Path(__file__).parent / "front"


def _digest(text: str) -> str:
    """The name of a script or style in a content security policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"


COPY = HERE / "copy.js"
"""A script that the operator's page has, too."""


_SCRIPT = "".join(path.read_text("utf-8") for path in (COPY, HERE / "join.js"))
_STYLE = (HERE / "join.css").read_text("utf-8")

TEXT = (HERE / "join.html").read_text("utf-8").replace("/*style*/", _STYLE).replace("/*script*/", _SCRIPT)
"""It says nothing about the network, since anybody may read it."""

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def response(path: str) -> web.Response | None:
    """The answer to a browser; None: the request is not for a page."""
    if path == ICON:
        return web.Response(status=HTTPStatus.NO_CONTENT)
    if path not in PATHS:
        return None
    return web.Response(text=TEXT, content_type="text/html", headers=HEADERS)
