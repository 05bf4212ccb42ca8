"""How large the packets of a link may be, found by asking the link itself (RFC 8899). No input and output.

The network under a link may swallow what is too large for it and tell nobody. So echo requests of some sizes go to the
other end, with a small one beside them, which passes wherever there is a way: a size that is answered passes, one that
is not while the small one is does not. The link begins with the least size, gets a larger one as soon as it is
answered, and a smaller one only after TRIES rounds without an answer, since packets are lost for other reasons too.
While nothing is answered, not even the small one, nothing is known, and nothing changes: whether a link is dead is
found elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

LEAST = 1280
"""Bytes that each link of IPv6 has to carry (RFC 8200 section 5)."""
SMALL = 96
WIREGUARD = (1420, 1412, 1380, LEAST)
"""Of 1,500 bytes, with the headers of WireGuard over IPv6 (80); of PPPoE; of a tunnel on the way; the least."""
TRIES = 3
"""Rounds of a search (RFC 8899: MAX_PROBES)."""
ANSWER = 1.0
"""Seconds that a round waits; what is answered later in a search still counts."""
CONFIRM = 30.0
"""Seconds between two looks whether the size in use still passes."""
SPARING, CONFIRM_IDLE = 20_000, 300.0
"""The looks of both ends are 6 kB, as much as all else that an idle link carries in 15 s. So one looks only where its
end has sent so many bytes since the last time that it might have, or after so many seconds. It is not more than a TCP
connection sends whose large packets are swallowed, in vain: ten of 1,420 bytes at first, and some of them again.
"""
RAISE = 600.0
"""Seconds after which larger ones are tried again (RFC 8899: PMTU_RAISE_TIMER)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Send an echo request that is a packet of so many bytes, with its IPv6 header; the answer has this number."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class UseMtu:
    """The link carries packets of so many bytes."""

    mtu: int


@dataclass(frozen=True, slots=True)
class Unfit:
    """Small packets pass, and none that IPv6 may rely on: another kind of link is needed."""


Action = Probe | UseMtu | Unfit


class ProbeState(Enum):
    """What is being done."""

    SEARCHING = "searching"
    """All sizes are asked for."""
    CONFIRMED = "confirmed"
    """The size in use was answered."""
    CONFIRMING = "confirming"
    """It is asked for again, and was not answered yet."""


class MtuProbe:
    """One link, whose packets may have one of these sizes; the least is always one of them.

    Do at `deadline` what `tick` says, and tell what is `answered`. Times are seconds of one clock.
    """

    def __init__(self, sizes: Iterable[int], now: float) -> None:
        self._sizes = tuple(sorted({LEAST, *(size for size in sizes if size > LEAST)}, reverse=True))
        self._limit = self._sizes[0]
        self._number = 0
        self._sent: dict[int, int] = {}
        """Sizes of probes whose answer counts, by number: those of this search, or of this look."""
        self._answered: set[int] = set()
        self._tries = 0
        self._raise_at = now + RAISE
        self._looked = now
        """When the size in use was last found or confirmed."""
        self._carried: int | None = None
        self._carried_then: int | None = None
        """Bytes that the link has carried, now and when it last came to rest; None: that is not known."""
        self.mtu = LEAST
        self.state = ProbeState.SEARCHING
        self.unfit = False
        self.deadline = now

    def tick(self, now: float, carried: int | None = None) -> list[Action]:
        """What is to be done now, when the deadline has passed. `carried`: the bytes that the
        link has carried so far, if known.
        """
        if now < self.deadline:
            return []
        self._carried = carried
        match self.state:
            case ProbeState.CONFIRMED:
                if now >= self._raise_at:
                    return self.search(now)
                if self._is_idle(now):
                    self._rest(now)
                    return []
                return self.doubt(now)
            case ProbeState.CONFIRMING:
                if self._tries < TRIES:
                    return self._round(now)
                if SMALL not in self._answered:
                    return self._settle(now)
                return self.search(now)
            case ProbeState.SEARCHING:
                if self._tries < TRIES:
                    return self._round(now)
                return self._found(now)
            case _:
                assert_never(self.state)

    def answered(self, number: int, now: float) -> list[Action]:
        """A probe came back."""
        size = self._sent.pop(number, None)
        if size is None:
            return []
        self._answered.add(size)
        actions: list[Action] = []
        if size >= LEAST:
            self.unfit = False
        if self.state is ProbeState.SEARCHING and size > self.mtu:
            self.mtu = size
            actions.append(UseMtu(size))
        wanted = self.mtu if self.state is ProbeState.CONFIRMING else self._candidates()[0]
        if size == wanted and self.state is not ProbeState.CONFIRMED:
            actions += self._settle(now)
        return actions

    def search(self, now: float, limit: int | None = None) -> list[Action]:
        """Find the size anew, as the path may be another; `limit` is what the system says that it carries, if it does.

        A limit below the size in use counts at once: packets have been refused already.
        """
        self._limit = max(LEAST, limit if limit is not None else self._sizes[0])
        self._begin(ProbeState.SEARCHING)
        self._raise_at = now + RAISE
        actions: list[Action] = []
        if self._candidates()[0] < self.mtu:
            self.mtu = self._candidates()[0]
            actions.append(UseMtu(self.mtu))
        return actions + self._round(now)

    def doubt(self, now: float) -> list[Action]:
        """Look at once whether the size in use still passes."""
        if self.state is not ProbeState.CONFIRMED:
            return []
        self._begin(ProbeState.CONFIRMING)
        return self._round(now)

    def _is_idle(self, now: float) -> bool:
        """Whether the link has carried so little since the last deadline that it is not worth a look."""
        if self._carried is None or self._carried_then is None or now - self._looked >= CONFIRM_IDLE:
            return False
        return 0 <= self._carried - self._carried_then < SPARING

    def _candidates(self) -> list[int]:
        """Sizes to ask for, the largest first."""
        top = min(self._limit, self._sizes[0])
        return [top, *(size for size in self._sizes if size < top)]

    def _begin(self, state: ProbeState) -> None:
        self.state = state
        self._tries = 0
        self._sent.clear()
        self._answered.clear()

    def _round(self, now: float) -> list[Action]:
        self._tries += 1
        self.deadline = now + ANSWER
        sizes = self._candidates() if self.state is ProbeState.SEARCHING else [self.mtu]
        actions: list[Action] = []
        # The small one first: behind a large one that is lost, a tunnel over TCP may stop.
        for size in (SMALL, *reversed(sizes)):
            self._number += 1
            self._sent[self._number] = size
            actions.append(Probe(self._number, size))
        return actions

    def _found(self, now: float) -> list[Action]:
        """The end of a search in which the largest size was not answered."""
        actions: list[Action] = []
        if not self._answered:
            # The other end may not be there yet: then this was no search.
            self._raise_at = now + CONFIRM
        passed = [size for size in self._answered if size >= LEAST]
        if SMALL in self._answered or passed:
            best = max(passed, default=LEAST)
            if best != self.mtu:
                self.mtu = best
                actions.append(UseMtu(best))
            if not passed and not self.unfit:
                self.unfit = True
                actions.append(Unfit())
        return actions + self._settle(now)

    def _settle(self, now: float) -> list[Action]:
        self._begin(ProbeState.CONFIRMED)
        self._looked = now
        self._rest(now)
        return []

    def _rest(self, now: float) -> None:
        self._carried_then = self._carried
        self.deadline = min(now + CONFIRM, max(now, self._raise_at))
