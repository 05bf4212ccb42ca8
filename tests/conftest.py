"""What all tests share: in CI a test that is skipped is a test that is missing, hence a failure.

Tests run in several processes at once, as most of them wait most of the time; see `./run test`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

IN_CI = os.environ.get("CI") == "true"

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

TOGETHER = {
    "tests/network/test_package.py": "package",
    "tests/network/test_package_swap.py": "package",
    "tests/network/test_guide.py": "package",
    "tests/network/test_containers.py": "package",
    "tests/network/test_hostile_member.py": "hostile member",
    "tests/network/test_others_change.py": "others change",
    "tests/network/test_demo.py": "demo",
    "tests/network/test_web.py": "web",
}
"""Files that share what takes long to make, or a place on this machine."""


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """What tests start gets these signals as from a shell in the foreground, however the tests were started.

    Who starts them in the background, or by nohup, has them ignored, which programs inherit; but not a handler. So we
    go on ignoring them, by a handler that does nothing.
    """
    numbers = [each for each in TERMINAL_SIGNALS if signal.getsignal(each) is signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, lambda *_: None)
    yield
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Which tests go to which process.

    To one process go those of the files above, and those of one file of the fast ones. Networks come first, by their
    names: three of them at once leave the processors enough, and no unit test has changed anything in their process.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        alone = path.startswith(("tests/network/", "tests/interop/"))
        return TOGETHER.get(path, nodeid if alone else path)

    def _reschedule(self, node: Any) -> None:
        # One test ahead, not two: at the end a process would wait for another one that has three to run.
        if not self.workqueue or self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


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
