"""When babeld is to be started anew, with nothing remembered.

Babel does not take a way that is longer than one that it told of itself before, unless the destination has said a new
sequence number since: so there are no loops (RFC 8966 section 3.7). Who lacks a way asks for one. babeld 1.12.1 takes
each such question that it passed on for pending, and passes no other on, for 65 s, though the destination may have been
gone when it came. Who was away for some seconds, and comes back by other neighbours, so stays out of reach for those
who were closer to it before. A babeld that is new has told nothing before, and its destination is new to all others.

So it is replaced where that costs nothing: when all its neighbours are gone, or others, or have given us up while this
machine slept; and where nothing else helps: when ways are offered to it, and none is taken, for longer than a question
and its answer need.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey

ALONE_PAUSE = 10.0
"""Seconds between two times for the first two reasons: a network that comes and goes is not worth more."""
ASLEEP, ASLEEP_HELLOS = 5.0, 16
"""Seconds, and intervals of hellos, in which we did not look: whoever is silent for as long has no neighbours left."""
NEAR = 10.0
"""Seconds for which who is lost still counts as next to us."""
PATIENCE, PATIENCE_HELLOS, PATIENCE_LAST = 1.0, 4, 4.0
"""Without a way at least so many seconds, and so many intervals of hellos, as far as those are no more than so many
seconds; at most twice as long, so that not all do it at once."""
SPREAD, SPREAD_LAST = 0.02, 30.0
"""Seconds more for each node of the network, at most, and for all: whoever does it first helps the others too."""
PAUSE_FIRST, PAUSE_LAST = 5.0, 640.0
"""Seconds between two times for the last reason. They double while it does not help."""
CALM = 60.0
"""Seconds in which all ways were taken, after which the first pause is enough again."""


@dataclass(frozen=True, slots=True)
class Start:
    """babeld is to be started anew. `stale`: the routes that it leaves lead nowhere any more."""

    reason: str
    stale: bool = False


class BabelRestartPolicy:
    """Looks at one survey after the other. Times are monotonic."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._met = False
        self._looked = float("inf")
        self._slept = 0.0
        """For how long, before we looked last."""
        self._alone_again = self._starved_again = 0.0
        self._calm = 0.0
        """When ways were last offered that were not taken."""
        self._pause = PAUSE_FIRST
        self._since: dict[Prefix, float] = {}
        self._patience = PATIENCE
        self._near: dict[Prefix, float] = {}
        """When whom was seen next to us last."""
        self._lost = False
        """Whether all ways were lost since."""
        self._life = 0

    def note(self, seen: Survey, now: float) -> Start | None:
        """Look at each survey: all ways may be lost, and others found, before babel has forgotten any neighbour.

        Whoever was next to us was nearest to us for all others, so that none of them may take the new ways.
        """
        self._follow(seen)
        if not seen.running:
            return None
        if not seen.peers:
            self._lost = bool(self._near)
        elif seen.neighbours:
            moved = self._lost and self._near.keys().isdisjoint(seen.neighbours)
            self._lost = False
            self._near = {peer: last for peer, last in self._near.items() if now < last + NEAR}
            self._near.update(dict.fromkeys(seen.neighbours, now))
            if moved and now >= self._alone_again:
                self._alone_again = now + ALONE_PAUSE
                return self._start("all its neighbours are others than before")
        return None

    def due(self, seen: Survey, now: float, hello: float) -> Start | None:
        """Whether babeld is to be started anew now. `hello` is its interval in seconds."""
        self._follow(seen)
        slept, self._looked = now - self._looked, now
        if not seen.running:
            return None
        if slept > max(ASLEEP, ASLEEP_HELLOS * hello):
            self._slept = slept
            return None
        slept, self._slept = self._slept, 0.0
        # If only we did not run, babel has the neighbours that it had.
        if slept and self._met and not seen.steady:
            self._alone_again = now + ALONE_PAUSE
            return self._start(f"this machine slept for {slept:.0f} s", stale=True)
        if seen.alone and self._met and now >= self._alone_again:
            self._alone_again = now + ALONE_PAUSE
            return self._start("all its neighbours are gone")
        self._met = self._met or not seen.alone
        return self._starving(seen, now, hello)

    def _follow(self, seen: Survey) -> None:
        if not seen.running or seen.life != self._life:
            self._life = seen.life
            self._forget()

    def _forget(self) -> None:
        """What was seen of another babeld says nothing of this one."""
        self._met = self._lost = False
        self._near.clear()
        self._since.clear()

    def _start(self, reason: str, *, stale: bool = False) -> Start:
        self._forget()
        return Start(reason, stale)

    def _starving(self, seen: Survey, now: float, hello: float) -> Start | None:
        if not self._since and seen.starved:
            self._patience = self._draw(seen, hello)
        self._since = {peer: self._since.get(peer, now) for peer in seen.starved}
        if self._since:
            self._calm = now
        elif now > self._calm + CALM:
            self._pause = PAUSE_FIRST
        late = sorted(peer for peer, since in self._since.items() if now >= since + self._patience)
        if not late or now < self._starved_again:
            return None
        self._starved_again = now + self._pause
        self._pause = min(2 * self._pause, PAUSE_LAST)
        self._patience = self._draw(seen, hello)
        more = f" and {len(late) - 1} more" if late[1:] else ""
        return self._start(f"it uses none of the routes that lead to {late[0]}{more}")

    def _draw(self, seen: Survey, hello: float) -> float:
        least = max(PATIENCE, min(PATIENCE_HELLOS * hello, PATIENCE_LAST))
        return self._chance.uniform(least, 2 * least + min(SPREAD * len(seen.peers), SPREAD_LAST))
