"""The room that watches this machine's lines to the Internet, with a kernel that is played."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from re6st.core.machine import uplink_numbers as numbers
from re6st.core.machine.uplinks import Seen, UplinkOption
from re6st.core.machine.wanted_state import IFF_UP, Fault, KernelRoute, KernelRule, Placed
from re6st.core.mesh import policy
from re6st.core.mesh.uplink_choice import CALM, PROVE_AGAIN, UplinkChoice
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux import address_monitor
from re6st.linux.netlink import NetlinkError
from re6st.noded import uplinks as room
from re6st.noded.uplinks import Uplinks
from tests.unit.core.machine.test_uplinks import ADDRESSES, BOTH, LINKS, TWO, B, default, link, seen
from tests.unit.core.mesh.test_uplink_choice import HERE, PEERS, miss
from tests.unit.fake_program import until

Given = tuple[KernelRoute | KernelRule, ...]


class PlayedKernel:
    """It has what a test says, and takes what it is given, unless it refuses all."""

    def __init__(self, seen: Seen, left: Iterable[KernelRoute] = ()) -> None:
        self.seen = seen
        self.left = list(left)
        self.given: list[Given] = []
        self.refuses = False
        self.busy = 0
        """So many times it cannot be read."""
        self.trouble: OSError = NetlinkError(11, "it changed while it was read")

    async def see_uplinks(self) -> Seen:
        if self.busy:
            self.busy -= 1
            raise self.trouble
        return self.seen

    async def lead_out(self, things: Given) -> list[Fault]:
        self.given.append(things)
        return [Fault(each, "no") for each in things[-1:]] if self.refuses else []

    def uplinks_left(self) -> list[KernelRoute]:
        return self.left


class World:
    """A node's room, its kernel and its choice, and clocks that a test sets."""

    def __init__(self, seen: Seen, *options: UplinkOption, left: Iterable[KernelRoute] = (), **more: Any) -> None:
        self.kernel = PlayedKernel(seen, left)
        self.choice = UplinkChoice()
        self.now = 1000.0
        self.events: list[policy.Event] = []
        self.gone: list[str] = []
        """Lines that were left."""
        self.changes = 0
        self.answer = True
        self.asked: list[tuple[list[str], int]] = []
        clocks = {"wall": lambda: self.now, "clock": lambda: self.now}
        parts = options, self.kernel, self.choice, self.events.append, self
        self.room = Uplinks(*parts, ask=self.ask, **{**clocks, **more})

    def changed(self, lines: Uplinks) -> None:
        assert lines is self.room
        self.changes += 1

    def left(self, names: Collection[str]) -> None:
        self.gone.extend(names)

    def look(self, seen: Seen | None = None) -> None:
        self.kernel.seen = seen or self.kernel.seen
        asyncio.run(self.room.look())

    async def ask(self, places: Sequence[Endpoint], mark: int) -> bool:
        self.asked.append(([each.host for each in places], mark))
        return self.answer

    def tend(self) -> None:
        asyncio.run(self.room.tend())

    def tunnels(self, count: int) -> None:
        """So many tunnels are up, each over the line that was chosen for it."""
        for number, peer in enumerate(PEERS[:count]):
            place = replace(HERE[0], host=f"203.0.113.{number}")
            self.choice.choose(peer, [place], self.now)
            self.choice.reached(peer, place, self.now)

    def lines(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.room.record()["lines"]}  # type: ignore[attr-defined]

    def states(self) -> dict[str, str]:
        return {name: each["state"] for name, each in self.lines().items()}


def test_with_one_line_the_kernel_is_given_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(replace(TWO, defaults=BOTH[:1]))
    caplog.set_level(logging.INFO)
    world.look()
    assert world.kernel.given == [()]
    assert world.room.record()["active"] is False
    assert world.states() == {"eth0": "up"}
    assert world.lines()["eth0"]["mark"] is None
    assert world.choice.choose(PEERS[0], HERE, 0.0) is None
    assert caplog.text == ""


def test_with_two_lines_tunnels_are_bound_to_them() -> None:
    world = World(TWO)
    world.look()
    assert world.kernel.given[-1]
    assert {name: (each["mark"], each["table"]) for name, each in world.lines().items()} == {
        "eth0": (0x10, 14601),
        "eth1": (0x20, 14602),
    }
    assert [world.choice.choose(peer, HERE, 0.0).name for peer in PEERS[:2]] == ["eth0", "eth1"]  # type: ignore[union-attr]
    assert world.lines()["eth1"]["tunnels"] == 1
    world.look()
    assert len(world.kernel.given) == 1, "it has that"


