"""One connection of MPTCP uses all lines of a node with --mptcp, and what that needs in the kernel comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from testbed import Bed, Host, Network, Node, wait_until
from testbed.flows import Flows
from testbed.lines import Line, LinedHost
from tests.network.test_status import answer

FORMS = 90
MBITS = 8
LINES = Line(MBITS, 0.005), Line(MBITS, 0.015)
WARM, SECONDS, LONG = 4.0, 10.0, 55.0
USES = "one connection of MPTCP uses all lines"
OPTIONS = ("--disable-proto", "none", "--pp", "1194", "udp", "--mptcp")


def start(bed: Bed, count: int) -> tuple[list[LinedHost], Network]:
    """Three nodes on a fast network, and so many with two lines; all are connected, and all have MPTCP's limits."""
    members = [bed.host(f"node{number}", ipv6=False) for number in range(1, 4)]
    lined: list[LinedHost] = []
    for number in range(count):
        lined.append(LinedHost(bed, f"lined{number}", LINES, members))
    network = Network(bed, hosts=[*members, *(each.host for each in lined)], node_options=OPTIONS)
    for each, node in zip(lined, network.nodes[-count:], strict=True):
        node.options = [*OPTIONS, "--ip", "any"]
        for number in range(len(LINES)):
            node.options += ["--uplink", each.option(number)]
    network.create()
    network.enrol()
    for node in network.nodes[:-count]:
        node.start()
    network.wait_connected(FORMS, network.nodes[:-count])
    for node in network.nodes[-count:]:
        node.start()
    network.wait_connected(FORMS)
    for node in network.nodes[-count:]:
        wait_until(partial(bound, node, len(network.nodes) - 1), FORMS, "endpoints and ways over both lines", bed.tails)
    return lined, network


def bound(node: Node, others: int) -> bool:
    """Whether the node has endpoints for both lines, and both lead to so many others."""
    return len(endpoints(node)) == 4 and all(len(routes(node, table)) >= others for table in ("14701", "14702"))


def endpoints(node: Node) -> dict[str, str]:
    """Those of the node, and how each is used, by number, as `ip mptcp` tells it."""
    lines = node.host.run(["ip", "mptcp", "endpoint"]).stdout.splitlines()
    found = (line.split() for line in lines if line.startswith(str(node.subnet.network_address).rstrip(":")))
    return {f"{number} {address}": " ".join(flags) for address, _, number, *flags in found}


def limits(node: Node) -> str:
    return node.host.run(["ip", "mptcp", "limits"]).stdout.strip()


def routes(node: Node, table: str) -> Sequence[str]:
    return node.host.run(["ip", "-6", "route", "show", "table", table], check=False).stdout.splitlines()


def test_one_connection_uses_both_lines(bed: Bed) -> None:
    _, network = start(bed, 1)
    node, peer = network.nodes[-1], network.nodes[1]
    ordinary = Flows(node.host, peer.host, peer.address, seconds=SECONDS).run()
    result = Flows(node.host, peer.host, peer.address, seconds=SECONDS, mptcp=True).run()
    print(f"one connection: {result.mbits(WARM):.1f} Mbit/s of twice {MBITS}, without MPTCP {ordinary.mbits(WARM):.1f}")
    assert ordinary.mbits(WARM) < MBITS
    assert result.mbits(WARM) > 1.2 * MBITS, bed.tails()
    result = Flows(node.host, peer.host, peer.address, seconds=2 * SECONDS, mptcp=True, down=True).run()
    print(f"what comes in: {result.mbits(SECONDS):.1f}")
    assert result.mbits(SECONDS) > 1.2 * MBITS, bed.tails()
    said = answer(node, "uplinks")["mptcp"]
    assert set(said["lines"]) == {"line0", "line1"}


