"""How figures are made of what was measured: what counts as an outage, and the tables of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from bench import alarms
from bench.failover import CASES, together
from bench.join import rows
from bench.report import COSTS, TABLES, write_tables
from re6st.core.tunnel_protocols import TunnelCarrier
from testbed import Node
from testbed.chaos import FAULTS, WIREGUARD_FAULTS, Fault, longest_free
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


def test_rows_over_wireguard_stand_beside_those_over_openvpn() -> None:
    measured = rows(["join", "links", "tinc"], list(TunnelCarrier))
    assert list(measured) == ["join", "join, over WireGuard", "links", "tinc"]
    measures = {name: {"median_s": 1.0, "runs_s": [1.0]} for name in measured}
    lines = TABLES["join"][1]({"measures": measures}).splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [
        "a node beside two others",
        "a node beside two others, over WireGuard",
        "a node beside two others, until all its tunnels are WireGuard links",
        "tinc, a node beside two others",
    ]


def test_a_case_of_failover_is_measured_with_what_it_breaks() -> None:
    names = {
        carrier: [[case.name for case in group] for group in together(CASES, carrier)] for carrier in TunnelCarrier
    }
    first, second = names[TunnelCarrier.OPENVPN]
    assert "OpenVPN client killed" in first
    assert "relay dies" in second
    assert not [name for name in first + second if "wireguard" in name]
    alone = names[TunnelCarrier.WIREGUARD]
    assert {len(group) for group in alone} == {1}, "a lost link is not made again for a minute"
    assert ["link in use is cut"] in alone
    assert not [name for [name] in alone if "OpenVPN" in name]


def test_nodes_that_watch_no_links_cannot_show_that_there_is_no_false_alarm() -> None:
    alarms.check_watched({"a": {"active": True}, "b": {"active": True}})
    with pytest.raises(AssertionError, match=r"do not watch their links: b\."):
        alarms.check_watched({"a": {"active": True}, "b": {"active": False}})


def test_chaos_with_wireguard_links_is_the_same_but_for_what_carries_tunnels() -> None:
    assert [(kind.weight, kind.seconds, kind.isolates) for kind in WIREGUARD_FAULTS] == [
        (kind.weight, kind.seconds, kind.isolates) for kind in FAULTS
    ]
    assert WIREGUARD_FAULTS[1:] == FAULTS[1:]


@pytest.mark.parametrize(
    ("reached", "seconds", "told"), [(True, 41.5, "41.5 s more"), (False, 300.6, "not within 300 s")]
)
def test_links_that_do_not_come_are_not_told_as_if_they_had(reached: bool, seconds: float, told: str) -> None:
    form = {"pairs": 12, "seconds": 9.5}
    links = {"nodes": 4, "reached": reached, "seconds": seconds, "ends": 20, "by_wireguard": 19 if reached else 3}
    lines = TABLES["scale"][1]({"nodes": 4, "form": form, "links": links}).splitlines()
    assert lines[3] == f"| until WireGuard carries nearly all tunnels of those that have it | {told} |"


def test_memory_is_told_by_program_and_in_all() -> None:
    programs = {
        "re6stnet": {"processes": 1, "rss_mb": 43.0, "pss_mb": 30.5},
        "wireguard-go": {"processes": 10, "rss_mb": 80.5, "pss_mb": 40.0},
    }
    carriers = {"wireguard": {"tunnels": 10, "served": 0, "implementation": "wireguard-go", "programs": programs}}
    lines = TABLES["memory"][1]({"carriers": carriers}).splitlines()
    assert lines[2:] == [
        "| 10 tunnels by wireguard-go | 1 re6stnet | 43.0 | 30.5 |",
        "|  | 10 wireguard-go | 80.5 | 40.0 |",
        "|  | **all** | **123.5** | **70.5** |",
    ]


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


def test_costs_are_told_for_each_number_of_routes_that_was_measured() -> None:
    median = dict.fromkeys(COSTS, 2048.0)
    steps = [{"routes": 0, "median": median}, {"routes": 1000, "learned_s": 5.2, "median": median}]
    steps.append({"routes": 5000, "failed": "some nodes have lost routes"})
    lines = TABLES["costs"][1]({"nodes": 4, "steps": steps}).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["4 nodes", "0 routes", "1,000 routes"]
    assert "| re6stnet: memory (RSS) | 2.0 MB | 2.0 MB |" in lines
    assert lines[-1].startswith("| seconds until all nodes know them | 0 | 5 |")
