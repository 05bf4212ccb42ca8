"""The run directory: ours alone, gone afterwards, and never somebody else's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from re6st.rundir import RunDirectory, RunDirectoryError


def test_it_is_made_for_us_only_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    with RunDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "re6stnet1.sock").touch()
        (path / "revoked").mkdir()
        (path / "revoked" / "12").touch()
        (path / "anything").touch()
    assert not path.exists()


def test_it_is_gone_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunDirectory(tmp_path / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_a_second_process_is_told(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        with pytest.raises(RunDirectoryError, match=r"--run .*/run is used by another re6stnet\. "):
            RunDirectory(tmp_path / "run").__enter__()
        assert (tmp_path / "run").exists()
    with RunDirectory(tmp_path / "run"):
        pass


def test_what_an_earlier_run_left_is_no_hindrance(tmp_path: Path) -> None:
    """Killed with -9; or the older software, whose babeld socket has another name."""
    run = tmp_path / "run"
    run.mkdir(mode=0o755)
    for name in ("lock", "babeld.conf", "babeld.sock", "babeld.ctl", "re6stnet1.sock", "re6stnet-udp.out"):
        (run / name).touch()
    (run / "revoked").mkdir()
    with RunDirectory(run):
        assert stat.S_IMODE(run.stat().st_mode) == 0o700, "the sockets inside take orders"
    assert not run.exists()


@pytest.mark.parametrize("name", ["home.txt", "lock.txt", ".bashrc"])
def test_a_directory_with_other_things_in_it_is_never_emptied(tmp_path: Path, name: str) -> None:
    """--run /tmp, or an empty text, which is the current directory."""
    (tmp_path / name).write_text("precious")
    (tmp_path / "lock").touch()
    with pytest.raises(RunDirectoryError, match=r"--run .* holds .*, which is not ours"):
        RunDirectory(tmp_path).__enter__()
    assert (tmp_path / name).read_text() == "precious"


def test_a_path_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunDirectoryError, match=r"^--run .*: (File exists|Not a directory)\.? ?.*$"):
            RunDirectory(path).__enter__()


def test_a_link_inside_is_removed_but_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    with RunDirectory(tmp_path / "run"):
        (tmp_path / "run" / "link").symlink_to(precious)
        (tmp_path / "run" / "gone").symlink_to(tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
    assert (precious / "file").exists()


def test_somebody_else_removed_it_meanwhile(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        os.unlink(tmp_path / "run" / "lock")
        os.rmdir(tmp_path / "run")
