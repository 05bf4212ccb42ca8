"""Which addresses of others we may dial, and tell: never those that mean this machine, a link, or many.

Whoever tells us where it is chooses where our packets go. So what it says is taken only where a server of re6st can be,
in whatever form it is written.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Ip = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_THIS_MACHINE = frozenset({"localhost", "localdomain", "ip6-localhost", "ip6-loopback"})
"""Names of it, or the last parts of them (RFC 6761)."""


def is_usable(ip: Ip) -> bool:
    """Whether a server of somebody else can be at this address."""
    if ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return not ip.is_reserved and ip not in _THIS_NETWORK
    if ip in _NAT64:
        return is_usable(IPv4Address(int(ip) & 0xFFFFFFFF))
    if int(ip) >> 120 == 0 or ip.is_site_local:  # IPv4 addresses in disguise are there too
        return False
    embedded = [*([ip.sixtofour] if ip.sixtofour else ()), *(ip.teredo or ())]
    return all(map(is_usable, embedded))


def is_usable_host(host: str) -> bool:
    """The same for an address or a name. What a name means is only known once it was looked up."""
    try:
        return is_usable(ip_address(host))
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2].lower()
        # The C library takes 127.1, 2130706433 and 0x7f000001 for addresses.
        return ":" not in host and last not in _THIS_MACHINE and bool(last) and not _NUMBER.fullmatch(last)


def is_behind_another(router: str) -> bool:
    """Whether a router with this outer address is itself behind one that translates addresses."""
    try:
        return not ip_address(router).is_global
    except ValueError:  # it tells none
        return False
