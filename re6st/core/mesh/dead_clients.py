"""Who of the clients of a node's servers is dead, and so has a place that a newcomer may take.

A machine that is gone without a word stays a client until its tunnel gives it up: 60 seconds with OpenVPN, 90 with
WireGuard. Where many died at once, those that look for new neighbours meanwhile find all servers full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from re6st.core.prefix import Prefix

FREED = 2.0
"""Seconds from the moment at which a client is found dead until its place may be taken, if nothing at all comes from it
meanwhile, no answer either: a machine that has too much to do stands still for less."""


class DeadClients:
    """The clients that are dead. Nobody is ended for that alone: one that comes back before a newcomer wants its place
    keeps it."""

    def __init__(self) -> None:
        self.place_sought = False
        """Whether somebody was turned away lately: clients are to be asked for a sign of life."""
        self._dead: dict[Prefix, tuple[str, float]] = {}

    def __bool__(self) -> bool:
        """Whether any is dead."""
        return bool(self._dead)

    @property
    def known(self) -> Mapping[Prefix, tuple[str, float]]:
        """On which interface each is, and since when."""
        return self._dead

    def died(self, peer: Prefix, interface: str, now: float) -> None:
        """A client on this interface gives no sign of life, though it was asked for one."""
        self._dead.setdefault(peer, (interface, now))

    def heard(self, peers: Iterable[Prefix]) -> None:
        """These live, or are no clients any more."""
        for peer in peers:
            self._dead.pop(peer, None)

    def spare(self, now: float) -> list[Prefix]:
        """Those whose places may be taken, who is dead for longest first."""
        return sorted(
            (peer for peer, (_, since) in self._dead.items() if now - since >= FREED),
            key=lambda peer: self._dead[peer][1],
        )
