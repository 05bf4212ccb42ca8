"""What happened to a node, for its operator: tunnels that came and went, peers that were lost and found again.

`EventLog` reads the events and actions of the mesh policy as they pass by, and keeps the last ones in words.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Set
from dataclasses import dataclass

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix

KEPT = 500
"""Number of events that are remembered."""
NAMED = 20
"""Number of peers that one event names; others are only counted."""
LOST_LIMIT = 1000
"""Number of lost peers whose return is waited for."""
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Happening:
    """One event. `time` is Unix time, `seconds` says how long what ended here had lasted."""

    number: int
    time: float
    kind: str
    peers: tuple[Prefix, ...] = ()
    count: int = 0
    """The number of peers that it is about, if there are more than `peers` names."""
    seconds: float | None = None
    reason: str = ""


class EventLog:
    """The last events, the newest on the right. Each of the `listeners` is told of every new one."""

    def __init__(self, renewing: Callable[[], str] = lambda: "") -> None:
        """`renewing` says why we end babeld, while we do so."""
        self._renewing = renewing
        self.happenings: deque[Happening] = deque(maxlen=KEPT)
        self.listeners: set[Callable[[Happening], None]] = set()
        self.counts: Counter[str] = Counter()
        """The number of events of each kind since the start."""
        self._number = 0
        self._up: dict[Prefix, float] = {}
        self._clients: dict[Prefix, list[float]] = {}
        self._reasons: dict[Prefix, str] = {}
        self._reached: Set[Prefix] = frozenset()
        self._lost: dict[Prefix, float] = {}
        self._connected: tuple[bool, float] | None = None
        self._running: tuple[bool, float] | None = None

    def babel_ended(self, now: float) -> int:
        """How often babeld ended by itself in the last hour."""
        return sum(h.kind == "babel-ended" and not h.reason and now - h.time < HOUR for h in self.happenings)

    def note(self, event: policy.Event, *, connected: bool, now: float) -> None:
        """The policy took in an event at the Unix time `now`; `connected` is its state after that."""
        match event:
            case policy.TunnelUp(peer):
                self._up[peer] = now
                self._add(now, "tunnel-up", peer)
            case policy.TunnelDown(peer):
                since, reason = self._up.pop(peer, None), self._reasons.pop(peer, "")
                kind = "tunnel-failed" if since is None else "tunnel-closed" if reason else "tunnel-lost"
                self._add(now, kind, peer, seconds=_elapsed(since, now), reason=reason)
            case policy.ClientUp(peer):
                self._clients.setdefault(peer, []).append(now)
                self._add(now, "client-up", peer)
            case policy.ClientDown(peer):
                times = self._clients.pop(peer, [])
                if times[1:]:
                    self._clients[peer] = times[1:]
                self._add(now, "client-down", peer, seconds=_elapsed(times[0] if times else None, now))
            case policy.Surveyed(survey):
                self._babel(survey.running or survey.late, now)
                if survey.running:
                    self._survey(survey.peers, now)
        self._connection(connected, now)

    def decided(self, action: policy.Action, now: float) -> None:
        """The policy returned an action."""
        match action:
            case policy.CloseTunnel(peer, reason):
                self._reasons[peer] = reason
            case policy.DrainTunnel(peer, reason):
                self._add(now, "tunnel-draining", peer, reason=reason)
            case policy.UndrainTunnel(peer):
                self._add(now, "tunnel-kept", peer)
            case policy.AvoidLink(peer, sign=sign):
                self._add(now, "link-avoided", peer, reason=sign)
            case policy.TrustLink(peer):
                self._add(now, "link-trusted", peer)

    def found(self, kind: str, now: float, *peers: Prefix, reason: str = "") -> None:
        """Note something that is not an event of the policy; see noded/guard.py."""
        self._add(now, kind, *peers, reason=reason)

    def _babel(self, running: bool, now: float) -> None:
        was = self._running
        if was is None or was[0] != running:
            self._running = running, now
            if was is not None:
                kind, reason = ("babel-running", "") if running else ("babel-ended", self._renewing())
                self._add(now, kind, seconds=_elapsed(was[1], now), reason=reason)

    def _connection(self, connected: bool, now: float) -> None:
        was = self._connected
        if was is None or was[0] != connected:
            self._connected = connected, now
            if was is not None:
                self._add(now, "connected" if connected else "disconnected", seconds=_elapsed(was[1], now))

    def _survey(self, peers: Set[Prefix], now: float) -> None:
        gone, self._reached = sorted(self._reached - peers, key=_order), peers
        if gone:
            self._add(now, "peers-lost", *gone)
            self._lost.update(dict.fromkeys(gone, now))
            for peer in list(self._lost)[: max(0, len(self._lost) - LOST_LIMIT)]:
                del self._lost[peer]
        back = sorted(self._lost.keys() & peers, key=_order)
        if back:
            longest = max(now - self._lost.pop(peer) for peer in back)
            self._add(now, "peers-back", *back, seconds=longest)

    def _add(self, now: float, kind: str, *peers: Prefix, seconds: float | None = None, reason: str = "") -> None:
        self._number += 1
        happening = Happening(self._number, now, kind, peers[:NAMED], len(peers), seconds, reason)
        self.happenings.append(happening)
        self.counts[kind] += 1
        for listener in tuple(self.listeners):
            listener(happening)


def _elapsed(since: float | None, now: float) -> float | None:
    return None if since is None else max(0.0, now - since)


def _order(prefix: Prefix) -> str:
    return prefix.bits
