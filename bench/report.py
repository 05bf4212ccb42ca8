"""Draws the plots of docs/bench, and writes the tables of docs/performance.md anew, from the figures in docs/bench.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; what is around them is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.support import throughput_report, uplink_figures
from bench.support.results import DIRECTORY, ROOT, say
from bench.support.tables import table
from bench.support.tunnel_carriers import OVER_WIREGUARD

PAGE = ROOT / "docs" / "performance.md"
WIDTH = 7.0
"""Inches of a plot."""
OURS, THEIRS = "#2f6f9f", "#b0b0b0"
WANTED = 2.0
"""Seconds within which traffic is to be back."""

Figures = dict[str, Any]
Runs = dict[str, list[float]]


def load(name: str) -> Figures | None:
    """The figures of a benchmark; None where there are none."""
    path = DIRECTORY / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _of_runs(measures: dict[str, Figures], names: dict[str, str]) -> str:
    rows = []
    for name, found in measures.items():
        runs = found["runs_s"]
        figures = (f"{found['median_s']:.2f}", f"{min(runs):.2f}", f"{max(runs):.2f}", len(runs))
        rows.append((row_name(name, names), *figures))
    return table(("", "median, s", "best", "worst", "runs"), rows)


def row_name(name: str, names: dict[str, str]) -> str:
    """What the page calls a row: that of WireGuard as the same one of OpenVPN."""
    base = name.removesuffix(OVER_WIREGUARD)
    return names.get(base, base) + name.removeprefix(base)


JOIN = {
    "cold": "three nodes at once, a new network",
    "join": "a node beside two others",
    "cache": "the same from memory, no registry",
    "links": "a node beside two others, until all its tunnels are WireGuard links",
    "yggdrasil": "yggdrasil, a node beside two others",
    "tinc": "tinc, a node beside two others",
}


def join(results: Figures) -> str:
    return _of_runs(results["measures"], JOIN)


def steps(results: Figures) -> str:
    done, took = results["done_ms"], results["took_ms"]
    rows = [(name, f"{median(took[name]):.0f}", f"{median(done[name]):.0f}") for name in done]
    return table(("median of each step", "takes, ms", "done after, ms"), rows)


def failover(results: Figures) -> str:
    return _of_runs(results["cases"], {})


def planned(results: Figures) -> str:
    rows = []
    for name, runs in results["cases"].items():
        lost, sent = sum(run["lost"] for run in runs), sum(run["pings"] for run in runs)
        gap, stall = (max(run[key] for run in runs) for key in ("longest_gap_s", "stream_stall_s"))
        broken = ", broken" if any(run["stream_broken"] for run in runs) else ""
        rows.append((name, f"{lost} of {sent:,}", f"{gap:.2f}", f"{stall:.2f}{broken}"))
    return table(("", "pings lost", "longest gap, s", "TCP stall, s"), rows)


def scale(results: Figures) -> str:
    form, rows = results["form"], []
    rows.append((f"until all {form['pairs']:,} pairs answer", f"{form['seconds']} s"))
    if links := results.get("links"):
        took = f"{links['seconds']} s more" if links["reached"] else f"not within {int(links['seconds'])} s"
        rows.append(("until WireGuard carries nearly all tunnels of those that have it", took))
        rows.append(("ends of such tunnels that it carries", f"{links['by_wireguard']} of {links['ends']}"))
    if idle := results.get("idle"):
        rows.append(("tunnels", idle["tunnels"]))
        for name in ("re6stnet", "babeld", "openvpn", "wireguard-go"):
            if (of := idle.get(name)) and of["memory_mb"]:
                rows.append((f"{name}: processor, memory", f"{of['cpu_percent']}%, {of['memory_mb']} MB"))
        rows.append(("traffic of an idle node", f"{idle['bytes_per_second'] / 1000:.1f} kB/s"))
        rows.append(("of each end of a tunnel", f"{idle['bytes_per_second_and_tunnel_end'] / 1000:.2f} kB/s"))
    return table((f"{results['nodes']} nodes", "mean of a node"), rows)


def chaos(results: Figures) -> str:
    found = results.get("chaos")
    if not found:
        return "Not measured."
    rows = [
        (reason, of["outages"], f"{of['median_s']:.1f}", f"{of['longest_s']:.1f}")
        for reason, of in sorted(found["kinds"].items(), key=lambda item: -item[1]["longest_s"])
    ]
    faults = ", ".join(f"{name}: {count}" for name, count in found["faults"].items() if count)
    head = f"{found['seconds']:.0f} seconds, seed {found['seed']}. Faults: {faults}.\n\n"
    return head + table(("the last thing before", "pairs silent", "median, s", "longest, s"), rows)


def memory(results: Figures) -> str:
    rows = []
    for carrier, found in results["carriers"].items():
        name = f"{found['tunnels']} tunnels by {found['implementation'] or carrier}"
        if found["served"]:
            name += f", and {found['served']} that others opened"
        for program, of in found["programs"].items():
            rows.append((name, f"{of['processes']} {program}", f"{of['rss_mb']:.1f}", f"{of['pss_mb']:.1f}"))
            name = ""
        rss, pss = (sum(of[key] for of in found["programs"].values()) for key in ("rss_mb", "pss_mb"))
        rows.append(("", "**all**", f"**{rss:.1f}**", f"**{pss:.1f}**"))
    return table(("one node", "processes", "RSS, MB", "Pss, MB"), rows)


COSTS = {
    "daemon_cpu_percent": ("re6stnet: processor", "%", 1.0),
    "rss_kib": ("re6stnet: memory (RSS)", " MB", 1 / 1024),
    "private_kib": ("of that not shared with other programs", " MB", 1 / 1024),
    "babeld_cpu_percent": ("babeld: processor", "%", 1.0),
    "babeld_rss_kib": ("babeld: memory", " MB", 1 / 1024),
    "openvpn_cpu_percent": ("all OpenVPN processes: processor", "%", 1.0),
    "inside_bytes_per_s_and_tunnel": ("one end of a tunnel, both directions, inside", " kB/s", 1 / 1000),
    "outside_bytes_per_s_and_tunnel": ("the same outside", " kB/s", 1 / 1000),
}


def costs(results: Figures) -> str:
    measured = [step for step in results["steps"] if "median" in step]
    rows = [
        (row, *(f"{step['median'][name] * factor:.1f}{unit}" for step in measured))
        for name, (row, unit, factor) in COSTS.items()
    ]
    rows.append(("seconds until all nodes know them", *(f"{step.get('learned_s', 0):.0f}" for step in measured)))
    return table((f"{results['nodes']} nodes", *(f"{step['routes']:,} routes" for step in measured)), rows)


TABLES: dict[str, tuple[str, Callable[[Figures], str]]] = {
    "join": ("join", join),
    "steps": ("steps", steps),
    "failover": ("failover", failover),
    "planned": ("planned", planned),
    "scale": ("scale", scale),
    "chaos": ("scale", chaos),
    "scale_wireguard": ("scale-wireguard", scale),
    "chaos_wireguard": ("scale-wireguard", chaos),
    "memory": ("memory", memory),
    "costs": ("costs", costs),
    "throughput": ("throughput", throughput_report.tcp),
    "datagrams": ("throughput", throughput_report.udp),
    "marks": ("throughput", throughput_report.marks),
    "uplinks": ("uplinks", uplink_figures.shares),
    "uplink_deaths": ("uplinks", uplink_figures.deaths),
}
"""Name of each table: its figures, how they are told."""


def machine(results: Figures) -> str:
    """What it was measured on, in a line."""
    found = results["machine"]
    programs = ", ".join(f"{name} {found[name]}" for name in ("babeld", "openvpn") if name in found)
    what = f"{found['processors']} processors ({found['processor']}), Linux {found['kernel']}, {programs}"
    return f"*{found['date']}: {what}.*"


def write_tables(text: str, results: dict[str, Figures | None]) -> str:
    """A page with its tables written anew, as far as there are figures for them."""

    def made(match: re.Match[str]) -> str:
        source, tell = TABLES[match[1]]
        found = results.get(source)
        if not found:
            return match[0]
        return f"<!-- table {match[1]} -->\n{tell(found)}\n\n{machine(found)}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)


def draw(name: str, runs: Runs, label: str, wanted: float | None = None) -> Path:
    """A plot in docs/bench: the runs of each measure as dots, their median as a bar."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": name, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(WIDTH, 0.7 + 0.32 * len(runs)), layout="constrained")
    for position, (measure, seconds) in enumerate(runs.items()):
        middle = sorted(seconds)[len(seconds) // 2]
        colour = THEIRS if measure.startswith(("yggdrasil", "tinc")) else OURS
        axes.barh(position, middle, color=colour, height=0.6)
        axes.plot(seconds, [position] * len(seconds), "o", color="black", markersize=2.5, alpha=0.6)
        axes.annotate(f"{middle:.2g} s", (middle, position), (4, 6), textcoords="offset points", fontsize=7)
    if wanted:
        axes.axvline(wanted, color="#c04040", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(runs)), list(runs))
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    path = DIRECTORY / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    say(f"plot: {path}")
    return path


