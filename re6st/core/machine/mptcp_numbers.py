"""The numbers by which one connection uses several lines: a node's further addresses, and the rules for what has them
as source.

The addresses are the same for each slot of a line (uplink_numbers.py) at all times, so that those that an earlier
daemon left are known. They are near the end of the subnet, where nobody counts to, and before the last 128, which are
reserved for anycast (RFC 2526).
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

LONGEST = 112
"""Of a subnet that has room for them: in a longer one they could be those of others."""
RANGE = 120
"""The length of the prefix that all of them have, and nothing else has."""
PRIORITIES = range(14541, 14544)
"""Of the rules: after those of planes, and before those of what goes over one line by choice (share_numbers.py)."""
OVER_LINE, INSIDE, NOWHERE = PRIORITIES
_START, _ANNOUNCED = 0x200, 0x10


def reserved(subnet: IPv6Network) -> IPv6Network | None:
    """Where the addresses are in a node's subnet; None where that has no room."""
    if subnet.prefixlen > LONGEST:
        return None
    return IPv6Network((int(subnet.broadcast_address) + 1 - _START, RANGE))


def opening(room: IPv6Network, slot: int) -> IPv6Address:
    """From which subflows are opened over the line of a slot."""
    return room[slot]


def announced(room: IPv6Network, slot: int) -> IPv6Address:
    """To which others may open subflows, which are answered over the line of a slot."""
    return room[_ANNOUNCED + slot]
