"""WireGuard of the kernel, which this machine may lack: the tests of tests/emulated, under a kernel that has it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from testbed import emulated_kernel

TIME = 600.0
"""Seconds under emulation; a tenth of it, if the machine has nothing else to do."""

NETWORK_TIME = 2400.0
"""The same, for a network of three nodes."""
PARTS = Path("tests/emulated/test_emulated_wireguard.py"), Path("tests/emulated/test_emulated_links.py")
NETWORK = Path("tests/emulated/test_emulated_network.py")


@pytest.fixture(autouse=True)
def _emulator() -> None:
    if lack := emulated_kernel.missing():
        pytest.skip(lack)


def run(files: Sequence[Path], timeout: float, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run these tests there."""
    # It would take longer to import them than to run the tests.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    words = ["-p", "no:cacheprovider", "--color=no", "--durations=5", "-rP", *map(str, files)]
    try:
        with open(said, "wb") as output:
            status = emulated_kernel.run([sys.executable, "-m", "pytest", *words], timeout, output)
    finally:
        print(said.read_text(errors="replace"))
    assert status == os.EX_OK, "some of these tests failed: see what they printed"


def test_links_over_the_wireguard_of_debians_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(PARTS, TIME, tmp_path / "said", monkeypatch)


def test_a_network_over_the_wireguard_of_debians_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run([NETWORK], NETWORK_TIME, tmp_path / "said", monkeypatch)
