"""Which of our client tunnels to give up, drain and close (wire.md 10.7, the client's side; 8.4).

A tunnel is closed without more ado only if nothing can go through it any more. The others are drained first: their
routes move away while they still forward, and one that somebody can only be reached through is kept.

The cost of a tunnel that is drained grows until babel loses the link, after some ten hellos. It is kept before that
if somebody has no better way: nothing is lost then, even if two nodes drain the last two ways at one time.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from random import Random
from typing import assert_never

from re6st.core.interfaces import is_link
from re6st.core.mesh.events import Action, AskClose, CloseTunnel, DrainTunnel, UndrainTunnel
from re6st.core.mesh.phases import Phase
from re6st.core.mesh.quality import Quality
from re6st.core.mesh.state import State, Tunnel
from re6st.core.prefix import Prefix

ASK_AGAIN = 10.0
"""Seconds between two questions whether we may close: datagrams get lost."""
REMAKE_TIME = 5.0
"""Seconds at least between two tunnels that are made anew: babel has met the peer on the first one then."""
TRIES = 3
"""How often one that is to be made anew is drained before it is cut: the other way may just be drained as well."""
REST_FIRST, REST_LAST = 300.0, 3600.0
"""Seconds that a tunnel which is needed is not drained again: tunnel_refresh if that is less; then twice as long."""
DEAD_TIME = 12.0
"""Seconds without a babel neighbour after which a tunnel that had one is given up."""
UNHEARD_TIME = 600.0
"""The same where the peer is heard, reached otherwise, and does not hear us."""
MOVED_TIME, LINK_MOVED_TIME = 2.0, 6.0
"""The same where the peer has just told us another address, or we slept; and on a WireGuard link, whose hellos are
rarer."""
LAN_TIME = 10.0
"""Seconds after which a tunnel is given up whose peer is also met on the LAN."""
SETTLE_TIME = 10.0
"""Seconds after which babel's figures of a new tunnel, or of one that was drained, are to be believed."""
NEARER = 0.8
"""A near peer is replaced if the way to another one, over others, costs less than so much of the link to it."""
DEGRADED_COST, DEGRADED_LOSS = 3.0, 1.4
"""How many times worse, beside the others, the cost of a degraded tunnel is, or its loss: a sixth of all packets."""
DEGRADED_TIME = 30.0
"""Seconds that it must be so."""
WATCH_EVERY = 1.0
"""Seconds between two looks at a tunnel that may be degraded."""


