"""How fast a node joins: from the start of its program to its first pings through the mesh, to every other node.

Three nodes with default settings; each measure is the median of several runs, each on a bed of its own:

- cold: all three are started at once, in a network that does not exist yet; until every pair answers;
- join: a node that remembers nothing is started beside two that run;
- cache: one that was in the network before comes back while the registry and its node are down, beside two others;
- yggdrasil, tinc: the same as join, in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.support.debian import UnavailableError
from bench.support.others import KINDS, Tinc, Yggdrasil
from bench.support.results import keep, say
from testbed import Bed, Network
from testbed.pings import Pair, wait_answers

LIMIT = 180
"""Seconds after which a run has failed."""
REMEMBERS = 5.0
"""Seconds that a node is in the network before it is to remember it."""


def _prepared(bed: Bed, registry_options: Sequence[str], nodes: int = 3) -> tuple[Network, list[Pair]]:
    """A network with certificates, and its pairs of nodes."""
    network = Network(bed, nodes, registry_options=registry_options)
    network.create()
    network.enrol()
    return network, [(a.host, b.address) for a in network.nodes for b in network.nodes if a is not b]


def cold(bed: Bed, registry_options: Sequence[str]) -> float:
    """All nodes start at once."""
    network, pairs = _prepared(bed, registry_options)
    began = time.monotonic()
    for node in network.nodes:
        node.start()
    wait_answers(pairs, LIMIT)
    return time.monotonic() - began


def join(bed: Bed, registry_options: Sequence[str]) -> float:
    """One node starts beside two that run."""
    network, pairs = _prepared(bed, registry_options)
    *others, newcomer = network.nodes
    for node in others:
        node.start()
    network.wait_connected(LIMIT, others)
    began = time.monotonic()
    newcomer.start()
    wait_answers([pair for pair in pairs if pair[0] is newcomer.host], LIMIT)
    return time.monotonic() - began


def cache(bed: Bed, registry_options: Sequence[str]) -> float:
    """One node comes back beside two others, without registry."""
    network, pairs = _prepared(bed, registry_options, 4)
    first, *others, node = network.nodes
    for each in network.nodes:
        each.start()
    wait_answers(pairs, LIMIT)
    time.sleep(REMEMBERS)
    node.stop()
    first.stop()
    network.stop_registry()
    first.host.cut()
    time.sleep(REMEMBERS)
    began = time.monotonic()
    node.start()
    wait_answers([(node.host, other.address) for other in others], LIMIT)
    return time.monotonic() - began


def other(kind: type[Yggdrasil | Tinc]) -> Callable[[Bed, Sequence[str]], float]:
    """The same as `join` with another program. Raises UnavailableError."""

    def run(bed: Bed, _: Sequence[str]) -> float:
        first, second, newcomer = (bed.host(f"node{number}") for number in (1, 2, 3))
        mesh = kind({first: (), second: (first,), newcomer: (first,)})
        for host in (first, second):
            mesh.start(host)
        wait_answers([(first, mesh.addresses[second]), (second, mesh.addresses[first])], LIMIT)
        began = time.monotonic()
        mesh.start(newcomer)
        wait_answers([(newcomer, mesh.addresses[host]) for host in (first, second)], LIMIT)
        return time.monotonic() - began

    return run


MEASURES: dict[str, Callable[[Bed, Sequence[str]], float]] = {
    "cold": cold,
    "join": join,
    "cache": cache,
    **{kind.name: other(kind) for kind in KINDS},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs of each measure (default: 10)")
    parser.add_argument("--parts", nargs="+", choices=MEASURES, default=list(MEASURES), help="only these measures")
    parser.add_argument("--quick", action="store_true", help="3 runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/join.json)")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    runs = 3 if options.quick else options.runs
    measures: dict[str, Any] = {}
    for name in options.parts:
        seconds = []
        try:
            for _ in range(runs):
                with Bed() as bed:
                    seconds.append(round(MEASURES[name](bed, options.registry_option), 2))
        except UnavailableError as error:
            say(f"no {name}: {error}")
            continue
        measures[name] = {"median_s": round(statistics.median(seconds), 2), "runs_s": sorted(seconds)}
        say(f"{name:<10} median {statistics.median(seconds):6.2f} s   of {sorted(seconds)}")
    keep("join", {"registry_options": options.registry_option, "measures": measures}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
