"""Routes of babel that the kernel lost: which those are, and when babeld is started anew for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest

from re6st.core.machine.wanted_state import AddressPlan, KernelRoute
from re6st.core.routing.babel_lines import Table
from re6st.core.routing.lost_routes import Network, RouteKey, installed
from re6st.linux import address_monitor
from re6st.linux.babel_routes import Installed
from re6st.noded import route_check
from re6st.noded.route_check import AGAIN_FIRST, AGAIN_LAST, RouteCheck
from tests.unit.fake_program import until

NETWORK = IPv6Network("2001:db8:42::/48")
IPV4 = IPv4Network("10.42.0.0/16")
ANY = IPv6Network("::/0")
HOP = "via fe80::1 if re6stnet1"
INSIDE = (IPv6Network("2001:db8:42:1::/64"), ANY)
OUT = (ANY, NETWORK)
WAY4 = (IPv4Network("10.42.2.0/24"), ANY)


def line(number: int, way: RouteKey, *, installed: str = "yes", metric: int = 96) -> str:
    destination, source = way
    source_text = "0.0.0.0/0" if isinstance(destination, IPv4Network) else source
    return (
        f"add route {number:x} prefix {destination} from {source_text} installed {installed} id 00:00:00:00:00:00:00:01"
        f" metric {metric} refmetric 0 {HOP}"
    )


def table(*lines: str) -> Table:
    made = Table()
    for each in lines:
        made.feed(each)
    return made


def test_which_ways_the_kernel_is_to_have() -> None:
    others = (ip_network("192.168.7.0/24"), ANY), (ip_network("2001:db8:99::/48"), ANY), (ANY, ANY)
    found = table(
        line(1, INSIDE),
        line(2, OUT),
        line(3, WAY4),
        line(4, (IPv6Network("2001:db8:42:2::/64"), ANY), installed="no"),
        line(5, (IPv6Network("2001:db8:42:3::/64"), ANY), metric=65535),
        line(6, (IPv4Network("10.42.3.0/24"), ANY), metric=65535),
        *(line(number, way) for number, way in enumerate(others, 7)),
    )
    assert installed(found, [NETWORK, IPV4]) == {INSIDE, OUT, WAY4}
    found.feed(line(3, WAY4).replace("add", "flush", 1))
    assert installed(found, [NETWORK]) == {INSIDE, OUT}
    assert installed(found, [NETWORK, IPV4]) == {INSIDE, OUT}


class World:
    """A kernel, and a babeld that says what it does not know better."""

    def __init__(self) -> None:
        self.now = 0.0
        self.table = table(line(1, INSIDE), line(2, OUT))
        self.kernel: set[tuple[Network, Network]] = {INSIDE, OUT}
        self.sourceless: tuple[KernelRoute, ...] = ()
        self.named: list[KernelRoute] = []
        self.asked = 0
        self.informed = True
        self.priority = 1024
        self.renewed: list[float] = []
        self.current = True
        self.wanted = [AddressPlan(NETWORK, IPv6Address("2001:db8:42:b::1"), 64, ())]

    async def installed(self, plans: Collection[AddressPlan], priority: int, expected: int) -> Installed:
        self.asked += 1
        self.expected = expected
        return Installed(frozenset(self.kernel), self.sourceless)

    async def name_source(self, routes: Collection[KernelRoute]) -> None:
        self.named += routes

    async def keeps_up(self) -> bool:
        return self.current

    async def renew(self, reason: str) -> None:
        assert reason == "the kernel lost its routes"
        self.renewed.append(self.now)

    def play(self, steps: Callable[[RouteCheck], Awaitable[None]]) -> None:
        check = RouteCheck(self, self, self, clock=lambda: self.now)
        asyncio.run(steps(check))  # type: ignore[arg-type]

    async def look(self, check: RouteCheck, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            await check.look()


def test_a_flush_is_told_once_and_babeld_started_anew(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    async def steps(check: RouteCheck) -> None:
        await world.look(check, 5)
        assert world.renewed == []
        world.kernel.clear()
        await world.look(check, 2)
        assert world.renewed == [6.5]
        assert check.problems() == ["the kernel lacks 2 routes of babel that another program removed"]
        world.kernel = {INSIDE, OUT}
        await world.look(check, 1)
        assert check.problems() == []

    world.play(steps)
    assert caplog.text.count("another program removed 2 routes of babel from the kernel") == 1


def test_what_is_missing_for_a_moment_or_because_we_are_late_is_no_reason() -> None:
    world = World()

    async def steps(check: RouteCheck) -> None:
        for _ in range(20):
            world.kernel = {INSIDE}
            await world.look(check, 0.5)
            world.kernel = {INSIDE, OUT}
            await world.look(check, 0.5)
        world.kernel = {INSIDE}
        world.current = False
        await world.look(check, 5)
        world.current = True
        world.informed = False
        await world.look(check, 5)

    world.play(steps)
    assert world.renewed == []


def test_who_removes_routes_all_the_time_has_babeld_started_ever_less_often() -> None:
    world = World()

    async def steps(check: RouteCheck) -> None:
        world.kernel.clear()
        await world.look(check, 2000)
        count = len(world.renewed)
        assert count < 12
        assert world.renewed[1] - world.renewed[0] >= AGAIN_FIRST
        assert world.renewed[-1] - world.renewed[-2] >= AGAIN_LAST
        assert check.problems(), "and the status says so all the time"

    world.play(steps)


def test_routes_that_lost_our_address_as_their_source_get_it_again() -> None:
    world = World()
    route = KernelRoute(NETWORK, preferred=IPv6Address("2001:db8:42:b::1"))

    async def steps(check: RouteCheck) -> None:
        world.sourceless = (route,)
        await world.look(check, 0.5)

    world.play(steps)
    assert world.named == [route]
    assert world.renewed == []


def test_the_kernel_is_asked_when_it_tells_of_a_change_and_while_routes_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not again and again: in a network where nothing happens that was a tenth of all that a node did."""
    told = asyncio.Event()

    async def changes(make: object) -> AsyncGenerator[None, None]:
        assert make is address_monitor.open_routes
        while True:
            yield
            await told.wait()
            told.clear()

    monkeypatch.setattr(address_monitor, "changes", changes)
    monkeypatch.setattr(route_check, "LOOK_FIRST", 0.001)
    world = World()

    async def steps(check: RouteCheck) -> None:
        running = asyncio.create_task(check.run())
        await until(lambda: world.asked > 0)
        await asyncio.sleep(0.05)
        asked = world.asked
        assert asked <= 2, "at the start, and for what was told before"
        world.kernel.clear()
        told.set()
        await until(lambda: world.asked >= asked + 10)
        world.kernel = {INSIDE, OUT}
        await asyncio.sleep(0.05)
        asked = world.asked
        await asyncio.sleep(0.05)
        assert world.asked == asked, "all is there again"
        running.cancel()
        await asyncio.wait([running])

    world.play(steps)


def test_while_babelds_news_are_late_nobody_is_said_to_have_removed_routes() -> None:
    world = World()

    async def steps(check: RouteCheck) -> None:
        await world.look(check, 1)
        world.kernel.clear()  # as babeld wants it, which we have not read
        world.informed = False
        await world.look(check, 30)
        assert check.problems() == []
        assert world.renewed == []
        world.informed, world.table = True, table()
        await world.look(check, 5)
        assert check.problems() == []
        assert world.expected == 2, "the kernel may still have as many as before"

    world.play(steps)
