"""The policy of the mesh: which tunnels to open, keep, drain and close (wire.md 10.4, 10.7, 8.4).

`Mesh` takes events and returns actions; it owns the list of our client tunnels and of the clients of our servers. It
has no clock and no dice of its own, so the same code runs in the daemon, in a test and in a simulation.

A node keeps up to `client_count` client tunnels to peers picked at random among those it reaches only through others;
random far links keep the graph an expander. It replaces the least useful one now and then, never one that somebody can
only be reached through. A node that nobody connects to stays modest (two tunnels), as it takes room from others without
giving any. A node that reaches nobody asks the registry and its memory at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from re6st.core.border import may_meet
from re6st.core.leaving import Leavers
from re6st.core.mesh_events import (
    Action,
    AddressLearned,
    AllowClose,
    AskAddress,
    AskBootstrap,
    AskClose,
    BootstrapAnswered,
    ClientDown,
    ClientUp,
    CloseAllowed,
    CloseAsked,
    CloseTunnel,
    DrainClient,
    DrainTunnel,
    EnsureSession,
    Event,
    OpenTunnel,
    Settings,
    SettingsChanged,
    Surveyed,
    TunnelDown,
    TunnelsOutdated,
    TunnelUp,
    UndrainClient,
    UndrainTunnel,
    UplinkUp,
)
from re6st.core.prefix import Prefix
from re6st.core.survey import Survey
from re6st.core.wire import Endpoint

MODEST = 2
"""Client tunnels of a node that nobody is connected to (wire.md 10.4)."""
FIRST_TUNNELS = 3
"""Tunnels opened at once from memory by a node that reaches nobody."""
ASK_TIME = 8.0
"""Seconds until a question for an address counts as lost."""
ASK_AGAIN = 10.0
"""Seconds between two questions whether we may close: datagrams get lost."""
RETRY_FIRST, RETRY_LAST = 2.0, 600.0
"""Seconds before a peer that could not be reached is tried again, doubling."""
RETRY_ALONE = 30.0
"""The most while we reach nobody: then it is more likely us than them."""
TOLD_AGAIN = 60.0
"""Seconds between two tries of a peer only because it told us an address: it may be anybody's."""
FAILURES_COUNTED = 9
"""After so many in a row the wait is RETRY_LAST."""
BOOTSTRAP_FIRST, BOOTSTRAP_LAST = 1.0, 60.0
REMAKE_TIME = 5.0
"""Seconds between two tunnels that are made anew: babel has met the peer on the first one then."""
DEAD_TIME = 12.0
"""Seconds without a babel neighbour after which a tunnel that had one is given up."""
MOVED_TIME = 2.0
"""The same where the peer has just told us another address."""
PARTITION_WAIT = 10.0
LAN_TIME = 10.0
"""Seconds after which a tunnel is given up whose peer is also met on the LAN."""


__all__ = [
    "Action",
    "AddressLearned",
    "AllowClose",
    "AskAddress",
    "AskBootstrap",
    "AskClose",
    "BootstrapAnswered",
    "ClientDown",
    "ClientUp",
    "CloseAllowed",
    "CloseAsked",
    "CloseTunnel",
    "DrainClient",
    "DrainTunnel",
    "EnsureSession",
    "Event",
    "Mesh",
    "OpenTunnel",
    "Phase",
    "Settings",
    "SettingsChanged",
    "Surveyed",
    "Tunnel",
    "TunnelDown",
    "TunnelUp",
    "TunnelsOutdated",
    "UndrainClient",
    "UndrainTunnel",
    "UplinkUp",
]


class Phase(Enum):
    """Life of a client tunnel."""

    OPENING = "opening"
    UP = "up"
    DRAINING = "draining"
    """Routes are moving away."""
    ASKED = "asked"
    """Nothing goes through it any more; the peer was asked."""
    CLOSING = "closing"


@dataclass(slots=True)
class Tunnel:
    """One of our client tunnels. `since` is when the phase began, `alive` when babel last had a neighbour on it."""

    peer: Prefix
    phase: Phase
    since: float
    interface: str = ""
    alive: float = 0.0
    met: bool = False
    """Whether babel ever had a neighbour on it."""
    asked: float = 0.0
    carried: frozenset[Prefix] = frozenset()
    """What went through it when we began to drain it."""
    doubted: float = float("-inf")
    """When its peer told us unasked where it is: it may have moved, and left the tunnel behind."""
    needed: bool = False
    """Draining it once cost somebody the way: it is not tried again."""
    outdated: bool = False
    """It is to be made anew, with other settings."""
    tried: bool = False
    """It was drained for this, though somebody has no other way or the peer does not answer."""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(slots=True)
