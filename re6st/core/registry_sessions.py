"""The registry's side of sessions, and how often a stranger may ask (wire.md 3.3).

Per client there are two sessions at most: the confirmed one, last used by a right call, and the one of the last hello,
pending until a call uses it. Strangers can only make pending ones, which are few, short-lived and apart.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.rpc import Ratchet

PENDING_LIFE = 10.0
"""Seconds for which a hello gets the same answer, until a call uses it: repeated hellos cost no RSA, and a stranger's
hello just before a client's first call does no harm. Only the client can read the secret in it."""
PENDING_LIMIT = 4096
CONFIRMED_LIMIT = 200_000
"""Above the number of nodes of any network we know."""
RATE_KEYS = 4096


@dataclass(slots=True)
class Session:
    ratchet: Ratchet
    protocol: int
    """The client's."""


@dataclass(frozen=True, slots=True)
class _Pending:
    session: Session
    answer: bytes
    since: float


class Sessions:
    def __init__(self) -> None:
        self._confirmed: OrderedDict[Prefix, Session] = OrderedDict()
        self._pending: OrderedDict[Prefix, _Pending] = OrderedDict()

    def pending_answer(self, prefix: Prefix, protocol: int, now: float) -> bytes | None:
        """The answer of a hello a moment ago that no call used yet, to be given again."""
        pending = self._pending.get(prefix)
        if pending is None or not 0 <= now - pending.since < PENDING_LIFE:
            return None
        pending.session.protocol = protocol
        return pending.answer

    def start(self, prefix: Prefix, protocol: int, secret: bytes, answer: bytes, now: float) -> None:
        """A hello was answered with a new secret."""
        self._pending[prefix] = _Pending(Session(Ratchet(secret), protocol), answer, now)
        self._pending.move_to_end(prefix)
        if len(self._pending) > PENDING_LIMIT:
            self._pending.popitem(last=False)

    def known(self, prefix: Prefix) -> bool:
        """Whether there is any session for this client."""
        return prefix in self._confirmed or prefix in self._pending

    def check(self, prefix: Prefix, message: bytes, header: str) -> Session | None:
        """The session whose key fits; it alone stays (3.3 point 4). None if none fits, and nothing changes."""
        pending = self._pending.get(prefix)
        for session in (self._confirmed.get(prefix), pending.session if pending else None):
            if session is not None and session.ratchet.check(message, header):
                self._pending.pop(prefix, None)
                self._confirmed[prefix] = session
                self._confirmed.move_to_end(prefix)
                if len(self._confirmed) > CONFIRMED_LIMIT:
                    self._confirmed.popitem(last=False)
                return session
        return None

    def drop(self, prefix: Prefix) -> None:
        """The client's certificate is no more."""
        self._confirmed.pop(prefix, None)
        self._pending.pop(prefix, None)


class RateLimit:
    """A bucket of tokens for each key: `burst` at once, then `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str, now: float) -> bool:
        """Whether one more is within the rate."""
        tokens, since = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + max(0.0, now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[key] = tokens - allowed, now
        if len(self._buckets) > RATE_KEYS:
            self._buckets.popitem(last=False)
        return allowed

    def give_back(self, key: str) -> None:
        """One that was allowed does not count after all."""
        if key in self._buckets:
            tokens, since = self._buckets[key]
            self._buckets[key] = min(self._burst, tokens + 1), since
