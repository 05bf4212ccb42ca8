"""Finds out whether a tunnel loses packets.

Babel sees it on a tunnel over UDP: hellos are missed now and then. A tunnel over TCP hides it: lost packets are sent
again, so hellos come late, but they come, and all traffic stalls for moments. The kernel counts what it sends again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from re6st.core.prefix import Prefix

LONGEST = 3.0
"""Seconds that are considered at most."""
MOMENTS = 4
"""TCP must have sent segments again in so many looks. After a moment in which nothing got through, this happens in one
or two looks, with many segments each.
"""
AGAIN_LEAST, AGAIN_SHARE = 5, 0.2
"""A link counts as lossy if TCP sent so many segments again, and such a part of all segments."""
SILENT = 1.0
"""After so many seconds without an acknowledgement, a link is cut rather than lossy."""
MISSED_LEAST, GAPS_LEAST = 4, 3
"""How many of the last 16 hellos must be missed, in how many places: in one place, the peer may have been busy, or
draining the link.
"""
YOUNG = 12
"""So many hellos must have been expected."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Counters of a TCP connection: the segments with data that it has sent, and those that it had to send again."""

    segments: int
    again: int
    silent: float
    """Seconds since the last acknowledgement."""


class Retransmissions:
    """What the connections of our tunnels sent again lately. Times are monotonic."""

    def __init__(self) -> None:
        self._seen: dict[Prefix, deque[tuple[float, Sent]]] = {}

    def note(self, sent: Mapping[Prefix, Sent], now: float) -> None:
        """Take in the present counters of all connections. If a counter is lower than before, the connection is new."""
        self._seen = {peer: self._seen.get(peer, deque()) for peer in sent}
        for peer, seen in self._seen.items():
            if sent[peer].silent >= SILENT or (seen and sent[peer].segments < seen[-1][1].segments):
                seen.clear()
            seen.append((now, sent[peer]))
            while seen[0][0] < now - LONGEST:
                seen.popleft()

    @property
    def doubtful(self) -> bool:
        """Whether anything was sent again of late, so that moments count."""
        return any(seen[-1][1].again > seen[0][1].again for seen in self._seen.values())

    @property
    def lossy(self) -> frozenset[Prefix]:
        """The peers to which packets get lost."""
        return frozenset(peer for peer, seen in self._seen.items() if _loses(seen))


def _loses(seen: deque[tuple[float, Sent]]) -> bool:
    """Whether much was sent again between one of the earlier looks and the last one."""
    looks = [sent for _, sent in reversed(seen)]
    moments, last = 0, looks[0]
    for later, earlier in pairwise(looks):
        moments += later.again > earlier.again
        again, segments = last.again - earlier.again, last.segments - earlier.segments
        if moments >= MOMENTS and again >= AGAIN_LEAST and again >= AGAIN_SHARE * segments:
            return True
    return False


def is_patchy(reach: int) -> bool:
    """Whether a history of 16 hellos, the newest on the left, has gaps in many places (RFC 8966 appendix A.1)."""
    waited = f"{reach & 0xFFFF:016b}".rstrip("0")
    gaps = [gap for gap in waited.split("1") if gap]
    return len(waited) >= YOUNG and sum(map(len, gaps)) >= MISSED_LEAST and len(gaps) >= GAPS_LEAST
