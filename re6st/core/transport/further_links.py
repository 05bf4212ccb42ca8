"""Which further WireGuard links a node opens, beside the first one with a peer, and over which lines. No input, no
output.

The policy of the mesh has one tunnel with each peer, over one line. Where that leaves lines unused, its two ends have
further links beside it, each over a line of its own, of either end: for the policy all of them are that one tunnel.
That is so where there are few neighbours, so that few tunnels could go over each line, or where this machine has a line
that no tunnel went over for a while. Who opened the tunnel opens them, one after the other. A pair of lines, ours and
the peer's, is taken only if one of them has no link with that peer yet: so there are as many links as lines, and
LINES_LIMIT at most.
All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from re6st.core.limits.pauses import Pauses
from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import PEERS_LIMIT, pause_after
from re6st.core.wire.further_links import LINES_LIMIT, Address
from re6st.core.wire.wireguard import Reason

FEW, MANY = 4, 8
"""Neighbours: with fewer than FEW, links are opened over every line; from MANY on those that serve nothing end."""
IDLE = 60.0
"""Seconds for which no tunnel went over a line, until a further link does where there are more neighbours: the policy
may be about to open tunnels over it, or to move some there."""
LOST_PAUSE = 20.0
"""Seconds until another link is opened to a peer of which one was lost that had been up."""
TELL_AGAIN = 0.5, 2.0, 10.0, 120.0
"""Seconds until a peer is told the same again; after the last one always as late."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two lines of a link: the name of ours, empty where there is but one, and where the peer's is reached."""

    line: str
    place: Address


@dataclass(frozen=True, slots=True)
class LinkedPeer:
    """A peer with whom we opened the tunnel, and which can have further links."""

    pairs: tuple[Pair, ...]
    """The lines of the links that there are with it, the first one among them, or that are about to be."""
    places: tuple[Address, ...]
    """Where its lines are reached, as it says."""


class FurtherLinkChoice:
    """Decides for one node."""

    def __init__(self) -> None:
        self._pauses: Pauses[Reason] = Pauses(PEERS_LIMIT)
        self._idle: dict[str, float] = {}
        """Since when no tunnel goes over a line."""

    def next(
        self,
        lines: Mapping[str, Set[int]],
        used: Set[str],
        neighbours: int,
        peers: Mapping[Prefix, LinkedPeer],
        now: float,
    ) -> tuple[Prefix, Pair] | None:
        """The next link to open. `lines` are ours that are up, with the families (4, 6) that they carry, `used` those
        that any tunnel of ours goes over, and `neighbours` how many there are.
        """
        self._idle = {name: self._idle.get(name, now) for name in lines if name not in used}
        few = neighbours < FEW
        idle = {name for name, since in self._idle.items() if now - since >= IDLE}
        ours = lines if few else {name: each for name, each in lines.items() if name in idle}
        for peer, known in peers.items():
            if self._pauses.reason(peer, now) is None and (pair := _best(ours, known, elsewhere=few)) is not None:
                return peer, pair
        return None

    def ended(self, peer: Prefix, reason: Reason, now: float, *, was_up: bool) -> None:
        """A further link with a peer ended, or did not come up: none is opened with it for a while."""
        self._pauses.begin(peer, reason, LOST_PAUSE if was_up else pause_after(reason), now)


def serves(line: str, lines: Mapping[str, Set[int]], others: Set[str], neighbours: int) -> bool:
    """Whether a further link over one of our lines is to stay: `others` are those that other tunnels go over."""
    return line in lines and (neighbours < MANY or line not in others)


def _best(lines: Mapping[str, Set[int]], known: LinkedPeer, *, elsewhere: bool) -> Pair | None:
    """The lines of another link with a peer: those with the fewest; None if all have one. `elsewhere`: a line of the
    peer that has none is reason enough.
    """
    if len(known.pairs) >= LINES_LIMIT:
        return None
    ours, theirs = Counter(pair.line for pair in known.pairs), Counter(pair.place for pair in known.pairs)
    places: Sequence[Address] = tuple(dict.fromkeys((*known.places, *(pair.place for pair in known.pairs))))
    found = [
        Pair(line, place)
        for line, families in lines.items()
        for place in places
        if place.version in families and (not ours[line] or (elsewhere and place in known.places and not theirs[place]))
    ]
    return min(found, key=lambda pair: (ours[pair.line] + theirs[pair.place], ours[pair.line]), default=None)


class Telling:
    """When each peer is told of places: what is new at once, then again and again, as datagrams get lost."""

    def __init__(self) -> None:
        self._told: dict[Prefix, tuple[object, int, float]] = {}
        """What it was told, how often, and when it is told again."""

    def due(self, peer: Prefix, news: object, now: float) -> bool:
        """Whether a peer is to be told this now: then it is."""
        what, times, again = self._told.get(peer, (None, 0, now))
        if what != news:
            times, again = 0, now
        if now < again:
            return False
        self._told[peer] = news, times + 1, now + TELL_AGAIN[min(times, len(TELL_AGAIN) - 1)]
        return True

    def knows(self, peer: Prefix) -> bool:
        """Whether a peer was told anything."""
        return peer in self._told

    def keep(self, peers: Set[Prefix]) -> None:
        """Forget all others."""
        self._told = {peer: each for peer, each in self._told.items() if peer in peers}
