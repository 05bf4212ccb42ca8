"""Nodes with many endpoints, as real machines have: IPv4 and IPv6, UDP and TCP, and addresses that lead nowhere."""

from __future__ import annotations

from testbed.bed import Bed
from testbed.host import Host

PORT, PORT6 = "1194", "1195"


class BlackHole:
    """A host with addresses where everything disappears: nobody is told."""

    def __init__(self, bed: Bed) -> None:
        self.host = bed.host("hole")
        self._count = 0
        rules = "add table inet hole", "add chain inet hole input { type filter hook input priority 0; policy drop; }"
        # Whoever asks for the hardware address is answered, so that nobody gives up at once.
        neighbours = "add rule inet hole input meta l4proto icmpv6 accept"
        self.host.run(["nft", "\n".join((*rules, neighbours))])

    def addresses(self) -> tuple[str, str]:
        """One more of IPv4, and of IPv6."""
        self._count += 1
        ipv4, ipv6 = f"10.0.200.{self._count}", f"fd00::dead:{self._count:x}"
        self.host.namespace.ip(
            f"address add {ipv4}/16 dev eth0",
            f"address add {ipv6}/64 dev eth0 nodad",
        )
        return ipv4, ipv6


def options(host: Host, hole: BlackHole) -> list[str]:
    """Options of a node that tells of eight endpoints, of which those with dead addresses come first."""
    assert host.ipv6 is not None
    dead, dead6 = hole.addresses()
    words = []
    for address in (dead, host.address, dead6, host.ipv6):
        words += ["--ip", address]
    for port, protocol in ((PORT, "udp"), (PORT, "tcp"), (PORT6, "udp6"), (PORT6, "tcp6")):
        words += ["--pp", port, protocol]
    return [*words, "--disable-proto", "none"]
