"""WireGuard of the kernel, which this machine may lack: the tests of tests/emulated, under a kernel that has it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from testbed import emulated_kernel

TIME = 300.0
"""Seconds under emulation; a tenth of it, if the machine has nothing else to do."""


@pytest.fixture(autouse=True)
def _emulator() -> None:
    if lack := emulated_kernel.missing():
        pytest.skip(lack)


def test_links_over_the_wireguard_of_debians_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would take longer to import them than to run the tests.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    said = tmp_path / "said"
    with open(said, "wb") as output:
        words = ["-p", "no:cacheprovider", "--color=no", "--durations=5", "tests/emulated"]
        status = emulated_kernel.run([sys.executable, "-m", "pytest", *words], TIME, output)
    assert status == os.EX_OK, said.read_text()
