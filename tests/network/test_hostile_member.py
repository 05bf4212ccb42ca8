"""One member of twelve does everything that a member should not do, all at once: the others go on, name it, and throw
it out. It announces the subnets of others, parts of them and half of the Internet, pushes routes and addresses, hides
its certificate, sends with the addresses of others and floods UDP port 326 with noise and invented names.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from re6st import cert
from re6st.core.prefix import ipv4_subnet
from re6st.core.routing.babel_lines import INFINITY
from re6st.core.wire.datagrams import PORT
from re6st.service.run_names import CONTROL_SOCKET, REVOKED
from testbed import Bed, Network, Node, Pinger, wait_until
from testbed.background import in_background
from testbed.control import ask

NODES = 12
FORMS = 90
QUIET, FLOOD, MISCHIEF = 4.0, 3.0, 8.0
"""Seconds of each part: before anything, of the flood alone, and of everything at once before the operator acts."""
LONGEST_GAP = 2.0
GONE = 5.0
TOLD = 20.0
"""Seconds; it is told every ten."""
PACE = 0.2
IPV4, EXTRA_BITS = IPv4Network("10.42.0.0/16"), 8
PUSHED = "10.99.0.0"
OUTSIDE = "2001:db8:99::66"
OPENVPN = """#!/bin/sh
# As openvpn, but what it pushes to clients, and tells to servers, is meant to do harm.
many=""
for number in $(seq 230); do many="$many --setenv UV_$number x"; done
case " $* " in
*" --mode server "*) exec {program} "$@" --push "route {pushed} 255.255.0.0 192.0.2.77" \\
    --push "redirect-gateway def1" --push "ifconfig 10.99.0.2 255.255.0.0" ;;
*) exec {program} "$@" --push-peer-info $many ;;
esac
"""


@dataclass
class Evidence:
    """What was seen, by those who were there."""

    others: list[Node]
    liar: Node
    victim: Node
    pingers: dict[tuple[Node, Node], Pinger] = field(default_factory=dict)
    quiet: float = 0.0
    """How long a node took to answer its operator at most, in seconds, before anything happened: the machine's part."""
    flood_at: float = 0.0
    lie_at: float = 0.0
    """When each began, by the monotonic clock."""
    routes: dict[Node, list[str]] = field(default_factory=dict)
    """Destinations in each kernel during the attack."""
    addresses: dict[Node, str] = field(default_factory=dict)
    logs: dict[Node, str] = field(default_factory=dict)
    refused: dict[Node, list[str]] = field(default_factory=dict)
    """Whom each node's status says that it refuses."""
    health: dict[Node, list[str]] = field(default_factory=dict)
    dropped: dict[Node, dict[str, int]] = field(default_factory=dict)
    gone_after: float = float("inf")
    tunnels_left: dict[Node, list[list[str]]] = field(default_factory=dict)
    knows_revoked: dict[Node, bool] = field(default_factory=dict)
    silent_at_last: list[str] = field(default_factory=list)


def number(node: Node) -> int:
    found = cert.number_of_cert(cert.load_pem((node.host.etc / "cert.crt").read_bytes()))
    assert found is not None
    return found


def ipv4_of(node: Node) -> IPv4Network:
    found = ipv4_subnet(IPV4, EXTRA_BITS, number(node))
    assert found is not None
    return found


def arm(node: Node, program: str) -> None:
    """Have its own daemon start hostile OpenVPNs, and its babeld announce what is in its kernel by `proto static`."""
    directory = node.host.directory / "bin"
    directory.mkdir()
    fake = directory / "openvpn"
    fake.write_text(OPENVPN.format(program=program, pushed=PUSHED))
    fake.chmod(0o755)
    node.wrapper = ["env", f"PATH={directory}:{os.environ['PATH']}"]
    node.options += ["--client-count", str(NODES - 1)]
    for statement in ("redistribute ip ::/0 proto 4", "redistribute ip 0.0.0.0/0 proto 4"):
        node.options += ["-B-C", f"-B{statement}"]


def part_of(victim: Node) -> IPv6Network:
    return next(victim.subnet.subnets(prefixlen_diff=1))


def announce(liar: Node, victim: Node) -> None:
    lies = victim.subnet, part_of(victim), ipv4_of(victim), "2000::/3", "0.0.0.0/1", "128.0.0.0/1"
    for destination in lies:
        liar.host.namespace.ip(f"route add unreachable {destination} proto static metric 5000")


