"""Measures which links lose packets, and tells the policy: by the socket and at the looks of noded/dead_links.py.

core/routing/link_loss.py decides who is asked when, and what it means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set

from re6st.core.mesh import policy
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.link_loss import LinkLoss
from re6st.noded.link_counts import LinkEnds

PATIENCE = 1.0
"""Seconds between two times that the policy is told of other suspects: they come and go."""

log = logging.getLogger(__name__)


class LinkLosses:
    """`avoided` are the links that the policy avoids. `event` tells it which are lossy, when that changes."""

    def __init__(
        self, ends: LinkEnds, event: Callable[[policy.Event], None], avoided: Callable[[], frozenset[NextHop]]
    ) -> None:
        self.measured = LinkLoss()
        self._ends = ends
        self._event = event
        self._avoided = avoided
        self._told = policy.LinksLossy(frozenset())
        self._told_at = self._rests_until = float("-inf")

    @property
    def avoided(self) -> frozenset[NextHop]:
        """The links that the policy avoids."""
        return self._avoided()

    def look(
        self,
        sent: Mapping[NextHop, int],
        missed: Set[NextHop],
        now: float,
        ask: Callable[[NextHop], int | None],
    ) -> None:
        """Ask whom it is time to ask, and tell what the answers that came until now mean. `sent`: how many packets went
        by each link so far; `missed`: where the last hello did not come; `ask` sends a request, and tells its number.
        """
        for hop in self.measured.look(sent, now, missed, self._avoided()):
            if (number := ask(hop)) is not None:
                self.measured.asked(hop, number, now)
        self._tell(now)

    def stop(self, now: float) -> None:
        """Nothing is measured from now on."""
        self.measured = LinkLoss(self.measured.asked_for)
        self._rests_until = float("-inf")
        self._tell(now)

    def _tell(self, now: float) -> None:
        if self.measured.rests_until > self._rests_until:
            log.info(
                "on most links, echo requests are not answered: a firewall limits them, or this machine's own line"
                " loses packets. No link is avoided for that; in %.0f s they are sent again",
                self.measured.rests_until - now,
            )
            self._rests_until = self.measured.rests_until
        lossy = self.measured.lossy
        found = policy.LinksLossy(lossy, self.measured.suspected if lossy else frozenset())
        if found == self._told or (lossy == self._told.hops and now - self._told_at < PATIENCE):
            return
        for hop in lossy - self._told.hops:
            log.info(
                "packets get lost on the link with %s on %s", self._ends.owner_at(hop) or hop.address, hop.interface
            )
        for hop in self._told.hops - lossy:
            peer = self._ends.owner_at(hop) or hop.address
            log.info("the link with %s on %s loses no packets any more, or has ended", peer, hop.interface)
        self._told, self._told_at = found, now
        self._event(found)
