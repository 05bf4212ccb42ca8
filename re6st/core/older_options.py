"""Makes option files readable for the older software, which ends when it finds an option that it does not know (wire.md
11).

A line that only this software understands becomes a comment while the older software is installed. When this software
is installed again, it becomes a line again.
"""

from __future__ import annotations

from collections.abc import Set

MARK = "#re6stnet-1.0 "
"""Marks a line that was turned into a comment."""

NODE = frozenset(
    (
        *("accept-route", "bulk", "check", "log-format", "metrics", "mptcp", "no-packet-filter", "no-probe"),
        *("uplink", "wireguard", "wireguard-ports"),
    )
)
"""Options of re6stnet that the older software does not have."""
REGISTRY = frozenset(
    (
        *(
            "check-config",
            "database",
            "database-file",
            "log-format",
            "mail-from",
            "metrics",
            "metrics-per-node",
            "operator-port",
            "planes",
        ),
        *(
            "regions",
            "registries",
            "registry-nodes",
            "require",
            "require-anyway",
            "trust-clock",
            "url",
            "web",
            "web-login",
        ),
    )
)
"""Options of re6st-registry that the older software does not have."""
SERVER = frozenset(("database", "database-file"))
"""Those of them that say that its state is in PostgreSQL."""


def set_aside(text: str, ours: Set[str]) -> tuple[str, list[str]]:
    """An option file in which the options `ours` are comments, and a list of these lines: `LINE: NAME`."""
    lines, names = text.splitlines(keepends=True), []
    for number, line in enumerate(lines):
        words = line.split(maxsplit=1)
        name = words[0].partition("=")[0] if words else ""
        if name in ours:
            lines[number] = MARK + line
            names.append(f"{number + 1}: {name}")
    return "".join(lines), names


def take_back(text: str) -> str:
    """Reverses `set_aside`."""
    return "".join(line.removeprefix(MARK) for line in text.splitlines(keepends=True))
