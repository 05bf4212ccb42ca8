"""A network of forty nodes on one machine: until all reach all, what idle nodes cost, and what chaos does to them.

- form: all nodes are started at once, in a network that does not exist yet; until every pair answers;
- links: with --wireguard, until WireGuard carries nearly all tunnels whose ends both have it;
- idle: processor time, traffic and memory of each node while nothing happens;
- chaos: faults at random, from a seed; every pair that could talk must do so again within 10 seconds.

Everything runs on this one machine, so its processors are the bound: the load is told beside the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.support.results import keep, say
from re6st.core.tunnel_protocols import TunnelCarrier
from testbed import Bed, Network, Node
from testbed.chaos import FAULTS, WIREGUARD_FAULTS, Chaos, Report
from testbed.links import WITH_WIREGUARD, missing_wireguard, room_for_links, tunnels
from testbed.namespace import command
from testbed.watch import Watch

FORMS = 600
CLIENT_COUNT = 4
"""Tunnels that each node opens: with the registry's default of ten, forty nodes overload two processors with hellos for
many minutes, and never form."""
LINKS, LOOK = 300.0, 1.0
"""Seconds that links may take, and between two looks at them."""
NEARLY = 0.95
"""The share of them that is enough: tunnels come and go meanwhile."""
ALL, HALF, NONE = "all", "half", "none"
SETTLES = 200.0, 20.0
"""Seconds after all reach all, until what follows is called idle; and in a quick run. Nodes start babeld again one to
three minutes after the network has grown, as it has longer intervals in a larger one."""
AGAIN = 10.0
"""Seconds within which a pair that could talk must do so again."""
PINGS = 800
"""A second, of all pairs, in chaos: more of them, through two or three tunnels each, are a load of their own."""
SATURATED = 90
"""From this percentage on, packets wait for processors for seconds, and answers that came are too late."""
TOLD = 5
"""Nodes that are named of those that were out for longer."""
TICKS = os.sysconf("SC_CLK_TCK")

Figures = dict[str, Any]


def cost(node: Node) -> dict[str, tuple[float, float]]:
    """Processor seconds so far, and memory in MB, of each program of a node.

    Memory that several processes share is divided among them (Pss of proc(5)).
    """
    found: dict[str, tuple[float, float]] = {}
    for pid, words in node.host.processes().items():
        name = "re6stnet" if node.process is not None and pid == node.process.pid else Path(words[0]).name
        proc = Path("/proc", str(pid))
        try:
            times = (proc / "stat").read_text().rpartition(")")[2].split()
            pss = re.search(r"^Pss:\s+(\d+)", (proc / "smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue  # ended meanwhile
        cpu, memory = found.get(name, (0.0, 0.0))
        found[name] = cpu + (int(times[11]) + int(times[12])) / TICKS, memory + int(pss[1] if pss else 0) / 1024
    return found


def processors() -> tuple[float, float]:
    """Seconds that all processors of this machine together were busy, and were there, since it started (proc(5)).

    Those of programs of a lower priority (`nice`) are free: who needs them gets them.
    """
    words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, low, system, idle, waiting, *rest = (int(word) / TICKS for word in words)
    used = user + system + sum(rest)
    return used, used + low + idle + waiting


def busy(before: tuple[float, float]) -> int:
    """The percentage of all its time that this machine was busy since then; says so where it was the limit."""
    used, there = (now - then for now, then in zip(processors(), before, strict=True))
    percent = round(100 * used / there)
    if percent >= SATURATED:
        say(f"the processors were busy {percent}% of the time: this is a figure of the machine, not of the network")
    return percent


def traffic(node: Node) -> int:
    """Bytes that went out of and into a node's host so far."""
    port = node.host.ports["eth0"]
    shown = json.loads(command("ip", "-n", port.switch.full_name, "-s", "-j", "link", "show", "dev", port.name))
    return int(shown[0]["stats64"]["rx"]["bytes"] + shown[0]["stats64"]["tx"]["bytes"])


