"""What tunnels carry is found out and told to the throughput plane, which is not troubled for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from re6st.core.interfaces import link
from re6st.core.machine.uplinks import Uplink
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import Neighbour, NextHop, Table
from re6st.core.routing.capacity import UNKNOWN, class_of, cost
from re6st.core.tunnel_protocols import Role
from re6st.noded.link_capacities import COLLECT, PATIENCE, SETTLED, LinkCapacities

A, B = (NextHop(IPv6Address(f"fe80::{number}"), f"re6stnet{number}") for number in (1, 2))
SERVED = NextHop(IPv6Address("fe80::3"), "re6stnet-tcp")
LINK = NextHop(IPv6Address("fe80::4"), link(Role.CLIENT, 1))
"""In the place of the tunnel A."""
PEERS = {A: Prefix(1, 16), B: Prefix(2, 16), SERVED: Prefix(3, 16), LINK: Prefix(1, 16)}


class World:
    """The plane, babel's neighbours and the links, played."""

    def __init__(self, statistics: Path, *, probe: bool = True) -> None:
        self.now = 1000.0
        self.table = Table()
        self.carries: dict[IPv6Address, float | None] = {A.address: 500.0, B.address: 10.0}
        self.measured: list[IPv6Address] = []
        self.told: list[Mapping[str, int]] = []
        self.statistics = statistics
        measure = self.measure if probe else None
        self.lines: dict[Hashable, Uplink] = {}
        self.further: set[str] = set()
        """Interfaces of links beside another one with the same peer."""
        own = ("re6stnet1", "re6stnet2", LINK.interface)
        lines = self.user, self.lines.get
        self.room = LinkCapacities(self, self, lambda: own, measure, *lines, lambda: self.now, statistics)
        self.room.follow(self)

    def user(self, peer: Prefix, interface: str) -> Hashable:
        return (peer, 1) if interface in self.further else peer

    def owner_at(self, hop: NextHop) -> Prefix | None:
        return PEERS.get(hop)

    def measure(self, address: IPv6Address, index: int) -> float | None:
        self.measured.append(address)
        return self.carries[address]

    def price(self, costs: Mapping[str, int]) -> None:
        self.told.append(dict(costs))

    def neighbours(self, *hops: NextHop) -> None:
        self.table.neighbours.clear()
        for number, hop in enumerate(hops):
            self.table.neighbours[str(number)] = Neighbour(
                str(number), hop.address, hop.interface, 0xFFFF, 96, 96, 96, None
            )

    def has_received(self, hop: NextHop, received: int, sent: int = 0) -> None:
        directory = self.statistics / hop.interface / "statistics"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "rx_bytes").write_text(f"{received}\n")
        (directory / "tx_bytes").write_text(f"{sent}\n")

    def look(self, after: float = 1.0) -> None:
        self.now += after
        asyncio.run(self.room.look())


@pytest.fixture(autouse=True)
def interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.if_nametoindex", lambda name: 7)


