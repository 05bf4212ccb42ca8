"""Look for inputs that a parser does not stand: `./run fuzz [--seconds N] [TARGET ...]`.

Each target of targets.py runs in a process of its own, under Atheris (libFuzzer), which follows what the code does with
an input and changes those that reach something new. What reached something new is kept in build/fuzz/TARGET, so a later
run goes on there. Ends with status 1 if any input failed; it is in build/fuzz/found.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.fuzz.targets import TARGETS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a target."""

    inputs: int
    covered: int
    """Places in the code that some input reached."""
    failed: str
    """What libFuzzer said of an input that failed, or nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run fuzz", description="Fuzz the parsers of what others send.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at once (default: %(default)s)")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]!r}. There are: {', '.join(TARGETS)}")
    names = options.targets or list(TARGETS)
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = pool.map(lambda name: run(name, options.seconds), names)
        print(f"{'target':18}{'inputs':>12}{'covered':>9}  outcome", flush=True)
        failed = inputs = 0
        for name, outcome in zip(names, outcomes, strict=True):
            failed += bool(outcome.failed)
            inputs += outcome.inputs
            print(f"{name:18}{outcome.inputs:>12,}{outcome.covered:>9,}  {outcome.failed or 'ok'}", flush=True)
    print(f"{inputs:,} inputs, {failed} targets failed")
    return 1 if failed else 0


def run(name: str, seconds: int) -> Outcome:
    """Fuzz a target in a child process."""
    argv = [sys.executable, "-m", "tests.fuzz.child", name, str(seconds)]
    child = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    said = child.stdout
    inputs = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    covered = re.findall(r" cov: (\d+) ", said)
    failed = ""
    if child.returncode:
        error = re.search(r"=== Uncaught Python exception: ===\n(.*)", said) or re.search(
            r"ERROR: libFuzzer: (.*)", said
        )
        written = re.search(r"written to (\S+)", said)
        failed = f"{error[1] if error else said[-300:]} ({written[1] if written else 'no input kept'})"
    return Outcome(int(inputs[1]) if inputs else 0, int(covered[-1]) if covered else 0, failed)


if __name__ == "__main__":
    sys.exit(main())
