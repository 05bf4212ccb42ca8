"""The kernel's endpoints and limits of MPTCP, by generic netlink (linux/mptcp_pm.h), as `ip mptcp` has them."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from re6st.core.machine.mptcp import MptcpEndpoint, MptcpLimits
from re6st.core.machine.wanted_state import Address
from re6st.linux.generic_netlink import HEAD, PROTOCOL, family
from re6st.linux.kept_state import SYSCTL
from re6st.linux.netlink import NetlinkSocket, malformed, pack_attribute, read_attribute, read_attributes, unpack

FAMILY, _VERSION = "mptcp_pm", 1
_ADD, _DELETE, _GET, _SET_LIMITS, _GET_LIMITS = 1, 2, 3, 5, 6
_ADDRESS, _ACCEPTED, _SUBFLOWS = 1, 2, 3
_FAMILY, _ID, _ADDR4, _ADDR6, _FLAGS = 1, 2, 3, 4, 6
_NESTED = 0x8000
_U8, _U16, _U32 = struct.Struct("=B"), struct.Struct("=H"), struct.Struct("=I")


class NoMptcp(OSError):
    """The kernel has no MPTCP, or it is switched off; the text says which, and what to do."""


class MptcpNetlink:
    """Those of the network namespace in which it is made. Its methods raise OSError."""

    def __init__(self, sysctl: Path = SYSCTL) -> None:
        """Raises NoMptcp, OSError."""
        self._sysctl = sysctl
        self.need()
        self._socket = NetlinkSocket(PROTOCOL)
        try:
            self._family = family(self._socket, FAMILY)
        except OSError as error:
            self._socket.close()
            if error.errno == errno.ENOENT:
                raise NoMptcp("this kernel lets nobody set endpoints of MPTCP: use one from 5.10 on") from None
            raise

    def close(self) -> None:
        self._socket.close()

    def need(self) -> None:
        """Raises NoMptcp where connections do not use endpoints now."""
        need_mptcp(self._sysctl)

    def endpoints(self) -> dict[int, MptcpEndpoint]:
        """All of them, also those of others, by number."""
        return dict(map(decode, self._socket.dump(self._family, HEAD.pack(_GET, _VERSION))))

    def add(self, endpoint: MptcpEndpoint) -> None:
        """Raises OSError: EEXIST where it is there, ERANGE where there are as many as the kernel takes."""
        self._socket.request(self._family, encode(endpoint))

    def delete(self, number: int, endpoint: MptcpEndpoint) -> None:
        """Delete one; its subflows end, and what they have sent is sent again by others."""
        self._socket.request(self._family, _encode(_DELETE, endpoint, number))

    def limits(self) -> MptcpLimits:
        found = dict[int, bytes]()
        for _, body in self._socket.request(self._family, HEAD.pack(_GET_LIMITS, _VERSION)):
            found |= dict(read_attributes(body[HEAD.size :]))
        return MptcpLimits(_number(found.get(_SUBFLOWS, b"")), _number(found.get(_ACCEPTED, b"")))

    def set_limits(self, limits: MptcpLimits) -> None:
        body = pack_attribute(_ACCEPTED, _U32.pack(limits.accepted))
        body += pack_attribute(_SUBFLOWS, _U32.pack(limits.subflows))
        self._socket.request(self._family, HEAD.pack(_SET_LIMITS, _VERSION) + body)


def need_mptcp(sysctl: Path = SYSCTL) -> None:
    """Raises NoMptcp where the kernel has none, or does not use the endpoints that it is given."""
    enabled = _value(sysctl / "mptcp/enabled")
    if not enabled:
        raise NoMptcp("this kernel has no MPTCP (CONFIG_MPTCP, from 5.10 on)")
    if enabled == "0":
        raise NoMptcp("it is switched off: sysctl net.mptcp.enabled=1")
    if _value(sysctl / "mptcp/pm_type") == "1":
        raise NoMptcp("another program chooses the subflows: sysctl net.mptcp.pm_type=0 lets the kernel do it")


def encode(endpoint: MptcpEndpoint) -> bytes:
    """The request that adds an endpoint."""
    return _encode(_ADD, endpoint)


def decode(body: bytes) -> tuple[int, MptcpEndpoint]:
    """The number of one, and what it is. Raises NetlinkError."""
    unpack(HEAD, body)
    attributes = dict(read_attributes(read_attribute(body[HEAD.size :], _ADDRESS) or b""))
    packed = attributes.get(_ADDR6) or attributes.get(_ADDR4) or b""
    number = attributes.get(_ID, b"")
    if len(packed) not in (4, 16) or len(number) != _U8.size:
        raise malformed()
    return number[0], MptcpEndpoint(ip_address(packed), _number(attributes.get(_FLAGS, bytes(4))))


def _encode(command: int, endpoint: MptcpEndpoint, number: int | None = None) -> bytes:
    return HEAD.pack(command, _VERSION) + pack_attribute(_ADDRESS | _NESTED, b"".join(_parts(endpoint, number)))


def _parts(endpoint: MptcpEndpoint, number: int | None) -> Iterator[bytes]:
    if number is not None:
        yield pack_attribute(_ID, _U8.pack(number))
    yield pack_attribute(_FLAGS, _U32.pack(endpoint.flags))
    yield from _address(endpoint.address)


def _address(ip: Address) -> Iterator[bytes]:
    six = ip.version == 6
    yield pack_attribute(_FAMILY, _U16.pack(socket.AF_INET6 if six else socket.AF_INET))
    yield pack_attribute(_ADDR6 if six else _ADDR4, ip.packed)


def _number(value: bytes) -> int:
    if len(value) != _U32.size:
        raise malformed()
    return int(_U32.unpack(value)[0])


def _value(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
