"""Bad days of a registry's machine: it says what is wrong, refuses rather than answer wrongly, and goes on later."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.cli.registry import main as registry
from re6st.core.wire.rpc import target
from tests.stress.checker import Checker

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
DISK = "disk"
"""Directory of the database."""

# The registry with a clock that is wrong by what a file says.
CLOCK = """
import sys, time
from pathlib import Path
right = time.time
time.time = lambda: right() + float(Path("wrong").read_text())
from re6st.cli.registry.main import main
sys.exit(main())
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


class Process:
    """A registry, started by some other command if wanted."""

    def __init__(
        self,
        directory: Path,
        wrap: tuple[str, ...] = (),
        program: tuple[str, ...] = (),
        log: str = "log",
        options: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        command = [*wrap, sys.executable, *(program or ("-m", "re6st.cli.registry.main"))]
        command += ["@re6st-registry.conf", "--port", str(self.port), "-4", "127.0.0.1", "-6", ""]
        command += ["--db", f"{DISK}/registry.db", "-l", log, "-r", ".", *options]
        self.process = subprocess.Popen(
            command, cwd=directory, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
        )

    @property
    def disk(self) -> Path:
        """The directory of the database as the registry sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.directory}/{DISK}")

    def ask(self, method: str, **arguments: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{target(method, arguments)}", timeout=30
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""

    def answers(self) -> bool:
        try:
            return self.ask("getCa")[0] == 200
        except OSError:
            assert self.process.poll() is None, self.process.communicate()
            return False

    def finish(self) -> tuple[int, str]:
        """Its status and what it said on standard error."""
        _, error = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, error


class Clients:
    """What they received."""

    def __init__(self) -> None:
        self._request = cert.new_request(cert.new_key()).public_bytes(serialization.Encoding.PEM).decode()
        self.certificates: list[str] = []

    def enrol(self, registry: Process) -> int:
        status, body = registry.ask("requestCertificate", token="", req=self._request)
        if status == 200:
            self.certificates.append(body.decode())
        return status

    def request_line(self) -> bytes:
        path = target("requestCertificate", {"token": "", "req": self._request})
        return f"GET {path} HTTP/1.1\r\n".encode()

    def check(self, path: Path) -> None:
        """All is there, and nothing else."""
        checker = Checker(path)
        assert checker.problems() == []
        assert sorted(checker.certificates().values()) == sorted(self.certificates)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The files of a new network."""
    made = tmp_path / "etc"
    assert registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(made), "--anonymous"]) == 0
    (made / DISK).mkdir()
    return made


@contextlib.contextmanager
def running(started: Process) -> Iterator[Process]:
    """Until the end of the test, which it must survive; it has no more to say than what is in its log."""
    try:
        wait_until(started.answers)
        yield started
        if started.process.poll() is None:
            started.process.terminate()
            assert started.finish() == (0, "")
    finally:
        started.process.kill()
        started.process.communicate()


def mounted(*more: str) -> tuple[str, ...]:
    """Start a command with a small disk that only it sees."""
    script = " && ".join((f"mount -t tmpfs -o size=512k,mode=755 tmpfs {DISK}", *more, 'exec "$@"'))
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def fill(registry: Process) -> Path:
    """Fill the disk, with a file to be deleted."""
    path = registry.disk / "fill"
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def copy(registry: Process, to: Path) -> Path:
    """SQLite cannot open a database that lies in somebody else's file system."""
    for name in ("registry.db", "registry.db-wal"):
        (to / name).write_bytes((registry.disk / name).read_bytes())
    return to / "registry.db"


@needs_root
def test_a_full_disk(directory: Path, tmp_path: Path) -> None:
    clients = Clients()
    with running(Process(directory, wrap=mounted())) as registry:
        assert [clients.enrol(registry) for _ in range(3)] == [200] * 3
        full = fill(registry)
        statuses = [clients.enrol(registry) for _ in range(30)]
        assert set(statuses) <= {200, 503}
        assert statuses[-10:] == [503] * 10
        assert registry.ask("addToken", email="a@b.c", token="sesame")[0] == 503
        assert registry.ask("isToken", token="sesame")[0] == 204
        assert registry.ask("hello", client_prefix="0" * 16)[0] == 200, "who only reads is served"
        clients.check(copy(registry, tmp_path))
        log = (directory / "log").read_text()
        assert f"database {DISK}/registry.db: " in log
        assert "is full" in log
        assert "Traceback" not in log
        full.unlink()
        assert [clients.enrol(registry) for _ in range(3)] == [200] * 3
        clients.check(copy(registry, tmp_path))


