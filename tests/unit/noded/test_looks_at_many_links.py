"""How often a node looks at its links, and how soon it finds a dead one, however many there are."""

from __future__ import annotations

import asyncio
import heapq
import logging
from ipaddress import IPv6Address
from random import Random
from statistics import median

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.linux.probes import EchoAnswer
from tests.unit.dead_links_world import World

PACE = 0.1
"""Seconds between two packets on a link, and their answers: no two links at the same time."""
SETTLED = 10.0
"""Seconds until each neighbour was asked for the first time."""


class ManyLinks(World):
    """WireGuard links on which packets go to and fro, until one dies. Round trips take 5 to 105 ms."""

    def __init__(self, count: int, loss: float = 0.0, seed: int = 1) -> None:
        self.hops = [
            NextHop(IPv6Address(f"fe80::{number:x}"), f"re6stnet-wg{number}") for number in range(1, count + 1)
        ]
        super().__init__(owners={hop: Prefix(number, 16) for number, hop in enumerate(self.hops)})
        self.meet(*self.hops)
        self.rng = Random(seed)
        self.loss = loss
        self.ends = float("inf")
        """When the first link dies."""
        self.found: list[float] = []
        """When one was found to be dead."""
        self.looks = 0
        self.trips = [0.005 + 0.1 * self.rng.random() for _ in self.hops]
        self.limit: tuple[float, float] | None = None
        """Answers that a firewall lets pass, a second and at once, of all neighbours."""
        self._passed = 0.0, 0.0
        self._number = 0
        self._events: list[tuple[float, int, int, EchoAnswer | None]] = []
        for index in range(count):
            self._later(self.now + PACE * self.rng.random(), index)

    def _later(self, moment: float, index: int, answer: EchoAnswer | None = None) -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, index, answer))

    def ask(self, address: IPv6Address, index: int = 0, source: IPv6Address | None = None) -> int:
        number = super().ask(address, index, source)
        trip = self.trips[index - 1]
        self._later(self.now + trip, index - 1, EchoAnswer((address, index), number, trip))
        return number

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        with asyncio.Runner() as runner:
            while self.now < until:
                self.now += self.room.pause(self.now)
                self._happen()
                runner.run(self.room.look(self, self))
                self.looks += 1
                if self.room.liveness.deaths > len(self.found):
                    self.found.append(self.now)

    def until_found(self) -> float:
        """Seconds that it takes to find out that a link has died, which it does in a moment."""
        self.ends = self.now + self.rng.random() * PACE
        self.run(2)
        (found,) = self.found
        return found - self.ends

    def _happen(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            moment, _, index, answer = heapq.heappop(self._events)
            hop = self.hops[index]
            works = index > 0 or moment < self.ends
            passes = works and self.rng.random() < (1 - self.loss) ** 2
            if answer is None:
                self._count(self.sent, hop)
                self._later(moment + PACE, index)
            if passes and answer is None:
                self._later(moment + self.trips[index], index, EchoAnswer((hop.address, 0), 0, 0.0))
            elif works and answer is not None:
                self._count(self.received, hop)
                if answer.number and passes and self._is_let_in(moment):
                    self.heard.append(answer)

    def _is_let_in(self, moment: float) -> bool:
        if self.limit is None:
            return True
        left, last = self._passed
        left = min(self.limit[1], left + (moment - last) * self.limit[0])
        self._passed = left - (left >= 1), moment
        return left >= 1

    @staticmethod
    def _count(packets: dict[str, int], hop: NextHop) -> None:
        packets[hop.interface] = packets.get(hop.interface, 0) + 1


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.if_nametoindex", lambda name: int(name.removeprefix("re6stnet-wg")))
    monkeypatch.setattr("socket.if_indextoname", lambda index: f"re6stnet-wg{index}")


def test_a_firewall_with_one_limit_for_all_neighbours_is_told_of_and_no_link_avoided_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = ManyLinks(8)
    world.limit = 10.0, 400.0
    world.run(60)
    assert world.events == []
    assert "on most links, echo requests are not answered: a firewall limits them" in caplog.text
    assert world.room.record()["unanswered"]


@pytest.mark.parametrize("loss", [0.0, 0.03])
@pytest.mark.parametrize("count", [1, 15, 50, 200])
def test_looks_are_no_more_frequent_however_many_links_there_are(count: int, loss: float) -> None:
    """A look for each link whenever it is due would be one after another: 64 a second of 15 links, and 98 of 50."""
    world = ManyLinks(count, loss)
    world.run(SETTLED)
    world.looks = 0
    world.run(20)
    assert world.looks / 20 <= 21
    assert world.room.liveness.deaths == 0


@pytest.mark.parametrize(("count", "usual"), [(1, 0.5), (15, 0.53), (200, 0.56)])
def test_a_dead_link_is_found_as_soon_however_many_there_are(count: int, usual: float) -> None:
    """Of 40, and of 15 where there are 200, with a look for each link: 0.48 s in the median, 0.48, and 0.51; now 0.48,
    0.49, and 0.52.
    """
    took = []
    for seed in range(3 if count > 100 else 15):
        world = ManyLinks(count, seed=seed)
        world.run(SETTLED)
        took.append(world.until_found())
    assert median(took) < usual
    assert max(took) < 0.8
