"""When a WireGuard link takes the place of a tunnel with the same peer, and when that stays. No input, no output.

Who opened the tunnel does all of it:

    OPENING    a link is agreed on (wireguard_agreement.py), and its first handshake awaited
    MEETING    babel is to meet the peer on it, at both ends: the peer says when it has (core/wire/wireguard.py, `Met`)
    DRAINING   the link is the tunnel now, and routes move to it from the old one, at both ends; that still forwards
    DONE       the old tunnel was ended

Until it is drained the old tunnel is there to go back to. What fails is not tried again for a while.
All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from re6st.core.limits.pauses import Pauses
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import SurveyLike
from re6st.core.transport.server_drain import DRAIN_HELLOS

SETTLED = 2.0
"""Seconds that a tunnel has been up before a link takes its place: others may want it closed at once."""
AT_ONCE = 3
"""Links that are opened at one time."""
MEET_TIME, MEET_HELLOS = 30.0, 8
"""Seconds that babel may take to meet the peer, and hellos: routes may be told every 20 s only (babel_settings.py)."""
ASK_AGAIN = 0.5
"""Seconds between two questions to the peer."""
EMPTY_HELLOS, EMPTY_TIME = 2, 1.0
"""Hellos, and seconds at least, that neither end sends anything through the old tunnel before it is ended: the last
packets may still wait in its OpenVPN, or for TCP to repeat them."""
LATE_HELLOS, LATE = 4, 10.0
"""Hellos by which a drain may last longer than until babel has lost the link, and seconds that it may last in any case:
on a machine that has too much to do, babel loses it later."""
PAUSE, LOST_PAUSE = 300.0, 60.0
"""Seconds until a link is tried again with a peer where it failed, or where one was lost that had served."""
SLOW_PAUSE = 20.0
"""The same where routes did not move to it, as on a machine that had too much to do at that moment."""
PAUSES_LIMIT = 1024

NOBODY_MET = "babel met nobody on it"
NOT_MOVED = "routes did not move to it"


class Step(Enum):
    """How far it is."""

    OPENING = "opening"
    MEETING = "meeting"
    DRAINING = "draining"
    DONE = "done"


NEXT: dict[Step, frozenset[Step]] = {
    Step.OPENING: frozenset({Step.MEETING}),
    Step.MEETING: frozenset({Step.DRAINING}),
    Step.DRAINING: frozenset({Step.DONE}),
    Step.DONE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Held:
    """A tunnel of ours that no link carries; `ready`: a link may take its place, as far as others say."""

    interface: str
    since: float
    ready: bool


@dataclass(slots=True)
class _Upgrade:
    step: Step
    since: float
    old: str
    link: str = ""
    asked: float = float("-inf")
    met: bool = False
    """The peer has met us on the link."""
    moved: bool = False
    """The peer sends nothing through the old tunnel."""
    empty: float | None = None
    """Since when neither end does."""

    def go(self, step: Step, now: float) -> None:
        if step not in NEXT[self.step]:
            raise RuntimeError(f"a link that is {self.step} cannot be {step}")
        self.step, self.since = step, now


# --- what is to be done ---


@dataclass(frozen=True, slots=True)
class OpenLink:
    """Agree on a link with a peer; then call `up` or `ended`."""

    peer: Prefix


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Have no link with a peer: its tunnel stays as it was."""

    peer: Prefix
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a peer whether it has met us on the link, and say whether all that we send it goes there."""

    peer: Prefix
    moved: bool


@dataclass(frozen=True, slots=True)
class Move:
    """The tunnel with a peer is the one on this interface from now on."""

    peer: Prefix
    interface: str


@dataclass(frozen=True, slots=True)
class Mute:
    """Make routes move away from an interface."""

    interface: str


@dataclass(frozen=True, slots=True)
class Unmute:
    """No longer."""

    interface: str


@dataclass(frozen=True, slots=True)
class Retire:
    """End the old tunnel with a peer: the link carries all."""

    peer: Prefix


Action = OpenLink | CloseLink | Ask | Move | Mute | Unmute | Retire


class Upgrades:
    """Those of one node. Each method returns what is to be done, in that order."""

    def __init__(self) -> None:
        self._known: dict[Prefix, _Upgrade] = {}
        self._pauses: Pauses[str] = Pauses(PAUSES_LIMIT)

    # -- asking --

    @property
    def busy(self) -> bool:
        """Whether one is on its way, so that moments count."""
        return any(each.step is not Step.DONE for each in self._known.values())

    def step(self, peer: Prefix) -> Step | None:
        """How far it is with a peer; None: it has not begun."""
        known = self._known.get(peer)
        return None if known is None else known.step

    def carries(self, peer: Prefix) -> bool:
        """Whether a link carries our tunnel with a peer."""
        return self.step(peer) in (Step.DRAINING, Step.DONE)

    def why_not(self, peer: Prefix, now: float) -> str:
        """Why there is none for a while; empty where one may be opened."""
        return self._pauses.reason(peer, now) or ""

    # -- what happens --

    def up(self, peer: Prefix, link: str, now: float) -> None:
        """The link with a peer is up, on an interface."""
        known = self._known.get(peer)
        if known is not None and known.step is Step.OPENING:
            known.go(Step.MEETING, now)
            known.link = link

    def ended(self, peer: Prefix, reason: str, now: float, *, was_up: bool) -> list[Action]:
        """There is no link with a peer any more, or none came up."""
        known = self._known.pop(peer, None)
        if known is None:
            return []
        if was_up:  # else who agrees on links remembers it
            served = known.step in (Step.DRAINING, Step.DONE)
            self._pauses.begin(peer, reason, LOST_PAUSE if served else PAUSE, now)
        return [Unmute(known.old), Move(peer, known.old)] if known.step is Step.DRAINING else []

    def forget(self, peer: Prefix) -> None:
        """There is no tunnel with a peer any more, however it was carried."""
        self._known.pop(peer, None)

    def answered(self, peer: Prefix, moved: bool) -> None:
        """A peer has met us on the link; `moved`: it sends nothing through the old tunnel."""
        known = self._known.get(peer)
        if known is not None:
            known.met, known.moved = True, moved

    def resume(self, peer: Prefix, link: str, now: float) -> None:
        """A link carries our tunnel with a peer, since an earlier daemon."""
        self._known[peer] = _Upgrade(Step.DONE, now, "", link)

    # -- time --

    def tick(self, tunnels: Mapping[Prefix, Held], survey: SurveyLike, hello: float, now: float) -> list[Action]:
        """What is to be done now; `hello` is the time between two hellos of babel."""
        if not survey.running:
            return []
        actions: list[Action] = []
        for peer, known in list(self._known.items()):
            match known.step:
                case Step.OPENING | Step.DONE:
                    pass
                case Step.MEETING:
                    actions += self._meet(peer, known, tunnels.get(peer), survey, hello, now)
                case Step.DRAINING:
                    if peer in tunnels:
                        actions += self._drain(peer, known, survey, hello, now)
                    else:
                        known.go(Step.DONE, now)  # it ended by itself
                case _:
                    assert_never(known.step)
        begun = sum(each.step is not Step.DONE for each in self._known.values())
        for peer, held in tunnels.items():
            if begun >= AT_ONCE:
                break
            if peer in self._known or not held.ready or now - held.since < SETTLED or self.why_not(peer, now):
                continue
            begun += 1
            self._known[peer] = _Upgrade(Step.OPENING, now, held.interface)
            actions.append(OpenLink(peer))
        return actions

    def _meet(
        self, peer: Prefix, known: _Upgrade, held: Held | None, survey: SurveyLike, hello: float, now: float
    ) -> list[Action]:
        if held is None or not held.ready:  # somebody else wants something of it
            return self._give_up(peer, "", now)
        if now - known.since > max(MEET_TIME, MEET_HELLOS * hello):
            return self._give_up(peer, NOBODY_MET, now)
        if not is_met(survey, peer, known.link):
            return []
        if known.met:
            known.go(Step.DRAINING, now)
            return [Move(peer, known.link), Mute(known.old)]
        return self._ask(peer, known, now)

    def _drain(self, peer: Prefix, known: _Upgrade, survey: SurveyLike, hello: float, now: float) -> list[Action]:
        carried = bool(survey.carried_by(known.old))
        if carried or not known.moved:
            known.empty = None
        elif known.empty is None:
            known.empty = now
        lost = known.link not in survey.alive
        late = now - known.since > max((DRAIN_HELLOS + LATE_HELLOS) * hello, LATE)
        if lost or (late and carried):
            return [Unmute(known.old), Move(peer, known.old), *self._give_up(peer, NOT_MOVED, now, SLOW_PAUSE)]
        if late or (known.empty is not None and now - known.empty >= max(EMPTY_HELLOS * hello, EMPTY_TIME)):
            known.go(Step.DONE, now)
            return [Retire(peer)]
        return self._ask(peer, known, now, moved=not carried)

    def _ask(self, peer: Prefix, known: _Upgrade, now: float, *, moved: bool = False) -> list[Action]:
        if now - known.asked < ASK_AGAIN:
            return []
        known.asked = now
        return [Ask(peer, moved)]

    def _give_up(self, peer: Prefix, reason: str, now: float, pause: float = PAUSE) -> list[Action]:
        del self._known[peer]
        if reason:
            self._pauses.begin(peer, reason, pause, now)
        return [CloseLink(peer, reason)]


def is_met(survey: SurveyLike, peer: Prefix, interface: str) -> bool:
    """Whether babel has met a peer on an interface, and its routes come by it."""
    return interface in survey.alive and any(
        link.hop.interface == interface for link in survey.neighbours.get(peer, ())
    )


def has_moved(survey: SurveyLike, peer: Prefix, besides: Set[str]) -> bool:
    """Whether nothing goes to a peer but by these interfaces."""
    return not survey.carried(peer, besides)
