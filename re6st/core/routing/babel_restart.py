"""Decides when to restart babeld, so that it forgets everything.

To prevent loops, babel does not use a route whose metric is higher than that of a route which it announced itself
before, unless the destination has increased its sequence number since (RFC 8966 section 3.7). A router that lacks a
route requests a new sequence number. babeld 1.12.1 considers each such request that it forwarded as pending, and
forwards no other one for 65 s, even if the destination was gone when the request came. So a node that was away for some
seconds, and returns through other neighbours, stays out of reach for the nodes that were closer to it before. A new
babeld has announced nothing yet, and is a new destination for all others. So we restart it where that costs nothing: if
all its neighbours are gone, or replaced by others, or have given us up while this machine slept. And we restart it
where nothing else helps: if routes are offered to it and it uses none of them for longer than a request and its answer
need.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey

ALONE_PAUSE = 10.0
"""Seconds between two restarts for the first two reasons: more would not help a network that comes and goes."""
ASLEEP, ASLEEP_HELLOS = 5.0, 16
"""After a pause of so many seconds, and so many intervals of hellos, in which we did not run, the neighbours have given
us up.
"""
NEAR = 10.0
"""For so many seconds, a lost neighbour still counts as having been next to us."""
PATIENCE, PATIENCE_HELLOS, PATIENCE_LAST = 1.0, 4, 4.0
"""We restart babeld if a destination has had no route for so many seconds, and so many intervals of hellos, but these
count for no more than so many seconds; at most twice as long, so that not all nodes do it at once.
"""
SPREAD, SPREAD_LAST = 0.02, 30.0
"""Seconds more for each node of the network, and the maximum for all: the first node that restarts helps the others,
too.
"""
PAUSE_FIRST, PAUSE_LAST = 5.0, 640.0
"""Seconds between two restarts for the last reason. The time doubles while a restart does not help."""
CALM = 60.0
"""After so many seconds in which all routes were used, the first pause is enough again."""


@dataclass(frozen=True, slots=True)
class Start:
    """babeld is to be restarted. `stale`: the routes that it leaves lead nowhere any more."""

    reason: str
    stale: bool = False


class BabelRestartPolicy:
    """Looks at one survey after the other. Times are monotonic."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._met = False
        self._looked = float("inf")
        self._slept = 0.0
        """How long the last such pause was, until it is decided what follows from it."""
        self._woke = 0.0
        """When we took note of it: what babeld knew before says nothing."""
        self._alone_again = self._starved_again = 0.0
        self._calm = 0.0
        """When routes were last offered that babel did not use."""
        self._pause = PAUSE_FIRST
        self._since: dict[Prefix, float] = {}
        self._patience = PATIENCE
        self._near: dict[Prefix, float] = {}
        """When each neighbour was last seen next to us."""
        self._lost = False
        """Whether all routes have been lost since."""
        self._generation = 0

    def note(self, seen: Survey, now: float) -> Start | None:
        """Look at each survey: all routes may be lost, and others found, before babel has forgotten any neighbour.

        For all other nodes, the path to a node next to us was shortest through us, so none of them may use the new
        routes.
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

    @property
    def doubts(self) -> bool:
        """Whether what babel knows now decides: it is to be read soon."""
        return bool(self._slept or self._since)

    def due(self, seen: Survey, now: float, hello: float, age: float = 0.0) -> Start | None:
        """Whether to restart babeld now. `hello` is its interval in seconds; what was seen is what babel knew `age`
        seconds ago.
        """
        self._follow(seen)
        slept, self._looked = now - self._looked, now
        if not (seen.running or seen.late):
            return None
        if slept > max(ASLEEP, ASLEEP_HELLOS * hello):
            self._slept, self._woke = slept, now
            return None
        if seen.late or (self._slept and now - age < self._woke):
            return None
        slept, self._slept = self._slept, 0.0
        # If only we did not run, babel still has the neighbours that it had.
        if slept and self._met and not seen.steady:
            self._alone_again = now + ALONE_PAUSE
            return self._start(f"this machine slept for {slept:.0f} s", stale=True)
        if seen.alone and self._met and now >= self._alone_again:
            self._alone_again = now + ALONE_PAUSE
            return self._start("all its neighbours are gone")
        self._met = self._met or not seen.alone
        return self._starving(seen, now, hello, now - age)

    def _follow(self, seen: Survey) -> None:
        if not (seen.running or seen.late) or seen.generation != self._generation:
            self._generation = seen.generation
            self._forget()

    def _forget(self) -> None:
        """A new babeld: what was seen of the previous one says nothing about it."""
        self._met = self._lost = False
        self._near.clear()
        self._since.clear()

    def _start(self, reason: str, *, stale: bool = False) -> Start:
        self._forget()
        return Start(reason, stale)

    def _starving(self, seen: Survey, now: float, hello: float, at: float) -> Start | None:
        if not self._since and seen.starved:
            self._patience = self._draw(seen, hello)
        self._since = {peer: self._since.get(peer, at) for peer in seen.starved}
        if self._since:
            self._calm = now
        elif now > self._calm + CALM:
            self._pause = PAUSE_FIRST
        late = sorted(peer for peer, since in self._since.items() if at >= since + self._patience)
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
