"""Replaces names and addresses in a text, always in the same way, so that strangers can read it (re6st-status bugreport
--anonymise).

It stays visible what a node is: `4/16`, its subnet and its address become `node-1`, `node-1-subnet`, `node-1-address`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

from re6st.core.prefix import Prefix, PrefixError, address, address_bits, prefix_of

_WORDS = r"""
    (?P<email> [\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)* )
  | (?P<mac> (?<![\w:]) (?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2} (?![\w:]) )
  | (?P<ipv6> (?<![\w:.]) (?=[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:) [0-9A-Fa-f:.]*[0-9A-Fa-f:] (?:/\d{1,3})? )
  | (?P<ipv4> (?<![\w.]) \d{1,3}(?:\.\d{1,3}){3} (?:/\d{1,2})? (?!\w|\.\d) )
  | (?P<digest> \b [0-9A-Fa-f]{32,} \b )
  | (?P<cn> (?<![\w/.:+-]) \d{1,20}/\d{1,3} (?![\w/]|\.\d) )
"""


class Pseudonyms:
    """For one or more texts. `network` is that of re6st; `names` are other words, each with its replacement."""

    def __init__(self, network: IPv6Network | None = None, names: Mapping[str, str] | None = None) -> None:
        self._network = network
        self._names = {name.lower(): other for name, other in (names or {}).items() if name}
        self._nodes: dict[Prefix, str] = {}
        self._known: dict[str, dict[object, str]] = {}
        """The replacements of each kind."""
        own = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        pattern = rf"{_WORDS} | (?P<name> (?<![\w.-]) (?i:{own}) (?![\w-]) )" if own else _WORDS
        self._pattern = re.compile(pattern, re.X)
        self._replace: Mapping[str, Callable[[str], str]] = {
            "name": lambda text: self._names[text.lower()],
            "email": lambda text: self._numbered("email", text.lower()),
            "mac": lambda text: self._numbered("mac", text.lower()),
            "digest": lambda text: self._numbered("digest", text.lower()),
            "ipv6": self._ipv6,
            "ipv4": self._ipv4,
            "cn": self._cn,
        }

    def learn(self, cn: str) -> None:
        """Name a node before the text says whose its addresses are."""
        self._cn(cn)

    def apply(self, text: str) -> str:
        """The text with pseudonyms."""
        return self._pattern.sub(lambda match: self._replace[match.lastgroup or ""](match[0]), text)

    def _numbered(self, kind: str, what: object) -> str:
        known = self._known.setdefault(kind, {})
        return known.setdefault(what, f"{kind}-{len(known) + 1}")

    def _cn(self, text: str) -> str:
        try:
            return self._nodes.setdefault(Prefix.from_cn(text), f"node-{len(self._nodes) + 1}")
        except PrefixError:
            return text

    def _ipv4(self, text: str) -> str:
        place, slash, length = text.partition("/")
        try:
            ip = IPv4Address(place)
            if slash:
                IPv4Network(text, strict=False)
        except ValueError:
            return text
        if ip.is_loopback or ip.is_unspecified or int(ip) == 0xFFFFFFFF:
            return text
        return self._numbered("ipv4-private" if ip.is_private else "ipv4", ip) + slash + length

    def _ipv6(self, text: str) -> str:
        place, slash, length = text.partition("/")
        end = ""
        if not slash and place.endswith(":") and not place.endswith("::"):  # of the sentence
            place, end = place[:-1], ":"
        try:
            ip = IPv6Address(place)
            network = IPv6Network(text, strict=False) if slash else None
        except (AddressValueError, ValueError):
            return text
        if ip.is_loopback or ip.is_unspecified:
            return text
        if network is not None and network == self._network:
            return f"network/{length}"
        if self._network is not None and ip in self._network:
            return self._inside(ip, network) + end
        kind = "ipv6-link" if ip.is_link_local else "ipv6-private" if ip.is_private else "ipv6"
        return self._numbered(kind, ip) + slash + length + end

    def _inside(self, ip: IPv6Address, network: IPv6Network | None) -> str:
        """An address or a subnet inside re6st: that of a node, if we know which."""
        assert self._network is not None
        if network is not None:
            prefix = prefix_of(self._network, network)
            node = self._nodes.get(prefix) if prefix else None
            return f"{node}-subnet" if node else self._numbered("inside", network) + f"/{network.prefixlen}"
        bits = address_bits(self._network, ip)
        for cut in range(bits.length if bits else 0):
            assert bits is not None
            prefix = Prefix(bits.value >> cut, bits.length - cut)
            if prefix in self._nodes:
                node = self._nodes[prefix]
                own = address(self._network, prefix) == ip
                return f"{node}-address" if own else self._numbered(f"{node}-other", ip)
        return self._numbered("inside", ip)
