"""How fast a node joins: from its start to its first ping through the mesh.

Three nodes with default settings. Two measures, each the median of several runs:

- cold: all three are started at once, in a network that does not exist yet; until every pair answers.
- join: a node is started beside two that run already, and remembers nothing; until both answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed import Bed, Network

LIMIT = 180
"""Seconds after which a run has failed."""


def measure(run: Callable[[Network], float], registry_options: Sequence[str]) -> float:
    """One run, on a bed of its own, in seconds."""
    with Bed() as bed:
        network = Network(bed, 3, registry_options=registry_options)
        network.create()
        network.enrol()
        return run(network)


def cold(network: Network) -> float:
    """All nodes start at once."""
    began = time.monotonic()
    for node in network.nodes:
        node.start()
    network.wait_connected(LIMIT)
    return time.monotonic() - began


def join(network: Network) -> float:
    """One node starts beside two that run."""
    *others, newcomer = network.nodes
    for node in others:
        node.start()
    network.wait_connected(LIMIT, others)
    began = time.monotonic()
    newcomer.start()
    network.wait_connected(LIMIT)
    return time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="./run bench join", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each measure (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    results: dict[str, object] = {"nodes": 3, "registry_options": options.registry_option}
    for name, run in (("cold", cold), ("join", join)):
        seconds = sorted(round(measure(run, options.registry_option), 2) for _ in range(options.runs))
        results[name] = {"median_s": statistics.median(seconds), "runs_s": seconds}
        print(f"{name:<6} median {statistics.median(seconds):6.2f} s   of {seconds}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
