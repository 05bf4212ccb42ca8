"""How fast a registry issues certificates, and whether it stays so.

    python -m bench.registry [--count 1000] [--known 0] [--parallel 16]

Starts a registry of its own on the loopback interface, in a directory of its own, and asks it for certificates with
requests made beforehand. Prints the rate over all, and of the first and the last hundred, which should be the same.
`--known` fills the database first. `--sessions` also measures hello and getNetworkConfig.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from re6st import PROTOCOL, cert
from re6st.core.allocator import ROOT
from re6st.core.prefix import Prefix
from re6st.core.rpc import HEADER, Ratchet, target
from re6st.ledger import Ledger, Slot
from re6st.store import Store

ROOT_DIRECTORY = Path(__file__).parent.parent
LENGTH = 24
"""Bits of the prefixes: room for more nodes than 16 bits have."""


class Service:
    """A registry in a process of its own."""

    def __init__(self, directory: Path, cpu: int | None) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run("init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous")
        pem = directory / "ca.crt"
        self.authority = cert.Authority(
            cert.load_pem(pem.read_bytes()), cert.load_private_key((directory / "ca.key").read_bytes())
        )
        self.database = directory / "registry.db"
        self._cpu = cpu
        self._process: subprocess.Popen[bytes] | None = None

    def fill(self, count: int, key: x509.CertificateSigningRequest) -> None:
        """Issue certificates without HTTP."""
        public = self.authority.check_request(key)
        now = datetime.now(UTC)

        def make(slot: Slot) -> x509.Certificate:
            return self.authority.issue(
                cert.subject_for(x509.Name([]), slot.number, slot.prefix), public, slot.serial, now
            )

        async def run(store: Store) -> None:
            def job(ledger: Ledger) -> None:
                for _ in range(min(1000, count)):
                    ledger.issue(ROOT, LENGTH, None, make)

            for _ in range(0, count, 1000):
                await store.call(job)

        store = Store(self.database, self.authority.trust.network)
        asyncio.run(run(store))
        store.close()

    async def start(self) -> None:
        options = ["--port", str(self.port), "--db", str(self.database), "-4", "127.0.0.1", "-6", ""]
        options += [
            "--logfile",
            str(self.directory / "log"),
            "--run",
            str(self.directory),
            "-v",
            "1",
            "--anonymous-prefix-length",
            str(LENGTH),
        ]
        command = [sys.executable, "-m", "re6st.cli.registry", f"@{self.directory}/re6st-registry.conf", *options]
        self._process = subprocess.Popen(command, cwd=self.directory, env=self._environment())
        if self._cpu is not None:
            os.sched_setaffinity(self._process.pid, {self._cpu})
        for _ in range(200):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.05)
        raise SystemExit("the registry did not start")

    def stop(self) -> float:
        """Stop it; the seconds of processor time it used."""
        if self._process is None:
            return 0.0
        ticks = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        self._process.terminate()
        self._process.wait()
        self._process = None
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")

    def _run(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "re6st.cli.registry", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=self._environment())

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT_DIRECTORY)}


async def get(port: int, path: str, header: str = "") -> bytes:
    """One call over a connection of its own; the body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    extra = f"{HEADER}: {header}\r\n" if header else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode("ascii"))
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"unexpected answer: {head[:200]!r}")
    return body


async def parallel(width: int, jobs: list[Callable[[], Awaitable[None]]]) -> list[float]:
    """Do all jobs, `width` at a time; when each was done, in seconds from the start, in order of time."""
    waiting = iter(jobs)
    start = time.perf_counter()
    done: list[float] = []

    async def worker() -> None:
        for job in waiting:
            await job()
            done.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(worker())
    return done


def rates(done: list[float]) -> dict[str, float]:
    """Per second: over all, and for the first and the last hundred."""
    part = min(100, len(done) // 2)
    return {
        "per_second": round(len(done) / done[-1], 1),
        "first_hundred": round(part / done[part - 1], 1),
        "last_hundred": round(part / (done[-1] - done[-part - 1]), 1),
    }


async def measure(service: Service, request: x509.CertificateSigningRequest, options: argparse.Namespace) -> None:
    pem = request.public_bytes(serialization.Encoding.PEM).decode("ascii")
    path = target("requestCertificate", {"token": "", "req": pem, "location": "", "ip": ""})
    prefixes: list[Prefix] = []

    async def enrol() -> None:
        prefixes.append(cert.prefix_of_cert(cert.load_pem(await get(service.port, path))))

    await service.start()
    done = await parallel(options.parallel, [enrol] * options.count)
    used = service.stop()
    result = {"certificates": options.count, "known_before": options.known, **rates(done)}
    print(json.dumps(result | {"per_cpu_second": round(options.count / used, 1)}))
    if len(set(prefixes)) != options.count:
        raise SystemExit("a prefix was given twice")


async def measure_sessions(service: Service, options: argparse.Namespace) -> None:
    """hello and getNetworkConfig, for a node of its own each time."""
    private = cert.load_private_key((service.directory / "node.key").read_bytes())

    async def session(prefix: Prefix) -> None:
        hello = await get(service.port, target("hello", {"client_prefix": prefix.bits, "protocol": str(PROTOCOL)}))
        ratchet = Ratchet(cert.decrypt(private, hello[: len(hello) // 2]))
        path = target("getNetworkConfig", {"cn": prefix.bits})
        await get(service.port, path, ratchet.sign(path.encode("ascii")))

    await service.start()
    prefixes = [Prefix(number, LENGTH) for number in range(options.count)]
    done = await parallel(options.parallel, [partial(session, prefix) for prefix in prefixes])
    used = service.stop()
    print(json.dumps({"sessions": len(done), **rates(done), "per_cpu_second": round(len(done) / used, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="certificates to ask for")
    parser.add_argument("--known", type=int, default=0, help="certificates that are there before")
    parser.add_argument("--parallel", type=int, default=16, help="clients at a time")
    parser.add_argument("--cpu", type=int, help="processor for the registry")
    parser.add_argument("--sessions", action="store_true", help="measure sessions too")
    options = parser.parse_args()
    key = cert.new_key()
    request = cert.new_request(key)
    with tempfile.TemporaryDirectory() as directory:
        service = Service(Path(directory), options.cpu)
        (service.directory / "node.key").write_bytes(cert.key_to_pem(key))
        try:
            if options.known:
                service.fill(options.known, request)
            asyncio.run(measure(service, request, options))
            if options.sessions:
                asyncio.run(measure_sessions(service, options))
        finally:
            service.stop()


if __name__ == "__main__":
    main()
