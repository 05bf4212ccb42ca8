"""A node that is told to end, or to hand over, at any moment of its start: what was remembered stays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from re6st import cert, node
from re6st.client.files import Files
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.prefix import Prefix
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import Parameters
from re6st.noded.left_behind import note
from re6st.noded.peer_cache import Cache
from re6st.noded.registry_updates import Updates
from re6st.noded.rooms import MachineRooms
from re6st.noded.settings import Config
from re6st.noded.takeover import Found
from re6st.service.tasks import Tasks
from tests.unit.fake_program import until

PEER = Prefix(2, 16)
PLACE = (Endpoint("192.0.2.2", 1194, TunnelProtocol.TCP),)


class World:
    """A machine on which a node starts, as far as a test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Path, identity: cert.Identity) -> None:
        self.removed: list[Path] = []
        self.parameters = asyncio.Event()
        self.asked = False
        self.clearing = False
        self.run, self.state = run / "run", run / "state"
        self.state.mkdir()
        files = Files(run / "ca.crt", run / "cert.crt", run / "cert.key")
        self.config = Config("http://registry.example.com/", files, log=run, run=self.run, state=self.state)
        with_peer = Cache(self.state / "cache.db")
        with_peer.learn(PEER, PLACE, lambda _: True)
        with_peer.close([PEER])

        async def start(updates: Updates) -> Parameters:
            self.asked = True
            await self.parameters.wait()
            updates._parameters = Parameters(Prefix(0, 16))
            return updates.parameters

        async def clear(this: node.Node, machine: MachineRooms) -> None:
            self.clearing = True
            await asyncio.Event().wait()

        async def remove(run: Path, plans: tuple[AddressPlan, ...] = ()) -> list[str]:
            self.removed.append(run)
            return []

        def control_socket() -> socket.socket:
            return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)

        monkeypatch.setattr(cert.Identity, "load", lambda *_: identity)
        monkeypatch.setattr(node, "rewrite", lambda files: None)
        monkeypatch.setattr("re6st.linux.process.find_program", lambda name, *_: f"/usr/sbin/{name}")
        monkeypatch.setattr(node, "control_socket", control_socket)
        monkeypatch.setattr(node, "remove", remove)
        monkeypatch.setattr(Updates, "start", start)
        monkeypatch.setattr(node.Node, "_clear", clear)
        monkeypatch.setenv("NOTIFY_SOCKET", str(run / "notify"))

    def play(self, steps: Callable[[node.Node, asyncio.Event, asyncio.Task[None]], Awaitable[None]]) -> None:
        async def main() -> None:
            stop = asyncio.Event()
            made = node.Node(self.config)
            task = asyncio.create_task(made.run(stop))
            try:
                await until(lambda: self.asked)
                await steps(made, stop, task)
            finally:
                task.cancel()
                await asyncio.wait([task])

        asyncio.run(main())

    @property
    def remembered(self) -> set[Prefix]:
        cache = Cache(self.state / "cache.db")
        found = set(cache.addresses)
        cache.close(found)
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]) -> World:
    return World(monkeypatch, tmp_path, nodes["1/16"])


