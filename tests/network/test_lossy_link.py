"""A link that loses packets is left soon, and shown, whatever carries it: TCP sends packets again, and so hides it from
babel; on a WireGuard link babel's hellos are rare.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from bench.failover import ends, next_hop, settled
from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, wait_until
from testbed.control import ask
from testbed.links import WITH_WIREGUARD, wait_links
from testbed.network import Node
from testbed.pings import Pinger

FORMS = 120
SOON = 60
"""Seconds: ten times what is usual, and more."""
BACK = 300
"""Seconds until a link that is a good one again is used again: it rests for two minutes."""
COUNT = 100


def says_lossy(node: Node, other: Node) -> bool:
    return any(each["peer"] == other.prefix.cn and each["state"] == "lossy" for each in tunnels(node))


def tunnels(node: Node) -> list[dict[str, object]]:
    found: list[dict[str, object]] = ask(node.host.run_directory / CONTROL_SOCKET, "tunnels")["tunnels"]
    return found


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


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")
def test_a_wireguard_link_that_loses_packets_is_left_soon_and_used_again_when_it_is_a_good_one(
    bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    network = Network(bed, 4, node_options=WITH_WIREGUARD)
    network.start()
    network.wait_connected(FORMS)
    wait_links(network, FORMS)
    a, b = ends(network)
    wait_until(lambda: settled(network, relayed=False), FORMS, "the direct way is used", bed.tails)
    with Pinger(a.host, b.address, 0.02).running() as pinger:
        wait_until(lambda: len(pinger.times) >= COUNT, SOON, "some pings", bed.tails)
        a.host.lose(b.host, 30)
        begun = len(pinger.times)
        wait_until(lambda: says_lossy(a, b) and says_lossy(b, a), SOON, "both ends say it", bed.tails)
        found = len(pinger.times)
        wait_until(lambda: len(pinger.times) >= found + COUNT, SOON, "some more pings", bed.tails)
        (tunnel,) = [each for each in tunnels(a) if each["peer"] == b.prefix.cn]
        assert tunnel["avoided"] == "echo requests are not answered"
        assert ask(a.host.run_directory / CONTROL_SOCKET, "status")["links"]["lossy"] == 1
        wait_until(
            lambda: next_hop(network, a, b) not in (None, b) and next_hop(network, b, a) not in (None, a),
            SOON,
            "babel uses another way too, in both directions",
            bed.tails,
        )
        a.host.find(b.host)
        wait_until(lambda: settled(network, relayed=False), BACK, "the direct way is used again", bed.tails)
    last = max(number for number in range(begun, found + COUNT) if number not in pinger.trips)
    record_property("until no ping was lost", f"{pinger.times[last] - pinger.times[begun]:.2f} s")
    lost = [number for number in range(found, found + COUNT) if number not in pinger.trips]
    assert len(lost) < COUNT / 10, "of a direct way it would be half"
