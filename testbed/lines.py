"""A host with several lines to the Internet, each behind a router of its own, only so fast, and so far away.

A line is shaped by tbf in both directions, and the delay is that of the bed's relay (delay.py), as kernels without
netem have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.bed import Bed
from testbed.host import Host, Router

BURST, QUEUE = "16kb", "60ms"
"""What passes at once, and how long packets wait before some are dropped."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one line carries, in Mbit/s each way, and the seconds to everybody at its other end, each way."""

    mbits: float
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.mbits:g} Mbit/s, {1000 * self.seconds:g} ms"


class LinedHost:
    """A host with these lines: eth0, eth1 and so on. The default route is by the first one."""

    def __init__(self, bed: Bed, name: str, lines: Sequence[Line], others: Sequence[Host]) -> None:
        self.lines = list(lines)
        self.routers: list[Router] = [bed.router(f"{name}-{number}") for number in range(len(lines))]
        self.host = self.routers[0].host(name)
        for number, router in enumerate(self.routers[1:], 1):
            router.uplink(self.host, self.device(number))
        for number, line in enumerate(lines):
            router = self.routers[number]
            shape(self.host, self.device(number), line.mbits)
            shape(router.outside, self.host.ports[self.device(number)].name, line.mbits)
            for other in others:
                router.outside.delay(other, line.seconds)

    def device(self, number: int) -> str:
        """The interface of a line."""
        return f"eth{number}"

    def gateway(self, number: int) -> str:
        """The router of a line, as the host sees it."""
        return self.routers[number].inside

    def address(self, number: int) -> str:
        """The host's own address on a line."""
        return f"{self.gateway(number).rpartition('.')[0]}.2"

    def option(self, number: int) -> str:
        """What --uplink says of a line."""
        words = f"line{number},dev={self.device(number)},gateway={self.gateway(number)}"
        mbits = self.lines[number].mbits
        return f"{words},down={mbits:g},up={mbits:g}"

    def expose(self, *outside: Host) -> None:
        """Its routers hide it no more: the addresses of its lines are reached from outside, also by these hosts."""
        for router in self.routers:
            router.outside.run(["nft", "delete table ip nat"])
            network = f"{router.inside.rpartition('.')[0]}.0/24"
            for host in outside:
                host.ip("route", "add", network, "via", router.outside.address)

    def cut(self, number: int) -> None:
        """A line loses everything, both ways, and nobody is told."""
        chains = " ".join(_dropping(hook) for hook in ("input", "forward"))
        self.routers[number].outside.run(["nft", f"table inet cut {{ {chains} }}"])

    def restore(self, number: int) -> None:
        """Undo `cut`."""
        self.routers[number].outside.run(["nft", "delete table inet cut"])


def shape(host: Host, interface: str, mbits: float) -> None:
    """Hold what an interface of a host sends to this, in Mbit/s."""
    words = ["rate", f"{mbits:g}mbit", "burst", BURST, "latency", QUEUE]
    host.run(["tc", "qdisc", "replace", "dev", interface, "root", "tbf", *words])


def _dropping(hook: str) -> str:
    return f"chain {hook} {{ type filter hook {hook} priority -200; drop; }};"
