"""How the benchmark of several lines makes figures of what connections carried."""

from __future__ import annotations

from typing import Any

import pytest

from bench.support.uplink_figures import CASES, deaths, marks, share, shares


def both(up: float, down: float) -> dict[str, float]:
    return {"up": up, "down": down}


def figures(**others: Any) -> dict[str, Any]:
    alone = [{"many": both(40, 44), "one": both(36, 40)}, {"many": both(10, 11), "one": both(9, 10)}]
    return {"alone": alone, "many": both(49, 33), "one": both(18, 40), **others}


def test_many_connections_count_beside_all_lines_and_one_beside_the_best() -> None:
    assert share(figures(), "many", "up") == pytest.approx(49 / 50)
    assert share(figures(), "one", "up") == pytest.approx(18 / 36)
    assert share(figures(), "one", "down") == 1.0
    assert share(figures(), "mptcp", "up") is None


def test_marks_are_about_re6st_alone() -> None:
    rows = {"two lines": {"multipath routes": figures(), "re6st, WireGuard": figures(mptcp=both(45, 20))}}
    found = {mark["what"]: mark["is"] for mark in marks(rows)}
    assert {mark["row"] for mark in marks(rows)} == {"re6st, WireGuard"}
    assert found["many, up"] == 0.98
    assert found["mptcp, up"] == 0.9


def test_tables_say_what_was_not_measured() -> None:
    death = both(0, 0) | {way: {"stall_s": 0.5, "ended": 1, "after_mbit_s": 10.0} for way in ("up", "down")}
    results = {"cases": {"two lines": {"MPTCP": figures(death=death), "re6st": figures()}}}
    assert "| two lines | MPTCP | 40+10 / 44+11 | 98% / 60% | – | 50% / 100% |" in shares(results)
    assert deaths(results).splitlines()[2:] == ["| two lines | MPTCP | 0.5 / 0.5 | 1 / 1 | 10 / 10 |"]


@pytest.mark.parametrize(("case", "first"), list(zip(CASES, (0, 0, 0, 0, 0), strict=True)))
def test_the_line_that_dies_is_the_one_that_carries_most_and_is_nearest(case: Any, first: int) -> None:
    assert case.first == first
