"""When rooms do what is due, by their deadlines: in the daemon (pulse.py), and in simulations (re6st/sim)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from re6st.core.mesh.policy import HEARTBEAT


class Room(Protocol):
    """What has something to do at certain moments."""

    def next_deadline(self, now: float) -> float:
        """When `tick` is to be called, by the monotonic clock; infinite where the next heartbeat is soon enough."""

    def tick(self) -> None:
        """Do what is due. It does no harm where nothing is."""


class Rhythm:
    """Of some rooms."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        self._rooms = rooms
        self._beat = float("-inf")

    def step(self, now: float) -> float:
        """Have the rooms do what is due now, all of them at a heartbeat; returns when to do that again."""
        is_beat = now >= self._beat
        if is_beat:
            self._beat = now + HEARTBEAT
        for room in self._rooms:
            if is_beat or room.next_deadline(now) <= now:
                room.tick()
        return min(self._beat, *(room.next_deadline(now) for room in self._rooms))
