"""Traffic goes on when something breaks: one case of each kind; how fast, `./run bench failover` tells."""

from __future__ import annotations

import pytest

from bench.failover import CASES, Case, measure

LONGEST = 15.0
"""Seconds: ten times what it takes on a quiet machine."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_traffic_finds_another_way(case: Case) -> None:
    assert measure(case, []) < LONGEST
