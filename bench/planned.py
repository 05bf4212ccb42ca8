"""What is planned costs nobody a packet: pings every 10 ms and a TCP stream of 10 Mbit/s, from one node to another.

Each case changes one thing; for a minute it is counted how many pings are lost, how long at most none came through,
and how long at most no byte of the stream arrived, which is to stay under 0.2 s. A ping is lost when there is no
answer within a second.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.support.results import keep, say
from re6st.cert import RENEW_BEFORE
from testbed import Bed, Network, Node, Pinger, wait_until
from testbed.ageing import shorten
from testbed.stream import Stream

FORMS = 120
PACE = 0.01
SETTLES = 15.0
"""Seconds after the network has formed: superfluous tunnels have closed."""
IPV4 = ("--ipv4", "10.42.0.0/16", "8")
BEFORE = 1.0
AFTER = 2.0


@dataclass(frozen=True)
class Case:
    """A change: `steps` yields after each of its parts, which are spread over the time."""

    name: str
    steps: Callable[[Network], Iterator[None]]
    nodes: int = 4
    options: tuple[str, ...] = ()
    prepare: Callable[[Network], None] = lambda network: None
    proof: str = ""
    """A regular expression: how often the logs of the nodes say so is how often it happened."""


def ends(network: Network) -> tuple[Node, Node]:
    return network.nodes[1], network.nodes[2]


def nothing(network: Network) -> Iterator[None]:
    yield


def parameters(network: Network) -> Iterator[None]:
    network.stop_registry()
    network.registry_options += ["--client-count", "9"]
    network.start_registry()
    yield


def ipv4(network: Network) -> Iterator[None]:
    network.stop_registry()
    network.registry_options += IPV4
    network.start_registry()
    yield


def rotation(network: Network) -> Iterator[None]:
    for _ in range(3):
        network.call("updateHMAC")
        yield


def encrypted(network: Network) -> set[bool]:
    """Whether the OpenVPN processes encrypt."""
    found = set()
    for node in network.nodes:
        for words in node.host.processes().values():
            if "--dev-type" in words:
                found.add("--cipher" not in words)
    return found


def encryption(network: Network) -> Iterator[None]:
    network.stop_registry()
    network.registry_options += ["--encrypt"]
    network.start_registry()
    wait_until(lambda: encrypted(network) == {True}, 3 * FORMS, "every tunnel is made anew", network.bed.tails)
    yield


def hang_up(network: Network) -> Iterator[None]:
    for node in ends(network):
        assert node.process
        node.process.send_signal(signal.SIGHUP)
        yield


def supervisor(network: Network) -> Iterator[None]:
    for node in ends(network):
        node.end(signal.SIGQUIT)
        node.start()
        yield


def crash(network: Network) -> Iterator[None]:
    for node in ends(network):
        node.kill()
        node.start()
        yield


def stop_and_start(network: Network) -> Iterator[None]:
    """A node that neither end needs leaves, and comes back."""
    for node in network.nodes[3:]:
        node.stop()
        node.start()
        yield


CASES = (
    Case("nothing", nothing),
    Case(
        "tunnels are refreshed",
        nothing,
        nodes=8,
        options=("--client-count", "2", "--tunnel-refresh", "5"),
        proof=r"closing the tunnel to \S+: replaced",
    ),
    Case("parameter of the policy", parameters, proof="network parameters"),
    Case("parameter that restarts babeld", ipv4, proof="the new babeld knows the network"),
    Case("rotation of babel's key", rotation, proof="signs with the new key"),
    Case(
        "certificate renewed",
        nothing,
        prepare=lambda network: shorten(network, ends(network)[0], RENEW_BEFORE + timedelta(seconds=40)),
        proof="certificate .*renewed|renewed .*certificate",
    ),
    Case("encryption of tunnels", encryption),
    Case("daemons upgraded (SIGHUP)", hang_up, options=IPV4, proof="taking over babeld"),
    Case("daemons upgraded (systemctl restart)", supervisor, options=IPV4, proof="taking over babeld"),
    Case("daemons killed and started", crash, options=IPV4, proof="taking over babeld"),
    Case("another node restarted", stop_and_start, proof="leaving"),
)
"""`nothing` is what the machine itself does to pings and stream."""


def proofs(network: Network, pattern: str) -> int:
    if not pattern:
        return 0
    texts = ((node.host.log / "re6stnet.log").read_text(errors="replace") for node in network.nodes)
    return sum(len(re.findall(pattern, text)) for text in texts)


def measure(case: Case, seconds: float, settles: float = SETTLES) -> dict[str, Any]:
    """One run, on a bed of its own."""
    with Bed() as bed:
        network = Network(bed, case.nodes, registry_options=case.options)
        network.create()
        network.enrol()
        case.prepare(network)
        for node in network.nodes:
            node.start()
        network.wait_connected(FORMS)
        settled = time.monotonic() + settles
        wait_until(lambda: time.monotonic() > settled, settles + 10, "doubles are closed")
        a, b = ends(network)
        pinger, stream = Pinger(a.host, b.address, PACE), Stream(a.host, b.host, b.address)
        said = proofs(network, case.proof)
        with ExitStack() as stack:
            stack.enter_context(pinger.running())
            stack.enter_context(stream.running())
            time.sleep(BEFORE)
            end = time.monotonic() + seconds
            for _ in case.steps(network):
                time.sleep(min(seconds / 4, max(0.0, end - time.monotonic())))
            time.sleep(max(0.0, end - time.monotonic()))
            if case.proof:
                wait_until(lambda: proofs(network, case.proof) > said, FORMS, f"{case.name!r} happens", bed.tails)
                time.sleep(AFTER)
        network.check_alive()
        return {
            "pings": pinger.sent,
            "lost": pinger.lost,
            "longest_gap_s": round(pinger.longest, 3),
            "stream_stall_s": round(stream.stall, 3),
            "stream_broken": stream.broken,
            "happened": proofs(network, case.proof) - said,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench planned", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="runs of each case (default: 1)")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of each run (default: 60)")
    parser.add_argument("--case", action="append", default=[], metavar="WORD", help="only cases named so")
    parser.add_argument("--quick", action="store_true", help="10 seconds each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/planned.json)")
    options = parser.parse_args(arguments)
    seconds = 10.0 if options.quick else options.seconds
    cases: dict[str, list[dict[str, Any]]] = {}
    for case in CASES:
        if options.case and not any(word in case.name for word in options.case):
            continue
        for _ in range(options.runs):
            found = measure(case, seconds, SETTLES / 3 if options.quick else SETTLES)
            cases.setdefault(case.name, []).append(found)
            say(f"{case.name:<40} {found}")
    keep("planned", {"seconds": seconds, "cases": cases}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
