"""Our own advertised addresses: given by the user, or learned from the servers we connect to (wire.md 10.5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network, ip_address

from re6st.core.machine.hosts import Ip, is_usable
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

LEARNED_LIMIT = 4
"""Addresses of one family that we tell because peers see us there."""
VOTERS_LIMIT = 64
"""Peers whose view we remember."""
AGREED = 2
"""Peers that must agree until what they see comes before what this machine has itself."""
PRIVATE_LIMIT = 4
INNER_LIMIT = 2
"""Addresses behind the router that are told to who is there too: they must not crowd out the public ones."""


@dataclass(slots=True)
class OwnAddresses:
    """Which endpoints to tell to peers: `ports` are those of --pp, in order; `given` the addresses of --ip.

    A family without a given address takes what this machine itself has that is public (`local`), and what peers see us
    as. Each peer has one voice, its last word; where two agree on another public address it comes first, else last:
    one peer alone can take nothing away. A private address that peers see counts only where there is no public one that
    this machine has, or two see. One inside re6st's own `network` is none: it would be a tunnel in a tunnel. What peers
    see holds as long as the machine has the address that it was seen through. Who has none of these over IPv4, and was
    never seen by a peer there, tells its private addresses (`uplinks`): they serve where all are in one private
    network; those of IPv6 only where nothing is public.
    """

    ports: Sequence[tuple[int, TunnelProtocol]]
    given: Sequence[Ip] = ()
    local: Sequence[Ip] = ()
    country: str = ""
    network: IPv6Network | None = None
    votes: dict[tuple[Hashable, int], tuple[Ip, Ip | None]] = field(default_factory=dict)
    """By peer and family what it sees us as, the latest last, and the address of this machine that it saw us through.
    """
    uplinks: Sequence[Ip] = ()
    """The addresses of this machine that lead outside, whatever they are."""
    seen: set[int] = field(default_factory=set)
    """Families in which a peer has told us its view: there is more to know of them than what this machine has."""
    mapped: tuple[Endpoint, ...] = ()
    """Ports that the router sends on to us (upnp.py), in place of our IPv4 ones; a host may be missing in them."""

    def learn(
        self, external_ip: str, through: Ip | None = None, peer: Hashable = None, theirs: Iterable[Endpoint] = ()
    ) -> bool:
        """A peer, which has the endpoints `theirs`, sees us at this address, behind our own one `through`. Whether we
        tell other addresses now.
        """
        ip = ip_address(external_ip)
        if any(given.version == ip.version for given in self.given):
            return False
        if not is_usable(ip):
            return False
        if self.network is not None and ip in self.network:
            return False
        if not ip.is_global and self.share_router(theirs):
            return False  # it sees us from behind the same router, where nobody else is
        before = self._addresses(ip.version)
        self.seen.add(ip.version)
        self.votes.pop((peer, ip.version), None)
        self.votes[peer, ip.version] = ip, through
        if len(self.votes) > VOTERS_LIMIT:
            del self.votes[next(iter(self.votes))]
        return self._addresses(ip.version) != before

    def moved(self, local: Sequence[Ip], uplinks: Sequence[Ip] = ()) -> None:
        """The machine has these addresses now, and those lead outside: what was seen through others holds no more."""
        self.local, self.uplinks = local, uplinks
        self.votes = {voter: vote for voter, vote in self.votes.items() if vote[1] is None or vote[1] in local}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Ours, best first: for each family each address with each port and protocol of that family."""
        found: list[Endpoint] = []
        if self.mapped and not any(ip.version == 4 for ip in self.given):
            for endpoint in self.mapped:
                hosts = map(str, self._before_router(endpoint))
                found += [replace(endpoint, host=host, country=self.country) for host in hosts]
        four = found or self._with_ports(self._addresses(4))
        six = self._with_ports(self._addresses(6))
        last = [] if four else self._with_ports(self._private(4))
        return (*four, *six, *last, *([] if four or six or self.seen else self._with_ports(self._private(6))))

    def share_router(self, theirs: Iterable[Endpoint]) -> bool:
        """Whether whoever has these endpoints is behind the same router as we: an outer address of ours, a public one
        if we have any, is among them, and not this machine's own.
        """
        outer = [ip for ip in (ip_address(endpoint.host) for endpoint in self.endpoints()) if ip not in self.local]
        hosts = {str(ip) for ip in [ip for ip in outer if ip.is_global] or outer}
        return any(endpoint.host in hosts for endpoint in theirs)

    def inner(self) -> tuple[Endpoint, ...]:
        """Our endpoints behind the router: for those who are there too, as many routers send nothing back inside."""
        private = [ip for ip in self.uplinks if ip.version == 4 and not ip.is_global and is_usable(ip)]
        return tuple(self._with_ports(private[:INNER_LIMIT]))

    def origin(self, endpoint: Endpoint) -> str:
        """How we know one of our endpoints: `given` (--ip), `upnp`, `seen` by peers, `local` or `private`."""
        ip = ip_address(endpoint.host)
        if any(ip == given for given in self.given):
            return "given"
        if ip.version == 4 and self.mapped:
            return "upnp"
        if ip not in self.local and any(ip == seen for seen, _ in self.votes.values()):
            return "seen"
        return "local" if ip.is_global else "private"

    def addresses(self) -> list[Ip]:
        """Ours, whether there is a server on them or not; best first."""
        mapped = [ip for endpoint in self.mapped for ip in self._before_router(endpoint)]
        return list(dict.fromkeys((*mapped, *self._addresses(4), *self._addresses(6))))

    def _before_router(self, endpoint: Endpoint) -> list[Ip]:
        """Where the router is, whose port that is. One behind another router tells an address that is good only there:
        what peers see counts before it.
        """
        told = [ip_address(endpoint.host)] if endpoint.host else []
        return told if told and told[0].is_global else self._addresses(4) or told

    def _addresses(self, version: int) -> list[Ip]:
        given = [ip for ip in self.given if ip.version == version]
        return given or self._found(version)

    def _found(self, version: int) -> list[Ip]:
        """What nobody has given: of this machine, and as peers see it; best first."""
        own = [ip for ip in self.local if ip.version == version and ip.is_global]
        # The latest comes first: the machine may have moved.
        seen = [ip for ip, _ in reversed(self.votes.values()) if ip.version == version]
        agreed = [ip for ip, count in Counter(seen).items() if count >= AGREED]
        ordered = list(dict.fromkeys((*agreed, *seen)))
        sure = [ip for ip in agreed if ip.is_global and ip not in own]
        if not (sure or own):
            return ordered[:LEARNED_LIMIT]
        foreign = [ip for ip in ordered if ip.is_global and ip not in own]
        return [*sure, *own, *(ip for ip in foreign if ip not in sure)][: LEARNED_LIMIT + len(own)]

    def _private(self, version: int) -> list[Ip]:
        """The last resort of a family."""
        if version in self.seen:
            return []
        return [
            ip
            for ip in self.uplinks
            if ip.version == version
            and not (ip.is_global or ip.is_loopback or ip.is_link_local)
            and (self.network is None or ip not in self.network)
        ][:PRIVATE_LIMIT]

    def _with_ports(self, addresses: Sequence[Ip]) -> list[Endpoint]:
        """Each with each port and protocol of its family."""
        return [
            Endpoint(str(ip), port, protocol, self.country)
            for ip in addresses
            for port, protocol in self.ports
            if protocol.family == ip.version
        ]
