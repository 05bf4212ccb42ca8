"""The metrics of both daemons: their names, and values in them (docs/metrics.md).

Names follow prometheus.io/docs/practices/naming: one prefix, base units, `_total` on counters, `_info` of 1. Labels
are of few values, but for `peer`, whose number is bounded (PEERS_LIMIT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

PEERS_LIMIT = 100
"""Peers that have series of their own."""
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds: upper bounds of the histograms."""

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: `labels` are the names of its labels."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(slots=True)
class Durations:
    """How long some calls took: each counted under the first of BUCKETS that it fits in; and the sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        place = next((n for n, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self.counts[place] += 1
        self.total += seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """A value under the values of its family's labels."""

    labels: tuple[str, ...]
    value: float | Durations


class Page:
    """What is shown at one moment: the families that have values."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._known = families
        self.samples: dict[str, list[Sample]] = {}

    def add(self, name: str, value: float | Durations | None, *labels: object) -> None:
        """A value of a family; None, for what is not known, leaves it out. Raises ValueError for labels it has not."""
        family = self._known[name]
        if len(labels) != len(family.labels):
            raise ValueError(f"{name} has the labels {family.labels}")
        if value is not None:
            self.samples.setdefault(name, []).append(Sample(tuple(map(str, labels)), value))

    def add_all(self, name: str, values: Iterable[tuple[object, float]]) -> None:
        """Values of a family of one label."""
        for label, value in values:
            self.add(name, value, label)

    def families(self) -> Iterable[tuple[str, Family, list[Sample]]]:
        return [(name, self._known[name], samples) for name, samples in self.samples.items()]


NODE: Mapping[str, Family] = {
    "re6st_build_info": Family("gauge", "The program.", ("version", "protocol")),
    "re6st_start_time_seconds": Family("gauge", "When the node started, Unix time."),
    "re6st_health_problems": Family("gauge", "What is wrong now, as re6st-status says it.", ("severity",)),
    "re6st_connected": Family("gauge", "Whether the registry's node is in reach through the mesh."),
    "re6st_false_claims_total": Family("counter", "Peers that announced a subnet that is not theirs, and were cut."),
    "re6st_own_subnet_heard": Family("gauge", "Whether another machine announces our subnet too."),
    "re6st_certificate_not_after_timestamp_seconds": Family("gauge", "When it ends, Unix time.", ("kind",)),
    "re6st_certificate_renewals_total": Family("counter", "Times we asked for another certificate.", ("result",)),
    "re6st_tunnels": Family("gauge", "Tunnels now: in are those of our clients.", ("direction", "state")),
    "re6st_tunnels_wanted": Family("gauge", "Tunnels that we want to have opened."),
    "re6st_tunnel_opened_total": Family("counter", "Tunnels that came up, or never did.", ("direction", "result")),
    "re6st_tunnel_closed_total": Family("counter", "Tunnels that ended.", ("direction", "reason")),
    "re6st_tunnel_received_bytes_total": Family("counter", "In the tunnels of now.", ("peer", "direction")),
    "re6st_tunnel_sent_bytes_total": Family("counter", "In the tunnels of now.", ("peer", "direction")),
    "re6st_neighbours": Family("gauge", "Nodes that babel exchanges routes with."),
    "re6st_neighbour_rtt_seconds": Family("gauge", "Round trip, as babel measures it; the best link.", ("peer",)),
    "re6st_neighbour_cost": Family("gauge", "Cost of the link for babel; the best link.", ("peer",)),
    "re6st_nodes_reachable": Family("gauge", "Other nodes of the network that have a route."),
    "re6st_routes": Family("gauge", "Routes that babel knows.", ("state",)),
    "re6st_child_up": Family("gauge", "Whether a program that we run is there and answers.", ("program",)),
    "re6st_child_restarts_total": Family("counter", "Times it ended and was started again.", ("program",)),
    "re6st_registry_reachable": Family("gauge", "Whether the registry answered our last call."),
    "re6st_registry_last_answer_timestamp_seconds": Family("gauge", "When it last answered, Unix time."),
    "re6st_registry_request_duration_seconds": Family("histogram", "Our calls of the registry.", ("method", "result")),
    "re6st_messages_total": Family("counter", "Messages between nodes (UDP port 326).", ("direction", "type")),
    "re6st_messages_dropped_total": Family("counter", "Datagrams that were not accepted."),
    "re6st_packet_filter_active": Family("gauge", "Whether packets of tunnels are filtered by nftables."),
    "re6st_packets_dropped_total": Family("counter", "Packets that our nftables table dropped.", ("reason",)),
    "re6st_parameters_version": Family("gauge", "Version of the network parameters in force."),
    "re6st_parameters_updated_timestamp_seconds": Family("gauge", "When they came into force here, Unix time."),
    "re6st_port_mapping_up": Family("gauge", "Whether the router sends a port of ours to us.", ("method", "proto")),
}
"""Of re6stnet."""

REGISTRY: Mapping[str, Family] = {
    "re6st_registry_build_info": Family("gauge", "The program.", ("version", "protocol")),
    "re6st_registry_http_requests_total": Family("counter", "Calls, by status of the answer.", ("method", "code")),
    "re6st_registry_http_request_duration_seconds": Family("histogram", "Time to answer a call.", ("method",)),
    "re6st_registry_certificates": Family(
        "gauge", "Certificates of nodes: expiring ends within 14 days, grace has ended.", ("state",)
    ),
    "re6st_registry_certificates_issued_total": Family("counter", "Certificates issued.", ("kind",)),
    "re6st_registry_certificate_earliest_not_after_timestamp_seconds": Family(
        "gauge", "When the next certificate ends, Unix time."
    ),
    "re6st_registry_ca_not_after_timestamp_seconds": Family("gauge", "When the CA certificate ends, Unix time."),
    "re6st_registry_tokens": Family("gauge", "Tokens that were not used.", ("state",)),
    "re6st_registry_own_node_certified": Family(
        "gauge", "Whether the registry's own node has a certificate: without it the network gets no news."
    ),
    "re6st_registry_prefixes_free": Family("gauge", "Free subnets, by the bits of their prefix.", ("length",)),
    "re6st_registry_prefixes_free_ratio": Family("gauge", "Part of the network's addresses that is free."),
    "re6st_registry_nodes_online": Family("gauge", "Nodes that are routed."),
    "re6st_registry_nodes_by_version": Family("gauge", "Nodes seen in the last 30 days.", ("version", "protocol")),
    "re6st_registry_node_last_seen_timestamp_seconds": Family(
        "gauge", "When a node last called, Unix time (--metrics-per-node).", ("cn",)
    ),
    "re6st_registry_events_total": Family("counter", "What happened, as the operator's page lists it.", ("kind",)),
    "re6st_registry_hmac_rotation_step": Family("gauge", "Keys that babel takes: 1 usually, 2 in a change, 0 none."),
    "re6st_registry_parameters_version": Family("gauge", "Version of the network parameters."),
    "re6st_registry_database_bytes": Family("gauge", "Size of the database."),
}
"""Of re6st-registry."""
