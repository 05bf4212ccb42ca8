"""The registry's benchmark runs: not how fast anything is."""

from __future__ import annotations

from pathlib import Path

from bench.registry import Benchmark, ratios, table
from re6st.view.screen import paint


def test_a_small_run_measures_all_that_is_ours(tmp_path: Path) -> None:
    benchmark = Benchmark(tmp_path, scale=0.01, parallel=4, crowd=(8, 4))

    benchmark.ours(("certificates", "sessions", "start", "crowd"), (30,))

    results = benchmark.results
    assert [row["issued"] for row in results["certificates"]] == [30]
    assert [row["count"] for row in results["certificates"]] == [20]
    assert [row["count"] for row in results["sessions"]] == [40, 40, 40]
    assert all(row["seconds"] > 0 and row["memory_mb"] > 1 for row in results["start"])
    assert 0 < results["sessions beside a crowd"][0]["fewest_connected"] <= 12
    assert all(row["per_second"] > 0 for name, rows in results.items() if not name.startswith("start") for row in rows)
    assert "sessions: beside a crowd to without it" in ratios(results)
    assert any("sessions beside a crowd" in each for each in paint(table(results)))
