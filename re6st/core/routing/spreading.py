"""Which of this machine's connections go over which of its lines, so that all lines are used once one is full.

Connections are told apart by a hash of their addresses and ports, into BUCKETS: nobody has to keep track of them. As
long as no line is full, each packet goes as babel says, which is the quickest way. Where a line is full, buckets move
from it to the line that is least used, those first that help most. A bucket moves only where this leaves more room for
all: so a connection that has a line to itself stays there, and one that would get less elsewhere as well. What stood
still for a while, or has room on babel's way again, goes back to that.

What a line carries is what the operator said. Where he did not, it is a little more than the most that went over it
lately; and before anything was moved there, as much as the others carry: then it shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BUCKETS = 64
FULL, ROOM = 0.8, 0.5
"""Shares of what a line carries: from here on it is full, and below that, with what was moved away, it is not."""
GAIN = 0.02
"""How much less the fullest line must be used after a move, as a share of what it carries."""
OVERHEAD = 1.07
"""Bytes on a line for each byte in a tunnel, about."""
STILL = 0.001
"""Mbit/s below which nothing goes by a bucket."""
HOLD = 3.0
"""Seconds for which a bucket that was moved stays: connections need some time to find their pace."""
RESTS, CALM = 10.0, 30.0
"""Seconds after which a bucket goes back to babel's way: by which nothing goes any more, and if all have room there."""
LEARNT_FOR = 3600.0
"""Seconds for which counts what went over a line."""
LEAST = 4.0
"""Mbit/s that a line carries at least of which the operator said nothing."""
MORE = 1.25
"""It may carry so many times what went over it: the most that did so is FULL then."""


@dataclass(frozen=True, slots=True)
class LineRate:
    """What goes out over a line now, all programs of the machine together, and what it carries if that is known."""

    mbits: float
    capacity: float | None = None


@dataclass(slots=True)
class _Placed:
    """The line of a bucket."""

    slot: int
    since: float
    """When it was moved there; infinitely long ago if it was there before."""
    used: float
    """When something went by it last."""

    @property
    def was_moved(self) -> bool:
        return self.since > float("-inf")


@dataclass(slots=True)
class _Learnt:
    """The most that went over a line lately, and when."""

    mbits: float
    when: float
    tried: bool = False
    """Something was moved there, and has had the time to show what the line carries."""


