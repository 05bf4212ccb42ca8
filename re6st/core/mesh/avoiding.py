"""Links on which packets get lost, of our tunnels and of our servers' clients: they rest, so that others are used.

Babel no longer hears such a neighbour, who notices by what we say that we hear: so the routes leave the link at both
ends. The tunnel stays, and is used again at once where somebody has no other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from re6st.core.mesh.events import Action, AvoidLink, LossSign, TrustLink
from re6st.core.mesh.state import State
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop

SPACING = 3.0
"""Seconds between two links that we begin to avoid: what the first brings about is seen then."""
TIME_FIRST, TIME_LAST, DOUBLINGS = 60.0, 3600.0, 6
"""Seconds that one is avoided: at most twice as long, and twice as long each time."""
LEARNS = 10.0
"""Seconds after which babeld, when it was started anew, says whom nobody reaches."""
RECENT = 15.0
"""Seconds since it was last seen to be lossy, within which it is not tried again."""
FORGETS = 20.0
"""Seconds after which babel's history of hellos has nothing any more of those that we dropped."""


@dataclass(slots=True)
class _Link:
    """One that is avoided, or was. Times are monotonic."""

    hop: NextHop
    since: float
    until: float
    """Until when it is avoided, or after that until when it is not to be again."""
    seen: float
    """When it was last lossy."""
    sign: LossSign
    times: int = 1
    measured: bool = False
    """Whether that was by echo requests, which go on meanwhile: so it is known when it is a good one again."""
    avoided: bool = True
    broken: bool = False
    """Its tunnel ended meanwhile: the next one, which leads the same way, is avoided for the rest of the time."""
    recovers: bool = False
    """It was avoided for its time: hellos that are missed are those that we dropped."""

    def waits(self, now: float) -> bool:
        """Whether the next tunnel is to be avoided without having lost anything."""
        return self.broken and now < self.until


