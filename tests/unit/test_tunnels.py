"""The tunnels of a node: what one held is given back, however its end is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from re6st import cert, tunnel
from re6st.core import mesh
from re6st.core.params import Parameters
from re6st.core.prefix import Prefix
from re6st.core.wire import Endpoint
from re6st.plan import Config, Files, Plan
from re6st.takeover import Found
from re6st.tasks import Tasks
from re6st.tunnels import Tunnels
from tests.unit.fake_program import until

PEER = Prefix(4, 16)
SOMEWHERE = (Endpoint("192.0.2.1", 1194, "udp"),)


class FakeKernel:
    """One where an interface takes long to be interrupted."""

    def __init__(self) -> None:
        self.interrupted: list[str] = []

    async def leads_outside(self, host: str) -> bool:
        return True

    async def make_tap(self, name: str, ipv4: object) -> None: ...

    async def interrupt(self, name: str, is_used: Callable[[], bool]) -> None:
        self.interrupted.append(name)
        await asyncio.sleep(60)


class FakeDrains:
    available = True

    def __init__(self) -> None:
        self.undone: list[str] = []

    async def remove(self, interface: str, neighbour: IPv6Address | None = None) -> None:
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


def test_a_tunnel_that_is_cut_twice_gives_its_interface_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    """Its address is lost while it ends, or its certificate is revoked."""
    files = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key"))
    config = Config("http://re6st.example.com/", files, tmp_path, tmp_path, tmp_path)
    plan = Plan(config, nodes["1/16"], Parameters(Prefix(0, 16)), {"openvpn": "/usr/sbin/openvpn"})
    monkeypatch.setattr(tunnel, "ClientTunnel", FakeTunnel)
    kernel: Any = FakeKernel()
    drains: Any = FakeDrains()
    gateways: Any = FakeGateways()
    events: list[mesh.Event] = []

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
        assert events == [mesh.TunnelDown(PEER)]

    asyncio.run(run())
