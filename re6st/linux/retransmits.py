"""Finds out what TCP had to send again on our tunnels, by sock_diag(7)."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.lossy import Retransmissions, Sent
from re6st.core.telemetry.report import Link, Server
from re6st.core.tunnel_protocols import Transport
from re6st.linux.kernel import Address
from re6st.linux.netlink import NetlinkError, NetlinkSocket, read_attributes

PACE, PACE_CALM = 0.25, 1.0
"""Seconds between two looks where something was sent again of late, and where nothing was."""
SEARCH = 2.0
"""Seconds between two searches for the connections of new tunnels: the kernel goes through all connections."""
AGAIN = 10.0
"""Seconds to wait after an error."""

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/tcp.h
_NETLINK_SOCK_DIAG, _BY_FAMILY = 4, 20
_ESTABLISHED = 1
_INFO = 2
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, which attributes (a bit each), which states (a bit each)
_PORTS = struct.Struct("!HH")  # ours, theirs; 0 is any
_REST_OF_ID = bytes(16 + 16 + 4 + 8)  # our address, theirs, interface, cookie: any
_ID, _REMOTE_AT, _ATTRIBUTES_AT = slice(4, 52), 24, 72
_SILENT, _AGAIN, _SEGMENTS, _IN_VAIN = 56, 100, 156, 216
"""Where tcp_info has the milliseconds since the last acknowledgement, the segments that were sent again, all segments
with data, and those that were sent again in vain.
"""
_U32 = struct.Struct("=I")

TcpEnds = tuple[bool, int, Address]
"""Whether it leads from us to a port of the peer, or from the peer to one of our ports; that port, and the peer's
address.
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TcpConnection:
    """A TCP connection as the kernel knows it, and the address of its other end."""

    family: int
    ident: bytes
    remote: Address


class SocketDiagnosis(NetlinkSocket):
    """The TCP connections of the network namespace in which it is made. Its methods raise NetlinkError and OSError."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_SOCK_DIAG)

    def search(self, *, ours: int = 0, theirs: int = 0) -> list[TcpConnection]:
        """The connections from a port of ours, or to a port of others."""
        found = []
        for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            for body in self.dump(_BY_FAMILY, _request(family, _PORTS.pack(ours, theirs) + _REST_OF_ID)):
                remote = _plain(ip_address(body[_REMOTE_AT : _REMOTE_AT + length]))
                found.append(TcpConnection(family, body[_ID], remote))
        return found

    def sent(self, connection: TcpConnection) -> Sent | None:
        """What the connection has sent; None if it has ended, or the kernel does not tell."""
        try:
            answers = self.request(_BY_FAMILY, _request(connection.family, connection.ident))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        for _, body in answers:
            info = dict(read_attributes(body[_ATTRIBUTES_AT:])).get(_INFO, b"")
            if len(info) >= _IN_VAIN + _U32.size:
                places = _SEGMENTS, _AGAIN, _IN_VAIN, _SILENT
                segments, again, in_vain, silent = (_U32.unpack_from(info, place)[0] for place in places)
                return Sent(segments, again - in_vain, silent / 1000)
        return None


class WatchedTunnels(Protocol):
    """What is watched: all tunnels, and our servers."""

    def links(self) -> Iterable[Link]: ...
    def listeners(self) -> Iterable[Server]: ...


class LossWatch:
    """Watches the tunnels over TCP, and tells the policy (`event`) which ones lose packets, whenever that changes."""

    def __init__(self, tunnels: WatchedTunnels, event: Callable[[policy.Event], None]) -> None:
        self._tunnels = tunnels
        self._event = event
        self._told: frozenset[Prefix] = frozenset()
        self._seen = Retransmissions()
        self._known: dict[TcpEnds, tuple[Prefix, TcpConnection]] = {}

    async def run(self) -> None:
        """Runs until cancelled; if the kernel cannot tell, it ends."""
        worked = False
        while True:
            try:
                diagnosis = SocketDiagnosis()
                try:
                    self.search(diagnosis)
                    worked = True
                    await self._watch(diagnosis)
                finally:
                    diagnosis.close()
            except OSError as error:
                log.warning("the kernel does not report what TCP retransmits: %s", error.strerror)
                self._say(frozenset())
            if not worked:
                return
            await asyncio.sleep(AGAIN)

    async def _watch(self, diagnosis: SocketDiagnosis) -> None:
        clock = asyncio.get_running_loop().time
        searched = clock()
        while True:
            await asyncio.sleep(PACE if self._seen.doubtful else PACE_CALM)
            if clock() >= searched + SEARCH:
                searched = clock()
                self.search(diagnosis)
            self.look(diagnosis, clock())

    def search(self, diagnosis: SocketDiagnosis) -> None:
        """Find the connections of new tunnels. Raises OSError."""
        ways = list(self._ways())
        times = Counter(way for way, _ in ways)
        # If there are several behind one address, we do not know which is which.
        wanted = {way: peer for way, peer in ways if times[way] == 1}
        self._known = {way: known for way, known in self._known.items() if wanted.get(way) == known[0]}
        missing = wanted.keys() - self._known.keys()
        for outgoing, port in {(outgoing, port) for outgoing, port, _ in missing}:
            found = diagnosis.search(theirs=port) if outgoing else diagnosis.search(ours=port)
            remotes = Counter(connection.remote for connection in found)
            for connection in found:
                way = outgoing, port, connection.remote
                if way in missing and remotes[connection.remote] == 1:
                    self._known[way] = wanted[way], connection

    def look(self, diagnosis: SocketDiagnosis, now: float) -> None:
        """Read what the connections have sent by now. Raises OSError."""
        sent: dict[Prefix, Sent] = {}
        for way, (peer, connection) in list(self._known.items()):
            if (found := diagnosis.sent(connection)) is None:
                del self._known[way]
            else:
                sent[peer] = found
        self._seen.note(sent, now)
        self._say(self._seen.lossy)

    def _say(self, lossy: frozenset[Prefix]) -> None:
        if lossy != self._told:
            self._told = lossy
            self._event(policy.TunnelsLossy(lossy))

    def _ways(self) -> Iterator[tuple[TcpEnds, Prefix]]:
        """The connections that the tunnels over TCP use."""
        ports = {server.protocol: server.port for server in self._tunnels.listeners()}
        for link in self._tunnels.links():
            if link.since is None or link.protocol is None or link.protocol.transport is not Transport.TCP:
                continue
            if (port := link.port if link.outgoing else ports.get(link.protocol)) is not None:
                with suppress(ValueError):  # a name, which is not looked up again
                    yield (link.outgoing, port, _plain(ip_address(link.remote))), link.peer


def _request(family: int, ident: bytes) -> bytes:
    return _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 1 << _ESTABLISHED) + ident


def _plain(address: Address) -> Address:
    """The IPv4 address, even if it is written as an IPv6 address."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
