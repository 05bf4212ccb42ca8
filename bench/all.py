"""Every measurement but the registry's and the soak, one after the other; then plots and tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench import failover, join, planned, report, scale
from bench.support.results import say

PARTS = {"join": join.main, "failover": failover.main, "planned": planned.main, "scale": scale.main}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: that of the first part that failed, or 0. The others are measured all the same."""
    parser = argparse.ArgumentParser(prog="./run bench all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: less than an hour")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these")
    options = parser.parse_args(arguments)
    statuses = []
    for name in options.parts:
        say(f"--- {name}")
        try:
            statuses.append(PARTS[name](["--quick"] if options.quick else []))
        except AssertionError as error:
            print(f"bench {name}: {error}", file=sys.stderr)
            statuses.append(1)
    statuses.append(report.main([]))
    return next(filter(None, statuses), 0)


if __name__ == "__main__":
    sys.exit(main())
