"""Which peers to open tunnels with, and where we learn of them (wire.md 10.4, opening).

Far peers at random, the wanted neighbours first. A node that does not reach the registry's node asks the registry and
its memory at the same time. Whoever could not be reached is tried again after longer and longer waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random

from re6st.core.mesh.events import Action, AskAddress, AskBootstrap, AskRegion, EnsureSession, OpenTunnel
from re6st.core.mesh.phases import Phase
from re6st.core.mesh.state import State, Tunnel
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import INFINITY
from re6st.core.wire.datagrams import Endpoint

FIRST_TUNNELS = 3
"""Tunnels opened at once from memory by a node that reaches nobody."""
ASK_TIME = 8.0
"""Seconds until a question for an address counts as lost."""
RETRY_FIRST, RETRY_LAST = 2.0, 600.0
"""Seconds before a peer that could not be reached is tried again, doubling."""
RETRY_ALONE = 30.0
"""The most while we reach nobody: then it is more likely us than them."""
TOLD_AGAIN = 60.0
"""Seconds between two tries of a peer only because it told us an address: it may be anybody's."""
FAILURES_COUNTED = 9
"""After so many in a row the wait is RETRY_LAST."""
BOOTSTRAP_FIRST, BOOTSTRAP_LAST = 1.0, 60.0
BOOTSTRAP_SELDOM = 600.0
"""Where another registry's node is reached: the first one is most often just away."""
NAMED_AGAIN = 3.0
"""Seconds, to twice as many, until the registry is asked again where whom it named did not take us: others may."""
PARTITION_WAIT = 10.0
SPLIT_WAIT, SPLIT_LAST = 0.25, 60.0
"""Seconds, for each node in our part of a region that is split, within which we look for the other part: so four nodes
a second do. Then twice as long, and at most so long again if we are few."""
ALONE_WAIT = 5.0
"""Seconds within which who knows nobody of its own region looks for somebody there; and so long after that, and longer
and longer, as it may be the only one."""
LOST_AGE, LOST_TIME = 1.0, 120.0
"""Seconds after a tunnel ended, in which we try to open it again if nobody else reaches its peer. At first babel may
not know yet."""
STEADY_TIME, SHORT_AGAIN = 30.0, 900.0
"""Seconds that a tunnel must last. A peer that ends ours soon after babel met it, and had done so within the second
time, is left alone longer and longer, as one that could not be reached."""
REMEMBERED = 1000
"""Peers whose failures are remembered."""
HOSTS_DIALLED, ENDPOINTS_DIALLED = 6, 16
"""Addresses of one peer that are dialled, and their ports and protocols, the first ones of its list."""
NEAREST = 5
"""How many of the nearest peers there is a choice of."""


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


@dataclass(frozen=True, slots=True)
class _Question:
    """A peer was asked where it is; the answer counts as lost after `until`."""

    until: float
    near: bool