@contextlib.contextmanager
def flooding(liar: Node, victims: Sequence[Node]) -> Iterator[None]:
    """Datagrams to port 326 of others: noise, invented names, and sources that are not its own."""
    # A member that is none, somebody outside, and the one itself to whom it sends.
    sources = [str(liar.network[0x7777 << 64 | 0x66]), OUTSIDE]
    sources += [str(victim.subnet[0x66]) for victim in victims[:3]]
    for source in sources:
        liar.host.namespace.ip(f"address add {source}/128 dev lo nodad")

    def make() -> list[socket.socket]:
        made = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(len(sources) + 1)]
        for own, source in zip(made[1:], sources, strict=True):
            own.bind((source, 0))
        return made

    def flood(stop: threading.Event) -> None:
        rng = random.Random(7)
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(own) for own in liar.host.namespace.call(make)]
            while not stop.wait(0.005):
                for victim in victims:
                    for own in (sockets[0], rng.choice(sockets)):
                        with contextlib.suppress(OSError):
                            own.sendto(b"\0" * 4 + rng.randbytes(300), (str(victim.subnet.network_address), PORT))

    with in_background(flood):
        yield


def waits(seconds: float) -> None:
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, 10 * seconds, "time passes")


def status(node: Node, operation: str = "status") -> dict[str, object]:
    answer: dict[str, object] = ask(node.host.run_directory / CONTROL_SOCKET, operation)
    return answer


