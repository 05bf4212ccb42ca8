"""Hosts in a row: each sees its neighbours, so that traffic between the ends passes all between them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from testbed import Bed, Host, wait_until

Address = IPv4Address | IPv6Address
WEB = 80
"""The port of a registry, which all hosts may ask."""


class Chain:
    """`length` hosts on a bed, of which each hears nothing but its neighbours, and the registry on the first."""

    def __init__(self, bed: Bed, length: int) -> None:
        self.bed = bed
        self.hosts = [bed.host(f"node{number}", ipv6=False) for number in range(length)]
        for position, host in enumerate(self.hosts):
            far = [other.address for other in self.hosts if abs(self.hosts.index(other) - position) > 1]
            if far:
                self._deafen(host, far)

    @staticmethod
    def _deafen(host: Host, far: Sequence[str]) -> None:
        # At each end for itself, where it comes in: the nearest there is to having no way.
        source = f"ip saddr {{ {', '.join(far)} }}"
        # One rule for each port: nft takes two != that stand beside each other for one.
        rules = (f"{source} tcp sport {WEB} accept", f"{source} tcp dport {WEB} accept", f"{source} drop")
        chain = "type filter hook input priority -10; " + " ".join(f"{rule};" for rule in rules)
        host.run(["nft", f"table inet row {{ chain near {{ {chain} }}; }}"])

    def neighbours(self, host: Host) -> list[Host]:
        """The one before it, and the one after it."""
        position = self.hosts.index(host)
        return self.hosts[max(0, position - 1) : position] + self.hosts[position + 1 : position + 2]


def answers(source: Host, target: Address) -> bool:
    """Whether one ping of ping(8) comes back, which knows both families."""
    done = source.run(["ping", "-n", "-c", "1", "-W", "1", str(target)], check=False)
    return done.returncode == 0


def wait_reached(source: Host, target: Address, timeout: float) -> float:
    """Wait until a host answers: how many seconds it took. Raises AssertionError."""
    began = time.monotonic()
    wait_until(lambda: answers(source, target), timeout, f"{source.name} reaches {target}", source.bed.tails)
    return time.monotonic() - began


def started(process: subprocess.Popen[bytes], what: str, bed: Bed) -> None:
    """Raises AssertionError where a program has ended that was to stay."""
    if process.poll() is not None:
        raise AssertionError(f"{what} ended with status {process.returncode}\n{bed.tails()}")
