"""Ports opened at a router by UPnP, with the real miniupnpd (wire.md 10.5)."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded.upnp import EXTERNAL_PORTS, Intervals, PortMapper
from testbed import Bed, Host, Network, Node, wait_until
from testbed.control import ask
from testbed.links import WITH_WIREGUARD
from testbed.network import environment, program
from testbed.upnp import PACKAGE, PROGRAM, PUBLIC, Upnp

FORMS = 90
CLOSES = 130
"""Seconds until a link is ended whose peer is gone: what that says of it at its end may not come."""
PORTS = [(1194, TunnelProtocol.TCP), (1195, TunnelProtocol.UDP)]

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
    assert f"UPnP: the router forwards {place} to this node" in netcheck(node)
    assert node.stop() == 0
    assert upnp.mappings() == {}
    assert node.traces() == []


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")
def test_a_wireguard_link_comes_in_by_a_port_that_is_open_for_as_long_as_there_is_the_link(
    bed: Bed, upnp: Upnp, behind: tuple[Network, Node]
) -> None:
    network, node = behind
    for each in network.nodes:
        each.options += [*WITH_WIREGUARD, "-v", "3"]
        each.start()
    network.wait_connected(FORMS)

    def served() -> list[dict[str, Any]]:
        listed = ask(node.host.run_directory / "control.sock", "tunnels")["tunnels"]
        return [each for each in listed if each["direction"] == "in" and each["carrier"] == "wireguard"]

    def ports() -> dict[int, str]:
        return {port: target for port, target in upnp.mappings().items() if target.startswith("udp ")}

    def one_for_each() -> bool:
        """A port is opened before its link is asked for, so there may be one more for a moment."""
        return len(ports()) == len(served())

    (link, *_) = wait_until(served, 60, "a link from outside", bed.tails)
    wait_until(one_for_each, CLOSES, "a port for each link", bed.tails)
    assert all(target == f"udp {node.host.address}:{port}" for port, target in ports().items())
    guest = next(each for each in network.nodes if each.prefix.cn == link["peer"])
    assert guest.stop() == 0

    def gone() -> bool:
        """Another guest may come at any time, so the ports are not counted but against the links."""
        return all(each["peer"] != link["peer"] for each in served()) and one_for_each()

    wait_until(gone, CLOSES, "its port is closed", bed.tails)
    assert len(upnp.mappings()) == len(ports()) + 1, "the port of OpenVPN stays"
    assert node.stop() == 0
    assert upnp.mappings() == {}
    assert node.traces() == []


def test_with_two_lines_ports_are_opened_at_both_routers_and_answers_leave_by_the_same_one(bed: Bed) -> None:
    first, second = bed.router("first"), bed.router("second")
    host = first.host("double")
    second.uplink(host, "eth1")
    network = Network(bed, 2)
    node = Node(host, ["--uplink", f"one,gateway={first.inside}", "--uplink", f"two,gateway={second.inside}"])
    network.nodes.append(node)
    routers = {"one": Upnp(first), "two": Upnp(second, move=False)}
    routers["two"].move(str(PUBLIC[2]))
    for each in routers.values():
        each.start()
    network.start()
    network.wait_connected(FORMS)
    control = host.run_directory / "control.sock"

    def advertised() -> dict[str, int]:
        return {each["host"]: each["port"] for each in ask(control, "status")["advertised"] if each["origin"] == "upnp"}

    there = {each.address for each in routers.values()}
    wait_until(lambda: advertised().keys() == there, 60, "ports are opened at both", bed.tails)
    places = advertised()
    for upnp in routers.values():
        (target,) = upnp.mappings().values()
        assert target.partition(":")[2] == "1194"
    outside = network.nodes[0].host
    for place in places.items():
        with outside.namespace.call(lambda place=place: socket.create_connection(place, 10)):  # type: ignore[misc]
            pass
    assert node.stop() == 0
    assert [upnp.mappings() for upnp in routers.values()] == [{}, {}]
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


@pytest.mark.parametrize("router_says", ["", "100.64.3.4"], ids=["a router that maps nothing", "one that maps"])
def test_behind_a_second_nat_it_tells_what_peers_see_and_says_what_is_missing(bed: Bed, router_says: str) -> None:
    """The router that speaks UPnP has a private address itself: miniupnpd then opens no port, others do."""
    outer = Upnp(bed.router("outer"))  # which does not run: there is nothing to ask
    inner = bed.translate(outer.router.host("inner"))
    upnp = Upnp(inner, move=False)
    if router_says:  # miniupnpd has to think that its own address is public
        outer.router.outside.namespace.ip("address add 44.200.1.1/24 dev lan")
        inner.outside.readdress("44.200.1.2", 24)
        inner.outside.namespace.ip("route add default via 44.200.1.1")
    upnp.start()
    if router_says:
        upnp.tell(router_says)
    network = Network(bed, 2)
    node = Node(inner.host("behind"))
    network.nodes.append(node)
    outer.move(outer.address)  # the hosts are there now
    network.start()
    network.wait_connected(FORMS)
    control = node.host.run_directory / "control.sock"
    log = node.host.log / "re6stnet.log"
    wait_until(lambda: "a second NAT" in log.read_text(), 30, "its log says so", bed.tails)
    ports = upnp.mappings() or {1194: ""}
    place = [(outer.address, port, "upnp" if router_says else "seen") for port in ports]

    def told() -> list[tuple[str, int, str]]:
        return [(each["host"], each["port"], each["origin"]) for each in ask(control, "status")["advertised"]]

    wait_until(lambda: told() == place, 30, "it tells what peers see", bed.tails)
    found = netcheck(node)
    if router_says:
        assert f"a second NAT: the router itself has {router_says}, an address that is not public" in found
    else:
        # miniupnpd 2.3.1 tells no address then, 2.3.7 of Debian 13 the private one.
        assert "behind another one, a second NAT" in found or "a second NAT: the router itself has 192.168." in found
    tunnels = ask(control, "tunnels")["tunnels"]
    assert tunnels
    assert {each["direction"] for each in tunnels} == {"out"}
    for other in network.nodes[:2]:
        known = json.dumps(ask(other.host.run_directory / "control.sock", "peers"))
        assert "192.168." not in known
        assert "100.64." not in known
