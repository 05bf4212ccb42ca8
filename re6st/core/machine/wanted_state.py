"""What the kernel shall have of a node, as data, and what is to be done where it has something else.

`Wanted` is all that a node gives to the kernel, but for its nftables table and what babeld does. A start, a change of
parameters, other programs and an end differ in what was wanted before, and is now: `surplus` is to be removed,
`missing` is to be put there. What an earlier run `left` counts as wanted before. What others made is in neither.
linux/kept_state.py reads what there is, and does what is said here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_interface

from re6st.core import interfaces
from re6st.core.machine import mptcp_numbers, share_numbers, uplink_numbers
from re6st.core.routing import planes
from re6st.core.routing.claims import link_local
from re6st.core.routing.regions import ROUTE_PROTOCOL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# linux/if.h, linux/rtnetlink.h
IFF_UP, IFF_POINTOPOINT, IFF_RUNNING = 0x1, 0x10, 0x40
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
RTPROT_STATIC, RTPROT_BABEL = 4, 42
RT_TABLE_MAIN = 254
TUNNEL_KINDS = frozenset(("tun", "wireguard"))
"""Of interfaces of tunnels; that of wireguard-go is a tun, too."""
FIRST_PRIORITY = 1
"""Of a route that the kernel prefers to all others to the same destination."""
RTPROT_RE6ST = 146
"""Marks our routes to peers, and our rules; a number that nobody registered (/etc/iproute2/rt_protos)."""


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """What this machine shall have in a network: our address in it, and where nothing leaks to."""

    network: Network
    address: Address
    length: int
    """Of the prefix that our address brings a route for."""
    unreachable: tuple[Network, ...]
    protocol: int = RTPROT_STATIC
    """Of the unreachable routes: by it babel knows those to tell others of."""

    @property
    def shared(self) -> bool:
        """Whether it is the address of all nodes of our region: no packet is to have it as source by itself."""
        return self.protocol != RTPROT_STATIC

    @property
    def priority(self) -> int | None:
        """Of the unreachable routes. Of those that babel tells of, one that none of babeld's has.

        If babeld heard of them from others before it saw ours, it removes its own route, and would remove ours instead.
        """
        return None if self.protocol == RTPROT_STATIC else FIRST_PRIORITY


@dataclass(frozen=True, slots=True)
class KernelLink:
    """A network interface; `kind` is that of a virtual one, as "tun", `hardware` its MAC address, if it has one."""

    index: int
    name: str
    flags: int
    kind: str
    hardware: bytes = b""
    mtu: int = 0
    """In bytes."""
    master: int = 0
    """The index of the bridge or VRF that it is a part of; 0 for none."""

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def running(self) -> bool:
        """Whether it is up, and has a carrier that the kernel has dealt with."""
        return self.up and bool(self.flags & IFF_RUNNING)


# Of what is given to the kernel, `what` names it, and the form of a string says what was wrong where it is put back.


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl below net/ that must not have the value `wrong`; if that is empty, none but the `right` one."""

    name: str
    wrong: str
    right: str
    needed: bool = True
    """Else it is not missed where nobody may change it, as in containers: cli/node/main.py says so at the start."""

    def holds(self, value: str) -> bool:
        """Whether it may have this value; empty: there is no such setting."""
        return not value or value == self.right or (bool(self.wrong) and value != self.wrong)

    def __str__(self) -> str:
        return f"the sysctl net.{self.name.replace('/', '.')}={self.right}"


@dataclass(frozen=True, slots=True)
class Tap:
    """The interface of a tunnel."""

    interface: str

    @property
    def what(self) -> str:
        return f"interface {self.interface}"

    def __str__(self) -> str:
        return f"the interface {self.interface}, which was down"


@dataclass(frozen=True, slots=True)
class Mtu:
    """That of the interface of a tunnel, in bytes."""

    interface: str
    bytes: int

    def __str__(self) -> str:
        return f"the MTU {self.bytes} of {self.interface}"


