"""How figures are made of what was measured: what counts as an outage, and the tables of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from bench.report import TABLES, write_tables
from testbed import Node
from testbed.chaos import FAULTS, Fault, longest_free
from testbed.watch import Gap

HOST = cast(Any, type("Nowhere", (), {"name": "node", "directory": Path()}))
A, B, C = (Node(HOST()) for _ in range(3))
POWER = next(kind for kind in FAULTS if kind.name == "power lost")


def fault(node: Node, began: float, ended: float) -> Fault:
    return Fault(POWER, node, began, lambda: True, ended, ended)


@pytest.mark.parametrize(
    ("faults", "free"),
    [
        ([], (10, 20)),
        ([fault(A, 11, 17)], (17, 20)),
        ([fault(B, 5, 12), fault(A, 11, 14)], (14, 20)),
        ([fault(A, 16, 18)], (10, 16)),
        ([fault(A, 5, 30)], (10, 10)),
        ([fault(A, 12, float("inf"))], (10, 12)),
        ([fault(C, 11, 19)], (10, 20)),
    ],
)
def test_a_gap_counts_only_while_both_ends_are_there(faults: list[Fault], free: tuple[float, float]) -> None:
    assert longest_free(Gap((A, B), 10, 20), faults) == free


MACHINE = {"date": "2026-01-02", "processors": 2, "processor": "P", "kernel": "6.1", "babeld": "1.12.1"}


def test_only_the_tables_are_written_anew() -> None:
    page = (
        "before\n<!-- table join -->\nold\n<!-- end -->\nbetween\n<!-- table planned -->\nkept\n<!-- end -->\nafter\n"
    )
    results: dict[str, Any] = {name: None for name, _ in TABLES.values()}
    results["join"] = {"machine": MACHINE, "measures": {"tinc": {"median_s": 1.5, "runs_s": [1, 1.5, 2.25]}}}
    text = write_tables(page, results)
    assert "| tinc, a node beside two others | 1.50 | 1.00 | 2.25 | 3 |" in text
    assert "old" not in text
    assert "kept" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert write_tables(text, results) == text
