"""Who may have a tunnel with us, and what is told of those that may not (core/routing/claims.py, twins.py)."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.routing.claims import Lie, Refusals
from re6st.core.routing.twins import ADVICE, ELSEWHERE, Own, Twin, Twins
from re6st.core.telemetry.event_log import EventLog
from re6st.core.transport.untimely import RefusedCertificates, Untimely
from re6st.core.wire.requirement import Requirement
from re6st.core.words import clock as clock_text
from re6st.service import rundir

TOLD_LIMIT = 5
"""Peers of one kind of trouble in the status."""
NOTE_LIMIT = 1 << 20
"""Bytes that are read of who is refused."""

log = logging.getLogger(__name__)


class ClockComparison(Protocol):
    """What knows how the clock here differs from the registry's."""

    def clock_problem(self) -> str | None: ...


class Admission:
    """Refuses whoever announced what is not its own, or lacks what the network requires; knows certificates that two
    machines have, and those that were refused for the time.

    Whom it refuses is kept in the file `note`, for the daemon after this one.
    """

    def __init__(self, note: Path, requirement: Requirement, event_log: EventLog, clock: ClockComparison) -> None:
        self._note = note
        self._requirement = requirement
        self._event_log = event_log
        self._clock = clock
        self._refusals = Refusals()
        self._untimely = RefusedCertificates()
        self._own_twin = Own()
        self._twins = Twins()
        self.doubled: frozenset[Prefix] = frozenset()
        """Peers whose certificate two machines have, by what babel's table says."""
        self._restore()

    def _restore(self) -> None:
        """Refuse whom an earlier daemon did, that was replaced or killed."""
        try:
            with self._note.open("rb") as file:
                self._refusals.restore(file.read(NOTE_LIMIT), time.monotonic())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("cannot read %s: %s. Peers that were refused may connect again", self._note, error)
        for peer in self.refused():
            log.info("%s is still refused: it announced a subnet that is not its own", peer)

    # -- who is refused --

    def is_refused(self, peer: Prefix) -> bool:
        """Whether a peer may have no tunnel with us for now."""
        return self._requirement.lacks(peer) or self.has_lied(peer)

    def has_lied(self, peer: Prefix) -> bool:
        """Whether it announced what is not its own, a while ago at most."""
        return self._refusals.holds(peer, time.monotonic())

    def refused(self) -> list[Prefix]:
        """Those that did."""
        return self._refusals.held(time.monotonic())

    def refuse(self, lie: Lie) -> None:
        """Refuse who announced what is not its own; it is told once."""
        if self.has_lied(lie.peer):
            return
        seconds = self._refusals.refuse(lie.peer, time.monotonic())
        log.warning(
            "%s announces %s, which is not its subnet: its tunnels are cut, and it is refused for %.0f minutes."
            " Ask its owner, or revoke it: re6st-registry revoke %s",
            *(lie.peer, lie, seconds / 60, lie.peer),
        )
        self._event_log.found("false-claim", time.time(), lie.peer, reason=str(lie))
        try:
            rundir.write(self._note, self._refusals.note())
        except OSError as error:
            log.warning(
                "cannot write %s: %s. After a restart, %s may connect again", self._note, error.strerror, lie.peer
            )

    # -- what tunnels tell --

    def came(self, peer: Prefix, address: str) -> str:
        """A peer has connected to a server of ours: where else it is, as far as it is known to be at two places."""
        self._untimely.came(peer)
        now = time.monotonic()
        twin = self._twins.came(peer, address, now)
        if twin is not None:
            log.warning("%s: %s", twin, ADVICE)
            self._event_log.found("certificate-doubled", time.time(), peer, reason=f"from {', '.join(twin.addresses)}")
        return self._twins.other(peer, address, now) or (ELSEWHERE if peer in self.doubled else "")

    def told_of_twin(self, peer: Prefix, place: str) -> None:
        """A peer has seen another machine with our certificate, there."""
        now = time.monotonic()
        if self._own_twin.told(peer, place, now):
            log.warning("%s: %s", self._own_twin.words(now), ADVICE)
            self._event_log.found("own-certificate-doubled", time.time(), peer, reason=f"seen {place}")

    def untimely(self, refused: Untimely) -> None:
        """A server of ours has refused a certificate for the time."""
        if self._untimely.note(refused, time.monotonic()):
            log.warning("a tunnel was refused: %s", self._of_the_time(refused))

    def _of_the_time(self, refused: Untimely) -> str:
        here = f"by the clock here, {clock_text(time.time())}"
        if known := self._clock.clock_problem():
            return f"{refused} {here}; {known}"
        if refused.early:
            return f"{refused} {here}. Set the clock that is wrong, there or here"
        return f"{refused} {here}. If that is right, it must be renewed: its registry is out of reach there"

    # -- for the operator --

    def problems(self) -> list[str]:
        """What is wrong now, in words, those left out that are refused."""
        now = time.monotonic()
        found = [self._of_the_time(refused) for refused in self._untimely.found(now)[:TOLD_LIMIT]]
        if own := self._own_twin.words(now):
            found.append(f"{own}: {ADVICE}")
        twins = {twin.peer: f"{twin}: see the log" for twin in self.twins()}
        doubled = {peer: f"two machines have the certificate of {peer}: see the log" for peer in self.doubled}
        return found + list((doubled | twins).values())

    def twins(self) -> list[Twin]:
        """Certificates that two machines connect with in turn."""
        return self._twins.found(time.monotonic())
