"""Child processes: started, watched, stopped, and found again after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from re6st.linux.kernel import KernelError
from re6st.linux.process import (
    Backoff,
    Child,
    MissingProgram,
    end_leftovers,
    find_program,
    keep_running,
    last_words,
    leftovers,
    output_of,
    status_text,
)
from tests.unit.fake_program import until

SHELL = "/bin/sh"


def test_its_exit_status_and_what_it_prints(tmp_path: Path) -> None:
    async def run() -> int:
        child = await Child.start("x", [SHELL, "-c", "echo out; echo err >&2; exit 3"], tmp_path / "log")
        assert child.pid > 0
        status = await child.wait()
        assert not child.running
        await child.stop()
        return status

    (tmp_path / "log").write_text("earlier\n")
    assert asyncio.run(run()) == 3
    assert (tmp_path / "log").read_text() == "earlier\nout\nerr\n"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(Child.start("x", ["/nonexistent/program"]))
    with pytest.raises(MissingProgram, match=r"^nonexistent: program not found\. Install it") as raised:
        find_program("nonexistent")
    assert "\n" not in str(raised.value)
    assert find_program("sh").endswith("/sh")


def test_programs_of_the_administrator_are_found_with_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgram):
        find_program("nonexistent")
    assert find_program("ldconfig").startswith("/")


def test_without_any_grace_it_cannot_do_anything_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where this process has to wait for its turn before it says so again."""
    kill = os.killpg

    def slow_kill(group: int, number: int) -> None:
        kill(group, number)
        if number:
            time.sleep(0.2)

    monkeypatch.setattr("os.killpg", slow_kill)
    last_words = tmp_path / "words"

    async def run() -> None:
        script = f"trap 'echo I take my routes along >{last_words}; exit' TERM; echo; sleep 60 & wait"
        child = await Child.start("x", [SHELL, "-c", script], tmp_path / "log")
        await until(lambda: (tmp_path / "log").read_text())
        await child.stop(grace=0)
        assert await child.wait() == -signal.SIGKILL

    asyncio.run(run())
    assert not last_words.exists()


@pytest.mark.parametrize(
    ("script", "number"), [("echo; exec sleep 60", signal.SIGTERM), ("trap '' TERM; echo; sleep 60", signal.SIGKILL)]
)
def test_stop_asks_first_and_then_insists(tmp_path: Path, script: str, number: signal.Signals) -> None:
    async def run() -> int:
        child = await Child.start("x", [SHELL, "-c", script], tmp_path / "log")
        await until(lambda: (tmp_path / "log").read_text())
        await child.stop(grace=0.2 if number is signal.SIGKILL else 10)
        assert not child.running
        await child.stop()
        child.signal(signal.SIGUSR1)
        return await child.wait()

    assert asyncio.run(run()) == -number


