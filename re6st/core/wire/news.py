"""Who is told what is new: our addresses, the version of the network's parameters (wire.md 5.3, 6.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code
from re6st.core.wire.sessions import Sessions

AUDIENCE_LIMIT = 200
"""Peers that are told: as many as remember us (noded/peer_cache.py), the latest first."""
TOLD_AT_ONCE = 10
"""Messages in a row."""
TELL_AGAIN, TELLINGS_FIRST, TELLINGS = 4.0, 3, 6
"""Seconds between tellings of one peer, how often it is told anyway, and how often if it does not answer.

The first ones may go the way that has just been lost, until babel sees that, and its answer may be to something else.
"""
PATIENCE = 600.0
"""Seconds that a peer out of reach is waited for."""
LOOK_EVERY = 1.0
"""Seconds between two looks at whom to tell."""


class Audience:
    """Who has still to be told some news. A datagram gets lost: just when there is news, routes change too."""

    def __init__(self) -> None:
        self._waiting: dict[Prefix, int] = {}
        """With how often each was told."""
        self._told: dict[Prefix, tuple[float, int]] = {}
        """When, and how often; whether they heard is not known yet."""
        self._until = float("-inf")
        self._invited: set[Prefix] = set()

    def start(self, peers: Iterable[Prefix], now: float) -> None:
        """There is something new: everybody is told, whoever was told before too."""
        self._waiting = dict.fromkeys([*peers][:AUDIENCE_LIMIT], 0)
        self._told = {}
        self._until = now + PATIENCE
        self._invited = set(self._waiting)

    def join(self, peers: Iterable[Prefix], now: float) -> None:
        """Peers that came near while the news is new: they are told as well."""
        if now <= self._until:
            for peer in [peer for peer in peers if peer not in self._invited][: AUDIENCE_LIMIT - len(self._invited)]:
                self._invited.add(peer)
                self._waiting[peer] = 0

    def is_new(self, now: float) -> bool:
        """Whether there is news that somebody may still have to be told."""
        return now <= self._until

    def next(self, reachable: Callable[[Prefix], bool], heard: Callable[[Prefix], bool], now: float) -> list[Prefix]:
        """Whom to tell now. `heard`: whether a peer has answered what we sent."""
        if now > self._until:
            self._waiting.clear()
        for peer, (at, count) in list(self._told.items()):
            if now - at >= TELL_AGAIN:
                del self._told[peer]
                if count < (TELLINGS_FIRST if heard(peer) else TELLINGS):
                    self._waiting[peer] = count
        told = [peer for peer in self._waiting if reachable(peer)][:TOLD_AT_ONCE]
        for peer in told:
            self._told[peer] = now, self._waiting.pop(peer) + 1
        return told


class Speaker(Protocol):
    """Says something to peers, or opens a session only."""

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None: ...
    def ensure(self, peer: Prefix) -> None: ...


class VersionNews:
    """Tells the version that `sessions` has to those next to us that do not have it.

    `near` are those next to us: neighbours, and both ends of our tunnels; `reached` says whether one can be told now.
    """

    def __init__(
        self,
        sessions: Sessions,
        near: Callable[[], Iterable[Prefix]],
        reached: Callable[[Prefix], bool],
        speaker: Speaker,
    ) -> None:
        self._sessions = sessions
        self._near = near
        self._reached = reached
        self._speaker = speaker
        self._audience = Audience()
        self._seen: frozenset[Prefix] = frozenset()
        """Who was next to us, and in reach, when we looked last."""
        self._looked = float("-inf")

    def start(self, now: float) -> None:
        """There is a new version. Those who do not have it are told now and again: they may restart, and miss it."""
        ignorant = [peer for peer in self._near() if self._is_ignorant(peer)]
        for peer in ignorant:
            self._tell(peer)
        self._audience.start(ignorant, now)

    def next_deadline(self, now: float, *, older: bool) -> float:
        """When `tick` is to be called: while there is something to tell, or `older` nodes, every second."""
        return self._looked + LOOK_EVERY if older or self._audience.is_new(now) else float("inf")

    def tick(self, now: float, *, older: bool) -> None:
        """Tell whoever is to be told now.

        Where there may be `older` nodes, everybody next to us is met, also without news: one that missed a version is
        told it then. Of themselves they open a session only when they have something to ask. Whoever comes back may
        have started anew, and not know any more what it was told.
        """
        self._looked = now
        if older:
            seen = frozenset(peer for peer in self._near() if self._reached(peer))
            for peer in seen - self._seen:
                self._sessions.doubt(peer)
            self._seen = seen
        # One of the older software may open the session without a word of its version (sessions.py).
        self._audience.join(self._near(), now)
        for peer in self._audience.next(self._can_be_told, self._sessions.answered, now):
            self._tell(peer)
        if older:
            for peer in sorted(filter(self._is_unheard, self._seen), key=self._greeted)[:TOLD_AT_ONCE]:
                self._speaker.ensure(peer)

    def _tell(self, peer: Prefix) -> None:
        self._speaker.send(peer, Code.VERSION, self._sessions.version)

    def _is_unheard(self, peer: Prefix) -> bool:
        """Whether we never had a session with it."""
        known = self._sessions.peer(peer)
        return known is None or known.session is None

    def _greeted(self, peer: Prefix) -> float:
        """When it was greeted last."""
        known = self._sessions.peer(peer)
        return float("-inf") if known is None else known.greeted

    def _can_be_told(self, peer: Prefix) -> bool:
        return self._reached(peer) and self._is_ignorant(peer)

    def _is_ignorant(self, peer: Prefix) -> bool:
        """Whether we do not know that it has our version."""
        known = self._sessions.peer(peer)
        return known is None or known.version < self._sessions.version
