"""Hosts, switches and NAT routers out of network namespaces.

Everything a bed makes is in namespaces of its own, named `BED-HOST`, and in one directory, `/run/BED`, where BED is a
name nobody else has: so beds run beside each other, and nothing appears in the namespace of the machine itself. The
directory is locked (flock) by the process that owns the bed. The kernel drops the lock when that process dies, however
it dies; a bed directory without lock is thus a leftover, which the next bed clears.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

from testbed.delay import SlowWay
from testbed.wait import wait_until

T = TypeVar("T")

RUN = Path("/run")
NAMESPACES = RUN / "netns"
PREFIX = "re6st-bed-"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLONE_NEWNET = 0x40000000
PROGRAMS = {"ip": "iproute2", "bridge": "iproute2", "nft": "nftables", "babeld": "babeld", "openvpn": "openvpn"}

_libc = ctypes.CDLL(None, use_errno=True)


class BedError(Exception):
    """A command of the bed failed, or the machine cannot hold a bed."""


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


class Namespace:
    """One network namespace, `BED-NAME`, with its loopback interface up."""

    def __init__(self, bed: str, name: str) -> None:
        self.full_name = f"{bed}-{name}"
        self.path = NAMESPACES / self.full_name
        command("ip", "netns", "add", self.full_name)
        self.ip("link set lo up")

    def ip(self, *lines: str) -> None:
        """Run commands of ip(8) in it. Raises BedError."""
        command("ip", "-n", self.full_name, "-batch", "-", text="\n".join(lines))

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in this namespace, in a thread of its own, so that no other code is moved there.

        A socket stays in the namespace it was made in: `call(socket.socket)` gives one to use from anywhere.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with open(self.path) as file:
                    if _libc.setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.path}")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def sysctl(self, values: Mapping[str, object]) -> None:
        """Set kernel parameters; names with slashes, below /proc/sys."""

        def write() -> None:
            for name, value in values.items():
                Path("/proc/sys", name).write_text(f"{value}\n")

        self.call(write)


class Port:
    """A socket in the wall: where a host is plugged into a bridge."""

    def __init__(self, switch: Namespace, bridge: str, name: str) -> None:
        self.switch = switch
        self.bridge = bridge
        self.name = name

    def state(self, forwarding: bool) -> None:
        # A disabled bridge port drops frames both ways, while the host still sees a carrier.
        number = "3" if forwarding else "0"
        command("bridge", "-n", self.switch.full_name, "link", "set", "dev", self.name, "state", number)


class Host:
    """A machine: a namespace with one interface eth0, and directories of its own."""

    def __init__(self, bed: Bed, name: str, port: Port, address: str, length: int, ipv6: str | None = None) -> None:
        self.bed = bed
        self.name = name
        self.ports: dict[str, Port] = {}
        """Its interfaces, and where they are plugged in."""
        self.address = address
        self.length = length
        self.ipv6 = ipv6
        self.directory = bed.directory / name
        self.etc, self.log, self.run_directory, self.state = (
            self.directory / part for part in ("etc", "log", "run", "state")
        )
        for path in (self.etc, self.log, self.state):
            path.mkdir(parents=True)
        self.namespace = Namespace(bed.name, name)
        self.plug("eth0", port)
        self.namespace.ip(
            f"address add {address}/{length} dev eth0",
            *([f"address add {ipv6}/64 dev eth0"] if ipv6 else []),
        )
        self._started: list[subprocess.Popen[bytes]] = []
        self._sockets: dict[str, socket.socket] = {}
        self._slow: dict[str, SlowWay] = {}

    # --- programs ---

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs a program on this host."""
        return ["ip", "netns", "exec", self.namespace.full_name, *map(str, argv)]

    def run(
        self,
        argv: Sequence[str | Path],
        timeout: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Raises BedError with what it printed if it failed, unless not `check`."""
        return _run(self.argv(argv), timeout, check, cwd=cwd or self.directory, env=env)

    def start(
        self,
        argv: Sequence[str | Path],
        log: str = "output.log",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the background, its output added to a file in the log directory."""
        with open(self.log / log, "ab") as output:
            process = subprocess.Popen(
                self.argv(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd or self.directory,
                env=env,
                start_new_session=True,  # Ctrl-C at the terminal is for us alone; we end the others in order
            )
        self._started.append(process)
        return process

    def processes(self) -> dict[int, list[str]]:
        """The programs running on this host: process id -> command line."""
        return dict(_processes([self.namespace.path]))

    # --- network ---

    def shared_socket(self, name: str, make: Callable[[], socket.socket]) -> socket.socket:
        """A socket of this host that is made once and closed with the bed."""
        if name not in self._sockets:
            self._sockets[name] = self.namespace.call(make)
        return self._sockets[name]

    def ip(self, *arguments: str) -> str:
        """What a command of ip(8) prints on this host."""
        return command("ip", "-n", self.namespace.full_name, *arguments)

    def plug(self, interface: str, port: Port) -> None:
        """A network card more, plugged in and up."""
        port.switch.ip(
            f"link add name {port.name} type veth peer name {interface} netns {self.namespace.full_name}",
            f"link set dev {port.name} master {port.bridge} up",
        )
        # Nobody else has our addresses: no second's wait to find that out.
        self.namespace.sysctl({f"net/ipv6/conf/{interface}/accept_dad": 0})
        self.namespace.ip(f"link set {interface} up")
        self.ports[interface] = port

    def readdress(self, address: str, length: int = 16) -> None:
        """Give eth0 another IPv4 address instead of its own, as a DHCP server may; routes over the old one are lost."""
        self.namespace.ip(
            f"address del {self.address}/{self.length} dev eth0",
            f"address add {address}/{length} dev eth0",
        )
        self.address, self.length = address, length

    def interfaces(self) -> list[str]:
        return self.namespace.call(lambda: [name for _, name in socket.if_nameindex()])

    def cut(self, interface: str = "eth0") -> None:
        """Lose every frame from and to an interface of this host; nobody is told."""
        self.ports[interface].state(forwarding=False)

    def restore(self, interface: str = "eth0") -> None:
        """Undo `cut`."""
        self.ports[interface].state(forwarding=True)

    def lose(self, other: Host, percent: int = 100) -> None:
        """Lose this share of the packets between this host and another one, in both directions; nobody is told."""
        table = f"lose_{other.name}"
        chance = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
        addresses = [("ip", other.address)] + ([("ip6", other.ipv6)] if other.ipv6 else [])
        rules = [
            f"add rule inet {table} {chain} {kind} {end}addr {address} {chance}drop"
            for kind, address in addresses
            for chain, end in (("input", "s"), ("output", "d"))
        ]
        filters = ((chain, f"type filter hook {chain} priority -10;") for chain in ("input", "output"))
        chains = [f"add chain inet {table} {chain} {{ {what} }}" for chain, what in filters]
        start = [f"add table inet {table}", f"delete table inet {table}", f"add table inet {table}"]
        self.run(["nft", "\n".join([*start, *chains, *rules])])

    def find(self, other: Host) -> None:
        """Undo `lose`."""
        self.run(["nft", f"delete table inet lose_{other.name}"])

    def delay(self, other: Host, seconds: float, jitter: float = 0) -> None:
        """Have what this host and another one send each other take so long, each way; 0 for no longer than it does.

        With `jitter` each packet takes longer by chance, by that on the average.
        """
        if other.name in self._slow:
            self._slow.pop(other.name).close()
        if seconds:
            self._slow[other.name] = SlowWay(self, other, seconds, jitter)

    # --- end ---

    def close(self) -> None:
        """Close what the bed's own process holds of this host."""
        while self._sockets:
            self._sockets.popitem()[1].close()
        while self._slow:
            self._slow.popitem()[1].close()
        for process in self._started:  # one that is not in the namespace yet would not be found there
            process.kill()

    def reap(self) -> None:
        """Collect the processes that were started."""
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)


class Router:
    """A NAT router: `outside` is its own host on the switch; the hosts behind it are on a bridge in its namespace."""

    def __init__(self, outside: Host, number: int) -> None:
        self.outside = outside
        self._network = f"192.168.{number}"
        self._count = 0
        namespace = outside.namespace
        namespace.ip(
            "link add name lan type bridge mcast_snooping 0",
            "link set lan up",
            f"address add {self._network}.1/24 dev lan",
        )
        namespace.sysctl({"net/ipv4/ip_forward": 1})
        rules = """
            table ip nat {
                chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
                chain in {
                    type filter hook forward priority filter;
                    iifname "eth0" ct state new ct status & dnat == 0 drop;
                }
            }
        """
        command("ip", "netns", "exec", namespace.full_name, "nft", "-f", "-", text=rules)

    def host(self, name: str) -> Host:
        """A host behind the router: 192.168.R.N/24, and no IPv6."""
        self._count += 1
        outside = self.outside
        port = Port(outside.namespace, "lan", name)
        host = outside.bed._add(Host(outside.bed, name, port, f"{self._network}.{self._count + 1}", 24))
        host.namespace.ip(f"route add default via {self._network}.1")
        return host

    @property
    def inside(self) -> str:
        """Its address on the side of the hosts behind it."""
        return f"{self._network}.1"

    def uplink(self, host: Host, interface: str) -> None:
        """Plug another interface of a host in behind this router, beside what it has already."""
        self._count += 1
        host.plug(interface, Port(self.outside.namespace, "lan", f"{interface}-{host.name}"))
        host.namespace.ip(f"address add {self._network}.{self._count + 1}/24 dev {interface}")


# --- commands ---


def command(*argv: str, text: str | None = None) -> str:
    """Run a command of the machine, and return what it printed. Raises BedError."""
    return _run(argv, 60, True, text=text).stdout


def _run(
    argv: Sequence[str],
    timeout: float,
    check: bool,
    *,
    text: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            cwd=cwd,
            env=env,
            check=False,
        )
    except OSError as error:
        raise BedError(f"{argv[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BedError(f"{' '.join(argv)}: not done after {timeout:g} s") from None
    if check and done.returncode:
        parts = (f"{' '.join(argv)}: status {done.returncode}", text or "", done.stdout, done.stderr)
        raise BedError("\n".join(part.strip() for part in parts if part.strip()))
    return done


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
        found = [pid for pid, _ in _processes(namespaces)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    wait_until(killed, 60, f"the processes of {directory.name} end")
    if namespaces:
        command("ip", "-batch", "-", text="\n".join(f"netns delete {path.name}" for path in namespaces))
    shutil.rmtree(directory, ignore_errors=True)


def _processes(namespaces: Iterable[Path]) -> Iterator[tuple[int, list[str]]]:
    """The processes in these namespaces, by the number of the namespace's inode."""
    wanted = {path.stat().st_ino for path in namespaces}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino in wanted:
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")[:-1]
                    if words:  # else it is ending
                        yield int(entry), [word.decode(errors="replace") for word in words]
            except OSError:
                continue  # ended meanwhile, or a zombie
