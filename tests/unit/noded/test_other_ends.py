"""Who is, or was just now, at the other end of a tunnel: nobody is named in the place of who was cut off."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux import hardware
from re6st.linux.hardware import Hardware
from re6st.noded.other_ends import LATELY, REMEMBERED, EndedTunnels, OtherEnds
from re6st.tunnel import Dialer, ServerClient
from tests.unit.tunnel_doubles import FakeDialer, FakeListener

LIAR, HONEST, OTHER = (Prefix(number, 16) for number in (2, 3, 4))
SERVER, TAP = "re6stnet-tcp", "re6stnet1"
MAC = "02:00:00:00:00:02"


class FakeNetlink:
    """Neighbours that the kernel knows once they were asked for."""

    def __init__(self) -> None:
        self.there: dict[IPv6Address, str] = {}
        self.asked: list[IPv6Address] = []

    def neighbours(self) -> dict[tuple[int, IPv6Address], str]:
        return {(7, ip): self.there[ip] for ip in self.asked if ip in self.there}

    def find_neighbour(self, ip: IPv6Address, index: int) -> None:
        assert index == 7
        self.asked.append(ip)


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.server = FakeListener(SERVER)
        for number, (peer, node) in enumerate(((LIAR, 2), (HONEST, None))):
            self.server.clients[number] = ServerClient(peer, None, None, number=node)
        self.held: list[Dialer] = []
        self.netlink = FakeNetlink()
        self.ended = EndedTunnels(clock=lambda: self.now)
        self.ends = OtherEnds(
            {TunnelProtocol.TCP: self.server, TunnelProtocol.UDP: FakeListener("re6stnet-udp")},
            lambda: self.held,
            Hardware(self.netlink),
            tuple,
            self.ended,
        )

    def hold(self, peer: Prefix | None, *, connected: bool = True, number: int | None = None) -> None:
        tunnel = FakeDialer(TAP, peer, connected=connected)
        tunnel.number = number
        self.held = [tunnel]

    def cut(self, peer: Prefix) -> None:
        self.server.clients = {k: c for k, c in self.server.clients.items() if c.peer != peer}
        self.server.hardware = {}
        self.ended.note(SERVER, peer)


@pytest.fixture
def world() -> World:
    return World()


def test_behind_a_server_it_is_who_has_the_hardware_address_also_after_it_was_cut_off(world: World) -> None:
    assert world.ends.suspects(SERVER, MAC) == [LIAR, HONEST], "nobody asked yet"
    world.server.hardware = {MAC: LIAR}
    world.ends.look()
    assert world.ends.owner(SERVER, MAC) == LIAR
    assert world.ends.suspects(SERVER, MAC) == [LIAR]
    world.cut(LIAR)
    world.ends.look()
    assert world.ends.owner(SERVER, MAC) is None
    assert world.ends.suspects(SERVER, MAC) == [LIAR]


def test_who_has_no_tunnel_with_the_server_any_more_has_left(world: World) -> None:
    """A link-local address that is made of a hardware address tells it."""
    hop = NextHop(IPv6Address("fe80::ff:fe00:2"), SERVER)
    assert not world.ends.left([hop]), "nobody knows who it is"
    world.server.hardware = {MAC: LIAR}
    assert not world.ends.left([hop])
    world.server.clients = {0: ServerClient(HONEST, None, None)}
    assert world.ends.left([hop]) == {hop}
    assert not world.ends.left([NextHop(hop.address, TAP)])


def test_where_it_is_not_known_those_that_left_lately_are_suspects_too(world: World) -> None:
    world.cut(LIAR)
    assert world.ends.suspects(SERVER, MAC) == [HONEST, LIAR]
    world.now += LATELY + 1
    assert world.ends.suspects(SERVER, MAC) == [HONEST]


def test_an_interface_that_leads_to_another_peer_now_does_not_make_that_one_guilty_alone(world: World) -> None:
    world.hold(LIAR)
    assert (world.ends.owner(TAP, MAC), world.ends.suspects(TAP, MAC)) == (LIAR, [LIAR])
    world.ended.note(TAP, LIAR)
    world.hold(OTHER, connected=False)
    assert (world.ends.owner(TAP, MAC), world.ends.suspects(TAP, MAC)) == (None, [LIAR])
    world.hold(OTHER)
    assert world.ends.suspects(TAP, MAC) == [OTHER, LIAR]


@pytest.mark.parametrize(
    ("interface", "protocol", "waits"),
    [
        (TAP, TunnelProtocol.TCP6, True),
        (TAP, TunnelProtocol.UDP4, False),
        (SERVER, None, True),
        ("re6stnet-udp", None, False),
        ("re6stnet-wg1", None, False),
        ("re6stnet-wgs1", None, False),
        ("re6stnet2", None, True),
    ],
)
def test_over_tcp_are_the_tunnels_of_such_servers_and_such_clients_and_those_of_which_it_is_not_known(
    world: World, interface: str, protocol: TunnelProtocol | None, waits: bool
) -> None:
    tunnel = FakeDialer(TAP, OTHER, connected=True)
    tunnel.endpoint = Endpoint("192.0.2.1", 1194, protocol) if protocol else None
    world.held = [tunnel]
    assert world.ends.is_over_tcp(interface) is waits


def test_numbers_are_those_of_all_tunnels_with_a_peer(world: World) -> None:
    assert world.ends.numbers(LIAR) == {2}
    assert world.ends.numbers(HONEST) == frozenset(), "of a note that did not say it"
    world.hold(HONEST, number=3)
    assert world.ends.numbers(HONEST) == {3}


def test_what_is_remembered_is_bounded(world: World) -> None:
    for number in range(3 * REMEMBERED):
        world.server.hardware = {f"{number}": LIAR}
        world.ends.look()
    assert len(world.ends._hardware) == REMEMBERED
    assert world.ends.suspects(SERVER, f"{3 * REMEMBERED - 1}") == [LIAR]


def test_who_has_a_link_local_address_of_its_choice_is_known_by_neighbour_discovery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.if_nametoindex", lambda name: {SERVER: 7}[name])
    hop = NextHop(IPv6Address("fe80::1"), SERVER)
    world.server.hardware = {MAC: LIAR}
    world.netlink.there[hop.address] = MAC
    world.ends.look([hop])
    assert world.ends.owner_at(hop) is None, "the kernel is asking"
    world.ends.look([hop])
    assert world.ends.owner_at(hop) == LIAR
    assert world.netlink.asked == [hop.address]


def test_of_one_whose_address_is_made_of_it_nobody_is_asked(world: World) -> None:
    hop = NextHop(IPv6Address("fe80::ff:fe00:2"), SERVER)
    world.server.hardware = {MAC: LIAR}
    world.ends.look([hop])
    assert world.ends.owner_at(hop) == LIAR
    assert not world.netlink.asked


def test_who_makes_up_neighbours_has_a_few_asked_for_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.if_nametoindex", lambda _: 7)
    world.ends.look(NextHop(IPv6Address("fe80::1") + number, SERVER) for number in range(1000))
    assert len(world.netlink.asked) == hardware.ASKED


def test_interfaces_that_are_gone_are_left_out(world: World) -> None:
    world.ends.look([NextHop(IPv6Address("fe80::1"), "re6stnet-gone")])
    assert not world.netlink.asked
