"""How fast a node joins: from the start of its program to its first pings through the mesh, to every other node.

Three nodes with default settings; each measure is the median of several runs, each on a bed of its own:

- cold: all three are started at once, in a network that does not exist yet; until every pair answers;
- join: a node that remembers nothing is started beside two that run;
- cache: one that was in the network before comes back while the registry and its node are down, beside two others;
- yggdrasil, tinc: the same as join, in the same run.

Where nodes may have WireGuard, the first three are measured again with nodes that have it: first answers come by
OpenVPN, whose tunnels are replaced by links when they have been up for a while. So there is one measure more:

- links: as join, until WireGuard alone carries all tunnels of the new node.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.support import tunnel_carriers
from bench.support.debian import UnavailableError
from bench.support.others import KINDS, Tinc, Yggdrasil
from bench.support.results import keep, say
from re6st.core.tunnel_protocols import TunnelCarrier
from testbed import Bed, Network, wait_until
from testbed.links import carriers, wait_links
from testbed.pings import Pair, wait_answers

LIMIT = 180
"""Seconds after which a run has failed."""
REMEMBERS = 5.0
"""Seconds that a node is in the network before it is to remember it."""


@dataclass(frozen=True)
class Setup:
    """What all networks of a measure have."""

    registry_options: Sequence[str] = ()
    carrier: TunnelCarrier = TunnelCarrier.OPENVPN


Measure = Callable[[Bed, Setup], float]


def _prepared(bed: Bed, setup: Setup, nodes: int = 3) -> tuple[Network, list[Pair]]:
    """A network with certificates, and its pairs of nodes. Raises UnavailableError."""
    options = tunnel_carriers.node_options(setup.carrier)
    network = Network(bed, nodes, registry_options=setup.registry_options, node_options=options)
    tunnel_carriers.need(setup.carrier, network.registry_host)
    network.create()
    network.enrol()
    return network, [(a.host, b.address) for a in network.nodes for b in network.nodes if a is not b]


def cold(bed: Bed, setup: Setup) -> float:
    """All nodes start at once."""
    network, pairs = _prepared(bed, setup)
    began = time.monotonic()
    for node in network.nodes:
        node.start()
    wait_answers(pairs, LIMIT)
    return time.monotonic() - began


def join(bed: Bed, setup: Setup) -> float:
    """One node starts beside two that run."""
    network, pairs, began = _joining(bed, setup)
    newcomer = network.nodes[-1].host
    wait_answers([pair for pair in pairs if pair[0] is newcomer], LIMIT)
    return time.monotonic() - began


def links(bed: Bed, setup: Setup) -> float:
    """The same, until it has a tunnel with both, and WireGuard alone carries them."""
    network, _, began = _joining(bed, setup)
    *others, newcomer = network.nodes
    wait_until(lambda: len(carriers(newcomer)) >= len(others), LIMIT, "the new node has its tunnels", bed.tails)
    wait_links(network, LIMIT, [newcomer])
    return time.monotonic() - began


def _joining(bed: Bed, setup: Setup) -> tuple[Network, list[Pair], float]:
    """Two nodes run, a third one was just started."""
    network, pairs = _prepared(bed, setup)
    *others, newcomer = network.nodes
    for node in others:
        node.start()
    network.wait_connected(LIMIT, others)
    if setup.carrier is TunnelCarrier.WIREGUARD:
        wait_links(network, LIMIT, others)
    began = time.monotonic()
    newcomer.start()
    return network, pairs, began


def cache(bed: Bed, setup: Setup) -> float:
    """One node comes back beside two others, without registry."""
    network, pairs = _prepared(bed, setup, 4)
    first, *others, node = network.nodes
    for each in network.nodes:
        each.start()
    wait_answers(pairs, LIMIT)
    if setup.carrier is TunnelCarrier.WIREGUARD:
        wait_links(network, LIMIT)
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


def other(kind: type[Yggdrasil | Tinc]) -> Measure:
    """The same as `join` with another program. Raises UnavailableError."""

    def run(bed: Bed, _: Setup) -> float:
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


OURS: dict[str, Measure] = {"cold": cold, "join": join, "cache": cache}
LINKS = "links"
OTHERS: dict[str, Measure] = {kind.name: other(kind) for kind in KINDS}


def rows(parts: Sequence[str], chosen: Sequence[TunnelCarrier]) -> dict[str, tuple[Measure, TunnelCarrier]]:
    """The measures in turn, by their names in the figures."""
    found: dict[str, tuple[Measure, TunnelCarrier]] = {}
    for carrier in chosen:
        found |= {tunnel_carriers.row(name, carrier): (OURS[name], carrier) for name in OURS if name in parts}
    if LINKS in parts and TunnelCarrier.WIREGUARD in chosen:
        found[LINKS] = links, TunnelCarrier.WIREGUARD
    return found | {name: (OTHERS[name], TunnelCarrier.OPENVPN) for name in OTHERS if name in parts}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs of each measure (default: 10)")
    parts = [*OURS, LINKS, *OTHERS]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="only these measures")
    tunnel_carriers.add_option(parser)
    parser.add_argument("--quick", action="store_true", help="3 runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/join.json)")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    runs = 3 if options.quick else options.runs
    measures: dict[str, Any] = {}
    for name, (measure, carrier) in rows(options.parts, tunnel_carriers.chosen(options)).items():
        seconds = []
        setup = Setup(options.registry_option, carrier)
        try:
            for _ in range(runs):
                with Bed() as bed:
                    seconds.append(round(measure(bed, setup), 2))
        except UnavailableError as error:
            say(f"no {name}: {error}")
            continue
        measures[name] = {"median_s": round(statistics.median(seconds), 2), "runs_s": sorted(seconds)}
        say(f"{name:<22} median {statistics.median(seconds):6.2f} s   of {sorted(seconds)}")
    keep("join", {"registry_options": options.registry_option, "measures": measures}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
