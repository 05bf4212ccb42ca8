"""What all tests share: in CI a test that is skipped is a test that is missing, hence a failure.

Tests run in several processes at once, as most of them wait most of the time; see `./run test`.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

IN_CI = os.environ.get("CI") == "true"

TOGETHER = {
    "test_package.py": "package",
    "test_guide.py": "package",
    "test_demo.py": "demo",
    "test_web.py": "web",
}
"""Files of tests/network that share what takes long to make, or a place on this machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests go to one process: those of tests/interop, of one file of the fast ones, and the above."""
    for item in items:
        folder, name = item.path.parent.name, item.path.name
        if folder == "interop":
            item.add_marker(pytest.mark.xdist_group("interop"))
        elif folder != "network":
            item.add_marker(pytest.mark.xdist_group(name))
        elif name in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(TOGETHER[name]))


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
