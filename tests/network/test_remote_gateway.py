"""A node with two uplinks (--remote-gateway): both carry tunnels, and either takes over from the other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pytest

from testbed import Bed, Host, Network, Node, Router, wait_until

FORMS = HEALS = 90
MARK = "146"
"""The routing protocol number of our routes."""


def by_gateway(node: Node) -> Counter[str]:
    """How many peers are reached by each gateway."""
    routes = json.loads(node.host.ip("-4", "-json", "route", "show", "proto", MARK))
    return Counter(route["gateway"] for route in routes)


def carriers(node: Node) -> Counter[str]:
    """How many connections of its OpenVPN clients are up on each of its addresses."""
    lines = node.host.run(["ss", "-Htn", "state", "established", "dport", "=", ":1194"]).stdout.splitlines()
    return Counter(line.split()[2].rpartition(":")[0] for line in lines)


def start_with_two_uplinks(bed: Bed, options: Sequence[str] = ()) -> tuple[Network, Router, Router, str]:
    """Three nodes, and a last one behind two routers, all connected; the routers, and its routes before it started."""
    members: list[Host] = [bed.host(f"node{number}") for number in range(1, 4)]
    first, second = bed.router("first"), bed.router("second")
    host = first.host("double")
    second.uplink(host, "eth1")
    network = Network(bed, hosts=[*members, host], registry_options=["--hello", "2"], node_options=options)
    double = network.nodes[-1]
    double.options = [*options, "--ip", "any", "--remote-gateway", first.inside, "--remote-gateway", second.inside]
    before = host.ip("-4", "route")
    network.create()
    network.enrol()
    for node in network.nodes[:-1]:
        node.start()
    # A peer that is not there yet would be held against the gateway by which it was not reached.
    network.wait_connected(FORMS, network.nodes[:-1])
    double.start()
    network.wait_connected(FORMS)
    return network, first, second, before


@pytest.mark.parametrize("loss", ["silent", "told"])
def test_tunnels_go_over_both_uplinks_and_move_when_one_dies(bed: Bed, loss: str) -> None:
    network, first, second, before = start_with_two_uplinks(bed)
    double = network.nodes[-1]
    host = double.host
    gateways = {first.inside, second.inside}
    wait_until(lambda: by_gateway(double).keys() == gateways, FORMS, "both gateways are used", bed.tails)
    wait_until(lambda: len(carriers(double)) == 2, FORMS, "tunnels run from both addresses", bed.tails)

    if loss == "silent":
        host.cut("eth1")
    else:
        host.ip("link", "set", "eth1", "down")
    left = {first.inside}
    wait_until(lambda: by_gateway(double).keys() == left, HEALS, "all peers are reached by the gateway left", bed.tails)
    network.wait_connected(HEALS)

    if loss == "silent":
        host.restore("eth1")
    else:
        host.ip("link", "set", "eth1", "up")
        before = host.ip("-4", "route")
    assert double.stop() == 0
    assert "proto" not in "".join(line for line in host.ip("-4", "route").splitlines() if MARK in line)
    if loss == "silent":
        assert host.ip("-4", "route") == before
    assert double.traces() == []


def test_a_killed_node_leaves_routes_that_the_next_one_clears(bed: Bed) -> None:
    router = bed.router("router")
    network = Network(bed, hosts=[bed.host("node1"), router.host("behind")])
    node = network.nodes[-1]
    node.options = ["--ip", "any", "--remote-gateway", router.inside]
    network.start()
    network.wait_connected(FORMS)
    assert by_gateway(node)
    node.kill()
    node.signal("openvpn")  # a tunnel that lives would be gone on with, and need them
    assert by_gateway(node)
    node.options = ["--ip", "any"]
    node.start()
    wait_until(lambda: not by_gateway(node), 30, "the routes are cleared", bed.tails)
    network.wait_connected(FORMS)
