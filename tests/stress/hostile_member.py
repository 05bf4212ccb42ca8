"""One member of twelve does everything a member should not do: the others go on, name it, and throw it out."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

from re6st.core.wire import PORT
from testbed import Bed, Network, Node, Pinger, wait_until

NODES = 12
FORMS = 60
MISCHIEF = 12.0
"""Seconds that the attack goes on before the operator acts."""
LONGEST_GAP = 2.0
GONE = 5.0
PUSHED = "10.99.0.0"
BOGUS = "2001:db8:42:7777::66"
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


def arm(node: Node, program: str) -> None:
    """Have its own daemon start hostile OpenVPNs, and its babeld announce what is in its kernel by `proto static`."""
    directory = node.host.directory / "bin"
    directory.mkdir()
    fake = directory / "openvpn"
    fake.write_text(OPENVPN.format(program=program, pushed=PUSHED))
    fake.chmod(0o755)
    node.wrapper = ["env", f"PATH={directory}:{os.environ['PATH']}"]
    for statement in ("redistribute ip ::/0 proto 4", "redistribute ip 0.0.0.0/0 proto 4"):
        node.options += ["-B-C", f"-B{statement}"]


def announce(liar: Node, victim: Node) -> None:
    part = next(victim.subnet.subnets(prefixlen_diff=1))
    for destination in (victim.subnet, part, IPv6Network("2000::/3"), "0.0.0.0/1", "128.0.0.0/1"):
        liar.host.namespace.ip(f"route add unreachable {destination} proto static metric 5000")


@contextlib.contextmanager
def flooding(liar: Node, victims: list[Node]) -> Iterator[None]:
    """Datagrams to port 326 of others: noise, invented names, and sources that are not its own."""
    stop = threading.Event()
    liar.host.namespace.ip(f"address add {BOGUS}/128 dev lo nodad")

    def flood() -> None:
        def make() -> list[socket.socket]:
            own = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]
            own[1].bind((BOGUS, 0))
            return own

        sockets, rng = liar.host.namespace.call(make), random.Random(7)
        while not stop.is_set():
            for victim in victims:
                for own in sockets:
                    with contextlib.suppress(OSError):
                        own.sendto(b"\0" * 4 + rng.randbytes(300), (str(victim.subnet.network_address), PORT))
            time.sleep(0.005)
        for own in sockets:
            own.close()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def in_kernel(node: Node) -> str:
    return node.host.ip("-4", "route", "show") + node.host.ip("-6", "route", "show")


def logs(nodes: list[Node]) -> str:
    return "\n".join((node.host.log / "re6stnet.log").read_text(errors="replace") for node in nodes)


def test_a_hostile_member_harms_no_other_pair_is_named_and_is_thrown_out(bed: Bed) -> None:
    network = Network(bed, NODES)
    *others, liar = network.nodes
    victim = others[-1]
    arm(liar, "/usr/sbin/openvpn")
    network.start()
    network.wait_connected(FORMS)

    ring = list(zip(others, [*others[1:], others[0]], strict=True))
    pairs = ring + [(node, victim) for node in others[:-2]]
    pingers = [Pinger(a.host, b.address, 0.2) for a, b in pairs]
    with contextlib.ExitStack() as running:
        for pinger in pingers:
            running.enter_context(pinger.running())
        with flooding(liar, others):
            announce(liar, victim)
            end = time.monotonic() + MISCHIEF
            wait_until(lambda: time.monotonic() > end, 2 * MISCHIEF, "the attack goes on")
            table = {node: in_kernel(node) for node in others}

            network.call("revoke", f"cn_or_serial={liar.prefix.cn}")
            revoked_at = time.monotonic()

            def gone() -> bool:
                return all(rtt is None for rtt in network.ping([(node, liar) for node in others], 0.3).values())

            wait_until(gone, 3 * GONE, "nobody reaches the one that was thrown out", bed.tails)
            took = time.monotonic() - revoked_at
    for (a, b), pinger in zip(pairs, pingers, strict=True):
        if pinger.longest > 1:
            print(f"{a.name} -> {b.name}: {pinger}")
    print(f"gone after {took:.1f} s; {max(pinger.longest for pinger in pingers):.2f} s without an answer at most")

    part = str(next(victim.subnet.subnets(prefixlen_diff=1)))
    for node in others:
        for route in ("0.0.0.0/1", "128.0.0.0/1", "2000::/3", part, PUSHED):
            assert f"\n{route}" not in f"\n{table[node]}", f"{node}: a route that nobody should take"
        assert PUSHED.rpartition(".")[0] not in node.host.ip("-4", "address", "show"), "an address that was pushed"
    assert f"{liar.prefix} announces {victim.subnet}" in logs(others), "it is named"
    assert "Traceback" not in logs(others)
    assert took < GONE, "it is thrown out"
    for (a, b), pinger in zip(pairs, pingers, strict=True):
        assert pinger.longest <= LONGEST_GAP, f"{a.name} -> {b.name}: {pinger}"
    for node in others:
        ends = [words for words in node.host.processes().values() if words and Path(words[0]).name == "openvpn"]
        assert not any(liar.prefix.cn in words for words in ends), "no tunnel to it is left"
