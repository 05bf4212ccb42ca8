"""Links beside the first one with a peer: which there are, what they are for the policy, and how they live and die."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Address

import pytest

from re6st.core.machine.uplinks import Uplink, WayOut
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.transport import further_links, met_links
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.tunnel_protocols import Role, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.wireguard import Reason
from re6st.noded import further_links as room
from tests.unit.fake_program import until
from tests.unit.wireguard_room_world import Node, World, killed, scene

FIRST, FURTHER = "re6stnet-wg1", "re6stnet-wg961"
PLACES = "192.0.2.2", "198.51.100.2"
"""Where the lines of the one who serves are."""


def line(name: str, address: str) -> Uplink:
    ip = IPv4Address(address)
    return Uplink(name, name, 2, (ip,), {4: WayOut(IPv4Address("203.0.113.1"))})


def has_lines(node: Node, *addresses: str) -> None:
    """It has a line for each of these addresses, which it tells others."""
    node.lines.follow({number: line(f"line{number}", ip) for number, ip in enumerate(addresses, 1)}, 0.0)
    node.endpoints = [Endpoint(ip, 1194, TunnelProtocol.TCP) for ip in addresses]


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK", "SETTLED", "PEERS_EVERY"):
        monkeypatch.setattr(room, name, 0.01)
    monkeypatch.setattr(met_links, "LEARNS", 0.0)


async def beside(world: World) -> None:
    """Two lines at each end, and a link over each."""
    a, b = world.a, world.b
    has_lines(a, "192.0.2.1", "198.51.100.1")
    has_lines(b, *PLACES)
    a.lines.choose(b.own, [Endpoint(PLACES[0], 1194, TunnelProtocol.TCP)], 0.0)
    await world.moved()
    a.meets(FIRST)
    await until(lambda: FURTHER in a.kernel.links and len(b.room.ends()) == 2)
    await until(lambda: len(a.room.ends()) == 2)
    a.meets(FIRST, FURTHER)


def used(node: Node) -> list[str]:
    """The lines of its links, by what it tells the operator."""
    return sorted(each.uplink or node.lines.used(each.peer) for each in node.room.reports())


@scene
async def test_each_line_has_a_link_and_both_ends_know_over_which_it_goes(world: World) -> None:
    await beside(world)
    await until(lambda: used(world.b) == ["line1", "line2"])
    assert used(world.a) == ["line1", "line2"]
    assert world.a.lines.counts() == {"line1": 1, "line2": 1}
    marks = sorted(device.marked for device in world.air.devices if "wgs" not in device.interface)
    assert marks == [0, world.a.lines.mark("line2")], "the first one has that of its tunnel, which has none here"
    dialled = {str(device.dialled) for device in world.air.devices if "wgs" not in device.interface}
    assert dialled == set(PLACES)


@scene
async def test_for_the_policy_it_is_one_tunnel_and_one_client(world: World) -> None:
    await beside(world)
    a, b = world.a, world.b
    assert a.mesh.tunnels[b.own].interface == FIRST
    assert b.mesh.clients == {a.own: 1}
    for node, names in ((a, (FIRST, FURTHER)), (b, ("re6stnet-wgs1", "re6stnet-wgs961"))):
        ((interface, hop),) = node.room.as_one().items()
        assert (interface, hop.interface) == (names[1], names[0])
        assert list(node.room.beside(names[0])) == [names[1]]
        assert not node.room.beside(names[1])
    ports = {link.own.terms.port for link in b.links()}
    assert b.open == ports, "the router has to let in what comes to either"
    assert len(ports) == 2


@scene
async def test_the_end_of_the_tunnel_ends_them_all(world: World) -> None:
    await beside(world)
    world.a.room.end(world.b.own)
    await until(lambda: not world.air.devices)
    assert not world.a.kernel.links + world.b.kernel.links
    assert world.b.mesh.clients == {}
    assert not world.a.moved()[1:], "none of them takes over"
    assert not world.b.open


@scene
async def test_where_the_first_link_ends_the_other_one_carries_the_tunnel(world: World) -> None:
    await beside(world)
    a, b = world.a, world.b
    waiting = asyncio.create_task(a.room.outlast(b.own))
    a.room.leave_line("line1")
    await until(lambda: len(b.room.ends()) == 1)
    assert a.moved()[1:] == [(b.own, FURTHER)]
    assert a.room.carries(b.own)
    assert a.lines.used(b.own) == "line2"
    assert b.mesh.clients == {a.own: 1}, "to the other end it is the same client"
    assert [each.interface for each in a.room.ends()] == [FURTHER]
    assert not waiting.done()
    a.room.leave_line("line2")
    assert a.room.carries(b.own), "the last one is left to who holds the tunnel"
    a.room.end(b.own)
    await asyncio.wait_for(waiting, 10)
    await until(lambda: not world.air.devices)
    assert b.mesh.clients == {}
    assert b.ways == ["+192.0.2.1", "-192.0.2.1"]


@scene
async def test_a_link_on_which_nothing_comes_ends_while_another_one_lives(world: World) -> None:
    await beside(world)
    a, b = world.a, world.b
    assert not a.room.gives_up(b.own, "re6stnet9")
    assert a.room.gives_up(b.own, FIRST)
    assert a.moved()[1:] == [(b.own, FURTHER)]
    assert not a.room.gives_up(b.own, FURTHER), "there is no other one"
    assert a.room.carries(b.own)


@scene
async def test_a_link_on_which_babel_meets_nobody_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await beside(world)
    monkeypatch.setattr(met_links, "LOST_TIME", 0.1)
    world.a.room.look()
    world.a.meets(FIRST)
    await until(lambda: [each.interface for each in world.a.room.ends()] == [FIRST])
    assert world.a.asked, "while it is doubtful, babel is asked"


def looks(node: Node, times: int = 20) -> None:
    for _ in range(times):
        node.room.look()


@scene
async def test_no_link_ends_by_a_table_that_says_what_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read anew some seconds later only."""
    monkeypatch.setattr(met_links, "LOST_TIME", 0.1)
    await beside(world)
    a, began = world.a, time.monotonic()
    told = [began]
    monkeypatch.setattr(Node, "age", property(lambda _: time.monotonic() - told[0]))
    a.room.look()
    a.meets(FIRST)
    while time.monotonic() < began + 0.3:
        a.room.look()
        await asyncio.sleep(0.005)
    assert len(a.room.ends()) == 2
    told[0] = time.monotonic()
    await until(lambda: [each.interface for each in a.room.ends()] == [FIRST])


