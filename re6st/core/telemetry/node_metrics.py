"""Makes the metrics of a node from the answers of its control socket and from its counters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from re6st.core.routing.babel_lines import INFINITY, Table
from re6st.core.telemetry.metrics import NODE, PEERS_LIMIT, Durations, MetricsPage
from re6st.core.tunnel_protocols import TunnelCarrier

Answer = Mapping[str, Any]

_OPENED = {"tunnel-up": ("out", "up"), "tunnel-failed": ("out", "failed"), "client-up": ("in", "up")}
_CLOSED = {"tunnel-closed": ("out", "closed"), "tunnel-lost": ("out", "lost"), "client-down": ("in", "ended")}
_STATES = ("opening", "up", "draining", "asked", "lossy", "closing")


@dataclass(frozen=True, slots=True)
class Counts:
    """The counters of a node since its start. Moments are Unix times."""

    happened: Mapping[str, int]
    """Events, by kind."""
    messages: Mapping[tuple[str, str], int] = field(default_factory=Counter)
    """By direction and type."""
    dropped: int = 0
    calls: Mapping[tuple[str, str], Durations] = field(default_factory=dict)
    """Calls to the registry, by method and result."""
    registry_reachable: bool | None = None
    parameters_since: float | None = None
    mapped: Mapping[str, bool] = field(default_factory=dict)
    """Whether the router forwards our ports, by their protocol; empty if we do not ask it to."""


def node_page(
    status: Answer, tunnels: Sequence[Answer], neighbours: Sequence[Answer], table: Table, counts: Counts, now: float
) -> MetricsPage:
    """Everything at one moment; `now` is Unix time."""
    page = MetricsPage(NODE)
    page.add("re6st_build_info", 1, status["version"], status["protocol"])
    page.add("re6st_start_time_seconds", round(now - status["uptime_seconds"], 1))
    severities = Counter(problem["severity"] for problem in status["health"]["problems"])
    page.add_all("re6st_health_problems", [(each, severities[each]) for each in ("failed", "warning")])
    page.add("re6st_connected", status["registry"]["connected"])
    page.add("re6st_false_claims_total", counts.happened.get("false-claim", 0))
    page.add("re6st_own_subnet_heard", bool(status["claims"]["own_subnet_from"]))
    for kind, name in (("node", "until"), ("ca", "ca_until")):
        page.add("re6st_certificate_not_after_timestamp_seconds", status["certificate"][name], kind)
    _registry(page, status, counts)
    _tunnels(page, status, tunnels, counts)
    _babel(page, status, neighbours, table, counts)
    for (direction, kind), count in counts.messages.items():
        page.add("re6st_messages_total", count, direction, kind)
    page.add("re6st_messages_dropped_total", counts.dropped)
    links = status["links"]
    page.add("re6st_links_watched", links["active"])
    page.add("re6st_link_probes_total", links["probes"])
    page.add("re6st_links_died_total", links["died"])
    page.add("re6st_links_dead", links["dead"])
    page.add("re6st_links_lossy", links["lossy"])
    page.add("re6st_detours", links["detours"])
    bulk = status["bulk"]
    page.add("re6st_throughput_plane_active", bulk["active"])
    page.add("re6st_throughput_plane_routes", bulk["routes"])
    page.add("re6st_capacity_trains_total", bulk["trains"])
    for uplink in status["uplinks"]["lines"] if status["uplinks"]["active"] else ():
        page.add("re6st_uplink_up", uplink["state"] == "up", uplink["name"])
        page.add("re6st_uplink_tunnels", uplink["tunnels"], uplink["name"])
        page.add("re6st_uplink_received_bytes_total", uplink["received_bytes"], uplink["name"])
        page.add("re6st_uplink_sent_bytes_total", uplink["sent_bytes"], uplink["name"])
    page.add("re6st_packet_filter_active", status["packet_filter"]["active"])
    page.add_all("re6st_packets_dropped_total", status["packet_filter"]["dropped"].items())
    page.add("re6st_parameters_version", status["parameters"])
    page.add("re6st_parameters_updated_timestamp_seconds", counts.parameters_since)
    for protocol, up in counts.mapped.items():
        page.add("re6st_port_mapping_up", up, "upnp", protocol)
    return page


def _registry(page: MetricsPage, status: Answer, counts: Counts) -> None:
    page.add("re6st_registry_reachable", counts.registry_reachable)
    page.add("re6st_registry_last_answer_timestamp_seconds", status["registry"]["answered"])
    renewals: Counter[str] = Counter(ok=0)
    for (method, result), durations in counts.calls.items():
        page.add("re6st_registry_request_duration_seconds", durations, method, result)
        if method == "renewCertificate":
            renewals[result] += sum(durations.counts)
    page.add_all("re6st_certificate_renewals_total", renewals.items())


def _tunnels(page: MetricsPage, status: Answer, tunnels: Sequence[Answer], counts: Counts) -> None:
    states = Counter((tunnel["direction"], tunnel["state"]) for tunnel in tunnels)
    for direction, state in {*states, *(("out", state) for state in _STATES), ("in", "up")}:
        page.add("re6st_tunnels", states[direction, state], direction, state)
    up = Counter(tunnel["carrier"] for tunnel in tunnels if tunnel["up_seconds"] is not None)
    for carrier in TunnelCarrier:
        page.add("re6st_tunnels_up", up[carrier], carrier)
    page.add("re6st_tunnels_wanted", status["mesh"]["tunnels_wanted"])
    for name, kinds in (("re6st_tunnel_opened_total", _OPENED), ("re6st_tunnel_closed_total", _CLOSED)):
        for kind, labels in kinds.items():
            page.add(name, counts.happened.get(kind, 0), *labels)
    traffic: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for tunnel in tunnels:
        known = traffic[tunnel["peer"], tunnel["direction"]]
        known[0] += tunnel["received_bytes"] or 0
        known[1] += tunnel["sent_bytes"] or 0
    named = set(sorted({peer for peer, _ in traffic})[:PEERS_LIMIT])
    for (peer, direction), (received, sent) in traffic.items():
        if peer in named:
            page.add("re6st_tunnel_received_bytes_total", received, peer, direction)
            page.add("re6st_tunnel_sent_bytes_total", sent, peer, direction)


def _babel(page: MetricsPage, status: Answer, neighbours: Sequence[Answer], table: Table, counts: Counts) -> None:
    page.add("re6st_neighbours", status["mesh"]["neighbours"])
    page.add("re6st_nodes_reachable", status["mesh"]["peers"])
    best: dict[str, Answer] = {}
    for each in neighbours:
        peer = each["peer"]
        if peer is not None and (peer not in best or each["cost"] < best[peer]["cost"]):
            best[peer] = each
    for peer in sorted(best)[:PEERS_LIMIT]:
        rtt = best[peer]["rtt_ms"]
        page.add("re6st_neighbour_rtt_seconds", None if rtt is None else rtt / 1000, peer)
        page.add("re6st_neighbour_cost", best[peer]["cost"], peer)
    states = Counter(installed=0, feasible=0, unreachable=0)
    for route in table.routes.values():
        states["unreachable" if route.metric >= INFINITY else "installed" if route.installed else "feasible"] += 1
    page.add_all("re6st_routes", states.items())
    page.add("re6st_routes_late", status["babel"]["late"])
    page.add("re6st_child_up", status["babel"]["running"], "babeld")
    for server in status["servers"]:
        page.add("re6st_child_up", server["listening"], f"openvpn-{server['protocol']}")
        page.add("re6st_child_restarts_total", server["restarts"], f"openvpn-{server['protocol']}")
    page.add("re6st_child_restarts_total", counts.happened.get("babel-ended", 0), "babeld")
