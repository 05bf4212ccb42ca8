"""Registries to measure, of this checkout or the deployed software: each a process of its own, on one processor."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.core.registry.allocator import ROOT
from re6st.core.wire.params import KEY_LENGTH
from re6st.linux import disk
from re6st.registryd.records import Slot
from re6st.registryd.repository import Changes
from re6st.registryd.sqlite.store import Store

CHECKOUT = Path(__file__).parents[2]
OURS = [sys.executable, "-m", "re6st.cli.registry.main"]
NETWORK = IPv6Network("2001:db8:42::/48")
LENGTH = 24
"""Bits of the prefixes: room for more nodes than 16 bits have."""
_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = _CPUS[0], _CPUS[-1]
START_LIMIT = 120.0
BATCH = 1000


class ServiceError(Exception):
    """A registry did not start."""


class Service:
    """The files of a registry, and its process when it runs."""

    def __init__(self, directory: Path, command: Sequence[str] = OURS) -> None:
        self.directory = directory
        self.database = directory / "registry.db"
        self.port = _free_port()
        self._command = [*command, *self._options()]
        self._process: subprocess.Popen[bytes] | None = None
        key = cert.new_key()
        ca = cert.new_ca(key, NETWORK, "bench", "ca@example.org", datetime.now(UTC) - timedelta(hours=1))
        self.authority = cert.Authority(ca, key)
        (directory / "ca.crt").write_bytes(cert.to_pem(ca))
        disk.write_private(directory / "ca.key", cert.key_to_pem(key))
        (directory / "dh.pem").write_text("-----BEGIN DH PARAMETERS-----\nMAYCAQ8CAQI=\n-----END DH PARAMETERS-----\n")

    def _options(self) -> Iterator[str]:
        for option, file in (("--ca", "ca.crt"), ("--key", "ca.key"), ("--dh", "dh.pem")):
            yield from (option, str(self.directory / file))
        yield from ("--port", str(self.port), "-4", "127.0.0.1", "-6", "")
        yield from ("--db", str(self.database), "--logfile", str(self.directory / "log"), "--run", str(self.directory))
        yield from ("--anonymous-prefix-length", str(LENGTH))

    # --- its database ---

    def fill(self, total: int, key: rsa.RSAPublicKey, tick: Callable[[int], None]) -> None:
        """Issue so many certificates, all for this key: without HTTP, many at a time."""
        if total:
            asyncio.run(self._fill(total, key, tick))

    async def _fill(self, total: int, key: rsa.RSAPublicKey, tick: Callable[[int], None]) -> None:
        now = datetime.now(UTC)

        def make(slot: Slot) -> x509.Certificate:
            subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
            return self.authority.issue(subject, key, slot.serial, now)

        def issue(changes: Changes, count: int) -> None:
            if changes.registry_prefix() is None:
                changes.set_config("babel_hmac0", secrets.token_bytes(KEY_LENGTH))
            for _ in range(count):
                changes.issue(ROOT, LENGTH, None, make)

        with closing(Store(self.database, NETWORK)) as store:
            for first in range(0, total, BATCH):
                count = min(BATCH, total - first)
                await store.change(partial(issue, count=count))
                tick(first + count)

    def make_foreign(self) -> None:
        """Make the database one that the PyPI release of the deployed software wrote."""
        with closing(sqlite3.connect(self.database)) as db, db:
            ours = "SELECT type, name FROM sqlite_master WHERE name LIKE 're6st%' ORDER BY type = 'table'"
            for kind, name in db.execute(ours).fetchall():
                db.execute(f"DROP {kind} {name}")
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'cert'").fetchone():
                db.execute("UPDATE cert SET cert = CAST(cert AS BLOB)")

    # --- its process ---

    @contextmanager
    def running(self) -> Iterator[Process]:
        """The registry, serving."""
        began = time.perf_counter()
        with open(self.directory / "out", "ab") as output:
            process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
                stdout=output,
                stderr=output,
                preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CPU}),
            )
        try:
            self._wait(process)
            yield Process(process.pid, time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/getCa", timeout=5) as answer:
                    answer.read()
                    return
            except OSError:
                time.sleep(0.01)
        raise ServiceError(f"the registry did not start: {(self.directory / 'out').read_text()[-1000:]}")


class Process:
    """What a running registry uses."""

    def __init__(self, pid: int, start_seconds: float) -> None:
        self.start_seconds = start_seconds
        """From its start to its first answer."""
        self._proc = Path(f"/proc/{pid}")

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, float]:
        """Resident memory in MB: now, and at most so far."""
        lines = dict(line.split(":", 1) for line in (self._proc / "status").read_text().splitlines())
        return {name: round(int(lines[field].split()[0]) / 1024, 1) for name, field in _MEMORY.items()}


_MEMORY = {"memory_mb": "VmRSS", "peak_mb": "VmHWM"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
