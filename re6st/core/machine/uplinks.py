"""The uplinks of a machine: its lines to the Internet, each with an interface, addresses and routers.

They are what the operator says (--uplink) or, if he says nothing, the interfaces with a default route, in whatever
table a network manager has put it. Each has a table of its own with its default routes, and rules that lead there what
is marked for it, and what has one of its addresses as source: so answers leave by the line that the question came in
by. What has a route in the main table that is no default route keeps it: LANs and containers are reached as before.

The table of an uplink that is down has no way out: what is bound to it must not leave by another one, with an address
that is not of that line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface

from re6st.core import interfaces
from re6st.core.machine import uplink_numbers as numbers
from re6st.core.machine.wanted_state import (
    IFF_POINTOPOINT,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTPROT_BABEL,
    RTPROT_RE6ST,
    Address,
    KernelLink,
    KernelRoute,
    KernelRule,
    Network,
    Placed,
)

TUNNELS = frozenset(
    ("tun", "wireguard", "dummy", "vrf", "ipip", "sit", "gre", "gretap", "ip6gre", "ip6tnl", "vti", "vti6", "xfrm")
)
"""Kinds of interfaces that are no line, unless somebody says so: VPNs have default routes too."""
CELLULAR = "ww"
"""How systemd begins the names of cellular modems: they are paid by volume as a rule."""
ANYWHERE: Mapping[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
ADDRESSES_LIMIT = 16
"""Addresses of one uplink that have rules, and are told."""
LAST = 0xFFFFFFFF
"""The priority of the route that says that there is no way."""


@dataclass(frozen=True, slots=True)
class UplinkOption:
    """What the operator says of one. `down` and `up` are in Mbit/s; None where they are not known."""

    name: str
    device: str = ""
    gateways: tuple[Address, ...] = ()
    """One of each family at most."""
    down: float | None = None
    up: float | None = None
    metered: bool = False
    """It is paid by volume."""

    def __str__(self) -> str:
        words = [self.name, *([f"dev={self.device}"] if self.device else [])]
        words += [f"gateway={each}" for each in self.gateways]
        capacities = ("down", self.down), ("up", self.up)
        words += [f"{key}={f'{value:.6f}'.rstrip('0').rstrip('.')}" for key, value in capacities if value is not None]
        return ",".join([*words, *(["metered"] if self.metered else [])])


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel has."""

    links: Mapping[int, KernelLink] = field(default_factory=dict)
    """By index."""
    addresses: Sequence[Placed] = ()
    """The global ones that are in use."""
    defaults: Sequence[KernelRoute] = ()
    """Each way of each default route, whatever its table."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """The way out of an uplink for one family; without a gateway there is but the other end of the line."""

    gateway: Address | None
    preferred: Address | None = None
    """What the machine's own default route says that its packets have as source."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """One as it is now."""

    name: str
    device: str
    index: int = 0
    """Of the interface; 0 where there is none."""
    addresses: tuple[Address, ...] = ()
    ways: Mapping[int, WayOut] = field(default_factory=dict)
    """By family (4, 6). Without any it is down."""
    problem: str = ""
    """Why it is down, or lacks what the operator has said of it."""
    down: float | None = None
    up: float | None = None
    metered: bool = False
    given: bool = False
    """The operator has named it."""

    @property
    def is_up(self) -> bool:
        return bool(self.ways)

    @property
    def gateways(self) -> list[Address]:
        return [way.gateway for way in self.ways.values() if way.gateway is not None]

    @property
    def capacity(self) -> float | None:
        """Mbit/s, the mean of both directions as far as they are known."""
        known = [each for each in (self.down, self.up) if each is not None]
        return sum(known) / len(known) if known else None

    @property
    def slower(self) -> float | None:
        """Mbit/s of its slower direction, as far as they are known: what a tunnel carries both ways."""
        return min((each for each in (self.down, self.up) if each is not None), default=None)

    def carries(self, host: Address) -> bool:
        """Whether it has a way to hosts of that family."""
        mapped = isinstance(host, IPv6Address) and host.ipv4_mapped is not None
        return (4 if mapped else host.version) in self.ways


def find(options: Sequence[UplinkOption], seen: Seen, known: Collection[str] = ()) -> list[Uplink]:
    """The uplinks of now: those of the `options`, or else what the default routes say.

    Of the latter, interfaces that were `known` for one stay as long as they exist.
    """
    usable = [route for route in seen.defaults if _leads_out(route, seen)]
    return [_given(option, seen, usable) for option in options] if options else _found(seen, usable, known)


