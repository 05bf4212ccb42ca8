"""Ends and starts one node of a busy network again and again, at random moments and in every way, on a machine that
others disturb.

    python -m tests.stress.restart_node [--seconds 600] [--seed N]

Each node tells of eight endpoints: IPv4 and IPv6, UDP and TCP, half of them dead. A supervisor starts the node again
whenever it has ended, as systemd does. After each round it must be back: it answers others and its operator. Prints
what it did as one line of JSON, and every problem found; the status is 1 if there is one. Needs root.
"""

from __future__ import annotations

import argparse
import sys
from random import randrange

from testbed import Bed
from tests.stress.restart_damages import DAMAGES
from tests.stress.restart_disturbances import DISTURBANCES
from tests.stress.restart_ends import ENDS
from tests.stress.restart_trial import Acts, Trial

ACTS = Acts(DISTURBANCES, ENDS, DAMAGES)


def main() -> int:
    """The program; returns the exit status."""
    p = argparse.ArgumentParser(prog="python -m tests.stress.restart_node", description=__doc__)
    p.add_argument("--seconds", type=float, default=600.0)
    p.add_argument("--seed", type=int, default=randrange(1 << 32))
    args = p.parse_args()
    print(f"seed {args.seed}", file=sys.stderr, flush=True)
    with Bed() as bed:
        report = Trial(bed, args.seed, ACTS).run(args.seconds)
        print(report.text())
        for problem in report.problems:
            print(problem)
        if report.problems:
            print(bed.tails(40))
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