def test_who_ends_before_there_are_parameters_removes_what_an_earlier_daemon_left(world: World) -> None:
    async def steps(made: node.Node, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        stop.set()
        await task

    world.play(steps)
    assert world.removed == [world.run]
    assert world.remembered == {PEER}


def test_who_hands_over_before_there_are_parameters_removes_nothing(world: World) -> None:
    async def steps(made: node.Node, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        made.reopen_logs()  # there is no babeld yet
        environment = await made.hand_over()
        assert environment["NOTIFY_SOCKET"], "the next daemon tells systemd too"
        assert world.removed == []
        assert world.remembered == {PEER}

    world.play(steps)


def test_who_hands_over_while_it_looks_at_what_is_left_leaves_that_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []

    async def hand_over(machine: MachineRooms) -> None:
        handed.append("machine")

    monkeypatch.setattr(MachineRooms, "hand_over", hand_over)

    async def steps(made: node.Node, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        world.parameters.set()
        await until(lambda: world.clearing)
        made.reopen_logs()
        await made.hand_over()
        assert handed == ["machine"]
        assert world.removed == []
        assert world.remembered == {PEER}

    world.play(steps)


@pytest.mark.parametrize("has_links", [True, False])
def test_whose_session_ends_by_a_revocation_has_no_link_either(has_links: bool) -> None:
    """The link may be known by an earlier certificate, which is not revoked."""
    done: list[object] = []
    sessions = SimpleNamespace(forget=lambda crl: [PEER] if crl == {7} else [])
    rooms: Any = SimpleNamespace(
        peers=SimpleNamespace(sessions=sessions),
        links=SimpleNamespace(cut=done.append) if has_links else None,
        tunnels=SimpleNamespace(cut_off=done.append),
    )
    nothing: Any = None
    member = node.Member(nothing, nothing, rooms, nothing)
    member._cut_off(frozenset({7}))
    assert done == [*([PEER] if has_links else []), {7}]


def test_a_region_that_an_earlier_daemon_told_others_of_is_given_up_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was killed, or replaced, before the network became flat."""
    monkeypatch.setattr(node, "FOLLOWED", 0.0)
    whole, net = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42::/56")
    flat = AddressPlan(whole, whole[1], 64, (whole,))
    region = AddressPlan(net, net[-1], 128, (net,), ROUTE_PROTOCOL)
    had: list[list[AddressPlan]] = []

    async def follow(plans: list[AddressPlan]) -> bool:
        had.append(plans)
        return True

    machine: Any = SimpleNamespace(
        in_force=SimpleNamespace(effective=SimpleNamespace(address_plans=[flat])),
        addresses=SimpleNamespace(enter=follow, follow=follow),
    )

    async def main() -> None:
        async with Tasks() as tasks:
            nothing: Any = None
            member = node.Member(nothing, machine, nothing, tasks, [region])
            await member._enter_addresses()
            await until(lambda: len(had) == 2)

    asyncio.run(main())
    assert had == [[flat, region], [flat]]


@pytest.mark.parametrize("is_found", [True, False])
def test_a_former_region_is_told_of_as_long_as_a_babeld_that_did_so_runs_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_found: bool
) -> None:
    whole, net = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42::/56")
    flat = AddressPlan(whole, whole[1], 64, (whole,))
    region = AddressPlan(net, net[-1], 128, (net,), ROUTE_PROTOCOL)
    note(tmp_path, [flat, region])
    found = Found(babeld=7) if is_found else Found()
    cleared: list[tuple[AddressPlan, ...]] = []

    async def nothing(*args: object) -> Any:
        return {}

    async def clear(plans: tuple[AddressPlan, ...], kept: object) -> list[str]:
        cleared.append(plans)
        return []

    monkeypatch.setattr("re6st.noded.takeover.look", lambda *_: found)
    monkeypatch.setattr("re6st.linux.process.end_leftovers", nothing)
    effective = SimpleNamespace(address_plans=[flat], babel_command=lambda plane: [], client_count=0, packet_rules=None)
    machine: Any = SimpleNamespace(
        in_force=SimpleNamespace(effective=effective),
        hooks=SimpleNamespace(clear=nothing),
        packet_filter=SimpleNamespace(follow=nothing),
        kernel=SimpleNamespace(babel_routes=lambda plane: SimpleNamespace(ways=nothing), clear=clear),
    )
    this: Any = SimpleNamespace(config=SimpleNamespace(run=tmp_path, main_interface="lo"))
    _, _, former = asyncio.run(node.Node._clear(this, machine))
    assert former == ([region] if is_found else [])
    assert cleared == [(flat, region)], "no unknown region, or all of it is removed"


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("der", [b"one", b"another one"])
def test_the_peers_of_links_are_told_of_another_certificate_of_ours(has_links: bool, der: bytes) -> None:
    """Else they would end links with us when the first one ends, or is revoked."""
    done: list[object] = []
    rooms: Any = SimpleNamespace(
        crypto=SimpleNamespace(use=done.append),
        links=SimpleNamespace(renewed=lambda: done.append("told")) if has_links else None,
    )
    nothing: Any = None
    before: Any = SimpleNamespace(der=b"one")
    now: Any = SimpleNamespace(der=der)
    node.Member(nothing, nothing, rooms, nothing)._use_identity(before, now)
    assert done == [now, *(["told"] if has_links and der != b"one" else [])]
