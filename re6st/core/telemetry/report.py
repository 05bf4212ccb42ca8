"""What a node tells its operator, as JSON, about the mesh, babel's table and the tunnels (docs/control.md).

This does no IO: the caller passes what it has read, and the time. Durations are in seconds, moments in Unix time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import AddressValueError, IPv6Address, IPv6Network, NetmaskValueError

from re6st.core.mesh.policy import Mesh, Phase
from re6st.core.prefix import Prefix, PrefixError, address, address_bits, prefix_of, subnet
from re6st.core.routing.babel_lines import INFINITY, Neighbour, NextHop, Route, Table
from re6st.core.routing.regions import region_of
from re6st.core.routing.route_history import RouteState
from re6st.core.routing.survey import LinkUse, SurveyLike
from re6st.core.telemetry.event_log import Happening
from re6st.core.telemetry.expiry import AUTHORITY, DAY, OURS, expires
from re6st.core.tunnel_protocols import TunnelCarrier, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

Record = dict[str, object]

CERTIFICATE_WARNING = 14 * DAY
"""So long before a certificate's end its renewal, due 30 days before the end, has obviously failed."""
CA_WARNING = 90 * DAY
BABEL_WARNING = 2
"""If babeld ends so often in an hour, the verdict mentions it."""
LATE = (
    "babeld runs, but this node reads it too slowly, so what it says of routes is old:"
    " find with top what uses the processor, and stop it"
)
REVOKED = (
    "the registry does not know our certificate: this node was revoked. Ask the operator of the network; with another"
    " invitation, re6st-conf join makes it a member again, with another subnet"
)
LIKELY_REVOKED = (
    "likely this node was revoked: the registry knows others, and not this one. It is of an older software, which"
    " cannot prove that: ask the operator of the network, and keep certificate and key until then"
)
SILENT_AFTER = 60.0
"""Seconds in which babel has found the peer at the other end of a tunnel, even by the rare hellos of older nodes."""
TRIED = frozenset(("tunnel-up", "tunnel-failed", "tunnel-lost", "tunnel-closed", "client-up", "client-down"))
"""The events that say how a tunnel with a peer went (event_log.py)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A tunnel as what carries it knows it. `since` is when it came up, by the clock that is passed to `tunnels`."""

    peer: Prefix
    outgoing: bool
    protocol: TunnelProtocol | None = None
    remote: str = ""
    """The address of the other end."""
    port: int | None = None
    interface: str = ""
    since: float | None = None
    received: int | None = None
    sent: int | None = None
    carrier: TunnelCarrier = TunnelCarrier.OPENVPN
    no_link: str = ""
    """Why WireGuard does not carry it, and is not tried for a while."""
    uplink: str = ""
    """The uplink that it is bound to; empty for none."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of this node."""

    protocol: TunnelProtocol
    port: int
    interface: str
    listening: bool
    clients: int
    restarts: int = 0
    """How often it ended and was started again."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """The facts on which the verdict about a node's health depends. Moments are Unix times."""

    now: float
    connected: bool
    babel_running: bool
    babel_late: bool
    """babeld runs, but this node reads it too slowly."""
    babel_ended: int
    """Times that babeld ended in the last hour."""
    tunnels: int
    """Client tunnels that are up."""
    clients: int
    reachable: int
    """Other nodes."""
    alone: bool
    """This is the registry's own node, and the first node."""
    servers: Sequence[Server]
    certificate_until: float
    ca_until: float
    refused: bool = False
    """The registry has proven that it has no certificate of ours any more."""
    likely_refused: bool = False
    """This seems so, from what an older registry can say."""
    others: Sequence[str] = ()
    """Other problems that are worth a warning."""
    broken: Sequence[str] = ()
    """Problems that keep traffic from passing."""


def health(vitals: Vitals) -> Record:
    """The verdict (`ok`, `warning` or `failed`) and why."""
    failed: list[str] = []
    warnings: list[str] = []
    if vitals.refused and vitals.certificate_until > vitals.now:
        failed.append(REVOKED)
    elif vitals.likely_refused and vitals.certificate_until > vitals.now:
        (warnings if vitals.connected else failed).append(LIKELY_REVOKED)
    if not vitals.babel_running:
        failed.append("babeld is not running: no routes")
    elif failed:  # the reason why there is nobody else is reported already
        pass
    elif vitals.alone:
        warnings.append("no other node can be reached: none is there yet, or we are cut off")
    elif not vitals.reachable and not vitals.connected:
        failed.append("no other node can be reached")
    elif not vitals.connected:
        failed.append("the registry's node cannot be reached: we are cut off, or it is down")
    elif not vitals.tunnels and not vitals.clients and vitals.reachable:
        warnings.append("no tunnels: only what is on the LAN is reached directly")
    failed += vitals.broken
    if vitals.babel_late:
        warnings.append(LATE)
    if vitals.babel_ended >= BABEL_WARNING:
        warnings.append(f"babeld ended {vitals.babel_ended} times in the last hour: see its log")
    warnings += [
        f"the server on {server.protocol}/{server.port} is not listening: see the log"
        for server in vitals.servers
        if not server.listening
    ]
    for what, until, warning in (
        (OURS, vitals.certificate_until, CERTIFICATE_WARNING),
        (AUTHORITY, vitals.ca_until, CA_WARNING),
    ):
        left = until - vitals.now
        if left < 0:
            failed.append(expires(what, left))
        elif left < warning:
            warnings.append(expires(what, left))
    warnings += vitals.others
    problems = [{"severity": "failed", "text": text} for text in failed]
    problems += [{"severity": "warning", "text": text} for text in warnings]
    return {"verdict": "failed" if failed else "warning" if warnings else "ok", "problems": problems}


