"""The uplinks of a node as re6st-status shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from re6st.core.words import plural, short, size
from re6st.view.screen import Column, Line, Span, Style, line, table

Answer = Mapping[str, Any]

_STATES: Mapping[str, Style] = {"up": "good", "down": "bad", "silent": "warning"}
_COLUMNS = (
    Column("UPLINK"),
    Column("STATE"),
    Column("SINCE", right=True),
    Column("INTERFACE"),
    Column("ROUTER", least=12),
    Column("ADDRESS", least=12, drop=3),
    Column("MBIT/S", drop=1),
    Column("TUNNELS", right=True),
    Column("RX", right=True, drop=2),
    Column("TX", right=True, drop=2),
)


def uplink_lines(uplinks: Answer, now: float, width: int | None) -> list[Line]:
    """One line for each, then what is wrong, and how they are used."""
    rows = [
        (
            each["name"],
            Span(each["state"], _STATES.get(each["state"], "")),
            short(None if each["since"] is None else now - each["since"]),
            each["device"] or "-",
            ", ".join(each["gateways"]) or "-",
            ", ".join(each["addresses"]) or "-",
            _capacity(each),
            str(each["tunnels"]) if uplinks["active"] else "-",
            size(each["received_bytes"]),
            size(each["sent_bytes"]),
        )
        for each in uplinks["lines"]
    ]
    lines = table(_COLUMNS, rows, width) if rows else [line(Span("no line to the Internet is known", "warning"))]
    lines += [
        line(Span(f"{each['name']}: {each['problem']}", "warning")) for each in uplinks["lines"] if each["problem"]
    ]
    said = [usage(uplinks), sharing(uplinks), coming_in(uplinks), subflows(uplinks)]
    return lines + [line(Span(each, "dim")) for each in said if each]


def usage(uplinks: Answer) -> str:
    """How tunnels use them, in words."""
    if uplinks["trouble"]:
        return f"Tunnels are not bound to uplinks: {uplinks['trouble']}"
    if uplinks["active"]:
        return "Tunnels that this node opens are spread over them, each bound to its own."
    return "With fewer than two, tunnels go as the machine's routes say."


def sharing(uplinks: Answer) -> str:
    """How connections use them, in words; empty where they do not."""
    found = uplinks.get("sharing", {})
    if found.get("trouble"):
        return f"Connections are not spread over them: {found['trouble']}"
    if not found.get("active"):
        return ""
    return f"What this node sends goes over all of them once one is full (groups of connections: {_groups(found)})."


def coming_in(uplinks: Answer) -> str:
    """How what others send uses them, in words; empty as long as none is busy."""
    found = uplinks.get("incoming", {})
    if found.get("trouble"):
        return f"What others send is not spread over them: {found['trouble']}"
    if not found.get("active"):
        return ""
    return f"Neighbours are told by which of them to send (groups of connections: {_groups(found)})."


def _groups(found: Answer) -> str:
    placed = [f"{of['groups']} over {name}" for name, of in found["lines"].items() if of["groups"]]
    return f"now {', '.join(placed)}" if placed else "none is full now"


def subflows(uplinks: Answer) -> str:
    """How one connection uses them, in words; empty where it does not, and need not."""
    found = uplinks.get("mptcp", {})
    if found.get("trouble"):
        return f"One connection has one line, as MPTCP cannot be used: {found['trouble']}"
    if not found.get("wanted"):
        return ""
    if not found["active"]:
        return "One connection of MPTCP uses all lines of the other end; here there is one to choose from."
    of_lines = (f"{name} {', '.join(by_use.values())}" for name, by_use in found["lines"].items())
    return f"One connection of MPTCP uses all of them, by the addresses of its subflows: {'; '.join(of_lines)}."


def summary(uplinks: Answer) -> str:
    """Them in one line: `2: fibre, lte (down)`."""
    words = [each["name"] + ("" if each["state"] == "up" else f" ({each['state']})") for each in uplinks["lines"]]
    up = sum(each["state"] == "up" for each in uplinks["lines"])
    return f"{up} of {plural(len(words), 'line')} up: {', '.join(words)}"


def _capacity(uplink: Answer) -> str:
    """`100 down, 20 up, metered`."""
    known = [f"{uplink[f'{way}_mbits']:g} {way}" for way in ("down", "up") if uplink[f"{way}_mbits"] is not None]
    return ", ".join([*known, *(["metered"] if uplink["metered"] else [])]) or "-"
