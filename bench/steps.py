"""Where the time goes while a node joins: the median of each step of a start beside two nodes that run.

The steps are those of bench/support/join_steps.py: the node's log tells them, and the babelds of all three nodes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.support import join_steps
from bench.support.results import keep, say
from testbed import Bed, Network
from testbed.pings import wait_answers

LIMIT = 180
"""Seconds after which a run has failed."""
STEADY = 1.0
"""Seconds that babelds are listened to before a node begins: what they tell then is no step of it."""


def steps(bed: Bed, registry_options: Sequence[str]) -> dict[str, float]:
    """When each step of one start is done, in seconds after its beginning."""
    network = Network(bed, 3, registry_options=registry_options)
    network.create()
    network.enrol()
    *others, newcomer = network.nodes
    for node in others:
        node.start()
    network.wait_connected(LIMIT, others)
    with join_steps.listening(network.nodes) as (*theirs, ours):
        time.sleep(STEADY)
        began = time.time()
        newcomer.start(*join_steps.LOUD)
        wait_answers([(newcomer.host, node.address) for node in others], LIMIT)
        answered = time.time()
    return join_steps.moments(began, join_steps.logged(newcomer), ours, theirs, answered)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs (default: 10)")
    parser.add_argument("--quick", action="store_true", help="3 runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/steps.json)")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    done: dict[str, list[int]] = {}
    took: dict[str, list[int]] = {}
    for _ in range(3 if options.quick else options.runs):
        with Bed() as bed:
            found = steps(bed, options.registry_option)
        for kept, seconds in ((done, found), (took, join_steps.durations(found))):
            for name, value in seconds.items():
                kept.setdefault(name, []).append(round(1000 * value))
    for name in done:
        say(f"{name:<55} {statistics.median(took[name]):6.0f} ms   done after {statistics.median(done[name]):6.0f} ms")
    keep("steps", {"registry_options": options.registry_option, "done_ms": done, "took_ms": took}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