def counts(mesh: Mesh) -> Record:
    """How large the mesh is."""
    phases = Counter(tunnel.phase for tunnel in mesh.tunnels.values())
    return {
        "tunnels": sum(count for phase, count in phases.items() if phase is not Phase.OPENING),
        "tunnels_opening": phases[Phase.OPENING],
        "tunnels_wanted": mesh.limit,
        "clients": sum(mesh.clients.values()),
        "neighbours": len(mesh.survey.neighbours),
        "peers": len(mesh.survey.peers),
    }


def regions(mesh: Mesh) -> Record | None:
    """What is known of regions; None where the network is flat."""
    settings, peers = mesh.settings, mesh.survey.peers
    if not settings.region_length:
        return None
    others = sum(mesh.region_of(peer) is not None for peer in peers)
    return {
        "bits": settings.region_length,
        "own": region_of(settings.own, settings.region_length).cn,
        "nodes": len(peers) - others,
        "others": others,
        "whole": not mesh.survey.split,
    }


def tunnels(
    mesh: Mesh,
    table: Table,
    links: Iterable[Link],
    now: float,
    lost: Callable[[NextHop], float | None] = lambda _: None,
) -> list[Record]:
    """Every tunnel: ours, those of the clients of our servers, and those that are being opened. `lost`: which part of
    the echo requests on a link with losses is not answered, where that is measured.
    """
    found: list[Record] = []
    avoided = {hop.interface: hop for hop in mesh.avoided_links}
    for link in links:
        policy = mesh.tunnels.get(link.peer) if link.outgoing else None
        # One of another region is known to babel by that.
        links_there = mesh.survey.neighbours.get(mesh.region_of(link.peer) or link.peer, ())
        neighbour = _neighbour(links_there, table, link)
        hop = neighbour.key if neighbour else None
        state = policy.phase.value if policy else "up" if link.since is not None else "opening"
        why_avoided = mesh.why_avoided(link.peer, link.interface)
        if state == "up" and why_avoided is not None:
            state = "lossy"
        at = hop or avoided.get(link.interface)
        part = lost(at) if at else None
        if state == "up" and table.interfaces and _is_silent(neighbour, link, now):
            state = "silent"
        found.append(
            {
                "peer": link.peer.cn,
                "direction": "out" if link.outgoing else "in",
                "state": state,
                "avoided": why_avoided,
                "lost_percent": None if part is None else round(100 * part),
                "carrier": link.carrier,
                "no_wireguard": link.no_link or None,
                "protocol": link.protocol or "",
                "remote": link.remote,
                "port": link.port,
                "interface": link.interface,
                "uplink": link.uplink or None,
                "up_seconds": None if link.since is None else round(now - link.since, 1),
                "cost": neighbour.cost if neighbour else None,
                "rtt_ms": neighbour.rtt if neighbour else None,
                "reach": f"{neighbour.reach:04x}" if neighbour else None,
                "routes": next((len(each.carried) for each in links_there if each.hop == hop), 0),
                "received_bytes": link.received,
                "sent_bytes": link.sent,
            }
        )
    return found


def _is_silent(neighbour: Neighbour | None, link: Link, now: float) -> bool:
    """Whether babel hears nobody at the other end, after it has had enough time."""
    heard = neighbour is not None and neighbour.cost < INFINITY
    return not heard and link.since is not None and now - link.since > SILENT_AFTER


def _neighbour(links_there: Iterable[LinkUse], table: Table, link: Link) -> Neighbour | None:
    """Who babel sees at the other end, of those that it has links with."""
    for each in links_there:
        if each.hop.interface == link.interface:
            return table.neighbour_at(each.hop)
    # Nobody else can be on the interface of a client tunnel.
    behind = [n for n in table.neighbours.values() if link.outgoing and n.interface == link.interface]
    return min(behind, key=lambda n: n.cost, default=None)


def neighbours(survey: SurveyLike, table: Table) -> list[Record]:
    """Everybody that babel exchanges routes with."""
    owners = _owners(survey)
    carried = {link.hop: len(link.carried) for links in survey.neighbours.values() for link in links}
    return [
        {
            "peer": _cn(owners.get(n.key)),
            "address": str(n.address),
            "interface": n.interface,
            "cost": n.cost,
            "rxcost": n.rxcost,
            "txcost": n.txcost,
            "reach": f"{n.reach:04x}",
            "rtt_ms": n.rtt,
            "routes": carried.get(n.key, 0),
        }
        for n in table.neighbours.values()
    ]


