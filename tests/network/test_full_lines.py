"""A node with two lines: connections use both once one is full, and go on when one dies."""

from __future__ import annotations

from collections.abc import Sequence

from re6st.core.machine.share_rules import TABLE
from testbed import Bed, Network, Node, wait_until
from testbed.flows import Flows
from testbed.lines import Line, LinedHost

FORMS = 90
MBITS = 8
FAST, SLOW = Line(MBITS, 0.005), Line(MBITS, 0.02)
WARM, SECONDS = 3.0, 8.0
BEGINS = "connections use all 2 lines"
DATAGRAMS = ("--disable-proto", "none", "--pp", "1194", "udp")
"""Tunnels in which no packet waits for another one."""


def start(bed: Bed, lines: Sequence[Line]) -> tuple[LinedHost, Network, Node]:
    """Three nodes on a fast network, and one with these lines; all connected, with a tunnel over each line."""
    members = [bed.host(f"node{number}", ipv6=False) for number in range(1, 4)]
    lined = LinedHost(bed, "lined", lines, members)
    network = Network(bed, hosts=[*members, lined.host], node_options=DATAGRAMS)
    node = network.nodes[-1]
    node.options = [*DATAGRAMS, "--ip", "any"]
    for number in range(len(lines)):
        node.options += ["--uplink", lined.option(number)]
    network.create()
    network.enrol()
    for other in network.nodes[:-1]:
        other.start()
    network.wait_connected(FORMS, network.nodes[:-1])
    node.start()
    network.wait_connected(FORMS)
    wait_until(lambda: shares(node), FORMS, "both lines lead to all nodes", bed.tails)
    return lined, network, node


def shares(node: Node) -> bool:
    """Whether both lines lead to the three others, and the kernel marks what goes over them."""
    routes = [
        node.host.run(["ip", "-6", "route", "show", "table", table], check=False).stdout for table in ("14701", "14702")
    ]
    return all(len(each.splitlines()) >= 3 for each in routes) and TABLE in rules(node)


def rules(node: Node) -> str:
    return node.host.run(["nft", "list", "ruleset"]).stdout


def test_many_connections_use_both_lines_and_go_on_when_one_dies(bed: Bed) -> None:
    lined, network, node = start(bed, (FAST, SLOW))
    peer = network.nodes[1]
    flows = Flows(node.host, peer.host, peer.address, count=16, seconds=SECONDS)
    both = flows.run()
    print(f"16 connections: {both.mbits(WARM):.1f} Mbit/s of twice {MBITS}")
    assert both.mbits(WARM) > 1.2 * MBITS, bed.tails()

    flows = Flows(node.host, peer.host, peer.address, count=16, seconds=2 * SECONDS)
    flows.start()
    wait_until(lambda: "goto to_2" in rules(node), FORMS, "some go over the second line", bed.tails)
    lined.cut(1)
    result = flows.result()
    print(f"a line died: longest stall {result.stall:.2f} s, {result.ended} ended, afterwards {result.mbits(12):.1f}")
    assert not result.ended
    assert result.mbits(2 * SECONDS - 4) > 0.5 * MBITS
    assert result.stall < 30
    lined.restore(1)
    assert node.stop() == 0
    assert node.traces() == []


def test_what_a_killed_node_leaves_is_taken_away_by_the_next_one(bed: Bed) -> None:
    _, network, node = start(bed, (FAST, FAST))
    node.kill()
    assert shares(node)
    node.start()
    log = node.host.log / "re6stnet.log"
    wait_until(lambda: log.read_text().count(BEGINS) == 2, FORMS, "the next one begins anew", bed.tails)
    wait_until(lambda: shares(node), FORMS, "both lines lead to all nodes again", bed.tails)
    network.wait_connected(FORMS)
    assert node.stop() == 0
    assert node.traces() == []
