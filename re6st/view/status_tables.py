"""The tables of re6st-status: tunnels, neighbours, routes and peers, and how their columns are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from re6st.core.tunnel_protocols import TunnelCarrier
from re6st.core.words import away, short, size
from re6st.view.screen import Column, Line, Span, Style, table

Answer = Mapping[str, Any]
"""A result of the control socket, from JSON."""

_STATES: Mapping[str, Style] = {
    "up": "good",
    "opening": "dim",
    **dict.fromkeys(("draining", "asked", "lossy", "silent"), "warning"),
}
_TUNNELS = (
    Column("PEER"),
    Column("DIR", drop=1),
    Column("VIA", least=16),
    Column("UPLINK"),
    Column("STATE"),
    Column("RTT", right=True),
    Column("COST", right=True, drop=2),
    Column("REACH", drop=5),
    Column("UP", right=True),
    Column("RX", right=True, drop=3),
    Column("TX", right=True, drop=4),
)


def tunnel_table(tunnels: Sequence[Answer], width: int | None) -> list[Line]:
    """One line for each tunnel, ours first; if babel hears less than before (`reach`), this is marked.

    The uplinks are a column where tunnels are bound to any.
    """
    bound = any(t.get("uplink") for t in tunnels)
    rows = [
        (
            t["peer"],
            t["direction"],
            endpoint(t["remote"], t["port"], _means(t)) if t["remote"] else "-",
            *([t.get("uplink") or "-"] if bound else []),
            Span(t["state"], _STATES.get(t["state"], "")),
            milliseconds(t["rtt_ms"]),
            cost(t["cost"]),
            t["reach"] or "-",
            short(t["up_seconds"]),
            size(t["received_bytes"]),
            size(t["sent_bytes"]),
        )
        for t in sorted(tunnels, key=lambda t: (t["direction"] == "in", *_order(t["peer"])))
    ]
    avoided = (avoidance(each) for each in tunnels if each.get("avoided"))
    why_not = (f"{peers}: no WireGuard, {reason}" for peers, reason in without_wireguard(tunnels))
    columns = [each for each in _TUNNELS if bound or each.name != "UPLINK"]
    return [*table(columns, rows, width), *((Span(line, "warning"),) for line in (*avoided, *why_not))]


def avoidance(tunnel: Answer) -> str:
    """Why other ways are used than a tunnel."""
    part = "" if tunnel["lost_percent"] is None else f" ({tunnel['lost_percent']}% of late)"
    return f"{tunnel['peer']}: avoided, as {tunnel['avoided']}{part}"


def without_wireguard(tunnels: Sequence[Answer]) -> Iterator[tuple[str, str]]:
    """With whom there are tunnels that WireGuard does not carry, and why, each reason once."""
    reasons: dict[str, list[str]] = {}
    for each in tunnels:
        if reason := each.get("no_wireguard"):
            reasons.setdefault(reason, []).append(each["peer"])
    for reason, peers in reasons.items():
        yield f"{', '.join(peers[:5])}{' and others' if peers[5:] else ''}", reason


def _means(tunnel: Answer) -> str:
    """What a tunnel is carried by; older nodes have OpenVPN only."""
    carrier: str = tunnel.get("carrier", TunnelCarrier.OPENVPN)
    return tunnel["protocol"] if carrier == TunnelCarrier.OPENVPN else carrier


_NEIGHBOURS = (
    Column("PEER"),
    Column("INTERFACE"),
    Column("ADDRESS", least=14),
    Column("RTT", right=True),
    Column("COST", right=True),
    Column("REACH", drop=1),
    Column("ROUTES", right=True),
)


def neighbour_table(neighbours: Sequence[Answer], width: int | None) -> list[Line]:
    rows = [
        (
            *(n["peer"] or "?", n["interface"], n["address"], milliseconds(n["rtt_ms"]), cost(n["cost"])),
            *(n["reach"], str(n["routes"])),
        )
        for n in sorted(neighbours, key=lambda n: _order(n["peer"] or "0/0"))
    ]
    return table(_NEIGHBOURS, rows, width)


_ROUTES = (
    Column("DESTINATION", least=18),
    Column("NODE"),
    Column("VIA"),
    Column("INTERFACE"),
    Column("METRIC", right=True),
    Column("ADDRESS", drop=1),
)


def route_table(routes: Sequence[Answer], width: int | None) -> list[Line]:
    rows = [
        (
            r["destination"] + (f" from {r['source']}" if r["source"] else ""),
            *(r["peer"] or "-", r["via"] or "?", r["interface"], cost(r["metric"]), r["address"]),
        )
        for r in routes
    ]
    return table(_ROUTES, rows, width)


_PEERS = (
    Column("PEER"),
    Column("ADDRESSES", least=21),
    Column("TUNNEL"),
    Column("METRIC", right=True),
    Column("LAST", least=16),
)
_CAME = {
    "tunnel-up": "tunnel up",
    "tunnel-failed": "no answer",
    "tunnel-lost": "tunnel lost",
    "tunnel-closed": "tunnel closed",
    "client-up": "its tunnel up",
    "client-down": "its tunnel ended",
}


def peer_table(peers: Sequence[Answer], now: float, width: int | None) -> list[Line]:
    """The nodes that this one knows: addresses, whether there is a route, and how the last tunnel went."""
    rows = [
        (
            p["peer"],
            ", ".join(endpoint(e["host"], e["port"], e["protocol"]) for e in p["addresses"]) or "-",
            p["tunnel"] or "-",
            cost(p["metric"]) if p["reached"] or p["tunnel"] else Span("away", "warning"),
            _came(p["last"], now),
        )
        for p in sorted(peers, key=lambda p: _order(p["peer"]))
    ]
    return table(_PEERS, rows, width)


def _came(last: Answer | None, now: float) -> Span:
    if last is None:
        return Span("-", "dim")
    style: Style = "warning" if last["kind"] in ("tunnel-failed", "tunnel-lost") else ""
    return Span(f"{_CAME.get(last['kind'], last['kind'])} {away(last['time'], now)}", style)


# --- what stands in columns ---


def endpoint(host: str, port: int | None, protocol: str) -> str:
    """`198.51.100.7:1194/udp`; the port of our clients does not matter."""
    if port is None:
        return f"{host}/{protocol}"
    return f"[{host}]:{port}/{protocol}" if ":" in host else f"{host}:{port}/{protocol}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def cost(value: int | None) -> str:
    """A metric of babel; 65535 means unreachable."""
    return "-" if value is None else "inf" if value >= 65535 else str(value)


def _order(cn: str) -> tuple[int, int]:
    value, _, length = cn.partition("/")
    return int(length), int(value)
