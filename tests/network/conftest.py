"""Network tests: each on a bed of its own. Skipped, with the reason, where the machine cannot hold one."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from testbed import Bed, missing
from testbed.network import ROOT

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    own = [item for item in items if HERE in item.path.parents]
    reason = missing() if own else ""
    for item in own:
        item.add_marker(pytest.mark.network)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Bed() as bed:
        yield bed


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this checkout, built once."""
    directory = tmp_path_factory.mktemp("deb")
    built = subprocess.run([ROOT / "run", "deb", directory], capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    [path] = directory.glob("re6stnet_*.deb")
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The logs of the bed go with the report of a failure."""
    report = yield
    bed = getattr(item, "funcargs", {}).get("bed")
    if report.failed and call.when == "call" and isinstance(bed, Bed):
        report.sections.append(("logs of the hosts", bed.tails(30)))
    return report
