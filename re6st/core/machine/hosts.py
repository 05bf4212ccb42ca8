"""Which addresses we may dial and pass on when others tell them: never those of this machine, of a link, or of many
machines.

A peer that tells us its address chooses where our packets go. So we accept an address only if a server of re6st can
have it, in whatever form it is written.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Ip = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_THIS_MACHINE = frozenset({"localhost", "localdomain", "ip6-localhost", "ip6-loopback"})
"""Names of this machine, or their last parts (RFC 6761)."""


def is_usable(ip: Ip) -> bool:
    """Whether somebody else's server can have this address."""
    if ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return not ip.is_reserved and ip not in _THIS_NETWORK
    if ip in _NAT64:
        return is_usable(IPv4Address(int(ip) & 0xFFFFFFFF))
    if int(ip) >> 120 == 0 or ip.is_site_local:  # disguised IPv4 addresses are among them
        return False
    embedded = [*([ip.sixtofour] if ip.sixtofour else ()), *(ip.teredo or ())]
    return all(map(is_usable, embedded))


def is_usable_host(host: str) -> bool:
    """The same for an address or a name. Where a name leads is known only after it was looked up."""
    try:
        return is_usable(ip_address(host))
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2].lower()
        # The C library accepts 127.1, 2130706433 and 0x7f000001 as addresses.
        return ":" not in host and last not in _THIS_MACHINE and bool(last) and not _NUMBER.fullmatch(last)


def is_behind_another(router: str) -> bool:
    """Whether a router that has this outer address is itself behind a router that translates addresses."""
    try:
        return not ip_address(router).is_global
    except ValueError:  # it does not tell its address
        return False
