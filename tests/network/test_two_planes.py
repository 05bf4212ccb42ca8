"""Two routing planes: bulk traffic has ways of its own, on real babelds, and nothing of them stays."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest

from re6st.core.routing.planes import CS1, ECN_BITS, LE, THROUGHPUT
from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, Node, wait_until
from testbed.control import ask

FORMS = 90
TOLD = 20
PORT = 4000
SEEN = ((0, "cs1"), (1, "cs0"), (2, "cs1"))
"""By which class packets to PORT and the ports after it are to come."""
BABELD = """#!/bin/sh
# As babeld, but that of the second plane also announces what is in its kernel by `proto static`.
case "$*" in *re6stnet-plane-*) exec /usr/sbin/babeld "$@" -C "redistribute ip ::/0 proto 4" ;; esac
exec /usr/sbin/babeld "$@"
"""
BULK = [f"{each << ECN_BITS:#x}" for each in (CS1, LE)]


def by_throughput(node: Node) -> str:
    """The kernel's routes for bulk traffic; empty without any."""
    asked = ["ip", "-6", "route", "show", "table", str(THROUGHPUT.table)]
    return node.host.run(asked, check=False).stdout


def has_ways(node: Node, others: list[Node]) -> bool:
    routes = by_throughput(node)
    return all(f"{other.subnet} via " in routes for other in others if other is not node)


def route(source: Node, target: Node, *words: str) -> str:
    return source.host.ip("-6", "route", "get", str(target.address), *words)


def form(bed: Bed, nodes: int, planes: int = 2) -> Network:
    network = Network(bed, nodes, registry_options=["--planes", str(planes)])
    network.start()
    network.wait_connected(FORMS)
    return network


def wait_ways(network: Network, nodes: list[Node]) -> None:
    def context() -> str:
        return "\n".join([*(f"{node.name}: {by_throughput(node)}" for node in nodes), network.bed.tails()])

    wait_until(lambda: all(has_ways(each, nodes) for each in nodes), FORMS, "routes of the throughput plane", context)


def test_bulk_traffic_has_a_plane_that_ends_without_a_trace(bed: Bed) -> None:
    network = form(bed, 3)
    wait_ways(network, network.nodes)
    a, b, _ = network.nodes
    assert len(a.rules()) == 1 + 2 * len(BULK)
    for each in BULK:
        assert f" table {THROUGHPUT.table} " in route(a, b, "tos", each)
    assert f" table {THROUGHPUT.table} " not in route(a, b)
    before = set(b.pids("babeld"))
    b.kill()
    b.start()

    def lives_again() -> bool:
        return len(set(b.pids("babeld")) - before) == 1 and has_ways(b, network.nodes)

    wait_until(lives_again, FORMS, "another babeld of that plane, and its routes", bed.tails)
    for node in network.nodes:
        assert node.stop() == 0
    network.stop_registry()
    for node in network.nodes:
        assert node.traces() == []


def test_what_leaves_the_plane_loses_its_class_and_arrives(bed: Bed) -> None:
    network = form(bed, 2)
    wait_ways(network, network.nodes)
    a, b = network.nodes
    count = f"ip6 saddr {a.address} icmpv6 type echo-request ip6 dscp"
    counts = "".join(f"{count} {name} counter name {name}; " for name in ("cs0", "cs1"))
    chain = f"counter cs0 {{}}; counter cs1 {{}}; chain in {{ type filter hook input priority -400; {counts}}}"
    b.host.run(["nft", f"table inet seen {{ {chain}; }}"])

    def seen() -> list[int]:
        listed = b.host.run(["nft", "list", "counters", "table", "inet", "seen"]).stdout
        return [int(number) for number in re.findall(r"packets (\d+)", listed)]

    def send() -> None:
        a.host.run(["ping", "-6", "-c", "3", "-i", "0.1", "-W", "2", "-Q", BULK[0], str(b.address)])

    send()
    assert seen() == [0, 3]
    # As babeld leaves it where a way is lost.
    lost = ("table", str(THROUGHPUT.table), "proto", "babel")
    (line,) = [line for line in by_throughput(a).splitlines() if "proto babel" in line]
    a.host.ip("-6", "route", "del", *line.split(" onlink")[0].split(), "table", str(THROUGHPUT.table))
    a.host.ip("-6", "route", "add", "unreachable", str(b.subnet), *lost, "metric", str(0xFFFFFFFF))
    send()
    assert seen() == [3, 3]


