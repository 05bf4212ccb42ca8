"""The pulse of a node: its rooms do what is due when it is due, and a node where nothing happens sleeps."""

from __future__ import annotations

import asyncio
import time

import pytest

from re6st.core.mesh.policy import HEARTBEAT
from re6st.noded.pulse import Pulse

NEVER = float("inf")


class Room:
    """One with something to do at given moments."""

    def __init__(self, *due: float) -> None:
        self.due = list(due)
        self.ticks: list[float] = []
        self.now = 0.0

    def next_deadline(self, now: float) -> float:
        self.now = now
        return self.due[0] if self.due else NEVER

    def tick(self) -> None:
        self.ticks.append(self.now)
        while self.due and self.due[0] <= self.now:
            del self.due[0]


def live(pulse: Pulse, seconds: float, now: float = 0.0) -> list[float]:
    """Let time pass; the moments at which the pulse woke."""
    wakes, end = list[float](), now + seconds
    while now < end:
        wakes.append(now)
        later = pulse.step(now)
        assert later > now, "it would not sleep"
        now = later
    return wakes


@pytest.fixture
def happened() -> asyncio.Event:
    return asyncio.Event()


def test_where_nothing_is_due_a_node_wakes_by_its_heartbeat_alone(happened: asyncio.Event) -> None:
    """Twelve times a minute; it was sixty times."""
    wakes = live(Pulse((Room(), Room(), Room()), happened), 60)
    assert len(wakes) == 60 / HEARTBEAT == 12


def test_what_is_due_is_done_when_it_is_due_and_by_who_has_to(happened: asyncio.Event) -> None:
    busy, idle = Room(7.25, 7.5, 8.0), Room()
    live(Pulse((busy, idle), happened), 9)
    assert [tick for tick in busy.ticks if tick % HEARTBEAT] == [7.25, 7.5, 8.0]
    assert not [tick for tick in idle.ticks if tick % HEARTBEAT]


def test_at_a_heartbeat_every_room_looks(happened: asyncio.Event) -> None:
    rooms = Room(), Room(NEVER)
    live(Pulse(rooms, happened), 2 * HEARTBEAT + 1)
    assert [len(room.ticks) for room in rooms] == [3, 3]


def test_who_was_kept_from_running_does_at_once_what_was_due(happened: asyncio.Event) -> None:
    room = Room(3.0)
    pulse = Pulse((room,), happened)
    pulse.step(0.0)
    pulse.step(4.0)
    assert room.due == []
    assert pulse.last() == 4.0


def test_what_happens_ends_the_sleep() -> None:
    async def run() -> None:
        room, happened = Room(), asyncio.Event()
        task = asyncio.create_task(Pulse((room,), happened).run())
        while not room.ticks:
            await asyncio.sleep(0)
        room.due = [time.monotonic()]
        happened.set()
        async with asyncio.timeout(HEARTBEAT / 2):
            while room.due:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