def test_it_goes_on_when_a_line_dies_silently_and_uses_it_again(bed: Bed) -> None:
    (lined,), network = start(bed, 1)
    node, peer = network.nodes[-1], network.nodes[1]
    log = node.host.log / "re6stnet.log"
    flows = Flows(node.host, peer.host, peer.address, seconds=LONG, mptcp=True)
    flows.start()
    wait_until(lambda: len(subflows(node.host)) == 3, FORMS, "a subflow over each line", bed.tails)
    lined.cut(1)
    wait_until(lambda: " is dead: " in log.read_text(), FORMS, "it is noticed", bed.tails)
    lined.restore(1)
    result = flows.result()
    print(f"longest stall {result.stall:.1f} s, at the end {result.mbits(LONG - 10):.1f} Mbit/s of twice {MBITS}")
    assert not result.ended
    assert result.stall < 30
    assert result.mbits(LONG - 10) > 1.2 * MBITS, bed.tails()


def test_between_two_nodes_with_two_lines_there_are_subflows_from_each_and_to_each(bed: Bed) -> None:
    _, network = start(bed, 2)
    node, peer = network.nodes[-2:]
    own, other = ([each.split()[1] for each in sorted(endpoints(of))] for of in (node, peer))
    flows = Flows(node.host, peer.host, peer.address, seconds=SECONDS, mptcp=True)
    flows.start()
    try:
        wait_until(lambda: len(subflows(node.host)) == 5, FORMS, "five subflows", bed.tails)
        found = subflows(node.host)
    finally:
        flows.close()
    assert {each for each, _ in found} - {str(node.address)} <= {*own}
    assert {each for _, each in found} - {str(peer.address)} <= {*other}
    assert len({each for each, _ in found}) == len({each for _, each in found}) == 3, found


def subflows(host: Host) -> set[tuple[str, str]]:
    """The two addresses of each that the host has opened."""
    lines = host.run(["ss", "-6tnH", "state", "established", "dport", "=", ":5301"]).stdout.splitlines()
    ends = (line.split()[2:4] for line in lines)
    return {(own.split("]")[0][1:], other.split("]")[0][1:]) for own, other in ends}


def test_what_it_needs_in_the_kernel_comes_back_is_taken_over_and_goes(bed: Bed) -> None:
    _, network = start(bed, 1)
    node, host = network.nodes[-1], network.nodes[-1].host
    there = endpoints(node)
    assert sorted(there.values()) == ["signal", "signal", "subflow", "subflow"]
    assert limits(node) == "add_addr_accepted 4 subflows 8"
    first = next(each.split()[1] for each, use in there.items() if use == "subflow")
    assert (
        "unreachable" in host.run(["ip", "-6", "route", "get", "2001:db8:ffff::1", "from", first], check=False).stderr
    )

    host.run(["ip", "mptcp", "endpoint", "flush"])
    host.run(["ip", "mptcp", "limits", "set", "subflows", "3", "add_addr_accepted", "0"])
    host.ip("-6", "address", "delete", f"{first}/128", "dev", "lo")
    host.ip("-6", "rule", "delete", "from", first, "priority", "14541")
    own = ["192.0.2.7", "id", "77", "subflow"]
    host.run(["ip", "mptcp", "endpoint", "add", *own])

    def whole() -> bool:
        rules = host.ip("-6", "rule").count("14541:")
        return len(endpoints(node)) == 4 and rules == 4 and first in host.ip("-6", "address", "show", "dev", "lo")

    wait_until(whole, FORMS, "all is there again", bed.tails)
    wait_until(lambda: limits(node) == "add_addr_accepted 4 subflows 8", FORMS, "the limits are", bed.tails)

    there = endpoints(node)
    node.kill()
    node.start()
    log = host.log / "re6stnet.log"
    wait_until(lambda: log.read_text().count(USES) == 2, FORMS, "the next daemon goes on", bed.tails)
    assert endpoints(node) == there, "no subflow of a connection has ended"
    network.wait_connected(FORMS)

    assert node.stop() == 0
    assert node.traces() == []
    assert host.run(["ip", "mptcp", "endpoint"]).stdout.split() == own, "that of others stays"
    assert limits(node) == "add_addr_accepted 0 subflows 3", "as somebody else has set it"
