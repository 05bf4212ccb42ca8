"""A PostgreSQL of Debian's package for tests: its own data, on a unix socket, as a user who is not root."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path

import psycopg

from re6st.registryd.postgresql.store import PostgresStore

Opener = Callable[[IPv6Network], PostgresStore]

BINARIES = Path("/usr/lib/postgresql")
USER = "postgres"
START_TIMEOUT = 60.0
FAST = ("fsync=off", "full_page_writes=off")
"""For tests that pull no plug."""
SETTINGS = ("listen_addresses=", "shared_buffers=32MB", "max_wal_size=256MB", "max_connections=60", "jit=off")


def binaries() -> Path | None:
    """The directory of the newest server's programs; None if none is installed."""
    found = sorted(BINARIES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Cluster:
    """One server. Databases in it are made by `database`."""

    def __init__(self, *settings: str) -> None:
        programs = binaries()
        assert programs is not None, "PostgreSQL is not installed: ./run test installs it"
        self._programs = programs
        self._settings = (*SETTINGS, *settings)
        self._numbers = itertools.count()
        self.directory = Path(tempfile.mkdtemp(prefix="re6st-postgresql-"))
        self._who: dict[str, object] = {}
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            user = pwd.getpwnam(USER)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", str(self.data), "-U", "re6st", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://re6st@/{name}?host={self.directory}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"registry{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """What somebody else does in a database."""
        with psycopg.connect(url or self.url(), autocommit=True) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        options = [word for setting in self._settings for word in ("-c", setting)]
        command = [str(self._programs / "postgres"), "-D", str(self.data), "-k", str(self.directory), *options]
        log = (self.directory / "log").open("ab")
        self._server = subprocess.Popen(command, stdout=log, stderr=log, **self._who)  # type: ignore[call-overload]
        log.close()
        end = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < end, (self.directory / "log").read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would; what was committed is there after the next start."""
        if self._server is not None:
            self._server.send_signal(3)  # SIGQUIT: the server ends its processes too
            self._server.wait(timeout=START_TIMEOUT)
            self._server = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._who)  # type: ignore[call-overload]


def in_postgresql(url: str) -> Opener:
    """Opens the state of a registry."""
    return lambda network: PostgresStore(url, network)
