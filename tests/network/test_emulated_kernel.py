"""A command under the emulated kernel: what it prints and its status come out, nothing else does, and it has an end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from testbed import emulated_kernel
from testbed.emulated_kernel import EmulatedKernelError
from testbed.network import ROOT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where its own files are, while it runs."""
    if lack := emulated_kernel.missing():
        pytest.skip(lack)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_command_sees_the_files_of_this_machine_and_leaves_nothing(place: Path) -> None:
    written = place / "written"
    script = f"cat README.md; uname -v >{written} && cat {written}; exit 7"
    command = [sys.executable, "-m", "testbed.emulated_kernel", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 7, done.stderr
    own, _, kernel = done.stdout.rstrip("\n").rpartition("\n")
    assert own == (ROOT / "README.md").read_text().rstrip("\n")
    assert "Debian" in kernel
    assert list(place.iterdir()) == []


def test_a_command_that_does_not_end_is_ended(place: Path) -> None:
    with pytest.raises(EmulatedKernelError, match="the command was not done after 1 s"):
        emulated_kernel.run(["sleep", "1000"], 1)
    assert list(place.iterdir()) == []


def test_a_kernel_that_does_not_boot_is_told_with_its_last_words(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated_kernel, "MODULES", ())
    with pytest.raises(EmulatedKernelError, match=r"(?s)did not boot, and qemu ended.*Kernel panic"):
        emulated_kernel.run(["true"])
    assert list(place.iterdir()) == []
