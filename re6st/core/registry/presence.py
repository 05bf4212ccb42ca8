"""Since when nodes are online, and when those that are not were there last.

A node is there if a look at the network finds it. A short absence does not end its stay: a daemon that restarts, or a
registry's node that has just started and does not know all routes yet, says nothing about others. Times are Unix times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from re6st.core.prefix import Prefix

ABSENCE = 60.0
"""A node that is away for so many seconds was offline."""
NODES_LIMIT = 200_000
"""Nodes that are followed."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A node is online since a time; or it is offline, and was there last at that time."""

    prefix: Prefix
    online: bool
    since: int


@dataclass(slots=True)
class _Absence:
    """When a node was there last, and when it was missed first."""

    seen: float
    missed: float


class Presence:
    """Follows who is there, from look to look."""

    def __init__(self, stays: Iterable[Stay] = (), looked: float | None = None) -> None:
        """Begins with the nodes that were online at an earlier run's last look."""
        self._since = {stay.prefix: stay.since for stay in stays if stay.online}
        self._absent: dict[Prefix, _Absence] = {}
        self._looked = looked
        self._news: dict[Prefix, Stay] = {}

    def look(self, there: Collection[Prefix], now: float, patience: Callable[[Prefix], float]) -> None:
        """These nodes are there now. `patience` is how many seconds a node may be away until it counts as offline."""
        for prefix in there:
            if prefix in self._since:
                self._absent.pop(prefix, None)
            elif len(self._since) < NODES_LIMIT:
                self._since[prefix] = int(now)
                self._news[prefix] = Stay(prefix, True, int(now))
        seen = now if self._looked is None else min(self._looked, now)
        found = frozenset(there)
        for prefix in [prefix for prefix in self._since if prefix not in found]:
            absence = self._absent.setdefault(prefix, _Absence(seen, now))
            if now - absence.missed >= patience(prefix):
                del self._since[prefix], self._absent[prefix]
                self._news[prefix] = Stay(prefix, False, int(absence.seen))
        self._looked = now

    @property
    def looked(self) -> float | None:
        """The time of the last look."""
        return self._looked

    def since(self, prefix: Prefix) -> int | None:
        """Since when a node is online; None: it is not."""
        return None if prefix in self._absent else self._since.get(prefix)

    def seen(self, prefix: Prefix) -> int | None:
        """When a node that was just missed was there last; None for others."""
        absence = self._absent.get(prefix)
        return None if absence is None else int(absence.seen)

    def forget(self, prefix: Prefix) -> None:
        """Another node has this prefix from now on, or nobody."""
        self._since.pop(prefix, None)
        self._absent.pop(prefix, None)
        self._news.pop(prefix, None)

    def take_news(self) -> list[Stay]:
        """What has changed since this was asked last."""
        news, self._news = list(self._news.values()), {}
        return news

    def give_back(self, news: Iterable[Stay]) -> None:
        """These could not be stored; newer ones stay."""
        self._news = {stay.prefix: stay for stay in news} | self._news