def form(network: Network) -> Figures:
    """Start all, and wait until every pair answers. Raises AssertionError."""
    network.create()
    say(f"enrolling {len(network.nodes)} nodes")
    network.enrol()
    began = time.monotonic()
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    seconds = time.monotonic() - began
    pairs = math.perm(len(network.nodes), 2)
    say(f"all {pairs} pairs answered after {seconds:.1f} s")
    return {"seconds": round(seconds, 1), "pairs": pairs}


def able(nodes: Sequence[Node], which: str) -> Sequence[Node]:
    """The nodes that are to have WireGuard."""
    return {ALL: nodes, HALF: nodes[::2], NONE: ()}[which]


def links(nodes: Sequence[Node]) -> Figures:
    """Wait until WireGuard carries nearly all tunnels between these nodes, for some minutes at most."""
    names = {node.prefix.cn for node in nodes}
    began = time.monotonic()
    while True:
        listed = [each for node in nodes for each in tunnels(node) if each["state"] == "up" and each["peer"] in names]
        carried = sum(each["carrier"] == TunnelCarrier.WIREGUARD for each in listed)
        seconds = time.monotonic() - began
        reached = carried >= NEARLY * len(listed) > 0
        if reached or seconds > LINKS:
            say(f"WireGuard carries {carried} of {len(listed)} ends of tunnels after {seconds:.1f} s more")
            return {
                "nodes": len(nodes),
                "reached": reached,
                "seconds": round(seconds, 1),
                "ends": len(listed),
                "by_wireguard": carried,
            }
        time.sleep(LOOK)


def idle(network: Network, settles: float, seconds: float) -> Figures:
    """What the nodes use while nothing happens."""
    say(f"idle: {settles + seconds:.0f} s")
    time.sleep(settles)
    before = [(cost(node), traffic(node)) for node in network.nodes]
    began, busy_before = time.monotonic(), processors()
    time.sleep(seconds)
    took = time.monotonic() - began
    share = busy(busy_before)
    after = [(cost(node), traffic(node)) for node in network.nodes]
    count = len(network.tunnels())
    figures: Figures = {"seconds": round(took, 1), "tunnels": count, "busy_percent": share}
    for name in ("re6stnet", "babeld", "openvpn", "wireguard-go"):
        used = [
            max(b.get(name, (0, 0))[0] - a.get(name, (0, 0))[0], 0) / took  # some may have ended meanwhile
            for (a, _), (b, _) in zip(before, after, strict=True)
        ]
        memory = [b.get(name, (0, 0))[1] for b, _ in after]
        figures[name] = {
            "cpu_percent": round(statistics.mean(used) * 100, 2),
            "cpu_percent_largest": round(max(used) * 100, 2),
            "memory_mb": round(statistics.mean(memory), 1),
            "memory_mb_largest": round(max(memory), 1),
        }
    sent = [(b - a) / took for (_, a), (_, b) in zip(before, after, strict=True)]
    figures["bytes_per_second"] = round(statistics.mean(sent))
    figures["bytes_per_second_and_tunnel_end"] = round(sum(sent) / (2 * count)) if count else None
    for name, values in figures.items():
        say(f"  {name}: {values}")
    return figures


def chaos(network: Network, seed: int, seconds: float, every: float, *, wireguard: bool) -> Report:
    """Faults at random for so long."""
    say(f"chaos: {seconds:.0f} s, seed {seed}")
    run = Chaos(network, seed, WIREGUARD_FAULTS if wireguard else FAULTS, every=every)
    run.said = say
    pairs = math.perm(len(network.nodes), 2)
    watch = Watch(network.nodes, pace=max(1.0, pairs / PINGS))
    with watch.running():
        time.sleep(2 * watch.pace)
        return run.run(watch, seconds, AGAIN + 5)


