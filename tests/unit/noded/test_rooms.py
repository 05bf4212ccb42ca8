"""The rooms of a node are complete once they are built: what one is told gets to the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.babel import Left
from re6st.client.counted_client import CountedClient
from re6st.client.files import Files
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.core.wire.params import Parameters
from re6st.linux.kernel import Kernel
from re6st.linux.nftables import Nft
from re6st.linux.process import MissingProgram
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import NoWireGuard
from re6st.noded.babeld_sysctls import BabeldSysctls
from re6st.noded.first_peer import FirstPeer
from re6st.noded.hooks import Hooks
from re6st.noded.mptcp_settings import MptcpSettings
from re6st.noded.network_addresses import NetworkAddresses
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.packet_filter import PacketFilter
from re6st.noded.peer_cache import Cache
from re6st.noded.registry_updates import Updates
from re6st.noded.rooms import Base, MachineRooms, Rooms, build
from re6st.noded.router_advertisements import Advertisements
from re6st.noded.settings import Config, EffectiveConfig, InForce
from re6st.noded.takeover import Found
from re6st.service.tasks import Tasks
from re6st.tunnel import Connected

REGISTRY, OWN, PEER = Prefix(0, 16), Prefix(1, 16), Prefix(2, 16)
PLACE = Endpoint("192.0.2.2", 1194, TunnelProtocol.TCP)


class Known(Updates):
    """The parameters are known already."""

    @property
    def parameters(self) -> Parameters:
        return Parameters(REGISTRY)


def live(
    run: Path,
    identity: cert.Identity,
    steps: Callable[[Rooms, Base], Awaitable[None]],
    **options: Any,
) -> None:
    """Build the rooms of a node that has not entered its network."""
    files = Files(run / "ca.crt", run / "cert.crt", run / "cert.key")
    config = Config("http://registry.example.com/", files, log=run, run=run, state=run, **options)
    programs = {"babeld": "/usr/sbin/babeld", "openvpn": "/usr/sbin/openvpn", "pim-dm": "/usr/sbin/pim-dm"}
    client, cache = CountedClient(config.registry, identity), Cache(run / "cache.db")
    own = OwnAddresses(config.offered, config.ip, (), network=identity.trust.network)
    updates = Known(client, files, identity, cache, lambda: None)
    base = Base(config, identity, programs, client, own, cache, updates, FirstPeer(client))

    async def main() -> None:
        effective = EffectiveConfig(config, identity, updates.parameters, programs)
        with closing(Kernel()) as kernel:
            machine = MachineRooms(
                kernel,
                NetworkAddresses(kernel, "lo", run),
                BabeldSysctls(run / "sysctls", (), run),
                Advertisements(run / "note", run),
                PacketFilter(),
                asyncio.Event(),
                Hooks((), (), {}, run),
                InForce(effective),
                wireguard=None,
                lacking="",
                mptcp=MptcpSettings(run / "mptcp"),
            )
            async with Tasks() as tasks:
                await steps(build(base, machine, Found(), Left(), tasks), base)
                await tasks.end_all()

    try:
        asyncio.run(main())
    finally:
        cache.close(keep=())


def test_a_tunnel_that_comes_up_is_told_to_all_whom_it_concerns(
    tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    async def steps(rooms: Rooms, base: Base) -> None:
        source = ip_address("192.0.2.1")
        base.own.moved((source,), (source,))
        base.cache.learn(PEER, (Endpoint("192.0.2.9", 1194, TunnelProtocol.TCP), PLACE), lambda _: True)
        rooms.driver.event(policy.Resumed(((PEER, "re6stnet1"),)))
        connected = Connected(PEER, PLACE, "re6stnet1", 1, "198.51.100.7", 1500, source)
        rooms.tunnels._connected(connected)
        assert base.cache.addresses[PEER][0] == PLACE, "the address that worked is the first"
        assert "198.51.100.7" in {endpoint.host for endpoint in base.cache.own}, "how it sees us is remembered"
        assert rooms.known.near() == {PEER}

    live(tmp_path, nodes["1/16"], steps)


def test_what_a_peer_says_of_itself_is_remembered_and_the_policy_hears_of_it(
    tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    async def steps(rooms: Rooms, base: Base) -> None:
        rooms.peers._handle(PEER, Code.ADDRESS, b"192.0.2.2,1194,tcp", False)
        assert base.cache.addresses == {PEER: (PLACE,)}
        assert rooms.mesh.known is base.cache.addresses
        rooms.peers._handle(OWN, Code.ADDRESS, b"192.0.2.2,1194,tcp", False)
        assert OWN not in base.cache.addresses, "not that of ourselves"

    live(tmp_path, nodes["1/16"], steps)


def test_another_country_is_told_to_the_policy_and_to_peers(tmp_path: Path, nodes: dict[str, cert.Identity]) -> None:
    async def steps(rooms: Rooms, base: Base) -> None:
        assert rooms.mesh.settings.country == ""
        rooms.country.require(True)
        assert rooms.mesh.settings.country == "FR"
        assert {endpoint.country for endpoint in base.cache.own} == {"FR"}, "and remembered"

    live(tmp_path, nodes["1/16"], steps, country="FR", ip=(ip_address("192.0.2.1"),))


def test_tunnels_that_can_no_longer_be_drained_are_not_refreshed(
    tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    news = asyncio.Event()

    async def steps(rooms: Rooms, base: Base) -> None:
        task = asyncio.create_task(rooms.settings_news.follow(news))
        before = rooms.mesh.settings.tunnel_refresh
        rooms.settings_news._settings._filter.available = False  # type: ignore[misc]
        assert rooms.mesh.settings.tunnel_refresh == before
        news.set()
        for _ in range(3):
            await asyncio.sleep(0)
        assert rooms.mesh.settings.tunnel_refresh == float("inf")
        task.cancel()

    live(tmp_path, nodes["1/16"], steps)


def test_only_what_the_options_want_is_there(tmp_path: Path, nodes: dict[str, cert.Identity]) -> None:
    async def none(rooms: Rooms, base: Base) -> None:
        assert (rooms.metrics, rooms.multicast) == (None, None)

    async def routed(rooms: Rooms, base: Base) -> None:
        assert rooms.multicast is not None

    live(tmp_path, nodes["1/16"], none)
    live(tmp_path, nodes["1/16"], routed, multicast=True)


def without_nft() -> Nft:
    raise MissingProgram("nft")


def machine_of(run: Path, identity: cert.Identity, *, available: bool = True, **options: Any) -> MachineRooms:
    """What a node finds on its machine; nothing is changed."""
    files = Files(run / "ca.crt", run / "cert.crt", run / "cert.key")
    config = Config("http://registry.example.com/", files, log=run, run=run, state=run, **options)
    client, cache = CountedClient(config.registry, identity), Cache(run / "cache.db")
    own = OwnAddresses(config.offered, config.ip, (), network=identity.trust.network)
    updates = Known(client, files, identity, cache, lambda: None)

    async def main() -> MachineRooms:
        with pytest.MonkeyPatch.context() as patch:
            if not available:
                patch.setattr("re6st.noded.rooms.PacketFilter", partial(PacketFilter, without_nft))
            return await MachineRooms.of(Base(config, identity, {}, client, own, cache, updates, FirstPeer(client)))

    try:
        machine = asyncio.run(main())
        machine.kernel.close()
        return machine
    finally:
        cache.close(keep=())


@pytest.fixture
def no_wireguard(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(why: str) -> Callable[[Netlink], None]:
        def make(netlink: Netlink) -> None:
            raise NoWireGuard(why)

        return make

    monkeypatch.setattr("re6st.linux.wireguard_kernel.KernelWireGuard", absent("the kernel has none"))
    monkeypatch.setattr("re6st.linux.wireguard_go.WireGuardGo", absent("there is no program"))


@pytest.mark.usefixtures("no_wireguard")
@pytest.mark.parametrize(
    ("program", "reasons"), [(False, "the kernel has none"), (True, "the kernel has none; there is no program")]
)
def test_wireguard_go_is_asked_for_links_only_where_the_user_says_so(
    tmp_path: Path, nodes: dict[str, cert.Identity], caplog: pytest.LogCaptureFixture, program: bool, reasons: str
) -> None:
    machine = machine_of(tmp_path, nodes["1/16"], wireguard=True, wireguard_go=program)
    assert machine.wireguard is None
    assert machine.lacking == f"not here: {reasons}"
    assert f"tunnels stay those of OpenVPN, without WireGuard: {reasons}" in caplog.messages


@pytest.mark.usefixtures("no_wireguard")
def test_a_machine_without_wireguard_says_nothing_alarming_where_nobody_asked_for_it(
    tmp_path: Path, nodes: dict[str, cert.Identity], caplog: pytest.LogCaptureFixture
) -> None:
    machine = machine_of(tmp_path, nodes["1/16"], wireguard=True, wireguard_asked=False)
    assert machine.wireguard is None
    assert machine.lacking == "", "or each tunnel would have a line in re6st-status"
    assert machine.in_force.effective.links == (), "babeld is told of no interfaces that never come"
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_node_that_cannot_count_packets_has_no_links(
    tmp_path: Path, nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that died would be noticed after ten seconds, as hellos are rare there."""
    monkeypatch.setattr("re6st.linux.wireguard_kernel.KernelWireGuard", There)
    assert machine_of(tmp_path, nodes["1/16"], wireguard=True).wireguard is not None
    machine = machine_of(tmp_path, nodes["1/16"], available=False, wireguard=True)
    assert machine.wireguard is None
    assert "nftables" in machine.lacking


class There:
    """A kernel's WireGuard."""

    name = "the kernel"

    def __init__(self, netlink: Netlink) -> None: ...
