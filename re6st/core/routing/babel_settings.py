"""The configuration of babeld, and what can change in it while babeld runs (wire.md section 9; babeld(8)).

This is for stock babeld 1.12. The configuration names all tunnel interfaces from the start, even those that do not
exist yet: babeld notices when they appear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from re6st.core.prefix import Prefix, ipv4_address, prefix_of
from re6st.core.routing import regions
from re6st.core.routing.capacity import NEUTRAL

UPDATE_FIRST, UPDATE_LAST = 1.0, 20.0
UPDATE_GROWTH = 0.4
"""Seconds for the square root of the number of routes, each of about 25 bytes: 400 bytes a second with 40 routes, 2 kB
with 1,000.
"""
LINK_HELLO, LINK_UPDATE = 1.0, 2.5
"""Seconds between hellos, and between two times that all routes are told, on a WireGuard link, unless these intervals
are longer on other tunnels. A link takes the place of a tunnel that works, so that babel has time to meet the peer on
it; and that it died is seen by the packets that go over it (docs/decisions.md). babeld keeps a route that is not told
again for 15 s where updates come every 2.5 s, and for a minute where they come every 10 s.
"""
OUTGROWN, OUTGROWN_LAST = 2.0, 1.2
"""An interval is too short when one so many times as long would do; the second is for the longest one, so that each
network gets to it: 5,000 routes every 12.6 s are 20 kB/s in each tunnel, both directions together.
"""
SMOOTHING = 0
"""Half-life in seconds of the metrics by which babel chooses routes: none. With 1 s, babel leaves a dead link a second
later, with babeld's default of 4 s, two seconds later, and uses a new direct tunnel after 10 and 40 s. Round-trip times
are smoothed instead.
"""
RTT_HALF_LIFE = 8.0
"""Half-life in seconds of the average of round-trip times. babeld counts in hellos, and the registry's rtt-decay is
meant for rare ones. With 2, a jitter of 10 ms changes routes six times as often as with 8 (docs/decisions.md).
"""
RTPROT_BOOT = 3
PORT = 6696
"""UDP port of babel (RFC 8966 section 4)."""
GROUP = IPv6Address("ff02::1:6")
"""Its multicast group on each link."""
UNREACHABLE = 65534
"""A filter adds this to a metric to make it infinite; one more would refuse the route."""
PRIORITY = 1024
"""The metric in the kernel of the first babeld's routes. Each babeld that is started after it uses the next larger one.
"""

_DEFAULT_WORDS = frozenset(
    ("max-rtt-penalty", "rtt-min", "rtt-max", "rtt-decay", "rxcost", "faraway", "channel", "enable-timestamps")
)
"""The parts of babel's defaults that the registry may set. We set the others, or they mean nothing on a tunnel."""


@dataclass(frozen=True, slots=True)
class BabelSettings:
    """The settings of a babeld. Intervals are in seconds."""

    network: IPv6Network
    subnet: IPv6Network
    address: IPv6Address
    tunnels: tuple[str, ...]
    """Interfaces of tunnels, existing or not."""
    links: frozenset[str] = frozenset()
    """Those of them that are WireGuard links."""
    lan: tuple[str, ...] = ()
    """Interfaces on which we look for neighbours without a tunnel."""
    babel_default: str = ""
    key_sign: bytes | None = field(default=None, repr=False)
    accept_unsigned: bool = False
    """Accept packets with a wrong signature, or none, while keys change (wire.md 9.4)."""
    ipv4: IPv4Network | None = None
    ipv4_network: IPv4Network | None = None
    ipv4_length: int = 32
    """The network's own IPv4 addresses, and the length of each node's subnet of them."""
    longest: int = 128
    """The length of the longest subnet in the network: no node has a longer prefix."""
    regions: int = 0
    """How many bits of a prefix tell the region of a node; 0: the network is flat."""
    accepted: tuple[IPv4Network | IPv6Network, ...] = ()
    """Other prefixes that may be announced to us, with all subnets of them (--accept-route)."""
    refused: tuple[IPv4Network, ...] = ()
    """IPv4 networks that are no longer used. Others may announce them for a while, and babeld does not always remove
    such a route from the kernel again: the kind of its next hop changes when the peer loses its address.
    """
    gateway: bool = False
    source_routes: bool = True
    """Whether the kernel has routes by source, such as the default route of a gateway."""
    hello: float = 15
    update: float = UPDATE_FIRST
    forwards: bool = True
    """Whether this machine forwards packets; otherwise we announce no routes through it."""
    port: int = PORT
    """The UDP port on which neighbours talk."""
    table: int | None = None
    """The kernel's table for its routes, beside a babeld that has the main table; None: the main table."""
    by_capacity: bool = False
    """Links cost what is said of them, whatever the round-trip time (core/routing/capacity.py)."""
    costs: tuple[tuple[str, int], ...] = ()
    """Where they do: what the interfaces of some tunnels cost; others are neutral."""

    @property
    def longest_update(self) -> float:
        """Seconds until each neighbour has told all its routes."""
        return max(self.update, LINK_UPDATE) if self.links else self.update


