"""How the figures of `./run bench throughput` are told: tables, and what the plot shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.support.tables import table
from bench.support.throughput_figures import figure

Figures = dict[str, Any]
HOPS = (1, 2, 3)
NONE = "–"
PLOT = "\n\n![Throughput over one, two and three hops](bench/throughput.svg)"


def _told(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _cells(results: Figures, row: str, figures: Iterable[tuple[int, str, int]]) -> list[str]:
    return [_told(figure(results["rows"], row, hops, name), digits) for hops, name, digits in figures]


def tcp(results: Figures) -> str:
    """Throughput of TCP, what it costs, and how long a ping takes meanwhile."""
    figures = [(hops, "tcp1_mbit_s", 0) for hops in HOPS] + [(hops, "tcp8_mbit_s", 0) for hops in HOPS]
    figures += [(1, "cpu_s_per_gb", 1), (1, "rtt_idle_ms", 1), (1, "rtt_loaded_ms", 1), (1, "rtt_loaded_95_ms", 1)]
    head = ["Mbit/s", *(f"1 stream, {_hops(hops)}" for hops in HOPS), *(f"8, {_hops(hops)}" for hops in HOPS)]
    head += ["processor, s/GB", "ping idle, ms", "under load", "95%"]
    return table(head, [[row, *_cells(results, row, figures)] for row in results["rows"]]) + _absent(results) + PLOT


def udp(results: Figures) -> str:
    """The most datagrams that come in as fast as they are sent."""
    figures = [(hops, "udp64_packets_s", 0) for hops in HOPS] + [(hops, "udp1200_mbit_s", 0) for hops in HOPS]
    head = ["", *(f"64 bytes, 1/s, {_hops(hops)}" for hops in HOPS)]
    head += [f"1,200 bytes, Mbit/s, {_hops(hops)}" for hops in HOPS]
    return table(head, [[row, *_cells(results, row, figures)] for row in results["rows"]])


def marks(results: Figures) -> str:
    """What is wanted, and what became of it."""
    rows = []
    for mark in results["marks"]:
        ratio, least = mark["ratio"], mark["least"]
        became = f"not measured: {mark['why']}" if ratio is None else "yes" if ratio >= least else "no"
        rows.append((f"{mark['row']}: {mark['what']}", f"{least:.1f}", _told(ratio, 2), became))
    return table(("one TCP connection, ratio in the same run", "wanted", "measured", "reached"), rows)


def _hops(count: int) -> str:
    return "1 hop" if count == 1 else f"{count} hops"


def _absent(results: Figures) -> str:
    if not results["absent"]:
        return ""
    return "\n\nNot measured: " + "; ".join(f"{row} ({why})" for row, why in results["absent"].items()) + "."


def bars(results: Figures) -> dict[str, list[float | None]]:
    """For the plot: of each row the Mbit/s of one TCP connection by number of hops."""
    rows = results["rows"]
    # The wires alone would make all others short.
    return {row: [figure(rows, row, hops, "tcp1_mbit_s") for hops in HOPS] for row in rows if row != "no tunnel"}
