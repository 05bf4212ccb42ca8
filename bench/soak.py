"""Whether anything grows: a network whose tunnels come and go, and what its daemons hold over time.

Tunnels are replaced every few seconds, and now and then a random OpenVPN or babeld is killed. What each daemon holds
(memory, open files, tasks, children) and what its host has (links, lines of nftables) is read again and again; the
slope is that of a straight line through the second half, where caches are full.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from testbed import Bed, Network, Node
from testbed.control import ask

FORMS = 120
PROGRAMS = ("openvpn", "openvpn", "openvpn", "babeld")
"""What is killed, by weight."""
MEASURES = ("rss_kib", "descriptors", "tasks", "children", "links", "nft_lines", "log_kib")

Sample = dict[str, float]


def sample(node: Node) -> Sample | None:
    """What one node holds now; None while it does not answer."""
    assert node.process is not None
    proc = Path(f"/proc/{node.process.pid}")
    with contextlib.suppress(OSError):
        status = ask(node.host.run_directory / "control.sock", "status")
        rss = re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())
        assert rss
        return {
            "rss_kib": int(rss[1]),
            "descriptors": len(list((proc / "fd").iterdir())),
            "tasks": status["tasks"],
            "children": len(node.pids("openvpn")) + len(node.pids("babeld")),
            "links": len(node.host.interfaces()),
            "nft_lines": len(node.host.run(["nft", "list", "ruleset"]).stdout.splitlines()),
            "log_kib": (node.host.log / "re6stnet.log").stat().st_size / 1024,
        }
    return None


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Growth per hour over the second half."""
    half = len(times) // 2
    if len(times) - half < 2:
        return 0.0
    return statistics.linear_regression(times[half:], values[half:]).slope * 3600


def soak(network: Network, seconds: float, interval: float, kill_every: float) -> dict[str, list[Sample]]:
    """Let it run; the samples of each node, with their times."""
    chance = random.Random(42)
    samples: dict[str, list[Sample]] = {node.name: [] for node in network.nodes}
    began = time.monotonic()
    next_kill = began + kill_every
    while (now := time.monotonic()) < began + seconds:
        network.check_alive()
        if now >= next_kill:
            next_kill = now + kill_every
            victim = chance.choice(network.nodes)
            victim.signal(chance.choice(PROGRAMS))
        for node in network.nodes:
            if found := sample(node):
                samples[node.name].append({"time": now - began, **found})
        time.sleep(max(0.0, interval - (time.monotonic() - now)))
    return samples


def summary(samples: dict[str, list[Sample]]) -> dict[str, dict[str, dict[str, float]]]:
    """First, last, largest and slope of each measure of each node."""
    made: dict[str, dict[str, dict[str, float]]] = {}
    for name, series in samples.items():
        times = [each["time"] for each in series]
        made[name] = {}
        for measure in MEASURES if series else ():
            values = [each[measure] for each in series]
            made[name][measure] = {
                "first": values[0],
                "last": values[-1],
                "largest": max(values),
                "per_hour": round(slope(times, values), 2),
            }
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="./run bench soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="how long (default: 10)")
    parser.add_argument("--nodes", type=int, default=5, metavar="N", help="how many (default: 5)")
    parser.add_argument("--interval", type=float, default=10, metavar="S", help="seconds between samples (10)")
    parser.add_argument("--kill-every", type=float, default=20, metavar="S", help="seconds between kills (20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    with Bed() as bed:
        network = Network(bed, options.nodes, registry_options=["--client-count", "2", "--tunnel-refresh", "5"])
        network.start()
        network.wait_connected(FORMS)
        samples = soak(network, options.minutes * 60, options.interval, options.kill_every)
        network.wait_connected(FORMS)
        texts = [(node.host.log / "re6stnet.log").read_text(errors="replace") for node in network.nodes]
    made = summary(samples)
    happened = {
        "tunnels_up": sum(text.count(" is up, on ") for text in texts),
        "replaced": sum(text.count(": replaced") for text in texts),
        "programs_ended": sum(text.count(" ended (") for text in texts),
        "tracebacks": sum(text.count("Traceback") for text in texts),
    }
    print(f"{options.nodes} nodes, {options.minutes:g} minutes: {happened}")
    print(f"{'node':<8} {'measure':<12} {'first':>9} {'last':>9} {'largest':>9} {'per hour':>10}")
    for name, measures in made.items():
        for measure, values in measures.items():
            figures = (values["first"], values["last"], values["largest"])
            print(f"{name:<8} {measure:<12}", *(f"{value:9.0f}" for value in figures), f"{values['per_hour']:10.1f}")
    if options.json:
        result = {"nodes": options.nodes, "minutes": options.minutes, "happened": happened, "slopes": made}
        series = {
            name: {m: [each[m] for each in all_of] for m in ("time", *MEASURES)} for name, all_of in samples.items()
        }
        options.json.write_text(json.dumps({**result, "samples": series}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