class Avoiding:
    """Decides which links to avoid, by what the `state` says of losses."""

    def __init__(self, state: State, rng: Random) -> None:
        self._state = state
        self._rng = rng
        self._links: dict[Prefix, _Link] = {}
        self._running_since = float("inf")

    @property
    def peers(self) -> frozenset[Prefix]:
        """Those whose links are avoided now."""
        return frozenset(peer for peer, link in self._links.items() if link.avoided)

    def sign(self, peer: Prefix, interface: str) -> LossSign | None:
        """By what it was seen that a link loses packets, if it is avoided. The peer may have others meanwhile."""
        link = self._links.get(peer)
        return link.sign if link is not None and link.avoided and link.hop.interface == interface else None

    @property
    def hops(self) -> frozenset[NextHop]:
        """The next hops of these links."""
        return frozenset(link.hop for link in self._links.values() if link.avoided)

    def watch(self, now: float) -> None:
        """Take note of what the links have been like until now."""
        for peer, link in self._links.items():
            measured = link.hop in self._state.lossy_links
            if link.avoided and (measured or peer in self._state.lossy):
                link.seen, link.measured = now, measured

    def deadlines(self) -> Iterator[float]:
        """When something may be to be done though nothing happens. Moments that have passed may be among them."""
        for link in self._links.values():
            yield link.until
            if link.avoided:
                yield link.since + SPACING
                yield link.since + self._state.settings.drain_time_of(link.hop.interface)
                yield self._running_since + LEARNS

    def advance(self, now: float) -> list[Action]:
        """End what is to end, and begin with one more link if there is one."""
        if not self._state.survey.running:
            self._running_since = float("inf")
            return []
        self._running_since = min(self._running_since, now)
        self.watch(now)
        return self._trust(now) + self._avoid(now)

    def _trust(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for peer, link in list(self._links.items()):
            if not link.avoided:
                if now > link.until + TIME_LAST:
                    del self._links[peer]
                continue
            if not self._is_held(peer, link.hop):
                link.broken = True
            elif self._is_needed(peer, link, now) or not self._state.settings.drains:
                link.until = now + self._time(1)
            elif now < link.until:
                continue
            elif now - link.seen < RECENT and link.measured:
                link.until = link.seen + RECENT
                continue
            elif now - link.seen < RECENT:
                link.times += 1
                link.until = now + self._time(link.times)
                continue
            else:
                link.until, link.recovers = now + FORGETS, True
            link.avoided = False
            actions.append(TrustLink(peer, link.hop))
        return actions

    def _is_held(self, peer: Prefix, hop: NextHop) -> bool:
        """Whether there still is a tunnel behind this next hop."""
        tunnel = self._state.tunnels.get(peer)
        if tunnel is not None and tunnel.interface == hop.interface:
            return True
        # A client may have moved to a WireGuard link, or to another of our servers: then it is heard there.
        links = self._state.survey.neighbours.get(peer, ())
        return peer in self._state.clients and (not links or any(link.hop == hop for link in links))

    def _is_needed(self, peer: Prefix, link: _Link, now: float) -> bool:
        """Whether somebody has no other way: seen before babel takes the link for lost, or by the peer itself.

        Who is reached by other ways brings all along whom the link leads to.
        """
        if now - link.since < self._state.settings.drain_time_of(link.hop.interface):
            return False
        survey = self._state.survey
        unreached = peer not in survey.peers and now - self._running_since > LEARNS
        return unreached or any(each.hop == link.hop and each.carried for each in survey.neighbours.get(peer, ()))

    def _avoid(self, now: float) -> list[Action]:
        bad = self._lossy(now)
        if not bad or not self._state.settings.drains:
            return []
        # Where most are bad it is our own uplink's doing, and none of the others is better.
        worse = bad.keys() | self.peers | self._suspected()
        if 2 * len(worse) > len(self._state.survey.neighbours.keys() | self.peers):
            return []
        if any(link.avoided and now - link.since < SPACING for link in self._links.values()):
            return []
        for peer, (hop, sign) in bad.items():
            known = self._links.get(peer)
            if known is not None and known.waits(now):
                self._links[peer] = _Link(hop, now, known.until, now, sign, known.times)
            elif known is None or now >= known.until or (known.recovers and sign is LossSign.REQUESTS):
                times = known.times + 1 if known else 1
                self._links[peer] = _Link(hop, now, now + self._time(times), now, sign, times)
            else:
                continue
            return [AvoidLink(peer, hop, sign)]
        return []

    def _suspected(self) -> set[Prefix]:
        hops = self._state.suspected_links
        neighbours = self._state.survey.neighbours.items()
        return {peer for peer, links in neighbours if any(link.hop in hops for link in links)} if hops else set()

    def _time(self, times: int) -> float:
        return min(TIME_FIRST * 2.0 ** min(times - 1, DOUBLINGS), TIME_LAST) * self._rng.uniform(1, 2)

    def _lossy(self, now: float) -> dict[Prefix, tuple[NextHop, LossSign]]:
        """Neighbours on whose link packets get lost now, or did on the one before, as far as we do not avoid it yet."""
        state, found = self._state, dict[Prefix, tuple[NextHop, LossSign]]()
        for peer, links in state.survey.neighbours.items():
            if len(links) != 1 or peer == state.settings.own:
                continue  # of two links to one peer it is not known which; and who says to be us is another's affair
            known, hop = self._links.get(peer), links[0].hop
            if not self._is_held(peer, hop) or hop.interface in state.settings.lan or (known and known.avoided):
                continue
            if hop in state.lossy_links:
                found[peer] = hop, LossSign.REQUESTS
            elif peer in state.lossy:
                found[peer] = hop, LossSign.SENT_AGAIN
            elif hop in state.survey.patchy:
                found[peer] = hop, LossSign.HELLOS
            elif known and known.waits(now):
                found[peer] = hop, known.sign
        return found
