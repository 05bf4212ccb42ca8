"""Where a request comes from, as far as it can be trusted (wire.md 3.2).

A proxy of ours adds the address it sees at the end of X-Forwarded-For; everything before it is what the client claims.
A browser on a trusted machine sends what pages of strangers tell it to, and says so, if one looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "::1")

ELSEWHERE = "elsewhere"
"""The network of a client whose address cannot be read."""

_TRACES = ("Via", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server")
"""Headers of proxies, beside X-Forwarded-For."""
_ONCE = ("Host", "Origin", "Referer", "Sec-Fetch-Site", "User-Agent")
"""Headers that we judge by: of two, we and a proxy before us may look at different ones."""
_BROWSER = "Mozilla/"
"""How the User-Agent of every browser begins."""


class Origins:
    """The authorized addresses: who may call restricted methods, and whose X-Forwarded-For is believed."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._named = frozenset(addresses)
        self._authorized = self._named.union(LOCAL)

    def authorized(self, peer: str, forwarded: Sequence[str]) -> bool:
        """Whether a restricted method may be called: by the TCP peer, and by the whole of X-Forwarded-For, if any.

        `forwarded` are the values of the headers, in order.
        """
        return peer in self._authorized and (not forwarded or ", ".join(forwarded) in self._authorized)

    def authorized_by_proxy(self, forwarded: Sequence[str]) -> bool:
        """Whether all of X-Forwarded-For, from a proxy that may be a careless one, is an address that was named.

        Not loopback: nobody there needs a proxy, and a stranger may have written that itself.
        """
        return ", ".join(forwarded) in self._named

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


def ambiguous(headers: Iterable[tuple[bytes, bytes]], version: tuple[int, int]) -> str:
    """Why nobody can say for whom or by whom a request is (RFC 9112 section 3.2); empty for a plain one.

    `headers` are all that came. Not every version of aiohttp looks at that.
    """
    found = Counter(name.decode("latin-1").lower() for name, _ in headers)
    if twice := next((name for name in _ONCE if found[name.lower()] > 1), ""):
        return f"more than one header {twice}"
    return "no header Host" if version >= (1, 1) and not found["host"] else ""


def is_careless_relay(forwarded: Sequence[str], headers: Mapping[str, str], version: tuple[int, int]) -> bool:
    """Whether a proxy passes a request on without saying for whom: so whose it is cannot be known.

    nginx, if it is not told otherwise, asks by HTTP/1.0, as no client of today does. A proxy that leaves no trace at
    all is not seen.
    """
    return not forwarded and (version < (1, 1) or any(name in headers for name in _TRACES))


def is_relayed(peer: str, forwarded: Sequence[str], host: str) -> bool:
    """Whether what comes from this machine was asked for by an address that only others need: a relay of TCP passes it
    on, which leaves no other trace. Who forges the header Host is not seen.
    """
    if forwarded or peer not in LOCAL:
        return False
    try:
        return not ip_address(host_name(host)).is_loopback
    except ValueError:
        return False


def foreign_page(headers: Mapping[str, str]) -> str:
    """Why a page of another site is taken to have made a browser send this request; empty where none seems to have.

    `headers` are found by any spelling. No program but a browser sends these.
    """
    site, host = headers.get("Sec-Fetch-Site"), headers.get("Host", "")
    if site not in (None, "none", "same-origin"):
        return f"Sec-Fetch-Site {site[:40]!r}"
    for name in ("Origin", "Referer"):
        if (value := headers.get(name)) is not None and not _is_at(value, host):
            return f"{name} {value[:80]!r}"
    return ""


def stray_browser(headers: Mapping[str, str], hosts: Collection[str]) -> str:
    """Why a request is not taken for the operator's own: a browser's that does not say from which page it comes, or
    one for a name that a stranger's DNS may have pointed here. `hosts` are names of ours, beside IP addresses.
    """
    if reason := foreign_page(headers):
        return reason
    host = headers.get("Host")
    if host is not None and not is_plain_host(host) and host_name(host) not in hosts:
        return f"the name {host[:80]!r} is neither an IP address nor the one of --url"
    if headers.get("User-Agent", "").startswith(_BROWSER) and "Sec-Fetch-Site" not in headers:
        return "a browser that does not say which page made it call"
    return ""


def is_plain_host(host: str) -> bool:
    """Whether the header Host names an IP address or localhost, which no DNS of a stranger can point to us."""
    name = host_name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """The name in a header Host, in small letters, without its port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_at(url: str, host: str) -> bool:
    try:
        return urlsplit(url).netloc == host
    except ValueError:
        return False
