"""The operator changes the network's parameters while it runs: they are followed, and whoever talks does not notice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bench.planned import encrypted
from testbed import Bed, Network, Node, Pinger, wait_until

FORMS = 90
LONGEST_GAP = 5.0
"""Seconds without an answer that are too many; usually there is none, at most half a second."""

Record = Callable[[str, object], None]


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 4, registry_options=["--hello", "2", "--client-count", "2"])
    network.start()
    network.wait_connected(FORMS)
    return network


def change(network: Network, *options: str) -> None:
    """Start the registry again with these options more."""
    assert network.stop_registry() == 0
    network.registry_options += options
    network.start_registry()


def conf(node: Node) -> str:
    file = node.host.run_directory / "babeld.conf"
    return file.read_text() if file.exists() else ""


@contextlib.contextmanager
def traffic(network: Network, nodes: Sequence[Node] = ()) -> Iterator[list[Pinger]]:
    """Pings between each node and the next, while the block runs."""
    nodes = nodes or network.nodes
    pairs = zip(nodes, [*nodes[1:], nodes[0]], strict=True)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Pinger(a.host, b.address, 0.05).running()) for a, b in pairs]


def nothing_lost(pingers: Sequence[Pinger], record: Record, longest: float = LONGEST_GAP) -> None:
    report = "; ".join(map(str, pingers))
    print(report)
    record("pings", report)
    assert max(pinger.longest for pinger in pingers) < longest, report


def linger(seconds: float) -> None:
    """Let the network live on."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 10, "time passes")


def servers(network: Network) -> set[int]:
    """The process ids of all OpenVPN servers."""
    found: set[int] = set()
    for node in network.nodes:
        programs = node.host.processes().items()
        found |= {pid for pid, words in programs if "--tls-server" in words and "ip" not in Path(words[0]).name}
    return found


def test_babel_is_restarted_without_loss(network: Network, bed: Bed, record_property: Record) -> None:
    before = servers(network)
    with traffic(network) as pingers:
        change(network, "--ipv4", "10.42.0.0/16", "8")
        line = "redistribute ip 10.42."
        wait_until(lambda: all(line in conf(node) for node in network.nodes), 60, f"all say {line}", bed.tails)

        def swept() -> bool:
            logs = [(node.host.log / "re6stnet.log").read_text() for node in network.nodes]
            return all("the new babeld knows the network" in log for log in logs)

        wait_until(swept, 60, "what the babelds left is removed", bed.tails)
        linger(2)
    nothing_lost(pingers, record_property)
    assert servers(network) == before, "no server was touched"
    for node in network.nodes:
        routes = node.host.ip("-6", "route", "show", "proto", "babel")
        assert "metric 1025" in routes
        assert "metric 1024" not in routes


def says(node: Node, text: str) -> int:
    """How often a node's log says something."""
    return (node.host.log / "re6stnet.log").read_text().count(text)


def tunnels(network: Network) -> dict[int, list[str]]:
    """The OpenVPN processes that hold a client tunnel: process id -> command line."""
    programs = [program for node in network.nodes for program in node.host.processes().items()]
    return {pid: words for pid, words in programs if "--nobind" in words and Path(words[0]).name == "openvpn"}


def test_the_mesh_gets_another_form_tunnel_by_tunnel(bed: Bed, record_property: Record) -> None:
    """hello, client_count, max_clients and tunnel_refresh change while it runs: nothing is torn at once."""
    network = Network(bed, 7, registry_options=["--hello", "2", "--client-count", "1"])
    network.start()
    network.wait_connected(FORMS)
    with traffic(network) as pingers:
        held, listening = set(tunnels(network)), servers(network)
        change(network, "--hello", "3", "--client-count", "3", "--max-clients", "5")
        wait_until(lambda: all(says(n, "in force") for n in network.nodes), FORMS, "everybody knows", bed.tails)
        assert held <= set(tunnels(network))

        def grown() -> bool:
            new = [words for pid, words in tunnels(network).items() if pid not in held]
            times = {words[words.index("--ping-exit") + 1] for words in new}
            return len(tunnels(network)) > len(network.nodes) + 2 and times == {"12"}

        wait_until(
            grown, FORMS, "more tunnels, of the new time of silence", lambda: f"{tunnels(network)}\n{bed.tails(40)}"
        )
        # That much is true of any moment: the mesh looks for better tunnels all the time, one after the other.
        most = len(tunnels(network))
        change(network, "--tunnel-refresh", "4", "--client-count", "1")
        wait_until(lambda: all(says(n, "in force") > 1 for n in network.nodes), FORMS, "everybody knows", bed.tails)
        assert len(tunnels(network)) > most // 2
        # One more than asked for may close a ring: of those in it nobody knows another way for sure, so all stay.
        few = len(network.nodes) + 1
        wait_until(lambda: len(tunnels(network)) <= few, 2 * FORMS, "few tunnels are left", bed.tails)
        assert servers(network) == listening
    closed = sum(says(node, ": replaced") for node in network.nodes)
    record_property("tunnels", f"{len(held)}, then {most}, then {len(tunnels(network))}; {closed} were drained")
    nothing_lost(pingers, record_property)
    network.wait_connected(FORMS)


def test_a_network_in_clear_becomes_an_encrypted_one(bed: Bed, record_property: Record) -> None:
    # Enough that not everybody has all its tunnels by its own server.
    network = Network(bed, 6, registry_options=["--hello", "2", "--client-count", "2"])
    network.start()
    network.wait_connected(FORMS)
    assert encrypted(network) == {False}
    with traffic(network) as pingers:
        change(network, "--encrypt")
        wait_until(lambda: encrypted(network) == {True}, 360, "every tunnel is made anew", bed.tails)
        linger(3)
    network.wait_connected(FORMS)
    # Who has all its tunnels by its own server is away while that is started again.
    nothing_lost(pingers, record_property, 20)
