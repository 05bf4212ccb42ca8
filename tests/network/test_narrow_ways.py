"""Ways that carry smaller packets than the cards: nothing is swallowed, whichever protocol carries the tunnels."""

from __future__ import annotations

import time
from itertools import combinations, pairwise

import pytest

from testbed import Bed, Host, Network, Node, wait_until
from testbed.narrow import NarrowWay
from testbed.stream import Stream

FORMS = 120
FULL = 1500
"""Bytes of a packet as programs send it that know nothing of the way."""
LEAST = 1280
BUSY = 4.0
WAYS = ((1492, True), (1400, True), (1280, True), (1400, False))
"""PPPoE; another tunnel; the least that IPv6 has; one that says nothing. (MTU, whether it tells.)"""


def passes(source: Host, target: Node, size: int) -> bool:
    """Whether a packet of that size is answered, which this machine may send in fragments that fit where it knows."""
    argv = ["ping", "-n", "-c", "1", "-W", "2", "-s", str(size - 48), str(target.address)]
    return source.run(argv, check=False).returncode == 0


def check(bed: Bed, pairs: list[tuple[Node, Node]]) -> None:
    """Packets of every size pass, and TCP, in both directions."""
    for one, other in pairs:
        for source, target in ((one, other), (other, one)):
            for size in (LEAST, FULL):
                wait_until(
                    lambda: passes(source.host, target, size),  # noqa: B023
                    FORMS,
                    f"{size} bytes from {source.name} to {target.name}",
                    bed.tails,
                )
            with Stream(source.host, target.host, target.address).running() as stream:
                time.sleep(BUSY)
            assert stream.received > 500_000, f"{source.name} -> {target.name}: {stream}"


def options(protocol: str) -> list[str]:
    others = [each for each in ("udp", "tcp", "udp6", "tcp6") if each != protocol]
    words = [word for each in others for word in ("--disable-proto", each)]
    return [*words, "--pp", "1194", protocol]


@pytest.mark.parametrize("protocol", ["tcp", "udp", "tcp6", "udp6"])
@pytest.mark.parametrize("encrypt", [False, True], ids=["clear", "encrypted"])
def test_full_size_packets_pass_behind_every_narrow_way(bed: Bed, protocol: str, encrypt: bool) -> None:
    network = Network(
        bed,
        1 + len(WAYS),
        node_options=options(protocol),
        registry_options=["--encrypt"] if encrypt else [],
    )
    first, *others = network.nodes
    for node in network.nodes:
        if protocol.endswith("6"):
            node.options = [str(node.host.ipv6) if word == node.host.address else word for word in node.options]
    for node, (mtu, tells) in zip(others, WAYS, strict=True):
        NarrowWay(node.host, mtu, tells=tells)
    network.start()
    network.wait_connected(FORMS)
    check(bed, [(first, node) for node in others])


def test_full_size_packets_pass_over_three_hops_of_different_size(bed: Bed) -> None:
    network = Network(bed, 4, node_options=["--disable-proto", "tcp6", "--disable-proto", "udp6"])
    for node, (mtu, tells) in zip(network.nodes[1:], ((1492, True), (1400, True), (1400, False)), strict=True):
        NarrowWay(node.host, mtu, tells=tells)
    network.start()
    network.wait_connected(FORMS)
    # Who is cut off from all that it knows cannot come back by somebody of whom it has never heard.
    chain = [frozenset(pair) for pair in pairwise(network.nodes)]
    wait_until(
        lambda: all(pair in {frozenset((each.client, each.server)) for each in network.tunnels()} for pair in chain),
        FORMS,
        "a tunnel from each node to the next one",
        bed.tails,
    )
    for (number, one), (other_number, other) in combinations(enumerate(network.nodes), 2):
        if other_number - number > 1:
            one.host.lose(other.host)
    network.wait_connected(FORMS)
    check(bed, [(network.nodes[0], network.nodes[3])])
