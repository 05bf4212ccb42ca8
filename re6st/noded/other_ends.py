"""Whose certificate is at the other end of each tunnel: now, and a moment ago."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.tunnel_protocols import Transport, TunnelProtocol
from re6st.noded.contracts import HardwareAddresses, LinkEnd
from re6st.tunnel import Dialer, Listener

REMEMBERED = 1000
"""Hardware addresses, of those behind our servers."""
LATELY, ENDED = 30.0, 1000
"""Seconds for which a tunnel that ended may be what news are about, and how many are remembered."""


class EndedTunnels:
    """Which tunnels ended lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: deque[tuple[float, str, Prefix]] = deque(maxlen=ENDED)

    def note(self, interface: str, peer: Prefix) -> None:
        """A tunnel with a peer ended."""
        self._ended.append((self._clock(), interface, peer))

    def lately(self, interface: str) -> list[Prefix]:
        """The peers of those on an interface."""
        since = self._clock() - LATELY
        return [peer for moment, name, peer in self._ended if name == interface and moment >= since]


class OtherEnds:
    """Answers from the `servers`, by protocol, from the client tunnels that are `held`, from WireGuard `links`, and
    from the tunnels that `ended`."""

    def __init__(
        self,
        servers: Mapping[TunnelProtocol, Listener],
        held: Callable[[], Iterable[Dialer]],
        hardware: HardwareAddresses,
        links: Callable[[], Iterable[LinkEnd]],
        ended: EndedTunnels,
    ) -> None:
        self.looked: Callable[[], object] = lambda: None
        """Called after each `look`, when OpenVPN has answered."""
        self._servers = servers
        self._held = held
        self._links = links
        self._ended = ended
        self._addresses = hardware
        self._hardware: dict[tuple[str, str], Prefix] = {}

    def is_shared(self, interface: str) -> bool:
        """Whether it is that of a server, behind which many clients are."""
        return any(server.interface == interface for server in self._servers.values())

    def is_over_tcp(self, interface: str) -> bool:
        """Whether all packets of a tunnel wait where one is lost, until it is sent again. In doubt, they do."""
        if interfaces.is_link(interface):
            return False
        found = [protocol for protocol, server in self._servers.items() if server.interface == interface]
        clients = (client for client in self._held() if client.interface == interface)
        found += [client.endpoint.protocol for client in clients if client.endpoint is not None]
        return not found or any(protocol.transport is Transport.TCP for protocol in found)

    def left(self, hops: Iterable[NextHop]) -> frozenset[NextHop]:
        """Which of these neighbours were behind a server by a tunnel that has ended."""
        servers = {server.interface: server for server in self._servers.values()}
        there = {name: {client.peer for client in server.clients.values()} for name, server in servers.items()}
        found = set()
        for hop in hops:
            peer = servers[hop.interface].hardware.get(self._addresses[hop]) if hop.interface in servers else None
            if peer is not None and peer not in there[hop.interface]:
                found.add(hop)
        return frozenset(found)

    def owner(self, interface: str, hardware: str) -> Prefix | None:
        """Who is at the other end of a tunnel; behind a server, who has that hardware address.

        It may be None for one that came after the last `look`.
        """
        for client in self._held():
            if client.connected and client.interface == interface:
                return client.peer
        for link in self._links():
            if link.interface == interface:
                return link.peer
        return next((s.hardware.get(hardware) for s in self._servers.values() if s.interface == interface), None)

    def owner_at(self, hop: NextHop) -> Prefix | None:
        """Who a neighbour is; see `owner`."""
        return self.owner(hop.interface, self._addresses[hop])

    def numbers(self, peer: Prefix) -> frozenset[int]:
        """The node numbers in the certificates by which a peer has tunnels with us; empty where none is known."""
        found = [known.number for s in self._servers.values() for known in s.clients.values() if known.peer == peer]
        found += [client.number for client in self._held() if client.connected and client.peer == peer]
        found += [link.identity.number for link in self._links() if link.peer == peer]
        return frozenset(number for number in found if number is not None)

    def suspects(self, interface: str, hardware: str) -> list[Prefix]:
        """Who may have sent what came by an interface from a hardware address lately: one, if it is known who has it.

        It may have been cut off since; then those who are there now must not be named in its place.
        """
        if (known := self._hardware.get((interface, hardware))) is not None:
            return [known]
        found = [client.peer for client in self._held() if client.connected and client.interface == interface]
        found += [link.peer for link in self._links() if link.interface == interface]
        found += [c.peer for s in self._servers.values() if s.interface == interface for c in s.clients.values()]
        found += self._ended.lately(interface)
        return list(dict.fromkeys(peer for peer in found if peer is not None))

    def look(self, unknown: Iterable[NextHop] = ()) -> None:
        """Find out who is behind our servers, see `owner`, and what hardware addresses `unknown` neighbours have."""
        self._addresses.find(unknown)
        for server in self._servers.values():
            server.looked = self._answered
            server.look()

    def _answered(self) -> None:
        for server in self._servers.values():
            for hardware, peer in server.hardware.items():
                self._hardware.pop((server.interface, hardware), None)
                self._hardware[server.interface, hardware] = peer
        while len(self._hardware) > REMEMBERED:
            del self._hardware[next(iter(self._hardware))]
        self.looked()
