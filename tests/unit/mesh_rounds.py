"""Many nodes with the real policy, and babel's costs, in rounds: in each, every node may replace one tunnel.

Coarser than mesh_network.py (nothing takes time, no message is lost), so that two hundred nodes can be looked at.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from random import Random

from re6st.core.mesh import policy as mesh
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import Link, Survey
from tests.unit.mesh_network import endpoints, name

ROUND = 301.0
BASE, RTT_MIN, RTT_MAX, PENALTY = 96, 10.0, 500.0, 5000
"""Babel's costs, with the network's default settings."""


class Rounds:
    """`rtt` gives milliseconds between two nodes; each has tunnels with random others at the start."""

    def __init__(self, seed: int, count: int, client_count: int = 10, max_clients: int = 20) -> None:
        self.rng = Random(seed)
        self.now = 1000.0
        self.max_clients = max_clients
        self.nodes = [Prefix(n, 16) for n in range(count)]
        self.places = {node: self._place() for node in self.nodes}
        self.near: dict[Prefix, dict[Prefix, str]] = {node: {} for node in self.nodes}
        """For each node its neighbours, with the interface towards each."""
        self.policies = {node: self._policy(node, client_count) for node in self.nodes}
        for node in self.nodes:
            self._do(node, self.policies[node].handle(mesh.ClientUp(Prefix(9999, 16)), self.now))
            far = [other for other in self.nodes if other != node]
            self._tell(node, mesh.Surveyed(Survey(peers=frozenset(far))))

    def _place(self) -> tuple[int, float, float, float]:
        """A continent, where on it, in milliseconds, and how long it takes to get to the next router."""
        chance = self.rng.uniform
        return self.rng.randrange(3), chance(0, 30), chance(0, 30), self.rng.expovariate(1 / 5)

    def _policy(self, own: Prefix, client_count: int) -> mesh.Mesh:
        settings = mesh.Settings(own, self.nodes[0], client_count, tunnel_refresh=300, close_time=45, drain_time=0)
        known = {node: endpoints(node) for node in self.nodes if node != own}
        return mesh.Mesh(settings, known, Random(self.rng.random()))

    def rtt(self, one: Prefix, other: Prefix) -> float:
        (land, x, y, access), (other_land, u, v, other_access) = self.places[one], self.places[other]
        return abs(x - u) + abs(y - v) + (120 if land != other_land else 0) + access + other_access

    def cost(self, one: Prefix, other: Prefix) -> int:
        excess = max(0.0, min(self.rtt(one, other), RTT_MAX) - RTT_MIN)
        return BASE + round(PENALTY * excess / (RTT_MAX - RTT_MIN))

    def clients(self, node: Prefix) -> int:
        """How many opened a tunnel to it."""
        return len(self.policies[node].clients) - 1

    # -- a round --

    def round(self) -> None:
        """Everybody looks, and replaces what it wants to."""
        for node in self.nodes:  # before any time passes: nobody has been silent
            survey = self.policies[node].survey
            neighbours = {peer: survey.neighbours.get(peer, ()) for peer in self.near[node]}
            seen = replace(survey, neighbours=neighbours, alive=frozenset(self.near[node].values()))
            self._tell(node, mesh.Surveyed(seen))
        self.now += ROUND
        surveys = {node: self._survey(node) for node in self.nodes}
        for node in self.nodes:
            self._tell(node, mesh.Surveyed(surveys[node]))

    def _tell(self, node: Prefix, event: mesh.Event) -> None:
        self._do(node, self.policies[node].handle(event, self.now))

    def _do(self, node: Prefix, actions: Iterable[mesh.Action]) -> None:
        pending = deque(actions)
        policy = self.policies[node]
        while pending:
            match pending.popleft():
                case mesh.DrainTunnel(peer):
                    drained = replace(policy.survey, neighbours={**policy.survey.neighbours, peer: ()})
                    pending += policy.handle(mesh.Surveyed(drained), self.now)
                case mesh.AskClose(peer):
                    pending += policy.handle(mesh.CloseAllowed(peer), self.now)
                case mesh.CloseTunnel(peer):
                    del self.near[node][peer], self.near[peer][node]
                    self._tell(peer, mesh.ClientDown(node))
                    pending += policy.handle(mesh.TunnelDown(peer), self.now)
                case mesh.OpenTunnel(peer):
                    if self.clients(peer) < self.max_clients and peer not in self.near[node]:
                        self.near[node][peer], self.near[peer][node] = name(peer), "re6stnet-tcp"
                        self._tell(peer, mesh.ClientUp(node))
                        pending += policy.handle(mesh.TunnelUp(peer, name(peer)), self.now)
                    else:
                        pending += policy.handle(mesh.TunnelDown(peer), self.now)

    def _survey(self, own: Prefix) -> Survey:
        carried: defaultdict[Prefix, set[Prefix]] = defaultdict(set)
        routes = self.routes(own)
        for node, (hop, _, _) in routes.items():
            carried[hop].add(node)
        links = {
            peer: (
                Link(
                    NextHop(IPv6Address(0xFE80 << 112 | peer.value), interface), frozenset(carried[peer]), frozenset()
                ),
            )
            for peer, interface in self.near[own].items()
        }
        return Survey(
            peers=frozenset(routes),
            metrics={node: metric for node, (_, _, metric) in routes.items()},
            neighbours=links,
            alive=frozenset(self.near[own].values()),
            costs={interface: self.cost(own, peer) for peer, interface in self.near[own].items()},
        )

    def routes(self, own: Prefix) -> dict[Prefix, tuple[Prefix, float, int]]:
        """To everybody that can be reached the next hop, the round trip, and babel's metric."""
        found: dict[Prefix, tuple[Prefix, float, int]] = {}
        pending = [(self.cost(own, peer), peer.value, peer, peer, self.rtt(own, peer)) for peer in self.near[own]]
        heapq.heapify(pending)
        while pending:
            metric, _, node, hop, rtt = heapq.heappop(pending)
            if node in found or node == own:
                continue
            found[node] = hop, rtt, metric
            for other in self.near[node]:
                if other not in found:
                    entry = metric + self.cost(node, other), other.value, other, hop, rtt + self.rtt(node, other)
                    heapq.heappush(pending, entry)
        return found

    # -- what the mesh is like --

    def distances(self, own: Prefix, without: frozenset[Prefix] = frozenset()) -> dict[Prefix, int]:
        """The least number of tunnels to everybody, some nodes being down."""
        found, pending = {own: 0}, deque([own])
        while pending:
            node = pending.popleft()
            for other in self.near[node]:
                if other not in found and other not in without:
                    found[other] = found[node] + 1
                    pending.append(other)
        return found

    def diameter(self) -> int:
        """The most tunnels between two nodes; everybody must reach everybody."""
        found = [self.distances(node) for node in self.nodes]
        assert all(len(each) == len(self.nodes) for each in found), "the mesh is in parts"
        return max(max(each.values()) for each in found)

    def mean_rtt(self) -> float:
        """Of the ways that babel chooses between all pairs."""
        trips = [rtt for node in self.nodes for _, rtt, _ in self.routes(node).values()]
        return sum(trips) / len(trips)

    def stretch(self) -> float:
        """How many times the round trip between two nodes is that of the direct way, in the mean of all pairs."""
        found = [rtt / self.rtt(node, far) for node in self.nodes for far, (_, rtt, _) in self.routes(node).items()]
        return sum(found) / len(found)

    def gap(self, steps: int = 200) -> float:
        """How fast a random walk forgets where it began: 1 less the second eigenvalue of the lazy walk."""
        weight = {node: len(self.near[node]) for node in self.nodes}
        total = sum(weight.values())
        values = {node: self.rng.uniform(-1, 1) for node in self.nodes}
        ratio = 0.0
        for _ in range(steps):
            mean = sum(values[node] * weight[node] for node in self.nodes) / total
            values = {node: value - mean for node, value in values.items()}
            norm = sum(values[node] ** 2 * weight[node] for node in self.nodes) ** 0.5
            values = {node: value / norm for node, value in values.items()}
            values = {
                node: values[node] / 2 + sum(values[other] for other in self.near[node]) / weight[node] / 2
                for node in self.nodes
            }
            ratio = sum(values[node] ** 2 * weight[node] for node in self.nodes) ** 0.5
        return 1 - ratio