def test_a_tunnel_of_ours_is_used_once_it_was_measured(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.neighbours(A, B, SERVED)
    world.look()
    assert world.measured == [], "it may be about to become a link"
    world.look(SETTLED)
    assert world.measured == [A.address, B.address]
    assert world.told == [{"re6stnet1": 512}, {"re6stnet2": 16384}]
    world.look()
    assert len(world.told) == len(world.measured) == 2
    assert world.room.record() == {
        "re6stnet1": {"mbits": 500.0, "cost": 512},
        "re6stnet2": {"mbits": 10.0, "cost": 16384},
    }


def test_what_is_said_of_a_line_counts_at_once_and_is_not_measured(tmp_path: Path) -> None:
    """Its slower direction: the end that opened a tunnel says the cost of both."""
    world = World(tmp_path)
    world.lines[PEERS[A]] = Uplink("fibre", "eth0", down=300.0, up=60.0)
    world.neighbours(A, B)
    world.has_received(A, 0)
    world.look()
    assert world.told == [{"re6stnet1": cost(class_of(60.0))}]
    world.look(SETTLED)
    assert world.measured == [B.address]
    world.has_received(A, 1_000_000_000)
    world.look()
    assert world.room.record()["re6stnet1"]["mbits"] == 60.0, "what passes makes it no faster"


def test_a_link_beside_another_one_has_the_line_that_it_goes_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    beside = LINK
    world.further = {beside.interface}
    world.lines[PEERS[A]] = Uplink("fibre", "eth0", down=300.0, up=60.0)
    world.lines[PEERS[beside], 1] = Uplink("dsl", "eth1", down=50.0, up=10.0)
    world.neighbours(A, beside)
    world.look()
    assert world.told == [{A.interface: cost(class_of(60.0)), beside.interface: cost(class_of(10.0))}]


def test_no_train_goes_over_a_line_that_is_paid_by_volume(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.lines[PEERS[A]] = Uplink("lte", "wwan0", metered=True)
    world.neighbours(A, B)
    world.has_received(A, 0)
    world.look()
    assert world.told == [{"re6stnet1": cost(UNKNOWN)}], "it is used at once all the same"
    world.look(PATIENCE)
    assert world.measured == [B.address]
    world.has_received(A, 1_000_000_000)
    world.look()
    world.look(COLLECT)
    assert world.told[-1] == {"re6stnet1": cost(0)}, "what comes by it is known"


def test_one_that_cannot_be_measured_is_used_after_a_while(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.carries[A.address] = None
    world.neighbours(A)
    world.look()
    world.look(SETTLED)
    assert world.told == []
    world.look(PATIENCE)
    assert world.told == [{"re6stnet1": cost(UNKNOWN)}]


def test_without_probing_it_is_used_at_once_and_known_by_what_passes(tmp_path: Path) -> None:
    world = World(tmp_path, probe=False)
    world.neighbours(A)
    world.has_received(A, 0)
    world.look()
    assert world.told == [{"re6stnet1": cost(UNKNOWN)}]
    world.has_received(A, 1000, sent=100_000_000)
    world.look(1.0)
    assert world.told[1:] == [], "what was sent may have been lost on the way"
    world.has_received(A, 100_000_000)
    world.look(1.0)
    assert world.told[1:] == [{"re6stnet1": 256}], "800 Mbit/s have passed"
    assert world.measured == []


def test_changes_of_costs_are_collected(tmp_path: Path) -> None:
    world = World(tmp_path, probe=False)
    world.neighbours(A, B)
    for hop in (A, B):
        world.has_received(hop, 0)
    world.look()
    world.told.clear()
    world.has_received(A, 60_000_000)
    world.look()
    world.has_received(A, 60_000_000)
    world.has_received(B, 60_000_000)
    world.look()
    assert world.told == [{"re6stnet1": 512}]
    world.look(COLLECT)
    assert world.told == [{"re6stnet1": 512}, {"re6stnet2": 512}]


def test_a_plane_that_begins_anew_is_told_all_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.neighbours(A, B)
    world.look()
    world.look(SETTLED)
    world.room.follow(None)
    world.told.clear()
    world.room.follow(world)
    assert world.told == [{"re6stnet1": 512, "re6stnet2": 16384}]


def test_a_peer_that_comes_back_is_not_measured_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.neighbours(A)
    world.look()
    world.look(SETTLED)
    world.neighbours()
    world.look()
    world.neighbours(A)
    world.look()
    world.look(SETTLED)
    assert world.measured == [A.address]
    assert world.room.record()["re6stnet1"]["mbits"] == 500.0


def test_a_tunnel_that_became_a_link_is_measured_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.neighbours(A)
    world.look()
    world.look(SETTLED)
    world.carries[LINK.address] = 900.0
    world.neighbours(LINK)
    world.look()
    world.look(SETTLED)
    assert world.measured == [A.address, LINK.address]
    assert world.told == [{"re6stnet1": 512}, {LINK.interface: 256}]
