"""Names of machines: what is one, and what a machine that has asked for none is called.

A name is one label of a host name (RFC 1123): lower-case letters, digits and hyphens, at most 63 of them, so that it
can be a part of a name in DNS. It has at least one letter, or else it could be the serial of a certificate; and it can
be neither a CN nor an address, which have `/` and `:`. In a network, a name belongs to one node.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LENGTH_LIMIT = 63
TRIES = 100
"""Numbers that are tried behind a name that others have."""

_NAME = re.compile(rf"(?=[0-9-]*[a-z])[a-z0-9](?:[a-z0-9-]{{0,{LENGTH_LIMIT - 2}}}[a-z0-9])?", re.ASCII)
_NOBODY = frozenset({"localhost", "localdomain"})
"""What machines are called that nobody has named."""


class BadName(ValueError):
    """What is no name; the text says what is one."""


def is_name(text: str) -> bool:
    """Whether a text can be the name of a machine. `xn--...` and the like (RFC 5890) are read as other letters."""
    return _NAME.fullmatch(text) is not None and text not in _NOBODY and text[2:4] != "--"


def check(text: str) -> str:
    """The text, if it can be a name. Raises BadName."""
    if not is_name(text):
        raise BadName(
            f"{text[:80]!r} cannot be a name: use lower-case letters, digits and hyphens, as in web-1; at most"
            f" {LENGTH_LIMIT} of them, at least one letter, no hyphen at an end"
        )
    return text


def from_host_name(host: str) -> str | None:
    """The name in a machine's host name, which may have a domain; None if there is none."""
    label = host.partition(".")[0].lower().replace("_", "-").strip("-")[:LENGTH_LIMIT].rstrip("-")
    return label if is_name(label) else None


def free_name(wanted: str, is_taken: Callable[[str], bool]) -> str | None:
    """The name that is wanted, or that with a number behind it if others have it: web, web-2, web-3.

    None if too many have it.
    """
    for number in range(1, TRIES + 1):
        end = "" if number == 1 else f"-{number}"
        name = wanted[: LENGTH_LIMIT - len(end)].rstrip("-") + end
        if is_name(name) and not is_taken(name):
            return name
    return None
