"""Neighbours behind tunnels over UDP are asked how large packets may be; others are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import Neighbour, Table
from re6st.core.telemetry.report import Link
from re6st.core.tunnel_protocols import TunnelCarrier, TunnelProtocol
from re6st.noded.tunnel_mtus import TunnelMtus

ONE, TWO = IPv6Address("fe80::1"), IPv6Address("fe80::2")
PEER = Prefix(1, 16)


@dataclass
class World:
    """Tunnels, how large their packets may be, and who is asked."""

    tunnels: list[Link] = field(default_factory=list)
    asked: dict[tuple[str, IPv6Address], tuple[int, ...]] = field(default_factory=dict)
    gone: bool = False

    @property
    def effective(self) -> World:
        return self

    def tunnel_mtu(self, protocol: TunnelProtocol) -> int | None:
        return {TunnelProtocol.UDP: 1348}.get(protocol)

    def links(self) -> Iterable[Link]:
        return iter(self.tunnels)

    def watch(self, interface: str, address: IPv6Address, sizes: Iterable[int]) -> None:
        if self.gone:
            raise OSError("no such device")
        assert (interface, address) not in self.asked, "asked twice"
        self.asked[interface, address] = tuple(sizes)

    def forget(self, interface: str, address: IPv6Address | None = None) -> None:
        assert address is not None
        del self.asked[interface, address]


def table(*neighbours: tuple[str, IPv6Address]) -> Table:
    found = Table()
    for number, (interface, address) in enumerate(neighbours):
        found.neighbours[str(number)] = Neighbour(str(number), address, interface, 0xFFFF, 96, 96, 96, None)
    return found


def link(interface: str, protocol: TunnelProtocol | None) -> Link:
    return Link(PEER, outgoing=True, protocol=protocol, interface=interface)


def test_only_tunnels_whose_packets_have_a_size_are_asked() -> None:
    world = World(
        [link("re6stnet1", TunnelProtocol.UDP), link("re6stnet2", TunnelProtocol.TCP), link("", TunnelProtocol.UDP)]
    )
    mtus = TunnelMtus(world, world, world)
    mtus.follow(table(("re6stnet1", ONE), ("re6stnet2", TWO), ("lan", TWO)))
    assert world.asked == {("re6stnet1", ONE): (1348,)}


def test_a_wireguard_link_is_asked_by_its_own_room_alone() -> None:
    """Two who ask for other sizes would each give the interface theirs."""
    world = World([replace(link("re6stnet-wg1", TunnelProtocol.UDP), carrier=TunnelCarrier.WIREGUARD)])
    TunnelMtus(world, world, world).follow(table(("re6stnet-wg1", ONE)))
    assert world.asked == {}


def test_all_behind_a_server_are_asked_once_each_and_forgotten_when_they_leave() -> None:
    world = World([link("re6stnet-udp", TunnelProtocol.UDP)])
    mtus = TunnelMtus(world, world, world)
    for _ in range(2):
        mtus.follow(table(("re6stnet-udp", ONE), ("re6stnet-udp", TWO)))
    assert set(world.asked) == {("re6stnet-udp", ONE), ("re6stnet-udp", TWO)}
    mtus.follow(table(("re6stnet-udp", TWO)))
    assert set(world.asked) == {("re6stnet-udp", TWO)}
    mtus.follow(table(("re6stnet-udp", ONE), ("re6stnet-udp", TWO)))
    assert set(world.asked) == {("re6stnet-udp", ONE), ("re6stnet-udp", TWO)}


def test_a_tunnel_that_ended_is_forgotten_though_babel_still_knows_it() -> None:
    world = World([link("re6stnet1", TunnelProtocol.UDP)])
    mtus = TunnelMtus(world, world, world)
    mtus.follow(table(("re6stnet1", ONE)))
    world.tunnels.clear()
    mtus.follow(table(("re6stnet1", ONE)))
    assert not world.asked


def test_one_whose_interface_is_gone_is_asked_when_it_is_there() -> None:
    world = World([link("re6stnet1", TunnelProtocol.UDP)], gone=True)
    mtus = TunnelMtus(world, world, world)
    mtus.follow(table(("re6stnet1", ONE)))
    assert not world.asked
    world.gone = False
    mtus.follow(table(("re6stnet1", ONE)))
    assert world.asked
