"""Our servers: how they start, and how many clients each takes."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

from re6st import cert
from re6st.core.mesh.dead_clients import FREED
from re6st.core.prefix import Prefix
from re6st.core.transport.link_records import PeerIdentity
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.noded.contracts import LinkEnd
from re6st.noded.servers import Servers, _Owner
from re6st.service.tasks import Tasks
from re6st.tunnel import ServerClient
from tests.unit.tunnel_doubles import BusyKernel, FakeLinks, FakeListener, effective_config, parts_of

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


def test_a_dead_client_is_forgotten_when_its_link_ends(tmp_path: Path, nodes: dict[str, cert.Identity]) -> None:
    async def run() -> None:
        async with Tasks() as tasks:
            parts = parts_of(effective_config(tmp_path, nodes["1/16"]), tasks)
            parts.dead_clients.died(PEER, "re6stnet-wgs1", time.monotonic())
            Servers(parts).link_ended(PEER)
            assert not parts.dead_clients
            await tasks.end_all()

    asyncio.run(run())


CASES = [
    *("a tunnel", "a link", "it lives", "it died just now", "a link that is over"),
    *("a link instead of a tunnel to another server", "a tunnel, and nobody may come"),
]


@pytest.mark.parametrize("case", CASES)
def test_a_newcomer_gets_the_place_of_a_client_that_is_dead_and_of_no_other(
    tmp_path: Path, nodes: dict[str, cert.Identity], caplog: pytest.LogCaptureFixture, case: str
) -> None:
    caplog.set_level(logging.INFO)
    effective = effective_config(tmp_path, nodes["1/16"], (1194, TunnelProtocol.TCP))
    if case.endswith("nobody may come"):
        effective = replace(effective, parameters=replace(effective.parameters, max_clients=0))

    async def run() -> None:
        async with Tasks() as tasks:
            links = FakeLinks()
            parts = parts_of(effective, tasks, links=links)
            servers = Servers(parts)
            server = FakeListener("re6stnet-tcp")
            servers.running[TunnelProtocol.TCP] = server
            interface = "re6stnet-wgs1" if case.startswith("a link") else server.interface
            if case.startswith("a link") and not case.endswith("over"):
                links.up = [LinkEnd(PEER, interface, PeerIdentity(4, 4))]
                links.counts = {PEER: TunnelProtocol.UDP if case.endswith("another server") else TunnelProtocol.TCP}
            elif case != "a link that is over":
                server.clients[1] = ServerClient(PEER, 4, "192.0.2.4")
            if case != "it lives":
                dead_for = FREED / 2 if case == "it died just now" else FREED + 1
                parts.dead_clients.died(PEER, interface, time.monotonic() - dead_for)
            owner = _Owner(servers, parts, TunnelProtocol.TCP)
            assert not owner.make_room(PEER), "not for itself"
            parts.dead_clients.place_sought = False
            freed = owner.make_room(Prefix(5, 16))
            assert freed == (case in ("a tunnel", "a link"))
            assert links.ended == ([PEER] if freed else [])
            assert server.log == (["4/16 is cut off"] if freed else [])
            assert ("4/16 loses its place to 5/16" in caplog.text) == freed
            sought = not freed and not case.endswith("nobody may come")
            assert parts.dead_clients.place_sought == sought, "clients are asked for a sign of life"
            await tasks.end_all()

    asyncio.run(run())
