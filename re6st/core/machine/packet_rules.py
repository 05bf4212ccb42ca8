"""The text of our nftables table: which packets are dropped, and why (nft(8); docs/security.md).

The table drops packets: others' rules may still refuse what it lets pass. It has three parts. Babel is muted on an
interface, which drains a tunnel. Packets from tunnels are dropped if they cannot be legitimate. Connections to our
servers are limited for each source. Those over TCP also learn to keep their packets small. And where the node has the
throughput plane, the table changes the class of packets (bulk_rules.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from re6st.core import interfaces
from re6st.core.machine import bulk_rules
from re6st.core.machine.bulk_rules import Bulk, BulkKind
from re6st.core.machine.nftables_text import removal
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.babel_settings import PORT
from re6st.core.routing.planes import THROUGHPUT

TABLE = "re6stnet"
SENDERS, LINK_SENDERS = "senders", "link_senders"
"""The sets that say on which interface, and from which hardware address, dropped packets came; those of WireGuard have
no hardware addresses, and one peer each."""

TCP_RATE, TCP_BURST = "60/minute", 150
"""New connections of one source to our TCP servers. Fifty nodes behind one address may all come back three times at
once. OpenVPN ends connections that stay silent, so one source holds at most TCP_BURST of them and those that come until
then.
"""
UDP_RATE, UDP_BURST = "5/second", 250
"""First packets of one source to our UDP servers; a client repeats an unanswered one after 2 s, 4 s and so on."""
SITE = 4
"""An IPv6 site (/48) may do so many times as much as one of its networks (/64)."""
SOURCES_LIMIT, FORGET = 65535, "5m"
"""Sources that are counted at the same time, and how long a silent source is remembered."""
SENDERS_LIMIT = 256

LOCAL_SENT, HEARD, SENT, SENT4 = "local_sent", "heard", "sent", "sent4"
"""Sets whose elements are counted packets on the links of tunnels, so that a dead one is noticed
(core/routing/liveness.py). By interface: what this machine sends to neighbours and no farther. On interfaces that many
share: what came, by hardware address, and what went, by next hop."""
COUNTED_LIMIT, COUNTED_FOR = 4096, "10m"

SEGMENT = 1220
"""Bytes that a packet of a tunnel over TCP carries at most: with its headers, every IPv6 path lets it pass.

