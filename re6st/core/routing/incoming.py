"""By which of this machine's lines others are to send what is for its subnet, so that all are used once one is full.

Babel leads all of a sender's packets over one line. Only this machine knows how full its lines are, so it decides:
spreading.py does, as for what goes out. Its neighbours are told which of them sends by which line, and which groups of
connections are wanted by another one than they come by. They hand those to each other (handing.py), where they can, and
tell by which lines they can. What comes by others cannot move, and does not count.

A group that moved goes over one more node, whose own lines nobody here knows. If it has less than half of what it had,
although its new line has room, it goes back, and stays for a while.
"""

from __future__ import annotations

from collections.abc import Mapping

from re6st.core.prefix import Prefix
from re6st.core.routing.line_wishes import LASTS, NEIGHBOURS_LIMIT, REPEAT, Able, Wish
from re6st.core.routing.spreading import HOLD, STILL, LineRate, Spreading

LINGERS = 15.0
"""Seconds for which neighbours are still told of lines that are not busy any more."""
WORSE = 0.5
"""What has less than so much of what it had goes back."""
STAYS = 120.0
"""Seconds for which it does."""
SMOOTH = 4
"""Looks over which rates are averaged, about."""


class Incoming:
    """Decides for one node. Times are seconds of one clock, slots are those of lines."""

    def __init__(self) -> None:
        self._spreading = Spreading()
        self._lines: dict[int, tuple[Prefix, ...]] = {}
        self._able: dict[Prefix, tuple[frozenset[int], float]] = {}
        """By which lines each neighbour can send, and until when that counts."""
        self._busy_until = float("-inf")
        self._rates: dict[int, float] = {}
        """What comes by each bucket, on the average."""
        self._moved: dict[int, tuple[float, float]] = {}
        """Buckets that were moved: when, and what came by them before."""
        self._stays: dict[int, float] = {}
        """Buckets that stay where babel has them, and until when."""
        self._told: tuple[Wish, frozenset[Prefix], float] = (Wish(), frozenset(), float("-inf"))
        """What was told last, whom, and when."""

    @property
    def placed(self) -> dict[int, int]:
        """The line of each bucket that is not to come as babel says."""
        return self._spreading.placed if self._lines else {}

    @property
    def is_wishing(self) -> bool:
        """Whether anybody is to do anything."""
        return bool(self._lines)

    def is_busy(self, rates: Mapping[int, LineRate]) -> bool:
        """Whether others will have to be told soon, or are already."""
        return len(rates) > 1 and self._spreading.is_busy(rates)

    def able(self, by: Prefix, word: Able, now: float) -> None:
        """A neighbour has said by which lines it can send."""
        if any(by in each for each in self._lines.values()):
            self._able[by] = word.lines, now + LASTS

    def follow(self, rates: Mapping[int, LineRate], neighbours: Mapping[int, tuple[Prefix, ...]], now: float) -> None:
        """Take in what comes by each line, and which neighbours that understand us send by each."""
        if self.is_busy(rates):
            self._busy_until = now + LINGERS
        room, lines = NEIGHBOURS_LIMIT, {}
        for slot in sorted(rates):
            if told := tuple(sorted(neighbours.get(slot, ()))[:room]):
                lines[slot] = told
                room -= len(told)
        self._lines = lines if len(lines) > 1 and now < self._busy_until else {}
        self._able = {
            by: (slots, until)
            for by, (slots, until) in self._able.items()
            if now < until and any(by in each for each in self._lines.values())
        }
        self._spreading.follow(frozenset(self._lines))

    def movable(self) -> dict[int, frozenset[Prefix]]:
        """Those neighbours, by the line that they send by, that can send by all others as well."""
        found = {}
        for slot, neighbours in self._lines.items():
            others = self._lines.keys() - {slot}
            able = frozenset(each for each in neighbours if others <= self._able.get(each, (frozenset(), 0))[0])
            if able:
                found[slot] = able
        return found

    def told(self) -> Mapping[int, frozenset[Prefix]]:
        """All neighbours that are told, by the line that they send by."""
        return {slot: frozenset(neighbours) for slot, neighbours in self._lines.items()}

    def look(
        self,
        rates: Mapping[int, LineRate],
        flows: Mapping[tuple[int, int], float],
        others: Mapping[tuple[int, int], float],
        now: float,
    ) -> None:
        """Take in what comes by slot and bucket from those that can send by all other lines, and from others that were
        told; in Mbit/s.
        """
        rates = {slot: rate for slot, rate in rates.items() if slot in self._lines}
        if len(rates) < 2:
            return
        arriving = _sum(flows, others)
        self._average(arriving)
        self._stays = {bucket: until for bucket, until in self._stays.items() if now < until}
        self._return(rates, now)
        before = self.placed
        come_by: dict[int, int] = {}
        for (slot, bucket), mbits in arriving.items():
            if mbits >= arriving.get((come_by.get(bucket, slot), bucket), 0.0):
                come_by[bucket] = slot
        # Whoever sends what was moved can do so by all lines, whoever it comes by.
        flows = _sum(flows, {key: mbits for key, mbits in others.items() if before.get(key[1]) == key[0]})
        free = {key: mbits for key, mbits in flows.items() if key[1] not in self._stays}
        self._spreading.look(rates, free, now)
        for bucket, slot in self.placed.items():
            if slot not in (before.get(bucket), come_by.get(bucket, slot)):
                self._moved[bucket] = now, self._rates.get(bucket, 0.0)

    def due(self, now: float) -> list[tuple[Prefix, Wish]]:
        """What is to be told now, and whom."""
        wish = Wish(self._lines, self.placed) if self._lines else Wish()
        told, whom, when = self._told
        neighbours = frozenset(each for those in self._lines.values() for each in those)
        if wish == told and (not neighbours or now - when < REPEAT):
            return []
        self._told = wish, neighbours, now
        return [(each, wish if each in neighbours else Wish()) for each in sorted(neighbours | whom)]

    # -- within --

    def _average(self, flows: Mapping[tuple[int, int], float]) -> None:
        now: dict[int, float] = {}
        for (_, bucket), mbits in flows.items():
            now[bucket] = now.get(bucket, 0.0) + mbits
        for bucket in now.keys() | self._rates.keys():
            before, mbits = self._rates.get(bucket), now.get(bucket, 0.0)
            self._rates[bucket] = mbits if before is None else before + (mbits - before) / SMOOTH
        self._rates = {bucket: mbits for bucket, mbits in self._rates.items() if mbits > STILL}

    def _return(self, rates: Mapping[int, LineRate], now: float) -> None:
        """Have go back what has less since it moved."""
        for bucket, (when, mbits) in list(self._moved.items()):
            if now - when < HOLD:
                continue
            del self._moved[bucket]
            slot = self.placed.get(bucket)
            if slot is None or bucket not in self._rates or self._rates[bucket] >= WORSE * mbits:
                continue
            if not self._spreading.is_full(slot, rates):
                self._spreading.free(bucket)
                self._stays[bucket] = now + STAYS


def _sum(one: Mapping[tuple[int, int], float], other: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in (*one, *(key for key in other if key not in one))}
