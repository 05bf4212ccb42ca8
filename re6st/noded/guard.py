"""Whoever announces what is not his is told of, and kept out for a while (core/routing/claims.py decides who)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.claims import Claims, Findings, Heard, Lie, Payload
from re6st.core.routing.survey import SurveyLike
from re6st.core.telemetry.event_log import EventLog
from re6st.core.telemetry.report import Record
from re6st.noded.admission import Admission
from re6st.noded.requirement import RequirementWatch
from re6st.noded.settings import EffectiveConfig, InForce

HEAR_EVERY = 1.0
"""Seconds between two looks whether somebody is to be heard again."""
READ_TIME = 1.0
"""Seconds until another look at a table that is read by dumps, at least."""
FORMER = 8
"""IPv4 networks of earlier parameters that are remembered."""
LOOK_SOON, LOOK_AGAIN = 0.2, 2.0
"""Seconds between two questions about the hardware addresses behind our servers, at least: while there is somebody
about whom they were not asked yet, and else. Meanwhile nobody knows who it is that lies."""

log = logging.getLogger(__name__)


class WatchedRouting(Protocol):
    """Whose table is looked at: a routing plane."""

    @property
    def table(self) -> Table: ...
    @property
    def priority(self) -> int: ...
    @property
    def age(self) -> float | None: ...
    def read_soon(self) -> None: ...
    def look_again(self) -> None: ...


class Ends(Protocol):
    """Who is at the other ends of our tunnels."""

    def owner_at(self, hop: NextHop) -> Prefix | None: ...
    def is_shared(self, interface: str) -> bool: ...
    def numbers(self, peer: Prefix) -> frozenset[int]: ...
    def look(self, unknown: Iterable[NextHop] = ()) -> None: ...


class GuardedTunnels(Protocol):
    """What is done about tunnels with somebody who lies."""

    @property
    def ends(self) -> Ends: ...
    def cut(self, peer: Prefix) -> None: ...
    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...
    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...


class PolicyView(Protocol):
    """What the policy sees of the mesh."""

    @property
    def survey(self) -> SurveyLike: ...


class _Watch:
    """What is known of one plane's table."""

    def __init__(self, routing: WatchedRouting, claims: Claims) -> None:
        self.routing = routing
        self.found = Findings()
        self._claims = claims
        self._life = (-1, 0.0)
        self._timer: asyncio.TimerHandle | None = None

    def look(self, ends: Ends, payload: Payload | None, region_length: int, behind: bool, now: float) -> None:
        """See who claims what in it now; see Claims.look."""
        if self._life[0] != self.routing.priority:
            self._life = self.routing.priority, now
        self.found = self._claims.look(
            *(self.routing.table, ends.owner_at, now, self._life[1], payload, ends.numbers, ends.is_shared),
            region_length,
            self.routing.age or 0.0,
            behind,
        )

    def look_again(self, seconds: float) -> None:
        """Have its plane looked at after so many seconds, if it does not change before; a large table is read anew."""
        self.close()
        if self.routing.age:
            self.routing.read_soon()
            seconds = max(seconds, READ_TIME)
        self._timer = asyncio.get_running_loop().call_later(seconds + 0.01, self.routing.look_again)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Guard:
    """Looks at babel's table after each change, and has it looked at again when that is due without one.

    Also at that of a plane beside the main one, while there is one: who lies there alone takes the bulk traffic of
    others. Two machines with one certificate are in both, so the main one is enough for these.
    """

    def __init__(
        self,
        in_force: InForce,
        routing: WatchedRouting,
        tunnels: GuardedTunnels,
        mesh: PolicyView,
        admission: Admission,
        requirement: RequirementWatch,
        event_log: EventLog,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_behind`: whether the registry has published parameters that we do not have yet."""
        self._is_behind = is_behind
        self._in_force = in_force
        self._tunnels = tunnels
        self._mesh = mesh
        self._admission = admission
        self._requirement = requirement
        self._event_log = event_log
        effective = in_force.effective
        identity = effective.identity
        self._subnet = effective.subnet
        self._new_claims = partial(Claims, identity.trust.network, identity.prefix, effective.config.accept_route)
        self._main = _Watch(routing, self._new_claims())
        self._beside: _Watch | None = None
        self._unheard: dict[NextHop, Prefix] = {}
        """Neighbours of our servers whose babel is not heard, and why."""
        self._asked = float("-inf")
        self._asked_about: frozenset[NextHop] = frozenset()
        self._payload: Payload | None = None
        self._ticked = float("-inf")

    # -- what it finds --

    def look(self) -> None:
        """See who claims what, and act at once."""
        before, self._payload = self._main.found.doubled, payload_of(self._in_force.effective, self._payload)
        self._look(self._main, self._payload)
        self._admission.doubled = doubled = self._main.found.doubled
        for peer in doubled - before:
            log.warning(
                "two machines have the certificate of %s at one time: a disk that was copied, or a stolen key."
                " Enrol one of them anew, or change its key (re6st-conf rekey)",
                peer,
            )
            self._event_log.found("certificate-doubled", time.time(), peer)

    def look_beside(self, routing: WatchedRouting | None) -> None:
        """The same in a plane beside the main one, which has no IPv4; None: there is none any more."""
        if self._beside is not None and self._beside.routing is not routing:
            self._beside.close()
            self._beside = None
        if routing is not None:
            self._beside = self._beside or _Watch(routing, self._new_claims())
            self._look(self._beside, None)

    def _look(self, watch: _Watch, payload: Payload | None) -> None:
        now, before = time.monotonic(), self._heard
        regions = self._in_force.effective.parameters.regions
        watch.look(self._tunnels.ends, payload, regions, self._is_behind(), now)
        for lie in watch.found.lies:
            self._expose(lie)
        heard = self._heard
        if heard and not before:
            self._tell_heard(heard)
        if before and not heard:
            log.info("nobody else announces our subnet any more")
        unknown = frozenset(hop for hop in self._unknown if self._tunnels.ends.is_shared(hop.interface))
        again = watch.found.again
        if again is not None or unknown:
            due = self._ask(unknown, now)
            watch.look_again(due if again is None else min(again, due))

    @property
    def _watches(self) -> tuple[_Watch, ...]:
        return (self._main,) if self._beside is None else (self._main, self._beside)

    @property
    def _heard(self) -> Heard | None:
        """By whom others announce our subnet, in any plane."""
        return next((watch.found.heard for watch in self._watches if watch.found.heard), None)

    @property
    def _unknown(self) -> frozenset[NextHop]:
        return frozenset().union(*(watch.found.unknown for watch in self._watches))

    def next_deadline(self, now: float) -> float:
        """When `tick` is to be called."""
        due = self._requirement.next_deadline(self._in_force.effective.parameters.require)
        return min(due, self._ticked + HEAR_EVERY) if self._unheard else due

    def tick(self) -> None:
        """Hear those again whose time is over."""
        self._ticked = time.monotonic()
        self._requirement.tick(self._in_force.effective.parameters.require, self._ticked)
        for hop, peer in list(self._unheard.items()):
            if not self._admission.has_lied(peer):
                del self._unheard[hop]
                self._tunnels.undrain(hop.interface, hop.address)

    def close(self) -> None:
        for watch in self._watches:
            watch.close()

    def _expose(self, lie: Lie) -> None:
        self._admission.refuse(lie)
        for hop in lie.hops:
            if hop not in self._unheard and self._tunnels.ends.is_shared(hop.interface):
                self._unheard[hop] = lie.peer
                self._tunnels.drain(hop.interface, hop.address)
        self._tunnels.cut(lie.peer)

    def _tell_heard(self, heard: Heard) -> None:
        names = self._names(heard)
        log.warning(
            "%s is ours, and announced by another machine too; it comes by %s. Either a member lies, and its neighbours"
            " say who (see their logs), or the disk of this machine was copied and both have its certificate: enrol one"
            " of them anew",
            *(", ".join(map(str, heard.subnets[:5])), ", ".join(names)),
        )
        self._event_log.found("own-subnet-heard", time.time(), reason=f"by {', '.join(names)}")

    def _names(self, heard: Heard) -> list[str]:
        known = {link.hop: peer for peer, links in self._mesh.survey.neighbours.items() for link in links}
        names = [str(known.get(hop) or self._owner(hop) or f"{hop.address}%{hop.interface}") for hop in heard.hops]
        return sorted(set(names))

    # -- whose certificate is at the other end --

    def _owner(self, hop: NextHop) -> Prefix | None:
        return self._tunnels.ends.owner_at(hop)

    def _ask(self, unknown: frozenset[NextHop], now: float) -> float:
        """Ask who is behind our servers, if that is due; in how many seconds it may be asked again."""
        pause = LOOK_AGAIN if unknown <= self._asked_about else LOOK_SOON
        left = self._asked + pause - now
        if left > 0:
            return left
        self._asked, self._asked_about = now, unknown
        self._tunnels.ends.look(unknown)
        return LOOK_AGAIN

    # -- for the operator --

    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        found = [f"{peer} announced a subnet that is not its own: it is refused" for peer in self._admission.refused()]
        found += self._requirement.problems()
        if heard := self._heard:
            found.append(
                f"our subnet {self._subnet} is announced by another machine too, by way of"
                f" {', '.join(self._names(heard))}: a lie, or a copied disk (see the log)"
            )
        return found + self._admission.problems()

    def record(self) -> Record:
        heard, twins = self._heard, self._admission.twins()
        return {
            "refused": [peer.cn for peer in self._admission.refused()],
            "own_subnet_from": self._names(heard) if heard else [],
            "doubled": sorted({peer.cn for peer in (*self._main.found.doubled, *(twin.peer for twin in twins))}),
        }


def payload_of(effective: EffectiveConfig, before: Payload | None) -> Payload | None:
    """The IPv4 of a network as its parameters have it, with what was `before`, which others may have still."""
    parameters = effective.parameters
    if parameters.ipv4 is None:
        return before and replace(before, own=None)
    former = () if before is None else (*before.former, (before.network, before.extra_bits))
    new = parameters.ipv4, parameters.ipv4_sublen
    return Payload(*new, effective.ipv4, tuple(dict.fromkeys(each for each in former if each != new))[-FORMER:])