def test_a_stop_that_is_cancelled_leaves_no_process_behind(tmp_path: Path) -> None:
    async def run() -> None:
        child = await Child.start("x", [SHELL, "-c", "trap '' TERM; echo; sleep 60"], tmp_path / "log")
        await until(lambda: (tmp_path / "log").read_text())
        task = asyncio.create_task(child.stop(grace=60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(10):
            assert await child.wait() == -signal.SIGKILL

    asyncio.run(run())


def test_a_program_is_run_to_its_end_for_what_it_prints() -> None:
    async def run(*argv: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        return await output_of([SHELL, "-c", *argv], 30, given, {"X": "y"})

    large = b"0123456789abcdef" * 65536
    assert asyncio.run(run("cat; echo $X >&2; exit 3", given=large)) == (3, large, b"y\n")
    assert asyncio.run(run("read x || echo nothing")) == (0, b"nothing\n", b"")
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(output_of(["/nonexistent/program"], 30))


@pytest.mark.parametrize("patience", [0.2, 60.0], ids=["too slow", "cancelled"])
def test_a_program_that_is_not_run_to_its_end_is_killed(tmp_path: Path, patience: float) -> None:
    """Nothing of it is left for the end of the event loop, which is closed right after."""
    began = tmp_path / "began"

    async def run() -> None:
        work = asyncio.create_task(
            output_of([SHELL, "-c", f"trap '' TERM; echo $$ >{began}; while :; do sleep 1; done"], patience)
        )
        await until(lambda: began.exists() and began.read_text().endswith("\n"))
        if patience == 60:
            work.cancel()
        await asyncio.wait([work], timeout=30)
        with pytest.raises(asyncio.CancelledError if patience == 60 else TimeoutError):
            work.result()

    faults: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, faults.append
    try:
        asyncio.run(run())
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert faults == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)


def test_it_does_not_get_our_terminals_ctrl_c() -> None:
    async def run() -> None:
        child = await Child.start("x", [SHELL, "-c", "exec sleep 60"])
        try:
            assert os.getsid(child.pid) == child.pid != os.getsid(0)
        finally:
            await child.stop()

    asyncio.run(run())


def test_status_in_words() -> None:
    assert status_text(0) == "exit status 0"
    assert status_text(78) == "exit status 78"
    assert status_text(-signal.SIGSEGV) == "SIGSEGV"
    assert status_text(-200) == "signal 200"


def test_backoff_grows_to_its_bound_and_starts_again() -> None:
    backoff = Backoff(first=1, last=10)
    delays = [backoff.next() for _ in range(20)]
    for number, delay in enumerate(delays):
        middle = min(2**number, 10)
        assert 0.75 * middle <= delay <= 1.25 * middle
    backoff.reset()
    assert backoff.next() <= 1.25


def test_a_program_is_run_again_also_where_the_kernel_refuses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("re6st.linux.process.Backoff", lambda: Backoff(0.001, 0.001))
    runs: list[int] = []

    async def once() -> str:
        runs.append(len(runs))
        if len(runs) == 1:
            raise KernelError("cannot bring re6stnet1 up: No such device")
        await asyncio.Event().wait()
        return ""

    async def run() -> None:
        task = asyncio.create_task(keep_running("x", once, None))
        await until(lambda: len(runs) == 2)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


# --- what a killed daemon left ---


def started(program: str, directory: Path, script: str) -> subprocess.Popen[bytes]:
    """A process of another parent's, with an argument inside the directory."""
    argv = [program, "-c", f"{script}; :", f"{directory}/babeld.conf"]
    process = subprocess.Popen(argv, executable=SHELL, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_only_our_programs_with_our_directory_are_leftovers(tmp_path: Path) -> None:
    script = "echo; read x; exit 0"
    mine = started("/usr/sbin/re6test-babeld", tmp_path / "run", script)
    others = [
        started("/usr/sbin/re6test-babeld", tmp_path / "run2", script),
        started("/usr/sbin/re6test-else", tmp_path / "run", script),
    ]
    try:
        programs = frozenset({"re6test-babeld", "re6test-openvpn"})
        assert leftovers(programs, tmp_path / "run").keys() == {mine.pid}
        assert set(leftovers(programs, tmp_path)) == {mine.pid, others[0].pid}
    finally:
        for process in (mine, *others):
            process.kill()
            process.communicate()
    assert not leftovers(programs, tmp_path / "run")


@pytest.mark.parametrize("script", ["echo; read x", "trap '' TERM; echo; read x"])
def test_leftovers_are_ended(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("re6st.linux.process.STOP_GRACE", 0.3)
    # A parent in between that reaps it, as init does.
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.argv[1], '-c', sys.argv[2], sys.argv[3]],"
        " executable='/bin/sh', stdin=subprocess.PIPE); p.wait()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, "re6test-babeld", script, f"{tmp_path}/x"], stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        (pid,) = leftovers(frozenset({"re6test-babeld"}), tmp_path)
        assert asyncio.run(end_leftovers(frozenset({"re6test-babeld"}), tmp_path)) == [pid]
        parent.wait(timeout=10)
        assert not leftovers(frozenset({"re6test-babeld"}), tmp_path)
    finally:
        parent.kill()
        parent.communicate()


def test_nothing_is_left(tmp_path: Path) -> None:
    assert asyncio.run(end_leftovers(frozenset({"re6test-babeld"}), tmp_path)) == []


def test_a_log_that_is_copied_and_truncated_goes_on_at_its_beginning(tmp_path: Path) -> None:
    async def test() -> None:
        log = tmp_path / "log"
        script = f"echo one; until [ -e {tmp_path}/log.1 ]; do sleep 0.01; done; echo two"
        child = await Child.start("x", [SHELL, "-c", script], log)
        while not log.read_text():
            await asyncio.sleep(0.01)
        os.truncate(log, 0)
        (tmp_path / "log.1").touch()
        await child.wait()
        assert log.read_text() == "two\n"

    asyncio.run(test())


def test_a_signal_that_comes_too_late_does_not_take_the_exit_status_away(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> int:
        child = await Child.start("x", [SHELL, "-c", "exit 3"])
        with contextlib.suppress(ChildProcessError):  # asyncio's thread was faster, where it has one
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        child.signal(signal.SIGTERM)  # it has ended, but the event loop does not know yet
        return await child.wait()

    assert {asyncio.run(run()) for _ in range(20)} == {3}
    assert not caplog.records


def test_a_process_that_somebody_else_started_is_watched_and_ended_too() -> None:
    async def run(process: subprocess.Popen[bytes]) -> None:
        child = Child.adopt("x", process.pid)
        assert child.pid == process.pid
        assert child.running
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await child.wait()
        assert child.running, "a wait that was given up changes nothing"
        await child.stop()
        assert not child.running
        assert await child.wait() == -signal.SIGTERM
        child.signal(signal.SIGTERM)
        await child.stop()
        with pytest.raises(ProcessLookupError):
            Child.adopt("x", process.pid)

    process = subprocess.Popen([SHELL, "-c", "read x"], stdin=subprocess.PIPE)
    try:
        asyncio.run(run(process))
    finally:
        process.kill()
        process.communicate()


def test_all_of_a_pipeline_ends() -> None:
    async def run() -> None:
        child = await Child.start("pipeline", ("/bin/sh", "-c", "sleep 1234.5 | sleep 1234.5; true"))
        group = Path("/proc")

        def members() -> list[str]:
            found = []
            for entry in group.iterdir():
                if entry.name.isdigit():
                    with contextlib.suppress(OSError, IndexError):
                        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                        if int(fields[2]) == child.pid and fields[0] != b"Z":
                            found.append(entry.name)
            return found

        async with asyncio.timeout(10):
            while len(members()) < 3:
                await asyncio.sleep(0.01)
            await child.stop()
            while members():
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_the_last_words_of_a_large_file_are_read_from_its_end(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        file.truncate(1 << 40)  # a hole: nobody could read it all
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert last_words(output) == "the end"


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "babeld: invalid option -- 'z'\nbabeld-1.13.1\nSyntax: babeld [-V] [-m multicast_address]\n"
            "               [-h hello] [-z kind[,factor]]\n               interface...\n\n",
            "babeld: invalid option -- 'z'",
        ),
        (
            "Options error: Unrecognized option: zzz (2.6.14)\nUse --help for more information.\n",
            "Options error: Unrecognized option: zzz (2.6.14)",
        ),
        ("Syntax: x\n", "no output"),
    ],
)
def test_the_reason_of_a_program_is_told_and_not_its_usage(tmp_path: Path, printed: str, reason: str) -> None:
    (tmp_path / "output").write_text(printed)
    assert last_words(tmp_path / "output") == reason


def test_a_program_that_writes_into_a_log_of_its_own_is_quoted_from_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """But not from what it wrote in a run before."""
    output, log_file = tmp_path / "output", tmp_path / "log"
    output.touch()
    log_file.write_text("of long ago\n")
    os.utime(log_file, (1, 1))
    runs = 0

    async def once() -> str:
        nonlocal runs
        runs += 1
        if runs == 2:
            log_file.write_text("Read-only file system\n")
        return "exit status 1"

    async def run() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                running = asyncio.create_task(keep_running("x", once, output, log_file))
                while len(caplog.records) < 2:
                    await asyncio.sleep(0.01)
                running.cancel()
                await asyncio.wait([running])

    asyncio.run(run())
    assert ["no output" in caplog.records[0].message, "Read-only file system" in caplog.records[1].message] == [
        True
    ] * 2
