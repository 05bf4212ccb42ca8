"""A policy of the mesh that a test drives: its clock, what it did, and the surroundings that it sees."""

from __future__ import annotations

from ipaddress import IPv6Address
from random import Random
from typing import Any

from re6st.core.mesh.policy import (
    AskAddress,
    BootstrapAnswered,
    ClientUp,
    EnsureSession,
    Event,
    Mesh,
    OpenTunnel,
    Phase,
    Settings,
    Surveyed,
    TunnelUp,
)
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.sim.names import endpoints, name

REGISTRY, OWN = Prefix(0, 16), Prefix(7, 16)
PEERS = [Prefix(n, 16) for n in range(20, 60)]
P, Q, R = PEERS[:3]
CLOSE_TIME, REFRESH = 45.0, 300.0


class Driver:
    """One `Mesh`, on a clock that the test moves."""

    def __init__(self, memory: tuple[Prefix, ...] = (), seed: int = 1, **more: Any) -> None:
        self.now = 5000.0
        self.memory = {peer: endpoints(peer) for peer in memory}
        given = {
            "own": OWN,
            "registry": REGISTRY,
            "client_count": 10,
            "tunnel_refresh": REFRESH,
            "close_time": CLOSE_TIME,
            "drain_time": 0.0,
        }
        self.mesh = Mesh(Settings(**{**given, **more}), self.memory, Random(seed))

    def tell(self, event: Event) -> list[Any]:
        return [a for a in self.mesh.handle(event, self.now) if not isinstance(a, EnsureSession)]

    def wait(self, seconds: float) -> list[Any]:
        """Let time pass, from one deadline to the next; everything that was to be done meanwhile."""
        actions, end = list[Any](), self.now + seconds
        while (due := max(self.now, self.mesh.next_deadline(self.now))) <= end:
            self.now = due
            actions += self.mesh.tick(due)
        self.now = end
        return [a for a in actions if not isinstance(a, EnsureSession)]

    def sees(self, *peers: Prefix, **more: Any) -> list[Any]:
        """The routing table holds these peers, all far, and whatever the survey is told more."""
        return self.tell(Surveyed(Survey(peers=frozenset(peers), **more)))

    def settle(self) -> None:
        """Be connected, next to the registry's node, with a client of ours."""
        self.sees(REGISTRY, **near(REGISTRY))
        self.tell(ClientUp(Prefix(9999, 16)))

    def up(self, *peers: Prefix) -> None:
        """Client tunnels to these peers are there, and babel is at home on them."""
        self.tell(ClientUp(Prefix(9999, 16)))
        for peer in peers:
            self.tell(BootstrapAnswered(peer, endpoints(peer)))
            self.tell(TunnelUp(peer, name(peer)))

    def phase(self, peer: Prefix) -> Phase | None:
        tunnel = self.mesh.tunnels.get(peer)
        return tunnel.phase if tunnel else None


def near(*peers: Prefix, carried: int = 1, sole: frozenset[Prefix] = frozenset()) -> dict[str, Any]:
    """The part of a survey that says who is next to us, over tunnels of ours that carry something."""
    links = {
        peer: (
            LinkUse(NextHop(IPv6Address("fe80::1"), name(peer)), frozenset([peer, *PEERS[-carried:]][:carried]), sole),
        )
        for peer in peers
    }
    return {"neighbours": links, "alive": frozenset(map(name, peers))}


def opened(actions: list[Any]) -> list[Prefix]:
    return [action.peer for action in actions if isinstance(action, OpenTunnel)]


def asked(actions: list[Any]) -> list[Prefix]:
    return [action.peer for action in actions if isinstance(action, AskAddress)]