class Opening:
    """Decides whom to meet. It adds the tunnels to the `state`; `known` are the endpoints remembered of peers."""

    def __init__(self, state: State, known: Mapping[Prefix, tuple[Endpoint, ...]], rng: Random) -> None:
        self._state = state
        self._known = known
        self._rng = rng
        self._asked: dict[Prefix, _Question] = {}
        self._failures: dict[Prefix, _Failures] = {}
        self._bootstrap = _Wait()
        self._named: Prefix | None = None
        """Whom the registry named last, unless they turned us away."""
        self._partitioned: float | None = None
        self._split: _Wait | None = None
        """Our region is in parts; when to look for another one."""
        self._lost: dict[Prefix, float] = {}
        """Peers whose tunnel ended by itself, and when."""
        self._short: dict[Prefix, float] = {}
        """Peers whose tunnel ended soon, and when."""

    def deadlines(self) -> Iterator[float]:
        """When something may be to be done though nothing happens. Moments that have passed may be among them."""
        state = self._state
        yield from (asked.until for asked in self._asked.values())
        yield from (since + LOST_AGE for since in self._lost.values())
        if not state.undivided and state.settings.client_count > 0 and not self._bootstrap.pending:
            yield self._bootstrap.until
        if self._split is not None:
            yield self._split.until
        if self._missing() > 0 or not state.undivided or self._lost or state.settings.neighbours:
            yield from (failures.until for failures in self._failures.values())

    def reach_out(self, now: float) -> list[Action]:
        """When we do not reach the first registry's node: ask for a first peer, and try those we remember. Seldom
        where we reach another one's.
        """
        settings, peers = self._state.settings, self._state.survey.peers
        node = self._state.registry_node
        actions: list[Action] = [EnsureSession(node)] if self._state.connected and node != settings.own else []
        if self._state.undivided:
            if self._partitioned is not None or self._bootstrap.next > BOOTSTRAP_FIRST:
                self._partitioned, self._bootstrap = None, _Wait(pending=self._bootstrap.pending)
            return actions
        if settings.client_count == 0:
            return actions
        longest = BOOTSTRAP_SELDOM if self._state.connected else BOOTSTRAP_LAST
        if self._bootstrap.next > longest:
            self._bootstrap.next, self._bootstrap.until = longest, min(self._bootstrap.until, now + longest)
        wanted = 0
        if not peers:
            if self._partitioned is not None:
                self._partitioned, self._bootstrap = None, _Wait(pending=self._bootstrap.pending)
            wanted = FIRST_TUNNELS - sum(t.phase is not Phase.CLOSING for t in self._state.tunnels.values())
        elif self._partitioned is None:
            # Others reach us, so the network is split: the larger our part, the less each of us needs to ask.
            self._partitioned = now
            self._bootstrap.until = now + PARTITION_WAIT * (1 + self._rng.random() * len(peers))
        wait = self._bootstrap
        if not wait.pending and now >= wait.until:
            wait.until = now + wait.next * self._rng.uniform(0.8, 1.2)
            wait.next = min(2 * wait.next, longest)
            if settings.registry != settings.own:
                wait.pending = True
                actions.append(AskBootstrap())
            wanted = max(wanted, 1)
        wanted = min(wanted, self._room())
        for peer in self._remembered(now)[:wanted] if wanted > 0 else ():
            actions += self._open(peer, self._known[peer], now)
        return actions

    def rejoin(self, now: float) -> list[Action]:
        """When our region is in parts, which swallow what is sent to the others: look for somebody of another part.
        Who knows nobody of its region may be a part by itself, and not see it: all others may lead to it alone.

        The registry may name one, and those that we remember and do not reach may be there. In the simulator,
        neighbours in other regions ask there, too; a daemon cannot have them do so (`send` in noded/region_finder.py).
        """
        state = self._state
        if not (state.survey.split or state.is_alone) or not state.settings.client_count:
            self._split = None
            return []
        if self._split is None:
            spread = SPLIT_WAIT * (1 + state.inside) if state.survey.split else ALONE_WAIT
            self._split = _Wait(now + self._rng.uniform(0, spread), max(spread, BOOTSTRAP_FIRST))
        wait = self._split
        if now < wait.until or self._room() <= 0:
            return []
        wait.until = now + wait.next * self._rng.uniform(0.8, 1.2)
        wait.next = max(wait.next, min(2 * wait.next, SPLIT_LAST))
        actions: list[Action] = []
        if not self._bootstrap.pending and state.settings.registry != state.settings.own:
            self._bootstrap.pending = True
            actions.append(AskBootstrap())
        if state.region not in self._asked and any(map(state.is_outside, state.survey.neighbours)):
            self._asked[state.region] = _Question(now + ASK_TIME, near=False)
            actions.append(AskRegion(state.region))
        for peer in [peer for peer in self._remembered(now) if not state.is_outside(peer)][:1]:
            actions += self._open(peer, self._known[peer], now)
        return actions

    def recover(self, now: float) -> list[Action]:
        """Open tunnels again with peers that nobody reaches since ours ended: they may remember nobody themselves.

        The registry's own node is the first of those, and would wait until somebody suspects a split network.
        """
        state, actions = self._state, list[Action]()
        for peer, since in list(self._lost.items()):
            if now - since < LOST_AGE:
                continue
            if state.reaches(peer) or now - since > LOST_TIME:
                del self._lost[peer]
            elif self._room() > 0 and (peer not in self._failures or self._failures[peer].until <= now):
                actions += self.again(peer, now)
        return actions

    def meet(self, now: float) -> list[Action]:
        """Open tunnels to peers that we reach only through others."""
        for peer in [p for p, asked in self._asked.items() if asked.until <= now]:
            del self._asked[peer]
            self.failed(peer, now)
        missing = self._missing()
        if missing <= 0 or not self._state.survey.peers:
            return []
        actions = self._ask_across(missing, now)
        missing -= len(actions)
        alone = {peer for peer, failures in self._failures.items() if failures.until > now}
        distant = [peer for peer in self.distant() if peer not in alone]
        while missing > 0 and distant:
            near = distant[0] not in self._state.settings.neighbours and self._wants_near()
            peer = self._pick_near(distant) if near else self._pick_elsewhere(distant)
            distant.remove(peer)
            # Whoever could not be reached where we remember them may have moved.
            opened = self._open(peer, () if peer in self._failures else self._known.get(peer, ()), now, near=near)
            if not opened:
                self._asked[peer] = _Question(now + ASK_TIME, near)
                opened = [AskAddress(peer)]
            actions += opened
            missing -= 1
        return actions

    def _ask_across(self, most: int, now: float) -> list[Action]:
        """Open tunnels to other regions, next to which we are not: to whom we remember there, or ask for somebody."""
        state = self._state
        held = sum(map(state.is_outside, state.tunnels)) + sum(map(state.is_outside, self._asked))
        missing = min(most, state.across - held)
        if missing <= 0:
            return []
        near = {state.region_of(peer) for peer in self._near()}
        length = state.settings.region_length
        regions = [
            peer
            for peer in state.survey.peers
            if peer.length <= length and peer not in near and not self._is_left_alone(peer, now)
        ]
        regions.sort(key=_order)
        actions: list[Action] = []
        remembered: dict[Prefix, Prefix] = {}
        for peer, endpoints in self._known.items():
            if state.is_outside(peer) and peer not in self._failures and self._usable(endpoints):
                remembered[state.region_of(peer)] = peer
        for region in self._rng.sample(regions, min(missing, len(regions))):
            known = remembered.get(region)
            opened = [] if known is None else self._open(known, self._known[known], now)
            if not opened:
                self._asked[region] = _Question(now + ASK_TIME, near=False)
                opened = [AskRegion(region)]
            actions += opened
        return actions

    def _wants_near(self) -> bool:
        """Whether the next tunnel is to be one with a near peer: once we have the random ones."""
        held = [tunnel.near for tunnel in self._state.tunnels.values()] + [asked.near for asked in self._asked.values()]
        return len(held) - sum(held) >= self._state.limit - self._state.near_part

    def _pick_near(self, distant: list[Prefix]) -> Prefix:
        """One of the peers that the cheapest ways lead to; not always the first, or all of us took the same ones."""
        metrics = self._state.survey.metrics
        return self._rng.choice(sorted(distant, key=lambda peer: metrics.get(peer, INFINITY))[:NEAREST])

    def _pick_elsewhere(self, distant: list[Prefix]) -> Prefix:
        """The first peer that does not share its uplink with one we have a tunnel with, as far as we know."""
        hosts = {endpoint.host for tunnel in self._state.tunnels.values() for endpoint in tunnel.endpoints}
        elsewhere = (p for p in distant if hosts.isdisjoint(each.host for each in self._known.get(p, ())))
        return distant[0] if distant[0] in self._state.settings.neighbours else next(elsewhere, distant[0])

    def _is_left_alone(self, peer: Prefix, now: float) -> bool:
        failures = self._failures.get(peer)
        return failures is not None and failures.until > now

    def _open(self, peer: Prefix, endpoints: tuple[Endpoint, ...], now: float, *, near: bool = False) -> list[Action]:
        """A tunnel to a peer we have none with, if it has an address that we may use."""
        if peer == self._state.settings.own or peer in self._state.tunnels or peer in self._state.clients:
            return []
        failures, usable = self._failures.get(peer), self._usable(endpoints)
        if not usable or (failures and failures.until > now and self._state.survey.peers):
            return []
        self._asked.pop(peer, None)
        self._state.refreshed = now
        self._state.tunnels[peer] = Tunnel(peer, Phase.OPENING, now, endpoints=usable, near=near)
        return [OpenTunnel(peer, usable)]

    def _usable(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those that we may dial: a few, as their peer may have named anybody's."""
        disabled = self._state.settings.disabled_protocols
        usable = [e for e in endpoints if e.protocol.served not in disabled and self._state.permits(e)]
        hosts = list(dict.fromkeys(endpoint.host for endpoint in usable))[:HOSTS_DIALLED]
        return tuple(endpoint for endpoint in usable if endpoint.host in hosts)[:ENDPOINTS_DIALLED]

    def address_learned(self, peer: Prefix, endpoints: tuple[Endpoint, ...], now: float) -> list[Action] | None:
        """A peer told where it is; None where nobody had asked it, or there is no room any more."""
        asked = self._asked.pop(peer, None)
        if asked is not None and self._missing() > 0:
            actions = self._open(peer, endpoints, now, near=asked.near)
            if not actions:
                self.failed(peer, now)
            return actions
        if endpoints:
            self._told_unasked(peer, now)
        return None

    def region_answered(
        self, region: Prefix, peer: Prefix, endpoints: tuple[Endpoint, ...], now: float
    ) -> list[Action] | None:
        """Somebody of a region was named; None where we had not asked for it, or there is no room any more."""
        if self._asked.pop(region, None) is None:
            return None
        if region == self._state.region:  # another part of it, we hope
            return self._open(peer, endpoints, now) if self._room() > 0 and not self._is_met(peer) else None
        if self._missing() <= 0:
            return None
        actions = self._open(peer, endpoints, now) if self._state.region_of(peer) == region else []
        if not actions:
            self.failed(region, now)
        return actions

    def bootstrap_answered(
        self, peer: Prefix | None, endpoints: tuple[Endpoint, ...], now: float
    ) -> list[Action] | None:
        """The registry named a first peer; None where it is of no use to us."""
        self._bootstrap.pending = False
        self._named = peer
        if peer is not None and not self._is_met(peer) and self._room() > 0:
            return self._open(peer, endpoints, now)
        return None

    def _is_met(self, peer: Prefix) -> bool:
        """Whether a peer that the registry names takes us nowhere, as we have a way to it already."""
        return peer in self._state.survey.peers or (self._state.is_outside(peer) and self._state.reaches(peer))

    def again(self, peer: Prefix, now: float) -> list[Action]:
        """A tunnel in place of the one that ended, with the same peer."""
        return self._open(peer, self._known.get(peer, ()), now)

    def lost(self, tunnel: Tunnel, now: float) -> None:
        """A tunnel where babel had met the peer ended by itself."""
        peer = tunnel.peer
        self._lost[peer] = now
        if tunnel.phase is Phase.UP and now - tunnel.since < STEADY_TIME:
            before = self._short.pop(peer, float("-inf"))
            self._short[peer] = now
            if len(self._short) > REMEMBERED:
                del self._short[next(iter(self._short))]
            if now - before < SHORT_AGAIN:
                self.failed(peer, now)

    def _told_unasked(self, peer: Prefix, now: float) -> None:
        """The peer has moved: what failed may work now, and a tunnel that falls silent will not come back."""
        failures, tunnel = self._failures.get(peer), self._state.tunnels.get(peer)
        if failures and now - failures.told > TOLD_AGAIN:
            failures.until = failures.told = now
        if tunnel:
            tunnel.doubted = now

    def forgive(self, now: float) -> None:
        """Whoever babel has met for a while on a tunnel of ours has not failed."""
        for tunnel in self._state.tunnels.values():
            steady = tunnel.phase is not Phase.OPENING and now - tunnel.since >= STEADY_TIME
            if steady and tunnel.interface in self._state.survey.alive:
                self._failures.pop(tunnel.peer, None)

    def uplink_up(self, now: float) -> None:
        """What failed may work now."""
        self._failures.clear()
        self._bootstrap = _Wait(min(self._bootstrap.until, now + BOOTSTRAP_FIRST), pending=self._bootstrap.pending)

    def failed(self, peer: Prefix, now: float) -> None:
        failures = self._failures.setdefault(peer, _Failures())
        longest = RETRY_LAST if self._state.survey.peers else RETRY_ALONE
        failures.until = now + min(RETRY_FIRST * 2**failures.count, longest) * self._rng.uniform(0.8, 1.2)
        failures.count = min(failures.count + 1, FAILURES_COUNTED)
        if peer == self._named and not self._state.survey.peers:
            self._named = None
            self._bootstrap.until = min(self._bootstrap.until, now + NAMED_AGAIN * self._rng.uniform(1, 2))
        if len(self._failures) > REMEMBERED:
            del self._failures[next(iter(self._failures))]

    def _room(self) -> int:
        return self._state.settings.client_count - len(self._state.tunnels)

    def _missing(self) -> int:
        """How many more tunnels to have with peers that we reach through others (wire.md 10.4)."""
        # In a part of a split network, or of a split region, one stays free for a tunnel to the other part.
        whole = self._state.undivided and not self._state.survey.split
        count = self._state.settings.client_count - (0 if whole else 1)
        wanted = count if self._state.clients else min(self._state.modest, count)
        return wanted - len(self._state.tunnels) - len(self._asked)

    def _near(self) -> Set[Prefix]:
        """Peers next to us, or soon to be."""
        state = self._state
        return state.survey.neighbours.keys() | state.tunnels.keys() | state.clients.keys() | self._asked.keys()

    def distant(self) -> list[Prefix]:
        """Peers that are not next to us, the wanted neighbours first, then in random order."""
        state = self._state
        length, wanted = state.settings.region_length, state.settings.neighbours
        found = state.survey.peers - self._near() - {state.settings.own}
        distant = sorted((peer for peer in found if peer.length > length) if length else found, key=_order)
        self._rng.shuffle(distant)
        return sorted(distant, key=lambda peer: peer not in wanted) if wanted else distant

    def lacks_neighbour(self, now: float) -> bool:
        """Whether a wanted neighbour can be reached, but only through others."""
        far = (self._state.settings.neighbours & self._state.survey.peers) - self._near()
        return any(peer not in self._failures or self._failures[peer].until <= now for peer in far)

    def _remembered(self, now: float) -> list[Prefix]:
        """Peers in our memory that we do not reach, in random order: those that failed last, not before their time."""
        state, failed = self._state, self._failures
        unknown = self._known.keys() - state.tunnels.keys() - state.clients.keys() - state.survey.peers
        if state.settings.region_length:
            unknown = {peer for peer in unknown if not state.reaches(peer)}
        peers = sorted(unknown - {self._state.settings.own}, key=_order)
        self._rng.shuffle(peers)
        return sorted(
            (p for p in peers if self._usable(self._known[p]) and (p not in failed or failed[p].until <= now)),
            key=lambda p: (
                p not in state.settings.neighbours,
                state.is_outside(p),
                failed[p].count if p in failed else 0,
            ),
        )


_order = attrgetter("value", "length")
"""Any order, but the same in each run."""
