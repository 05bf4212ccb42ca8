"""A link that loses packets, and hides it from babel since TCP sends them again, is left, and shown."""

from __future__ import annotations

from collections.abc import Callable

from bench.failover import ends, next_hop, settled
from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, wait_until
from testbed.control import ask
from testbed.network import Node
from testbed.pings import Pinger

FORMS = 120
SOON = 60
"""Seconds: ten times what is usual, and more."""
COUNT = 100


def says_lossy(node: Node, other: Node) -> bool:
    tunnels = ask(node.host.run_directory / CONTROL_SOCKET, "tunnels")["tunnels"]
    return any(each["peer"] == other.prefix.cn and each["state"] == "lossy" for each in tunnels)


def test_a_link_that_loses_packets_is_left_and_shown(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, 4)
    network.start()
    network.wait_connected(FORMS)
    a, b = ends(network)
    wait_until(lambda: settled(network, relayed=False), FORMS, "the direct way is used", bed.tails)
    with Pinger(a.host, b.address, 0.02).running() as pinger:
        a.host.lose(b.host, 30)
        wait_until(lambda: says_lossy(a, b) or says_lossy(b, a), SOON, "it is said", bed.tails)
        wait_until(
            lambda: next_hop(network, a, b) not in (None, b) and next_hop(network, b, a) not in (None, a),
            SOON,
            "another way is used, in both directions",
            bed.tails,
        )
        sent = len(pinger.times)
        wait_until(lambda: len(pinger.times) >= sent + COUNT, SOON, "some more pings", bed.tails)
    record_property("lossy", str(pinger))
    lost = [number for number in range(sent, sent + COUNT) if number not in pinger.trips]
    assert len(lost) < COUNT / 10, "of a direct way it would be a third, or stalls"
    network.wait_connected(FORMS)
