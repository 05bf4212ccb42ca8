"""Regions on real nodes: each knows its own region's nodes and one route for each other region, and all answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Network
from itertools import permutations, product
from typing import Any

from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.regions import ROUTE_PROTOCOL, region_of
from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, Node, wait_until
from testbed.control import ask
from testbed.watch import Watch

FORMS = 90
SWITCHED = 150
"""Seconds until all babelds have started anew, and former regions are forgotten."""
BITS = 14
"""So the prefixes of four nodes in a row, 0/16 to 3/16, are a region."""
SWALLOWED = 10.0
"""Seconds for which no pair of nodes may be silent."""
REJOINED = 60.0
"""Seconds in which all answer each other again; some ten, where the machine has nothing else to do."""

Wanted = Callable[[Node, list[Node]], set[IPv6Network]]


def routes(node: Node) -> set[IPv6Network]:
    """Where the kernel has a route of babel's to, in the network."""
    found = set()
    for line in node.host.ip("-6", "route", "show", "proto", "babel").splitlines():
        word = line.split()[0]
        if word != "unreachable" and word != "default":
            found.add(IPv6Network(word))
    return {each for each in found if each.subnet_of(node.network)}


def expected(node: Node, nodes: list[Node], bits: int = BITS) -> set[IPv6Network]:
    """A route to each other node of its region, and one to each other region."""
    own = region_of(node.prefix, bits)
    found = set()
    for other in nodes:
        if other is not node:
            region = region_of(other.prefix, bits)
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
    by_number = {node.prefix.value: node for node in network.nodes}
    why = told(by_number[1], "why", peer=str(by_number[6].address))
    assert (why["peer"], why["routes"][0]["in_use"]) == ("1/14", True)
    why = told(by_number[1], "why", peer="6/16")
    assert (why["region"], why["peer"], why["routes"][0]["peer"]) == ("1/14", "6/16", "1/14")


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


def test_a_region_is_divided_while_the_network_runs(bed: Bed) -> None:
    """And no node keeps a way of others to its own region, nor to what was its region before."""
    network = form(bed, 6)
    watch = Watch(network.nodes, pace=0.25)
    with watch.running():
        assert network.stop_registry() == 0
        network.registry_options = ["--regions", str(BITS + 1)]
        network.start_registry()
        # Also babeld lets the former region go, after 75 s.
        wait_until(lambda: all(told_of(node) == {BITS + 1} for node in network.nodes), SWITCHED, "regions", bed.tails)
        wait_routes(network, network.nodes, partial(expected, bits=BITS + 1))
    check_gaps(watch)


def told_of(node: Node) -> set[int]:
    """How many bits the regions have of which the kernel's routes have babel tell others."""
    lines = node.host.ip("-6", "route", "show", "proto", str(ROUTE_PROTOCOL)).splitlines()
    return {IPv6Network(line.split()[1]).prefixlen - node.network.prefixlen for line in lines}


def told(node: Node, operation: str, **arguments: Any) -> Any:
    return ask(node.host.run_directory / CONTROL_SOCKET, operation, **arguments)


def across(node: Node) -> set[Prefix]:
    """The peers in other regions to which a node has opened tunnels that are up."""
    tunnels = told(node, "tunnels")["tunnels"]
    peers = {Prefix.from_cn(each["peer"]) for each in tunnels if each["direction"] == "out" and each["state"] == "up"}
    return {peer for peer in peers if region_of(peer, BITS) != region_of(node.prefix, BITS)}


def peers(node: Node) -> set[Prefix]:
    """Those with whom it has tunnels that are up, whoever opened them."""
    return {Prefix.from_cn(each["peer"]) for each in told(node, "tunnels")["tunnels"] if each["state"] == "up"}


def wait_answered(network: Network, nodes: list[Node]) -> float:
    """Seconds until all of these have answered each other, which are few enough."""
    begun = time.monotonic()
    network.wait_connected(FORMS, nodes)
    waited = time.monotonic() - begun
    print(f"all answered after {waited:.1f} s")
    return waited


def test_a_node_finds_somebody_of_another_region_by_the_address_that_they_share(bed: Bed) -> None:
    network = form(bed, 8)

    def found() -> bool:
        """The registry names nobody of another region, and the number after a region's is the easiest guess."""
        return any(peer.value % 4 for node in network.nodes for peer in across(node))

    wait_until(found, FORMS, "a tunnel to another region", bed.tails)
    wait_routes(network, network.nodes)


def test_parts_of_a_region_are_one_again_soon_after_that_is_possible(bed: Bed) -> None:
    network = form(bed, 8)
    inside = [node for node in network.nodes if node.prefix.value < 4]
    outside = [node for node in network.nodes if node not in inside]

    def borders() -> list[Node]:
        met = set().union(*map(peers, outside))
        return [node for node in inside if node.prefix in met]

    first, second = wait_until(lambda: borders()[1:] and borders(), FORMS, "two nodes next to others", bed.tails)[:2]
    third, fourth = (node for node in inside if node not in (first, second))
    ones, others = [first, third], [second, fourth]
    for one, other in product(ones, others):
        one.host.lose(other.host)

    apart = list(product(ones, others))
    wait_until(lambda: not any(network.ping(apart, 0.5).values()), FORMS, "two parts", bed.tails)
    for one, other in product(ones, others):
        one.host.find(other.host)
    assert wait_answered(network, network.nodes) < REJOINED


def test_a_region_whose_last_border_dies_gets_another_one(bed: Bed) -> None:
    """And the other region is one node."""
    network = Network(bed, 5, registry_options=["--regions", str(BITS)])
    network.create()
    network.enrol()
    by_number = {node.prefix.value: node for node in network.nodes}
    alone, border, rest = by_number[4], by_number[1], [by_number[number] for number in (0, 2, 3)]
    closed = ", ".join(node.host.address for node in rest)
    rules = [
        "add table inet closed",
        *(f"add chain inet closed {hook} {{ type filter hook {hook} priority -10; }}" for hook in ("input", "output")),
        f"add rule inet closed output ip daddr {{ {closed} }} tcp dport 1194 drop",
        f"add rule inet closed input ip saddr {{ {closed} }} tcp dport 1194 drop",
    ]
    alone.host.run(["nft", "\n".join(rules)])
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    assert peers(alone) == {border.prefix}
    border.kill()
    border.host.cut()
    alone.host.run(["nft", "delete table inet closed"])
    assert wait_answered(network, [alone, *rest]) < REJOINED
