"""The run directory: ours alone, gone afterwards, and never somebody else's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from re6st.service import rundir
from re6st.service.rundir import RunDirectory, RunDirectoryBusy, RunDirectoryError


def test_it_is_made_for_us_only_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run"
    with RunDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "re6stnet1.sock").touch()
        (path / "revoked").mkdir()
        (path / "revoked" / "12").touch()
        (path / "re6stnet1-2.out").touch()
    assert not path.exists()


def test_it_is_gone_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunDirectory(tmp_path / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_a_second_process_is_told(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        with pytest.raises(RunDirectoryBusy, match=r"--run .*/run is used by another re6stnet\. "):
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


@pytest.mark.parametrize("name", ["home.txt", "lock.txt", ".bashrc", "re6stnet.conf", "cert.key"])
@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o750, 0o702])
def test_a_directory_that_others_use_is_never_taken(tmp_path: Path, name: str, mode: int) -> None:
    """--run /tmp, or an empty text, which is the current directory: others would be shut out of it."""
    (tmp_path / name).write_text("precious")
    (tmp_path / "lock").touch()
    tmp_path.chmod(mode)
    with pytest.raises(RunDirectoryError, match=r"--run .* contains .*, which is not from re6stnet"):
        RunDirectory(tmp_path).__enter__()
    assert (tmp_path / name).read_text() == "precious"
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o700, 0o710])
def test_a_foreign_file_keeps_no_node_down_and_stays(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody's --daemon may have put its own there."""
    run = tmp_path / "run"
    run.mkdir()
    run.chmod(mode)
    for name in ("a.pid", "z.pid", "re6stnet.conf", "babeld.conf.orig"):
        (run / name).write_text("precious")
    (run / "directory").mkdir()
    (run / "directory" / "lock").touch()
    with RunDirectory(run):
        (run / "babeld.conf").touch()
        (run / "control.sock").touch()
    assert sorted(os.listdir(run)) == ["a.pid", "babeld.conf.orig", "directory", "re6stnet.conf", "z.pid"]
    assert (run / "directory" / "lock").exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"--run {run} contains 'a.pid', which is not from re6stnet: it is left there"
    ]


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
        (tmp_path / "run" / "revoked").symlink_to(precious)
        (tmp_path / "run" / "babeld.conf").symlink_to(tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
    assert (precious / "file").exists()


def test_somebody_else_removed_it_meanwhile(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        os.unlink(tmp_path / "run" / "lock")
        os.rmdir(tmp_path / "run")


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_what_may_pass_by_itself_is_no_mistake_of_a_person(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: int
) -> None:
    """The supervisor tries again."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(RunDirectoryBusy, match=r"^--run .*/run: "):
        RunDirectory(tmp_path / "run").__enter__()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "babeld.conf"
    rundir.write(file, b"one")
    (tmp_path / "babeld.new").write_bytes(b"of one that was killed, and longer")
    rundir.write(file, b"two")
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["babeld.conf"]


def test_of_processes_that_run_on_all_is_kept_and_of_others_nothing(tmp_path: Path) -> None:
    kept = {"lock", "babeld.conf", "babeld.ctl", "babeld.out", "control.sock", "re6stnet-daemons.pids", "a.pid"}
    kept |= {"re6stnet1.json", "re6stnet1-2.sock", "re6stnet1-2.out", "re6stnet-tcp.sock", "re6stnet-tcp.json"}
    gone = {"re6stnet1-3.sock", "re6stnet1.2.out", "re6stnet2.json", "re6stnet-udp6.out", "re6stnet.sock"}
    gone |= {"babeld.new", "re6stnet1.new", "babeld.conf.77.tmp", "re6stnet-daemons.new"}
    for name in kept | gone:
        (tmp_path / name).touch()
    rundir.remove_old(tmp_path, {"re6stnet1", "re6stnet1-2", "re6stnet-tcp"})
    assert set(os.listdir(tmp_path)) == kept


def test_who_is_revoked_is_noted_beside_what_somebody_else_put_there(tmp_path: Path) -> None:
    rundir.write_revoked(tmp_path, frozenset((1, 2)))
    (tmp_path / "revoked" / "notes").mkdir()
    rundir.write_revoked(tmp_path, frozenset((2, 3)))
    assert sorted(os.listdir(tmp_path / "revoked")) == ["2", "3", "notes"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_a_directory_of_another_user_is_not_taken(tmp_path: Path) -> None:
    """Who has it can put there what a daemon obeys, and read babel's key."""
    path = tmp_path / "run"
    path.mkdir(0o700)
    os.chown(path, 64001, 64001)
    with pytest.raises(
        RunDirectoryError, match=r"--run .*/run belongs to the user 64001\. Choose a directory for re6stnet alone\."
    ):
        RunDirectory(path).__enter__()
    assert path.stat().st_uid == 64001