def test_one_line_that_is_named_is_enough() -> None:
    world = World(replace(TWO, defaults=BOTH[:1]), UplinkOption("eth0"))
    world.look()
    assert world.kernel.given[-1]
    assert world.choice.choose(PEERS[0], HERE, 0.0) is not None


def test_where_routes_to_peers_have_gateways_of_their_own_there_is_none() -> None:
    """--remote-gateway. What a daemon before it left goes."""
    world = World(TWO, watched=False)
    world.look()
    assert world.kernel.given == [()]
    assert world.lines() == {}
    asyncio.run(world.room.run())


def test_a_line_keeps_its_slot_as_others_come_and_go() -> None:
    world = World(TWO)
    world.look()
    other = [*LINKS, link(4, "eth2")]
    addresses = {**ADDRESSES, "eth2": ["192.168.3.5/24"]}
    three = seen(other, addresses, *BOTH, default(4, "192.168.3.1", 1))
    world.look(three)
    assert {name: each["table"] for name, each in world.lines().items()} == {
        "eth2": 14603,
        "eth0": 14601,
        "eth1": 14602,
    }
    world.look(seen([other[0], *other[2:]], addresses, BOTH[1], default(4, "192.168.3.1", 1)))
    assert {name: each["table"] for name, each in world.lines().items()} == {"eth2": 14603, "eth1": 14602}


def test_the_slots_of_the_daemon_before_are_taken_over() -> None:
    before = World(TWO)
    before.look()
    routes = [each for each in before.kernel.given[-1] if isinstance(each, KernelRoute)]
    world = World(
        seen(LINKS, ADDRESSES, *reversed(BOTH)), UplinkOption("b", "eth1"), UplinkOption("a", "eth0"), left=routes
    )
    world.look()
    assert {name: each["table"] for name, each in world.lines().items()} == {"b": 14602, "a": 14601}


def test_what_is_wrong_with_a_line_that_is_named_is_a_problem_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(
        TWO,
        UplinkOption("eth0"),
        UplinkOption("lte", "wwan0"),
        UplinkOption("dsl", "eth1", (ip_address("192.168.9.1"),)),
    )
    for _ in range(5):
        world.look()
        world.now += 100
    assert world.room.problems() == [
        "uplink lte is down: there is no interface wwan0",
        "uplink dsl is down: its router 192.168.9.1 is in no network of eth1",
    ]
    assert caplog.text.count("there is no interface wwan0") == 1
    assert world.lines()["lte"]["since"] == 1000.0
    world.look(
        seen([*LINKS, link(4, "wwan0")], {**ADDRESSES, "wwan0": ["192.168.9.5/24"]}, *BOTH, default(4, "192.168.9.1"))
    )
    assert world.states() == {"eth0": "up", "lte": "up", "dsl": "down"}
    assert world.lines()["lte"]["since"] == 1500.0


def test_a_line_that_was_only_found_is_no_problem_when_it_goes() -> None:
    """As that of a laptop which is taken away from its dock."""
    world = World(TWO)
    world.look()
    world.look(replace(TWO, defaults=BOTH[:1]))
    assert world.states() == {"eth0": "up", "eth1": "down"}
    assert world.room.problems() == []
    assert not any(isinstance(each, KernelRoute) and each.gateway == B for each in world.kernel.given[-1])


def test_by_whom_nobody_is_reached_is_silent_and_anew_after_it_was_away(caplog: pytest.LogCaptureFixture) -> None:
    world = World(TWO, UplinkOption("eth0"), UplinkOption("eth1"))
    world.look()
    miss(world.choice, "eth1", 0.0)
    world.room._note()
    assert world.states() == world.room.states() == {"eth0": "up", "eth1": "silent"}
    assert world.room.problems() == ["uplink eth1: nobody was reached over it at the last tries"]
    assert "uplink eth1: nobody was reached over it at the last tries, others are used" in caplog.text
    world.look(replace(TWO, defaults=BOTH[::2]))
    world.look(TWO)
    assert world.states() == {"eth0": "up", "eth1": "up"}


