"""What all tests share: in CI a test that is skipped is a test that is missing, hence a failure.

Tests run in several processes at once, as most of them wait most of the time; see `./run test`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

IN_CI = os.environ.get("CI") == "true"

TOGETHER = {
    "tests/network/test_package.py": "package",
    "tests/network/test_guide.py": "package",
    "tests/network/test_demo.py": "demo",
    "tests/network/test_web.py": "web",
}
"""Files that share what takes long to make, or a place on this machine."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Which tests go to one process: those of tests/interop, of the files above, of one file of the fast ones."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = path.split("/")[1]
        return "interop" if folder == "interop" else TOGETHER.get(path, nodeid if folder == "network" else path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.outcome = "failed"
    report.longrepr = f"skipped, which CI does not accept: {report.longreprtext}"