def test_what_the_operator_names_goes_by_capacity(bed: Bed) -> None:
    """By port, by user and by control group, if its program has set no class."""
    network = Network(bed, 2, registry_options=["--planes", "2"])
    a, b = network.nodes
    a.options += ["--bulk", "udp", str(PORT), "--bulk", "user", "nobody"]
    network.start()
    network.wait_connected(FORMS)
    wait_ways(network, network.nodes)
    count = "".join(f"udp dport {PORT + n} ip6 dscp {name} counter name {name}{n}; " for n, name in SEEN)
    counters = " ".join(f"counter {name}{n} {{}};" for n, name in SEEN)
    b.host.run(
        ["nft", f"table inet seen {{ {counters} chain in {{ type filter hook input priority -400; {count}}}; }}"]
    )
    send = f"import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.sendto(b'', ('{b.address}', %d))"
    a.host.run([sys.executable, "-c", send % PORT])
    a.host.run([sys.executable, "-c", send % (PORT + 1)])
    a.host.run(["setpriv", "--reuid", "nobody", "--clear-groups", sys.executable, "-c", send % (PORT + 2)])
    listed = b.host.run(["nft", "list", "counters", "table", "inet", "seen"]).stdout
    assert dict(re.findall(r"counter (\w+) {\s+packets (\d+)", listed)) == {"cs10": "1", "cs01": "1", "cs12": "1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_bulk_packet_is_lost_when_a_second_babeld_ends(bed: Bed, number: signal.Signals) -> None:
    """In good order, as for another cost of a link, or killed: at the node that sends, and at the one that receives."""
    network = form(bed, 3)
    wait_ways(network, network.nodes)
    a, b, _ = network.nodes
    for node in (a, b):
        asked = ["ping", "-6", "-n", "-q", "-c", "250", "-i", "0.02", "-W", "2", "-Q", BULK[0], str(b.address)]
        ping = a.host.start(asked, f"ping-{node.name}.log")
        (pid,) = (pid for pid, words in node.host.processes().items() if is_second_babeld(words))
        os.kill(pid, number)
        wait_until(lambda: ping.poll() is not None, FORMS, "the last packet", bed.tails)  # noqa: B023
        assert " 0% packet loss" in (a.host.log / f"ping-{node.name}.log").read_text()
        wait_ways(network, network.nodes)


def is_second_babeld(words: list[str]) -> bool:
    return bool(words) and words[0].endswith("babeld") and any(THROUGHPUT.name in word for word in words)


def refused(node: Node) -> list[str]:
    """Whom it refuses, since they announced a subnet that is not theirs."""
    found: list[str] = ask(node.host.run_directory / CONTROL_SOCKET, "status")["claims"]["refused"]
    return found


def test_who_lies_in_the_second_plane_alone_is_cut_off_by_all_its_neighbours(bed: Bed) -> None:
    network = Network(bed, 3, registry_options=["--planes", "2"])
    *others, liar = network.nodes
    victim = others[-1]
    program = liar.host.directory / "bin/babeld"
    program.parent.mkdir()
    program.write_text(BABELD)
    program.chmod(0o755)
    liar.wrapper = ["env", f"PATH={program.parent}:{os.environ['PATH']}"]
    network.start()
    network.wait_connected(FORMS)
    wait_ways(network, network.nodes)
    assert [refused(node) for node in others] == [[], []]
    liar.host.namespace.ip(f"route add unreachable {victim.subnet} proto static metric 5000")
    wait_until(lambda: all(refused(node) == [liar.prefix.cn] for node in others), TOLD, "it is refused", bed.tails)
    for node in others:
        log = (node.host.log / "re6stnet.log").read_text()
        assert f"{liar.prefix} announces {victim.subnet}, which is not its subnet" in log
    assert refused(liar) == [], "nobody else is accused"


def test_a_network_of_one_plane_has_no_rules(bed: Bed) -> None:
    network = form(bed, 2, 1)
    for node in network.nodes:
        assert node.rules() == []
        assert by_throughput(node) == ""
        assert len(node.pids("babeld")) == 1