def longest_answer(nodes: Sequence[Node], seconds: float) -> float:
    """How long one of them took at most to answer its operator."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        for node in nodes:
            began = time.monotonic()
            status(node, "reachable")
            longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    return longest


def destinations(node: Node) -> list[str]:
    lines = (node.host.ip("-4", "route", "show") + node.host.ip("-6", "route", "show")).splitlines()
    return [line.removeprefix("unreachable ").split()[0] for line in lines if line.strip()]


def is_next_to(node: Node, other: Node) -> bool:
    routes = node.babel().routes.values()
    return any(r.destination == other.subnet and not r.refmetric and r.metric < INFINITY for r in routes)


def log_of(node: Node) -> str:
    return (node.host.log / "re6stnet.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def seen() -> Iterator[Evidence]:
    with Bed() as bed:
        network = Network(bed, NODES, registry_options=["--ipv4", str(IPV4), str(EXTRA_BITS)])
        *others, liar = network.nodes
        arm(liar, "/usr/sbin/openvpn")
        network.start()
        network.wait_connected(FORMS)
        for node in others:
            wait_until(lambda: is_next_to(node, liar), FORMS, f"{node} has a tunnel with it", bed.tails)  # noqa: B023
        yield attack(bed, network, Evidence(others, liar, others[-1]))


def attack(bed: Bed, network: Network, seen: Evidence) -> Evidence:
    others, liar, victim = seen.others, seen.liar, seen.victim
    ring = list(zip(others, [*others[1:], others[0]], strict=True))
    pairs = ring + [(node, victim) for node in others[:-2]]
    seen.pingers = {(a, b): Pinger(a.host, b.address, PACE) for a, b in pairs}
    with contextlib.ExitStack() as running:
        for pinger in seen.pingers.values():
            running.enter_context(pinger.running())
        seen.quiet = longest_answer(others, QUIET)
        seen.flood_at = time.monotonic()
        with flooding(liar, others):
            waits(FLOOD)
            seen.lie_at = time.monotonic()
            announce(liar, victim)
            waits(MISCHIEF)
            for node in others:
                found = status(node)
                seen.routes[node] = destinations(node)
                seen.addresses[node] = node.host.ip("-4", "address", "show")
                seen.refused[node] = found["claims"]["refused"]  # type: ignore[index]
                seen.health[node] = [problem["text"] for problem in found["health"]["problems"]]  # type: ignore[index]
                seen.dropped[node] = found["packet_filter"]["dropped"]  # type: ignore[index]
            serial = cert.load_pem((liar.host.etc / "cert.crt").read_bytes()).serial_number
            network.call("revoke", f"cn_or_serial={liar.prefix.cn}")
            revoked_at = time.monotonic()

            def gone() -> bool:
                left = {node: tunnels_to(node, liar) for node in others}
                known = {node: (node.host.run_directory / REVOKED / str(serial)).exists() for node in others}
                seen.tunnels_left, seen.knows_revoked = left, known
                answers = network.ping([(node, liar) for node in others], 0.3).values()
                return all(rtt is None for rtt in answers) and not any(left.values()) and all(known.values())

            with contextlib.suppress(AssertionError):  # the test says what is not as it should be
                wait_until(gone, 4 * GONE, "nobody has anything to do with the one that was thrown out")
                seen.gone_after = time.monotonic() - revoked_at

    def told() -> bool:
        hit = [node for node in others if seen.dropped[node]["foreign_source"] + seen.dropped[node]["own_source"]]
        return all(accusations(log_of(node)) for node in hit)

    with contextlib.suppress(AssertionError):
        wait_until(told, TOLD, "all have said who sent them what they dropped")
    network.nodes.remove(liar)
    seen.silent_at_last = [f"{a.name} -> {b.name}" for (a, b), rtt in network.pings().items() if rtt is None]
    seen.logs = {node: log_of(node) for node in others}
    longest = max(seen.pingers.values(), key=lambda pinger: pinger.longest)
    print(f"gone after {seen.gone_after:.1f} s; without an answer for {longest.longest:.2f} s at most;", end=" ")
    print(f"before, a node answered its operator after {seen.quiet:.2f} s at most")
    return seen


def accusations(log: str) -> list[str]:
    return [line for line in log.splitlines() if "with a forged source" in line]


def tunnels_to(node: Node, liar: Node) -> list[list[str]]:
    """The processes of its tunnels to the other, and its clients by that name."""
    ends = [words for words in node.host.processes().values() if words and Path(words[0]).name == "openvpn"]
    ours = [words for words in ends if liar.prefix.cn in words]
    theirs = [[t["interface"]] for t in status(node, "tunnels")["tunnels"] if t["peer"] == liar.prefix.cn]  # type: ignore[attr-defined]
    return ours + theirs


def test_no_other_pair_loses_each_other_for_long(seen: Evidence) -> None:
    # A node looks twice: for who claims what, and whether that lasts.
    mark = LONGEST_GAP + 2 * seen.quiet
    for (a, b), pinger in seen.pingers.items():
        assert pinger.longest <= mark, (
            f"{a.name} -> {b.name}: {pinger} (mark {mark:.2f} s, of a slow machine {seen.quiet:.2f})"
        )
    assert not seen.silent_at_last


def test_every_node_names_it_in_its_log_and_refuses_it(seen: Evidence) -> None:
    for node in seen.others:
        assert f"{seen.liar.prefix} announces {seen.victim.subnet}" in seen.logs[node], node
        assert seen.refused[node] == [seen.liar.prefix.cn], node
        assert any(
            f"{seen.liar.prefix} announced a subnet that is not its own" in each for each in seen.health[node]
        ), node


def test_its_claim_of_an_ipv4_subnet_is_named_too(seen: Evidence) -> None:
    lines = [line for node in seen.others for line in seen.logs[node].splitlines() if "re6st.noded.admission" in line]
    assert any(str(ipv4_of(seen.victim)) in line for line in lines if f"{seen.liar.prefix} announces" in line)


def test_nobody_else_is_accused(seen: Evidence) -> None:
    for node in seen.others:
        named = [
            line for line in seen.logs[node].splitlines() if "announces" in line and "re6st.noded.admission" in line
        ]
        assert all(f": {seen.liar.prefix} announces" in line for line in named), named
        cut = [line for line in seen.logs[node].splitlines() if "cutting off" in line]
        assert all(f"cutting off {seen.liar.prefix}:" in line for line in cut), cut


@pytest.mark.parametrize("route", ["0.0.0.0/1", "128.0.0.0/1", "2000::/3", "a part of a subnet", f"{PUSHED}/16"])
def test_no_node_takes_a_route_that_is_nobodys(seen: Evidence, route: str) -> None:
    wanted = str(part_of(seen.victim)) if route.startswith("a part") else route
    for node in seen.others:
        assert wanted not in seen.routes[node], node


def test_no_node_takes_an_address_that_a_server_pushes(seen: Evidence) -> None:
    for node in seen.others:
        assert PUSHED.rpartition(".")[0] not in seen.addresses[node], node


def test_packets_from_outside_or_from_who_gets_them_are_dropped_and_it_is_named_for_them(seen: Evidence) -> None:
    assert sum(found["foreign_source"] for found in seen.dropped.values())
    assert sum(found["own_source"] for found in seen.dropped.values())
    # One whose address was taken gets such packets also by others, who cannot know that they are not that one's.
    known = [node for node, found in seen.dropped.items() if found["foreign_source"] and not found["own_source"]]
    lines = [line for node in known for line in accusations(seen.logs[node])]
    assert all(f" {seen.liar.prefix}" in line for line in lines), lines
    assert any(f"from {seen.liar.prefix}: " in line for node in seen.others for line in accusations(seen.logs[node]))


def test_the_flood_alone_is_not_noticed_and_breaks_nothing(seen: Evidence) -> None:
    for (a, b), pinger in seen.pingers.items():
        sent = [n for n, moment in enumerate(pinger.times) if seen.flood_at <= moment < seen.lie_at]
        lost = sum(n not in pinger.trips for n in sent)
        assert lost <= len(sent) / 4, f"{a.name} -> {b.name}: {lost} of {len(sent)} lost"
    for node in seen.others:
        assert "Traceback" not in seen.logs[node], node


def test_once_revoked_it_is_gone_for_every_node(seen: Evidence) -> None:
    for node in seen.others:
        assert not seen.tunnels_left[node], node
        assert seen.knows_revoked[node], node
    assert seen.gone_after < GONE