If a path swallows larger packets without telling, the first one would stop the tunnel.
"""

COUNTERS = {
    "own_source": "out of a tunnel and to this machine, with an address of it or of its subnet as source",
    "came_back": "out of a tunnel, with such a source, and to somewhere else: a routing loop has brought it back",
    "foreign_source": "out of a tunnel, with a source that is not of the network",
    "foreign_destination": "out of a tunnel, to an address of this machine that is not of the network",
    "not_forwarded": "out of a tunnel, to a place behind this machine that is no member's business",
    "outside_tunnels": "from elsewhere, with the address of another node as source",
    "tcp_connections": "new TCP connections to our servers, too many of one source",
    "udp_handshakes": "new UDP handshakes with our servers, too many of one source",
}
"""What is dropped and counted, by the name of the counter."""

Network = IPv4Network | IPv6Network
_MULTICAST = IPv6Network("ff00::/8")
"""Forwarded only while a program for it runs."""
_LOCAL = "ip6 daddr { fe80::/10, ff00::/8 }"
_BOTH = f"{PORT}-{THROUGHPUT.port}"
"""The ports of the babelds of both planes."""


class Part(StrEnum):
    """Features that a kernel may lack: the rest of the table is loaded without them."""

    SOURCES = "packets of tunnels are not filtered"
    OWN_ADDRESSES = "addresses of this machine outside its subnet are not kept from being a source in tunnels"
    CONNECTIONS = "replies to what this machine translates addresses for do not pass"
    NEXT_HOPS = "a way out by a gateway behind a LAN is not told from other ways on that LAN"
    LIMITS = "connections to our servers are not limited"
    SEGMENTS = "tunnels over TCP stop on paths that swallow large packets without a word"
    PLANES = "bulk traffic goes by latency, as all else"
    BULK = "what --bulk names keeps its class"
    CGROUPS = "what --bulk names by control group keeps its class, as long as one of these groups is not there"
    TRAFFIC = "a link that died is noticed by babel alone, not by the packets that go over it"


ALL: frozenset[Part] = frozenset(Part)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the table is made from."""

    tunnels: tuple[str, ...]
    """Names of tunnel interfaces, existing or not."""
    network: IPv6Network
    subnet: IPv6Network
    """The node's own subnet."""
    filtered: bool = True
    """False: the table only drains tunnels."""
    ipv4: IPv4Network | None = None
    """The prefixes of the network."""
    ipv4_subnet: IPv4Network | None = None
    accepted: tuple[Network, ...] = ()
    """Prefixes outside the network that are exchanged on purpose: as source and as destination."""
    lan: tuple[str, ...] = ()
    """Interfaces with neighbours that are reached without a tunnel."""
    main_interface: str = "lo"
    gateway: bool = False
    multicast: bool = False
    outside: bool = False
    """The network has a gateway: packets from outside come through tunnels."""
    exits: frozenset[NextHop] = frozenset()
    """Neighbours on a LAN through which the route to a gateway leads."""
    shared: tuple[str, ...] = ()
    """Interfaces of our servers, behind each of which are many neighbours."""
    counted: bool = False
    """Packets are counted for noded/dead_links.py: not where it does not run, since each packet pays for it."""
    planes: bool = False
    """This node has the throughput plane."""
    bulk: tuple[Bulk, ...] = ()
    """What goes by that, although it sets no class itself."""
    tcp_ports: tuple[int, ...] = ()
    udp_ports: tuple[int, ...] = ()
    tracked: bool = False
    """Other programs' rules use connection tracking on this machine. If nobody uses it, we do not start it: it costs
    time for each packet, and a full connection table drops packets.
    """
    links: tuple[str, ...] = ()
    """Those of the tunnels that are WireGuard links. Babel has no key there: no other user of this machine may speak
    it."""
    user: int = 0
    """The number of the user that babeld runs as."""


def muted(interface: str, neighbour: IPv6Address | None = None) -> str:
    """The element, with the name of its set, that mutes babel: on an interface, or from one neighbour."""
    return f'muted {{ "{interface}" }}' if neighbour is None else f'unheard {{ "{interface}" . {neighbour} }}'


def add_and_delete(added: Iterable[str], deleted: Iterable[str]) -> str:
    """The commands that update the elements of a table."""
    lines = [f"add element inet {TABLE} {element}" for element in added]
    lines += [f"delete element inet {TABLE} {element}" for element in deleted]
    return "\n".join(lines) + "\n"


def way_out(table: Table, network: IPv6Network) -> frozenset[NextHop]:
    """The neighbours through which the routes to the network's gateways lead; empty if there are none."""
    found = (route for route in table.routes.values() if not route.destination.prefixlen and route.usable)
    return frozenset(route.via for route in found if route.source == network)


def ruleset(rules: Rules, elements: Collection[str] = (), parts: Collection[Part] = ALL) -> str:
    """The commands that replace any existing table by this one, at once. `elements` are those that mute babel."""
    chains = [*_input(rules, parts), "}", "chain output {", "type filter hook output priority 0; policy accept;"]
    chains += [f"oifname @muted udp dport {_babel_ports(rules)} drop"]
    if rules.links:
        # Of both planes: the peer may have the second one before we do, or without us.
        chains.append(f"oifname {{ {_quoted(rules.links)} }} udp dport {_BOTH} meta skuid != {rules.user} drop")
    counted = rules.counted and Part.TRAFFIC in parts and bool(rules.tunnels)
    if counted:
        chains.append(f"oifname {{ {_quoted(rules.tunnels)} }} {_LOCAL} update @{LOCAL_SENT} {{ oifname counter }}")
    chains += [*_segments(rules, parts, "sport"), "}"]
    if counted and rules.shared:
        chains += _traffic(rules)
    if rules.planes and Part.PLANES in parts:
        chains += bulk_rules.leaving(rules.network, rules.subnet)
    if rules.planes and (bulk := _bulk(rules, parts)):
        chains += bulk_rules.marking(rules.network, rules.subnet, bulk)
    filtered = rules.filtered and Part.SOURCES in parts
    if filtered:
        chains += [*_prerouting(rules), "}", *_from_tunnel(rules, parts), "}", *_forward(rules, parts), "}"]
        chains += [*_to_us(rules, parts), "}"]
    if _limited(rules, parts):
        chains += _limits()
    sets = ["set muted { type ifname; }", "set unheard { type ifname . ipv6_addr; }"]
    if filtered:
        sets += _sets(rules)
    if counted:
        sets += _counting_sets()
    counters = [f"counter {name} {{}}" for name in COUNTERS] if filtered or _limited(rules, parts) else []
    lines = [*removal(TABLE).splitlines(), f"table inet {TABLE} {{", *counters, *sets, *chains, "}"]
    lines += [f"add element inet {TABLE} {element}" for element in sorted(elements)]
    return "\n".join(lines) + "\n"