def update_interval(routes: int) -> float:
    """How often to repeat all routes: often while there are few, since a new neighbour waits for it (design.md 3)."""
    return max(UPDATE_FIRST, min(UPDATE_GROWTH * math.sqrt(routes), UPDATE_LAST))


def link_hello(hello: float) -> float:
    """Seconds between two hellos on a WireGuard link, where it is `hello` on other tunnels."""
    return max(hello, LINK_HELLO)


def outgrown(update: float, routes: int) -> bool:
    """Whether routes are repeated much too often for their number: this is worth a restart of babeld."""
    wanted = update_interval(routes)
    return wanted >= (OUTGROWN if wanted < UPDATE_LAST else OUTGROWN_LAST) * update


def configuration(settings: BabelSettings, priority: int = PRIORITY) -> str:
    """The configuration file. wire.md 9.1 has its statements; those that only a patched babeld knows are left out (9.2,
    9.3).
    """
    lines = [
        f"kernel-priority {priority}",
        f"smoothing-half-life {SMOOTHING}",
        # Each start counts as another router. A known router has to go on with its last sequence number, which is lost
        # when babeld is killed: for 200 s, nobody would use a route to it.
        "random-id true",
        "redistribute local deny",
        f"redistribute ip {settings.subnet} eq {settings.subnet.prefixlen}",
        regions.announced(settings.network),
    ]
    if settings.port != PORT:
        lines.append(f"protocol-port {settings.port}")
    if settings.table is not None:
        # The babeld of the main plane has the kernel forward packets, and puts that back as it was when it ends. If two
        # did so, one that ends would stop forwarding for the other, or the last one would leave it on.
        lines += [f"export-table {settings.table}", "skip-kernel-setup true"]
    if settings.key_sign is not None:
        lines.append(_key_statement(settings.key_sign))
    lines.append(" ".join(["default", *_words(settings, settings.hello, settings.update)]))
    if settings.ipv4 is not None:
        lines.append(f"redistribute ip {settings.ipv4} eq {settings.ipv4.prefixlen}")
    if settings.gateway:
        # ip(8) and ifupdown mark their routes with "boot"; babeld ignores these unless they are named.
        for protocol in ("", f"proto {RTPROT_BOOT} "):
            lines.append(f"redistribute ip ::/0 eq 0 {protocol}src-prefix {settings.network}")
    lines += _filters(settings)
    lines += ["redistribute deny", f"install pref-src {settings.address}"]
    if settings.ipv4 is not None:
        lines.append(f"install pref-src {ipv4_address(settings.ipv4)}")
    lines += [_interface(settings, name) for name in settings.tunnels]
    lines += [" ".join(["interface", name, *_key_words(settings)]) for name in settings.lan]
    return "\n".join(lines) + "\n"


