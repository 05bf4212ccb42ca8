"""The metrics of both daemons: their names and values (docs/metrics.md).

Names follow prometheus.io/docs/practices/naming: one prefix, base units, `_total` for counters, `_info` with the value
1. Labels have few values, except `peer`, whose number is limited (PEERS_LIMIT).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

PEERS_LIMIT = 100
"""Number of peers that have their own series."""
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of the histograms, in seconds."""

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: `labels` are the names of its labels."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(slots=True)
class Durations:
    """How long some calls took: each counts for the first of BUCKETS into which it fits; and the sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        place = next((n for n, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self.counts[place] += 1
        self.total += seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """A value with the values of its family's labels."""

    labels: tuple[str, ...]
    value: float | Durations


class MetricsPage:
    """What is shown at one moment: the families that have values."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._known = families
        self.samples: dict[str, list[Sample]] = {}

    def add(self, name: str, value: float | Durations | None, *labels: object) -> None:
        """Add a value of a family; None, for an unknown value, adds nothing. Raises ValueError if the labels do not
        fit.
        """
        family = self._known[name]
        if len(labels) != len(family.labels):
            raise ValueError(f"{name} has the labels {family.labels}")
        if value is not None:
            self.samples.setdefault(name, []).append(Sample(tuple(map(str, labels)), value))

    def add_all(self, name: str, values: Iterable[tuple[object, float]]) -> None:
        """Add values of a family that has one label."""
        for label, value in values:
            self.add(name, value, label)

    def families(self) -> Iterable[tuple[str, Family, list[Sample]]]:
        return [(name, self._known[name], samples) for name, samples in self.samples.items()]


NODE: Mapping[str, Family] = {
    "re6st_build_info": Family("gauge", "Version and protocol of the running program.", ("version", "protocol")),
    "re6st_start_time_seconds": Family("gauge", "Unix time at which the node started."),
    "re6st_health_problems": Family("gauge", "Number of problems that re6st-status reports now.", ("severity",)),
    "re6st_connected": Family("gauge", "1 if the node has a route to the registry's own node."),
    "re6st_false_claims_total": Family(
        "counter", "Peers that were cut off because they announced a subnet that is not their own."
    ),
    "re6st_own_subnet_heard": Family("gauge", "1 if another machine announces this node's subnet."),
    "re6st_certificate_not_after_timestamp_seconds": Family(
        "gauge", "Unix time at which the certificate ends.", ("kind",)
    ),
    "re6st_certificate_renewals_total": Family("counter", "Requests for a new certificate.", ("result",)),
    "re6st_tunnels": Family("gauge", "Tunnels now; in: opened by other nodes.", ("direction", "state")),
    "re6st_tunnels_up": Family("gauge", "Tunnels that are up, by what carries them.", ("carrier",)),
    "re6st_tunnels_wanted": Family("gauge", "Tunnels that this node wants to open."),
    "re6st_tunnel_opened_total": Family("counter", "Tunnels that came up, or failed to.", ("direction", "result")),
    "re6st_tunnel_closed_total": Family("counter", "Tunnels that ended.", ("direction", "reason")),
    "re6st_tunnel_received_bytes_total": Family(
        "counter", "Bytes received by the tunnels that exist now.", ("peer", "direction")
    ),
    "re6st_tunnel_sent_bytes_total": Family(
        "counter", "Bytes sent by the tunnels that exist now.", ("peer", "direction")
    ),
    "re6st_neighbours": Family("gauge", "Nodes with which babel exchanges routes."),
    "re6st_neighbour_rtt_seconds": Family(
        "gauge", "Round-trip time of the best link, as babel measures it.", ("peer",)
    ),
    "re6st_neighbour_cost": Family("gauge", "Babel's cost of the best link.", ("peer",)),
    "re6st_nodes_reachable": Family("gauge", "Other nodes to which there is a route."),
    "re6st_routes": Family("gauge", "Routes that babel knows.", ("state",)),
    "re6st_routes_late": Family(
        "gauge", "1 if babeld runs, but the node reads it too slowly, so that its figures of routes are old."
    ),
    "re6st_child_up": Family("gauge", "1 if the program, which the node runs, is alive and answers.", ("program",)),
    "re6st_child_restarts_total": Family(
        "counter", "Times that the program ended and was started again.", ("program",)
    ),
    "re6st_registry_reachable": Family("gauge", "1 if the registry answered the last call."),
    "re6st_registry_last_answer_timestamp_seconds": Family("gauge", "Unix time of the registry's last answer."),
    "re6st_registry_request_duration_seconds": Family(
        "histogram", "Duration of calls to the registry.", ("method", "result")
    ),
    "re6st_messages_total": Family(
        "counter", "Messages exchanged with other nodes (UDP port 326).", ("direction", "type")
    ),
    "re6st_messages_dropped_total": Family("counter", "Datagrams from other nodes that were dropped."),
    "re6st_links_watched": Family("gauge", "1 if the node notices dead links by the packets that go over them."),
    "re6st_link_probes_total": Family("counter", "Echo requests that were sent to neighbours, silent or not."),
    "re6st_links_died_total": Family("counter", "Links that were found dead."),
    "re6st_links_dead": Family("gauge", "Links that are dead now, and that babel still uses."),
    "re6st_links_lossy": Family("gauge", "Links on which echo requests get lost now."),
    "re6st_detours": Family("gauge", "Destinations that have a detour around a dead or lossy link now."),
    "re6st_throughput_plane_active": Family("gauge", "1 if bulk traffic has a routing plane of its own here."),
    "re6st_throughput_plane_routes": Family("gauge", "Destinations that bulk traffic is led to by capacity."),
    "re6st_capacity_trains_total": Family("counter", "Times that it was measured what a tunnel carries."),
    "re6st_uplink_up": Family(
        "gauge", "1 if the line to the Internet works, and peers are reached over it.", ("uplink",)
    ),
    "re6st_uplink_tunnels": Family("gauge", "Tunnels of this node that are bound to the line.", ("uplink",)),
    "re6st_uplink_received_bytes_total": Family("counter", "Bytes received by the line's interface.", ("uplink",)),
    "re6st_uplink_sent_bytes_total": Family("counter", "Bytes sent by the line's interface.", ("uplink",)),
    "re6st_packet_filter_active": Family("gauge", "1 if nftables filters the packets of tunnels."),
    "re6st_packets_dropped_total": Family("counter", "Packets that the node's nftables table dropped.", ("reason",)),
    "re6st_parameters_version": Family("gauge", "Version of the network parameters in force."),
    "re6st_parameters_updated_timestamp_seconds": Family(
        "gauge", "Unix time at which these parameters came into force here."
    ),
    "re6st_port_mapping_up": Family("gauge", "1 if the router forwards a port to this node.", ("method", "proto")),
}
"""The metrics of re6stnet."""

REGISTRY: Mapping[str, Family] = {
    "re6st_registry_build_info": Family(
        "gauge", "Version and protocol of the running program.", ("version", "protocol")
    ),
    "re6st_registry_http_requests_total": Family("counter", "Calls, by the status of the answer.", ("method", "code")),
    "re6st_registry_http_request_duration_seconds": Family(
        "histogram", "Time that the registry took to answer a call.", ("method",)
    ),
    "re6st_registry_certificates": Family(
        "gauge",
        "Certificates of nodes; expiring: ends within 14 days; grace: has ended, and can still be renewed.",
        ("state",),
    ),
    "re6st_registry_certificates_issued_total": Family("counter", "Certificates issued.", ("kind",)),
    "re6st_registry_certificate_earliest_not_after_timestamp_seconds": Family(
        "gauge", "Unix time at which the next certificate of a node ends."
    ),
    "re6st_registry_ca_not_after_timestamp_seconds": Family("gauge", "Unix time at which the CA's certificate ends."),
    "re6st_registry_tokens": Family("gauge", "Tokens that have not been used.", ("state",)),
    "re6st_registry_own_node_certified": Family(
        "gauge", "1 if the registry's own node has a certificate; without it the network hears of no change."
    ),
    "re6st_registry_prefixes_free": Family("gauge", "Free prefixes, by their length in bits.", ("length",)),
    "re6st_registry_prefixes_free_ratio": Family("gauge", "Fraction of the network's addresses that is free."),
    "re6st_registry_nodes_online": Family("gauge", "Nodes to which there is a route."),
    "re6st_registry_nodes_gone": Family(
        "gauge", "Nodes that were online in the last day, and have been offline for ten minutes."
    ),
    "re6st_registry_node_online": Family(
        "gauge", "1 if a node is online, 0 if it is offline (only with --metrics-per-node).", ("cn",)
    ),
    "re6st_registry_nodes_by_version": Family(
        "gauge", "Nodes that called in the last 30 days, by version.", ("version", "protocol")
    ),
    "re6st_registry_node_last_seen_timestamp_seconds": Family(
        "gauge", "Unix time of a node's last call (only with --metrics-per-node).", ("cn",)
    ),
    "re6st_registry_events_total": Family("counter", "Events, as the operator's page lists them.", ("kind",)),
    "re6st_registry_hmac_rotation_step": Family(
        "gauge", "Number of keys that babel accepts: 1 usually, 2 during a change, 0 if there is none."
    ),
    "re6st_registry_parameters_version": Family("gauge", "Version of the network parameters."),
    "re6st_registry_database_bytes": Family("gauge", "Size of the database file."),
}
"""The metrics of re6st-registry."""