def _bulk(rules: Rules, parts: Collection[Part]) -> tuple[Bulk, ...]:
    """What of --bulk can be told. nft(8) refuses a control group that does not exist, and with it the whole table."""
    needed = {kind: Part.CGROUPS if kind is BulkKind.CGROUP else Part.BULK for kind in BulkKind}
    return tuple(each for each in rules.bulk if needed[each.kind] in parts)


def _counting_sets() -> Iterator[str]:
    for name, kind in (
        (LOCAL_SENT, "ifname"),
        (HEARD, "ifname . ether_addr"),
        (SENT, "ifname . ipv6_addr"),
        (SENT4, "ifname . ipv4_addr"),
    ):
        yield f"set {name} {{ type {kind}; flags dynamic,timeout; size {COUNTED_LIMIT}; timeout {COUNTED_FOR}; }}"


def _traffic(rules: Rules) -> Iterator[str]:
    """Count who sent what on the interfaces of our servers, before anything is dropped, and what goes to whom."""
    shared = f"{{ {_quoted(rules.shared)} }}"
    yield "chain traffic_in {"
    yield "type filter hook prerouting priority -310; policy accept;"
    yield f"iifname {shared} update @{HEARD} {{ iifname . ether saddr counter }}"
    yield "}"
    yield "chain traffic_out {"
    yield "type filter hook postrouting priority 300; policy accept;"
    yield f"oifname != {shared} accept"
    yield f"{_LOCAL} accept"
    yield f"meta nfproto ipv6 update @{SENT} {{ oifname . rt ip6 nexthop counter }}"
    yield f"meta nfproto ipv4 update @{SENT4} {{ oifname . rt ip nexthop counter }}"
    yield "}"


def _sets(rules: Rules) -> Iterator[str]:
    yield _set("tunnels", "ifname", (f'"{name}"' for name in rules.tunnels))
    exits = sorted(f'"{hop.interface}" . {hop.address}' for hop in rules.exits)
    yield _set("exits", "ifname . ipv6_addr", exits)
    for name, kind in ((SENDERS, "ifname . ether_addr"), (LINK_SENDERS, "ifname")):
        yield f"set {name} {{ type {kind}; flags dynamic,timeout; size {SENDERS_LIMIT}; timeout 1h; }}"


def _note_sender() -> Iterator[str]:
    yield f"update @{SENDERS} {{ iifname . ether saddr counter }}"  # nft does so on Ethernet only
    yield f"meta iiftype != ether update @{LINK_SENDERS} {{ iifname counter }}"


def _prerouting(rules: Rules) -> Iterator[str]:
    """This chain comes before everything else, so that it costs little, and no connection is tracked for a dropped
    packet.
    """
    yield "chain prerouting {"
    yield "type filter hook prerouting priority -300; policy accept;"
    yield "iifname @tunnels goto from_tunnel"
    # Others would take it for a packet of a member, and our node would forward it to them.
    near = " ".join(f'iifname != "{name}"' for name in dict.fromkeys(("lo", rules.main_interface, *rules.lan)))
    for protocol, network, own in (("ip6", rules.network, rules.subnet), ("ip", rules.ipv4, rules.ipv4_subnet)):
        if network is not None:
            ours = "" if own is None else f"{protocol} saddr != {own} "
            yield (
                f"{near} {protocol} saddr {network} {ours}{protocol} daddr {network} counter name outside_tunnels drop"
            )