@needs_root
def test_a_full_disk_with_the_log_on_it(directory: Path) -> None:
    clients = Clients()
    with running(Process(directory, mounted(), log=f"{DISK}/log")) as registry:
        assert clients.enrol(registry) == 200
        full = fill(registry)
        assert clients.enrol(registry) in (200, 503)
        assert {clients.enrol(registry) for _ in range(100)} <= {200, 503}
        full.unlink()
        assert clients.enrol(registry) == 200
        assert f"database {DISK}/registry.db: " in (registry.disk / "log").read_text()
        registry.process.terminate()
        status, error = registry.finish()
        assert status == 0
        assert error.count("cannot write the log") == error.count("\n"), error


@needs_root
def test_a_full_disk_at_start(directory: Path) -> None:
    started = Process(directory, wrap=mounted(f"cat /dev/zero >{DISK}/fill 2>/dev/null || true"))
    status, error = started.finish()
    assert (status, error.count("\n")) == (1, 1), error
    assert error.startswith(f"re6st-registry: database {DISK}/registry.db: database or disk is full. Make room")


@needs_root
def test_a_read_only_disk_at_start(directory: Path) -> None:
    started = Process(directory, wrap=mounted(f"touch {DISK}/registry.db", f"mount -o remount,ro {DISK}"))
    status, error = started.finish()
    assert (status, error.count("\n")) == (1, 1), error
    assert f"database {DISK}/registry.db: Read-only file system" in error


def test_a_database_locked_by_another_program(directory: Path) -> None:
    clients = Clients()
    with running(Process(directory)) as registry:
        assert clients.enrol(registry) == 200
        with contextlib.closing(sqlite3.connect(directory / DISK / "registry.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert clients.enrol(registry) == 503
            assert registry.ask("hello", client_prefix="0" * 16)[0] == 200
            other.execute("ROLLBACK")
        assert clients.enrol(registry) == 200
        assert "database is locked" in (directory / "log").read_text()
        clients.check(directory / DISK / "registry.db")


def test_a_database_locked_at_start(directory: Path) -> None:
    with running(Process(directory)) as registry:
        Clients().enrol(registry)
    with contextlib.closing(sqlite3.connect(directory / DISK / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        status, error = Process(directory).finish()
        assert (status, error.count("\n")) == (1, 1), error
        assert f"database {DISK}/registry.db: database is locked. Another program holds it" in error
        other.execute("ROLLBACK")
    with running(Process(directory)) as registry:
        pass


def test_a_clock_that_jumps(directory: Path) -> None:
    wrong, clients = directory / "wrong", Clients()
    year = 365 * 86400

    def jump(seconds: int) -> None:
        wrong.with_name("new").write_text(str(seconds))
        wrong.with_name("new").rename(wrong)

    jump(0)
    database = directory / DISK / "registry.db"
    for ahead in (year, 5 * year, -year):
        with running(Process(directory, program=("-c", CLOCK))) as registry:
            assert [clients.enrol(registry) for _ in range(2)] == [200] * 2
            jump(ahead)
            assert clients.enrol(registry) == 503
            assert registry.ask("getCa")[0] == 200
        with running(Process(directory, program=("-c", CLOCK))) as registry:
            assert clients.enrol(registry) == 503, "a restart does not make it right"
            clients.check(database)
            jump(0)
            assert clients.enrol(registry) == 200, "without a restart"
    clients.check(database)
    jump(year)
    with running(Process(directory, program=("-c", CLOCK), options=("--trust-clock",))) as registry:
        assert clients.enrol(registry) == 200, "the operator says that it is right"
    with running(Process(directory, program=("-c", CLOCK))) as registry:
        assert clients.enrol(registry) == 200
    log = (directory / "log").read_text()
    assert log.count("--trust-clock") == 6, "said once for each jump, and again after each restart"
    assert log.count("the clock is plausible again") == 3


def test_sigterm_finishes_what_it_answers(directory: Path) -> None:
    """Somebody waits for a certificate, which a locked database delays, and somebody is slow to read."""
    clients = Clients()
    with running(Process(directory)) as registry, contextlib.ExitStack() as stack:
        assert clients.enrol(registry) == 200
        other = stack.enter_context(
            contextlib.closing(sqlite3.connect(directory / DISK / "registry.db", isolation_level=None))
        )
        other.execute("BEGIN IMMEDIATE")
        waiting = stack.enter_context(socket.create_connection(("127.0.0.1", registry.port), LIMIT))
        waiting.sendall(clients.request_line() + b"Host: localhost\r\n\r\n")
        slow = stack.enter_context(socket.socket())
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.settimeout(LIMIT)
        slow.connect(("127.0.0.1", registry.port))
        slow.sendall(b"GET /getCa HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(3):
            assert registry.answers(), "so those two were heard"
        registry.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(registry.port))
        assert registry.process.poll() is None
        other.execute("ROLLBACK")
        head, _, body = read_all(waiting).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        clients.certificates.append(body.decode())
        assert registry.finish() == (0, "")
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"-----END CERTIFICATE-----\n")
    clients.check(directory / DISK / "registry.db")


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(100), b""))


def is_listening(port: int) -> bool:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)
