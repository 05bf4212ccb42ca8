"""The cases of `./run bench uplinks`, what is wanted of them, and the tables. No input and output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.support.tables import table
from testbed.lines import Line

NEAR, FAR = 0.005, 0.04
WAYS = ("up", "down")
MANY, MPTCP, ONE = 0.95, 0.85, 1.0
"""What is wanted: 16 connections and one of MPTCP as shares of the sum, one connection beside the best line alone."""
NONE = "–"

Figures = dict[str, Any]
Rows = Mapping[str, Mapping[str, Figures]]
"""By case and row."""


@dataclass(frozen=True)
class Case:
    """The lines that the machine has."""

    name: str
    lines: tuple[Line, ...]

    @property
    def first(self) -> int:
        """The line that most goes by: that which carries most, of these the nearest."""
        return max(range(len(self.lines)), key=lambda number: (self.lines[number].mbits, -self.lines[number].seconds))


CASES = (
    Case("50+50 Mbit/s, both 5 ms", (Line(50, NEAR), Line(50, NEAR))),
    Case("50+50 Mbit/s, 5 and 40 ms", (Line(50, NEAR), Line(50, FAR))),
    Case("80+20 Mbit/s, 5 and 40 ms", (Line(80, NEAR), Line(20, FAR))),
    Case("80+20 Mbit/s, 40 and 5 ms", (Line(80, FAR), Line(20, NEAR))),
    Case("30+30+30 Mbit/s, 5, 40 and 40 ms", (Line(30, NEAR), Line(30, FAR), Line(30, FAR))),
)


def total(figures: Figures, way: str) -> float:
    """What the lines carry one by one, together, in Mbit/s."""
    return float(sum(each["many"][way] for each in figures["alone"]))


def share(figures: Figures, what: str, way: str) -> float | None:
    """What `many` connections, or one of `mptcp`, carry of the sum; what `one` does of the best line alone."""
    if what not in figures:
        return None
    best = max(float(each["one"][way]) for each in figures["alone"])
    whole = best if what == "one" else total(figures, way)
    return float(figures[what][way]) / whole if whole else None


def marks(rows: Rows) -> list[dict[str, Any]]:
    """What is wanted of re6st, and what it is."""
    wanted = {"many": MANY, "mptcp": MPTCP, "one": ONE}
    return [
        {"case": case, "row": row, "what": f"{what}, {way}", "is": round(found, 3), "wanted": least}
        for case, of in rows.items()
        for row, figures in of.items()
        for what, least in wanted.items()
        for way in WAYS
        if row.startswith("re6st") and (found := share(figures, what, way)) is not None
    ]


def shares(results: Figures) -> str:
    """How much of the lines is used."""
    head = ["", "", "lines one by one, Mbit/s, up / down", "16 connections", "one of MPTCP", "one, of the best line"]
    rows = []
    for case, of in results["cases"].items():
        for row, figures in of.items():
            alone = " / ".join("+".join(f"{each['many'][way]:.0f}" for each in figures["alone"]) for way in WAYS)
            cells = [_both(figures, what) for what in ("many", "mptcp", "one")]
            rows.append([case, row, alone, *cells])
            case = ""
    return table(head, rows)


def deaths(results: Figures) -> str:
    """What becomes of connections when a line dies."""
    head = ["", "", "longest stall, s, up / down", "ended, of 16", "Mbit/s afterwards"]
    rows = []
    for case, of in results["cases"].items():
        for row, figures in of.items():
            if death := figures.get("death"):
                names = ("stall_s", "ended", "after_mbit_s")
                cells = [" / ".join(f"{death[way][name]:g}" for way in WAYS) for name in names]
                rows.append([case, row, *cells])
                case = ""
    return table(head, rows)


def _both(figures: Figures, what: str) -> str:
    found = [share(figures, what, way) for way in WAYS]
    return " / ".join(NONE if each is None else f"{100 * each:.0f}%" for each in found) if any(found) else NONE
