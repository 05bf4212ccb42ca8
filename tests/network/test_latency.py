"""Traffic takes the quicker way, though it has one hop more, and stays there when packets are late by chance."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations

from bench.failover import next_hop
from testbed import Bed, Network, Pinger, wait_until
from testbed.pings import ping

DIRECT, LEG = 0.150, 0.020
"""Seconds, one way: between the two ends, and between each of them and the relay."""
FORMS = 60
SOON = 120.0
"""Round-trip times come with babel's hellos, each 15 s; two of them, and one that is lost, and their way to others."""
QUICK = 0.150
"""Four legs, and some time for a busy machine; over the direct link it is twice DIRECT."""
NODES, JITTER, WATCHED = 6, 0.010, 30.0
CHANGES = 600
"""Of routes, on all nodes together; 20 to 60 usually, of 30."""
LOST = 0.02


def test_traffic_takes_two_quick_links_rather_than_a_slow_one(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    network = Network(bed, 3)
    network.start()
    relay, a, b = network.nodes
    network.wait_connected(FORMS)

    def direct() -> bool:
        return next_hop(network, a, b) is b and next_hop(network, b, a) is a

    wait_until(direct, FORMS, "the two ends use the tunnel between them", bed.tails)
    for end in (a, b):
        end.host.delay(relay.host, LEG)
    a.host.delay(b.host, DIRECT)
    began = time.monotonic()
    trips: list[float | None] = []

    def quick() -> bool:
        trips.append(ping(a.host, b.address))
        return trips[-1] is not None and 4 * LEG < trips[-1] < QUICK

    wait_until(quick, SOON, "traffic takes the relay", lambda: f"round trips: {trips}")
    record_property("latency", f"{trips} s, the last {time.monotonic() - began:.1f} s after it became slow")
    assert trips[0] is None or trips[0] > 2 * DIRECT, "the direct link was in use, and slow"


def test_packets_that_are_late_by_chance_change_few_routes_and_lose_nothing(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    network = Network(bed, NODES, registry_options=["--client-count", "2"])
    network.start()
    network.wait_connected(FORMS)
    for number, (one, other) in enumerate(combinations(network.nodes, 2)):
        one.host.delay(other.host, 0.010 * (1 + number % 4), JITTER)
    network.wait_connected(FORMS)
    for node in network.nodes:
        node.host.start(["ip", "-6", "monitor", "route"], "routes.log")
    pinger = Pinger(network.nodes[1].host, network.nodes[-1].address, 0.02)
    with pinger.running():
        time.sleep(WATCHED)
    said = [(node.host.log / "routes.log").read_text().splitlines() for node in network.nodes]
    changes = sum("proto babel" in line and not line.startswith("Deleted") for lines in said for line in lines)
    record_property("jitter", f"{changes} changes of routes, {pinger.lost} of {pinger.sent} pings lost")
    assert changes < CHANGES
    assert pinger.lost <= LOST * pinger.sent