def routes(survey: SurveyLike, table: Table, network: IPv6Network, offset: int, limit: int) -> Record:
    """The routes in use: how many, by next hop, and `limit` of them from the `offset`th on, in order of address."""
    owners = _owners(survey)
    used = sorted((r for r in table.routes.values() if r.usable), key=lambda r: (r.destination, r.source))
    by_hop = Counter(route.via for route in used)
    return {
        "count": len(used),
        "known": len(table.routes),
        "by_next_hop": [
            {"peer": _cn(owners.get(hop)), "interface": hop.interface, "address": str(hop.address), "routes": count}
            for hop, count in by_hop.most_common()
        ],
        "routes": [_route(route, network, owners) for route in used[offset : offset + limit]],
    }


def why(survey: SurveyLike, table: Table, network: IPv6Network, peer: Prefix) -> list[Record]:
    """Every way to a peer that babel knows, the one in use first, then by metric."""
    destination = subnet(network, peer)
    ways = [r for r in table.routes.values() if r.destination == destination and not r.source.prefixlen]
    owners = _owners(survey)
    return [_route(r, network, owners) for r in sorted(ways, key=lambda r: (not r.installed, r.metric))]


def peers(mesh: Mesh, addresses: Mapping[Prefix, Sequence[Endpoint]], happenings: Iterable[Happening]) -> list[Record]:
    """Every node whose addresses we remember, or which is next to us: where it is, and how the last tunnels went."""
    last = {peer: each for each in happenings if each.kind in TRIED for peer in each.peers}
    survey = mesh.survey
    near = (peer for peer in survey.neighbours if mesh.region_of(peer) is None)
    found = {*addresses, *mesh.tunnels, *mesh.clients, *near}
    return [
        {
            "peer": peer.cn,
            "addresses": [asdict(endpoint) for endpoint in addresses.get(peer, ())],
            "reached": mesh.reaches(peer),
            "metric": survey.metrics.get(peer),
            "tunnel": "out" if peer in mesh.tunnels else "in" if peer in mesh.clients else None,
            "last": event(last[peer]) if peer in last else None,
        }
        for peer in sorted(found, key=lambda peer: (len(peer.bits), peer.bits))
    ]


def since(survey: SurveyLike, way: RouteState | None) -> Record | None:
    """How long a peer has been reached like this, and by whom before."""
    if way is None:
        return None
    owners = _owners(survey)

    def hop(via: NextHop | None) -> Record | None:
        if via is None:
            return None
        return {"peer": _cn(owners.get(via)), "interface": via.interface, "address": str(via.address)}

    return {"time": way.since, "via": hop(way.via), "before": hop(way.before)}


def find(known: Callable[[Prefix], bool], network: IPv6Network, text: str) -> Prefix | None:
    """The node that a text names: by its CN, its subnet, or an address in the subnet; None: an address of no node.

    `known` says whether some prefix is a node: one to which there is a route, or was lately.

    Raises PrefixError if the text is none of these, or outside the network.
    """
    if ":" not in text:
        prefix = Prefix.from_cn(text)
        subnet(network, prefix)
        return prefix
    try:
        if "/" in text:
            prefix_or_none = prefix_of(network, IPv6Network(text))
            if prefix_or_none is None:
                raise PrefixError(f"{text} is not a subnet inside {network}")
            return prefix_or_none
        bits = address_bits(network, IPv6Address(text))
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise PrefixError(str(error)) from None
    if bits is None:
        raise PrefixError(f"{text} is not inside {network}")
    candidates = (Prefix(bits.value >> cut, bits.length - cut) for cut in range(bits.length))
    return next((prefix for prefix in candidates if known(prefix)), None)


def name(network: IPv6Network, prefix: Prefix) -> Record:
    """A node and its addresses."""
    return {"peer": prefix.cn, "address": str(address(network, prefix)), "subnet": str(subnet(network, prefix))}


def _route(route: Route, network: IPv6Network, owners: Mapping[NextHop, Prefix]) -> Record:
    destination = prefix_of(network, route.destination)
    return {
        "destination": str(route.destination),
        "source": str(route.source) if route.source.prefixlen else None,
        "peer": _cn(destination),
        "via": _cn(owners.get(route.via)),
        "interface": route.via.interface,
        "address": str(route.via.address),
        "metric": route.metric if route.metric < INFINITY else None,
        "behind": route.refmetric if route.refmetric < INFINITY else None,
        "in_use": route.usable,
    }


def event(happening: Happening) -> Record:
    """One event as a record."""
    return {**asdict(happening), "peers": [peer.cn for peer in happening.peers]}


def _owners(survey: SurveyLike) -> dict[NextHop, Prefix]:
    return {link.hop: peer for peer, links in survey.neighbours.items() for link in links}


def _cn(prefix: Prefix | None) -> str | None:
    return None if prefix is None else prefix.cn