def test_addresses_that_change_all_the_time_are_followed_and_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(TWO)
    caplog.set_level(logging.INFO)
    for number in range(200):
        world.look(seen(LINKS, {**ADDRESSES, "eth1": [f"192.168.2.{number + 2}/24"]}, *BOTH))
        world.now += 0.5
    assert world.lines()["eth1"]["addresses"] == ["192.168.2.201"]
    assert 5 < len(caplog.records) < 20
    world.now += 60
    world.room._note()
    assert "from 192.168.2.201" in caplog.text, "the last word is said when there is room for it"


def test_where_the_kernel_takes_no_rules_tunnels_are_not_bound(caplog: pytest.LogCaptureFixture) -> None:
    world = World(TWO)
    world.kernel.refuses = True
    world.look()
    assert world.room.record()["active"] is False
    assert world.choice.choose(PEERS[0], HERE, 0.0) is None
    (problem,) = world.room.problems()
    assert problem.startswith("tunnels are not bound to uplinks: the rule 14625 for 192.168.2.5/32 is missing: no")
    assert caplog.text.count("tunnels are not bound to uplinks") == 1


def test_of_too_many_lines_the_first_ones_are_used(caplog: pytest.LogCaptureFixture) -> None:
    count = numbers.LIMIT + 3
    links = [link(number, f"eth{number}") for number in range(count)]
    addresses = {f"eth{number}": [f"10.{number}.0.2/24"] for number in range(count)}
    world = World(seen(links, addresses, *(default(number, f"10.{number}.0.1", number) for number in range(1, count))))
    world.look()
    assert len(world.lines()) == numbers.LIMIT
    assert f"{count - 1} lines to the Internet: the first 7 are used" in caplog.text


def test_what_the_kernel_says_while_it_changes_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "READ_AGAIN", 0)
    world = World(TWO)
    world.kernel.busy = 3
    world.look()
    assert len(world.lines()) == 2


def test_where_no_socket_can_be_had_the_kernel_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "READ_AGAIN", 0)
    world = World(TWO)
    world.kernel.busy, world.kernel.trouble = 3, OSError(24, "Too many open files")
    world.look()
    assert len(world.lines()) == 2
    assert caplog.text.count("Too many open files") == 1


def test_bytes_are_those_of_the_interface(tmp_path: Path) -> None:
    counted = tmp_path / "eth0/statistics"
    counted.mkdir(parents=True)
    (counted / "rx_bytes").write_text("70\n")
    (counted / "tx_bytes").write_text("nothing\n")
    world = World(TWO, interfaces=tmp_path)
    world.look()
    assert [world.lines()[name]["received_bytes"] for name in ("eth0", "eth1")] == [70, None]
    assert world.lines()["eth0"]["sent_bytes"] is None


def test_an_interface_that_is_gone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    world = World(TWO)
    caplog.set_level(logging.INFO)
    world.look()
    world.look(seen(LINKS[:2], {"eth0": ADDRESSES["eth0"]}, BOTH[0]))
    assert "eth1 is no uplink any more" in caplog.text
    assert world.kernel.given[-1] == (), "one is left, as at the beginning"


def test_a_cable_that_is_plugged_in_beside_wifi_cuts_no_tunnel(caplog: pytest.LogCaptureFixture) -> None:
    """Both lead to one router, so only one counts."""
    addresses = {"eth0": ["192.168.1.5/24"], "wlan0": ["192.168.1.6/24"]}
    by_cable, by_air = default(2, "192.168.1.1", 100), default(3, "192.168.1.1", 600)
    both = seen((*LINKS[:2], link(3, "wlan0")), addresses, by_cable, by_air)
    unplugged = seen((LINKS[0], link(2, "eth0", flags=IFF_UP), link(3, "wlan0")), {"wlan0": ["192.168.1.6/24"]}, by_air)
    world = World(both)
    caplog.set_level(logging.INFO)
    world.look()
    assert world.states() == {"eth0": "up"}
    world.look(unplugged)
    assert (world.states(), world.gone) == ({"wlan0": "up", "eth0": "down"}, ["eth0"])
    world.look(both)
    assert (world.states(), world.gone) == ({"eth0": "up"}, ["eth0"])
    assert "wlan0 is no uplink any more: it is gone, or another one leads to the same router" in caplog.text


def test_addresses_are_those_of_the_line() -> None:
    world = World(replace(TWO, addresses=[*TWO.addresses, Placed(ip_address("192.168.2.6"), 24, "eth1")]))
    world.look()
    assert world.lines()["eth1"]["addresses"] == ["192.168.2.5", "192.168.2.6"]
    assert world.lines()["eth0"]["gateways"] == ["192.168.1.1", "fe80::1"]


