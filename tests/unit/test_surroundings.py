"""The tests themselves pass in odd surroundings: `nohup ./run test &`, say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABOUT_SIGNALS = (
    "tests/unit/cli/status/test_cli_status.py::test_ctrl_c_ends_following_without_a_word",
    "tests/unit/test_surroundings.py::test_programs_that_tests_start_obey_the_signals_that_end_them",
)


def test_programs_that_tests_start_obey_the_signals_that_end_them() -> None:
    done = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True, check=True)
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & 0b111, f"SIGHUP, SIGINT or SIGQUIT is ignored: {ignored:x}"


def test_tests_pass_where_the_signals_of_a_terminal_are_ignored() -> None:
    """As a shell has it for what it runs in the background, and nohup for SIGHUP."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *ABOUT_SIGNALS]
    ignoring = ["env", "--ignore-signal=INT,QUIT,HUP", *argv]
    done = subprocess.run(ignoring, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