def things(slots: Mapping[int, Uplink]) -> tuple[KernelRoute | KernelRule, ...]:
    """What the kernel is to have of the uplinks in these slots: their routes, then the rules that lead there."""
    families = sorted({family for uplink in slots.values() for family in uplink.ways})
    routes = [route for slot, uplink in slots.items() for route in _routes(slot, uplink, families)]
    taken: set[Address] = set()
    rules = list(_by_mark(slots, families))
    for slot, uplink in slots.items():
        own = [ip for ip in uplink.addresses if ip.version in uplink.ways and ip not in taken]
        taken.update(own)
        rules += _by_source(slot, own)
    return (*routes, *rules)


def slot_of(uplink: Uplink, left: Iterable[KernelRoute]) -> int | None:
    """The slot that an earlier daemon gave to an uplink, by the routes that it left; None where it had none."""
    ways = {(uplink.index, way.gateway) for way in uplink.ways.values()}
    found = (each for each in left if each.type == RTN_UNICAST and (each.interface, each.gateway) in ways)
    route = next(found, None)
    return None if route is None else route.table - numbers.TABLES[0] + 1


# --- what there is ---


def _leads_out(route: KernelRoute, seen: Seen) -> bool:
    """Whether it is a default route of this machine's own, and not one that we made, or one inside re6st."""
    link = seen.links.get(route.interface or 0)
    return (
        link is not None
        and not interfaces.is_ours(link.name)
        and route.type == RTN_UNICAST
        and route.protocol not in (RTPROT_RE6ST, RTPROT_BABEL)
        and route.source is None
        and route.destination.prefixlen == 0
    )


def _given(option: UplinkOption, seen: Seen, defaults: Sequence[KernelRoute]) -> Uplink:
    device = option.device or _device_of(option, seen, defaults)
    told = Uplink(option.name, device or "", down=option.down, up=option.up, metered=option.metered, given=True)
    if device is None:
        return replace(told, problem=f"no interface is in the network of its router {option.gateways[0]}")
    return _as_it_is(told, option.gateways, seen, defaults)


def _device_of(option: UplinkOption, seen: Seen, defaults: Sequence[KernelRoute]) -> str | None:
    """The interface of one that names none: by its router, else it has its name."""
    names = {link.name for link in seen.links.values()}
    gateways = [each for each in option.gateways if not each.is_link_local]
    if not gateways:
        return option.name
    for gateway in gateways:
        by_route = (route.interface for route in defaults if route.gateway == gateway)
        if (index := next(by_route, None)) is not None:
            return seen.links[index].name
        for placed in seen.addresses:
            if _is_near(gateway, placed):
                return placed.interface
    return option.name if option.name in names else None


def _is_near(gateway: Address, placed: Placed) -> bool:
    network = ip_interface((placed.ip, placed.length)).network
    return gateway.version == network.version and network.prefixlen < gateway.max_prefixlen and gateway in network


def _found(seen: Seen, defaults: Sequence[KernelRoute], known: Collection[str]) -> list[Uplink]:
    """One for each interface; those in one network have one line behind them."""
    ordered = sorted(defaults, key=lambda route: (route.priority or 0, seen.links[route.interface or 0].name))
    names = dict.fromkeys(seen.links[route.interface or 0].name for route in ordered)
    kinds = {link.name: link.kind for link in seen.links.values()}
    apart = {
        link.name for link in seen.links.values() if link.master in seen.links and seen.links[link.master].kind == "vrf"
    }
    found: list[Uplink] = []
    for name in dict.fromkeys((*names, *(each for each in known if each in kinds))):
        if kinds[name] in TUNNELS or name == "lo" or name in apart:
            continue
        uplink = _as_it_is(Uplink(name, name, metered=name.startswith(CELLULAR)), (), seen, defaults)
        if not any(_same_line(uplink, other, seen.addresses) for other in found):
            found.append(uplink)
    return found


def _same_line(one: Uplink, other: Uplink, addresses: Sequence[Placed]) -> bool:
    """Whether two interfaces are in one network, with one router."""
    if not set(one.gateways) & set(other.gateways):
        return False
    first, second = (
        {ip_interface((each.ip, each.length)).network for each in addresses if each.interface == uplink.device}
        for uplink in (one, other)
    )
    return bool(first & second)


