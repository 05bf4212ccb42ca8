"""What TCP had to send again on our tunnels, by sock_diag(7)."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from re6st.core.lossy import Retransmissions, Sent
from re6st.core.prefix import Prefix
from re6st.core.report import Link, Server
from re6st.kernel import Address
from re6st.netlink import NetlinkSocket, read_attributes

PACE = 0.25
"""Seconds between two looks."""

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h
_NETLINK_SOCK_DIAG, _BY_FAMILY = 4, 20
_ESTABLISHED = 1
_INFO = 2
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, which attributes (a bit each), which states (a bit each)
_PORTS = struct.Struct("!HH")  # ours, theirs; 0 is any
_REST_OF_ID = bytes(16 + 16 + 4 + 8)  # our address, theirs, interface, cookie: any
_REMOTE_AT, _ATTRIBUTES_AT = 24, 72
_SILENT, _AGAIN, _SEGMENTS, _IN_VAIN = 56, 100, 156, 216
"""Where tcp_info has the milliseconds since an acknowledgement, the segments sent again, all those with data, and those
sent again in vain."""
_U32 = struct.Struct("=I")

Connections = dict[Address, list[Sent]]
"""By the address of the other end."""

log = logging.getLogger(__name__)


class SocketDiagnosis(NetlinkSocket):
    """The TCP connections of the network namespace that it is made in. Its methods raise NetlinkError, OSError."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_SOCK_DIAG)

    def connections(self, *, ours: int = 0, theirs: int = 0) -> Connections:
        """Those from a port of ours, or to a port of others."""
        found: Connections = defaultdict(list)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 1 << _ESTABLISHED)
            for body in self.dump(_BY_FAMILY, request + _PORTS.pack(ours, theirs) + _REST_OF_ID):
                info = dict(read_attributes(body[_ATTRIBUTES_AT:])).get(_INFO, b"")
                if len(info) >= _IN_VAIN + _U32.size:
                    length = 16 if family == socket.AF_INET6 else 4
                    places = _SEGMENTS, _AGAIN, _IN_VAIN, _SILENT
                    segments, again, in_vain, silent = (_U32.unpack_from(info, place)[0] for place in places)
                    remote = _plain(body[_REMOTE_AT : _REMOTE_AT + length])
                    found[remote].append(Sent(segments, again - in_vain, silent / 1000))
        return found


class Seen(Protocol):
    """What is looked at: all tunnels, and the servers of ours."""

    def links(self) -> Iterable[Link]: ...
    def listeners(self) -> Iterable[Server]: ...


class LossWatch:
    """Looks at the tunnels by TCP, and tells on which packets get lost, whenever that changes."""

    def __init__(self, tunnels: Seen, tell: Callable[[frozenset[Prefix]], None]) -> None:
        self._tunnels = tunnels
        self._tell = tell
        self._told: frozenset[Prefix] = frozenset()
        self._seen = Retransmissions()

    async def run(self) -> None:
        """Until cancelled; where the kernel does not tell, it ends."""
        try:
            diagnosis = SocketDiagnosis()
            try:
                while True:
                    self._look(diagnosis)
                    await asyncio.sleep(PACE)
            finally:
                diagnosis.close()
        except OSError as error:
            log.warning("the kernel does not tell what TCP sends again: %s", error.strerror)

    def _look(self, diagnosis: SocketDiagnosis) -> None:
        peers: defaultdict[tuple[bool, int, Address], list[Prefix]] = defaultdict(list)
        ports = {server.protocol: server.port for server in self._tunnels.listeners()}
        for link in self._tunnels.links():
            port = link.port if link.outgoing else ports.get(link.protocol)
            if link.since is not None and link.protocol.startswith("tcp") and link.remote and port is not None:
                peers[link.outgoing, port, _plain(link.remote)].append(link.peer)
        found = {
            (outgoing, port): diagnosis.connections(theirs=port) if outgoing else diagnosis.connections(ours=port)
            for outgoing, port in {(outgoing, port) for outgoing, port, _ in peers}
        }
        # Of several behind one address, it is not known which is which.
        sent = {
            names[0]: found[outgoing, port][ip][0]
            for (outgoing, port, ip), names in peers.items()
            if len(names) == len(found[outgoing, port].get(ip, ())) == 1
        }
        self._seen.note(sent, asyncio.get_running_loop().time())
        if self._seen.lossy != self._told:
            self._told = self._seen.lossy
            self._tell(self._told)


def _plain(ip: str | bytes) -> Address:
    """An IPv4 address also where it is written as one of IPv6."""
    address = ip_address(ip)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
