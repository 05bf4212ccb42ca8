"""Option files between this software and the older one, which ends for an option that it does not know (wire.md 11).

A line that only we understand is made a comment while the older software is installed, and a line again when we are.
"""

from __future__ import annotations

from collections.abc import Set

MARK = "#re6stnet-1.0 "
"""What stands before a line that is set aside."""

NODE = frozenset(("accept-route", "check", "log-format", "metrics", "no-packet-filter"))
"""Options of re6stnet that the older one does not have."""
REGISTRY = frozenset(
    (
        *("check-config", "log-format", "mail-from", "metrics", "metrics-per-node", "operator-port"),
        *("require", "require-anyway", "trust-clock", "url", "web", "web-login"),
    )
)
"""Options of re6st-registry that the older one does not have."""


def set_aside(text: str, ours: Set[str]) -> tuple[str, list[str]]:
    """An option file without the options that are `ours`, and what was set aside: `LINE: NAME`."""
    lines, names = text.splitlines(keepends=True), []
    for number, line in enumerate(lines):
        words = line.split(maxsplit=1)
        name = words[0].partition("=")[0] if words else ""
        if name in ours:
            lines[number] = MARK + line
            names.append(f"{number + 1}: {name}")
    return "".join(lines), names


def take_back(text: str) -> str:
    """The option file as it was before `set_aside`."""
    return "".join(line.removeprefix(MARK) for line in text.splitlines(keepends=True))
