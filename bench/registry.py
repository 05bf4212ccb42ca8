"""How fast a registry is on one processor core, and whether it stays so as the network grows.

- certificates: issued a second over HTTP, with ever more of them issued before;
- sessions: hello and getNetworkConfig a second, each session of another node;
- start: until a registry with all these certificates answers, and its memory; also on a database that is new to it;
- crowd: sessions again, while 1,000 connections are held by clients that say nothing or a byte a second;
- reference: certificates and sessions of the deployed software, where it can be installed.

The registry has one processor, the load comes from another one, over the loopback interface; certificate requests are
made beforehand. "per cpu s" is what the server did in a second of its own processor time: it counts where the load
generator is slower than the server, or the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from bench.support.load import Client, LoadError, Run, request
from bench.support.service import CHECKOUT, LENGTH, LOAD_CPU, OURS, Process, Service, ServiceError
from re6st import PROTOCOL, cert
from re6st.cli.terminal import show
from re6st.core.prefix import Prefix
from re6st.core.wire.rpc import Ratchet, target
from re6st.view.screen import Column, Line
from re6st.view.screen import table as aligned
from testbed import reference

PARTS = ("certificates", "sessions", "start", "crowd", "reference")
SIZES = (0, 1_000, 10_000, 100_000)
"""Certificates issued before."""
REFERENCE_CERTIFICATES = {0: 200, 1_000: 60}
"""The same for the reference, and how many more it is asked for."""
REFERENCE_PARALLEL = 8
"""Clients at once that suit it best: with more, connections fail."""
CROWD = (800, 200)
"""Clients that hold connections: silent ones, slow ones."""
CROWD_ROUNDS = 2
"""With and without them in turn, and the best of each is compared: what else the machine does only slows."""
COLUMNS = {
    "per_second": "per s",
    "first_quarter": "at first",
    "last_quarter": "at last",
    "per_cpu_second": "per cpu s",
    "median_ms": "median ms",
    "p99_ms": "p99 ms",
    "memory_mb": "MB",
    "seconds": "start s",
}
RESULTS = Path(__file__).parent / "results" / "registry.json"

Figures = dict[str, Any]


class Benchmark:
    """One run of the benchmark, and what it found."""

    def __init__(
        self,
        directory: Path,
        *,
        scale: float = 1.0,
        parallel: int = 32,
        sessions: int = 4000,
        crowd: tuple[int, int] = CROWD,
    ) -> None:
        """`scale` multiplies the number of calls of each measure; `parallel` clients are served at once."""
        self.results: dict[str, list[Figures]] = {}
        self._directory = directory
        self._scale = scale
        self._parallel = parallel
        self._session_count = sessions
        self._crowd = crowd
        self._key = cert.new_key()
        self._request = cert.new_request(self._key).public_bytes(serialization.Encoding.PEM).decode("ascii")

    def ours(self, parts: Sequence[str], sizes: Sequence[int]) -> None:
        """The parts that measure this checkout, with so many certificates issued before; sessions with the most."""
        for issued in sizes if "certificates" in parts else sizes[-1:]:
            service = self._service(issued, OURS)
            if "start" in parts:
                self._add("start", self._start(service, issued))
            if "certificates" in parts:
                self._add("certificates", self._certificates(service, issued, 2000, self._parallel))
        if "sessions" in parts:
            self._add("sessions", self._sessions(service, issued, self._session_count, self._parallel))
        for _ in range(CROWD_ROUNDS if "crowd" in parts else 0):
            self._add("sessions beside a crowd", self._sessions(service, issued, 12_000, self._parallel, crowd=True))
            self._add("sessions", self._sessions(service, issued, self._session_count, self._parallel))
        if "start" in parts:
            service.make_foreign()
            self._add("start on the reference's database", self._start(service, issued))

    def theirs(self) -> None:
        """The deployed software, as far as its speed allows. Raises InstallError."""
        command = reference.theirs(reference.install(), "re6st-registry")
        for issued, count in REFERENCE_CERTIFICATES.items():
            service = self._service(issued, command)
            service.make_foreign()
            figures = self._certificates(service, issued, count, REFERENCE_PARALLEL)
            self._add("certificates, reference", figures)
        self._add("sessions, reference", self._sessions(service, issued, 400, REFERENCE_PARALLEL))

    # --- measures ---

    def _certificates(self, service: Service, issued: int, count: int, parallel: int) -> Figures:
        arguments = {"token": "", "req": self._request, "location": "", "ip": ""}
        data = request(target("requestCertificate", arguments))
        answers: list[bytes] = []

        def client() -> Client:
            answers.append((yield data))

        with service.running() as process:
            clients = (client() for _ in range(self._count(count)))
            figures = self._measure("certificates", issued, process, Run(service.port, parallel, clients))
        if len({cert.prefix_of_cert(cert.load_pem(answer)) for answer in answers}) != len(answers):
            raise LoadError("a prefix was given twice")
        return figures

    def _sessions(self, service: Service, issued: int, count: int, parallel: int, *, crowd: bool = False) -> Figures:
        """Sessions of one node after the other; these have the first prefixes."""

        def client(number: int) -> Client:
            bits = Prefix(number, LENGTH).bits
            hello = yield request(target("hello", {"client_prefix": bits, "protocol": str(PROTOCOL)}))
            ratchet = Ratchet(cert.decrypt(self._key, hello[: len(hello) // 2]))
            path = target("getNetworkConfig", {"cn": bits})
            yield request(path, ratchet.sign(path.encode("ascii")))

        with service.running() as process, _crowd(service.port, *(self._crowd if crowd else (0, 0))) as lines:
            clients = (client(number % max(issued, 1)) for number in range(self._count(count)))
            figures = self._measure("sessions", issued, process, Run(service.port, parallel, clients))
        if crowd:
            figures["fewest_connected"] = int(lines[-1])
        return figures

    def _start(self, service: Service, issued: int) -> Figures:
        self._say(f"start with {issued:,} issued")
        with service.running() as process:
            return {"issued": issued, "seconds": round(process.start_seconds, 2), **process.memory()}

    def _measure(self, what: str, issued: int, process: Process, run: Run) -> Figures:
        before = process.cpu_seconds()
        run.drive(lambda done: self._say(f"{what} with {issued:,} issued: {done:,}"))
        used = process.cpu_seconds() - before
        figures = run.figures()
        return {
            "issued": issued,
            **figures,
            "per_cpu_second": round(figures["count"] / max(used, 0.01)),
            **process.memory(),
        }

    # --- helpers ---

    def _service(self, issued: int, command: Sequence[str]) -> Service:
        """A registry with a database of its own, with so many certificates in it."""
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        service = Service(directory, command)
        service.fill(
            issued, self._key.public_key(), lambda count: self._say(f"making {issued:,} certificates: {count:,}")
        )
        return service

    def _count(self, count: int) -> int:
        return max(8, int(count * self._scale))

    def _add(self, name: str, figures: Figures) -> None:
        self.results.setdefault(name, []).append(figures)
        rate = f": {figures['per_second']:,} a second" if "per_second" in figures else ""
        self._say("")
        print(f"{name} with {figures['issued']:,} issued{rate}")

    def _say(self, text: str) -> None:
        """What is being done now, where somebody watches."""
        if sys.stdout.isatty():
            print(text.ljust(70), end="\r", flush=True)


@contextmanager
def _crowd(port: int, silent: int, slow: int) -> Iterator[list[str]]:
    """Clients that only hold connections; afterwards, what they printed."""
    command = [sys.executable, "-m", "bench.support.crowd", str(port), str(silent), str(slow)]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines.append(process.stdout.readline())
            yield lines
        finally:
            process.terminate()
            lines += process.communicate(timeout=20)[0].split()


def table(results: Figures) -> list[Line]:
    """The figures for the terminal."""
    rows = [
        [name, f"{row['issued']:,}", *(f"{row[key]:,}" if key in row else "" for key in COLUMNS)]
        for name, measured in results.items()
        for row in measured
    ]
    return aligned([Column(""), *(Column(name, right=True) for name in ("issued", *COLUMNS.values()))], rows)


def ratios(results: Figures) -> dict[str, dict[str, float]]:
    """What we do for one that the reference does, and what a crowd leaves of the sessions: by wall clock, by processor
    time."""

    def find(name: str, issued: int | None) -> Figures:
        rows = (row for row in results.get(name, ()) if issued in (None, row["issued"]))
        return max(rows, key=lambda row: float(row["per_second"]), default={})

    pairs = {
        f"certificates, {issued:,} issued: ours to the reference's": (
            find("certificates", issued),
            find("certificates, reference", issued),
        )
        for issued in REFERENCE_CERTIFICATES
    }
    sessions = find("sessions", None)
    pairs["sessions: ours to the reference's"] = sessions, find("sessions, reference", None)
    pairs["sessions: beside a crowd to without it"] = find("sessions beside a crowd", None), sessions
    return {
        name: {key: round(ours[key] / other[key], 2) for key in ("per_second", "per_cpu_second")}
        for name, (ours, other) in pairs.items()
        if ours and other
    }


def machine() -> dict[str, str]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "cryptography")},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="./run bench registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls, up to 1,000 certificates before")
    parser.add_argument("--parallel", type=int, default=32, metavar="N", help="clients at a time (default: 32)")
    parser.add_argument("--sessions", type=int, default=4000, metavar="N", help="sessions to measure (default: 4000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: bench/results/registry.json)")
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, {LOAD_CPU})
    with tempfile.TemporaryDirectory() as directory:
        benchmark = Benchmark(
            Path(directory),
            scale=0.1 if options.quick else 1.0,
            parallel=options.parallel,
            sessions=options.sessions,
        )
        try:
            benchmark.ours(options.parts, SIZES[:2] if options.quick else SIZES)
            if "reference" in options.parts:
                benchmark.theirs()
        except reference.InstallError as error:
            print(f"no reference: {error}")
        except (LoadError, ServiceError) as error:
            print(f"bench registry: {error}", file=sys.stderr)
            return 1
    results = benchmark.results
    show(table(results))
    for name, ratio in ratios(results).items():
        print(f"{name}: {ratio['per_second']}, by processor time {ratio['per_cpu_second']}")
    if path := options.json or (None if options.quick else RESULTS):
        path.parent.mkdir(exist_ok=True)
        found = {"machine": machine(), "results": results, "ratios": ratios(results)}
        path.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