class _Failures:
    count: int = 0
    until: float = 0.0
    told: float = float("-inf")
    """When the peer last told us unasked where it is, and so was tried before its time."""


@dataclass(slots=True)
class _Wait:
    """When the registry may be asked for a peer again, and how long after that."""

    until: float = 0.0
    next: float = field(default=BOOTSTRAP_FIRST)
    pending: bool = False


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
        self.settings = settings
        self._locate = locate
        self.tunnels: dict[Prefix, Tunnel] = {}
        self.clients: dict[Prefix, int] = {}
        """Peers connected to our servers, with the number of their tunnels."""
        self.survey = Survey()
        self._known = known
        self._rng = rng
        self._asked: dict[Prefix, float] = {}
        self._failures: dict[Prefix, _Failures] = {}
        self._leavers = Leavers()
        self._bootstrap = _Wait()
        self._refreshed = 0.0
        self._remade = 0.0
        """When the next tunnel that is outdated may be made anew."""
        self._partitioned: float | None = None

    # -- state, in words --

    @property
    def connected(self) -> bool:
        """Whether we reach the registry's node, which is everybody's proof of being in the network (wire.md 4.5)."""
        registry, own = self.settings.registry, self.settings.own
        if registry == own:
            return bool(self.survey.peers)
        return registry in self.survey.peers or registry in self.clients

    @property
    def limit(self) -> int:
        """How many client tunnels we want at most."""
        count = self.settings.client_count
        return count if self.clients or not self.connected else min(MODEST, count)

    # -- the two ways in --

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take an event in; returns what is to be done."""
        match event:
            case TunnelUp(peer, interface):
                if self.settings.given:
                    self.tunnels.setdefault(peer, Tunnel(peer, Phase.OPENING, now))
                tunnel = self.tunnels.get(peer)
                if tunnel and tunnel.phase is Phase.OPENING:
                    tunnel.phase, tunnel.since, tunnel.interface, tunnel.alive = Phase.UP, now, interface, now
            case TunnelDown(peer):
                tunnel = self.tunnels.pop(peer, None)
                if tunnel and not tunnel.met and peer not in self.clients:
                    self._failed(peer, now)
                if tunnel and tunnel.outdated and (again := self._open(peer, self._known.get(peer, ()), now)):
                    return again
            case ClientUp(peer):
                self.clients[peer] = self.clients.get(peer, 0) + 1
            case ClientDown(peer):
                self.clients[peer] = self.clients.get(peer, 1) - 1
                if self.clients[peer] <= 0:
                    del self.clients[peer]
                    return self._leavers.gone(peer) + self.tick(now)
            case Surveyed(survey):
                self.survey = survey
            case AddressLearned(peer, endpoints):
                if self._asked.pop(peer, None) is not None and self._missing() > 0:
                    actions = self._open(peer, endpoints, now)
                    if not actions:
                        self._failed(peer, now)
                    return actions
                if endpoints:
                    self._told_unasked(peer, now)
            case BootstrapAnswered(peer, endpoints):
                self._bootstrap.pending = False
                if peer is not None and peer not in self.survey.peers and self._room() > 0:
                    return self._open(peer, endpoints, now)
            case CloseAsked(peer):
                if peer in self.clients:
                    self._leavers.ask(peer, now)
            case CloseAllowed(peer):
                tunnel = self.tunnels.get(peer)
                if tunnel and tunnel.phase is Phase.ASKED:
                    # What is not drained may have been taken into use again since.
                    may_close = self._may_drain(tunnel)
                    return [self._close(tunnel, "replaced", now) if may_close else self._keep(tunnel, now)]
            case SettingsChanged(settings):
                self.settings = settings
                return [*self._respect_borders(now), *self.tick(now)]
            case TunnelsOutdated(peers):
                for peer in peers & self.tunnels.keys():
                    self.tunnels[peer].outdated = True
                # Others are told the same at the same time.
                self._remade = max(self._remade, now + self._rng.uniform(0, self.settings.close_time))
            case UplinkUp():
                self._failures.clear()
                self._bootstrap = _Wait(
                    min(self._bootstrap.until, now + BOOTSTRAP_FIRST), pending=self._bootstrap.pending
                )
        return self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """What is to be done at this moment. To be called every second or so."""
        actions: list[Action] = []
        actions += self._give_up(now)
        actions += self._advance_closing(now)
        actions += self._leavers.advance(self.survey, self.settings, now)
        actions += self._reach_out(now)
        actions += self._refresh(now)
        actions += self._remake(now)
        actions += self._prefer_lan(now)
        actions += self._meet(now)
        return actions

    def _told_unasked(self, peer: Prefix, now: float) -> None:
        """The peer has moved: what failed may work now, and a tunnel that falls silent will not come back."""
        failures, tunnel = self._failures.get(peer), self.tunnels.get(peer)
        if failures and now - failures.told > TOLD_AGAIN:
            failures.until = failures.told = now
        if tunnel:
            tunnel.doubted = now

    # -- closing --

    def _give_up(self, now: float) -> list[Action]:
        """Close tunnels that are doubled by the peer's own one, or that babel sees nobody through."""
        actions: list[Action] = []
        for tunnel in list(self.tunnels.values()):
            if tunnel.phase in (Phase.CLOSING, Phase.OPENING):
                continue
            if not self.survey.running:
                tunnel.alive = now
            elif tunnel.interface in self.survey.alive:
                tunnel.alive, tunnel.met = now, True
                self._failures.pop(tunnel.peer, None)
            patience = DEAD_TIME if tunnel.met else self.settings.meeting_time
            if tunnel.met and now - tunnel.doubted < DEAD_TIME:
                patience = MOVED_TIME
            if tunnel.peer in self.clients and self.settings.own < tunnel.peer:
                actions.append(self._close(tunnel, "doubled by the peer's own tunnel", now))
            elif tunnel.phase is Phase.UP and now - tunnel.alive > patience:
                actions.append(self._close(tunnel, f"silent for {patience:g} s", now))
        return actions

    def _advance_closing(self, now: float) -> list[Action]:
        """The client's side of wire.md 10.7: wait until nothing is carried, ask, and go back if nobody answers.

        Go back at once if somebody cannot be reached any more: babel's table also holds ways that lead back through
        ourselves, so that only draining shows who has another one.
        """
        actions: list[Action] = []
        for tunnel in list(self.tunnels.values()):
            draining = tunnel.phase is Phase.DRAINING
            if not draining and tunnel.phase is not Phase.ASKED:
                continue
            if tunnel.carried - self.survey.peers:
                tunnel.needed = draining and self.survey.running
                actions.append(self._keep(tunnel, now))
            elif draining and not self.survey.carried_by(tunnel.interface):
                tunnel.phase, tunnel.since, tunnel.asked = Phase.ASKED, now, now
                actions.append(AskClose(tunnel.peer))
            elif now - tunnel.since > self.settings.close_time:
                actions.append(self._keep(tunnel, now))
            elif not draining and now - tunnel.asked > ASK_AGAIN:
                tunnel.asked = now
                actions.append(AskClose(tunnel.peer))
        return actions

    def _keep(self, tunnel: Tunnel, now: float) -> UndrainTunnel:
        tunnel.phase, tunnel.since, tunnel.alive = Phase.UP, now, now
        return UndrainTunnel(tunnel.peer)

    def _close(self, tunnel: Tunnel, reason: str, now: float) -> CloseTunnel:
        tunnel.phase, tunnel.since = Phase.CLOSING, now
        return CloseTunnel(tunnel.peer, reason)

    def _respect_borders(self, now: float) -> list[Action]:
        """Close tunnels that were opened when we did not know yet that they cross a border."""
        return [
            self._close(tunnel, "it crosses a border that the network closes", now)
            for tunnel in self.tunnels.values()
            if tunnel.phase is not Phase.CLOSING and not all(map(self._permitted, tunnel.endpoints))
        ]

    def _refresh(self, now: float) -> list[Action]:
        """Now and then replace the least useful tunnel, if there is somebody else to meet; at once for a neighbour."""
        interval = self.settings.tunnel_refresh
        early = interval < float("inf") and self._lacks_neighbour(now)
        if (now - self._refreshed < interval and not early) or not self._distant():
            return []
        self._refreshed = now
        candidates = [t for t in self.tunnels.values() if t.phase is Phase.UP]
        if len(self.tunnels) < self.limit or len(candidates) < len(self.tunnels):
            return []
        candidates = [
            t
            for t in candidates
            if t.peer not in self.settings.neighbours
            and not t.needed
            and not self.survey.sole_by(t.interface)
            and self._may_drain(t)
        ]
        if not candidates:
            return []
        worst = min(
            candidates, key=lambda t: (t.peer in self.survey.neighbours, len(self.survey.carried_by(t.interface)))
        )
        return self._drain(worst, now)

    def _remake(self, now: float) -> list[Action]:
        """Make one outdated tunnel after another anew: drained first, as far as there are other ways."""
        if now < self._remade or any(tunnel.phase is not Phase.UP for tunnel in self.tunnels.values()):
            return []
        tunnel = next((tunnel for tunnel in self.tunnels.values() if tunnel.outdated), None)
        if tunnel is None:
            return []
        self._remade = now + REMAKE_TIME
        if tunnel.tried or self.settings.tunnel_refresh == float("inf"):  # nothing can be drained
            return [self._close(tunnel, "made anew", now)]
        tunnel.tried = True
        return self._drain(tunnel, now)

    def _prefer_lan(self, now: float) -> list[Action]:
        """Give up tunnels to peers that were met on a LAN meanwhile; a wanted neighbour keeps its own."""
        settings = self.settings
        if settings.tunnel_refresh == float("inf"):  # nothing can be drained
            return []
        return [
            action
            for tunnel in self.tunnels.values()
            if tunnel.phase is Phase.UP
            and now - tunnel.since > LAN_TIME
            and not tunnel.needed
            and self._may_drain(tunnel)
            and tunnel.peer not in settings.neighbours
            and any(link.hop.interface in settings.lan for link in self.survey.neighbours.get(tunnel.peer, ()))
            for action in self._drain(tunnel, now)
        ]

    def _may_drain(self, tunnel: Tunnel) -> bool:
        return self.settings.drains or not self.survey.carried_by(tunnel.interface)

    def _drain(self, tunnel: Tunnel, now: float) -> list[Action]:
        tunnel.phase, tunnel.since, tunnel.carried = Phase.DRAINING, now, self.survey.carried_by(tunnel.interface)
        return [DrainTunnel(tunnel.peer)] if self.settings.drains else []

    # -- opening --

    def _reach_out(self, now: float) -> list[Action]:
        """When we do not reach the registry's node: ask for a first peer, and try those we remember."""
        settings, peers = self.settings, self.survey.peers
        if self.connected:
            if self._partitioned is not None or self._bootstrap.next > BOOTSTRAP_FIRST:
                self._partitioned, self._bootstrap = None, _Wait()
            return [] if settings.registry == settings.own else [EnsureSession(settings.registry)]
        if settings.client_count == 0:
            return []
        actions: list[Action] = []
        wanted = 0
        if not peers:
            if self._partitioned is not None:
                self._partitioned, self._bootstrap = None, _Wait()
            wanted = FIRST_TUNNELS - sum(t.phase is not Phase.CLOSING for t in self.tunnels.values())
        elif self._partitioned is None:
            # Others reach us, so the network is split: the larger our part, the less each of us needs to ask.
            self._partitioned = now
            self._bootstrap.until = now + PARTITION_WAIT * (1 + self._rng.random() * len(peers))
        wait = self._bootstrap
        if not wait.pending and now >= wait.until:
            wait.until = now + wait.next * self._rng.uniform(0.8, 1.2)
            wait.next = min(2 * wait.next, BOOTSTRAP_LAST)
            if settings.registry != settings.own:
                wait.pending = True
                actions.append(AskBootstrap())
            wanted = max(wanted, 1)
        for peer in self._remembered(now)[: max(0, min(wanted, self._room()))]:
            actions += self._open(peer, self._known[peer], now)
        return actions

    def _meet(self, now: float) -> list[Action]:
        """Open tunnels to peers that we reach only through others."""
        for peer in [p for p, until in self._asked.items() if until <= now]:
            del self._asked[peer]
            self._failed(peer, now)
        missing = self._missing()
        if missing <= 0 or not self.survey.peers:
            return []
        actions: list[Action] = []
        for peer in self._distant():
            if missing <= 0:
                break
            failures = self._failures.get(peer)
            if failures and failures.until > now:
                continue
            # Whoever could not be reached where we remember them may have moved.
            opened = self._open(peer, () if failures else self._known.get(peer, ()), now)
            if not opened:
                self._asked[peer] = now + ASK_TIME
                opened = [AskAddress(peer)]
            actions += opened
            missing -= 1
        return actions

    def _open(self, peer: Prefix, endpoints: tuple[Endpoint, ...], now: float) -> list[Action]:
        """A tunnel to a peer we have none with, if it has an address that we may use."""
        if peer == self.settings.own or peer in self.tunnels or peer in self.clients:
            return []
        failures, usable = self._failures.get(peer), self._usable(endpoints)
        if not usable or (failures and failures.until > now and self.survey.peers):
            return []
        self._asked.pop(peer, None)
        self._refreshed = now
        self.tunnels[peer] = Tunnel(peer, Phase.OPENING, now, endpoints=usable)
        return [OpenTunnel(peer, usable)]

    def _usable(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        disabled = self.settings.disabled_protocols
        return tuple(e for e in endpoints if _family(e.protocol) not in disabled and self._permitted(e))

    def _permitted(self, endpoint: Endpoint) -> bool:
        settings = self.settings
        if not settings.same_country:
            return True
        country = endpoint.country or self._locate(endpoint.host)
        return may_meet(settings.country.upper(), country.upper(), settings.same_country)

    def _room(self) -> int:
        return self.settings.client_count - len(self.tunnels)

    def _missing(self) -> int:
        """How many more tunnels to have with peers that we reach through others (wire.md 10.4)."""
        # In a part of a split network, one stays free for a tunnel to the other part.
        count = self.settings.client_count - (0 if self.connected else 1)
        return (count if self.clients else min(MODEST, count)) - len(self.tunnels) - len(self._asked)

    def _distant(self) -> list[Prefix]:
        """Peers that are not next to us, the wanted neighbours first, then in random order."""
        near = self.survey.neighbours.keys() | self.tunnels.keys() | self.clients.keys() | self._asked.keys()
        distant = sorted(self.survey.peers - near - {self.settings.own}, key=_bits)
        self._rng.shuffle(distant)
        return sorted(distant, key=lambda peer: peer not in self.settings.neighbours)

    def _lacks_neighbour(self, now: float) -> bool:
        """Whether a wanted neighbour can be reached, but only through others."""
        near = self.survey.neighbours.keys() | self.tunnels.keys() | self.clients.keys() | self._asked.keys()
        far = (self.settings.neighbours & self.survey.peers) - near
        return any(peer not in self._failures or self._failures[peer].until <= now for peer in far)

    def _remembered(self, now: float) -> list[Prefix]:
        """Peers in our memory that we do not reach, in random order: those that failed last, not before their time."""
        unknown = self._known.keys() - self.tunnels.keys() - self.clients.keys() - self.survey.peers
        peers = sorted(unknown - {self.settings.own}, key=_bits)
        self._rng.shuffle(peers)
        failed = self._failures
        return sorted(
            (p for p in peers if self._usable(self._known[p]) and (p not in failed or failed[p].until <= now)),
            key=lambda p: (p not in self.settings.neighbours, failed[p].count if p in failed else 0),
        )

    def _failed(self, peer: Prefix, now: float) -> None:
        failures = self._failures.setdefault(peer, _Failures())
        longest = RETRY_LAST if self.survey.peers else RETRY_ALONE
        failures.until = now + min(RETRY_FIRST * 2**failures.count, longest) * self._rng.uniform(0.8, 1.2)
        failures.count = min(failures.count + 1, FAILURES_COUNTED)
        if len(self._failures) > 1000:
            del self._failures[next(iter(self._failures))]


def _bits(prefix: Prefix) -> str:
    return prefix.bits


def _family(protocol: str) -> str:
    """The protocol as --disable-proto names it: udp4 is udp, tcp4 is tcp."""
    return protocol.removesuffix("4")