def _as_it_is(told: Uplink, gateways: Sequence[Address], seen: Seen, defaults: Sequence[KernelRoute]) -> Uplink:
    """The same with what the kernel has of it, where these routers were given."""
    device = told.device
    link = next((each for each in seen.links.values() if each.name == device), None)
    own = _on_line([each for each in seen.addresses if each.interface == device], gateways)
    ways: dict[int, WayOut] = {}
    problems: list[str] = []
    if link is None:
        problems.append(f"there is no interface {device}")
    elif not link.running:
        problems.append(f"{device} {'has no carrier' if link.up else 'is down'}")
    elif not own:
        problems.append(f"{device} has no address")
    else:
        ways = _ways(link, own, gateways, defaults, problems)
        if not ways and not problems:
            problems.append(f"there is no default route by {device}")
    addresses = tuple(dict.fromkeys(each.ip for each in own))[:ADDRESSES_LIMIT]
    index = 0 if link is None else link.index
    return replace(told, index=index, addresses=addresses, ways=ways, problem="; ".join(problems))


def _on_line(own: Sequence[Placed], gateways: Sequence[Address]) -> list[Placed]:
    """The addresses of an interface that are of the line with these routers: those in their networks, if there are."""
    found: list[Placed] = []
    for family in (4, 6):
        there = [each for each in own if each.ip.version == family]
        near = [each for each in there if any(_is_near(gateway, each) for gateway in gateways)]
        found += near or there
    return found


def _ways(
    link: KernelLink,
    own: Sequence[Placed],
    gateways: Sequence[Address],
    defaults: Sequence[KernelRoute],
    problems: list[str],
) -> dict[int, WayOut]:
    """The way out for each family of which there is an address."""
    ways: dict[int, WayOut] = {}
    pointed = bool(link.flags & IFF_POINTOPOINT)
    for family in sorted({each.ip.version for each in own}):
        there = [each for each in own if each.ip.version == family]
        given = next((each for each in gateways if each.version == family), None)
        if given is not None:
            if any(each.ip == given for each in there):
                problems.append(f"its router {given} is this machine itself")
                continue
            alone = pointed or given.is_link_local or any(each.length == each.ip.max_prefixlen for each in there)
            if alone or any(_is_near(given, each) for each in there):
                ways[family] = WayOut(given)
            else:
                problems.append(f"its router {given} is in no network of {link.name}")
            continue
        mine = [r for r in defaults if r.interface == link.index and r.destination.version == family]
        if mine:
            best = min(mine, key=lambda route: route.priority or 0)
            preferred = best.preferred if any(each.ip == best.preferred for each in there) else None
            ways[family] = WayOut(best.gateway, preferred)
        elif pointed:
            ways[family] = WayOut(None)
    lacking = [each for each in gateways if each.version not in {placed.ip.version for placed in own}]
    problems += [f"{link.name} has no address of the family of its router {each}" for each in lacking]
    return ways


# --- what the kernel is given ---


def _routes(slot: int, uplink: Uplink, families: Iterable[int]) -> Iterator[KernelRoute]:
    table = numbers.table(slot)
    for family in families:
        nowhere = KernelRoute(ANYWHERE[family], protocol=RTPROT_RE6ST, priority=LAST, table=table)
        yield replace(nowhere, type=RTN_UNREACHABLE)
        if (way := uplink.ways.get(family)) is not None:
            # The router may have no route of its own, as where the address stands alone: it is on the line.
            onlink = way.gateway is not None
            yield replace(
                nowhere,
                gateway=way.gateway,
                interface=uplink.index,
                priority=1,
                preferred=way.preferred,
                onlink=onlink,
            )


def _by_mark(slots: Iterable[int], families: Sequence[int]) -> Iterator[KernelRule]:
    for slot in slots:
        for family in families:
            rule = KernelRule(
                numbers.MARK_PRIORITY + 2 * slot, ANYWHERE[family], mark=numbers.mark(slot), mask=numbers.MASK
            )
            yield from _main_first(rule, slot)


def _by_source(slot: int, addresses: Iterable[Address]) -> Iterator[KernelRule]:
    for ip in addresses:
        source: Network = IPv4Network(ip) if isinstance(ip, IPv4Address) else IPv6Network(ip)
        yield from _main_first(
            KernelRule(numbers.SOURCE_PRIORITY + 2 * slot, ANYWHERE[ip.version], source=source), slot
        )


def _main_first(rule: KernelRule, slot: int) -> Iterator[KernelRule]:
    """The packets of a rule take what the main table has but its default routes, and then the table of an uplink."""
    yield replace(rule, table=RT_TABLE_MAIN, specific=True)
    yield replace(rule, priority=rule.priority + 1, table=numbers.table(slot))
