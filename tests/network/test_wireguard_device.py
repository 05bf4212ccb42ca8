"""WireGuard interfaces by the real wireguard-go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.network import ROOT


def test_two_interfaces_of_wireguard_go_carry_packets_and_get_other_keys() -> None:
    program = shutil.which("wireguard-go", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no wireguard-go")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-W", "error", "-m", "tests.network.wireguard_play", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
