"""Ports opened at a router by UPnP, with the real miniupnpd (wire.md 10.5)."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable

import pytest

from re6st.core.wire import Endpoint
from re6st.portmap import EXTERNAL_PORTS, Intervals, PortMapper
from testbed import Bed, Host, Network, Node, wait_until
from testbed.network import environment, program
from testbed.upnp import PACKAGE, PROGRAM, Upnp

FORMS = 90
PORTS = [(1194, "tcp"), (1195, "udp")]

pytestmark = pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"not installed: {PACKAGE}")


@pytest.fixture
def upnp(bed: Bed) -> Upnp:
    upnp = Upnp(bed.router("nat"))
    upnp.start()
    return upnp


# --- the keeping of mappings ---


def keep(
    host: Host, intervals: Intervals, steps: Callable[[PortMapper, list[tuple[Endpoint, ...]]], Awaitable[None]]
) -> None:
    """Run a PortMapper on a host while `steps` go on; they get it, and what it has told."""

    async def run() -> None:
        told: list[tuple[Endpoint, ...]] = []
        mapper = PortMapper(PORTS, told.append, intervals=intervals)
        task = asyncio.create_task(mapper.run())
        try:
            await steps(mapper, told)
        finally:
            task.cancel()
            await asyncio.wait([task])

    host.namespace.call(lambda: asyncio.run(run()))


async def until(condition: Callable[[], object], what: str, host: Host) -> None:
    await asyncio.to_thread(wait_until, condition, 30, what, host.bed.tails)


def expected(host: Host, endpoints: tuple[Endpoint, ...]) -> dict[int, str]:
    """What the router does for these endpoints."""
    ports = {protocol: port for port, protocol in PORTS}
    return {e.port: f"{e.protocol} {host.address}:{ports[e.protocol]}" for e in endpoints}


def test_mappings_are_made_kept_and_removed(upnp: Upnp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = upnp.router.host("inner")

    async def steps(mapper: PortMapper, told: list[tuple[Endpoint, ...]]) -> None:
        await until(lambda: told, "ports are mapped", host)
        assert [(e.host, e.protocol) for e in told[0]] == [(upnp.address, protocol) for _, protocol in PORTS]
        assert all(EXTERNAL_PORTS[0] <= e.port <= EXTERNAL_PORTS[1] for e in told[0])
        first = expected(host, told[0])
        assert upnp.mappings() == first

        upnp.stop()
        upnp.start()
        assert upnp.mappings() == {}
        await until(lambda: upnp.mappings() == first, "the same ports after the router's start", host)

        upnp.move("44.128.7.7")
        await until(lambda: told[-1] and told[-1][0].host == "44.128.7.7", "its new address is told", host)
        assert upnp.mappings() == first
        assert {e.port for e in told[-1]} == set(first)

    keep(host, Intervals(renew=300, check=0.2, retry=0.2), steps)
    assert upnp.mappings() == {}


def test_mappings_are_renewed_before_they_end(upnp: Upnp) -> None:
    host = upnp.router.host("inner")

    async def steps(mapper: PortMapper, told: list[tuple[Endpoint, ...]]) -> None:
        await until(lambda: told, "ports are mapped", host)
        renewals = upnp.requests("AddPortMapping")
        await until(
            lambda: upnp.requests("AddPortMapping") >= renewals + 2 * len(PORTS), "they are renewed twice", host
        )
        assert upnp.mappings() == expected(host, told[0])
        assert len(told) == 1

    keep(host, Intervals(renew=0.5, check=0.2, retry=0.2), steps)


def test_another_address_of_ours(upnp: Upnp) -> None:
    host = upnp.router.host("inner")

    async def steps(mapper: PortMapper, told: list[tuple[Endpoint, ...]]) -> None:
        await until(lambda: told, "ports are mapped", host)
        host.readdress("192.168.1.99", 24)
        host.namespace.ip("route add default via 192.168.1.1")
        mapper.ask_again()
        await until(lambda: len(told) == 2, "ports are mapped to the new address", host)
        # A router that is careful lets nobody remove what another address asked for: the old ones end by themselves.
        assert expected(host, told[-1]).items() <= upnp.mappings().items()

    keep(host, Intervals(), steps)


# --- the node ---


@pytest.fixture
def behind(bed: Bed, upnp: Upnp) -> tuple[Network, Node]:
    """A network of three, and the one of them that is behind the router, with the default options."""
    network = Network(bed, 2)
    node = Node(upnp.router.host("inner"), ["--client-count", "1"])  # so that somebody has to come to it
    network.nodes.append(node)
    upnp.move(upnp.address)  # the hosts are there now
    network.create()
    network.enrol()
    return network, node


def netcheck(node: Node) -> str:
    """What re6st-status finds there."""
    argv = [*program("status"), "--control", str(node.host.run_directory / "control.sock"), "netcheck"]
    return node.host.run(argv, env=environment()).stdout


def test_a_peer_outside_comes_in_by_the_mapped_port(bed: Bed, upnp: Upnp, behind: tuple[Network, Node]) -> None:
    network, node = behind
    for each in network.nodes:
        each.start()
    network.wait_connected(FORMS)

    def guests() -> list[Node]:
        return [tunnel.client for tunnel in network.tunnels() if tunnel.server is node]

    (guest, *_) = wait_until(guests, 60, "a tunnel from outside", bed.tails)
    targets = sorted(upnp.mappings().values())
    assert targets == [f"tcp {node.host.address}:1194"]
    log = (guest.host.log / "re6stnet.log").read_text()
    assert any(f"at {upnp.address},{port},tcp is up" in log for port in upnp.mappings())
    (place,) = (f"{upnp.address}:{port}/tcp" for port in upnp.mappings())
    assert f"UPnP: the router sends to us what comes to {place}" in netcheck(node)
    assert node.stop() == 0
    assert upnp.mappings() == {}
    assert node.traces() == []


def test_without_a_router_that_maps_it_is_a_client(bed: Bed, upnp: Upnp, behind: tuple[Network, Node]) -> None:
    network, node = behind
    upnp.stop()
    for each in network.nodes:
        each.start()
    network.wait_connected(FORMS)
    log = node.host.log / "re6stnet.log"
    wait_until(lambda: "UPnP: no router found" in log.read_text(), 30, "it says so", bed.tails)
    assert all(tunnel.server is not node for tunnel in network.tunnels())
    told = netcheck(node)
    assert "UPnP: no router answered in 2 s" in told
    assert f"forward tcp/1194 to {node.host.address} by hand" in told
    assert node.stop() == 0
    assert node.traces() == []
