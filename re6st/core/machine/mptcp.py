"""How one connection uses several lines: the endpoints of MPTCP (RFC 8684), and what leads their packets.

The kernel opens subflows of each connection of MPTCP from the addresses of its endpoints, and announces addresses to
which others open some. So each line has two addresses out of the node's subnet, one for each: Linux spends what it may
announce on vain attempts where one address is for both. What has such an address as source goes over that line as long
as a way is known there that leads in no circle (core/routing/line_ways.py), and else as babel says. It stays inside the
network: the kernel tries these addresses for connections to anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from re6st.core.machine import mptcp_numbers as numbers
from re6st.core.machine import share_numbers
from re6st.core.machine.wanted_state import (
    RT_TABLE_MAIN,
    Address,
    KernelRule,
    Placed,
    mptcp_address,
)

LINES = 4
"""The most lines that have endpoints: the kernel takes eight."""
SIGNAL, SUBFLOW = 0x1, 0x2  # linux/mptcp_pm.h: MPTCP_PM_ADDR_FLAG_...
ANYWHERE = IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class MptcpEndpoint:
    """An address that the kernel uses for subflows."""

    address: Address
    flags: int

    @property
    def use(self) -> str:
        """In a word."""
        return "announced" if self.flags & SIGNAL else "opening"


@dataclass(frozen=True, slots=True)
class MptcpLimits:
    """Of each connection: subflows besides the first one, and addresses that the other end may announce."""

    subflows: int
    accepted: int

    def at_least(self, other: MptcpLimits) -> MptcpLimits:
        """These, raised to others where they are lower."""
        return MptcpLimits(max(self.subflows, other.subflows), max(self.accepted, other.accepted))


NEEDED = MptcpLimits(2 * LINES, LINES)
"""A subflow from each of our lines, and one to each of the other end's."""


def endpoints(room: IPv6Network, slots: Iterable[int]) -> dict[int, tuple[MptcpEndpoint, ...]]:
    """Those of the lines with these slots, of the first ones if there are many; `room` is where our addresses are."""
    return {
        slot: (
            MptcpEndpoint(numbers.opening(room, slot), SUBFLOW),
            MptcpEndpoint(numbers.announced(room, slot), SIGNAL),
        )
        for slot in sorted(slots)[:LINES]
    }


def things(room: IPv6Network, network: IPv6Network, slots: Iterable[int]) -> tuple[Placed | KernelRule, ...]:
    """What the kernel is to have of these lines: addresses, and rules for what has them as source."""
    return tuple(each for slot, of in endpoints(room, slots).items() for each in _things(slot, of, network))


def _things(slot: int, of: Iterable[MptcpEndpoint], network: IPv6Network) -> Iterator[Placed | KernelRule]:
    for address in (each.address for each in of):
        source = IPv6Network(address)
        yield mptcp_address(address)
        yield KernelRule(numbers.OVER_LINE, network, table=share_numbers.table(slot), source=source)
        # Not to anywhere: a VPN may have routes that are no default route, such as ::/1, and lead out.
        yield KernelRule(numbers.INSIDE, network, table=RT_TABLE_MAIN, source=source, specific=True)
        yield KernelRule(numbers.NOWHERE, ANYWHERE, source=source)


def differences(
    wanted: Collection[MptcpEndpoint], there: Mapping[int, MptcpEndpoint], room: IPv6Network | None
) -> tuple[dict[int, MptcpEndpoint], list[MptcpEndpoint]]:
    """The endpoints to delete, by number, and those to add. Whatever has no address of our `room` is left alone."""
    ours = {number: each for number, each in there.items() if room is not None and each.address in room}
    kept = [each for each in ours.values() if each in wanted]
    return (
        {number: each for number, each in ours.items() if each not in wanted},
        [each for each in wanted if each not in kept],
    )
