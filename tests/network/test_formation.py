"""A network forms: real registry, enrolment, nodes, OpenVPN and babeld."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable

import pytest

from testbed import Bed, Network, Node, wait_until
from testbed.host import Host

FORMS = 90
"""Seconds a network may take to form: far more than it takes."""


def start(bed: Bed, nodes: int = 3, **options: object) -> Network:
    network = Network(bed, nodes, **options)  # type: ignore[arg-type]  # the options of Network
    network.start()
    network.wait_connected(FORMS)
    return network


def route(source: Node, target: Node) -> str:
    """How the kernel sends to a peer."""
    return source.host.ip("-6", "route", "get", str(target.address))


def mtu(source: Node, target: Node) -> int:
    """The size of the largest packet on the way out to a peer."""
    device = re.search(r"dev (\S+)", route(source, target))
    assert device
    found = re.search(r"mtu (\d+)", source.host.ip("link", "show", device[1]))
    assert found
    return int(found[1])


def test_three_nodes_reach_each_other_through_tunnels(bed: Bed) -> None:
    network = start(bed)
    for source in network.nodes:
        for target in network.nodes:
            if source is not target:
                way = route(source, target)
                assert " dev re6stnet" in way
                assert f" src {source.address} " in way
    assert network.tunnels()


def test_the_registry_knows_topology_and_versions(bed: Bed) -> None:
    network = start(bed)
    everybody = {node.prefix.cn for node in network.nodes}

    def topology() -> bool:
        answer = json.loads(network.call("topology"))
        clients = {(a, b) for a, peers in answer.items() if a for b in peers}
        return set(answer[""]) == everybody and clients == {
            (tunnel.client.prefix.cn, tunnel.server.prefix.cn) for tunnel in network.tunnels()
        }

    wait_until(topology, 60, "the registry tells the topology that babeld shows", bed.tails)
    versions = json.loads(network.call("versions"))
    assert {node.prefix.bits for node in network.nodes} == set(versions)
    assert all(versions.values())


def payload_seen(host: Host, send: Callable[[], object]) -> bool:
    """Whether the content of our echo requests, a long row of dots, passes the network card of a host in the clear."""
    everything = 0x0003  # ETH_P_ALL
    sniffer = host.namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything)))
    with sniffer:
        sniffer.bind(("eth0", everything))
        sniffer.settimeout(0.5)
        send()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                if b"." * 200 in sniffer.recv(65536):
                    return True
            except TimeoutError:
                return False
    return False


@pytest.mark.parametrize("encrypt", [False, True], ids=["clear", "encrypted"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_full_size_packets_pass(bed: Bed, protocol: str, encrypt: bool) -> None:
    network = start(
        bed,
        2,
        registry_options=["--encrypt"] if encrypt else [],
        node_options=["--disable-proto", "none", "--pp", "1194", protocol],
    )
    a, b = network.nodes
    for source, target in ((a, b), (b, a)):
        size = mtu(source, target)
        assert size >= 1280
        assert network.pings([source, target], size=size)[source, target] is not None
    assert payload_seen(a.host, lambda: network.pings(size=600)) is not encrypt


@pytest.mark.parametrize("protocol", ["tcp6", "udp6"])
def test_tunnels_over_ipv6(bed: Bed, protocol: str) -> None:
    network = Network(bed, 2)
    for node in network.nodes:
        assert node.host.ipv6
        node.options = ["--ip", node.host.ipv6, "--disable-proto", "none", "--pp", "1194", protocol]
    network.start()
    network.wait_connected(FORMS)
    a, b = network.nodes
    assert network.pings(size=mtu(a, b))[a, b] is not None


def test_nodes_behind_nat_take_part(bed: Bed) -> None:
    network = start(bed, 5, nat=2)
    hidden = network.nodes[-2:]
    opened = [tunnel.client for tunnel in network.tunnels()]
    assert all(node in opened for node in hidden)
    assert not any(tunnel.server in hidden for tunnel in network.tunnels())


def test_a_newcomer_joins_by_a_peer(bed: Bed) -> None:
    network = Network(bed, 4)
    network.create()
    network.enrol()
    *old, newcomer = network.nodes
    for node in old:
        node.start()
    network.wait_connected(FORMS, old)
    newcomer.start()
    network.wait_connected(FORMS)
