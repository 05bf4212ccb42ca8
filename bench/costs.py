"""What a node costs while nothing happens: memory, processor time, and traffic of its tunnels.

A few nodes with default settings form a network; later a helper babeld, a neighbour of the first node on a segment,
announces routes to it, as the nodes of a large network would: 1,000, then more. Everything is measured without them and
with each number of them, for the nodes that have them through tunnels, once their babelds repeat routes as rarely as
they do in a network of that size (some minutes later). Traffic is what one end sends and receives together, inside (at
the TAP) and outside (at the uplink, with OpenVPN's and TCP's own).
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
from typing import Any

from bench.support.results import keep, say
from re6st.core.routing.babel_settings import outgrown
from testbed import Bed, Host, Network, Node, wait_until
from testbed.network import ROOT
from testbed.routes import announce, destinations

ROUTES = (1000, 5000, 10_000)
FORMS = 120
LEARNS, CALMS = 300, 420
"""babel is given the settings of a larger network one to three minutes after it has grown, and not by all at once."""
TOO_SLOW = "closed its socket, which this node read too slowly"
SETTLES = 30.0
"""Seconds that a network is left alone before it is looked at."""
PROGRAMS = ("openvpn", "babeld")
LAN = "lan"
TAP = re.compile(r"re6stnet.*")

Figures = dict[str, float]


@dataclass(frozen=True)
class Reading:
    """Counters of a node at one time."""

    when: float
    ticks: dict[int, tuple[str, int]]
    """Processor time of the daemon and of its children, by process, with the program of each."""
    tunnels: int
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


def read(network: Network, node: Node) -> Reading:
    assert node.process is not None
    of_programs = {pid: (name, ticks(pid)) for name in PROGRAMS for pid in node.pids(name)}
    of_all = {node.process.pid: ("daemon", ticks(node.process.pid)), **of_programs}
    found = traffic(node.host)
    inside = sum(count for name, count in found.items() if TAP.fullmatch(name))
    return Reading(time.monotonic(), of_all, tunnels_of(network, node), inside, found["eth0"])


def tunnels_of(network: Network, node: Node) -> int:
    return sum(node in (tunnel.client, tunnel.server) for tunnel in network.tunnels())


def figures(node: Node, began: Reading, ended: Reading) -> Figures:
    """What a node cost between two readings. A process that ended meanwhile does not count."""
    assert node.process is not None
    seconds = ended.when - began.when
    hertz = os.sysconf("SC_CLK_TCK")
    rss, own = memory(node.process.pid)
    result: Figures = {"rss_kib": rss, "private_kib": own}
    for name in PROGRAMS:
        result[f"{name}_rss_kib"] = sum(memory(pid)[0] for pid in node.pids(name))
    spent = dict.fromkeys(("daemon", *PROGRAMS), 0)
    for pid, (name, after) in ended.ticks.items():
        spent[name] += after - began.ticks.get(pid, (name, 0))[1]
    for name, count in spent.items():
        result[f"{name}_cpu_percent"] = round(count / hertz / seconds * 100, 3)
    result["tunnels"] = tunnels = (began.tunnels + ended.tunnels) / 2
    for name, count in (("inside", ended.inside - began.inside), ("outside", ended.outside - began.outside)):
        result[f"{name}_bytes_per_s_and_tunnel"] = round(count / seconds / max(1, tunnels), 1)
    return result


def watch(network: Network, nodes: Sequence[Node], seconds: float) -> dict[str, Figures]:
    """The figures of each node, once it is quiet."""
    time.sleep(SETTLES)
    began = [read(network, node) for node in nodes]
    time.sleep(seconds)
    ended = [read(network, node) for node in nodes]
    network.check_alive()
    return {node.name: figures(node, a, b) for node, a, b in zip(nodes, began, ended, strict=True)}


def is_calm(node: Node, routes: int) -> bool:
    """Whether its babeld repeats routes as rarely as it is to do with so many."""
    try:
        text = (node.host.run_directory / "babeld.conf").read_text()
    except OSError:  # written anew
        return False
    update = re.search(r"^default .*update-interval ([0-9.]+)", text, re.MULTILINE)
    return update is not None and not outgrown(float(update[1]), routes)


def measure(count: int, steps: Sequence[int], seconds: float, registry_options: Sequence[str]) -> list[dict[str, Any]]:
    """One network without routes from elsewhere, then with so many of them. It ends with the first that is too many."""
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
        found: list[dict[str, Any]] = [told({"routes": 0, "nodes": watch(network, nodes, seconds)})]
        announced = 0
        for routes in steps:
            say(f"{routes} routes")
            began = time.monotonic()
            announce(helper, entrance, LAN, routes, announced)
            announced = routes

            def are_known(routes: int = routes) -> bool:
                return all(destinations(node) > routes for node in nodes)

            def all_is_calm(routes: int = routes) -> bool:
                return all(is_calm(node, routes) for node in network.nodes) and are_known()

            try:
                wait_until(are_known, LEARNS, "every node has the routes", bed.tails)
                learned = time.monotonic() - began
                say(f"every node has them after {learned:.0f} s")
                wait_until(all_is_calm, CALMS, "every babeld repeats them rarely", bed.tails)
                figures_of = watch(network, nodes, seconds)
                if not are_known():
                    raise AssertionError(f"some nodes have lost routes\n{bed.tails()}")
                network.wait_connected(FORMS)
            except AssertionError as error:
                say(f"{routes} routes are too many: {error}")
                found.append({"routes": routes, "failed": str(error).splitlines()[0]})
                break
            slow = sum((node.host.log / "re6stnet.log").read_text().count(TOO_SLOW) for node in network.nodes)
            found.append(
                told({"routes": routes, "learned_s": round(learned, 1), "too_slow": slow, "nodes": figures_of})
            )
        return found


def told(step: dict[str, Any]) -> dict[str, Any]:
    """One step with the median of its nodes, which is also said."""
    each = step["nodes"]
    names = next(iter(each.values()))
    median = {name: statistics.median(of[name] for of in each.values()) for name in names}
    say(f"{step['routes']} routes:")
    for name, value in median.items():
        say(f"  {name:<46} {value:10.2f}")
    return {**step, "median": median}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="./run bench costs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4, metavar="N", help="how many (default: 4)")
    parser.add_argument(
        "--routes",
        type=int,
        nargs="+",
        default=ROUTES,
        metavar="N",
        help=f"that are announced, one number after another (default: {' '.join(map(str, ROUTES))})",
    )
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of each measure (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/costs.json)")
    parser.add_argument("--registry-option", action="append", default=[], metavar="OPTION", help="e.g. --encrypt")
    options = parser.parse_args(arguments)
    measured = measure(options.nodes, options.routes, options.seconds, options.registry_option)
    settings = {"nodes": options.nodes, "seconds": options.seconds, "registry_options": options.registry_option}
    keep("costs", {**settings, "steps": measured}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
