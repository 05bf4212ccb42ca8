"""Who of the clients of a node's servers is dead, and so has a place that a newcomer may take.

A machine that is gone without a word stays a client until its tunnel gives it up: 60 seconds with OpenVPN, 90 with
WireGuard. Where many died at once, those that look for new neighbours meanwhile find all servers full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from re6st.core.prefix import Prefix

FREED = 2.5
"""Seconds without any sign of life, answers to echo requests too, until a place may be taken: a machine that has too
much to do stands still for less."""
HELD = 120.0
"""Seconds after which what was found says nothing any more. Tunnels give such a client up before that."""


class DeadClients:
    """The clients that are dead. Nobody is ended for that alone: one that comes back before a newcomer wants its place
    keeps it."""

    def __init__(self) -> None:
        self.place_sought = False
        """Whether somebody was turned away lately: clients are to be asked for a sign of life."""
        self._dead: dict[Prefix, tuple[str, float]] = {}
        self._joined: dict[Prefix, float] = {}

    def __bool__(self) -> bool:
        """Whether any is dead."""
        return bool(self._dead)

    @property
    def known(self) -> Mapping[Prefix, tuple[str, float]]:
        """On which interface each is, and when it last gave a sign of life."""
        return self._dead

    def died(self, peer: Prefix, interface: str, last: float) -> None:
        """A client on this interface gives no sign of life, though asked for one; the last one came at `last`."""
        # Else that is its tunnel of before, which babel still knows.
        if last > self._joined.get(peer, float("-inf")):
            self._dead[peer] = interface, last

    def joined(self, peer: Prefix, now: float) -> None:
        """It has connected."""
        self.heard((peer,))
        self._joined = {each: since for each, since in self._joined.items() if now - since < HELD}
        self._joined[peer] = now

    def heard(self, peers: Iterable[Prefix]) -> None:
        """These live, or are no clients any more."""
        for peer in peers:
            self._dead.pop(peer, None)

    def forget(self) -> None:
        """Links are not watched any more: nothing is known of anybody."""
        self._dead.clear()

    def spare(self, now: float) -> list[Prefix]:
        """Those whose places may be taken, who is dead for longest first."""
        self._dead = {peer: found for peer, found in self._dead.items() if now - found[1] < HELD}
        return sorted(
            (peer for peer, (_, last) in self._dead.items() if now - last >= FREED),
            key=lambda peer: self._dead[peer][1],
        )
