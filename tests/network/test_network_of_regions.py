"""Regions on real nodes: each knows its own region's nodes and one route for each other region, and all answer."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Network
from itertools import permutations

from re6st.core.prefix import subnet
from re6st.core.routing.regions import region_of
from testbed import Bed, Network, Node, wait_until
from testbed.watch import Watch

FORMS = 90
SWITCHED = 150
"""Seconds until all babelds have started anew, and former regions are forgotten."""
BITS = 14
"""So the prefixes of four nodes in a row, 0/16 to 3/16, are a region."""
SWALLOWED = 10.0
"""Seconds for which no pair of nodes may be silent."""

Wanted = Callable[[Node, list[Node]], set[IPv6Network]]


def routes(node: Node) -> set[IPv6Network]:
    """Where the kernel has a route of babel's to, in the network."""
    found = set()
    for line in node.host.ip("-6", "route", "show", "proto", "babel").splitlines():
        word = line.split()[0]
        if word != "unreachable" and word != "default":
            found.add(IPv6Network(word))
    return {each for each in found if each.subnet_of(node.network)}


def expected(node: Node, nodes: list[Node]) -> set[IPv6Network]:
    """A route to each other node of its region, and one to each other region."""
    own = region_of(node.prefix, BITS)
    found = set()
    for other in nodes:
        if other is not node:
            region = region_of(other.prefix, BITS)
            found.add(other.subnet if region == own else subnet(node.network, region))
    return found


def form(bed: Bed, nodes: int, bits: int = BITS) -> Network:
    network = Network(bed, nodes, registry_options=["--regions", str(bits)])
    network.start()
    network.wait_connected(FORMS)
    return network


def wait_routes(network: Network, nodes: list[Node], wanted: Wanted = expected) -> None:
    def context() -> str:
        seen = [f"{node}: {sorted(routes(node))}, not {sorted(wanted(node, nodes))}" for node in nodes]
        return "\n".join([*seen, network.bed.tails()])

    wait_until(lambda: all(routes(node) == wanted(node, nodes) for node in nodes), SWITCHED, "the routes", context)


def test_each_node_has_the_routes_of_its_region_and_one_of_each_other(bed: Bed) -> None:
    network = form(bed, 9)
    assert len({region_of(node.prefix, BITS) for node in network.nodes}) == 3
    wait_routes(network, network.nodes)
    assert all(network.pings()[pair] is not None for pair in permutations(network.nodes, 2))


def flat(node: Node, nodes: list[Node]) -> set[IPv6Network]:
    """A route to each other node."""
    return {other.subnet for other in nodes if other is not node}


def check_gaps(watch: Watch) -> None:
    longest = max((gap.until - gap.since for gap in watch.gaps), default=0.0)
    print(f"longest gap {longest:.2f} s of {watch.sent} pings, {len(watch.gaps)} gaps")
    assert longest < SWALLOWED, watch.gaps


def test_regions_are_switched_on_and_off_again_while_the_network_runs(bed: Bed) -> None:
    network = Network(bed, 6)
    network.start()
    network.wait_connected(FORMS)
    watch = Watch(network.nodes, pace=0.25)
    with watch.running():
        for options, wanted in (["--regions", str(BITS)], expected), ([], flat):
            assert network.stop_registry() == 0
            network.registry_options = options
            network.start_registry()
            wait_routes(network, network.nodes, wanted)
    check_gaps(watch)
