"""The demo: it forms, tells the truth by its exit code, and leaves nothing, whenever it is interrupted."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import wait_until
from testbed.bed import PREFIX
from testbed.namespace import NAMESPACES, RUN

ROOT = Path(__file__).parents[2]


def start(*options: str) -> subprocess.Popen[str]:
    """The demo in a process group of its own, as in a terminal of its own."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "demo", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def orphans() -> list[str]:
    """What is left of beds that nobody owns any more. Other tests may have beds of their own at this time."""
    found = []
    for directory in RUN.glob(f"{PREFIX}*"):
        lock = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(str(directory))
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
    for path in NAMESPACES.glob(f"{PREFIX}*"):
        if not (RUN / path.name.rpartition("-")[0]).exists():
            found.append(str(path))
    return found


def test_demo_once() -> None:
    with start("--once", "--nodes", "4", "--nat", "1") as demo:
        output, _ = demo.communicate(timeout=180)
    assert demo.returncode == 0, output
    assert "12 of 12 pairs answer" in output
    assert "Traceback" not in output
    assert "node1 (registry)" in output
    assert "node4 (NAT)" in output
    assert "none" not in output
    wait_until(lambda: not orphans(), 60, "everything is gone")  # a bed of another test may just begin


def test_demo_that_does_not_form_in_time_fails() -> None:
    with start("--once", "--nodes", "3", "--timeout", "0") as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, output
    assert "none" in output
    wait_until(lambda: not orphans(), 60, "everything is gone")  # a bed of another test may just begin


@pytest.mark.parametrize("seconds", [0.4, 1, 2, 4, 8])
def test_interrupted_demo_leaves_nothing(seconds: float) -> None:
    with start("--nodes", "4") as demo:
        time.sleep(seconds)  # any moment will do
        os.killpg(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode in (0, 130, -signal.SIGINT), output
    wait_until(lambda: not orphans(), 60, "everything is gone")  # a bed of another test may just begin
