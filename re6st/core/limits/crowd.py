"""Limits the connections of a server: for each sender, for all strangers together, and in all.

If there is no room for a new connection, it replaces the oldest one that has not sent a request yet: of the same sender
if that has used its share, otherwise of anybody. Part of the room is reserved for senders that are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from re6st.core.limits.networks import WIDER, levels

Key = TypeVar("Key", bound=Hashable)

_STRANGERS, _ALL = "strangers", "all"


@dataclass(frozen=True, slots=True)
class Decision(Generic[Key]):
    """The decision about a new connection."""

    admitted: bool
    instead: Key | None = None
    """The connection that is closed for it."""


class Crowd(Generic[Key]):
    """Allows `limit` connections in all, `reserve` of which are not for strangers, and `share` for one sender.

    A sender is a network, as core/registry/origins.py gives it. The larger networks around it may hold several times as
    many.
    """

    def __init__(self, limit: int, share: int, reserve: int) -> None:
        self._limit = limit
        self._share = share
        self._for_strangers = limit - reserve
        self._groups: dict[Key, tuple[str, ...]] = {}
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, dict[Key, None]] = {}
        """By group, in the order in which they came."""

    def __len__(self) -> int:
        return len(self._groups)

    def enter(self, key: Key, sender: str | None, *, known: bool = False) -> Decision[Key]:
        """Register a new connection. `sender` is None for this machine and its proxies; a `known` sender may use the
        reserve.
        """
        groups = self._bounds(sender, known)
        instead = None
        # Each group contains the one before it, so closing a connection of the first group that is full makes room in
        # all.
        full = next((group for group, bound in groups if self._held[group] >= bound), None)
        if full is not None:
            instead = next(iter(self._waiting.get(full, ())), None)
            if instead is None:
                return Decision(False)
            self.leave(instead)
        self._groups[key] = names = tuple(group for group, _ in groups)
        for group in names:
            self._held[group] += 1
            self._waiting.setdefault(group, {})[key] = None
        return Decision(True, instead)

    def asked(self, key: Key) -> None:
        """The connection has sent a request, and is no longer closed for another one."""
        for group in self._groups.get(key, ()):
            if (waiting := self._waiting.get(group)) is not None:
                waiting.pop(key, None)
                if not waiting:
                    del self._waiting[group]

    def leave(self, key: Key) -> None:
        """The connection has ended."""
        self.asked(key)
        for group in self._groups.pop(key, ()):
            self._held[group] -= 1
            if not self._held[group]:
                del self._held[group]

    def _bounds(self, sender: str | None, known: bool) -> list[tuple[str, int]]:
        """The groups in which it counts, with the limit of each, the narrowest first."""
        if sender is None:
            return [(_ALL, self._limit)]
        if known:
            return [(sender, self._share), (_ALL, self._limit)]
        wider = zip(levels(sender), (1, *WIDER), strict=False)
        networks = [(network, self._share * factor) for network, factor in wider]
        return [*networks, (_STRANGERS, self._for_strangers), (_ALL, self._limit)]