def _filters(settings: BabelSettings) -> list[str]:
    """What others may announce to us. The first rule that matches decides, and anything else is refused.

    Babel believes every member, and the kernel does what babel believes: a single 0.0.0.0/1 from a member would take
    all traffic of this machine. The socket does not even show a refused route. So our own subnet and its parts are
    accepted as unreachable and kept out of the kernel: we want to know who announces them (core/routing/claims.py).
    """
    network = settings.network
    own: list[IPv4Network | IPv6Network] = [settings.subnet]
    if settings.ipv4 is not None:
        own.append(settings.ipv4)
    # An old gateway's plain default route would take over the whole host; others need routes by source (wire.md 9.3).
    lines = [f"in ip ::/0 eq 0 {'src-ip ::/0 src-eq 0 ' if settings.source_routes else ''}deny"]
    lines += [f"in ip {each} metric {UNREACHABLE}" for each in own]
    lines += [f"in ip {each} deny" for each in settings.refused]
    prefix = prefix_of(network, settings.subnet) or Prefix(0, 0)
    lines += regions.filters(network, prefix, settings.regions, settings.longest)
    if settings.source_routes:
        lines.append(f"in ip ::/0 eq 0 src-ip {network} src-eq {network.prefixlen} allow")
    if settings.ipv4_network is not None:
        lines.append(f"in ip {settings.ipv4_network} eq {settings.ipv4_length} allow")
    lines += [f"in ip {each} allow" for each in settings.accepted]
    lines.append("in deny")
    if not settings.forwards:
        lines += [*(f"out ip {each} eq {each.prefixlen} allow" for each in own), "out deny"]
    lines += [f"install ip {each} deny" for each in own]
    return lines + regions.not_installed(network, prefix, settings.regions)


def live_commands(old: BabelSettings, new: BabelSettings) -> list[str]:
    """The commands that give a running babeld new settings; none if that is impossible (wire.md 9.4, 9.5).

    One that has an interface ignores another cost of it. It can let one go (`flush interface`), but then goes on with
    a neighbour on what it has freed.
    """
    if replace(new, tunnels=old.tunnels, links=old.links, key_sign=old.key_sign, costs=old.costs) != old:
        return []
    costs = dict(new.costs)
    if any(costs.get(name) != cost for name, cost in old.costs):
        return []
    if (old.key_sign is None) != (new.key_sign is None) or not set(old.tunnels) <= set(new.tunnels):
        return []
    commands = []
    if new.key_sign is not None and new.key_sign != old.key_sign:
        commands.append(_key_statement(new.key_sign))
    return commands + [_interface(new, name, live=True) for name in new.tunnels if name not in old.tunnels]


def left_out(babel_default: str) -> list[str]:
    """The parts of the registry's `babel_default` that we do not use."""
    return [name for name in babel_default.split()[::2] if name not in _DEFAULT_WORDS]


def _interface(settings: BabelSettings, name: str, *, live: bool = False) -> str:
    """The statement for a tunnel's interface; `live`: to a running babeld, whose defaults do not count any more.

    A WireGuard link has no key: only the peer has the keys of the link, so nobody else can send anything on it. With
    babel's own challenges, a link with rare hellos never came up beside tunnels with frequent ones (decisions.md).
    """
    words = ["interface", name, "type tunnel"]
    if settings.by_capacity:
        # babel takes the round-trip time of a tunnel into account.
        words = ["interface", name, f"type wired rxcost {dict(settings.costs).get(name, NEUTRAL)}"]
    if name in settings.links:
        return " ".join(words + _words(settings, link_hello(settings.hello), settings.longest_update))
    if live:
        words += _words(settings, settings.hello, settings.update)
    return " ".join(words + _key_words(settings))


def _words(settings: BabelSettings, hello: float, update: float) -> list[str]:
    """The statements for interfaces with these intervals."""
    return [
        *([] if settings.by_capacity else _default_words(settings.babel_default, hello)),
        f"hello-interval {hello:g}",
        f"update-interval {update:g}",
        # Missed hellos raise the cost at once, on both sides: this is how a tunnel is drained.
        "link-quality true",
        "split-horizon false",
    ]


def _key_words(settings: BabelSettings) -> list[str]:
    if settings.key_sign is None:
        return []
    return ["key sign", *(["accept-bad-signatures true"] if settings.accept_unsigned else [])]


def _key_statement(key: bytes) -> str:
    return f"key id sign type blake2s128 value {key.hex()}"


def _default_words(text: str, hello: float) -> list[str]:
    """The pairs of the registry's `babel_default` that we use."""
    words = text.split()
    pairs = []
    for name, value in zip(words[::2], words[1::2], strict=False):
        if name not in _DEFAULT_WORDS:
            continue
        if name == "rtt-decay" and value.isdecimal():
            pairs.append(f"{name} {min(int(value), _rtt_decay(hello))}")
        else:
            pairs.append(f"{name} {value}")
    return pairs


def _rtt_decay(hello: float) -> int:
    """In 256th parts, how much the last round-trip time counts in the average, if one comes with each hello."""
    return max(1, round(256 * (1 - 2 ** (-hello / RTT_HALF_LIFE))))
