"""Interfaces carry what all neighbours on them get, and a larger probe goes out while nothing else does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv6Address

import pytest

from re6st.core.transport.mtu_probe import ANSWER, LEAST, TRIES, WIREGUARD
from re6st.transport.link_mtu import LinkMtus

PEER, OTHER = IPv6Address("fe80::1"), IPv6Address("fe80::2")
INDEX = {"re6stnet1": 5, "re6stnet-udp": 6}


@dataclass
class World:
    """Interfaces, and an echo that answers packets of up to `carries` bytes, by neighbour."""

    now: float = 0.0
    mtus: dict[int, int] = field(default_factory=lambda: {5: 1500, 6: 1500})
    carries: dict[IPv6Address, int] = field(default_factory=dict)
    sent: list[tuple[IPv6Address, int, int]] = field(default_factory=list)
    """To whom, of what size, and what the interface carried then."""
    unfit: list[tuple[str, IPv6Address]] = field(default_factory=list)
    waiting: list[tuple[int, IPv6Address, int]] = field(default_factory=list)
    gone: bool = False

    def __post_init__(self) -> None:
        self.links = LinkMtus(
            self, lambda interface, peer: self.unfit.append((interface, peer)), lambda: self.now, INDEX.__getitem__
        )
        self.links._echo = self

    def set_mtu(self, index: int, mtu: int) -> None:
        if self.gone:
            raise OSError("no such device")
        self.mtus[index] = mtu

    def bytes_sent(self, index: int) -> int | None:
        return None if self.gone else int(self.now * 10_000)

    def send(self, index: int, neighbour: IPv6Address, number: int, size: int) -> None:
        self.sent.append((neighbour, size, self.mtus[index]))
        if size <= self.carries.get(neighbour, 1500):
            self.waiting.append((index, neighbour, number))

    def run(self, seconds: float = TRIES * ANSWER + 1) -> None:
        """Time passes, and what was sent is answered."""
        end = self.now + seconds
        while self.now < end:
            self.links.tick()
            while self.waiting:
                self.links.answered(*self.waiting.pop(0))
            self.now += 0.25


@pytest.fixture
def world() -> World:
    return World()


def test_an_interface_begins_with_the_least_and_gets_what_passes(world: World) -> None:
    world.carries[PEER] = 1412
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.links.tick()
    assert world.mtus[5] == LEAST
    world.run()
    assert world.mtus[5] == 1412
    assert world.links.mtu("re6stnet1") == 1412
    assert world.links.mtu("re6stnet-udp") is None


def test_a_probe_goes_out_in_one_piece_and_the_interface_is_as_before_at_once(world: World) -> None:
    world.carries[PEER] = 1300
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.links.tick()
    assert all(size <= carried for _, size, carried in world.sent)
    assert max(size for _, size, _ in world.sent) == 1420
    assert world.mtus[5] == LEAST


def test_an_interface_that_several_share_has_what_the_worst_of_them_gets(world: World) -> None:
    world.carries = {PEER: 1500, OTHER: 1300}
    world.links.watch("re6stnet-udp", PEER, (1348,))
    world.links.watch("re6stnet-udp", OTHER, (1348,))
    world.run()
    assert world.mtus[6] == 1280
    world.links.forget("re6stnet-udp", OTHER)
    assert world.mtus[6] == 1348


def test_a_link_that_passes_small_packets_only_is_told_of(world: World) -> None:
    world.carries[PEER] = 600
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.run()
    assert world.unfit == [("re6stnet1", PEER)]


def test_what_the_system_was_told_of_the_path_counts_at_the_next_look(world: World) -> None:
    known = [1500]
    world.links.watch("re6stnet1", PEER, WIREGUARD, lambda: known[0] - 60)
    world.run()
    assert world.mtus[5] == 1420
    known[0] = 1400
    world.carries[PEER] = 1340
    world.run(40)
    assert world.mtus[5] == 1340


def test_a_link_that_moved_is_asked_at_once(world: World) -> None:
    world.carries[PEER] = 1380
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.run()
    world.carries[PEER] = 1420
    world.links.moved("re6stnet1")
    world.run(1)
    assert world.mtus[5] == 1420


def test_a_link_that_is_forgotten_is_asked_no_more_and_late_answers_change_nothing(world: World) -> None:
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.links.tick()
    world.links.forget("re6stnet1")
    for late in world.waiting:
        world.links.answered(*late)
    assert world.mtus[5] == LEAST
    world.sent.clear()
    world.run(100)
    assert not world.sent


def test_an_interface_that_is_gone_ends_nothing(world: World) -> None:
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.gone = True
    world.run(100)
    world.links.forget("re6stnet1")


def test_strangers_answers_are_of_nobody(world: World) -> None:
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.links.tick()
    world.links.answered(5, OTHER, 1)
    world.links.answered(6, PEER, 1)
    assert world.mtus[5] == LEAST


def test_the_same_neighbour_is_watched_once(world: World) -> None:
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.run()
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    assert world.mtus[5] == 1420


def test_where_no_echo_can_be_sent_that_is_told_and_interfaces_stay_as_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(answered: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("re6st.transport.link_mtu.EchoSocket", refuse)
    world.links._echo = None
    asyncio.run(world.links.run())
    assert "no echo requests: Operation not permitted" in caplog.text
    world.links.watch("re6stnet1", PEER, WIREGUARD)
    world.links.tick()
    world.links.moved("re6stnet1")
    assert world.mtus[5] == 1500
