"""TCP flows from one host to another one, as fast as they go: what arrives, and how long nothing does.

Each end is a process of its own, so that what a test or benchmark does meanwhile holds nothing up. Run by hosts as
`python -m testbed.flows`; `Flows` starts both ends, and reads what the receiving one has seen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.host import Host

ROOT = Path(__file__).resolve().parent.parent
IPPROTO_MPTCP = 262  # linux/in.h
SLOT = 0.1
"""Seconds of which each is counted for itself."""
CHUNK = 1 << 16
STEP = 0.2
STARTS = 20.0
BACKLOG = 64
LATE = 15.0
"""Seconds more that the ends may take."""


@dataclass(slots=True)
class Received:
    """What came by one flow. Times are seconds since the first byte of any of them."""

    slots: list[int]
    """Bytes in each tenth of a second."""
    last: float | None = None
    stall: float = 0.0
    """The longest time in which nothing came."""
    stalled_at: float = 0.0
    """When that ended."""
    ended: str = ""
    """Why the connection ended before its time."""

    def note(self, now: float, count: int) -> None:
        slot = int(now / SLOT)
        if slot < len(self.slots):
            self.slots[slot] += count
        if count:
            if self.last is not None:
                self.wait(now)
            self.last = now

    def wait(self, now: float) -> None:
        if self.last is not None and now - self.last > self.stall:
            self.stall, self.stalled_at = now - self.last, now


@dataclass
class Result:
    """What a run brought to the other end."""

    flows: list[Received] = field(default_factory=list)

    def mbits(self, after: float = 0.0, until: float = float("inf")) -> float:
        """Mbit/s of all together, between these seconds."""
        length = max((len(each.slots) for each in self.flows), default=0)
        first, last = int(after / SLOT), min(length, int(min(until, 1e6) / SLOT))
        total = sum(sum(each.slots[first:last]) for each in self.flows)
        return total * 8 / max(1, last - first) / SLOT / 1e6

    @property
    def stall(self) -> float:
        """The longest time in which one of them got nothing, in seconds."""
        return max((each.stall for each in self.flows), default=0.0)

    @property
    def ended(self) -> int:
        """How many ended before their time."""
        return sum(bool(each.ended) for each in self.flows)


class Flows:
    """So many connections, which `opener` makes to an address of `other`; `down`: the other one sends.

    With `mptcp` they are of MPTCP, and have the subflows that the kernels make.
    """

    def __init__(
        self,
        opener: Host,
        other: Host,
        address: IPv4Address | IPv6Address | str,
        *,
        count: int = 1,
        seconds: float = 5.0,
        down: bool = False,
        mptcp: bool = False,
        port: int = 5301,
        congestion: str = "cubic",
    ) -> None:
        self._opener, self._other = opener, other
        words = [str(ip_address(str(address))), str(port), str(count), f"{seconds:g}", congestion]
        words += ["down" if down else "up", *(["--mptcp"] if mptcp else [])]
        self._seconds = seconds
        self._words = words
        self._down = down
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Begin. Raises AssertionError where the other end does not listen in time."""
        listening = self._start(self._other, "listen")
        assert listening.stdout is not None
        said = listening.stdout.readline().strip()
        assert said == "listening", f"flows on {self._other.name}: {said!r}"
        self._start(self._opener, "connect")

    def result(self) -> Result:
        """Wait until they end. Raises AssertionError where an end failed."""
        texts = []
        try:
            for process in self._processes:
                out, _ = process.communicate(timeout=self._seconds + STARTS + LATE)
                assert process.returncode == 0, f"flows ended with status {process.returncode}"
                texts.append(out)
        finally:
            self.close()
        text = texts[1 if self._down else 0]
        said: list[dict[str, Any]] = json.loads(text.strip().splitlines()[-1])
        return Result([Received(**each) for each in said])

    def run(self) -> Result:
        """From the beginning to the end."""
        self.start()
        return self.result()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _start(self, host: Host, end: str) -> subprocess.Popen[str]:
        argv = host.argv([sys.executable, "-m", "testbed.flows", end, *self._words])
        with open(host.log / "flows.log", "ab") as errors:
            process = subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._processes.append(process)
        return process


# --- the ends ---


@contextlib.contextmanager
def _sockets(options: argparse.Namespace) -> Iterator[list[socket.socket]]:
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    kind = IPPROTO_MPTCP if options.mptcp else socket.IPPROTO_TCP
    with contextlib.ExitStack() as stack:

        def made() -> socket.socket:
            own = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, kind))
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
            own.settimeout(STARTS)
            return own

        found = []
        if options.end == "listen":
            # It is there until the end: further subflows of MPTCP come to it.
            listener = made()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Subflows of MPTCP come to other addresses, too.
            anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
            listener.bind((anywhere if options.mptcp else options.address, options.port))
            listener.listen(options.count + BACKLOG)
            print("listening", flush=True)
            found = [stack.enter_context(listener.accept()[0]) for _ in range(options.count)]
        else:
            for _ in range(options.count):
                found.append(made())
                found[-1].connect((options.address, options.port))
        for own in found:
            own.setblocking(False)
        yield found


def _send(sockets: Sequence[socket.socket], seconds: float) -> None:
    until, data = time.monotonic() + seconds, bytes(CHUNK)
    with selectors.DefaultSelector() as selector:
        for own in sockets:
            selector.register(own, selectors.EVENT_WRITE, own)
        while (left := until - time.monotonic()) > 0 and selector.get_map():
            for key, _ in selector.select(min(left, STEP)):
                own = key.data
                try:
                    own.send(data)
                except BlockingIOError:
                    continue
                except OSError as error:
                    print(f"sending: {error}", file=sys.stderr, flush=True)
                    selector.unregister(own)
                    own.close()


def _receive(sockets: Sequence[socket.socket], seconds: float) -> list[Received]:
    found = {own: Received([0] * max(1, round(seconds / SLOT))) for own in sockets}
    began: float | None = None
    given_up = time.monotonic() + STARTS
    with selectors.DefaultSelector() as selector:
        for own in sockets:
            selector.register(own, selectors.EVENT_READ, own)
        while selector.get_map():
            ready = selector.select(STEP)
            now = time.monotonic()
            if began is None and (ready or now > given_up):
                began = now
            if began is not None and now - began >= seconds:
                break
            for key, _ in ready:
                own = key.data
                assert began is not None
                try:
                    data = own.recv(4 * CHUNK)
                except BlockingIOError:
                    continue
                except OSError as error:
                    data, found[own].ended = b"", str(error)
                if data:
                    found[own].note(now - began, len(data))
                else:
                    # The sender stops at its own time, which is about ours.
                    early = now - began < seconds - 1
                    found[own].ended = found[own].ended or ("closed" if early else "")
                    selector.unregister(own)
    for each in found.values():
        if not each.ended:
            each.wait(seconds)
    return list(found.values())


def main() -> int:
    """One end."""
    parser = argparse.ArgumentParser(prog="python -m testbed.flows")
    parser.add_argument("end", choices=("listen", "connect"))
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("congestion")
    parser.add_argument("way", choices=("up", "down"))
    parser.add_argument("--mptcp", action="store_true")
    options = parser.parse_args()
    with _sockets(options) as sockets:
        if (options.end == "connect") == (options.way == "up"):
            # The other end counts from its first byte on, and is to see no end before that.
            _send(sockets, options.seconds + 2)
        else:
            found = _receive(sockets, options.seconds)
            said = [{name: getattr(each, name) for name in Received.__slots__} for each in found]
            print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