@dataclass(frozen=True, slots=True)
class Placed:
    """An address on an interface, which is up then; `routed` if it brings a route to its prefix."""

    ip: Address
    length: int
    interface: str
    routed: bool = True
    deprecated: bool = False
    """Only packets of programs that choose it have it as source; for IPv6."""

    @property
    def what(self) -> str:
        return f"address {self.ip}"

    def __str__(self) -> str:
        return f"our address {self.ip} on {self.interface}"


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A route; `source` is None for packets of any, and None too what it does not say."""

    destination: Network
    source: Network | None = None
    gateway: Address | None = None
    interface: int | None = None
    protocol: int = RTPROT_STATIC
    type: int = RTN_UNICAST
    priority: int | None = None
    table: int = RT_TABLE_MAIN
    preferred: Address | None = None
    """The address that packets of this machine have by it."""
    lasts: int | None = None
    """Seconds after which the kernel removes it; only for IPv6. Routes that are read do not say it."""
    onlink: bool = False
    """The gateway is on the link, whatever other routes say."""

    @property
    def what(self) -> str:
        return f"route {self.destination}"

    def __str__(self) -> str:
        if self.table in uplink_numbers.TABLES:
            return f"a default route of the table {self.table}"
        if self.type == RTN_UNREACHABLE:
            return f"the route unreachable {self.destination}"
        return f"the route to {self.destination.network_address} by {self.gateway}"


@dataclass(frozen=True, slots=True)
class KernelRule:
    """A rule of policy routing: which table leads packets. Ours are marked by our protocol number."""

    priority: int
    """The kernel asks the lowest first; the main table has 32766."""
    destination: Network
    """Of length 0 for packets to anywhere: it says for which family the rule is."""
    traffic_class: int = 0
    """With two zeros for the bits of ECN, which do not count; 0: of any class."""
    table: int | None = None
    """None: those that come to this rule are unreachable."""
    mark: int = 0
    """Only for packets with this in the bits of their mark that count; 0: for all."""
    mask: int = 0
    """The bits that count; 0: those of `mark`."""
    source: Network | None = None
    """Only for packets from there."""
    specific: bool = False
    """No default route of the table counts."""
    silent: bool = False
    """Without a table: who sent a packet that comes to this rule is not told that it is dropped."""

    @property
    def what(self) -> str:
        return f"rule {self.priority}"

    def __str__(self) -> str:
        if any(self.priority in of.PRIORITIES for of in (uplink_numbers, share_numbers, mptcp_numbers)):
            return f"the rule {self.priority} for {f'mark {self.mark:#x}' if self.mark else self.source}"
        return f"the rule {self.priority} for packets of class {self.traffic_class:#04x}"


Thing = Tap | Placed | KernelRoute | KernelRule
"""What can be removed."""
Property = Setting | Mtu
"""What goes with an interface, or stays as it is."""


def mptcp_address(ip: Address) -> Placed:
    """A further address of ours, for subflows of MPTCP (mptcp.py)."""
    return Placed(ip, ip.max_prefixlen, "lo", routed=False, deprecated=True)


def host_route(ip: IPv4Address, gateway: IPv4Address) -> KernelRoute:
    """A route to a peer by another gateway than the default one."""
    return KernelRoute(IPv4Network(ip), gateway=gateway, protocol=RTPROT_RE6ST)


@dataclass(frozen=True, slots=True)
class TapState:
    """What the interface of a tunnel is while it is up."""

    index: int
    """So that another one of the same name is not taken for it."""
    mtu: int | None = None
    """In bytes; None for any."""
    link_local: IPv6Address | None = None
    """Its address, which a peer was told; None for that which the kernel makes of its hardware address."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """All of it."""

    addresses: tuple[Placed, ...] = ()
    """Those that the network gives us."""
    routes: tuple[KernelRoute, ...] = ()
    """Unreachable ones, so that nothing leaks, and those to peers."""
    taps: Mapping[str, TapState | None] = field(default_factory=dict)
    """Interfaces of tunnels by name, with what each is that shall be up."""
    on_taps: IPv4Interface | None = None
    """Our address on all of them."""
    settings: tuple[Setting, ...] = ()
    rules: tuple[KernelRule, ...] = ()
    """Which packets go by the table of the throughput plane."""
    uplinks: tuple[KernelRoute | KernelRule, ...] = ()
    """What leads packets out by one uplink or the other; see uplinks.py."""
    shares: tuple[KernelRule, ...] = ()
    """Which of our own packets go by the table of one line; see share_rules.py."""
    mptcp: tuple[Placed | KernelRule, ...] = ()
    """Further addresses of ours, and what leads packets from there; see mptcp.py."""
    handed: tuple[KernelRule, ...] = ()
    """Which packets to neighbours with several lines go by the table of one of these; see handing_rules.py."""

    @property
    def things(self) -> tuple[Thing, ...]:
        # An interface takes its addresses along.
        given = (*self.addresses, *self.routes, *self.rules, *self.uplinks, *self.shares)
        return (*map(Tap, self.taps), *given, *self.handed, *self.mptcp)

    @property
    def all_addresses(self) -> tuple[Placed, ...]:
        """Those of `addresses` and `mptcp`."""
        return (*self.addresses, *(each for each in self.mptcp if isinstance(each, Placed)))

    @property
    def all_settings(self) -> tuple[Setting, ...]:
        """Also that IPv6 is not switched off where it is needed."""
        # The unreachable routes are on lo.
        names = dict.fromkeys(("lo", *(placed.interface for placed in self.addresses))) if self.addresses else ()
        of_taps = (setting for name in self.taps for setting in tap_settings(name))
        return (*(Setting(f"ipv6/conf/{name}/disable_ipv6", "1", "0") for name in names), *of_taps, *self.settings)

    def on_tap(self, name: str) -> tuple[Placed, ...]:
        """The addresses that we give to the interface of a tunnel."""
        ip = self.on_taps
        return () if ip is None else (Placed(ip.ip, ip.network.prefixlen, name, routed=False),)

    def with_plans(self, plans: Iterable[AddressPlan], interface: str) -> Wanted:
        """The same with these address plans, and no others, on this interface."""
        plans = tuple(plans)
        nowhere = dict.fromkeys(
            KernelRoute(network, type=RTN_UNREACHABLE, protocol=plan.protocol, priority=plan.priority)
            for plan in plans
            for network in plan.unreachable
        )
        to_peers = (route for route in self.routes if route.type != RTN_UNREACHABLE)
        routes = (*nowhere, *to_peers)
        addresses = (Placed(plan.address, plan.length, interface, deprecated=plan.shared) for plan in plans)
        return replace(self, addresses=tuple(addresses), routes=routes)

    def with_tap(self, name: str, up: TapState | None = None) -> Wanted:
        """The same with an interface of a tunnel, which shall be up as it is said."""
        return replace(self, taps={**self.taps, name: up})

    def without_tap(self, name: str) -> Wanted:
        """The same without an interface."""
        return replace(self, taps={each: up for each, up in self.taps.items() if each != name})


@lru_cache(1024)
def tap_settings(name: str) -> tuple[Setting, ...]:
    """Those of the interface of a tunnel (linux/router_settings.py has them for all).

    Duplicate address detection is off on it: nobody else can have its random link-local address, and waiting for the
    detection would cost a second of every new tunnel. A router advertisement of a peer would be the way out for us.
    """
    base = f"ipv6/conf/{name}"
    better = ("accept_dad", "dad_transmits", "accept_ra")
    return (Setting(f"{base}/disable_ipv6", "1", "0"), *(Setting(f"{base}/{each}", "", "0", False) for each in better))


def forwarding(*, ipv4: bool) -> tuple[Setting, ...]:
    """What babeld sets when it starts, and relies on."""
    found = [Setting("ipv6/conf/all/forwarding", "0", "1")]
    if ipv4:
        # With 1, packets are dropped that come by another way than the answers go.
        found += [Setting("ipv4/conf/all/forwarding", "0", "1"), Setting("ipv4/conf/all/rp_filter", "1", "0")]
    return tuple(found)


def bulk_rules(network: IPv6Network) -> tuple[KernelRule, ...]:
    """Those that lead bulk traffic inside a network by the throughput plane, where that has a route.

    For each class a second one is for questions: a packet with the mark gets no other route than that plane's.
    """
    found = [KernelRule(planes.PRIORITY, network, 0, planes.THROUGHPUT.table, planes.OURS)]
    for number, each in enumerate(planes.BULK):
        priority, traffic_class = planes.PRIORITY + 1 + 2 * number, each << planes.ECN_BITS
        found += [
            KernelRule(priority, network, traffic_class, planes.THROUGHPUT.table),
            KernelRule(priority + 1, network, traffic_class, mark=planes.MARK),
        ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Actual:
    """What the kernel has, whoever made it."""

    links: Mapping[str, KernelLink] = field(default_factory=dict)
    addresses: Collection[Placed] = ()
    routes: Collection[KernelRoute] = ()
    """Unreachable ones, and those with our protocol number; one may be there twice."""
    settings: Mapping[str, str] = field(default_factory=dict)
    rules: Collection[KernelRule] = ()
    """Those with our protocol number."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something of ours that was not there. It is again, but where `trouble` says what keeps it away."""

    thing: Property | Thing
    trouble: str = ""
    forbidden: bool = False
    """We have not the right to put it back."""

    def __str__(self) -> str:
        return f"{self.thing} is missing: {self.trouble}" if self.trouble else f"{self.thing}"


