"""The routes of a babeld that ended are removed once the next one has its own, and no sooner."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Collection, Set
from ipaddress import IPv6Address, IPv6Network

import pytest

from re6st.babel import Network, RouteKey6
from re6st.core.machine.wanted_state import AddressPlan
from re6st.linux.netlink import NetlinkError
from re6st.noded.left_routes import LeftRoutes, lead_out
from tests.unit.fake_program import until

ANY = IPv6Network("::/0")
WAY: RouteKey6 = (IPv6Network("2001:db8:42:b::/64"), ANY)
NOW = AddressPlan(IPv6Network("2001:db8:42::/48"), IPv6Address("2001:db8:42:b::1"), 64, ())
FORMER = AddressPlan(IPv6Network("2001:db8:43::/48"), IPv6Address("2001:db8:43:b::1"), 64, ())


class World:
    """A kernel, our networks, and a babeld that takes over when the test says so."""

    wanted = (NOW,)
    former = (FORMER,)
    priority = 1025
    name = "babeld"

    def __init__(self) -> None:
        self.followed, self.ready = asyncio.Event(), asyncio.Event()
        self.knows = asyncio.Event()
        self.has_all = asyncio.Event()
        self.lost: set[AddressPlan] = set()
        self.refuses = False
        self.swept: list[tuple[set[AddressPlan], Set[tuple[Network, Network]] | None]] = []

    async def sweep(
        self, plans: Collection[AddressPlan], priority: int | None, only: Set[tuple[Network, Network]] | None = None
    ) -> list[None]:
        assert priority == self.priority
        self.swept.append((set(plans), only))
        return [None]

    async def sweep_lost(self, plans: Collection[AddressPlan]) -> list[None]:
        if self.refuses:
            raise NetlinkError(errno.EPERM, "not permitted")
        self.lost = set(plans)
        return []

    async def take_over(self) -> AsyncIterator[frozenset[RouteKey6]]:
        await self.knows.wait()
        self.knows.clear()  # of one that follows, nothing is known yet
        yield frozenset((WAY,))
        await self.has_all.wait()


async def sweeping(world: World) -> asyncio.Task[None]:
    task = asyncio.create_task(LeftRoutes(world, world).sweep(world))
    world.ready.set()
    world.followed.set()
    await until(lambda: not world.followed.is_set())
    return task


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def test_each_way_as_it_comes_and_in_the_end_all_also_in_networks_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def run() -> None:
        world = World()
        task = await sweeping(world)
        assert world.swept == []
        world.knows.set()
        await until(lambda: world.swept)
        assert world.swept == [({NOW}, {WAY})]
        world.has_all.set()
        await until(lambda: len(world.swept) == 2)
        assert world.swept[1] == ({NOW, FORMER}, None)
        await end(task)

    asyncio.run(run())
    assert caplog.messages == ["the new babeld knows the network: removed 2 routes of the previous one"]


@pytest.mark.parametrize("trouble", ["it ended", "another one follows"])
def test_what_is_left_stays_when_that_babeld_is_not_there_any_more(trouble: str) -> None:
    async def run() -> None:
        world = World()
        task = await sweeping(world)
        world.knows.set()
        await until(lambda: world.swept)
        if trouble == "it ended":
            world.ready.clear()
        else:
            world.followed.set()
        world.has_all.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert [only for _, only in world.swept if only is None] == []
        await end(task)

    asyncio.run(run())


def test_what_the_last_babeld_had_lost_is_forgotten_in_all_networks(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    left = LeftRoutes(world, world)
    asyncio.run(left.forget_lost())
    assert world.lost == {NOW, FORMER}
    world.refuses = True
    asyncio.run(left.forget_lost())
    assert len(caplog.messages) == 1


def test_a_way_out_is_known_by_its_destination() -> None:
    assert not lead_out([WAY])
    assert lead_out([WAY, (ANY, NOW.network)])
