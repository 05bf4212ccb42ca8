"""How long traffic stops when something breaks: a ping every 20 ms while it happens.

Two nodes, A and B, and two more, all with default settings. Each case breaks one thing that the traffic from A to B
needs at that moment; the figure is the longest time in which no ping came through, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import Bed, Network, Node, wait_until
from testbed.pings import Pinger

FORMS = 120
PACE = 0.02
BEFORE = 1.0
"""Seconds of pings before the event."""
CALM = 6.0
"""Seconds without a loss after which nothing more is expected."""
SLOW = 0.3
"""Seconds that an answer may take."""
LOSS = 30


class CaseError(Exception):
    """The network is not in the state that a case begins with."""


@dataclass(frozen=True)
class Case:
    """What is broken, whether a relay is needed between A and B, and for how many seconds we look."""

    name: str
    event: Callable[[Network], None]
    relayed: bool = False
    look: float = 20.0


def next_hop(network: Network, source: Node, target: Node) -> Node | None:
    """The node that the packets from `source` to `target` go to next."""
    table = source.babel()
    owners = {node.subnet: node for node in network.nodes}
    hops = {r.via: r.destination for r in table.routes.values() if r.refmetric == 0}
    for route in table.routes.values():
        if route.usable and route.destination == target.subnet:
            return owners.get(hops.get(route.via, target.subnet))
    return None


def ends(network: Network) -> tuple[Node, Node]:
    return network.nodes[1], network.nodes[2]


def relay(network: Network) -> Node:
    """The node between A and B."""
    found = next_hop(network, *ends(network))
    if found is None or found in ends(network):
        raise CaseError("no relay between the two ends")
    return found


def openvpn(network: Network, *, client: bool) -> list[int]:
    """The processes of the tunnels between A and B, at their client's or at their server's end."""
    found = []
    for node, other in (ends(network), ends(network)[::-1]):
        for pid in node.pids("openvpn"):
            words = node.host.processes().get(pid, [])
            if client and "--client" in words and other.prefix.cn in words:
                found.append(pid)
        if not client and any(tunnel.client is other and tunnel.server is node for tunnel in network.tunnels()):
            # One process serves the clients of one protocol; it is not known here which, so all of them.
            found += [pid for pid in node.pids("openvpn") if "--client" not in node.host.processes().get(pid, [])]
    return found


def kill(pids: Sequence[int]) -> None:
    if not pids:
        raise CaseError("no process to kill")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def freeze(network: Network) -> None:
    for pid in relay(network).host.processes():
        os.kill(pid, signal.SIGSTOP)


def kill_daemon(network: Network) -> None:
    """A's daemon alone dies, and is started again as a supervisor would."""
    a, _ = ends(network)
    a.kill()
    time.sleep(1)
    a.start()


def cut_direct(network: Network) -> None:
    a, b = (node.host for node in ends(network))
    a.lose(b)


def lossy_direct(network: Network) -> None:
    a, b = (node.host for node in ends(network))
    a.lose(b, LOSS)


CASES = (
    Case("link in use is cut", cut_direct),
    Case("relay dies", lambda network: relay(network).host.cut(), relayed=True),
    Case("relay freezes", freeze, relayed=True),
    Case("OpenVPN client killed", lambda network: kill(openvpn(network, client=True))),
    Case("OpenVPN server killed", lambda network: kill(openvpn(network, client=False))),
    Case("babeld killed", lambda network: kill(ends(network)[0].pids("babeld"))),
    Case("daemon killed, started again", kill_daemon),
    Case(f"{LOSS}% loss on the link in use", lossy_direct, look=25.0),
)


def measure(case: Case, registry_options: Sequence[str]) -> float:
    """One run on a bed of its own: the outage in seconds; for loss, the time until no ping is lost any more."""
    with Bed() as bed:
        network = Network(bed, 4, registry_options=registry_options)
        network.create()
        network.enrol()
        a, b = ends(network)
        if case.relayed:
            a.host.lose(b.host)
        for node in network.nodes:
            node.start()
        network.wait_connected(FORMS)

        def settled() -> bool:
            hop = next_hop(network, a, b)
            others = [n for n in network.nodes if n not in (a, b)]
            spare = [n for n in others if next_hop(network, a, n) is n and next_hop(network, n, b) is b]
            back = next_hop(network, b, a)
            if case.relayed:
                return hop is not None and back is hop and len(spare) == len(others)
            return hop is b and back is a and bool(spare)

        wait_until(settled, FORMS, "the mesh has its shape", bed.tails)
        with Pinger(a.host, b.address, PACE).running() as pinger:
            time.sleep(BEFORE)
            happened = time.monotonic()
            case.event(network)
            end = happened + case.look
            while time.monotonic() < min(end, max(happened, _last_loss(pinger)) + CALM):
                time.sleep(0.1)
        if "loss" not in case.name:
            return pinger.longest
        return max(0.0, _last_loss(pinger) - happened)


def _last_loss(pinger: Pinger) -> float:
    """When the last ping was sent that had no answer, and had the time for one."""
    times, answered = pinger.times, pinger.trips
    last = next((n for n in range(len(times) - 1, -1, -1) if n not in answered and times[-1] - times[n] > SLOW), None)
    return 0.0 if last is None else times[last]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="./run bench failover", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each case (default: 3)")
    parser.add_argument("--case", action="append", default=[], metavar="WORD", help="only cases named so")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    results: dict[str, object] = {"nodes": 4, "registry_options": options.registry_option}
    for case in CASES:
        if options.case and not any(word in case.name for word in options.case):
            continue
        seconds = sorted(round(measure(case, options.registry_option), 2) for _ in range(options.runs))
        median = statistics.median(seconds)
        results[case.name] = {"median_s": median, "runs_s": seconds}
        print(f"{case.name:<32} median {median:6.2f} s   of {seconds}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