@dataclass(frozen=True, slots=True)
class Kept:
    """What of an earlier run is gone on with."""

    hosts: Collection[str] = ()
    """They are reached by a gateway of ours."""
    main_interface: str = "lo"
    """Where our address is not removed, since it comes there again."""
    links: frozenset[str] = frozenset()
    """Interfaces of WireGuard that are gone on with; others go."""

    def keeps(self, interface: str) -> bool:
        """Whether an interface of a tunnel stays."""
        passing = interfaces.is_link(interface) or interfaces.is_unfinished(interface)
        return interface in self.links or not passing


def surplus(before: Wanted, now: Wanted) -> list[Thing]:
    """What is to be removed, the last first."""
    things = set(now.things)
    return [thing for thing in reversed(before.things) if thing not in things]


def missing(wanted: Wanted, actual: Actual, met: Collection[str] = ()) -> Iterator[Property | Thing | Fault]:
    """What is to be put there, and what cannot be; interfaces that were `met` before may be down."""
    yield from (each for each in wanted.all_settings if not each.holds(actual.settings.get(each.name, "")))
    up = {name: up for name, up in wanted.taps.items() if up is not None}
    taps = {name: link for name, link in actual.links.items() if name in up and up[name].index == link.index}
    yield from (Tap(name) for name, link in taps.items() if not link.up)
    mtus = ((name, up[name].mtu, link.mtu) for name, link in taps.items())
    yield from (Mtu(name, right) for name, right, mtu in mtus if right is not None and right != mtu)
    # One that has another length is one of the user's, who may.
    there = {(each.ip, each.interface) for each in actual.addresses}
    for placed in wanted.all_addresses:
        link = actual.links.get(placed.interface)
        if link is None:
            yield Fault(placed, f"there is no interface {placed.interface}")
        elif not link.up and link.name in met and link.name != "lo":
            # One of the user's that was up, and is down now, is his own business.
            yield Fault(placed, f"the interface {link.name} is down")
        elif not link.up or (placed.ip, link.name) not in there:
            yield placed
    for name in taps:
        yield from (each for each in wanted.on_tap(name) if (each.ip, name) not in there)
    told = ((name, up[name].link_local) for name in taps)
    yield from (Placed(ip, 64, name) for name, ip in told if ip is not None and (ip, name) not in there)
    yield from _link_locals({name: link for name, link in taps.items() if up[name].link_local is None}, actual)
    routes = {(each.destination, each.type) for each in actual.routes}
    yield from (each for each in wanted.routes if (each.destination, each.type) not in routes)
    of_mptcp = (each for each in wanted.mptcp if isinstance(each, KernelRule))
    yield from (each for each in (*wanted.rules, *wanted.shares, *wanted.handed, *of_mptcp) if each not in actual.rules)
    of_uplinks = {*actual.routes, *actual.rules} if wanted.uplinks else frozenset[Thing]()
    yield from (each for each in wanted.uplinks if each not in of_uplinks)