def _from_tunnel(rules: Rules, parts: Collection[Part]) -> Iterator[str]:
    own4 = "" if rules.ipv4_subnet is None else f", {rules.ipv4_subnet}"
    yield "chain forged {"
    yield from _note_sender()
    yield "counter name own_source drop"
    yield "}"
    yield "chain own {"
    yield f"ip6 daddr {{ ::1, {rules.subnet} }} goto forged"
    yield f"ip daddr {{ 127.0.0.0/8{own4} }} goto forged"
    if Part.OWN_ADDRESSES in parts:
        yield "fib daddr type local goto forged"
    # What this machine sends to others comes back by honest ones too, as long as routes lead in a circle.
    yield "counter name came_back drop"
    yield "}"
    yield "chain from_tunnel {"
    # Babel and neighbour discovery; the kernel never forwards these.
    yield "ip6 saddr fe80::/10 accept"
    if rules.multicast:
        # The first router of a stream has to see packets that come back, and tells those neighbours to stop.
        yield f"ip6 daddr ff00::/8 ip6 saddr {rules.network} accept"
    yield f"ip6 saddr {{ ::1, {rules.subnet} }} goto own"
    yield f"ip saddr {{ 127.0.0.0/8{own4} }} goto own"
    if Part.OWN_ADDRESSES in parts:
        yield "fib saddr type local goto own"
    yield from _accept_inside(rules, "saddr")
    yield "ip6 saddr :: ip6 daddr ff00::/8 accept"  # a machine without an address (RFC 4862 5.4.2, RFC 3810 5.2.13)
    if rules.outside or rules.gateway:
        yield f"ip6 saddr != {{ ::, ff00::/8 }} ip6 daddr {rules.network} accept"
    # Any program may send this on all interfaces of its machine: it is not worth counting.
    yield "ip daddr { 224.0.0.0/4, 255.255.255.255 } drop"
    yield from _note_sender()
    yield "counter name foreign_source drop"


def _to_us(rules: Rules, parts: Collection[Part]) -> Iterator[str]:
    yield "chain to_us {"
    yield "ip6 daddr { fe80::/10, ff00::/8 } accept"
    yield from _accept_inside(rules, "daddr")
    yield "ip daddr 224.0.0.0/4 accept"
    if rules.outside or rules.gateway:
        # Machines that reach the Internet through a gateway see a public address of this machine as part of the
        # Internet.
        yield "ip6 daddr 2000::/3 accept"
    yield from _tracked(rules, parts)
    yield "counter name foreign_destination drop"


def _forward(rules: Rules, parts: Collection[Part]) -> Iterator[str]:
    yield "chain forward {"
    yield "type filter hook forward priority 0; policy accept;"
    yield "iifname != @tunnels accept"
    yield "oifname @tunnels accept"
    yield from _accept("ip6 daddr", _networks(6, rules.subnet, *rules.accepted, _MULTICAST))
    yield from _accept("ip daddr", _networks(4, rules.ipv4_subnet, *rules.accepted))
    if rules.lan:
        names = ", ".join(f'"{name}"' for name in rules.lan)
        yield f"oifname {{ {names} }} ip6 daddr {rules.network} accept"
        if rules.ipv4 is not None:
            yield f"oifname {{ {names} }} ip daddr {rules.ipv4} accept"
    if rules.exits and Part.NEXT_HOPS in parts:
        yield "oifname . rt ip6 nexthop @exits accept"
    if rules.gateway:
        yield from _accept("ip6 saddr", _networks(6, rules.network, *rules.accepted))
    yield from _tracked(rules, parts)
    yield f'oifname != "{interfaces.PREFIX}*" counter name not_forwarded drop'


def _tracked(rules: Rules, parts: Collection[Part]) -> Iterator[str]:
    """Packets that others' rules send here: answers to machines whose addresses are translated, and forwarded ports."""
    if rules.tracked and Part.CONNECTIONS in parts:
        yield "ct state established,related accept"
        yield "ct status dnat accept"


