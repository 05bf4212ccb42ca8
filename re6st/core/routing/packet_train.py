"""What a link carries, by a short train of packets: how far apart they arrive that were sent at once.

Echo requests go to the neighbour, and what comes back has passed the link both ways: so the slower way counts. A few
packets go first, as a whole train would keep a slow link busy for too long. Then one train goes whose pace does not
count: a tunnel over TCP begins with ten packets, and doubles that with each round trip, and what shapes a line lets
some packets pass at any pace. In the second train, the pace is looked at in short stretches, and that of the faster
ones counts: not of the fastest, as packets that waited for a processor come all at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SIZE = 1200
"""Bytes in each echo request: with its headers it is no larger than what each link carries."""
ON_THE_LINK = SIZE + 8 + 40 + 14
"""With the headers of ICMPv6, IPv6 and Ethernet."""
FEW, MANY = 16, 128
"""Packets of what goes first, and of a train."""
STRETCH_OF_FEW, STRETCH = 8, 24
FASTER = 0.7
"""So many of the stretches are slower than the one that counts."""
SLOW = 5.0
"""Mbit/s: of a link that carries less no more is asked. It is in the last class."""
LEAST = 0.5
"""So many of the few packets must come back at least. Of a train it is enough that one stretch does: a slow line drops
what does not fit into its queue, and those that come are as far apart as it is slow."""
BYTES = (FEW + 2 * MANY) * ON_THE_LINK
"""Of one measurement, each way."""

AT_ONCE, EVERY = 12.0, 1800.0
"""Measurements that a node may make at once, and seconds after which it may make one more: 60 in the first day, and 48
in others, of 343 kB each way."""
LASTS = 6 * 3600.0
"""Seconds until a link is measured again; also that of a peer that comes back."""
AGAIN = 600.0
"""Seconds until it is tried again where too little came back."""
KEPT = 1000
"""Peers whose links are remembered."""

Peer = TypeVar("Peer", bound=Hashable)


def pace(arrivals: Sequence[float], stretch: int, faster: float = FASTER) -> float | None:
    """Mbit/s by when the packets of a train arrived, in seconds; None where they are too few."""
    if len(arrivals) <= stretch:
        return None
    came = sorted(arrivals)
    times = sorted(came[at + stretch] - came[at] for at in range(len(came) - stretch))
    taken = times[round((1 - faster) * (len(times) - 1))]
    return 8 * stretch * ON_THE_LINK / max(taken, 1e-6) / 1e6


def pace_of_few(arrivals: Sequence[float]) -> float | None:
    """The same of the few packets that go first: that of the fastest stretch."""
    return pace(arrivals, STRETCH_OF_FEW, 1.0) if len(arrivals) >= LEAST * FEW else None


def pace_of_train(arrivals: Sequence[float]) -> float | None:
    """The same of a whole train."""
    return pace(arrivals, STRETCH)


@dataclass(slots=True)
class TrainSchedule(Generic[Peer]):
    """Which link is to be measured, and when: seldom, and not many at once. Times are seconds of one clock."""

    measured: dict[Peer, tuple[float, float | None]] = field(default_factory=dict)
    """When the link with a peer was, and what it carries in Mbit/s."""
    _left: float = AT_ONCE
    _counted: float | None = None

    def known(self, peer: Peer, now: float) -> float | None:
        """What the link with a peer carried when it was measured lately."""
        at, mbits = self.measured.get(peer, (float("-inf"), None))
        return mbits if now - at < LASTS else None

    def due(self, peers: Sequence[Peer], now: float) -> Peer | None:
        """Whose link is to be measured now. Measuring it is to be followed by `note`."""
        self._count(now)
        if self._left < 1:
            return None
        waiting = [peer for peer in peers if now >= self._next(peer)]
        if not waiting:
            return None
        self._left -= 1
        return min(waiting, key=self._next)

    def note(self, peer: Peer, mbits: float | None, now: float) -> None:
        """It was measured; None if too little came back."""
        before = self.measured.pop(peer, (0.0, None))[1]
        # What is known of it counts until the next time.
        self.measured[peer] = (now, mbits) if mbits is not None or before is None else (now - LASTS + AGAIN, before)
        while len(self.measured) > KEPT:
            del self.measured[next(iter(self.measured))]

    def _next(self, peer: Peer) -> float:
        if peer not in self.measured:
            return float("-inf")
        at, mbits = self.measured[peer]
        return at + (AGAIN if mbits is None else LASTS)

    def _count(self, now: float) -> None:
        if self._counted is not None:
            self._left = min(AT_ONCE, self._left + (now - self._counted) / EVERY)
        self._counted = now