def draw_hops(name: str, rows: dict[str, list[float | None]]) -> Path:
    """A plot of throughputs: of each row a bar for each number of hops."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": name, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.55 * len(rows)), layout="constrained")
    for position, (row, rates) in enumerate(rows.items()):
        for hops, rate in enumerate(rates, 1):
            if rate is not None:
                place = position + (hops - 2) * 0.27
                colour = OURS if row.startswith("re6st") else THEIRS
                axes.barh(place, rate, color=colour, height=0.24, alpha=1.2 - 0.25 * hops)
                axes.annotate(f"{rate:,.0f}", (rate, place), (3, -2), textcoords="offset points", fontsize=6)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(rate for rates in rows.values() for rate in rates if rate is not None))
    axes.set_xlabel("Mbit/s of one TCP connection;\nfrom above: one, two and three hops")
    path = DIRECTORY / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    say(f"plot: {path}")
    return path


def plots(results: dict[str, Figures | None]) -> None:
    """Every plot there are figures for."""
    if found := results.get("join"):
        runs = {row_name(name, JOIN): of["runs_s"] for name, of in found["measures"].items()}
        draw("join", runs, "seconds from start to first answers; dots: each run", WANTED)
    if found := results.get("failover"):
        runs = {name: of["runs_s"] for name, of in found["cases"].items() if not name.startswith("tinc")}
        draw("failover", runs, "seconds without traffic; dots: each run", WANTED)
    if found := results.get("throughput"):
        draw_hops("throughput", throughput_report.bars(found))
    if found := (results.get("scale") or {}).get("chaos"):
        runs = {reason: [of["longest_s"]] for reason, of in found["kinds"].items()}
        draw("chaos", runs, "longest outage of a pair, seconds", 10.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    results = {source: load(source) for source, _ in TABLES.values()}
    PAGE.write_text(write_tables(PAGE.read_text(), results))
    say(f"tables: {PAGE}")
    try:
        plots(results)
    except ImportError:
        print("bench report: no plots: matplotlib is not installed. Get it: pip install matplotlib", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
