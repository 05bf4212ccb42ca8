"""The registry's side of sessions (wire.md 3.3).

Each client has one confirmed session, which its last valid call used, and a few pending sessions: one for each kind of
hello that came for it and was not used by a call yet. Anybody can send a hello for a client, so what a hello claims
counts only for the session with that hello's secret: whoever uses this session has read the secret, and so is the
client.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.wire.rpc import CallKeys

PENDING_LIFE = 10.0
"""For so many seconds, and until a call uses it, a hello gets the same answer. So repeated hellos cost no RSA
operation, and a stranger's hello just before a client's first call does no harm: only the client can read the secret in
the answer.
"""
PENDING_LIMIT = 4096
PENDING_PER_CLIENT = 8
PENDING_PER_SOURCE = 2
"""Pending sessions of one client. Hellos from one network replace only each other, so a stranger elsewhere harms
nobody.
"""
CONFIRMED_LIMIT = 200_000
"""More than the number of nodes of any network that we know."""


@dataclass(frozen=True, slots=True)
class HelloClaims:
    """What a hello says about its sender."""

    protocol: int
    extensions: frozenset[str] = frozenset()
    offer: bytes = b""
    """The whole offer as it was sent; empty if there was none."""


@dataclass(frozen=True, slots=True)
class Session:
    keys: CallKeys
    claims: HelloClaims
    """What the client claims; proven once it has used the key."""


@dataclass(frozen=True, slots=True)
class PendingSession:
    """A session that no call has used; `since` is the Unix time of its hello."""

    session: Session
    source: str
    answer: bytes
    since: float


@dataclass(frozen=True, slots=True)
class ClientSessions:
    """All sessions of one client, the pending ones with the oldest first."""

    confirmed: Session | None = None
    pending: tuple[PendingSession, ...] = ()


class CallSessions:
    def __init__(self, confirmed_limit: int = CONFIRMED_LIMIT) -> None:
        self._confirmed_limit = confirmed_limit
        self._confirmed: OrderedDict[Prefix, Session] = OrderedDict()
        self._pending: OrderedDict[Prefix, list[PendingSession]] = (
            OrderedDict()
        )  # the oldest hello of each client first
        self._pending_count = 0

    def pending_answer(self, prefix: Prefix, claims: HelloClaims, source: str, now: float) -> bytes | None:
        """The answer to the same hello from the same network a moment ago; it is given again if no call has used it."""
        for each in self._pending.get(prefix, ()):
            if each.source == source and each.session.claims == claims and 0 <= now - each.since < PENDING_LIFE:
                return each.answer
        return None

    def start(
        self, prefix: Prefix, claims: HelloClaims, source: str, keys: CallKeys, answer: bytes, now: float
    ) -> None:
        """A hello was answered with new keys."""
        others = self._pending.pop(prefix, [])
        self._pending_count -= len(others)
        others = [each for each in others if (each.source, each.session.claims) != (source, claims)]
        neighbours = [each for each in others if each.source == source]
        if len(neighbours) >= PENDING_PER_SOURCE:
            others.remove(neighbours[0])
        others = [*others[1 - PENDING_PER_CLIENT :], PendingSession(Session(keys, claims), source, answer, now)]
        self._pending[prefix] = others
        self._pending_count += len(others)
        while self._pending_count > PENDING_LIMIT:
            _, oldest = self._pending.popitem(last=False)
            self._pending_count -= len(oldest)

    def known(self, prefix: Prefix) -> bool:
        """Whether this client has a session."""
        return prefix in self._confirmed or prefix in self._pending

    def check(self, prefix: Prefix, message: bytes, header: str) -> Session | None:
        """Find the session whose key fits, and keep only this one (3.3 point 4). None if no key fits, and nothing
        changes then.
        """
        candidates = [each.session for each in reversed(self._pending.get(prefix, ()))]
        if (confirmed := self._confirmed.get(prefix)) is not None:
            candidates.insert(0, confirmed)
        for session in candidates:
            if session.keys.check(message, header):
                self._forget_pending(prefix)
                self._confirmed[prefix] = session
                self._confirmed.move_to_end(prefix)
                if len(self._confirmed) > self._confirmed_limit:
                    self._confirmed.popitem(last=False)
                return session
        return None

    def drop(self, prefix: Prefix) -> None:
        """The client has no certificate any more, so its sessions end."""
        self._confirmed.pop(prefix, None)
        self._forget_pending(prefix)

    def of_client(self, prefix: Prefix) -> ClientSessions:
        return ClientSessions(self._confirmed.get(prefix), tuple(self._pending.get(prefix, ())))

    def put(self, prefix: Prefix, sessions: ClientSessions) -> None:
        """These are the client's sessions, as `of_client` gave them, here or elsewhere."""
        self.drop(prefix)
        if sessions.confirmed is not None:
            self._confirmed[prefix] = sessions.confirmed
        if sessions.pending:
            self._pending[prefix] = list(sessions.pending)
            self._pending_count += len(sessions.pending)

    def _forget_pending(self, prefix: Prefix) -> None:
        self._pending_count -= len(self._pending.pop(prefix, ()))
