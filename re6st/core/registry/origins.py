"""Finds out where a request comes from, as far as this can be trusted (wire.md 3.2).

A proxy of ours appends the address that it sees to X-Forwarded-For; everything before it is only what the client
claims. A browser on a trusted machine sends requests that pages of strangers make it send, and its headers say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "::1")

ELSEWHERE = "elsewhere"
"""Stands for the network of a client whose address cannot be read."""

_TRACES = ("Via", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server")
"""Headers that proxies set, besides X-Forwarded-For."""
_ONCE = ("Host", "Origin", "Referer", "Sec-Fetch-Site", "User-Agent")
"""Headers on which we decide: if there are two, we and a proxy before us may look at different ones."""
_BROWSER = "Mozilla/"
"""How the User-Agent of every browser begins."""


class Origins:
    """The authorized addresses: they may call restricted methods, and we believe their X-Forwarded-For."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._named = frozenset(addresses)
        self._authorized = self._named.union(LOCAL)

    def authorized(self, peer: str, forwarded: Sequence[str]) -> bool:
        """Whether a restricted method may be called: the TCP peer and all of X-Forwarded-For, if there is any, must be
        authorized.

        `forwarded` are the values of the headers, in order.
        """
        return peer in self._authorized and (not forwarded or ", ".join(forwarded) in self._authorized)

    def authorized_by_proxy(self, forwarded: Sequence[str]) -> bool:
        """Whether X-Forwarded-For, from a proxy that may be careless, contains only addresses that the options name.

        Loopback does not count: nobody there needs a proxy, and a stranger may have written it.
        """
        return ", ".join(forwarded) in self._named

    def client(self, peer: str, forwarded: Sequence[str]) -> str | None:
        """The address of the client: the last one that is not a proxy of ours. None: an authorized origin itself.

        A text that is not an address is returned unchanged.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        for hop in (peer, *reversed(hops)):
            if hop not in self._authorized:
                return hop
        return None


def network_of(address: str) -> str:
    """The network that stands for a client: whoever has one IPv6 address has the whole /64."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return ELSEWHERE
    if ip.version == 6 and ip.ipv4_mapped is None:
        return str(IPv6Address(int(ip) >> 64 << 64))
    return str(ip.ipv4_mapped if ip.version == 6 else ip)


def ambiguous(headers: Iterable[tuple[bytes, bytes]], version: tuple[int, int]) -> str:
    """Why it is unclear for whom, or by whom, a request is (RFC 9112 section 3.2); empty if it is clear.

    `headers` are all that came. Not every version of aiohttp checks this.
    """
    found = Counter(name.decode("latin-1").lower() for name, _ in headers)
    if twice := next((name for name in _ONCE if found[name.lower()] > 1), ""):
        return f"more than one header {twice}"
    return "no header Host" if version >= (1, 1) and not found["host"] else ""


def is_careless_relay(forwarded: Sequence[str], headers: Mapping[str, str], version: tuple[int, int]) -> bool:
    """Whether a proxy seems to pass the request on without saying for whom, so that its origin is unknown.

    By default, nginx uses HTTP/1.0, as no client does today. A proxy that leaves no trace at all is not found.
    """
    return not forwarded and (version < (1, 1) or any(name in headers for name in _TRACES))


def is_relayed(peer: str, forwarded: Sequence[str], host: str) -> bool:
    """Whether the request comes from this machine, but for an address that only others need. A TCP relay passed it on
    then, and leaves no other trace. A forged header Host is not found.
    """
    if forwarded or peer not in LOCAL:
        return False
    try:
        return not ip_address(host_name(host)).is_loopback
    except ValueError:
        return False


def foreign_page(headers: Mapping[str, str]) -> str:
    """Why a browser seems to have sent this request for a page of another site; empty if that does not seem so.

    `headers` are looked up without regard to case. Only browsers send these headers.
    """
    site, host = headers.get("Sec-Fetch-Site"), headers.get("Host", "")
    if site not in (None, "none", "same-origin"):
        return f"Sec-Fetch-Site {site[:40]!r}"
    for name in ("Origin", "Referer"):
        if (value := headers.get(name)) is not None and not _is_at(value, host):
            return f"{name} {value[:80]!r}"
    return ""


def stray_browser(headers: Mapping[str, str], hosts: Collection[str]) -> str:
    """Why a request does not seem to be the operator's: a browser sent it without naming its page, or it is for a name
    that a stranger's DNS may have pointed to us. `hosts` are our names, besides IP addresses.
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
    """Whether the header Host is an IP address or localhost, which a stranger's DNS cannot point to us."""
    name = host_name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def host_name(host: str) -> str:
    """The name in a header Host, in lower case and without its port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_at(url: str, host: str) -> bool:
    try:
        return urlsplit(url).netloc == host
    except ValueError:
        return False
