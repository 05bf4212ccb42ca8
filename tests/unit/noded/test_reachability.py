"""What becomes of a change of our addresses: tunnels, router and peers are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from ipaddress import IPv4Address, ip_address

import pytest

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint, format_addresses
from re6st.linux import address_monitor
from re6st.linux.kernel import Address
from re6st.linux.netlink import NetlinkError
from re6st.noded import reachability
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.reachability import AddressAdvertiser
from re6st.tunnel import Connected
from tests.unit.fake_program import until

PEERS = [Prefix(number, 16) for number in range(1000)]
A, B = ip_address("192.168.0.5"), ip_address("10.7.7.7")
INSIDE = ip_address("2001:db8::1")


# --- what follows from a change ---


class World:
    """A machine whose addresses the test sets, and what its node was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[Address, bool] = {A: True, INSIDE: True}
        self.default: Address | None = None
        self.trouble = 0
        self.moves: list[tuple[frozenset[Address], bool]] = []
        self.kept: list[str] = []
        self.told: list[Prefix] = []
        self.changes: asyncio.Queue[None] = asyncio.Queue()
        self.own = OwnAddresses([(1194, TunnelProtocol.TCP)])
        monkeypatch.setattr(address_monitor, "changes", self._changes)
        monkeypatch.setattr(reachability, "TELL_EVERY", 0.01)
        monkeypatch.setattr(reachability, "source_address", lambda remote: self.default)
        monkeypatch.setattr(reachability, "READ_AGAIN", 0.01)

    async def _changes(self) -> AsyncGenerator[None, None]:
        yield
        while True:
            await self.changes.get()
            yield

    async def uplinks(self) -> dict[Address, bool]:
        if self.trouble:
            self.trouble -= 1
            raise NetlinkError(4, "dump interrupted")
        return dict(self.addresses)

    def is_ours(self, ip: Address) -> bool:
        return ip == INSIDE

    def keep(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.kept.append(format_addresses(endpoints))

    def acquainted(self) -> list[Prefix]:
        return PEERS[:2]

    def is_reachable(self, peer: Prefix) -> bool:
        return peer is PEERS[1]

    def has_answered(self, peer: Prefix) -> bool:
        return True

    def tell(self, peer: Prefix) -> None:
        self.told.append(peer)

    def moved(self, lost: frozenset[Address], *, news: bool) -> None:
        self.moves.append((lost, news))

    def becomes(self, uplinks: dict[Address, bool]) -> None:
        self.addresses = {**uplinks, INSIDE: True}
        self.changes.put_nowait(None)

    def connected(self, external: str, source: Address) -> Connected:
        return Connected(
            PEERS[0], Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP), "re6stnet1", 1, external, 1500, source
        )

    def play(self, steps: Callable[[World, AddressAdvertiser], Awaitable[None]]) -> World:
        async def run() -> None:
            room = AddressAdvertiser(self.own, self, self, self, upnp=False)
            task = asyncio.create_task(room.run(self))
            try:
                await until(lambda: self.own.local)
                await steps(self, room)
            finally:
                task.cancel()
                await asyncio.wait([task])

        asyncio.run(run())
        return self


class TwoLines:
    """Who knows the lines of this machine."""

    def __init__(self, **lines: Address) -> None:
        self.lines = lines

    def outer(self) -> tuple[Address, ...]:
        return tuple(self.lines.values())

    def inner(self) -> dict[str, IPv4Address]:
        return {name: ip for name, ip in self.lines.items() if isinstance(ip, IPv4Address)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_an_address_is_replaced(world: World) -> None:
    async def steps(world: World, room: AddressAdvertiser) -> None:
        await until(lambda: len(world.told) == 1)  # of the private one
        room.learn(world.connected("198.51.100.1", A), ())
        await until(lambda: len(world.told) == 2)
        world.becomes({B: True})
        await until(lambda: world.moves)
        assert world.own.endpoints() == ()
        room.learn(world.connected("203.0.113.2", B), ())
        await until(lambda: len(world.told) == 3)
        room.learn(world.connected("203.0.113.2", B), ())

    world.play(steps)
    assert world.moves == [(frozenset([A]), True)]
    assert world.kept == [f"{A},1194,tcp", "198.51.100.1,1194,tcp", "203.0.113.2,1194,tcp"]
    assert world.told == [PEERS[1]] * 3, "only who can be reached, and only when there is something to tell"


def test_private_addresses_lead_out_by_the_default_route_or_else_by_every_link_that_has_a_carrier(world: World) -> None:
    bridge, spare = ip_address("172.17.0.1"), ip_address("10.1.1.1")

    async def steps(world: World, room: AddressAdvertiser) -> None:
        world.becomes({A: True, bridge: False, spare: True})
        await until(lambda: len(world.moves) == 1)
        world.default = spare
        world.becomes({A: True, bridge: True, spare: True})
        await until(lambda: len(world.moves) == 2)

    world.play(steps)
    assert world.kept == [f"{A},1194,tcp", f"{A},1194,tcp;{spare},1194,tcp", f"{spare},1194,tcp"]


def test_the_addresses_of_all_lines_lead_out(world: World) -> None:
    """And of no other interface, though one line alone has the default route that counts."""
    world.default = A

    async def steps(world: World, room: AddressAdvertiser) -> None:
        bridge = ip_address("172.17.0.1")
        world.becomes({A: True, bridge: True, B: True})
        await until(lambda: len(world.moves) == 1)
        room.follow(TwoLines(fibre=A, dsl=B))
        await until(lambda: world.own.uplinks == (A, B))
        room.follow(TwoLines())
        await until(lambda: world.own.uplinks == (A,))

    world.play(steps)
    assert world.kept[-2:] == [f"{A},1194,tcp;{B},1194,tcp", f"{A},1194,tcp"]


def test_a_carrier_that_comes_back_is_news_and_one_that_goes_is_no_loss(world: World) -> None:
    async def steps(world: World, room: AddressAdvertiser) -> None:
        world.becomes({A: False})
        await until(lambda: len(world.moves) == 1)
        world.becomes({A: True})
        await until(lambda: len(world.moves) == 2)

    assert world.play(steps).moves == [(frozenset(), False), (frozenset(), True)]


def test_what_changes_inside_re6st_or_back_again_is_nothing(world: World) -> None:
    async def steps(world: World, room: AddressAdvertiser) -> None:
        world.addresses = {A: True}
        world.changes.put_nowait(None)
        world.changes.put_nowait(None)
        await until(world.changes.empty)
        world.becomes({A: True, B: True})
        await until(lambda: world.moves)

    assert world.play(steps).moves == [(frozenset(), True)]


def test_addresses_that_cannot_be_read_now_are_read_again(world: World) -> None:
    world.trouble = 2

    async def steps(world: World, room: AddressAdvertiser) -> None:
        world.trouble = 2
        world.becomes({B: True})
        await until(lambda: world.moves)

    assert world.play(steps).moves == [(frozenset([A]), True)]
