"""A link in use is cut silently: both ends lead around it within a second, and nothing goes round in a circle."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from itertools import combinations

import pytest

from bench.failover import next_hop
from testbed import Bed, Network, Node, wait_until
from testbed.control import ask
from testbed.links import WITH_WIREGUARD
from testbed.pings import Pinger

FORMS = 90
PACE = 0.02
LONGEST = 5.0
"""Seconds: ten times what it takes on a quiet machine."""
MARK = "147"
"""Of the kernel's routes of detours."""


def died(node: Node) -> int:
    found: int = ask(node.host.run_directory / "control.sock", "status")["links"]["died"]
    return found


def detours_of(node: Node) -> list[str]:
    return node.host.ip("-6", "route", "show", "proto", MARK).splitlines()


def in_use(network: Network, bed: Bed) -> tuple[Node, Node]:
    """Who dialled a tunnel that both use, and whose server it is on; there is another way by a third node."""
    found: list[tuple[Node, Node]] = []

    def ready() -> bool:
        held = {frozenset((each.client, each.server)): (each.client, each.server) for each in network.tunnels()}
        for a, b in combinations(network.nodes[1:], 2):
            others = [node for node in network.nodes if node not in (a, b)]
            if (
                frozenset((a, b)) in held
                and next_hop(network, a, b) is b
                and next_hop(network, b, a) is a
                and any(next_hop(network, a, n) is n and next_hop(network, n, b) is b for n in others)
            ):
                found.append(held[frozenset((a, b))])
        return bool(found)

    wait_until(ready, FORMS, "a tunnel that both ends use", bed.tails)
    return found[0]


def formed(bed: Bed, nodes: int = 4, *options: str) -> Network:
    network = Network(bed, nodes, node_options=options)
    network.start()
    network.wait_connected(FORMS)
    time.sleep(2)  # neighbours are asked whether they answer as soon as they are met
    return network


@pytest.mark.parametrize("dialled", [True, False], ids=["asked by who dialled", "asked by the server's node"])
@pytest.mark.parametrize("pace", [PACE, 0.1])
def test_answers_come_again_soon_after_a_silent_cut(
    bed: Bed, record_property: Callable[[str, object], None], dialled: bool, pace: float
) -> None:
    """At a slow pace, the last that the end which answers has heard is often a hello, which it owed no answer."""
    network = formed(bed)
    a, b = in_use(network, bed)
    source, target = (a, b) if dialled else (b, a)
    with Pinger(source.host, target.address, pace, own=source.address).running() as pinger:
        time.sleep(2)
        a.host.lose(b.host)
        time.sleep(4)
    record_property("outage", str(pinger.longest))
    assert pinger.longest < LONGEST, bed.tails()
    assert died(a) == died(b) == 1
    a.host.find(b.host)
    wait_until(lambda: not detours_of(a) and not detours_of(b), 30, "babel leads", bed.tails)


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")
def test_a_wireguard_link_is_watched_at_both_ends(bed: Bed) -> None:
    network = formed(bed, 4, *WITH_WIREGUARD)

    def are_links() -> bool:
        listed = [ask(node.host.run_directory / "control.sock", "tunnels")["tunnels"] for node in network.nodes]
        return {each["carrier"] for of in listed for each in of if each["state"] == "up"} == {"wireguard"}

    wait_until(are_links, FORMS, "all tunnels are WireGuard links", bed.tails)
    time.sleep(2)
    a, b = in_use(network, bed)
    with Pinger(b.host, a.address, PACE, own=b.address).running() as pinger:
        time.sleep(2)
        a.host.lose(b.host)
        time.sleep(4)
    assert pinger.longest < LONGEST, bed.tails()
    assert died(a) == died(b) == 1


def test_packets_to_a_node_that_died_do_not_go_round(bed: Bed) -> None:
    """All that miss it have lost a link in use, and each has others by whom it might lead."""
    network = formed(bed)
    *others, gone = network.nodes
    pingers = [Pinger(node.host, gone.address, PACE) for node in others]
    with pingers[0].running(), pingers[1].running(), pingers[2].running():
        time.sleep(2)
        gone.host.cut()
        time.sleep(4)
    for node in others:
        counted = dict(line.split() for line in node.host.run(["cat", "/proc/net/snmp6"]).stdout.splitlines())
        assert counted["Icmp6OutTimeExcds"] == "0", f"{node} has seen the end of a packet that went round"
        assert not detours_of(node), "nobody has heard it by a detour"


def test_what_a_killed_node_left_is_swept_as_it_starts(bed: Bed) -> None:
    network = formed(bed, 2)
    node = network.nodes[1]
    node.kill()
    node.host.ip("-6", "route", "add", "2001:db8:42:ffff::/64", "dev", "eth0", "proto", MARK, "metric", "1000")
    node.start()
    wait_until(lambda: not detours_of(node), FORMS, "it is swept", bed.tails)
    network.wait_connected(FORMS)