class Spreading:
    """Decides for one node. Times are seconds of one clock, slots are those of lines."""

    def __init__(self) -> None:
        self._placed: dict[int, _Placed] = {}
        self._learnt: dict[int, _Learnt] = {}
        self._crowded = float("-inf")
        """When all would not have had room on babel's ways last."""

    @property
    def placed(self) -> dict[int, int]:
        """The line of each bucket that does not go as babel says."""
        return {bucket: placed.slot for bucket, placed in self._placed.items()}

    def look(self, lines: Mapping[int, LineRate], flows: Mapping[tuple[int, int], float], now: float) -> bool:
        """Take in what goes out over each line, and by slot and bucket what of that are connections that may move, both
        in Mbit/s. Returns whether something moves.
        """
        before = self.placed
        self._learn(lines, now)
        carries = {slot: self._capacity(slot, lines) for slot in lines}
        self._placed = {bucket: each for bucket, each in self._placed.items() if each.slot in lines}
        by_bucket: defaultdict[int, dict[int, float]] = defaultdict(dict)
        for (slot, bucket), mbits in flows.items():
            if mbits > STILL and slot in lines:
                by_bucket[bucket][slot] = mbits * OVERHEAD
        for bucket in by_bucket.keys() & self._placed.keys():
            self._placed[bucket].used = now
        self._move(lines, carries, by_bucket, now)
        self._return(sum(line.mbits for line in lines.values()), carries, now)
        return self.placed != before

    def follow(self, slots: frozenset[int]) -> bool:
        """Only these lines are there; what went by others goes as babel says. Returns whether something moves."""
        gone = [bucket for bucket, each in self._placed.items() if each.slot not in slots]
        for bucket in gone:
            del self._placed[bucket]
        return bool(gone)

    def free(self, bucket: int) -> None:
        """A bucket goes as babel says."""
        self._placed.pop(bucket, None)

    def is_full(self, slot: int, lines: Mapping[int, LineRate]) -> bool:
        """Whether nothing more fits on a line."""
        return lines[slot].mbits >= FULL * self._capacity(slot, lines)

    def is_busy(self, lines: Mapping[int, LineRate]) -> bool:
        """Whether it is worth while to count what goes by each bucket."""
        filled = (line.mbits >= ROOM * self._capacity(slot, lines) for slot, line in lines.items())
        return bool(self._placed) or any(filled)

    # -- within --

    def _learn(self, lines: Mapping[int, LineRate], now: float) -> None:
        settled = {each.slot for each in self._placed.values() if each.was_moved and now - each.since >= HOLD}
        for slot, line in lines.items():
            known = self._learnt.get(slot)
            if known is None or now - known.when >= LEARNT_FOR:
                known = self._learnt[slot] = _Learnt(line.mbits, now)
            elif line.mbits >= known.mbits:
                known.mbits, known.when = line.mbits, now
            known.tried = known.tried or slot in settled
        for slot in self._learnt.keys() - lines.keys():
            del self._learnt[slot]

    def _capacity(self, slot: int, lines: Mapping[int, LineRate]) -> float:
        """What a line carries, in Mbit/s."""
        if (told := lines[slot].capacity) is not None:
            return told
        known = self._learnt.get(slot, _Learnt(0.0, 0.0))
        own = max(LEAST, MORE * known.mbits)
        if known.tried:
            return own
        others = (line.capacity or MORE * self._learnt.get(each, known).mbits for each, line in lines.items())
        return max(own, *others)

    def _is_on_trial(self, slot: int, lines: Mapping[int, LineRate]) -> bool:
        """Whether what was moved to a line has not shown yet what it carries, and nobody said it."""
        unknown = lines[slot].capacity is None and not self._learnt[slot].tried
        return unknown and any(each.slot == slot and each.was_moved for each in self._placed.values())

    def _move(
        self,
        lines: Mapping[int, LineRate],
        carries: Mapping[int, float],
        by_bucket: Mapping[int, dict[int, float]],
        now: float,
    ) -> None:
        """Move buckets from the fullest line to others, one after the other, as long as it helps."""
        load = {slot: line.mbits for slot, line in lines.items()}
        movable = {
            bucket: rates
            for bucket, rates in by_bucket.items()
            if bucket not in self._placed or now - self._placed[bucket].since >= HOLD
        }
        if not load or max(load[slot] / carries[slot] for slot in load) < FULL:
            return
        targets = [slot for slot in load if not self._is_on_trial(slot, lines)]
        while (move := _best_move(load, carries, movable, targets)) is not None:
            bucket, fullest, slot = move
            mbits = movable.pop(bucket)[fullest]
            load[fullest] -= mbits
            load[slot] += mbits
            self._placed[bucket] = _Placed(slot, now, now)
        for bucket, rates in by_bucket.items():
            # A full line is slow: babel's way may change by that alone, and all would change the line at once.
            if bucket not in self._placed:
                self._placed[bucket] = _Placed(max(rates, key=lambda slot: rates[slot]), float("-inf"), now)

    def _return(self, mbits: float, carries: Mapping[int, float], now: float) -> None:
        """Have go as babel says what stands still, and all once there is room for all on any line."""
        if any(mbits >= ROOM * each for each in carries.values()):
            self._crowded = now
        calm = now - self._crowded >= CALM
        for bucket, each in list(self._placed.items()):
            if calm or now - each.used >= RESTS:
                del self._placed[bucket]


def _best_move(
    load: Mapping[int, float],
    carries: Mapping[int, float],
    movable: Mapping[int, Mapping[int, float]],
    targets: Iterable[int],
) -> tuple[int, int, int] | None:
    """The bucket whose move helps most, from the fullest line, and to which; None where none helps."""
    used = {slot: load[slot] / carries[slot] for slot in load}
    fullest = max(used, key=lambda slot: (used[slot], slot))
    moves = []
    for slot in targets:
        if slot != fullest:
            for bucket, rates in movable.items():
                if (mbits := rates.get(fullest)) is not None:
                    left, then = (load[fullest] - mbits) / carries[fullest], (load[slot] + mbits) / carries[slot]
                    moves.append((max(left, then), then, bucket, slot))
    most, _, bucket, slot = min(moves, default=(float("inf"), 0.0, 0, 0))
    return None if most > used[fullest] - GAIN else (bucket, fullest, slot)
