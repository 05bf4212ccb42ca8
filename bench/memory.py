"""What memory all processes of a node take that has ten tunnels, by OpenVPN and by WireGuard.

One node opens a tunnel to each of ten others, and is left alone for a while; then each of its processes is asked. RSS
is what `ps` shows: it counts what processes share once for each. Pss divides that among those that share it.

The kernel's WireGuard, where this machine has none, under the emulated kernel, with few tunnels, since that is slow:

    ./run emulated --timeout 3000 .venv/bin/python -m bench.memory --carriers wireguard --tunnels 2

It has no processes; the memory of the kernel itself is not counted.
"""

from __future__ import annotations

import argparse
import compileall
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.support import tunnel_carriers
from bench.support.debian import UnavailableError
from bench.support.results import keep, say
from re6st.core.tunnel_protocols import TunnelCarrier
from testbed import Bed, Network, Node, emulated_kernel, wait_until
from testbed.links import has_only_links, kernel_has_wireguard, tunnels
from testbed.network import ROOT

TUNNELS = 10
FORMS = 180.0
SETTLES = 30.0
SPARE = 2
"""Nodes more than tunnels: one that dialled us is not dialled by us."""
SLOWER = 10.0
"""So much longer everything may take, and is left alone, under the emulated kernel."""

Figures = dict[str, Any]


def measure(count: int, carrier: TunnelCarrier) -> Figures:
    """A node with so many tunnels, by program. Raises UnavailableError, AssertionError, BedError."""
    pace = SLOWER if emulated_kernel.inside() else 1.0
    with Bed() as bed:
        # Others have one tunnel of their own, which keeps them together; the last one has the rest.
        registry_options = ["--client-count", "1", "--max-clients", str(count + 1)]
        options = tunnel_carriers.node_options(carrier)
        network = Network(bed, count + SPARE + 1, registry_options=registry_options, node_options=options)
        tunnel_carriers.need(carrier, network.registry_host)
        network.create()
        network.enrol()
        *others, node = network.nodes
        for each in others:
            each.start()
        for each in others[:count]:
            node.options += ["--neighbour", each.prefix.cn]
        network.wait_connected(pace * FORMS, others)
        node.options += ["--client-count", str(count)]
        node.start()

        def directions() -> list[str]:
            return [each["direction"] for each in tunnels(node) if each["state"] == "up"]

        def has_all() -> bool:
            network.check_alive()
            return directions().count("out") == count and (carrier is TunnelCarrier.OPENVPN or has_only_links(node))

        wait_until(has_all, pace * FORMS, f"{count} tunnels by {carrier}", bed.tails)
        time.sleep(pace * SETTLES)
        if not has_all():
            raise AssertionError(f"{node.name} does not have {count} tunnels any more")
        by = "" if carrier is TunnelCarrier.OPENVPN else "kernel" if kernel_has_wireguard(node.host) else "wireguard-go"
        served = directions().count("in")
        return {"tunnels": count, "served": served, "implementation": by, "programs": programs(node)}


def programs(node: Node) -> Figures:
    """What the processes of a node take, in MB, by program."""
    found: Figures = {}
    for pid, words in node.host.processes().items():
        name = "re6stnet" if node.process is not None and pid == node.process.pid else Path(words[0]).name
        rss, pss = memory(pid)
        of = found.setdefault(name, {"processes": 0, "rss_mb": 0.0, "pss_mb": 0.0})
        of["processes"] += 1
        of["rss_mb"] = round(of["rss_mb"] + rss, 1)
        of["pss_mb"] = round(of["pss_mb"] + pss, 1)
    return found


def memory(pid: int) -> tuple[float, float]:
    """RSS and Pss of a process, in MB. Raises OSError."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    return int(found["Rss"]) / 1024, int(found["Pss"]) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tunnels", type=int, default=TUNNELS, metavar="N", help=f"how many (default: {TUNNELS})")
    tunnel_carriers.add_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: docs/bench/memory.json)")
    options = parser.parse_args(arguments)
    # As where it is installed: a program that compiles its modules while it starts keeps some megabytes more.
    compileall.compile_dir(ROOT / "re6st", quiet=1)
    found: Figures = {}
    for carrier in tunnel_carriers.chosen(options):
        try:
            figures = found[str(carrier)] = measure(options.tunnels, carrier)
        except UnavailableError as error:
            say(f"not {carrier}: {error}")
            continue
        say(f"{options.tunnels} tunnels by {carrier} {figures['implementation']}".rstrip())
        for name, of in figures["programs"].items():
            say(f"  {of['processes']:3} {name:<14} {of['rss_mb']:7.1f} MB RSS {of['pss_mb']:7.1f} MB Pss")
        total = {key: sum(of[key] for of in figures["programs"].values()) for key in ("rss_mb", "pss_mb")}
        say(f"      {'all':<14} {total['rss_mb']:7.1f} MB RSS {total['pss_mb']:7.1f} MB Pss")
    keep("memory", {"carriers": found}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
