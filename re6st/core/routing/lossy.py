"""Whether packets get lost on a tunnel.

On one by UDP babel sees it: hellos are missed, now and again. One by TCP hides it: what is lost is sent again, so that
hellos come late but come, and all that goes through stalls for moments. The kernel counts what it sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from re6st.core.prefix import Prefix

LONGEST = 3.0
"""Seconds that are looked at, at most."""
MOMENTS = 4
"""In so many looks segments must have been sent again. After a moment in which nothing got through it is in one or two,
many at a time."""
AGAIN_LEAST, AGAIN_SHARE = 5, 0.2
"""How many segments were sent again, and how large a part of all, where packets are said to get lost."""
SILENT = 1.0
"""Seconds without an acknowledgement, after which a way is cut rather than lossy."""
MISSED_LEAST, GAPS_LEAST = 4, 3
"""How many of the last 16 hellos were missed, in how many places: in one, the peer may have been busy, or drained."""
YOUNG = 12
"""So many hellos must have been waited for."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Of a TCP connection: the segments with data that it has sent, and how many of those again, and not in vain."""

    segments: int
    again: int
    silent: float
    """Seconds since it last heard an acknowledgement."""


class Retransmissions:
    """What the connections of our tunnels sent again of late. Times are monotonic."""

    def __init__(self) -> None:
        self._seen: dict[Prefix, deque[tuple[float, Sent]]] = {}

    def note(self, sent: Mapping[Prefix, Sent], now: float) -> None:
        """Take in what all of them have sent now; one that has sent less than before is another one."""
        self._seen = {peer: self._seen.get(peer, deque()) for peer in sent}
        for peer, seen in self._seen.items():
            if sent[peer].silent >= SILENT or (seen and sent[peer].segments < seen[-1][1].segments):
                seen.clear()
            seen.append((now, sent[peer]))
            while seen[0][0] < now - LONGEST:
                seen.popleft()

    @property
    def lossy(self) -> frozenset[Prefix]:
        """The peers on the way to which packets get lost."""
        return frozenset(peer for peer, seen in self._seen.items() if _loses(seen))


def _loses(seen: deque[tuple[float, Sent]]) -> bool:
    """Whether much was sent again in one of the times from a look to the last one."""
    looks = [sent for _, sent in reversed(seen)]
    moments, last = 0, looks[0]
    for later, earlier in pairwise(looks):
        moments += later.again > earlier.again
        again, segments = last.again - earlier.again, last.segments - earlier.segments
        if moments >= MOMENTS and again >= AGAIN_LEAST and again >= AGAIN_SHARE * segments:
            return True
    return False


def is_patchy(reach: int) -> bool:
    """Whether a history of hellos, newest at the left of 16 bits, has gaps in many places (RFC 8966 appendix A.1)."""
    waited = f"{reach & 0xFFFF:016b}".rstrip("0")
    gaps = [gap for gap in waited.split("1") if gap]
    return len(waited) >= YOUNG and sum(map(len, gaps)) >= MISSED_LEAST and len(gaps) >= GAPS_LEAST
