"""What the mesh policy knows at one moment: settings, the survey, our client tunnels, the clients of our servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from re6st.core.mesh.borders import may_meet
from re6st.core.mesh.events import Settings
from re6st.core.mesh.phases import Phase, check
from re6st.core.mesh.quality import Quality
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.regions import region_of
from re6st.core.routing.survey import Survey, SurveyLike
from re6st.core.wire.datagrams import Endpoint

MODEST = 2
"""Client tunnels of a node with one line that nobody is connected to (wire.md 10.4)."""
ACROSS_PART, ALONE_PART = 4, 2
"""One tunnel of so many leads to another region, where the network has regions, of a node that others connect to; and
the most, where there are not enough nodes in its own. The others of these find a way to it later, so there is room."""
NEAR_PART = 3
"""One tunnel of so many leads to a peer that is near; the others are random, which is what keeps the mesh together."""


@dataclass(slots=True)
class Tunnel:
    """One of our client tunnels. `since` is when the phase began, `alive` when babel last had a neighbour on it.

    Its phase is changed by `enter` alone.
    """

    peer: Prefix
    phase: Phase
    since: float
    interface: str = ""
    alive: float = 0.0
    met: bool = False
    """Whether babel ever had a neighbour on it."""
    asked: float = 0.0
    carried: frozenset[Prefix] = frozenset()
    """Its peer, and what went through it since we began to drain it."""
    doubted: float = float("-inf")
    """When its peer told us unasked where it is: it may have moved, and left the tunnel behind."""
    kept: int = 0
    """How often a drain was given up, as somebody has no other way."""
    rests: float = float("-inf")
    """Until when it is therefore not drained again."""
    outdated: bool = False
    """It is to be made anew, with other settings."""
    tried: bool = False
    """It was drained for this, though somebody has no other way or the peer does not answer."""
    endpoints: tuple[Endpoint, ...] = ()
    uplink: str = ""
    """Which of ours it goes over: its name, a gateway, or our address; empty where that is not known."""
    moving: bool = False
    """It is drained so that it can be opened anew over another uplink."""
    near: bool = False
    """It was opened because its peer is near."""
    quality: Quality = field(default_factory=Quality)
    degraded: float | None = None
    """Since when it is much worse than it was, while the others are not."""

    def enter(self, phase: Phase, now: float) -> None:
        """The next phase begins. Raises IllegalChange, and leaves the tunnel as it is, if it may not follow."""
        check(self.phase, phase)
        self.phase, self.since = phase, now


@dataclass(slots=True)
class State:
    """Shared by the rooms of the policy. `locate` tells the country of a host, where it knows."""

    settings: Settings
    locate: Callable[[str], str]
    survey: SurveyLike = field(default_factory=Survey)
    bulk: SurveyLike | None = None
    """The same of the throughput plane, on a node that has it."""
    tunnels: dict[Prefix, Tunnel] = field(default_factory=dict)
    clients: dict[Prefix, int] = field(default_factory=dict)
    """Peers connected to our servers, with the number of their tunnels."""
    lossy: frozenset[Prefix] = frozenset()
    """Peers whose tunnels have to send much again."""
    lossy_links: frozenset[NextHop] = frozenset()
    """Neighbours that do not answer many echo requests."""
    suspected_links: frozenset[NextHop] = frozenset()
    """Those of which a few are not answered, while there are the others."""
    uplinks: int = 1
    """Lines that our tunnels are spread over."""
    misplaced: frozenset[Prefix] = frozenset()
    """Peers whose tunnels had better go over another one."""
    refreshed: float = 0.0
    """When a tunnel was last opened, or chosen to be replaced."""
    _counted: tuple[SurveyLike, int] | None = None
    """How many nodes of our region a survey has."""

    @property
    def registry_node(self) -> Prefix:
        """The registry's node that we go by: of several our own, or the first that we reach."""
        nodes = (self.settings.registry, *self.settings.other_registries)
        if self.settings.own in nodes:
            return self.settings.own
        return next(filter(self.reaches, nodes), nodes[0])

    @property
    def connected(self) -> bool:
        """Whether we reach a registry's node, which is everybody's proof of being in the network (wire.md 4.5)."""
        node = self.registry_node
        return bool(self.survey.peers) if node == self.settings.own else self.reaches(node)

    @property
    def undivided(self) -> bool:
        """Whether we reach the first registry's node. Who reaches that of another one alone may be in a part of the
        network that was cut off: there, both parts have a registry's node."""
        first = self.settings.registry
        return self.connected if first == self.settings.own else self.reaches(first)

    @property
    def limit(self) -> int:
        """How many client tunnels we want at most."""
        return self.settings.client_count if self.clients or not self.connected else self.modest

    @property
    def modest(self) -> int:
        """Client tunnels of a node that nobody is connected to: so many for each of its lines."""
        return min(MODEST * max(self.uplinks, 1), self.settings.client_count)

    @property
    def near_part(self) -> int:
        """How many of our tunnels lead to peers that are near. The rest are random."""
        return self.limit // NEAR_PART

    @property
    def region(self) -> Prefix:
        """The region that we are in; of a flat network, the whole."""
        return region_of(self.settings.own, self.settings.region_length)

    def region_of(self, peer: Prefix) -> Prefix:
        """The region that a peer is in, by which it is known if that is not ours."""
        return region_of(peer, self.settings.region_length)

    def is_outside(self, peer: Prefix) -> bool:
        """Whether a peer is in another region, or is one."""
        length, own = self.settings.region_length, self.settings.own
        if not length:
            return False
        if peer.length > length < own.length:  # without new values: this is asked for each peer
            return peer.value >> peer.length - length != own.value >> own.length - length
        return region_of(peer, length) != region_of(own, length)

    def reaches(self, peer: Prefix) -> bool:
        """Whether we have a route to a peer, or to its region, or a tunnel of the peer itself."""
        seen = self.survey.peers
        return peer in seen or peer in self.clients or (self.is_outside(peer) and self.region_of(peer) in seen)

    @property
    def across(self) -> int:
        """How many of our tunnels are to lead to other regions: more where there are few nodes in ours."""
        length, limit = self.settings.region_length, self.limit
        if not length:
            return 0
        share = limit // ACROSS_PART if self.clients else 0
        return max(share, min(limit - self.inside, (limit + 1) // ALONE_PART))

    @property
    def inside(self) -> int:
        """How many nodes of our region we have routes to: all that have more bits than a region."""
        survey, length = self.survey, self.settings.region_length
        if self._counted is None or self._counted[0] is not survey:
            self._counted = survey, sum(peer.length > length for peer in survey.peers)
        return self._counted[1]

    @property
    def is_alone(self) -> bool:
        """Whether we are in the network, and know nobody of our region, which has room for others."""
        length = self.settings.region_length
        return 0 < length < self.settings.own.length and bool(self.survey.peers) and not self.inside

    def carried_by(self, interface: str) -> frozenset[Prefix]:
        """Destinations whose traffic leaves by this interface now, in any plane."""
        carried = self.survey.carried_by(interface)
        return carried if self.bulk is None else carried | self.bulk.carried_by(interface)

    def permits(self, endpoint: Endpoint) -> bool:
        """Whether a tunnel to there crosses no border that the network closes."""
        settings = self.settings
        if not settings.same_country:
            return True
        country = endpoint.country or self.locate(endpoint.host)
        return may_meet(settings.country.upper(), country.upper(), settings.same_country)
