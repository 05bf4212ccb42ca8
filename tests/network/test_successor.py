"""A daemon that ends without leaving, and the next: tunnels, routes and traffic go on as if nothing had happened."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from testbed import Bed, Network, Node, wait_until
from testbed.pings import Pinger

FORMS = 90
PACE = 0.01
STALL = 2.0
"""Seconds without an answer that would be noticed; usually it is one ping, if any."""


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 3, registry_options=["--ipv4", "10.42.0.0/16", "8"], node_options=["-v", "3"])
    network.start()
    network.wait_connected(FORMS)
    network.wait_single_tunnels(FORMS, least=3)
    return network


def in_place(node: Node) -> None:
    assert node.process
    node.process.send_signal(signal.SIGHUP)


def by_a_supervisor(node: Node) -> None:
    assert node.end(signal.SIGQUIT) == 0
    node.start()


def after_a_crash(node: Node) -> None:
    node.kill()
    node.start()


def programs(node: Node) -> set[int]:
    return {*node.pids("openvpn"), *node.pids("babeld")}


def addresses(node: Node) -> str:
    """Of IPv4, and on which interface."""
    lines = (line.split() for line in node.host.ip("-o", "-4", "address").splitlines())
    return "\n".join(sorted(" ".join(words[1:4]) for words in lines))


def starts(node: Node) -> int:
    return (node.host.log / "re6stnet.log").read_text().count("taking over babeld")


def started(node: Node, count: int) -> bool:
    return starts(node) >= count


def test_a_successor_takes_over_every_tunnel(network: Network, bed: Bed) -> None:
    first, *others = network.nodes
    changes: list[tuple[Node, Callable[[Node], None]]] = [
        (node, change) for node in others for change in (in_place, by_a_supervisor, after_a_crash)
    ]
    changes.append((first, in_place))
    # An address that comes and goes makes babeld forget all routes there.
    assert all("re6stnet-tcp inet 10.42." in addresses(node) for node in network.nodes)
    with Pinger(others[0].host, others[1].address, PACE).running() as pinger:
        for node, change in changes:
            before, had, count = programs(node), addresses(node), starts(node)
            change(node)
            wait_until(partial(started, node, count + 1), 30, "the next daemon", bed.tails)
            network.wait_connected(30)
            assert programs(node) == before, change.__name__
            assert addresses(node) == had, change.__name__
    assert pinger.longest < STALL
    for node in network.nodes:
        text = (node.host.log / "re6stnet.log").read_text()
        assert "ended process" not in text
        assert "left by an earlier run" not in text
        assert node.stop() == 0
        assert node.traces() == [] or node is first


def test_the_logs_of_openvpn_go_on(bed: Bed) -> None:
    network = Network(bed, 2, node_options=["--ovpnlog"])
    network.start()
    network.wait_connected(FORMS)
    network.wait_single_tunnels(FORMS, least=1)
    node = network.nodes[1]
    tunnels = node.pids("openvpn")
    logs = [path for path in node.host.log.glob("re6stnet?*.log") if path.stat().st_size]
    assert logs
    for change in (in_place, after_a_crash):
        count = starts(node)
        change(node)
        wait_until(partial(started, node, count + 1), 30, "the next daemon", bed.tails)
    assert node.pids("openvpn") == tunnels
    sizes = {log: log.stat().st_size for log in logs}
    assert node.stop() == 0
    assert any("SIGTERM" in log.read_text()[size:] for log, size in sizes.items()), "its last words"


def test_a_successor_that_would_not_start_is_not_tried(network: Network, bed: Bed) -> None:
    node = network.nodes[1]
    before = programs(node)
    options = node.host.etc / "re6stnet.conf"
    text = options.read_text()
    options.write_text(f"{text}\nno-such-option\n")
    in_place(node)
    log = node.host.log / "re6stnet.log"
    wait_until(lambda: "not reloaded, the running daemon goes on" in log.read_text(), 30, "it says why", bed.tails)
    assert "no-such-option" in log.read_text()
    assert programs(node) == before
    options.write_text(text)
    certificate = node.host.etc / "cert.crt"
    good = certificate.read_bytes()
    certificate.write_text("x\n")
    in_place(node)
    fault = "not reloaded, the running daemon goes on: re6stnet: cert.crt: not an RSA certificate in PEM form"
    wait_until(lambda: fault in log.read_text(), 30, "it says why", bed.tails)
    assert programs(node) == before
    certificate.write_bytes(good)
    assert node.stop() == 0


def test_what_no_daemon_comes_for_is_taken_away_by_a_stop(bed: Bed) -> None:
    """The first by what systemd calls then, without a daemon; the others by a daemon that is no node yet."""
    network = Network(bed, 2, registry_options=["--ipv4", "10.42.0.0/16", "8"])
    network.start()
    network.wait_connected(FORMS)
    node = network.nodes[1]
    certificate, log = node.host.etc / "cert.crt", node.host.log / "re6stnet.log"
    end_left: list[str | Path] = [sys.executable, "-m", "re6st.cli.left", node.host.run_directory]
    assert "lives: nothing is done" in node.host.run(end_left).stdout
    left = programs(node)
    assert node.end(signal.SIGQUIT) == 0
    good = certificate.read_bytes()
    certificate.write_text("x\n")
    assert node.run().returncode == 78
    assert programs(node) == left
    assert network.ping([(network.nodes[0], node)]), "the next one that starts goes on with it"
    assert "removed what a node left" in node.host.run(end_left).stdout
    assert (node.traces(), "10.42." in node.host.ip("-4", "address")) == ([], False)
    assert node.host.run(end_left).stdout == ""
    certificate.write_bytes(good)

    node.start()
    wait_until(lambda: bool(node.babel().routes), FORMS, "routes", bed.tails)
    assert node.end(signal.SIGQUIT) == 0
    assert programs(node)
    (node.host.state / "cache.db").unlink()
    network.stop_registry()
    node.start()
    wait_until(lambda: "no network parameters yet" in log.read_text(), 60, "it waits", bed.tails)
    assert node.stop() == 0
    assert node.traces() == []


def test_who_is_stopped_while_it_is_replaced_ends(bed: Bed) -> None:
    """As by `systemctl stop`, or `restart`, right behind `systemctl reload`."""
    network = Network(bed, 2)
    network.start()
    network.wait_connected(FORMS)
    node = network.nodes[1]
    # By SIGQUIT it ends as well, but leaves all to the next one.
    for number, handed_over, wait in (
        (signal.SIGQUIT, False, 0.2),
        (signal.SIGQUIT, True, 0.0),
        (signal.SIGTERM, False, 0.2),
        (signal.SIGTERM, True, 0.0),
        (signal.SIGTERM, True, 0.2),
    ):
        if node.process is None:
            node.start()
            # After SIGQUIT it answers before it listens.
            wait_until(lambda: (node.host.run_directory / "control.sock").exists(), 30, "the next one", bed.tails)
            network.wait_connected(FORMS)
        log = node.host.log / "re6stnet.log"
        count = log.read_text().count("handing over")
        in_place(node)
        if handed_over:
            wait_until(lambda: log.read_text().count("handing over") > count, 30, "its end", bed.tails)  # noqa: B023
        time.sleep(wait)  # any moment of the next one's start
        assert node.end(number) == 0, wait
        assert bool(node.pids("openvpn")) is (number == signal.SIGQUIT), wait
        (node.host.run_directory / "control.sock").unlink(missing_ok=True)
