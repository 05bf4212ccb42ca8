"""How much of several lines one machine uses: re6st beside the kernel's multipath routes, and MPTCP without re6st.

A machine with two or three lines, shaped by tbf, and peers on a fast network. Of each way it is measured, in both
directions: 16 TCP connections to one peer, as a share of what the lines carry one by one; one ordinary connection,
beside the best line alone; one connection of MPTCP. Then a line dies silently while 16 connections run: the longest
time in which one of them stood still, and how many ended. Each row is beside the others in one run. What the lines
carry one by one is measured in the same way: so the headers of tunnels count for nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.support.results import keep, say
from bench.support.uplink_figures import CASES, Case, Figures, marks
from testbed import Bed, BedError, Network, wait_until
from testbed.flows import Flows, Result
from testbed.lines import LinedHost
from testbed.links import WITH_WIREGUARD, all_are_links

FORMS = 120
"""Seconds for a network to form, and for its tunnels to become links."""
PEERS = 3
MANY = 16
WARM = 2.0
"""Seconds of each measure that do not count: connections find their pace."""
SETTLES = 5.0
DIES_AT = 4.0
"""Seconds after which the line that most goes by dies, while connections run."""
SUBFLOWS = "8"


@dataclass(frozen=True)
class Pace:
    """Seconds of each measure."""

    seconds: float
    death: float


class Measured:
    """A machine with lines, whose connections to one peer are measured."""

    def __init__(self, lined: LinedHost, peer: Any, address: str, pace: Pace) -> None:
        self._lined, self._peer, self._address, self._pace = lined, peer, address, pace

    def run(self, count: int, *, down: bool, mptcp: bool = False, seconds: float | None = None) -> Result:
        """So many connections, which the machine opens."""
        seconds = self._pace.seconds if seconds is None else seconds
        flows = Flows(self._lined.host, self._peer, self._address, count=count, seconds=seconds, down=down, mptcp=mptcp)
        return flows.run()

    def mbits(self, count: int, *, mptcp: bool = False) -> dict[str, float]:
        """Mbit/s in both directions, once the connections have found their pace."""
        ways = (("up", False), ("down", True))
        return {way: round(self.run(count, down=down, mptcp=mptcp).mbits(WARM), 1) for way, down in ways}

    def alone(self) -> dict[str, dict[str, float]]:
        """What one line carries."""
        return {"many": self.mbits(MANY), "one": self.mbits(1)}

    def death(self, number: int) -> dict[str, Any]:
        """What the death of a line does to connections, in both directions."""
        found: dict[str, Any] = {}
        for way, down in (("up", False), ("down", True)):
            seconds = self._pace.death
            flows = Flows(self._lined.host, self._peer, self._address, count=MANY, seconds=seconds, down=down)
            flows.start()
            time.sleep(DIES_AT)
            self._lined.cut(number)
            try:
                result = flows.result()
            finally:
                self._lined.restore(number)
            found[way] = {
                "stall_s": round(result.stall, 2),
                "ended": result.ended,
                "after_mbit_s": round(result.mbits(seconds - 3.0), 1),
            }
            time.sleep(SETTLES)
        return found


# --- without re6st ---


def lead_by(lined: LinedHost, peer: str, numbers: Sequence[int]) -> None:
    """Lead to the peer by these lines, in proportion to what they carry."""
    hops: list[str] = []
    for number in numbers:
        weight = max(1, round(lined.lines[number].mbits / 10))
        hops += ["nexthop", "via", lined.gateway(number), "dev", lined.device(number), "weight", str(weight)]
    lined.host.ip("route", "replace", f"{peer}/32", *hops)


def bare(case: Case, pace: Pace) -> Iterator[tuple[str, Figures]]:
    """The rows without re6st."""
    with Bed() as bed:
        peer = bed.host("peer")
        lined = LinedHost(bed, "machine", case.lines, [peer])
        host = lined.host
        host.namespace.sysctl({"net/ipv4/fib_multipath_hash_policy": 1})
        for number in range(len(case.lines)):
            table = str(100 + number)
            way = ("via", lined.gateway(number), "dev", lined.device(number))
            host.ip("route", "add", "default", *way, "table", table)
            host.ip("rule", "add", "from", lined.address(number), "lookup", table)
        measured = Measured(lined, peer, peer.address, pace)
        alone = []
        for number in range(len(case.lines)):
            lead_by(lined, peer.address, [number])
            alone.append(measured.alone())
        lead_by(lined, peer.address, range(len(case.lines)))
        figures: Figures = {"alone": alone, "many": measured.mbits(MANY), "one": measured.mbits(1)}
        yield "multipath routes", figures | {"death": measured.death(case.first)}
        for each in (host, peer):
            each.run(["ip", "mptcp", "limits", "set", "subflow", SUBFLOWS, "add_addr_accepted", SUBFLOWS])
        for number in range(len(case.lines)):
            words = [lined.address(number), "dev", lined.device(number), "subflow"]
            host.run(["ip", "mptcp", "endpoint", "add", *words])
        lead_by(lined, peer.address, [case.first])
        yield "MPTCP", {"alone": alone, "mptcp": measured.mbits(1, mptcp=True)}


# --- re6st ---


@contextmanager
def network(case: Case, numbers: Sequence[int], carrier: Sequence[str], options: Sequence[str]) -> Iterator[Any]:
    """A network, of whose last node only these lines are used."""
    with Bed() as bed:
        members = [bed.host(f"node{number}", ipv6=False) for number in range(1, PEERS + 1)]
        lined = LinedHost(bed, "machine", case.lines, members)
        made = Network(bed, hosts=[*members, lined.host], node_options=[*carrier, "--mptcp"])
        node = made.nodes[-1]
        node.options = [*carrier, "--ip", "any", "--mptcp", *options]
        for number in numbers:
            node.options += ["--uplink", lined.option(number)]
        made.create()
        made.enrol()
        for other in made.nodes[:-1]:
            other.start()
        made.wait_connected(FORMS, made.nodes[:-1])
        node.start()
        made.wait_connected(FORMS)
        if carrier:
            wait_until(lambda: all_are_links(*made.nodes), FORMS, "WireGuard carries all tunnels", bed.tails)
        time.sleep(SETTLES)
        yield lined, made


def ours(case: Case, pace: Pace, name: str, carrier: Sequence[str], options: Sequence[str]) -> tuple[str, Figures]:
    """A row of re6st."""
    alone = []
    for number in range(len(case.lines)):
        with network(case, [number], carrier, ()) as (lined, made):
            peer = made.nodes[1]
            measured = Measured(lined, peer.host, str(peer.address), pace)
            alone.append(measured.alone())
    with network(case, range(len(case.lines)), carrier, options) as (lined, made):
        peer = made.nodes[1]
        measured = Measured(lined, peer.host, str(peer.address), pace)
        figures: Figures = {"alone": alone, "many": measured.mbits(MANY), "one": measured.mbits(1)}
        figures["mptcp"] = measured.mbits(1, mptcp=True)
        figures["death"] = measured.death(case.first)
    return name, figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: 1 where a row failed."""
    parser = argparse.ArgumentParser(
        prog="./run bench uplinks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="of each measure (default: 10)")
    parser.add_argument("--case", action="append", default=[], metavar="WORD", help="only cases named so")
    parser.add_argument("--row", action="append", default=[], metavar="WORD", help="only rows named so")
    parser.add_argument("--quick", action="store_true", help="shorter measures, of the first case alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/uplinks.json)")
    options = parser.parse_args(arguments)
    pace = Pace(5.0, 10.0) if options.quick else Pace(options.seconds, options.seconds + 5)
    cases = [case for case in CASES if not options.case or any(word in case.name for word in options.case)]
    found: dict[str, dict[str, Figures]] = {}
    failed = False
    for case in cases[:1] if options.quick else cases:
        rows = found.setdefault(case.name, {})
        say(f"--- {case.name}")
        try:
            for name, figures in rows_of(case, pace, options.row):
                rows[name] = figures
                say(f"{name}: {figures}")
        except (AssertionError, BedError) as error:
            failed = True
            print(f"bench uplinks: {case.name}: {error}", file=sys.stderr)
    judged = marks(found)
    for mark in judged:
        say(f"{mark['case']}, {mark['row']}, {mark['what']}: {mark['is']} of {mark['wanted']}")
    keep("uplinks", {"seconds": pace.seconds, "cases": found, "marks": judged}, options.json)
    return int(failed)


def rows_of(case: Case, pace: Pace, words: Sequence[str]) -> Iterator[tuple[str, Figures]]:
    """All rows of a case, or those with one of these words in the name."""

    def chosen(name: str) -> bool:
        return not words or any(word in name for word in words)

    if chosen("multipath routes") or chosen("MPTCP"):
        yield from bare(case, pace)
    if chosen("re6st, WireGuard"):
        yield ours(case, pace, "re6st, WireGuard", WITH_WIREGUARD, ())
    if chosen("re6st, OpenVPN"):
        yield ours(case, pace, "re6st, OpenVPN", (), ())


if __name__ == "__main__":
    sys.exit(main())
