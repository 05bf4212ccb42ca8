"""What the mesh policy is told and what it answers: settings, events, actions (policy.py; wire.md 10.4, 10.7).

Events are what happened, actions what is to be done; both are values, so that a daemon, a test and a simulation can
speak with the same policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from re6st.core.interfaces import is_link
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import SurveyLike
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint


@dataclass(frozen=True, slots=True)
class Settings:
    """What the policy is told. Times in seconds."""

    own: Prefix
    registry: Prefix
    """The registry's node, or that of the first of several."""
    client_count: int
    tunnel_refresh: float
    close_time: float
    """How long the exchange before closing a tunnel may take: 2T of wire.md 10.7."""
    drain_time: float = 2.0
    """How long a tunnel can be drained until babel is about to lose the link altogether."""
    link_drain_time: float = 8.0
    """The same where a WireGuard link carries it, on which hellos are rarer."""
    drains: bool = True
    """Whether routes can be moved away from a tunnel without a loss. If not, only a tunnel without any is given up."""
    meeting_time: float = 60.0
    """How long babel may take to meet the peer on a new tunnel: some hellos of the peer, which may be an older one."""
    other_registries: tuple[Prefix, ...] = ()
    """The nodes of the others."""
    neighbours: frozenset[Prefix] = frozenset()
    disabled_protocols: frozenset[TunnelProtocol] = frozenset()
    lan: frozenset[str] = frozenset()
    """Interfaces on which neighbours are met without a tunnel."""
    country: str = ""
    """Ours, where the network asks for it; see borders.py."""
    same_country: frozenset[str] = frozenset()
    """Countries whose border no tunnel crosses."""
    static_tunnel: bool = False
    """Tunnels come up that the policy did not ask for: the one of --client."""
    region_length: int = 0
    """Bits of a prefix that say in which region of the network it is; none: the network is flat."""

    def drain_time_of(self, interface: str) -> float:
        """How long a tunnel on that interface can be drained."""
        return self.link_drain_time if is_link(interface) else self.drain_time


# --- events ---


@dataclass(frozen=True, slots=True)
class TunnelUp:
    """Our client tunnel to `peer` is connected, on `interface`, over the `uplink` where that is known."""

    peer: Prefix
    interface: str
    uplink: str = ""


@dataclass(frozen=True, slots=True)
class TunnelMoved:
    """Our client tunnel to `peer` goes on over another interface, as something else carries it."""

    peer: Prefix
    interface: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """We go on where an earlier daemon stopped: with these client tunnels, by interface, and with its babeld."""

    tunnels: tuple[tuple[Prefix, str], ...]


