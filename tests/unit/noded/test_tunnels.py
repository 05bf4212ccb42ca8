"""The tunnels of a node: what one held is given back, however its end is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, cast

import pytest

from re6st import cert, tunnel
from re6st.client.files import Files
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import Parameters
from re6st.linux.hardware import Hardware
from re6st.linux.kernel import KernelError
from re6st.noded import tunnels as tunnels_room
from re6st.noded.settings import Config, Plan
from re6st.noded.takeover import Found
from re6st.noded.tunnels import Tunnels
from re6st.service.tasks import Tasks
from re6st.transport.openvpn import Settings
from tests.unit.fake_program import until

PEER = Prefix(4, 16)
SOMEWHERE = (Endpoint("192.0.2.1", 1194, TunnelProtocol.UDP),)


class FakeKernel:
    """One where an interface may take long to be interrupted."""

    hardware = Hardware(None)

    def __init__(self, seconds: float = 60) -> None:
        self.interrupted: list[str] = []
        self._seconds = seconds

    async def leads_outside(self, host: str) -> bool:
        return True

    async def make_tap(self, name: str) -> None: ...

    async def interrupt(self, name: str, is_used: Callable[[], bool]) -> None:
        self.interrupted.append(name)
        await asyncio.sleep(self._seconds)


class FakeDrains:
    available = True

    def __init__(self) -> None:
        self.undone: list[str] = []

    async def unmute(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        await asyncio.sleep(0)
        self.undone.append(interface)


class FakeGateways:
    @asynccontextmanager
    async def towards(self, endpoints: object) -> AsyncIterator[None]:
        yield


class FakeTunnel:
    """One that is being opened for ever."""

    endpoint = serial = source = process = since = traffic = None
    connected = False

    def __init__(self, *_: object) -> None: ...

    async def run(self) -> bool:
        await asyncio.sleep(60)
        return False


class FakeServer:
    """One that listens at once, and says when it starts and ends."""

    def __init__(self, log: list[str], settings: Settings) -> None:
        self.interface = "re6stnet-tcp"
        self.listening = asyncio.Event()
        self._log = log
        self._kind = "encrypted" if settings.encrypt else "clear"

    async def run(self) -> None:
        self._log.append(f"a server starts, {self._kind}")
        self.listening.set()
        try:
            await asyncio.sleep(60)
        finally:
            self._log.append("it ends")


def made(tmp_path: Path, identity: cert.Identity, *ports: tuple[int, TunnelProtocol]) -> Plan:
    files = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key"))
    config = Config("http://re6st.example.com/", files, tmp_path, tmp_path, tmp_path, ports=ports)
    return Plan(config, identity, Parameters(Prefix(0, 16)), {"openvpn": "/usr/sbin/openvpn"})


@pytest.mark.parametrize("encrypt", [True, False])
def test_where_encryption_begins_servers_wait_for_the_clients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity], encrypt: bool
) -> None:
    """A server in clear takes clients that encrypt; one that encrypts and a client in clear do not understand."""
    plan = made(tmp_path, nodes["1/16"], (1194, TunnelProtocol.TCP))
    later = plan.follow(replace(plan.parameters, encrypt=True), nodes["1/16"])
    log: list[str] = []
    monkeypatch.setattr(tunnel, "ClientTunnel", FakeTunnel)
    monkeypatch.setattr(tunnel, "Server", lambda settings, *_, **__: FakeServer(log, settings))
    monkeypatch.setattr(tunnels_room, "CHANGE_OVER", 0.05)
    monkeypatch.setattr(tunnels_room, "CHANGE_POLL", 0.01)
    kernel, drains, gateways = FakeKernel(0), FakeDrains(), FakeGateways()
    before, after = (plan, later) if encrypt else (later, plan)

    async def run() -> None:
        async with Tasks() as tasks:

            def event(what: policy.Event) -> None:
                if isinstance(what, policy.TunnelsOutdated):
                    log.append("clients are outdated")
                    asyncio.get_running_loop().call_later(0.05, again)

            def again() -> None:
                log.append("the client is made anew")
                tunnels._clients[PEER].made = tunnels._what_matters()

            tunnels = Tunnels(before, cast(Any, kernel), cast(Any, drains), tasks, event, print, Found())
            tunnels._gateways = cast(Any, gateways)
            await tunnels.serve()
            tunnels.open(PEER, SOMEWHERE)
            await until(lambda: tunnels._clients[PEER].made)
            tunnels.plan = after
            await tunnels.renew(Survey)
            await until(lambda: "the client is made anew" in log)
            await tasks.end_all()

    asyncio.run(run())
    client, server = ["clients are outdated", "the client is made anew"], ["it ends", "a server starts, "]
    if encrypt:
        assert log[:5] == ["a server starts, clear", *client, server[0], server[1] + "encrypted"]
    else:
        assert log[:5] == ["a server starts, encrypted", server[0], server[1] + "clear", *client]


def test_a_tunnel_that_is_cut_twice_gives_its_interface_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    """Its address is lost while it ends, or its certificate is revoked."""
    plan = made(tmp_path, nodes["1/16"])
    monkeypatch.setattr(tunnel, "ClientTunnel", FakeTunnel)
    kernel: Any = FakeKernel()
    drains: Any = FakeDrains()
    gateways: Any = FakeGateways()
    events: list[policy.Event] = []

    async def run() -> None:
        async with Tasks() as tasks:
            tunnels = Tunnels(plan, kernel, drains, tasks, events.append, lambda _: None, Found())
            tunnels._gateways = gateways
            tunnels.open(PEER, SOMEWHERE)
            await until(lambda: tunnels._taps)
            (tap,) = tunnels._taps
            tunnels.close(PEER)
            await until(lambda: kernel.interrupted)
            tunnels.close(PEER)
            await until(lambda: PEER not in tunnels)
            assert (tunnels._taps, drains.undone) == (set(), [tap])
        assert events == [policy.TunnelDown(PEER)]

    asyncio.run(run())


def test_a_tunnel_that_is_closed_in_the_moment_it_is_opened_is_told_as_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    """A task that is cancelled before its first step would tell nobody, and the policy would wait for ever."""
    plan = made(tmp_path, nodes["1/16"])
    monkeypatch.setattr(tunnel, "ClientTunnel", FakeTunnel)
    events: list[policy.Event] = []

    async def run() -> None:
        async with Tasks() as tasks:
            kernel: Any = FakeKernel(0)
            tunnels = Tunnels(plan, kernel, cast(Any, FakeDrains()), tasks, events.append, lambda _: None, Found())
            tunnels._gateways = cast(Any, FakeGateways())
            tunnels.open(PEER, SOMEWHERE)
            tunnels.close(PEER)
            await until(lambda: PEER not in tunnels)
        assert events == [policy.TunnelDown(PEER)]

    asyncio.run(run())


class BusyKernel(FakeKernel):
    """An interface that somebody else holds at first."""

    def __init__(self) -> None:
        super().__init__(0)
        self.tries = 0

    async def make_tap(self, name: str) -> None:
        self.tries += 1
        if self.tries < 3:
            raise KernelError("cannot make the interface re6stnet-udp: Device or resource busy.")


def test_a_server_whose_interface_others_hold_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    monkeypatch.setattr("re6st.noded.tunnels.Backoff.next", lambda self: 0.001)
    running = asyncio.Event()

    async def serve(self: tunnel.Server) -> None:
        running.set()

    monkeypatch.setattr(tunnel.Server, "run", serve)
    plan = made(tmp_path, nodes["1/16"])

    async def run() -> None:
        async with Tasks() as tasks:
            kernel: Any = BusyKernel()
            tunnels = Tunnels(plan, kernel, cast(Any, FakeDrains()), tasks, print, lambda _: None, Found())
            tunnels._start_server(1194, TunnelProtocol.UDP)
            async with asyncio.timeout(5):
                await running.wait()
            assert kernel.tries == 3
            await tasks.end_all()

    asyncio.run(run())
