"""What a network lives through: cuts, killed processes, killed nodes, ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from re6st.core.routing.babel_lines import INFINITY
from testbed import Bed, Network, Node, wait_until

FORMS = HEALS = 90
"""Seconds a network may take to form and to heal: far more than it takes."""


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 3, registry_options=["--hello", "2"])
    network.start()
    network.wait_connected(FORMS)
    return network


def connected(network: Network, a: Node, b: Node) -> bool:
    """Whether there is a tunnel between two nodes."""
    return any({tunnel.client, tunnel.server} == {a, b} for tunnel in network.tunnels())


def test_life_goes_on_without_the_registry_and_its_node(network: Network, bed: Bed) -> None:
    first, *others = network.nodes
    wait_until(lambda: connected(network, *others), 60, "a tunnel between the other two", bed.tails)
    first.host.cut()
    network.wait_connected(HEALS, others)

    killed = {node: node.signal("openvpn") for node in others}
    assert all(killed.values())
    network.wait_connected(HEALS, others)
    for node in others:
        assert not set(killed[node]) & set(node.pids("openvpn"))
    assert all(rtt is None for pair, rtt in network.pings(timeout=0.5).items() if first in pair), "still cut"

    first.host.restore()
    network.wait_connected(HEALS)


def test_a_node_without_registry_starts_from_what_it_remembers(network: Network, bed: Bed) -> None:
    first, *others = network.nodes
    wait_until(lambda: connected(network, *others), 60, "a tunnel between the other two", bed.tails)
    assert others[1].stop() == 0
    first.host.cut()
    others[1].start()
    network.wait_connected(HEALS, others)


def test_babeld_is_restarted(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    killed = node.signal("babeld")
    assert len(killed) == 1
    # What it had installed in the kernel stays meanwhile, so pings alone would not show that it is back.
    wait_until(lambda: set(node.pids("babeld")) - set(killed), 60, "another babeld runs", bed.tails)
    wait_until(lambda: len(node.babel().routes) >= 2, 60, "it knows the way to both peers", bed.tails)
    network.wait_connected(HEALS)
    assert len(node.pids("babeld")) == 1


def test_babeld_stays_calm_when_all_tunnels_of_a_node_die(bed: Bed) -> None:
    """Without a link-local address and with a key, it wrote a million lines a second, for as long as seconds."""
    network = Network(bed, 5, registry_options=["--client-count", "2"])
    network.start()
    network.wait_connected(FORMS)
    node = network.nodes[1]
    file = node.host.log / "babeld.log"

    def has_ways() -> bool:
        return len([each for each in node.babel().neighbours.values() if each.cost < INFINITY]) >= 2

    def kill_tunnels() -> None:
        killed = set(node.signal("openvpn"))
        wait_until(lambda: not killed & set(node.pids("openvpn")), 60, "they are gone", bed.tails)

    for _ in range(4):
        wait_until(has_ways, HEALS, "two neighbours", bed.tails)
        network.wait_connected(HEALS)
        kill_tunnels()
    network.wait_connected(HEALS)
    assert file.stat().st_size < 1 << 20


def processor_time(pid: int) -> float:
    """Seconds that a process has used."""
    ticks = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def test_a_babeld_that_tries_without_end_to_send_does_not_go_on(bed: Bed) -> None:
    """Anybody may take interfaces of tunnels down: here while the daemon is frozen, so that it surely comes too late.

    All neighbours are next to each other, so no other way to one of them is shorter, and babeld has to ask for it.
    """
    network = Network(bed, 4, registry_options=["--client-count", "3"])
    network.start()
    network.wait_connected(FORMS)
    node = network.nodes[0]
    file = node.host.log / "babeld.log"
    assert node.process is not None
    daemon = node.process.pid

    def has_ways() -> bool:
        return len([each for each in node.babel().neighbours.values() if each.cost < INFINITY]) >= 3

    def tries_without_end() -> bool:
        tunnels = [name for name in node.host.interfaces() if name.startswith("re6stnet")]
        wait_until(has_ways, HEALS, "three neighbours", bed.tails)
        node.host.namespace.ip(*(f"link set {name} down" for name in tunnels))
        end = time.monotonic() + 5
        while time.monotonic() < end and file.stat().st_size < 1 << 18:
            time.sleep(0.1)
        if file.stat().st_size >= 1 << 18:
            return True
        node.host.namespace.ip(*(f"link set {name} up" for name in tunnels))
        return False

    wait_until(has_ways, HEALS, "three neighbours", bed.tails)
    os.kill(daemon, signal.SIGSTOP)
    try:
        wait_until(tries_without_end, HEALS, "babeld tries without end", bed.tails)
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: file.stat().st_size < 1 << 16, 20, "what it wrote was taken out", bed.tails)
    network.wait_connected(HEALS)
    assert file.stat().st_size < 1 << 16
    (babeld,) = node.pids("babeld")
    assert processor_time(babeld) < 2, "another one"


def test_who_was_away_is_reached_at_once_by_who_was_closer_before(network: Network, bed: Bed) -> None:
    """It is a new router to all others, since its babeld was started anew when all neighbours were gone."""
    away = network.nodes[2]
    (before,) = away.pids("babeld")
    away.host.cut()
    wait_until(lambda: away.pids("babeld") not in ([], [before]), 60, "another babeld", bed.tails)
    away.host.restore()
    network.wait_connected(HEALS)


def test_a_killed_node_joins_again_and_clears_what_was_left(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    node.kill()
    node.signal("openvpn")  # one that lives would be gone on with
    assert node.traces()
    node.start()
    network.wait_connected(HEALS)
    # It may be started anew, when both neighbours came back as others: see core/routing/babel_restart.py.
    wait_until(lambda: len(node.pids("babeld")) == 1, HEALS, "one babeld", bed.tails)
    assert node.stop() == 0
    assert node.traces() == []


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGUSR2, 255)],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_ended_node_leaves_nothing(bed: Bed, number: signal.Signals, status: int) -> None:
    network = Network(bed, 2)
    network.start()
    network.wait_connected(FORMS)
    assert network.stop_registry() == 0
    for node in network.nodes:
        assert node.end(number) == status
        assert node.traces() == []


def test_a_node_ended_while_it_starts_leaves_nothing(bed: Bed) -> None:
    network = Network(bed, 2)
    network.create()
    network.enrol()
    assert network.stop_registry() == 0
    node = network.nodes[0]  # without registry its start waits for the network parameters
    node.start()
    wait_until(lambda: "registry" in bed.tails(), 60, "the node waits for the registry", bed.tails)
    assert node.stop() == 0
    assert node.traces() == []


def test_a_revoked_node_is_out(network: Network, bed: Bed) -> None:
    *members, revoked = network.nodes
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")

    def is_out() -> bool:
        return all(rtt is None for pair, rtt in network.pings(timeout=0.5).items() if revoked in pair)

    wait_until(is_out, HEALS, "nobody reaches the revoked node", bed.tails)
    network.wait_connected(HEALS, members)