@dataclass(frozen=True, slots=True)
class TunnelDown:
    """Our client tunnel ended, or never came up."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class ClientUp:
    """A client connected to one of our servers."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class ClientDown:
    peer: Prefix


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The routing table changed."""

    survey: SurveyLike


@dataclass(frozen=True, slots=True)
class BulkSurveyed:
    """The routing table of the throughput plane changed, or there is none any more."""

    survey: SurveyLike | None


@dataclass(frozen=True, slots=True)
class AddressLearned:
    """A peer told us where its servers are; nothing if it has none."""

    peer: Prefix
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class RegionAnswered:
    """A node of the region that we had asked named somebody of it, itself or another one."""

    region: Prefix
    peer: Prefix
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class BootstrapAnswered:
    """The registry named a peer to begin with, or nobody."""

    peer: Prefix | None
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """A client asks whether it may close its tunnel to us (code 2)."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class CloseAllowed:
    """The peer lets us close our tunnel (code 3)."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    settings: Settings


@dataclass(frozen=True, slots=True)
class TunnelsOutdated:
    """Our client tunnels with these peers run with settings, or under a certificate, that are not ours any more."""

    peers: frozenset[Prefix]


@dataclass(frozen=True, slots=True)
class TunnelsLossy:
    """TCP has to send much again on the tunnels with these peers, ours or theirs, and on no others."""

    peers: frozenset[Prefix]


@dataclass(frozen=True, slots=True)
class LinksLossy:
    """Echo requests get lost on the links with the neighbours at these next hops, and on no others that are asked."""

    hops: frozenset[NextHop]
    suspected: frozenset[NextHop] = frozenset()
    """On these too, as far as a few requests can tell: if there are many, it is our own line."""


@dataclass(frozen=True, slots=True)
class LinkDoubted:
    """Nothing comes by our tunnel to this peer, though packets go out, and it answers no probe: it seems dead."""

    peer: Prefix
    interface: str
    """A peer may have another tunnel meanwhile, as one that takes the place of the first."""


@dataclass(frozen=True, slots=True)
class LinkRevived:
    """Something has come by it again, for a while."""

    peer: Prefix
    interface: str


@dataclass(frozen=True, slots=True)
class LinkDead:
    """Nothing has come by it for seconds."""

    peer: Prefix
    interface: str


@dataclass(frozen=True, slots=True)
class UplinkUp:
    """A link or an address of this machine came, or came back: what failed may work now."""


@dataclass(frozen=True, slots=True)
class UplinksUsed:
    """Our tunnels are spread over so many lines, where there are several, and these had better go over another one."""

    count: int
    misplaced: frozenset[Prefix] = frozenset()
    """Any one of them: then it is looked at again."""


Event = (
    TunnelUp
    | TunnelMoved
    | Resumed
    | TunnelDown
    | ClientUp
    | ClientDown
    | Surveyed
    | BulkSurveyed
    | AddressLearned
    | RegionAnswered
    | BootstrapAnswered
    | CloseAsked
    | CloseAllowed
    | SettingsChanged
    | TunnelsOutdated
    | TunnelsLossy
    | LinksLossy
    | LinkDoubted
    | LinkRevived
    | LinkDead
    | UplinkUp
    | UplinksUsed
)


# --- actions ---


@dataclass(frozen=True, slots=True)
class OpenTunnel:
    peer: Prefix
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class CloseTunnel:
    peer: Prefix
    reason: str
    lost: bool = field(default=False, compare=False)
    """It gives no sign of life."""


@dataclass(frozen=True, slots=True)
class DrainTunnel:
    """Make routes move away from this tunnel while it still forwards. The reason is for the operator."""

    peer: Prefix
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class UndrainTunnel:
    peer: Prefix


@dataclass(frozen=True, slots=True)
class DrainClient:
    """Make routes move away from the tunnel of a client of ours, at this next hop."""

    peer: Prefix
    hop: NextHop


@dataclass(frozen=True, slots=True)
class UndrainClient:
    peer: Prefix
    hop: NextHop


class LossSign(StrEnum):
    """By what it was seen that packets get lost on a link."""

    SENT_AGAIN = "TCP has to send much again"
    HELLOS = "hellos of babel are missed"
    REQUESTS = "echo requests are not answered"


@dataclass(frozen=True, slots=True)
class AvoidLink:
    """Packets get lost on the link with a neighbour, at this next hop: have babel use other ways."""

    peer: Prefix
    hop: NextHop
    sign: LossSign = field(default=LossSign.HELLOS, compare=False)


@dataclass(frozen=True, slots=True)
class TrustLink:
    """Use it as any other again."""

    peer: Prefix
    hop: NextHop


@dataclass(frozen=True, slots=True)
class AskAddress:
    peer: Prefix


@dataclass(frozen=True, slots=True)
class AskRegion:
    """Ask whoever is nearest in a region for the address of somebody there.

    If it is our own one, which is in parts then: by a neighbour in another region, as what we send to ours stays with
    us, who announce it.
    """

    region: Prefix


@dataclass(frozen=True, slots=True)
class AskBootstrap:
    """Ask the registry for a peer."""


@dataclass(frozen=True, slots=True)
class AskClose:
    """Ask the peer whether we may close (code 2)."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class AllowClose:
    """Tell a client that it may close (code 3)."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class EnsureSession:
    peer: Prefix


Action = (
    OpenTunnel
    | CloseTunnel
    | DrainTunnel
    | UndrainTunnel
    | DrainClient
    | UndrainClient
    | AvoidLink
    | TrustLink
    | AskAddress
    | AskRegion
    | AskBootstrap
    | AskClose
    | AllowClose
    | EnsureSession
)
