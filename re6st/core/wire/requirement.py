"""Which peers lack what the network requires (the parameter `require`): they are not let in, nor dialled.

A peer of this software announces its names soon after a session begins (seals.py). Who announces none is one of other
software, or what it said was lost: so the session is begun anew once before that counts. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from re6st.core.prefix import Prefix

PATIENCE = 30.0
"""From the beginning of a session until its peer should have announced its names: it is asked three times."""
TRIES = 2
"""Sessions without names until they count as none announced."""
AGAIN = 300.0
"""Until a peer that lacks something is asked anew: it may have been upgraded, and then begins a session itself."""


@dataclass(frozen=True, slots=True)
class AnnouncedNames:
    """What the peer of a session has announced; None: nothing yet."""

    names: frozenset[str] | None
    since: float
    """When the session began."""


@dataclass(frozen=True, slots=True)
class RequirementResult:
    lacking: tuple[tuple[Prefix, frozenset[str]], ...] = ()
    """Peers of whom it was not known before, and what they lack."""
    again: tuple[Prefix, ...] = ()
    """Peers with whom a session should be begun anew."""


class Requirement:
    """`lacking` says who is refused now, and what they lack."""

    def __init__(self) -> None:
        self.lacking: dict[Prefix, frozenset[str]] = {}
        self._tries: dict[Prefix, int] = {}

    def lacks(self, peer: Prefix) -> bool:
        """Whether a peer is refused."""
        return peer in self.lacking

    def look(
        self, required: frozenset[str], sessions: Mapping[Prefix, AnnouncedNames], now: float
    ) -> RequirementResult:
        """See what the peers with a session announced. Peers without one stay as they are."""
        if not required:
            self.lacking.clear()
            self._tries.clear()
            return RequirementResult()
        news: list[tuple[Prefix, frozenset[str]]] = []
        again: list[Prefix] = []
        for peer, announced in sessions.items():
            names = announced.names
            if names is None:
                if now - announced.since < (AGAIN if peer in self.lacking else PATIENCE):
                    continue
                self._tries[peer] = self._tries.get(peer, 0) + 1
                again.append(peer)
                if self._tries[peer] < TRIES:
                    continue
            else:
                self._tries.pop(peer, None)
            missing = required - (names or frozenset())
            if missing and peer not in self.lacking:
                news.append((peer, missing))
            if missing:
                self.lacking[peer] = missing
            else:
                self.lacking.pop(peer, None)
        self._tries = {peer: count for peer, count in self._tries.items() if peer in sessions}
        return RequirementResult(tuple(news), tuple(again))
