"""The part of our nftables table that is about the class of packets, where a node has the throughput plane (nft(8)).

A packet of a bulk class for which that plane has no route goes on by latency. It loses its class then: at the next node
it could come back into the plane, and from there to us, for ever (core/routing/planes.py). Whether there is a route is
asked of the kernel, by a mark with which a packet gets routes of that plane alone (wanted_state.bulk_rules).

Programs that set no class get CS1 by what the operator names: a port, a user, or a control group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Network

from re6st.core import interfaces
from re6st.core.routing.planes import BULK, CS1, MARK, OURS


class BulkKind(StrEnum):
    """What an operator names."""

    TCP = "tcp"
    UDP = "udp"
    USER = "user"
    CGROUP = "cgroup"


@dataclass(frozen=True, slots=True)
class Bulk:
    """What goes by capacity, although its program sets no class: packets from or to a port; of local processes those of
    a user (its number), or of a control group (its path below the root of version 2).
    """

    kind: BulkKind
    value: str

    @property
    def is_port(self) -> bool:
        return self.kind in (BulkKind.TCP, BulkKind.UDP)

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"

    def matches(self) -> Iterator[str]:
        """Each way to tell it by."""
        match self.kind:
            case BulkKind.TCP | BulkKind.UDP:
                yield f"{self.kind} dport {self.value}"
                yield f"{self.kind} sport {self.value}"
            case BulkKind.USER:
                yield f"meta skuid {self.value}"
            case BulkKind.CGROUP:
                level = self.value.count("/") + 1
                yield f'socket cgroupv2 level {level} "{self.value}"'


def leaving(network: IPv6Network, subnet: IPv6Network) -> Iterator[str]:
    """Packets lose their class where they leave the plane, at a node with this subnet. What goes into that, or out of
    the network, keeps its own.
    """
    yield "chain leaves_plane {"
    yield f"meta mark set meta mark | {MARK:#010x}"
    yield "fib daddr . mark type != unicast ip6 dscp set cs0"
    yield f"meta mark set meta mark & {MARK ^ 0xFFFFFFFF:#010x}"
    yield "}"
    # No sets: those of a table whose place a new one takes are empty for a packet that is on its way.
    classes = [f"ip6 dscp {each:#04x} ip6 daddr {network} ip6 daddr != {subnet}" for each in BULK]
    yield "chain planes {"
    yield "type filter hook postrouting priority 290; policy accept;"
    yield from (f"{each} goto leaves_plane" for each in classes)
    yield "}"
    yield "chain of_ours {"
    yield "type route hook output priority -140; policy accept;"  # the kernel looks for a route again after it
    yield from (f"{each} meta mark set meta mark | {OURS:#010x}" for each in classes)
    yield "}"


def marking(network: IPv6Network, subnet: IPv6Network, bulk: tuple[Bulk, ...]) -> Iterator[str]:
    """What the operator names gets a class, if it has none: what this machine sends, and by its port also what comes
    from its subnet. What comes out of a tunnel is its sender's business.
    """
    ports, others = [each for each in bulk if each.is_port], [each for each in bulk if not each.is_port]
    unset = f"ip6 dscp cs0 ip6 daddr {network} ip6 daddr != {subnet}"
    yield "chain bulk_ports {"
    yield from _marking(ports)
    yield "}"
    yield "chain bulk_here {"
    yield from _marking(others)
    yield "goto bulk_ports"
    yield "}"
    yield "chain bulk_output {"
    yield "type filter hook output priority -150; policy accept;"
    yield f"{unset} goto bulk_here"
    yield "}"
    yield "chain bulk_from_subnet {"
    yield "type filter hook prerouting priority -150; policy accept;"
    yield f'iifname != "{interfaces.PREFIX}*" {unset} ip6 saddr {subnet} goto bulk_ports'
    yield "}"


def _marking(bulk: Iterable[Bulk]) -> Iterator[str]:
    for each in bulk:
        for match in each.matches():
            yield f"{match} ip6 dscp set {CS1:#04x}"
