"""Where a request comes from, as far as it can be trusted (wire.md 3.2).

A proxy of ours adds the address it sees at the end of X-Forwarded-For; everything before it is what the client claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address

LOCAL = ("127.0.0.1", "::1")

ELSEWHERE = "elsewhere"
"""The network of a client whose address cannot be read."""


class Origins:
    """The authorized addresses: who may call restricted methods, and whose X-Forwarded-For is believed."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._authorized = frozenset((*LOCAL, *addresses))

    def authorized(self, peer: str, forwarded: Sequence[str]) -> bool:
        """Whether a restricted method may be called: by the TCP peer, and by the whole of X-Forwarded-For, if any.

        `forwarded` are the values of the headers, in order.
        """
        return peer in self._authorized and (not forwarded or ", ".join(forwarded) in self._authorized)

    def client(self, peer: str, forwarded: Sequence[str]) -> str | None:
        """The address of the client: the last one that is not a proxy of ours. None: an authorized origin itself.

        A text that is no address is returned as it is.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        for hop in (peer, *reversed(hops)):
            if hop not in self._authorized:
                return hop
        return None


def network_of(address: str) -> str:
    """What all addresses of one client have in common: whoever has one IPv6 address has its /64."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return ELSEWHERE
    if ip.version == 6 and ip.ipv4_mapped is None:
        return str(IPv6Address(int(ip) >> 64 << 64))
    return str(ip.ipv4_mapped if ip.version == 6 else ip)
