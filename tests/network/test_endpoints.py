"""Nodes with several endpoints each, of IPv4 and IPv6, UDP and TCP, half of them dead: tunnels come all the same."""

from __future__ import annotations

import os
from functools import partial

import pytest

from re6st.service import run_names
from testbed import Bed, Network, Node, wait_until
from testbed.endpoints import BlackHole, options
from tests.network.test_successor import after_a_crash, by_a_supervisor, in_place, programs, started, starts

FORMS = 120


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 3)
    hole = BlackHole(bed)
    for node in network.nodes:
        node.options = options(node.host, hole)
    network.start()
    network.wait_connected(FORMS)
    return network


def names(node: Node) -> list[str]:
    return os.listdir(node.host.run_directory)


def later_attempts(node: Node) -> list[str]:
    """The processes of tunnels whose first address did not answer."""
    found = {run_names.process_of(name) for name in names(node)} - {None}
    return sorted(name for name in found if name and run_names.interface_of(name) != name)


def test_a_node_whose_tunnels_came_by_a_second_address_is_replaced(network: Network, bed: Bed) -> None:
    """In place, by a supervisor, after a crash: its tunnels go on, and nobody is kept from starting."""
    wait_until(lambda: any(map(later_attempts, network.nodes[1:])), 120, "a tunnel by a later address", bed.tails)
    node = max(network.nodes[1:], key=lambda node: len(later_attempts(node)))
    for change in (in_place, by_a_supervisor, after_a_crash, in_place):
        wait_until(partial(settled, network), FORMS, "a tunnel for each pair, and no address is tried", bed.tails)
        before, count = programs(node), starts(node)
        change(node)
        wait_until(partial(started, node, count + 1), 30, "the next daemon", bed.tails)
        network.wait_connected(60)
        assert before <= programs(node), change.__name__
        assert later_attempts(node), change.__name__
        checked = node.run("--check")
        assert checked.returncode == 0, checked.stderr
    assert node.stop() == 0
    assert node.traces() == []


def settled(network: Network) -> bool:
    """Whether each pair has one tunnel, which stays, and every OpenVPN process has a note, or serves.

    Two nodes that opened one to each other at the same time close one of them soon.
    """
    count = len(network.nodes)
    notes = [name for node in network.nodes for name in names(node) if name.endswith(".json")]
    clients = [name for name in notes if name.removeprefix("re6stnet")[0].isdigit()]
    processes = sum(len(node.pids("openvpn")) for node in network.nodes)
    return processes == len(notes) and len(clients) == count * (count - 1) // 2
