"""Many nodes with the real policy, and babel's costs, in rounds: in each, every node may replace one tunnel.

Coarser than network.py (nothing takes time, no message is lost), so that two hundred nodes can be looked at.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from dataclasses import replace
from ipaddress import IPv6Address
from random import Random

from re6st.core import interfaces
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.telemetry.event_log import EventLog
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.noded.mesh_driver import MeshDriver
from re6st.sim.engine import Engine
from re6st.sim.names import endpoints, hop, name, prefix_of

START = 1000.0
ROUND = 301.0
"""Seconds from one round to the next: a little more than a node keeps all its tunnels."""
BASE, RTT_MIN, RTT_MAX, PENALTY = 96, 10.0, 500.0, 5000
"""Babel's costs, with the network's default settings."""
LANDS, LAND_SIZE, OVERSEAS, ACCESS = 3, 30.0, 120.0, 5.0
"""Continents; milliseconds across one, from one to another, and to the next router in the mean."""
SERVER = interfaces.server(TunnelProtocol.TCP)
"""The interface on which a node meets its clients."""


class Player:
    """One node of the rounds: its policy, and the hands of its driver."""

    def __init__(self, rounds: Rounds, mesh: policy.Mesh) -> None:
        self._rounds = rounds
        self._own = mesh.settings.own
        self.mesh = mesh
        self.driver = MeshDriver(mesh, EventLog(), rounds.engine)
        self.driver.start(self, self, self)

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        if self._rounds.join(self._own, peer):
            self.driver.event(policy.TunnelUp(peer, name(peer)))
        else:
            self.driver.event(policy.TunnelDown(peer))

    def close(self, peer: Prefix, *, lost: bool = False) -> None:
        self._rounds.part(self._own, peer)
        self.driver.event(policy.TunnelDown(peer))

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """At once, nothing goes through it any more."""
        seen = self._rounds.seen[self._own]
        (drained,) = (peer for peer, own in self._rounds.near[self._own].items() if own == interface)
        self._rounds.sees(self._own, replace(seen, neighbours={**seen.neighbours, drained: ()}))

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """The next survey shows what goes through it again."""

    def avoid(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.drain(interface, neighbour)

    def trust(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.undrain(interface, neighbour)

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        if code == Code.ASK_CLOSE:
            self.driver.event(policy.CloseAllowed(peer))

    def ensure(self, peer: Prefix) -> None:
        """Sessions are not modelled."""

    def ask_first_peer(self) -> None:
        """Everybody remembers everybody."""

    def doubt(self) -> None:
        """Parameters and certificates are not modelled."""


class Rounds:
    """Nodes at random places; each has tunnels with random others at the start."""

    def __init__(self, seed: int, count: int, client_count: int = 10, max_clients: int = 20) -> None:
        self.rng = Random(seed)  # noqa: S311
        self.engine = Engine(START)
        self.max_clients = max_clients
        self.nodes = [prefix_of(number) for number in range(count)]
        self.places = {node: self._place() for node in self.nodes}
        self.near: dict[Prefix, dict[Prefix, str]] = {node: {} for node in self.nodes}
        """For each node its neighbours, with the interface towards each."""
        self.seen: dict[Prefix, Survey] = dict.fromkeys(self.nodes, Survey())
        """What each was told of the mesh last."""
        self.players = {node: Player(self, self._policy(node, client_count)) for node in self.nodes}
        for node in self.nodes:
            # Without a client a node stays modest.
            self._tell(node, policy.ClientUp(prefix_of(9999)))
            self.sees(node, Survey(peers=frozenset(self.nodes) - {node}))

    def _place(self) -> tuple[int, float, float, float]:
        """A continent, where on it, in milliseconds, and how long it takes to get to the next router."""
        chance = self.rng.uniform
        return self.rng.randrange(LANDS), chance(0, LAND_SIZE), chance(0, LAND_SIZE), self.rng.expovariate(1 / ACCESS)

    def _policy(self, own: Prefix, client_count: int) -> policy.Mesh:
        settings = policy.Settings(own, self.nodes[0], client_count, tunnel_refresh=300, close_time=45, drain_time=0)
        known = {node: endpoints(node) for node in self.nodes if node != own}
        return policy.Mesh(settings, known, Random(self.rng.random()))  # noqa: S311

    def rtt(self, one: Prefix, other: Prefix) -> float:
        """Milliseconds between two nodes, there and back."""
        (land, x, y, access), (other_land, u, v, other_access) = self.places[one], self.places[other]
        return abs(x - u) + abs(y - v) + (OVERSEAS if land != other_land else 0) + access + other_access

    def cost(self, one: Prefix, other: Prefix) -> int:
        """Babel's cost of a link between two nodes."""
        excess = max(0.0, min(self.rtt(one, other), RTT_MAX) - RTT_MIN)
        return BASE + round(PENALTY * excess / (RTT_MAX - RTT_MIN))

    def clients(self, node: Prefix) -> int:
        """How many opened a tunnel to it."""
        return len(self.players[node].mesh.clients) - 1

    # -- a round --

    def round(self) -> None:
        """Everybody looks, and replaces what it wants to."""
        for node in self.nodes:  # before any time passes: nobody has been silent
            seen = self.seen[node]
            neighbours = {peer: seen.neighbours.get(peer, ()) for peer in self.near[node]}
            self.sees(node, replace(seen, neighbours=neighbours, alive=frozenset(self.near[node].values())))
        self.engine.now += ROUND
        surveys = {node: self._survey(node) for node in self.nodes}
        for node in self.nodes:
            self.sees(node, surveys[node])

    def join(self, client: Prefix, server: Prefix) -> bool:
        """A tunnel from one to the other, if there is none yet, and the other has room."""
        if self.clients(server) >= self.max_clients or server in self.near[client]:
            return False
        self.near[client][server], self.near[server][client] = name(server), SERVER
        self._tell(server, policy.ClientUp(client))
        return True

    def part(self, client: Prefix, server: Prefix) -> None:
        """The tunnel from one to the other is gone."""
        del self.near[client][server], self.near[server][client]
        self._tell(server, policy.ClientDown(client))

    def sees(self, node: Prefix, seen: Survey) -> None:
        """A node is told how the mesh looks."""
        self.seen[node] = seen
        self._tell(node, policy.Surveyed(seen))

    def _tell(self, node: Prefix, event: policy.Event) -> None:
        self.players[node].driver.event(event)

    def _survey(self, own: Prefix) -> Survey:
        carried: defaultdict[Prefix, set[Prefix]] = defaultdict(set)
        routes = self.routes(own)
        for node, (through, _, _) in routes.items():
            carried[through].add(node)
        near = self.near[own].items()
        return Survey(
            peers=frozenset(routes),
            metrics={node: metric for node, (_, _, metric) in routes.items()},
            neighbours={
                peer: (LinkUse(hop(peer, interface), frozenset(carried[peer]), frozenset()),)
                for peer, interface in near
            },
            alive=frozenset(self.near[own].values()),
            costs={interface: self.cost(own, peer) for peer, interface in near},
        )

    def routes(self, own: Prefix) -> dict[Prefix, tuple[Prefix, float, int]]:
        """To everybody that can be reached the next hop, the round trip, and babel's metric."""
        found: dict[Prefix, tuple[Prefix, float, int]] = {}
        pending = [(self.cost(own, peer), peer.value, peer, peer, self.rtt(own, peer)) for peer in self.near[own]]
        heapq.heapify(pending)
        while pending:
            metric, _, node, through, rtt = heapq.heappop(pending)
            if node in found or node == own:
                continue
            found[node] = through, rtt, metric
            for other in self.near[node]:
                if other not in found:
                    entry = metric + self.cost(node, other), other.value, other, through, rtt + self.rtt(node, other)
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

    def diameter(self) -> float:
        """The most tunnels between two nodes; infinite if the mesh is in parts."""
        found = [self.distances(node) for node in self.nodes]
        in_parts = any(len(each) < len(self.nodes) for each in found)
        return float("inf") if in_parts else max(max(each.values()) for each in found)

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
