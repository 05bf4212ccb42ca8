"""Hosts, switches and NAT routers out of network namespaces.

Everything a bed makes is in namespaces of its own, named `BED-HOST`, and in one directory, `/run/BED`, where BED is a
name nobody else has: so beds run beside each other, and nothing appears in the namespace of the machine itself. The
directory is locked (flock) by the process that owns the bed. The kernel drops the lock when that process dies, however
it dies; a bed directory without lock is thus a leftover, which the next bed clears.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from testbed.host import Host, Port, Router
from testbed.namespace import NAMESPACES, RUN, BedError, Namespace, command, processes
from testbed.wait import wait_until

PREFIX = "re6st-bed-"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROGRAMS = {"ip": "iproute2", "bridge": "iproute2", "nft": "nftables", "babeld": "babeld", "openvpn": "openvpn"}


def missing() -> str:
    """What this machine lacks for a bed, in words for the user; empty where it has everything."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun: load the kernel module tun"
    packages = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name)})
    return f"not in PATH, or not installed: {', '.join(packages)}" if packages else ""


class Bed:
    """A switch and what is plugged into it. Use it with `with`: at the end everything is undone."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.name = ""
        self.directory = Path()
        self._lock = -1
        self._handlers: dict[int, object] = {}
        self._routers = 0

    # --- life ---

    def __enter__(self) -> Bed:
        if problem := missing():
            raise BedError(f"test bed: {problem}")
        clear_leftovers()
        try:
            self._take_signals()
            atexit.register(self.close)
            self._make_directory()
            self.switch = Namespace(self.name, "switch")
            self.switch.ip("link add name br0 type bridge mcast_snooping 0", "link set br0 up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process in the bed's namespaces, and remove the namespaces and the directory."""
        with _undisturbed():  # a second Ctrl-C waits until we are done
            for host in self.hosts.values():
                host.close()
            if self._lock >= 0:
                _clear(self.directory)
                for host in self.hosts.values():
                    host.reap()
                os.close(self._lock)
                self._lock = -1
            atexit.unregister(self.close)
            self._give_signals_back()

    def _make_directory(self) -> None:
        with _undisturbed():
            # Locked before it gets the name that others look for, so that nobody takes it for a leftover.
            new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=RUN))
            self._lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.directory = new.rename(RUN / new.name[1:])
            self.name = self.directory.name

    def _take_signals(self) -> None:
        """A termination signal ends the program as an exception does, through every `finally`.

        But one that is ignored, as SIGHUP is under nohup, or that somebody else handles, stays so.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, _exit_on_signal)

    def _give_signals_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._handlers.clear()

    # --- what is in it ---

    def host(self, name: str, *, ipv6: bool = True) -> Host:
        """A host on the switch: 10.0.0.N/16 and, unless told otherwise, fd00::N/64, N counting from 1."""
        number = sum(host.ports["eth0"].switch is self.switch for host in self.hosts.values()) + 1
        address = f"10.0.{number >> 8}.{number & 255}"
        port = Port(self.switch, "br0", name)
        return self._add(Host(self, name, port, address, 16, ipv6=f"fd00::{number:x}" if ipv6 else None))

    def segment(self, name: str, *hosts: Host) -> None:
        """A switch of its own for these hosts: each gets an interface `name`, with no address but the link-local."""
        self.switch.ip(f"link add name {name} type bridge mcast_snooping 0", f"link set {name} up")
        for host in hosts:
            host.plug(name, Port(self.switch, name, f"{name}-{host.name}"))

    def router(self, name: str) -> Router:
        """A router on the switch that hides the hosts behind it (IPv4 masquerade), and lets nobody in."""
        return self.translate(self.host(name))

    def translate(self, host: Host) -> Router:
        """Make a router of a host, which hides others behind itself: of one behind a router, the second NAT."""
        self._routers += 1
        return Router(host, self._routers)

    def _add(self, host: Host) -> Host:
        if host.name in self.hosts:
            raise BedError(f"there is a host {host.name} already")
        self.hosts[host.name] = host
        return host

    def tails(self, lines: int = 12) -> str:
        """The last lines of every log of every host."""
        parts = []
        for host in self.hosts.values():
            for path in sorted(host.log.glob("*.log")):
                text = path.read_text(errors="replace").splitlines()[-lines:]
                if text:
                    parts.append("\n".join([f"--- {host.name}: {path.name}", *text]))
        return "\n".join(parts)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that end the program wait meanwhile."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


# --- clearing ---


def clear_leftovers() -> None:
    """Remove the beds whose process is gone."""
    for directory in sorted(RUN.glob(f"{PREFIX}*")):
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # somebody else was faster
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(directory)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            os.close(lock)


def _clear(directory: Path) -> None:
    """End the processes in the namespaces of a bed, remove the namespaces, then its directory."""
    namespaces = sorted(NAMESPACES.glob(f"{directory.name}-*"))

    def killed() -> bool:
        found = [pid for pid, _ in processes(namespaces)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    wait_until(killed, 60, f"the processes of {directory.name} end")
    if namespaces:
        command("ip", "-batch", "-", text="\n".join(f"netns delete {path.name}" for path in namespaces))
    shutil.rmtree(directory, ignore_errors=True)