def deleted(wanted: Wanted, actual: Actual) -> list[str]:
    """Interfaces of tunnels that shall be up and were deleted, also if there is another one of the name."""
    index = {name: link.index for name, link in actual.links.items()}
    return [name for name, up in wanted.taps.items() if up is not None and index.get(name) != up.index]


def left(actual: Actual, plans: Collection[AddressPlan], kept: Kept | None) -> tuple[Wanted, Wanted]:
    """What an earlier run gave to the kernel, and what of it is still wanted.

    If anything is `kept`, the traffic needs our address and the unreachable routes, which are in neither and stay.
    Rules stay too: without them packets that neighbours send by the throughput plane could come back to these, and
    tunnels that are bound to an uplink would leave it. So do the addresses of subflows, which would end with them.
    The route of a region that is in none of the `plans` goes with its address: babeld would tell others of it for ever.
    """
    # A babeld that runs on would not notice that an interface went, if another came at once.
    tunnels = (name for name, link in actual.links.items() if link.kind in TUNNEL_KINDS)
    taps = dict.fromkeys(name for name in tunnels if interfaces.is_ours(name) or interfaces.is_unfinished(name))
    main, hosts = (None, ()) if kept is None else (kept.main_interface, kept.hosts)
    own = {plan.address for plan in plans}
    regions = tuple(_unknown_regions(actual, plans))
    shared = {each.destination[-1] for each in regions} - own
    addresses = (each for each in actual.addresses if each.ip in own and each.interface not in {*taps, main})
    of_regions = (each for each in actual.addresses if each.ip in shared)
    ours = dict.fromkeys(each for each in actual.routes if each.protocol == RTPROT_RE6ST)
    to_peers = tuple(each for each in ours if each.table not in uplink_numbers.TABLES)
    out = tuple(each for each in ours if each.table in uplink_numbers.TABLES)
    networks = () if kept is not None else {network for plan in plans for network in plan.unreachable}
    nowhere = (each for each in actual.routes if each.type == RTN_UNREACHABLE and each.destination in networks)
    routes = tuple(each for each in to_peers if str(each.destination.network_address) in hosts)
    bound = (uplink_numbers.PRIORITIES, mptcp_numbers.PRIORITIES)
    others = (each for each in actual.rules if not any(each.priority in of for of in bound))
    # What goes over which line is found anew: meanwhile all goes as babel says.
    shares = tuple(each for each in actual.rules if each.priority in share_numbers.PRIORITIES)
    rules = tuple(each for each in others if each not in shares)
    leading = tuple(each for each in actual.rules if each.priority in uplink_numbers.PRIORITIES)
    uplinks: tuple[KernelRoute | KernelRule, ...] = (*out, *leading)
    mptcp = _left_of_mptcp(actual, plans)
    found = Wanted(
        (*addresses, *of_regions),
        tuple(dict.fromkeys((*nowhere, *regions, *to_peers))),
        taps,
        rules=rules,
        uplinks=uplinks,
        shares=shares,
        mptcp=mptcp,
    )
    if kept is None:
        return found, Wanted()
    taps = dict.fromkeys(filter(kept.keeps, taps))
    return found, Wanted(routes=routes, taps=taps, rules=rules, uplinks=uplinks, mptcp=mptcp)


