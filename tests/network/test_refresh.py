"""The mesh keeps reshaping itself: tunnels are drained and replaced while traffic goes on (design.md section 3)."""

from __future__ import annotations

import itertools
import re
import signal
import time
from collections.abc import Callable

from re6st.core.routing.babel_lines import INFINITY, NOMINAL
from re6st.core.routing.babel_settings import PORT
from re6st.core.transport.server_drain import DRAIN_HELLOS
from re6st.core.wire.params import BABEL_HELLO
from testbed import Bed, Network, Node, Pinger, wait_until

NODES = 8
"""More than a node with two tunnels is next to."""
REPLACED = 10
INTERVAL = 0.1


def replaced(network: Network) -> int:
    """How many tunnels were closed to make room for others."""
    logs = ((node.host.log / "re6stnet.log").read_text() for node in network.nodes)
    return sum(len(re.findall(r"closing the tunnel to \S+: replaced", text)) for text in logs)


def outcome(node: Node) -> tuple[int, int, float]:
    """Of the pings of a node: sent, lost, the longest time between two answers in seconds."""
    text = (node.host.log / "pings.log").read_text()
    times = [float(found) for found in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes", text, re.MULTILINE)]
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert counts
    sent, received = map(int, counts.groups())
    return sent, sent - received, max(b - a for a, b in itertools.pairwise(times))


def test_tunnels_are_replaced_while_pings_go_on(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, NODES, registry_options=["--client-count", "2", "--tunnel-refresh", "5"])
    network.start()
    network.wait_connected(90)
    *others, target = network.nodes
    ping = ["ping", "-i", str(INTERVAL), "-D", str(target.address)]
    running = [node.host.start(ping, log="pings.log") for node in others]
    wait_until(lambda: replaced(network) >= REPLACED, 120, f"{REPLACED} tunnels are replaced", bed.tails)
    for process in running:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    sent, lost, gaps = map(list, zip(*map(outcome, others), strict=True))
    record_property("refresh", f"{replaced(network)} replaced, {sum(lost)} of {sum(sent)} lost, gap {max(gaps):.2f} s")
    # No packet is lost as a rule; ten times what a hello takes is the bound for a busy machine.
    assert max(gaps) < 5
    network.wait_connected(30)


def test_babel_has_not_lost_a_link_when_its_drain_is_taken_back(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    network = Network(bed, 2)
    network.start()
    network.wait_connected(90)
    registry, node = network.nodes
    (interface,) = {neighbour.interface for neighbour in node.babel().neighbours.values()}

    def costs() -> list[int]:
        return [n.cost for each in network.nodes for n in each.babel().neighbours.values()]

    def drain() -> list[int]:
        # The node keeps its own table as it wants it; this does what it does there.
        rules = f"chain in {{ type filter hook input priority 0; iifname {interface} udp dport {PORT} drop; }};"
        rules += f" chain out {{ type filter hook output priority 0; oifname {interface} udp dport {PORT} drop; }};"
        node.host.run(["nft", f"table inet drain {{ {rules} }}"])
        time.sleep(DRAIN_HELLOS * BABEL_HELLO)
        reached = costs()
        node.host.run(["nft", "delete table inet drain"])
        return reached

    wait_until(lambda: max(costs()) < 2 * NOMINAL, 30, "the link is a good one")
    with Pinger(node.host, registry.address).running() as pinger:
        drained = drain()
        wait_until(lambda: max(costs()) < 2 * NOMINAL, 30, "the link is a good one again")
    record_property("drain", f"costs {drained}, {pinger}")
    assert len(drained) == 2
    assert min(drained) > 16 * NOMINAL, "traffic would have gone another way"
    assert max(drained) < INFINITY
    assert pinger.longest < 5
