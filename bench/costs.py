"""What a node costs while nothing happens: memory, processor time, and traffic of its tunnels.

A few nodes with default settings form a network; later a helper babeld, a neighbour of the first node on a segment,
announces routes to it (1,000), as the nodes of a large network would. Everything is measured without them and with
them, for the nodes that have them through tunnels. Traffic is what one end sends and receives together, inside (at the
TAP) and outside (at the uplink, with OpenVPN's and TCP's own).
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import Bed, Host, Network, Node, wait_until
from testbed.network import ROOT
from testbed.routes import announce, destinations

FORMS = 120
SETTLES = 30.0
"""Seconds that a network is left alone before it is looked at."""
LAN = "lan"
TAP = re.compile(r"re6stnet.*")

Figures = dict[str, float]


@dataclass(frozen=True)
class Reading:
    """Counters of a node at one time."""

    when: float
    ticks: dict[str, int]
    """Processor time of the daemon and of its children, by program."""
    inside: int
    outside: int
    """Bytes, in both directions, of all its TAPs and of its uplink."""


def memory(pid: int) -> tuple[int, int]:
    """Resident set, and that part which no other process shares, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    return int(found["Rss"]), int(found["Private_Clean"]) + int(found["Private_Dirty"])


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def traffic(host: Host) -> dict[str, int]:
    """Bytes sent and received by each interface."""
    links = json.loads(host.ip("-json", "-statistics", "link"))
    return {link["ifname"]: link["stats64"]["rx"]["bytes"] + link["stats64"]["tx"]["bytes"] for link in links}


def read(node: Node) -> Reading:
    assert node.process is not None
    programs = {name: sum(map(ticks, node.pids(name))) for name in ("openvpn", "babeld")}
    found = traffic(node.host)
    inside = sum(count for name, count in found.items() if TAP.fullmatch(name))
    return Reading(time.monotonic(), {"daemon": ticks(node.process.pid), **programs}, inside, found["eth0"])


def tunnels_of(network: Network, node: Node) -> int:
    return sum(node in (tunnel.client, tunnel.server) for tunnel in network.tunnels())


def figures(network: Network, node: Node, began: Reading, ended: Reading) -> Figures:
    """What a node cost between two readings."""
    assert node.process is not None
    seconds = ended.when - began.when
    hertz = os.sysconf("SC_CLK_TCK")
    rss, own = memory(node.process.pid)
    result: Figures = {"rss_kib": rss, "private_kib": own}
    for name in ("openvpn", "babeld"):
        result[f"{name}_rss_kib"] = sum(memory(pid)[0] for pid in node.pids(name))
    for name, before in began.ticks.items():
        result[f"{name}_cpu_percent"] = round((ended.ticks[name] - before) / hertz / seconds * 100, 3)
    tunnels = tunnels_of(network, node)
    result["tunnels"] = tunnels
    for name, count in (("inside", ended.inside - began.inside), ("outside", ended.outside - began.outside)):
        result[f"{name}_bytes_per_s_and_tunnel"] = round(count / seconds / max(1, tunnels), 1)
    return result


def watch(network: Network, nodes: Sequence[Node], seconds: float) -> dict[str, Figures]:
    """The figures of each node, once it is quiet."""
    time.sleep(SETTLES)
    began = [read(node) for node in nodes]
    time.sleep(seconds)
    ended = [read(node) for node in nodes]
    network.check_alive()
    return {node.name: figures(network, node, a, b) for node, a, b in zip(nodes, began, ended, strict=True)}


def measure(count: int, routes: int, seconds: float, registry_options: Sequence[str]) -> dict[str, dict[str, Figures]]:
    """Both states of one network."""
    # As where it is installed: a program that compiles its modules while it starts keeps some megabytes more.
    compileall.compile_dir(ROOT / "re6st", quiet=1)
    with Bed() as bed:
        options = ["--client-count", "2", *registry_options]
        network = Network(bed, count, registry_options=options)
        entrance, *nodes = network.nodes
        helper = bed.host("helper")
        bed.segment(LAN, entrance.host, helper)
        entrance.options += ["-i", LAN]
        network.start()
        network.wait_connected(FORMS)
        few = watch(network, nodes, seconds)
        announce(helper, entrance, LAN, routes)

        def learned() -> bool:
            return all(destinations(node) > routes for node in nodes)

        wait_until(learned, FORMS, "every node has the routes", bed.tails)
        return {"few": few, "many": watch(network, nodes, seconds)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="./run bench costs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4, metavar="N", help="how many (default: 4)")
    parser.add_argument("--routes", type=int, default=1000, metavar="N", help="that are announced (default: 1000)")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of each measure (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    measured = measure(options.nodes, options.routes, options.seconds, options.registry_option)
    medians: dict[str, Figures] = {}
    for state, by_node in measured.items():
        names = next(iter(by_node.values()))
        medians[state] = {name: statistics.median(each[name] for each in by_node.values()) for name in names}
    print(f"{options.nodes} nodes, median of those with tunnels only   {'few':>10} {options.routes:>10}")
    for name, value in medians["few"].items():
        print(f"{name:<46} {value:10.2f} {medians['many'][name]:10.2f}")
    if options.json:
        settings = {"nodes": options.nodes, "routes": options.routes, "seconds": options.seconds}
        result = {**settings, "registry_options": options.registry_option, "median": medians, "nodes_each": measured}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
