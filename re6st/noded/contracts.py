"""What rooms need of others: methods of Kernel (linux/kernel.py), of PacketFilter, of the routing plane, of Admission,
of WireGuard (noded/wireguard.py), of Tunnels, of Servers, of Peers, of AddressAdvertiser and of MeshDriver.

A room asks for no more than is here, so a test double has all of it, or fails the type check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.telemetry.report import Link
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.sessions import Sessions
from re6st.noded.packet_filter import Sender
from re6st.transport.link_mtu import InterfaceMtus
from re6st.tunnel import Dialer, ServerClient

if TYPE_CHECKING:
    from re6st.core.transport.link_records import LinkRecord, PeerIdentity


class PolicyInput(Protocol):
    """Who tells the policy what happened: noded/mesh_driver.py."""

    def event(self, event: policy.Event) -> None: ...


class RouteKernel(Protocol):
    """Routes to peers by other gateways than the default one. Raises KernelError."""

    def gateways(self) -> dict[IPv4Address, IPv4Address]:
        """Those that an earlier daemon made."""

    async def add_route(self, ip: IPv4Address, gateway: IPv4Address) -> None: ...

    async def delete_route(self, ip: IPv4Address, gateway: IPv4Address) -> None: ...


class HardwareAddresses(Protocol):
    """The hardware addresses of neighbours on our tunnels."""

    def __getitem__(self, hop: NextHop) -> str: ...

    def find(self, hops: Iterable[NextHop]) -> None: ...


class TunnelKernel(RouteKernel, Protocol):
    """The interfaces of tunnels, as Kernel makes them."""

    @property
    def hardware(self) -> HardwareAddresses: ...

    async def leads_outside(self, host: str, mark: int = 0) -> bool:
        """Whether packets for an address, with this mark, take a way of this machine's own, not one inside re6st."""

    async def make_tap(self, name: str) -> None:
        """Raises KernelError."""

    async def set_up(self, name: str, mtu: int | None = None) -> None:
        """Raises KernelError."""

    async def bounce(self, name: str, until_unused: Callable[[], Awaitable[None]]) -> None:
        """Tell babel that nobody is behind an interface any more."""


class Drains(Protocol):
    """Makes babel move its routes away from a link; see PacketFilter."""

    @property
    def available(self) -> bool:
        """Whether that can be done now."""

    async def mute(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...

    async def unmute(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...


class BabelFilter(Drains, Protocol):
    """A filter that also tells who sent what may not come out of a tunnel."""

    @property
    def counts(self) -> bool:
        """Whether packets of tunnels are counted, by which dead links are noticed."""

    told: Callable[[list[Sender]], object]


class Routing(Protocol):
    """Who routes over the interfaces of tunnels: the planes of the node."""

    async def until_unused(self, interface: str) -> None:
        """Until babel does not use an interface any more, which is down, or gone; not long."""

    def look_again(self) -> None:
        """It is known better who is at the other ends of tunnels."""


class TunnelAdmission(Protocol):
    """Who says whether a peer may have a tunnel with us, and hears who came: noded/admission.py."""

    def is_refused(self, peer: Prefix) -> bool: ...

    def came(self, peer: Prefix, address: str) -> str:
        """See tunnel.ListenerOwner."""

    def told_of_twin(self, peer: Prefix, place: str) -> None: ...

    def untimely(self, refused: Untimely) -> None: ...


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Who is at the other end of a WireGuard link that is up."""

    peer: Prefix
    interface: str
    identity: PeerIdentity


class Links(Protocol):
    """WireGuard links, which take the place of tunnels: noded/wireguard.py."""

    def go_on(self, found: Iterable[LinkRecord], resumed: Callable[[list[LinkRecord]], None]) -> None:
        """Go on with what an earlier daemon left, but with nobody who is revoked. `resumed` is told of those that are
        there and are our own tunnels, before the policy is of any client."""

    def carries(self, peer: Prefix) -> bool:
        """Whether one carries our tunnel with a peer."""

    async def outlast(self, peer: Prefix) -> None:
        """Wait until none carries our tunnel with a peer."""

    async def outlast_all(self) -> None:
        """Wait until none carries any tunnel of ours."""

    def end(self, peer: Prefix) -> None:
        """Our tunnel with a peer is over: no link is to carry it, nor to be about to."""

    def cut(self, peer: Prefix) -> None:
        """End any link with a peer, without a word to it."""

    def cut_off(self, crl: frozenset[int]) -> None:
        """End every link with a peer whose certificate is revoked, or of unknown number."""

    async def leave(self) -> None:
        """End all, and remove their interfaces."""

    def ends(self) -> Iterable[LinkEnd]: ...

    def reports(self) -> Iterable[Link]:
        """For the operator."""

    def why_not(self, peer: Prefix) -> str:
        """Why no link with a peer is opened for a while; empty where that is not so."""

    def served(self, protocol: TunnelProtocol, besides: Prefix) -> int:
        """How many clients of a server have a link instead of their tunnel to it, a peer left out."""

    def is_served(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        """Whether a peer is one of those."""

    def beside(self, interface: str) -> Iterable[str]:
        """The interfaces of links beside the one on this interface, with the same peer."""

    def gives_up(self, peer: Prefix, interface: str) -> bool:
        """Whether a link that is dead ends, and our tunnel with the peer goes on by another one."""

    def leave_line(self, name: str) -> None:
        """A line of ours is dead: the links over it end. A tunnel with a peer of whom others are left goes on by one of
        them, and so over another line."""

    def user_of(self, peer: Prefix, interface: str) -> Hashable:
        """Who uses the line of a link, by core/mesh/uplink_choice.py: our tunnel with the peer, or a link beside it."""


class InterfacesKernel(InterfaceMtus, Protocol):
    """What links need of the kernel, besides their own interfaces. `take_link` raises KernelError."""

    def take_link(self, name: str) -> None: ...
    def keep_link_up(self, name: str, address: IPv6Address) -> None: ...
    def leave_link(self, name: str) -> None: ...
    async def delete_link(self, name: str) -> None: ...
    async def leads_outside(self, host: str, mark: int = 0) -> bool: ...
    async def bounce(self, name: str, until_unused: Callable[[], Awaitable[None]]) -> None: ...


class ServedClients(Protocol):
    """The clients of our servers: noded/servers.py."""

    def client(self, peer: Prefix) -> tuple[TunnelProtocol, ServerClient] | None: ...
    def admits(self, peer: Prefix, serial: int | None) -> bool: ...
    def link_ended(self, peer: Prefix) -> None: ...


class ReplaceableTunnels(Protocol):
    """The tunnels whose place links take: noded/tunnels.py."""

    @property
    def servers(self) -> ServedClients: ...
    def openvpn_tunnels(self) -> Mapping[Prefix, Dialer]: ...
    def retire(self, peer: Prefix) -> None: ...
    def hold_way(self, address: str | None) -> None: ...
    def let_go(self, address: str | None) -> None: ...


class LinkSpeaker(Protocol):
    """Who speaks with peers: noded/peer_socket.py."""

    @property
    def sessions(self) -> Sessions: ...
    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None: ...
    def ensure(self, peer: Prefix) -> None: ...
    def begin_anew(self, peer: Prefix) -> None: ...


class PortOpener(Protocol):
    """Who has ports opened at the router of a machine behind NAT: noded/reachability.py."""

    def open_for_links(self, ports: frozenset[int]) -> None:
        """Have these UDP ports open, as far as the router does that, and no others that were opened by this."""
