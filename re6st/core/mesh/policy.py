"""The policy of the mesh: which tunnels to open, keep, drain and close (wire.md 10.4, 10.7, 8.4).

`Mesh` takes events and returns actions; it owns the list of our client tunnels and of the clients of our servers. It
has no clock and no dice of its own, so the same code runs in the daemon, in a test and in a simulation.

A node keeps up to `client_count` client tunnels to peers picked at random among those it reaches only through others;
random far links keep the graph an expander. In a network of regions most of them are in its own region, and a share
leads to others, where it asks for somebody's address. It replaces the least useful one now and then, never one that
somebody can only be reached through. A node that nobody connects to stays modest (two tunnels), as it takes room from
others without giving any. A node that reaches nobody asks the registry and its memory at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from re6st.core.mesh.avoiding import Avoiding
from re6st.core.mesh.closing import Closing
from re6st.core.mesh.events import (
    Action,
    AddressLearned,
    AllowClose,
    AskAddress,
    AskBootstrap,
    AskClose,
    AskRegion,
    AvoidLink,
    BootstrapAnswered,
    BulkSurveyed,
    ClientDown,
    ClientUp,
    CloseAllowed,
    CloseAsked,
    CloseTunnel,
    DrainClient,
    DrainTunnel,
    EnsureSession,
    Event,
    LinkDead,
    LinkDoubted,
    LinkRevived,
    LinksLossy,
    LossSign,
    OpenTunnel,
    RegionAnswered,
    Resumed,
    Settings,
    SettingsChanged,
    Surveyed,
    TrustLink,
    TunnelDown,
    TunnelMoved,
    TunnelsLossy,
    TunnelsOutdated,
    TunnelUp,
    UndrainClient,
    UndrainTunnel,
    UplinksUsed,
    UplinkUp,
)
from re6st.core.mesh.leaving import Leavers
from re6st.core.mesh.opening import Opening
from re6st.core.mesh.phases import Phase
from re6st.core.mesh.state import State, Tunnel
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import INFINITY, NextHop
from re6st.core.routing.survey import SurveyLike
from re6st.core.wire.datagrams import Endpoint

__all__ = [
    "Action",
    "AddressLearned",
    "AllowClose",
    "AskAddress",
    "AskBootstrap",
    "AskClose",
    "AskRegion",
    "AvoidLink",
    "BootstrapAnswered",
    "BulkSurveyed",
    "ClientDown",
    "ClientUp",
    "CloseAllowed",
    "CloseAsked",
    "CloseTunnel",
    "DrainClient",
    "DrainTunnel",
    "EnsureSession",
    "Event",
    "LinkDead",
    "LinkDoubted",
    "LinkRevived",
    "LinksLossy",
    "Mesh",
    "OpenTunnel",
    "Phase",
    "RegionAnswered",
    "Resumed",
    "Settings",
    "SettingsChanged",
    "Surveyed",
    "TrustLink",
    "Tunnel",
    "TunnelDown",
    "TunnelMoved",
    "TunnelUp",
    "TunnelsLossy",
    "TunnelsOutdated",
    "UndrainClient",
    "UndrainTunnel",
    "UplinkUp",
    "UplinksUsed",
]

RESUME_TIME = 5.0
"""Seconds that a babeld which runs already has to tell its table."""
HEARTBEAT = 5.0
"""Seconds between two ticks at most: only who looks at the clock sees that it did not run for a while."""
ASLEEP = 10.0
"""Seconds between two ticks after which we did not run meanwhile: the machine slept, or was frozen. Peers give a
tunnel up after longer than that."""
STRAY_TIME = 30.0
"""Seconds after which a tunnel to another region is replaced that we have too many of: those of the time when we knew
nobody in ours. They take places, and one of two tunnels that lead out of the region is missing in it."""
AGAIN = 1.0
"""Seconds until another look, after something was decided or was due: it may have made way for more."""
MARGIN = 0.001
"""Seconds by which a deadline has passed when it is looked at."""


class Mesh:
    """The policy of one node.

    `known` are the endpoints that the node remembers of peers; it belongs to the caller. `locate` tells the country of
    a host, where it knows.
    """

    def __init__(
        self,
        settings: Settings,
        known: Mapping[Prefix, tuple[Endpoint, ...]],
        rng: Random,
        locate: Callable[[str], str] = lambda host: "",
    ) -> None:
        self.known = known
        self._rng = rng
        self._state = State(settings, locate)
        self._opening = Opening(self._state, known, rng)
        self._closing = Closing(self._state, rng)
        self._leavers = Leavers()
        self._avoiding = Avoiding(self._state, rng)
        self._resumed = float("-inf")
        """When we went on with an earlier run, while babel's first word is awaited."""
        self._ticked = float("inf")
        """When we were last asked what to do: not for long means that the machine slept."""
        self._due = float("inf")
        """The next moment for which there is a reason."""
        self._again = float("inf")
        """When to look again after something was decided."""
        self._decided = float("-inf")
        """When we last looked what is to be done."""

    # -- state, in words --

    @property
    def settings(self) -> Settings:
        return self._state.settings

    @property
    def survey(self) -> SurveyLike:
        return self._state.survey

    @property
    def tunnels(self) -> dict[Prefix, Tunnel]:
        """Our client tunnels."""
        return self._state.tunnels

    @property
    def clients(self) -> dict[Prefix, int]:
        """Peers connected to our servers, with the number of their tunnels."""
        return self._state.clients

    def reaches(self, peer: Prefix) -> bool:
        """Whether we have a route to a peer, or to its region, or a tunnel of the peer itself."""
        return self._state.reaches(peer)

    def region_of(self, peer: Prefix) -> Prefix | None:
        """The region of a peer by which it is known here; None where it is known by itself."""
        return self._state.region_of(peer) if self._state.is_outside(peer) else None

    @property
    def connected(self) -> bool:
        """Whether we reach a registry's node, which is everybody's proof of being in the network (wire.md 4.5)."""
        return self._state.connected

    @property
    def registry_node(self) -> Prefix:
        """The registry's node that we go by: of several our own, or the first that we reach."""
        return self._state.registry_node

    def why_avoided(self, peer: Prefix, interface: str) -> LossSign | None:
        """By what it was seen that packets get lost on a link, if other ways are used for that."""
        return self._avoiding.sign(peer, interface)

    @property
    def avoided_links(self) -> frozenset[NextHop]:
        """The next hops of the links that are avoided."""
        return self._avoiding.hops

    @property
    def limit(self) -> int:
        """How many client tunnels we want at most."""
        return self._state.limit

    # -- the two ways in --

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take an event in; returns what is to be done."""
        state = self._state
        self._watch(now)
        self._again = min(self._again, now + AGAIN)  # for those that return without a tick
        match event:
            case Resumed(tunnels):
                self._resumed = now
                # Nothing is replaced at once, nor by all at one time: a whole network may be upgraded.
                interval = state.settings.tunnel_refresh
                state.refreshed = now if interval == float("inf") else now - self._rng.uniform(0, interval / 2)
                for peer, interface in tunnels:
                    state.tunnels[peer] = Tunnel(peer, Phase.UP, now, interface, now)
            case TunnelUp(peer, interface, uplink):
                if state.settings.static_tunnel:
                    state.tunnels.setdefault(peer, Tunnel(peer, Phase.OPENING, now))
                if tunnel := state.tunnels.get(peer):
                    tunnel.uplink = uplink
                if tunnel and tunnel.phase is Phase.OPENING:
                    tunnel.enter(Phase.UP, now)
                    tunnel.interface, tunnel.alive = interface, now
            case TunnelMoved(peer, interface):
                self._closing.moved(peer, interface, now)
            case TunnelDown(peer):
                tunnel = state.tunnels.pop(peer, None)
                if tunnel and not tunnel.met and peer not in state.clients:
                    self._opening.failed(peer, now)
                if tunnel and tunnel.met:
                    self._opening.lost(tunnel, now)
                if tunnel and (tunnel.outdated or tunnel.moving) and (actions := self._opening.again(peer, now)):
                    return actions
            case ClientUp(peer):
                state.clients[peer] = state.clients.get(peer, 0) + 1
            case ClientDown(peer):
                state.clients[peer] = state.clients.get(peer, 1) - 1
                if state.clients[peer] <= 0:
                    del state.clients[peer]
                    return self._leavers.gone(peer) + self.tick(now)
            case Surveyed(survey):
                state.survey = survey
                if survey.running:
                    self._resumed = float("-inf")
            case BulkSurveyed(survey):
                state.bulk = survey
            case AddressLearned(peer, endpoints):
                if (opened := self._opening.address_learned(peer, endpoints, now)) is not None:
                    return opened
            case RegionAnswered(region, peer, endpoints):
                if (opened := self._opening.region_answered(region, peer, endpoints, now)) is not None:
                    return opened
            case BootstrapAnswered(peer, endpoints):
                if (opened := self._opening.bootstrap_answered(peer, endpoints, now)) is not None:
                    return opened
            case CloseAsked(peer):
                if peer not in state.clients:
                    return []  # anybody may ask, as often as messages are taken
                self._leavers.ask(peer, now)
            case CloseAllowed(peer):
                if actions := self._closing.may_go(peer, now):
                    return actions
            case SettingsChanged(settings):
                state.settings = settings
                return [*self._closing.respect_borders(now), *self.tick(now)]
            case TunnelsOutdated(peers):
                self._closing.outdated(peers, now)
            case TunnelsLossy(peers):
                state.lossy = peers
            case LinksLossy(hops, suspected):
                state.lossy_links, state.suspected_links = hops, suspected
            case LinkDoubted(peer, interface):
                self._closing.doubt_one(peer, interface, now)
            case LinkRevived(peer, interface):
                self._closing.trust(peer, interface)
            case LinkDead(peer, interface):
                return [*self._closing.dead(peer, interface, now), *self.tick(now)]
            case UplinkUp():
                self._opening.uplink_up(now)
            case UplinksUsed(count, misplaced):
                state.uplinks, state.misplaced = count, misplaced
        return self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """What is to be done at this moment: to be called at `next_deadline`. Another time does no harm."""
        was_due, phases = now >= self._due, self._phases()
        self._watch(now)
        actions = self._decide(now)
        self._decided = now
        changed = phases != self._phases() or any(not isinstance(action, EnsureSession) for action in actions)
        self._again = now + AGAIN if was_due or changed else float("inf")
        return actions

    def _phases(self) -> list[Phase]:
        return [tunnel.phase for tunnel in self._state.tunnels.values()]

    def next_deadline(self, now: float, heartbeat: float = HEARTBEAT) -> float:
        """When `tick` is to be called, if no event comes before; it changes with each event, and each tick."""
        avoided, settings = self._avoiding.peers, self._state.settings
        moments = (
            self._resumed + RESUME_TIME,
            self._state.refreshed + settings.tunnel_refresh,
            self._state.refreshed + (STRAY_TIME if settings.region_length else settings.tunnel_refresh),
            *self._opening.deadlines(),
            *self._closing.deadlines(avoided, self._decided),
            *self._avoiding.deadlines(),
            *self._leavers.deadlines(settings),
        )
        # What was due before, and could not be done, waits for something else.
        self._due = min((moment for moment in moments if moment > self._decided), default=float("inf"))
        return max(now, min(self._due + MARGIN, self._again, self._decided + heartbeat))

    def awake(self, now: float) -> None:
        """We ran until now, though nothing was due: for who asks for a longer heartbeat than the daemon's."""
        self._ticked = now

    def _watch(self, now: float) -> None:
        """Take note of how everything was until now, before that changes."""
        if now - self._ticked > ASLEEP:
            self._closing.doubt(now)
        self._ticked = now
        if now - self._resumed >= RESUME_TIME:
            self._opening.forgive(now)
            self._closing.watch(self._avoiding.peers, now)
            self._avoiding.watch(now)

    def _decide(self, now: float) -> list[Action]:
        if now - self._resumed < RESUME_TIME:
            return []  # babel is about to tell what is there
        actions: list[Action] = []
        actions += self._closing.give_up(now)
        actions += self._closing.advance(now)
        actions += self._avoiding.advance(now)
        actions += self._leavers.advance(self._state.survey, self._state.settings, now)
        actions += self._opening.reach_out(now)
        actions += self._opening.rejoin(now)
        actions += self._opening.recover(now)
        actions += self._refresh(now)
        actions += self._closing.remake(now)
        actions += self._closing.relocate(now)
        actions += self._closing.prefer_lan(now)
        actions += self._opening.meet(now)
        return actions

    def _refresh(self, now: float) -> list[Action]:
        """Now and then replace a tunnel, if there is somebody else to meet; at once for a wanted neighbour.

        At once also where one has become bad. One more than we may have goes even if there is nobody else, and so does
        one that leaves no room for the other part of our region.
        """
        state, interval = self._state, self._state.settings.tunnel_refresh
        early = self._opening.lacks_neighbour(now) or bool(self._closing.degraded(now))
        if state.settings.region_length and now - state.refreshed >= STRAY_TIME:
            early = early or self._closing.spare_across() > 0 or self._closing.lacks_room()
        if interval == float("inf") or (now - state.refreshed < interval and not early):
            return []
        distant = self._opening.distant()
        if not distant and len(state.tunnels) <= state.settings.client_count and not self._closing.lacks_room():
            return []
        nearest = min((state.survey.metrics.get(peer, INFINITY) for peer in distant), default=INFINITY)
        state.refreshed = now
        return self._closing.replace_worst(nearest, now)
