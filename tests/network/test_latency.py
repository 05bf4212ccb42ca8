"""Traffic takes the quicker way, though it has one hop more."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.failover import next_hop
from testbed import Bed, Network, wait_until
from testbed.pings import ping

DIRECT, LEG = 0.150, 0.020
"""Seconds, one way: between the two ends, and between each of them and the relay."""
FORMS = 60
SOON = 30.0
QUICK = 0.150
"""Four legs, and some time for a busy machine; over the direct link it is twice DIRECT."""


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
