"""New settings reach our servers one by one, each drained first where others have another way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import IPv6Address
from random import Random

import pytest

from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.transport import server_drain
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.noded import server_rollout
from re6st.noded.server_rollout import ServerRollout
from re6st.tunnel import Listener
from tests.unit.tunnel_doubles import FakeFilter, FakeListener

PEER = Prefix(4, 16)
UDP, TCP = TunnelProtocol.UDP, TunnelProtocol.TCP


class World:
    """The servers of a node, whose hellos are quick, and what is done with them, in order."""

    def __init__(self, **servers: str) -> None:
        self.log: list[str] = []
        self.drains = FakeFilter()
        self.made = {TunnelProtocol(name): made for name, made in servers.items()}
        self._running = {protocol: FakeListener(interfaces.server(protocol)) for protocol in self.made}
        self.ports: dict[TunnelProtocol, int] = {UDP: 1194, TCP: 1194}
        self.survey = Survey()

    @property
    def running(self) -> Mapping[TunnelProtocol, Listener]:
        return self._running

    def wanted(self) -> Mapping[TunnelProtocol, int]:
        return self.ports

    def hello(self) -> float:
        return 0.01

    def is_outdated(self, protocol: TunnelProtocol) -> bool:
        return self.made[protocol] != "now"

    def encryption_begins(self) -> bool:
        return False

    def outdated_clients(self) -> frozenset[Prefix]:
        return frozenset()

    def tell_outdated(self) -> None:
        self.log.append("clients")

    def start(self, port: int, protocol: TunnelProtocol) -> None:
        self.log.append(f"start {protocol}")
        self.made[protocol] = "now"
        self._running[protocol] = FakeListener(interfaces.server(protocol))
        self._running[protocol].listening.set()

    async def end(self, protocol: TunnelProtocol) -> None:
        self.log.append(f"end {protocol}")
        del self._running[protocol], self.made[protocol]

    def renew(self) -> list[str]:
        async def run() -> None:
            async with asyncio.timeout(20):
                await ServerRollout(self, self, self.drains, Random(1)).renew(lambda: self.survey)

        asyncio.run(run())
        return self.log


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_rollout, "POLL", 0.001)
    monkeypatch.setattr(server_drain, "DRAIN_AGAIN", 0.001)


def carrying(interface: str) -> Survey:
    link = LinkUse(NextHop(IPv6Address("fe80::1"), interface), frozenset((PEER,)), frozenset())
    return Survey(peers=frozenset((PEER,)), neighbours={PEER: (link,)})


def test_servers_with_the_settings_of_now_are_left_alone() -> None:
    assert World(udp="now", tcp="now").renew() == ["clients"]


def test_one_after_another_ends_and_starts_again() -> None:
    assert World(udp="before", tcp="before").renew() == ["end udp", "start udp", "end tcp", "start tcp", "clients"]


def test_what_is_no_longer_wanted_ends_and_what_is_missing_starts() -> None:
    world = World(tcp6="now", tcp="now")
    assert world.renew() == ["end tcp6", "start udp", "clients"]


def test_a_server_is_drained_until_nothing_goes_through_it_and_is_heard_again_afterwards() -> None:
    world = World(udp="now", tcp="before")
    world.survey = carrying("re6stnet-tcp")

    class Emptying(FakeFilter):
        async def mute(self, interface: str, neighbour: IPv6Address | None = None) -> None:
            await super().mute(interface, neighbour)
            world.log.append("drained")
            world.survey = Survey(peers=frozenset((PEER,)))

    world.drains = Emptying()
    assert world.renew() == ["drained", "end tcp", "start tcp", "clients"]
    assert (world.drains.done, world.drains.undone) == (["re6stnet-tcp"], ["re6stnet-tcp"])


def test_a_server_that_is_needed_is_tried_three_times_and_then_restarted_all_the_same() -> None:
    world = World(udp="now", tcp="before")
    world.survey = carrying("re6stnet-tcp")
    assert world.renew() == ["end tcp", "start tcp", "clients"]
    assert world.drains.done == ["re6stnet-tcp"] * 3
    assert world.drains.undone == ["re6stnet-tcp"] * 4, "also when it listens again"


def test_nothing_is_drained_where_that_cannot_be_done() -> None:
    world = World(udp="now", tcp="before")
    world.survey, world.drains.available = carrying("re6stnet-tcp"), False
    assert world.renew() == ["end tcp", "start tcp", "clients"]
    assert not world.drains.done