@scene
async def test_a_link_that_the_policy_avoids_stays_though_babel_is_muted_on_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(met_links, "LOST_TIME", 0.02)
    await beside(world)
    a, b = world.a, world.b
    avoided = frozenset({a.room.as_one()[FURTHER]})
    monkeypatch.setattr(policy.Mesh, "avoided_links", property(lambda mesh: avoided if mesh is a.mesh else frozenset()))
    a.room.look()
    a.meets(FURTHER)
    await asyncio.sleep(0.1)
    assert len(a.room.ends()) == 2
    monkeypatch.setattr(policy.Mesh, "avoided_links", frozenset())
    await until(lambda: a.moved()[1:] == [(b.own, FURTHER)])


@pytest.mark.parametrize("gone", ["it has ended", "it is new", "there is none in the survey"])
@scene
async def test_without_a_babeld_that_knows_the_network_none_is_opened(
    world: World, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """Else each large network would seem to be a small one."""
    a, b = world.a, world.b
    has_lines(a, "192.0.2.1", "198.51.100.1")
    has_lines(b, *PLACES)
    a.lines.choose(b.own, [Endpoint(PLACES[0], 1194, TunnelProtocol.TCP)], 0.0)
    a.age = None
    await world.moved()
    a.meets(FIRST)
    if gone == "it is new":
        monkeypatch.setattr(met_links, "LEARNS", 30.0)
    if gone != "it has ended":
        a.age = 0.0
    if gone == "there is none in the survey":
        a.mesh.handle(policy.Surveyed(Survey(running=False)), 0)
    await until(lambda: bool(b.said_of_further))
    for _ in range(20):
        a.room.look()
        await asyncio.sleep(0.005)
    assert len(a.room.ends()) == 1
    monkeypatch.setattr(met_links, "LEARNS", 0.0)
    a.age = 0.0
    a.sees(b, {FIRST: [b.own]})
    await until(lambda: len(a.room.ends()) == 2)


@scene
async def test_no_link_is_drained_while_there_is_no_babeld(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await beside(world)
    a = world.a
    monkeypatch.setattr(room, "serves", lambda *_: False)
    a.drains.done.clear()
    a.age = None
    looks(a)
    await asyncio.sleep(0.02)
    assert not a.drains.done
    a.age = 0.0
    await until(lambda: a.drains.done == [FURTHER])


@scene
async def test_a_link_that_is_about_to_end_stays_where_it_has_to_carry_the_tunnel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await beside(world)
    a, b = world.a, world.b
    monkeypatch.setattr(room, "serves", lambda *_: False)
    await until(lambda: a.drains.done[-1:] == [FURTHER])
    assert FURTHER not in a.drains.undone
    a.room.leave_line("line1")
    assert a.moved()[1:] == [(b.own, FURTHER)]
    await until(lambda: FURTHER in a.drains.undone)
    looks(a)
    assert [each.interface for each in a.room.ends()] == [FURTHER]
    assert a.room.carries(b.own)


@scene
async def test_attempts_of_others_do_not_keep_a_node_from_opening_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger, role = Prefix(9, 16), Agreement.role

    class Busy(Agreement):
        """Somebody begins a link with us, again and again."""

        @property
        def begun(self) -> list[Prefix]:
            return [stranger, *super().begun]

        def role(self, peer: Prefix) -> Role | None:
            return Role.SERVER if peer == stranger else role(self, peer)

    for agreement in world.a.room.agreements():
        monkeypatch.setattr(agreement, "__class__", Busy)
    await beside(world)


@scene
async def test_an_address_by_which_one_peer_was_not_reached_is_tried_for_another_one(world: World) -> None:
    a = world.a
    a.room._failed(Prefix(9, 16), IPv4Address(PLACES[1]), Reason.NO_HANDSHAKE)
    await beside(world)
    dialled = {str(device.dialled) for device in world.air.devices if "wgs" not in device.interface}
    assert dialled == set(PLACES)


@scene
async def test_who_is_revoked_has_no_tunnel_either_where_a_further_link_carries_it(world: World) -> None:
    await beside(world)
    a, b = world.a, world.b
    a.room.leave_line("line1")
    waiting = asyncio.create_task(a.room.outlast(b.own))
    a.room.cut_off(frozenset({11}))
    await asyncio.wait_for(waiting, 10)
    assert not a.room.carries(b.own)
    assert not a.room.ends()


@scene
async def test_where_no_link_comes_up_by_one_address_another_one_is_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(further_links, "LOST_PAUSE", 0.01)
    a, b = world.a, world.b
    has_lines(b, *PLACES, "203.0.113.2")
    await world.moved()
    a.meets(FIRST)
    world.air.passes = False
    failed: list[str] = []

    def given_up() -> bool:
        dialled = {str(each.dialled) for each in world.air.devices if each.interface.startswith("re6stnet-wg96")}
        failed.extend(dialled - {"None", *failed})
        return bool(failed) and not dialled

    await until(given_up)
    world.air.passes = True
    left = [each for each in (*PLACES, "203.0.113.2") if each not in (failed[0], PLACES[0])]
    await until(lambda: len(a.room.ends()) == 2)
    (further,) = (each for each in world.air.devices if each.interface.startswith("re6stnet-wg96"))
    assert [str(further.dialled)] == left


@scene
async def test_who_is_revoked_loses_all_links(world: World) -> None:
    await beside(world)
    world.b.room.cut_off(frozenset({11}))
    await until(lambda: not world.b.kernel.links)
    assert world.b.mesh.clients == {}


@scene
async def test_a_peer_that_did_not_announce_it_is_told_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "may_have_further", lambda *_: False)
    has_lines(world.a, "192.0.2.1", "198.51.100.1")
    has_lines(world.b, *PLACES)
    await world.moved()
    for _ in range(20):
        world.a.room.look()
        world.b.room.look()
    assert not world.a.said_of_further + world.b.said_of_further
    assert len(world.a.room.ends()) == 1


@scene
async def test_no_link_is_opened_to_where_the_way_leads_through_the_network_itself(world: World) -> None:
    a, b = world.a, world.b
    a.kernel.inside = {*PLACES}
    has_lines(b, *PLACES)
    await world.moved()
    await until(lambda: bool(b.said_of_further))
    for _ in range(20):
        a.room.look()
        await asyncio.sleep(0)
    assert len(a.room.ends()) == 1
    a.kernel.inside.remove(PLACES[0])
    assert [each.interface for each in a.room.ends()] == [FIRST]


@scene
async def test_two_nodes_with_one_line_each_say_nothing_of_further_links(world: World) -> None:
    await world.moved()
    for _ in range(20):
        world.a.room.look()
        world.b.room.look()
        await asyncio.sleep(0)
    assert not world.a.said_of_further + world.b.said_of_further


@scene
async def test_the_next_daemon_goes_on_with_all_of_them(world: World) -> None:
    await beside(world)
    a, b = world.a, world.b
    devices = list(world.air.devices)
    found = await killed(a)
    assert sorted(each.lane for each in found.values()) == [0, 1]
    has_lines(a, "192.0.2.1", "198.51.100.1")
    told: list[str] = []
    a.room.go_on(found.values(), lambda records: told.extend(each.link.interface for each in records))
    assert told == [FIRST], "the policy knows of one"
    assert sorted(each.interface for each in a.room.ends()) == [FIRST, FURTHER]
    assert a.lines.counts()["line2"] == 1
    assert world.air.devices == devices
    await asyncio.sleep(0.1)
    assert len(b.room.ends()) == 2


@scene
async def test_the_next_daemon_goes_on_with_a_further_link_that_carries_the_tunnel(world: World) -> None:
    await beside(world)
    a, b = world.a, world.b
    a.room.leave_line("line1")
    await until(lambda: len(world.air.devices) == 2)
    found, others = await killed(a), await killed(b)
    told: list[str] = []
    a.room.go_on(found.values(), lambda records: told.extend(each.link.interface for each in records))
    assert told == [FURTHER]
    assert a.room.carries(b.own)
    b.room.go_on(others.values(), lambda _: None)
    assert b.client_events() == [policy.ClientUp]
    a.room.end(b.own)
    await until(lambda: not world.air.devices)
    assert b.client_events() == [policy.ClientUp, policy.ClientDown]
