"""Our servers: how they start, and how many clients each takes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.noded.servers import Servers, _Owner
from re6st.service.tasks import Tasks
from tests.unit.tunnel_doubles import BusyKernel, FakeLinks, effective_config, parts_of

PEER = Prefix(4, 16)


def test_a_server_whose_interface_others_hold_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    monkeypatch.setattr("re6st.noded.servers.Backoff.next", lambda self: 0.001)
    effective = effective_config(tmp_path, nodes["1/16"])

    async def run() -> None:
        async with Tasks() as tasks:
            kernel = BusyKernel()
            servers = Servers(parts_of(effective, tasks, kernel))
            servers.start(1194, TunnelProtocol.UDP)
            async with asyncio.timeout(5):
                await servers.running[TunnelProtocol.UDP].listening.wait()
            assert kernel.tries == 3
            await tasks.end_all()

    asyncio.run(run())


def test_a_client_with_a_link_takes_its_place_among_those_of_its_server(
    tmp_path: Path, nodes: dict[str, cert.Identity]
) -> None:
    effective = effective_config(tmp_path, nodes["1/16"], (1194, TunnelProtocol.TCP))
    effective = replace(effective, parameters=replace(effective.parameters, max_clients=2))

    async def run() -> None:
        async with Tasks() as tasks:
            links = FakeLinks()
            parts = parts_of(effective, tasks, links=links)
            links.counts = {PEER: TunnelProtocol.TCP}
            servers = Servers(parts)
            tcp, udp = (_Owner(servers, parts, protocol) for protocol in (TunnelProtocol.TCP, TunnelProtocol.UDP))
            assert tcp.room(Prefix(5, 16)) == 1
            assert tcp.room(PEER) == 2, "who comes again is not counted twice"
            assert udp.room(Prefix(5, 16)) == 2
            await tasks.end_all()

    asyncio.run(run())
