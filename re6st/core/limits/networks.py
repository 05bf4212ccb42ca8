"""Limits how often the registry does costly work for strangers: for each network, for larger ones, and in all.

An IPv6 /48 contains 65,536 networks /64, so each limit exists several times: for the network itself, for the larger
networks around it, which may do several times as much, and for all strangers. Networks from which members have called
have a separate limit instead, so that a flood from everywhere does not keep members out. Times are seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, ip_address, ip_network

from re6st.core.limits.rate import RateLimit

WIDER = (8, 32)
"""How many times as much the larger networks may do: a /48 and a /32 of IPv6, a /24 and a /16 of IPv4."""
KNOWN_LIMIT = 50_000
LONG_TOKEN = 16
"""A token of this many letters cannot be guessed, however often somebody tries: 26 to the power of this is 75 bits."""


def levels(source: str) -> tuple[str, ...]:
    """A network, as core/registry/origins.py gives it, and the larger networks around it; for any other text, only that
    text.
    """
    try:
        ip = ip_address(source)
    except ValueError:
        return (source,)
    lengths = (24, 16) if isinstance(ip, IPv4Address) else (48, 32)
    return (source, *(str(ip_network((ip, length), strict=False)) for length in lengths))


def neighbourhood(source: str) -> str:
    """What counts as one stranger: a /48 of IPv6."""
    wider = levels(source)
    return wider[1] if ":" in source and len(wider) > 1 else source


class SourceLimit:
    """Allows `burst` at once for each network, then `rate` a second; `everybody` is the same for all networks."""

    def __init__(
        self, rate: float, burst: int, everybody: tuple[float, int], known: tuple[float, int] = (0, 0)
    ) -> None:
        self._narrow = [RateLimit(rate * factor, burst * factor) for factor in (1, *WIDER)]
        self._everybody = RateLimit(*everybody)
        self._known = RateLimit(*known)

    def allow(self, source: str, now: float, *, known: bool = False) -> bool:
        """Count one more for this network, if the limits allow it. A refused one counts nowhere."""
        buckets = [*zip(self._narrow, levels(source), strict=False), (self._everybody, "")]
        if known:
            buckets[1:] = [(self._known, "")]
        if not all(bucket.has(key, now) for bucket, key in buckets):
            return False
        for bucket, key in buckets:
            bucket.allow(key, now)
        return True

    def give_back(self, source: str) -> None:
        """Undo the count of one that was allowed."""
        for bucket, key in (*zip(self._narrow, levels(source), strict=False), (self._everybody, "")):
            bucket.give_back(key)


class Limits:
    """The limits of a registry. Sources are networks of strangers (core/registry/origins.py)."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self._hello = SourceLimit(5, 100, (500, 5000), (2000, 20_000))
        self._present = SourceLimit(1, 20, (100, 500), (500, 2000))
        self._mail = SourceLimit(1 / 60, 10, (1 / 5, 100))
        self._mail_address = RateLimit(1 / 600, 3)
        self._mail_domain = RateLimit(1 / 10, 50)
        self._token = SourceLimit(1 / 10, 20, (1e9, 1 << 40))
        self._short_token = RateLimit(1, 200)
        self._anonymous = SourceLimit(1 / 30, 20, (1 / 10, 200))

    def note_member(self, source: str) -> None:
        """A member has made an authenticated call from this network."""
        self._known[source] = None
        self._known.move_to_end(source)
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def is_member(self, source: str) -> bool:
        """Whether a member has called from this network."""
        return source in self._known

    def hello(self, source: str, now: float) -> bool:
        """Whether the registry may make an answer with its signature."""
        return self._hello.allow(source, now, known=source in self._known)

    def present(self, source: str, now: float) -> bool:
        """Whether the registry may look at a certificate that somebody shows."""
        return self._present.allow(source, now, known=source in self._known)

    def mail(self, source: str | None, address: str, now: float) -> bool:
        """Whether a mail may be sent to an address on behalf of `source`; None: of an operator, who must not fill a
        mailbox either.
        """
        address = address.lower()
        domain = address.rpartition("@")[2]
        if not (self._mail_address.has(address, now) and self._mail_domain.has(domain, now)):
            return False
        if source is not None and not self._mail.allow(source, now):
            return False
        return self._mail_address.allow(address, now) and self._mail_domain.allow(domain, now)

    def token(self, source: str, token: str, now: float) -> bool:
        """Whether a token may be looked up. All strangers together may try few short tokens, which could be guessed."""
        if not self._token.allow(source, now):
            return False
        return len(token) >= LONG_TOKEN or self._short_token.allow("", now)

    def right_token(self, source: str, token: str) -> None:
        """The token was good, so it does not count as a guess."""
        self._token.give_back(source)
        if len(token) < LONG_TOKEN:
            self._short_token.give_back("")

    def anonymous(self, source: str, now: float) -> bool:
        """Whether the registry may issue a certificate without a token."""
        return self._anonymous.allow(source, now)
