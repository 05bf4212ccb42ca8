"""Machines in namespaces of their own, how they are plugged in, and NAT routers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.delay import SlowWay
from testbed.namespace import Namespace, command, processes, run

if TYPE_CHECKING:
    from testbed.bed import Bed


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
        return run(self.argv(argv), timeout, check, cwd=cwd or self.directory, env=env)

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
        return dict(processes([self.namespace.path]))

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
        # To the switch, at once or by a slow way (delay.py).
        rules = """
            table ip nat {
                chain out {
                    type nat hook postrouting priority srcnat;
                    oifname "eth0" masquerade;
                    oifname "slow-*" masquerade;
                }
                chain from_outside { ct state new ct status & dnat == 0 drop; }
                chain in {
                    type filter hook forward priority filter;
                    iifname "eth0" jump from_outside;
                    iifname "slow-*" jump from_outside;
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