def told(report: Report) -> Figures:
    """What is kept of a report."""
    slow = [asdict(outage) for outage in report.outages if outage.seconds > AGAIN]
    longest = sorted(report.longest.items(), key=lambda item: -item[1])
    seconds: dict[str, list[float]] = {}
    for outage in report.outages:
        seconds.setdefault(outage.reason, []).append(outage.seconds)
    kinds = {
        reason: {
            "outages": len(seconds[reason]),
            "median_s": round(statistics.median(seconds[reason]), 2),
            "longest_s": value,
        }
        for reason, value in longest
    }
    say(f"faults: {report.faults}")
    for reason, found in kinds.items():
        figures = f"{found['outages']:5}, median {found['median_s']:6.2f} s, longest {found['longest_s']:6.2f} s"
        say(f"  {reason:<28} {figures}")
    say(f"{len(slow)} outages longer than {AGAIN:g} s; {len(report.failures)} nodes ended by themselves")
    ends = Counter(end for outage in slow for end in (outage["source"], outage["target"])).most_common(TOLD)
    if ends:
        say(f"  most of them from or to {', '.join(f'{name} ({count})' for name, count in ends)}")
    return {
        "seed": report.seed,
        "seconds": report.seconds,
        "faults": report.faults,
        "failures": report.failures,
        "watch_pause_s": report.watch_pause,
        "longer_than_10_s": sorted(slow, key=lambda outage: -outage["seconds"])[:100],
        "their_ends": dict(ends),
        "kinds": kinds,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: 1 if a pair that could talk did not for more than 10 seconds."""
    parser = argparse.ArgumentParser(
        prog="./run bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=40, metavar="N", help="how many (default: 40)")
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="of chaos; 0: none (default: 10)")
    parser.add_argument("--every", type=float, default=5, metavar="S", help="seconds between faults (default: 5)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the chaos (default: 1)")
    parser.add_argument(
        "--idle", type=float, default=60, metavar="S", help="seconds to look at idle nodes (default: 60)"
    )
    parser.add_argument(
        "--client-count",
        type=int,
        default=CLIENT_COUNT,
        metavar="N",
        help="tunnels that each node opens (default: 4; with the registry's default of ten, forty nodes overload two"
        " processors with hellos, and never form)",
    )
    parser.add_argument(
        "--wireguard",
        nargs="?",
        choices=(ALL, HALF),
        const=ALL,
        default=NONE,
        help="have WireGuard links, on all nodes or on every second one (default: none; without a word: all)",
    )
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of the nodes there")
    parser.add_argument("--quick", action="store_true", help="two minutes of chaos, 10 s idle")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="figures (default: docs/bench/scale.json, or scale-wireguard.json)"
    )
    options = parser.parse_args(arguments)
    registry_options = [f"--client-count={options.client_count}", *options.registry_option]
    results: Figures = {
        "nodes": options.nodes,
        "registry_options": registry_options,
        "wireguard": options.wireguard,
    }
    ends = options.nodes * options.client_count * 4 if options.wireguard != NONE else 0  # they come and go
    with Bed() as bed, room_for_links(ends):
        network = Network(bed, options.nodes, registry_options=registry_options)
        with_links = able(network.nodes, options.wireguard)
        if with_links and (lack := missing_wireguard(network.registry_host)):
            print(f"bench scale: {lack}", file=sys.stderr)
            return 1
        for node in with_links:
            node.options += WITH_WIREGUARD
        try:
            results["form"] = form(network)
            if with_links:
                results["links"] = links(with_links)
            if options.idle:
                results["idle"] = idle(network, SETTLES[options.quick], 10 if options.quick else options.idle)
            if options.minutes:
                minutes = min(options.minutes, 2) if options.quick else options.minutes
                before = processors()
                report = chaos(network, options.seed, minutes * 60, options.every, wireguard=bool(with_links))
                results["chaos"] = {"busy_percent": busy(before), **told(report)}
        finally:
            if options.logs:
                for node in network.nodes:
                    for name in ("re6stnet.log", "babeld.log"):
                        if (node.host.log / name).exists():
                            options.logs.mkdir(parents=True, exist_ok=True)
                            (options.logs / f"{node.name}-{name}").write_bytes((node.host.log / name).read_bytes())
    keep("scale-wireguard" if with_links else "scale", results, options.json)
    found = results.get("chaos", {})
    return int(bool(found.get("longer_than_10_s") or found.get("failures")))


if __name__ == "__main__":
    sys.exit(main())
