"""Neighbours on a segment (-i) find each other and carry traffic without tunnels."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed import Bed, Host, Network, Node, Pinger, wait_until
from testbed.network import NETWORK

FORMS = HEALS = 90
LAN = "lan"
"""The interface of every host on the segment."""
LONGEST_GAP = 2.0
"""Seconds without an answer that count as a loss; there is none usually."""


def device(source: Node, target: Node) -> str:
    """The interface by which the kernel sends to a peer."""
    found = re.search(r" dev (\S+)", source.host.ip("-6", "route", "get", str(target.address)))
    return found[1] if found else ""


def over_lan(nodes: Sequence[Node]) -> bool:
    """Whether every way between these nodes leads over the segment."""
    return all(device(a, b) == LAN for a in nodes for b in nodes if a is not b)


def tunnels(nodes: Sequence[Node]) -> list[str]:
    """The OpenVPN clients of these nodes."""
    commands = [words for node in nodes for words in node.host.processes().values()]
    return [" ".join(words) for words in commands if words and Path(words[0]).name == "openvpn" and "--client" in words]


def test_neighbours_on_a_segment_need_no_tunnel(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, 3, node_options=["-i", LAN], registry_options=["--hello", "4"])
    nodes = network.nodes
    bed.segment(LAN, *(node.host for node in nodes))
    for node in nodes:
        node.host.cut(LAN)
    network.start()
    network.wait_connected(FORMS)
    assert tunnels(nodes)

    pinger = Pinger(nodes[1].host, nodes[2].address)
    with pinger.running():
        for node in nodes:
            node.host.restore(LAN)
        wait_until(lambda: not tunnels(nodes) and over_lan(nodes), 90, "the segment takes over", bed.tails)
    print(pinger)
    record_property("pings", str(pinger))
    assert pinger.longest < LONGEST_GAP, str(pinger)

    nodes[1].host.cut(LAN)
    wait_until(lambda: tunnels(nodes), HEALS, "a tunnel replaces the cut segment", bed.tails)
    network.wait_connected(HEALS)


def test_a_node_without_internet_reaches_everybody_through_its_neighbour(bed: Bed) -> None:
    network = Network(bed, 4)
    *others, neighbour, inner = network.nodes
    bed.segment(LAN, neighbour.host, inner.host)
    for node in (neighbour, inner):
        node.options += ["-i", LAN]
    network.start()
    network.wait_connected(FORMS)
    assert inner.stop() == 0

    # From now on it starts from what it remembers: neither the registry nor any peer can be reached but through re6st.
    inner.host.namespace.ip("link set eth0 down")
    inner.start()
    network.wait_connected(FORMS)
    assert all(device(inner, node) == LAN for node in (*others, neighbour))
    pings = network.ping([(inner, others[0]), (others[0], inner)], size=1500)
    assert None not in pings.values()

    inner.host.namespace.ip("link set eth0 up")
    assert inner.stop() == 0
    assert inner.traces() == []


def speak(stranger: Host, *statements: str) -> subprocess.Popen[bytes]:
    """Start a babeld that announces what it has, and more."""
    argv: list[str | Path] = ["babeld", "-S", stranger.state / "babeld", "-I", ""]
    for statement in (*statements, "redistribute proto 4", f"redistribute ip ::/0 src-prefix {NETWORK}"):
        argv += ["-C", statement]
    return stranger.start([*argv, LAN], "babeld.log")


def packets_sent(host: Host) -> int:
    counters = host.run(["cat", "/proc/net/snmp6"]).stdout
    return int(re.findall(r"Udp6OutDatagrams\s+(\d+)", counters)[0])


def let_in(nodes: Sequence[Node]) -> list[str]:
    """What of the stranger reached these nodes: neighbours and routes that are not theirs, default routes."""
    own = {node.subnet for node in nodes}
    tables = [node.babel() for node in nodes]
    found = [f"neighbour {n}" for table in tables for n in table.neighbours.values() if n.interface == LAN]
    found += [f"route {route}" for table in tables for route in table.routes.values() if route.destination not in own]
    return found + [line for node in nodes for line in node.host.ip("-6", "route").splitlines() if "bad" in line]


def test_babel_without_the_networks_key_gets_nothing_in(bed: Bed) -> None:
    network = Network(bed, 2)
    node = network.nodes[1]
    node.options += ["-i", LAN]
    stranger = bed.host("stranger")
    bed.segment(LAN, node.host, stranger)
    for prefix in ("2001:db8:42:bad::/64", "2001:db8:bad::/48", "::/0"):
        stranger.namespace.ip(f"route add unreachable {prefix} proto static")
    network.start()
    network.wait_connected(FORMS)
    own_key = re.findall(r"key id sign .*", (node.host.run_directory / "babeld.conf").read_text())[0]
    other_key = "key id sign type blake2s128 value 00112233445566778899aabbccddeeff"

    timing = "default hello-interval 0.5 update-interval 1"
    for statements in ([timing], [other_key, f"{timing} key sign"]):
        babeld = speak(stranger, *statements)
        before = packets_sent(stranger)
        wait_until(lambda: packets_sent(stranger) > before + 15, 60, "the stranger speaks", bed.tails)  # noqa: B023
        assert let_in(network.nodes) == []
        babeld.terminate()
        babeld.wait(60)
    # It would have come in by now: with the key it does.
    speak(stranger, own_key, f"{timing} key sign")
    wait_until(lambda: any("bad" in line for line in let_in(network.nodes)), 120, "the key lets in", bed.tails)
