"""Simulate a network of regions: python -m re6st.sim --nodes 1000 --regions 3 --scene deaths.

The table goes to the standard output, what happens meanwhile to the standard error, all figures to the file of --json.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from re6st.sim.hosts import Plan
from re6st.sim.scenes import ROOM, SCENES, Stage, form
from re6st.sim.world import World


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m re6st.sim", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="machines, the registry's among them (%(default)s)")
    parser.add_argument("--regions", type=int, default=3, metavar="BITS", help="bits of a region (%(default)s)")
    parser.add_argument(
        "--scene",
        nargs="*",
        choices=["start", *SCENES],
        default=["start"],
        help="what happens, one after the other; all start within a minute first",
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is left to chance (%(default)s)")
    parser.add_argument("--hidden", type=float, default=0.7, help="the part behind NAT (%(default)s)")
    parser.add_argument("--mixed", action="store_true", help="regions have machines from everywhere")
    parser.add_argument(
        "--forget", type=float, default=60.0, help="seconds that a dead client keeps its place (%(default)s)"
    )
    parser.add_argument("--news", type=float, default=3.0, help="seconds between news of a region (%(default)s)")
    parser.add_argument("--coarse", action="store_true", help="nodes do not watch what links cost: for large networks")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(arguments)
    gc.disable()  # so many objects that live long: looking at them again and again is most of the time
    plan = Plan(
        options.nodes,
        options.regions,
        options.seed,
        hidden=options.hidden,
        by_place=not options.mixed,
        spare=2.2 if ROOM & {*options.scene} else 1.0,
        forget=options.forget,
        news=options.news,
        watch=not options.coarse,
    )
    began = time.process_time()

    def say(text: str) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{time.process_time() - began:8.1f} s, {memory:6.0f} MB: {text}", file=sys.stderr, flush=True)

    stage = Stage(World(plan), say)
    scenes = {}
    for name, scene in [("start", form), *((name, SCENES[name]) for name in options.scene if name != "start")]:
        scene(stage)
        scenes[name] = stage.story.by_time
        if options.json is not None:  # also what is known so far of a run that does not end
            figures = {
                "nodes": plan.nodes,
                "regions": 1 << plan.region_length,
                "seed": plan.seed,
                "behind NAT": plan.hidden,
                "by place": plan.by_place,
                "processor seconds": round(time.process_time() - began, 1),
                "memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                **stage.story.figures,
                "pairs by seconds": scenes,
            }
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    width = max(map(len, stage.story.figures))
    for key, value in stage.story.figures.items():
        print(f"{key:{width}}  {value:,.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