def _unknown_regions(actual: Actual, plans: Collection[AddressPlan]) -> Iterator[KernelRoute]:
    """Routes of regions in our networks that no plan has."""
    known = {network for plan in plans for network in plan.unreachable}
    networks = [plan.network for plan in plans if isinstance(plan.network, IPv6Network)]
    for route in actual.routes:
        net = route.destination
        ours = route.type == RTN_UNREACHABLE and route.protocol == ROUTE_PROTOCOL and net not in known
        if ours and isinstance(net, IPv6Network) and any(map(net.subnet_of, networks)):
            yield route


def _left_of_mptcp(actual: Actual, plans: Collection[AddressPlan]) -> tuple[Placed | KernelRule, ...]:
    """What lets one connection use several lines."""
    subnets = (ip_interface((plan.address, plan.length)).network for plan in plans)
    rooms = [mptcp_numbers.reserved(each) for each in subnets if isinstance(each, IPv6Network)]
    there = (each.ip for each in actual.addresses if each.interface == "lo" and isinstance(each.ip, IPv6Address))
    addresses = (mptcp_address(ip) for ip in there if any(room is not None and ip in room for room in rooms))
    return (*addresses, *(each for each in actual.rules if each.priority in mptcp_numbers.PRIORITIES))


def _link_locals(taps: Mapping[str, KernelLink], actual: Actual) -> Iterator[Placed]:
    """Without a link-local address babeld does not use an interface, and complains of it again and again.

    The kernel gives one to each that is up once it has noticed the carrier, up to a second after a program attached.
    It does not put back what others remove.
    """
    have = {each.interface for each in actual.addresses if each.ip.is_link_local and each.ip.version == 6}
    for name, link in taps.items():
        if link.running and name not in have and len(link.hardware) == 6:
            yield Placed(link_local(link.hardware), 64, name)
