"""An invitation: its link, the command with which a machine joins, and the QR code of the link.

What is secret is behind the # of the link, which browsers do not send (front_page.py shows it).
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping
from typing import Any

BORDER = 2
"""White modules around a QR code. The standard wants 4; readers of today need no more."""


def link(url: str, invited: Mapping[str, Any]) -> str:
    """The link of an invitation with its fingerprint and token, at the registry with this URL."""
    return f"{url}#{invited['fingerprint']},token={invited['token']}"


def command(link: str) -> str:
    """What a machine runs to join."""
    return f"re6st-conf join {shlex.quote(link)}"


def drawn(link: str) -> str:
    """The QR code of a link, as an SVG element."""
    import segno  # here, as a registry that makes none need not load it

    text: str = segno.make(link, micro=False, error="m").svg_inline(border=BORDER, svgclass="qr", omitsize=True)
    return text


def printed(link: str) -> str:
    """The QR code of a link, for a terminal."""
    import segno

    text = io.StringIO()
    segno.make(link, micro=False, error="l").terminal(out=text, border=BORDER, compact=True)
    return text.getvalue().rstrip("\n")