class Closing:
    """Decides which tunnels go. It changes their phases in the `state`."""

    def __init__(self, state: State, rng: Random) -> None:
        self._state = state
        self._rng = rng
        self._remade = 0.0
        """When the next tunnel that is outdated may be made anew."""
        self._relocated = 0.0
        """When the next one may move to another uplink."""

    def outdated(self, peers: Set[Prefix], now: float) -> None:
        """Our tunnels with these peers are to be made anew."""
        for peer in peers & self._state.tunnels.keys():
            self._state.tunnels[peer].outdated = True
        # Others are told the same at the same time.
        self._remade = max(self._remade, now + self._rng.uniform(0, self._state.settings.close_time))

    def moved(self, peer: Prefix, interface: str, now: float) -> None:
        """Our tunnel goes on over another interface: it is the same one, and what was seen of it was of the other."""
        tunnel = self._state.tunnels.get(peer)
        if tunnel is not None and tunnel.phase is not Phase.OPENING:
            tunnel.interface, tunnel.alive, tunnel.outdated = interface, now, False
            tunnel.quality, tunnel.degraded = Quality(), None

    def may_go(self, peer: Prefix, now: float) -> list[Action]:
        """The peer lets us close our tunnel."""
        tunnel = self._state.tunnels.get(peer)
        if tunnel is None or tunnel.phase is not Phase.ASKED:
            return []
        # It may have been taken into use again since.
        used = self._state.survey.late or self._state.carried_by(tunnel.interface)
        return [self._keep(tunnel, now) if used else self._close(tunnel, "replaced", now)]

    def give_up(self, now: float) -> list[Action]:
        """Close tunnels that are doubled by the peer's own one, or that babel sees nobody through.

        Not those that are avoided, nor soon those that the peer avoids: they wait for better days.
        """
        actions: list[Action] = []
        for tunnel in list(self._state.tunnels.values()):
            if tunnel.phase in (Phase.CLOSING, Phase.OPENING):
                continue
            patience = self._patience(tunnel, now)
            if tunnel.peer in self._state.clients and self._state.settings.own < tunnel.peer:
                actions.append(self._close(tunnel, "doubled by the peer's own tunnel", now))
            elif tunnel.phase is Phase.UP and now - tunnel.alive > patience:
                actions.append(self._close(tunnel, f"silent for {patience:g} s", now, lost=True))
        return actions

    def dead(self, peer: Prefix, interface: str, now: float) -> list[Action]:
        """Close our tunnel to a peer that gives no sign of life."""
        tunnel = self._on(peer, interface)
        return [] if tunnel is None else [self._close(tunnel, "no sign of life", now, lost=True)]

    def doubt_one(self, peer: Prefix, interface: str, now: float) -> None:
        """Our tunnel to a peer seems dead: if babel sees nobody there any more either, it does not come back."""
        if (tunnel := self._on(peer, interface)) is not None:
            tunnel.doubted = now

    def trust(self, peer: Prefix, interface: str) -> None:
        """Our tunnel to a peer was doubted, and it is not dead."""
        if (tunnel := self._on(peer, interface)) is not None:
            tunnel.doubted = float("-inf")

    def _on(self, peer: Prefix, interface: str) -> Tunnel | None:
        """Our tunnel to a peer, if it is up, and on that interface."""
        tunnel = self._state.tunnels.get(peer)
        if tunnel is None or tunnel.phase in (Phase.CLOSING, Phase.OPENING) or tunnel.interface != interface:
            return None
        return tunnel

    def _patience(self, tunnel: Tunnel, now: float) -> float:
        """Seconds without a babel neighbour after which a tunnel is given up."""
        if not tunnel.met:
            return self._state.settings.meeting_time
        if now - tunnel.doubted < DEAD_TIME:
            return LINK_MOVED_TIME if is_link(tunnel.interface) else MOVED_TIME
        return UNHEARD_TIME if self._is_avoided(tunnel) else DEAD_TIME

    def _is_avoided(self, tunnel: Tunnel) -> bool:
        """Whether the peer seems to avoid it. Then it reaches us otherwise, as we do it, or would not."""
        survey = self._state.survey
        return self._state.settings.drains and tunnel.interface in survey.unheard and tunnel.peer in survey.peers

    def doubt(self, now: float) -> None:
        """We did not run for a while: peers may have given us up, and our ends of the tunnels do not know it."""
        for tunnel in self._state.tunnels.values():
            tunnel.alive = tunnel.doubted = now

    def advance(self, now: float) -> list[Action]:
        """Wait until nothing is carried, ask whether we may close, and go back if nobody answers (wire.md 10.7).

        An idle tunnel is drained as long as others: somebody may drain the one that is used instead, and has to see it.
        Go back also if somebody turns out to have no other way: babel's table holds ways that lead back through
        ourselves too, so that only draining shows who has one.
        """
        actions: list[Action] = []
        settings = self._state.settings
        for tunnel in list(self._state.tunnels.values()):
            draining = tunnel.phase is Phase.DRAINING
            if not draining and tunnel.phase is not Phase.ASKED:
                continue
            carried = self._state.carried_by(tunnel.interface)
            tunnel.carried |= carried
            if self._is_needed(tunnel, now):
                actions.append(self._return(tunnel, now))
            elif (
                draining
                and not carried
                and (now - tunnel.since >= settings.drain_time_of(tunnel.interface) or not settings.drains)
            ):
                tunnel.enter(Phase.ASKED, now)
                tunnel.asked = now
                actions.append(AskClose(tunnel.peer))
            elif now - tunnel.since > settings.close_time:
                actions.append(self._keep(tunnel, now))
            elif not draining and now - tunnel.asked > ASK_AGAIN:
                tunnel.asked = now
                actions.append(AskClose(tunnel.peer))
        return actions

    def _is_needed(self, tunnel: Tunnel, now: float) -> bool:
        """Whether somebody has no other way than this tunnel, which is or was drained, or whether that is unknown."""
        state, survey = self._state, self._state.survey
        if survey.late or tunnel.carried - survey.peers:
            return True
        if tunnel.phase is Phase.ASKED:
            return state.settings.drains and bool(state.carried_by(tunnel.interface))
        return now - tunnel.since >= state.settings.drain_time_of(tunnel.interface) and bool(
            survey.sole_by(tunnel.interface)
        )

    def watch(self, avoided: Set[Prefix], now: float) -> None:
        """Take note of what the tunnels have been like until now, those with `avoided` peers among them."""
        survey = self._state.survey
        for tunnel in self._state.tunnels.values():
            if tunnel.phase not in (Phase.CLOSING, Phase.OPENING):
                tunnel.met = tunnel.met or (survey.running and tunnel.interface in survey.alive)
                if not self._is_silent(tunnel, avoided):
                    tunnel.alive = now
            news = survey.running and tunnel.phase is Phase.UP and tunnel.interface in survey.costs
            if news and now - tunnel.since > SETTLE_TIME:
                tunnel.quality.cost.note(survey.costs[tunnel.interface], now)
                tunnel.quality.loss.note(survey.losses.get(tunnel.interface, 1.0), now)
            if not self._is_worse(tunnel):
                tunnel.degraded = None
            elif tunnel.degraded is None:
                tunnel.degraded = now

    def deadlines(self, avoided: Set[Prefix], looked: float) -> Iterator[float]:
        """When something may be to be done though nothing happens; `looked` is when we did that last.

        Moments that have passed may be among them.
        """
        settings = self._state.settings
        for tunnel in self._state.tunnels.values():
            match tunnel.phase:
                case Phase.UP:
                    yield tunnel.rests
                    if self._is_silent(tunnel, avoided):
                        yield tunnel.alive + self._patience(tunnel, looked)
                    if settings.lan:
                        yield tunnel.since + LAN_TIME
                    if tunnel.outdated:
                        yield self._remade
                    if tunnel.degraded is not None or self._may_be_worse(tunnel):
                        yield looked + WATCH_EVERY
                case Phase.DRAINING:
                    yield tunnel.since + settings.drain_time_of(tunnel.interface)
                    yield tunnel.since + settings.close_time
                case Phase.ASKED:
                    yield tunnel.asked + ASK_AGAIN
                    yield tunnel.since + settings.close_time
                case Phase.OPENING | Phase.CLOSING:
                    pass  # they end by an event
                case _:
                    assert_never(tunnel.phase)

    def _is_silent(self, tunnel: Tunnel, avoided: Set[Prefix]) -> bool:
        """Whether babel should see somebody through it, and does not."""
        survey = self._state.survey
        return survey.running and tunnel.interface not in survey.alive and tunnel.peer not in avoided

    def _may_be_worse(self, tunnel: Tunnel) -> bool:
        """Whether its figures, or those of now alone, are such that it has to be looked at by the second."""
        survey, cost, loss = self._state.survey, tunnel.quality.cost, tunnel.quality.loss
        return (
            max(cost.worsened, cost.ratio(survey.costs.get(tunnel.interface))) > DEGRADED_COST
            or max(loss.worsened, loss.ratio(survey.losses.get(tunnel.interface))) > DEGRADED_LOSS
        )

    def _is_worse(self, tunnel: Tunnel) -> bool:
        """Whether it is much worse than it was, while the others are not: then it is not our own uplink's doing."""
        cost, loss = tunnel.quality.cost.worsened, tunnel.quality.loss.worsened
        if cost <= DEGRADED_COST and loss <= DEGRADED_LOSS:
            return False
        others = [other.quality for other in self._state.tunnels.values() if other is not tunnel]
        return bool(others) and (
            cost > DEGRADED_COST * _middle([other.cost.worsened for other in others])
            or loss > DEGRADED_LOSS * _middle([other.loss.worsened for other in others])
        )

    def degraded(self, now: float) -> list[Tunnel]:
        """Tunnels that became much worse than they were, which the others did not: packets get lost on them."""
        degraded = [
            t for t in self._state.tunnels.values() if t.degraded is not None and now - t.degraded >= DEGRADED_TIME
        ]
        return [tunnel for tunnel in self._candidates(now) if tunnel in degraded] if degraded else []

    def replace_worst(self, nearest: int, now: float) -> list[Action]:
        """Drain a tunnel that has become bad; or that to a near peer where another one is nearer; or a random one.

        `nearest` is the least metric of a peer that we could meet instead. Of the random ones, the least useful goes.
        """
        held = self._state.tunnels.values()
        if degraded := self.degraded(now):
            cost, loss = degraded[0].quality.cost.worsened, degraded[0].quality.loss.worsened
            return self._drain(
                degraded[0], f"its cost became {cost:.1f} times, its loss {loss:.1f} times what it was", now
            )
        if far := [tunnel for tunnel in self._candidates(now) if _is_far(tunnel, nearest)]:
            return self._drain(
                max(far, key=lambda tunnel: tunnel.quality.cost.value or 0.0), "another peer is nearer", now
            )
        excess = sum(tunnel.near for tunnel in held) > self._state.near_part
        candidates = [tunnel for tunnel in self._candidates(now) if excess or not tunnel.near]
        return self._drain(min(candidates, key=self._usefulness), "the least useful one", now) if candidates else []

    def _usefulness(self, tunnel: Tunnel) -> tuple[int, bool, int, float]:
        """Those over the uplink that most go over come first, so that the others keep theirs; of equals the slower."""
        state = self._state
        alike = sum(other.uplink == tunnel.uplink for other in state.tunnels.values())
        carried = len(state.carried_by(tunnel.interface))
        return -alike, tunnel.peer in state.survey.neighbours, carried, -(tunnel.quality.cost.value or 0.0)

    def _candidates(self, now: float) -> list[Tunnel]:
        """Tunnels that may be replaced; none unless we have all that we want, and every one has come to rest."""
        held = self._state.tunnels.values()
        if len(held) < self._state.limit or not self._at_rest():
            return []
        candidates = [tunnel for tunnel in held if self._replaceable(tunnel, now)]
        state = self._state
        if not state.settings.region_length:
            return candidates
        # Those of the kind of which we have too many, if so.
        spare = self.spare_across()
        return [t for t in candidates if not spare or state.is_outside(t.peer) == (spare > 0)]

    def lacks_room(self) -> bool:
        """Whether there is no tunnel left for the other part of our region, which is in parts."""
        return self._state.survey.split and len(self._state.tunnels) >= self._state.settings.client_count > 0

    def spare_across(self) -> int:
        """How many more tunnels than we want lead to other regions; less than none where some are missing."""
        state = self._state
        return sum(map(state.is_outside, state.tunnels)) - state.across

    def _at_rest(self) -> bool:
        """Whether no tunnel comes or goes, and babeld is there to tell what they carry."""
        return self._state.survey.running and all(t.phase is Phase.UP for t in self._state.tunnels.values())

    def _replaceable(self, tunnel: Tunnel, now: float) -> bool:
        """Whether nobody wants this very tunnel, and all that it carries has another way."""
        return (
            tunnel.peer not in self._state.settings.neighbours
            and not self._state.survey.sole_by(tunnel.interface)
            and self._may_drain(tunnel, now)
        )

    def remake(self, now: float) -> list[Action]:
        """Make one outdated tunnel after another anew: drained first, as far as there are other ways."""
        if now < self._remade or not self._at_rest():
            return []
        tunnel = next((tunnel for tunnel in self._state.tunnels.values() if tunnel.outdated), None)
        if tunnel is None:
            return []
        self._remade = now + self._rng.uniform(1, 2) * REMAKE_TIME
        again = not tunnel.tried or 0 < tunnel.kept < TRIES
        if not again or self._state.settings.tunnel_refresh == float("inf"):  # nothing can be drained
            return [self._close(tunnel, "made anew", now)]
        tunnel.tried = True
        return self._drain(tunnel, "it is made anew", now)

    def relocate(self, now: float) -> list[Action]:
        """Have a tunnel go over another uplink: it is drained, and opened anew. None that somebody needs."""
        state = self._state
        if not state.misplaced or now < self._relocated or state.settings.tunnel_refresh == float("inf"):
            return []
        if not self._at_rest() or now - state.refreshed < SETTLE_TIME:
            return []
        found = [
            tunnel
            for tunnel in state.tunnels.values()
            if tunnel.peer in state.misplaced
            and not state.survey.sole_by(tunnel.interface)
            and self._may_drain(tunnel, now)
        ]
        if not found:
            return []
        self._relocated = now + self._rng.uniform(1, 2) * REMAKE_TIME
        tunnel = min(found, key=lambda each: len(state.survey.carried_by(each.interface)))
        tunnel.moving = True
        return self._drain(tunnel, "it moves to another uplink", now)

    def prefer_lan(self, now: float) -> list[Action]:
        """Give up tunnels to peers that were met on a LAN meanwhile; a wanted neighbour keeps its own."""
        settings, neighbours = self._state.settings, self._state.survey.neighbours
        if settings.tunnel_refresh == float("inf"):  # nothing can be drained
            return []
        return [
            action
            for tunnel in self._state.tunnels.values()
            if tunnel.phase is Phase.UP
            and now - tunnel.since > LAN_TIME
            and self._may_drain(tunnel, now)
            and tunnel.peer not in settings.neighbours
            and any(link.hop.interface in settings.lan for link in neighbours.get(tunnel.peer, ()))
            for action in self._drain(tunnel, "the peer is on the LAN", now)
        ]

    def respect_borders(self, now: float) -> list[Action]:
        """Close tunnels that were opened when we did not know yet that they cross a border."""
        return [
            self._close(tunnel, "it crosses a border that the network closes", now)
            for tunnel in self._state.tunnels.values()
            if tunnel.phase is not Phase.CLOSING and not all(map(self._state.permits, tunnel.endpoints))
        ]

    def _return(self, tunnel: Tunnel, now: float) -> UndrainTunnel:
        """Keep one that is needed, and do not drain it for a while: not as long as another node that did the same."""
        if not self._state.survey.running:
            tunnel.tried = False  # babeld is away: it says nothing about this tunnel
        else:
            rest = min(self._state.settings.tunnel_refresh, REST_FIRST) * 2.0 ** min(tunnel.kept, TRIES)
            tunnel.rests = now + self._rng.uniform(1, 2) * min(rest, REST_LAST)
            tunnel.kept += 1
        return self._keep(tunnel, now)

    def _keep(self, tunnel: Tunnel, now: float) -> UndrainTunnel:
        tunnel.enter(Phase.UP, now)
        tunnel.alive, tunnel.moving = now, False
        tunnel.quality, tunnel.degraded = Quality(), None  # draining spoiled it
        return UndrainTunnel(tunnel.peer)

    def _close(self, tunnel: Tunnel, reason: str, now: float, *, lost: bool = False) -> CloseTunnel:
        tunnel.enter(Phase.CLOSING, now)
        return CloseTunnel(tunnel.peer, reason, lost)

    def _may_drain(self, tunnel: Tunnel, now: float) -> bool:
        if now < tunnel.rests:
            return False
        return self._state.settings.drains or not self._state.carried_by(tunnel.interface)

    def _drain(self, tunnel: Tunnel, reason: str, now: float) -> list[Action]:
        survey = self._state.survey
        tunnel.enter(Phase.DRAINING, now)
        tunnel.carried = self._state.carried_by(tunnel.interface) | {tunnel.peer} & survey.peers
        return [DrainTunnel(tunnel.peer, reason)] if self._state.settings.drains else []


def _is_far(tunnel: Tunnel, nearest: int) -> bool:
    """Whether the peer was taken for a near one, and another one is nearer."""
    cost = tunnel.quality.cost.value
    return tunnel.near and cost is not None and nearest < NEARER * cost


def _middle(values: list[float]) -> float:
    """The median; of two in the middle, the greater one."""
    return sorted(values)[len(values) // 2]
