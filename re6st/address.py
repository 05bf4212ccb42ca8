"""Our own advertised addresses: given by the user, or learned from the servers we connect to (wire.md 10.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from re6st.core.wire import Endpoint

Ip = IPv4Address | IPv6Address
LEARNED_LIMIT = 4
PRIVATE_LIMIT = 4


@dataclass(slots=True)
class OwnAddresses:
    """Which endpoints to tell to peers: `ports` are those of --pp, in order; `given` the addresses of --ip.

    A family without a given address takes what peers see us as (`learned`), and before that what this machine itself
    has that is public (`local`). An address inside re6st's own `network` is none: it would be a tunnel in a tunnel.
    What peers see holds as long as the machine has the address that it was seen through. Who has none of these, and was
    never seen by a peer, tells its private addresses (`uplinks`): they serve where all are in one private network.
    """

    ports: Sequence[tuple[int, str]]
    given: Sequence[Ip] = ()
    local: Sequence[Ip] = ()
    country: str = ""
    network: IPv6Network | None = None
    learned: dict[Ip, Ip | None] = field(default_factory=dict)
    """What peers see us as, the latest first, and the address of this machine that it was seen through."""
    uplinks: Sequence[Ip] = ()
    """The addresses of this machine that lead outside, whatever they are."""
    seen: bool = False
    """A peer has told us its view, so there is more to know than what this machine has."""
    mapped: tuple[Endpoint, ...] = ()
    """Ports that the router sends on to us (portmap.py), in place of our IPv4 ones; a host may be missing in them."""

    def learn(self, external_ip: str, through: Ip | None = None) -> bool:
        """A peer sees us at this address, behind our own one `through`. Whether that is new."""
        ip = ip_address(external_ip)
        if any(given.version == ip.version for given in self.given):
            return False
        if ip.is_link_local or ip.is_loopback or ip.is_unspecified or ip.is_multicast:
            return False
        if self.network is not None and ip in self.network:
            return False
        # The latest comes first: the machine may have moved.
        self.seen = True
        new = next((known for known in self.learned if known.version == ip.version), None) != ip
        self.learned = {ip: through} | {known: own for known, own in self.learned.items() if known != ip}
        while len(self.learned) > LEARNED_LIMIT:
            self.learned.popitem()
        return new

    def moved(self, local: Sequence[Ip], uplinks: Sequence[Ip] = ()) -> None:
        """The machine has these addresses now, and those lead outside: what was seen through others holds no more."""
        self.local, self.uplinks = local, uplinks
        self.learned = {ip: own for ip, own in self.learned.items() if own is None or own in local}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Ours, best first: for each family each address with each port and protocol of that family."""
        found: list[Endpoint] = []
        if self.mapped and not any(ip.version == 4 for ip in self.given):
            for endpoint in self.mapped:
                hosts = [endpoint.host] if endpoint.host else map(str, self._addresses(4))
                found += [replace(endpoint, host=host, country=self.country) for host in hosts]
        for version in (6,) if found else (4, 6):
            found += self._with_ports(self._addresses(version))
        return tuple(found or self._with_ports(self._private()))

    def origin(self, endpoint: Endpoint) -> str:
        """How we know one of our endpoints: `given` (--ip), `upnp`, `seen` by peers, `local` or `private`."""
        ip = ip_address(endpoint.host)
        if any(ip == given for given in self.given):
            return "given"
        if ip.version == 4 and self.mapped:
            return "upnp"
        if ip in self.learned:
            return "seen"
        return "local" if ip.is_global else "private"

    def addresses(self) -> list[Ip]:
        """Ours, whether there is a server on them or not; best first."""
        mapped = [ip_address(endpoint.host) for endpoint in self.mapped if endpoint.host]
        return [*mapped, *self._addresses(4), *self._addresses(6)]

    def _addresses(self, version: int) -> list[Ip]:
        given = [ip for ip in self.given if ip.version == version]
        learned = [ip for ip in self.learned if ip.version == version]
        return given or learned or [ip for ip in self.local if ip.version == version and ip.is_global]

    def _private(self) -> list[Ip]:
        """The last resort; IPv4 first, as everywhere."""
        if self.seen:
            return []
        found = [
            ip
            for ip in self.uplinks
            if not (ip.is_global or ip.is_loopback or ip.is_link_local)
            and (self.network is None or ip not in self.network)
        ]
        return sorted(found, key=lambda ip: ip.version)[:PRIVATE_LIMIT]

    def _with_ports(self, addresses: Sequence[Ip]) -> list[Endpoint]:
        """Each with each port and protocol of its family."""
        return [
            Endpoint(str(ip), port, protocol, self.country)
            for ip in addresses
            for port, protocol in self.ports
            if family(protocol) == ip.version
        ]


def family(protocol: str) -> int:
    """The version of IP that a protocol of --pp uses."""
    return 6 if protocol.endswith("6") else 4
