"""The alert rules, by Prometheus' own reader: each fires when it should, and does not when it should not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "daemon/prometheus/alerts.yml"
CASES = Path(__file__).with_name("alert_cases.yml")


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the one that ./run puts beside our python, or that is installed."""
    found = shutil.which("promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip("no promtool")
    return subprocess.run([found, *words], capture_output=True, text=True)


def test_prometheus_reads_the_rules() -> None:
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_both_cases() -> None:
    rules = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    shown = {(case["alertname"], bool(case.get("exp_alerts"))) for case in cases}
    assert shown == {(alert, fires) for alert in rules for fires in (True, False)}
