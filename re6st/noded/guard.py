"""Whoever announces what is not his is told of, and kept out for a while (core/routing/claims.py decides who)."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Protocol

from re6st.core.mesh.policy import Mesh
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.claims import Claims, Findings, Heard, Lie, Payload, Refusals
from re6st.core.routing.twins import ADVICE, ELSEWHERE, Own, Twins
from re6st.core.telemetry.chronicle import Chronicle
from re6st.core.telemetry.report import Record
from re6st.core.transport.untimely import Refused, Untimely
from re6st.core.words import clock as clock_text
from re6st.noded.requirement import RequirementWatch
from re6st.noded.settings import InForce, Plan
from re6st.noded.tunnels import Tunnels
from re6st.service import run_names, rundir

FORMER = 8
"""IPv4 networks of earlier parameters that are remembered."""
TOLD_LIMIT = 5
"""Peers of one kind of trouble in the status."""
NOTE_LIMIT = 1 << 20
"""Bytes that are read of who is refused."""
LOOK_SOON, LOOK_AGAIN = 0.2, 2.0
"""Seconds between two questions about the hardware addresses behind our servers, at least: while there is somebody
about whom they were not asked yet, and else. Meanwhile nobody knows who it is that lies."""

log = logging.getLogger(__name__)


class Clock(Protocol):
    """What knows how the clock here differs from the registry's."""

    def clock_problem(self) -> str | None: ...


class Routing(Protocol):
    """Whose table is looked at: a routing plane."""

    @property
    def table(self) -> Table: ...
    @property
    def priority(self) -> int: ...
    def look_again(self) -> None: ...