# --- tunnels over them ---


def test_the_policy_is_told_over_how_many_lines_tunnels_are_spread() -> None:
    world = World(TWO)
    world.look()
    world.tend()
    world.tend()
    assert world.events == [policy.UplinksUsed(2)]
    world.look(replace(TWO, defaults=BOTH[:1]))
    world.tend()
    assert world.events[1:] == [policy.UplinksUsed(1)]
    alone = World(replace(TWO, defaults=BOTH[:1]))
    alone.look()
    alone.tend()
    assert alone.events == [policy.UplinksUsed(0)]


def test_a_line_that_goes_down_is_left_at_once() -> None:
    world = World(TWO)
    world.look()
    world.look(replace(TWO, defaults=BOTH[:1]))
    assert world.gone == ["eth1"]
    world.look(replace(TWO, defaults=BOTH[:1]))
    assert world.gone == ["eth1"]
    gone = World(TWO)
    gone.look()
    gone.look(seen(LINKS[:2], {"eth0": ADDRESSES["eth0"]}, BOTH[0]))
    assert gone.gone == ["eth1"]


def test_a_line_on_which_a_tunnel_died_is_left_if_nobody_answers_there(caplog: pytest.LogCaptureFixture) -> None:
    world = World(TWO)
    world.look()
    world.tunnels(4)
    lost, other = world.choice.over("eth1")
    world.choice.doubt(lost)
    world.tend()
    assert (world.gone, len(world.asked)) == ([], 1)
    (places, mark) = world.asked[0]
    assert (len(places), mark) == (4, 0x20)

    world.answer = False
    world.choice.lost(lost, world.now)
    world.tend()
    assert world.gone == ["eth1"]
    assert "uplink eth1: none of 4 peers answers over it any more" in caplog.text
    assert world.states() == {"eth0": "up", "eth1": "silent"}
    for peer in (lost, other):
        world.choice.release(peer)
        world.choice.choose(peer, HERE, world.now)
        world.choice.reached(peer, HERE[0], world.now)
    assert world.choice.counts() == {"eth0": 4}
    world.tend()
    assert len(world.asked) == 2
    world.now += PROVE_AGAIN
    world.tend()
    assert (len(world.asked), world.gone) == (3, ["eth1"]), "it is known already"

    world.answer = True
    world.now += PROVE_AGAIN
    world.events.clear()
    world.tend()
    assert world.states() == {"eth0": "up", "eth1": "up"}
    assert world.events == [policy.UplinkUp(), policy.UplinksUsed(2, frozenset(PEERS[:4]))]
    world.tend()
    assert world.events[2:] == world.events[1:2], "until it has done so"


def test_tunnels_move_to_a_line_that_comes_back_after_a_while() -> None:
    world = World(TWO)
    world.look()
    world.look(replace(TWO, defaults=BOTH[:1]))
    world.tunnels(3)
    world.look(TWO)
    world.tend()
    assert world.events[-1] == policy.UplinksUsed(2)
    world.now += CALM
    world.tend()
    assert world.events[-1] == policy.UplinksUsed(2, frozenset(PEERS[:3]))


def test_where_nobody_can_be_asked_nothing_is_left() -> None:
    """As where all tunnels are over UDP: nobody knows whether something listens there."""
    world = World(TWO)
    world.look()
    for peer in PEERS[:4]:
        world.choice.choose(peer, HERE, 0.0)
        world.choice.reached(peer, replace(HERE[0], protocol=TunnelProtocol.UDP), 0.0)
    world.choice.lost(world.choice.over("eth1")[0], 0.0)
    world.answer = False
    world.tend()
    assert (world.asked, world.gone) == ([], [])


def test_it_is_looked_at_as_soon_as_a_tunnel_seems_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PAUSE", 0)
    monkeypatch.setattr(address_monitor, "changes", no_changes)
    world = World(TWO)

    async def play() -> None:
        await world.room.look()
        world.tunnels(4)
        task = asyncio.create_task(world.room.run())
        await until(lambda: world.events)
        world.answer = False
        world.choice.doubt(world.choice.over("eth1")[0])
        await until(lambda: world.gone)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(play())


async def no_changes(_: object) -> AsyncGenerator[None, None]:
    await asyncio.sleep(60)
    yield
