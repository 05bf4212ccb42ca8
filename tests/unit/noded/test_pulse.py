"""The pulse of a node: its rooms do what is due when it is due, and a node where nothing happens sleeps."""

from __future__ import annotations

import asyncio
import time

from re6st.core.mesh.policy import HEARTBEAT
from re6st.noded.pulse import Pulse
from re6st.noded.rhythm import Rhythm

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


def live(rhythm: Rhythm, seconds: float, now: float = 0.0) -> list[float]:
    """Let time pass; the moments at which there was a look."""
    wakes, end = list[float](), now + seconds
    while now < end:
        wakes.append(now)
        later = rhythm.step(now)
        assert later > now, "it would not sleep"
        now = later
    return wakes


def test_where_nothing_is_due_a_node_wakes_by_its_heartbeat_alone() -> None:
    """Twelve times a minute; it was sixty times."""
    wakes = live(Rhythm((Room(), Room(), Room())), 60)
    assert len(wakes) == 60 / HEARTBEAT == 12


def test_what_is_due_is_done_when_it_is_due_and_by_who_has_to() -> None:
    busy, idle = Room(7.25, 7.5, 8.0), Room()
    live(Rhythm((busy, idle)), 9)
    assert [tick for tick in busy.ticks if tick % HEARTBEAT] == [7.25, 7.5, 8.0]
    assert not [tick for tick in idle.ticks if tick % HEARTBEAT]


def test_at_a_heartbeat_every_room_looks() -> None:
    rooms = Room(), Room(NEVER)
    live(Rhythm(rooms), 2 * HEARTBEAT + 1)
    assert [len(room.ticks) for room in rooms] == [3, 3]


def test_who_was_kept_from_running_does_at_once_what_was_due() -> None:
    room = Room(3.0)
    rhythm = Rhythm((room,))
    rhythm.step(0.0)
    rhythm.step(4.0)
    assert room.due == []


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