class Guard:
    """Looks at babel's table after each change, and has it looked at again when that is due without one."""

    def __init__(
        self,
        in_force: InForce,
        routing: Routing,
        tunnels: Tunnels,
        mesh: Mesh,
        chronicle: Chronicle,
        clock: Clock,
    ) -> None:
        plan = in_force.plan
        identity = plan.identity
        self._in_force = in_force
        self._routing = routing
        self._tunnels = tunnels
        self._mesh = mesh
        self._chronicle = chronicle
        self._clock = clock
        self._untimely = Refused()
        self._subnet = plan.subnet
        self._claims = Claims(identity.trust.network, identity.prefix, plan.config.accept_route)
        self._refusals = Refusals()
        self._note = plan.config.run / run_names.REFUSED
        self._restore()
        self._unheard: dict[NextHop, Prefix] = {}
        """Neighbours of our servers whose babel is not heard, and why."""
        self._found = Findings()
        self._asked = float("-inf")
        self._asked_about: frozenset[NextHop] = frozenset()
        self._life = (-1, 0.0)
        self._payload: Payload | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.requirement: RequirementWatch | None = None
        """Knows who lacks what the network requires."""
        tunnels.is_refused = self._is_refused
        tunnels.ends.looked = routing.look_again
        tunnels.came, tunnels.told_of_twin = self._came, self._told_of_twin
        tunnels.untimely = self._refuse_for_the_time
        self._own_twin = Own()
        self._twins = Twins()

    def _restore(self) -> None:
        """Refuse whom an earlier daemon did, that was replaced or killed."""
        try:
            with self._note.open("rb") as file:
                self._refusals.restore(file.read(NOTE_LIMIT), time.monotonic())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s: %s: who was refused may come in again", self._note, error)
        for peer in self.refused():
            log.info("%s is still refused: it announced what is not its subnet", peer)

    def _is_refused(self, peer: Prefix) -> bool:
        lacks = self.requirement is not None and self.requirement.lacks(peer)
        return lacks or self._refusals.holds(peer, time.monotonic())

    # -- what it finds --

    def look(self) -> None:
        """See who claims what, and act at once."""
        now = time.monotonic()
        if self._life[0] != self._routing.priority:
            self._life = self._routing.priority, now
        before, self._payload = self._found, payload_of(self._in_force.plan, self._payload)
        self._found = self._claims.look(
            self._routing.table, self._owner, now, self._life[1], self._payload, self._tunnels.ends.numbers
        )
        for lie in self._found.lies:
            self._expose(lie, now)
        if self._found.heard and not before.heard:
            self._tell_heard(self._found.heard)
        if before.heard and not self._found.heard:
            log.info("nobody else announces our subnet any more")
        for peer in self._found.doubled - before.doubled:
            log.warning(
                "two machines have the certificate of %s at one time: a disk that was copied, or a stolen key."
                " Enrol one of them anew, or change its key (re6st-conf rekey)",
                peer,
            )
            self._chronicle.found("certificate-doubled", time.time(), peer)
        unknown = frozenset(hop for hop in self._found.unknown if self._tunnels.ends.is_shared(hop.interface))
        again = self._found.again
        if again is not None or unknown:
            due = self._ask(unknown, now)
            self._look_again(due if again is None else min(again, due))

    def _look_again(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds + 0.01, self._routing.look_again)

    def tick(self) -> None:
        """Hear those again whose time is over. To be called every second or so."""
        if self.requirement is not None:
            self.requirement.tick()
        for hop, peer in list(self._unheard.items()):
            if not self._refusals.holds(peer, time.monotonic()):
                del self._unheard[hop]
                self._tunnels.undrain(hop.interface, hop.address)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _expose(self, lie: Lie, now: float) -> None:
        if not self._refusals.holds(lie.peer, now):
            seconds = self._refusals.refuse(lie.peer, now)
            log.warning(
                "%s announces %s, which is not its subnet: its tunnels are cut, and it is refused for %.0f minutes."
                " Ask its owner, or throw it out: re6st-registry revoke %s",
                *(lie.peer, lie, seconds / 60, lie.peer),
            )
            self._chronicle.found("false-claim", time.time(), lie.peer, reason=str(lie))
            try:
                rundir.write(self._note, self._refusals.note())
            except OSError as error:
                log.warning("%s: %s: after a restart %s may come in again", self._note, error.strerror, lie.peer)
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
        self._chronicle.found("own-subnet-heard", time.time(), reason=f"by {', '.join(names)}")

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

    def _refuse_for_the_time(self, refused: Untimely) -> None:
        if self._untimely.note(refused, time.monotonic()):
            log.warning("a tunnel was refused: %s", self._of_the_time(refused))

    def _of_the_time(self, refused: Untimely) -> str:
        here = f"by the clock here, {clock_text(time.time())}"
        if known := self._clock.clock_problem():
            return f"{refused} {here}; {known}"
        if refused.early:
            return f"{refused} {here}. Set the clock that is wrong, there or here"
        return f"{refused} {here}. If that is right, it must be renewed: its registry is out of reach there"

    def _told_of_twin(self, peer: Prefix, place: str) -> None:
        now = time.monotonic()
        if self._own_twin.told(peer, place, now):
            log.warning("%s: %s", self._own_twin.words(now), ADVICE)
            self._chronicle.found("own-certificate-doubled", time.time(), peer, reason=f"seen {place}")

    def _came(self, peer: Prefix, address: str) -> str:
        """Where else it is, as far as it is known to be at two places."""
        self._untimely.came(peer)
        now = time.monotonic()
        twin = self._twins.came(peer, address, now)
        if twin is not None:
            log.warning("%s: %s", twin, ADVICE)
            self._chronicle.found("certificate-doubled", time.time(), peer, reason=f"from {', '.join(twin.addresses)}")
        return self._twins.other(peer, address, now) or (ELSEWHERE if peer in self._found.doubled else "")

    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        found = [f"{peer} announced what is not its subnet: it is refused" for peer in self.refused()]
        found += self.requirement.problems() if self.requirement is not None else []
        if self._found.heard:
            found.append(
                f"our subnet {self._subnet} is announced by another machine too, by way of"
                f" {', '.join(self._names(self._found.heard))}: a lie, or a copied disk (see the log)"
            )
        found += [self._of_the_time(refused) for refused in self._untimely.found(time.monotonic())[:TOLD_LIMIT]]
        if own := self._own_twin.words(time.monotonic()):
            found.append(f"{own}: {ADVICE}")
        twins = {twin.peer: f"{twin}: see the log" for twin in self._twins.found(time.monotonic())}
        doubled = {peer: f"two machines have the certificate of {peer}: see the log" for peer in self._found.doubled}
        return found + list((doubled | twins).values())

    def refused(self) -> list[Prefix]:
        return self._refusals.held(time.monotonic())

    def record(self) -> Record:
        heard, twins = self._found.heard, self._twins.found(time.monotonic())
        return {
            "refused": [peer.cn for peer in self.refused()],
            "own_subnet_from": self._names(heard) if heard else [],
            "doubled": sorted({peer.cn for peer in (*self._found.doubled, *(twin.peer for twin in twins))}),
        }


def payload_of(plan: Plan, before: Payload | None) -> Payload | None:
    """The IPv4 of a network as its parameters have it, with what was `before`, which others may have still."""
    parameters = plan.parameters
    if parameters.ipv4 is None:
        return before and replace(before, own=None)
    former = () if before is None else (*before.former, (before.network, before.extra_bits))
    new = parameters.ipv4, parameters.ipv4_sublen
    return Payload(*new, plan.ipv4, tuple(dict.fromkeys(each for each in former if each != new))[-FORMER:])
