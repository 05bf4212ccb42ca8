"""Which multicast groups programs have joined on an interface (/proc/net/igmp6, proc(5))."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address
from pathlib import Path

GROUPS = Path("/proc/net/igmp6")


def joined(interface: str, group: IPv6Address, groups: Path = GROUPS) -> bool:
    """Whether a program receives what is sent to a group on an interface, which may be down. Raises OSError, also where
    there is no such interface.
    """
    socket.if_nametoindex(interface)
    wanted = [interface, group.packed.hex()]
    with groups.open() as lines:
        return any(line.split()[1:3] == wanted for line in lines)