def _input(rules: Rules, parts: Collection[Part]) -> Iterator[str]:
    yield "chain input {"
    yield "type filter hook input priority 0; policy accept;"
    yield f"iifname @muted udp dport {_babel_ports(rules)} drop"
    yield f"iifname . ip6 saddr @unheard udp dport {_babel_ports(rules)} drop"
    if _limited(rules, parts):
        if rules.tcp_ports:
            yield f"tcp dport {{ {_ports(rules.tcp_ports)} }} tcp flags & (fin|syn|rst|ack) == syn jump new_tcp"
        if rules.udp_ports:
            # P_CONTROL_HARD_RESET_CLIENT_V1, V2 and V3 of OpenVPN, in the upper five bits of the first byte.
            yield f"udp dport {{ {_ports(rules.udp_ports)} }} @th,64,8 & 0xf8 == {{ 0x08, 0x38, 0x50 }} jump new_udp"
    yield from _segments(rules, parts, "dport")
    if rules.filtered and Part.SOURCES in parts:
        yield "iifname @tunnels goto to_us"


def _babel_ports(rules: Rules) -> str:
    return _BOTH if rules.planes else f"{PORT}"


def _segments(rules: Rules, parts: Collection[Part], port: str) -> Iterator[str]:
    """Tells both ends of a connection to our servers a small segment size, whichever software the peer has (RFC 9293
    3.7.1).

    Each end tells the other one in its first packet how long a segment may be; only a larger size is changed.
    """
    if rules.tcp_ports and Part.SEGMENTS in parts:
        ports = _ports(rules.tcp_ports)
        yield f"tcp {port} {{ {ports} }} tcp flags & (syn|rst) == syn tcp option maxseg size set {SEGMENT}"


def _limited(rules: Rules, parts: Collection[Part]) -> bool:
    return rules.filtered and Part.LIMITS in parts and bool(rules.tcp_ports or rules.udp_ports)


def _limits() -> Iterator[str]:
    for protocol, rate, burst, counter in (
        ("tcp", TCP_RATE, TCP_BURST, "tcp_connections"),
        ("udp", UDP_RATE, UDP_BURST, "udp_handshakes"),
    ):
        number, unit = rate.split("/")
        sources = (
            ("hosts", "ipv4_addr", "ip saddr", 1),
            ("networks", "ipv6_addr", "ip6 saddr & ffff:ffff:ffff:ffff::", 1),
            ("sites", "ipv6_addr", "ip6 saddr & ffff:ffff:ffff::", SITE),
        )
        for name, kind, _, _ in sources:
            yield (
                f"set {protocol}_{name} {{ type {kind}; flags dynamic,timeout; size {SOURCES_LIMIT};"
                f" timeout {FORGET}; }}"
            )
        yield f"chain new_{protocol} {{"
        for name, _, source, times in sources:
            limit = f"limit rate over {int(number) * times}/{unit} burst {burst * times} packets"
            yield f"update @{protocol}_{name} {{ {source} {limit} }} counter name {counter} drop"
        yield "}"


def _set(name: str, kind: str, elements: Iterable[str], flags: str = "") -> str:
    listed = ", ".join(elements)
    return f"set {name} {{ type {kind}; {flags} {f'elements = {{ {listed} }}' if listed else ''} }}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _accept_inside(rules: Rules, end: str) -> Iterator[str]:
    yield from _accept(f"ip6 {end}", _networks(6, rules.network, *rules.accepted))
    yield from _accept(f"ip {end}", _networks(4, rules.ipv4, *rules.accepted))


def _accept(field: str, networks: Iterable[str]) -> Iterator[str]:
    """A rule for each, rather than a set: a packet that is on its way through the old table while a new one takes its
    place finds its sets empty (Linux 6.18), and would be dropped for that.
    """
    for network in networks:
        yield f"{field} {network} accept"


def _networks(version: int, *networks: Network | None) -> list[str]:
    """The networks of one family, without those that lie inside another one."""
    if version == 6:
        return [str(each) for each in collapse_addresses(n for n in networks if isinstance(n, IPv6Network))]
    return [str(each) for each in collapse_addresses(n for n in networks if isinstance(n, IPv4Network))]


def _ports(ports: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(ports))))
