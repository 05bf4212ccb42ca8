"""The kernel's own WireGuard, by generic netlink (linux/wireguard.h) and rtnetlink."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.linux.generic_netlink import HEAD, PROTOCOL, family
from re6st.linux.netlink import NetlinkError, NetlinkSocket, malformed, pack_attribute, read_attributes, unpack
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import NoWireGuard, WireGuardError, need_port

KIND = "wireguard"

_NESTED = 0x8000  # linux/netlink.h
# linux/wireguard.h
_GET, _SET, _VERSION = 0, 1, 1
_IFINDEX, _PRIVATE_KEY, _FLAGS, _LISTEN_PORT, _MARK, _PEERS, _REPLACE_PEERS = 1, 3, 5, 6, 7, 8, 1
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE, _PEER_HANDSHAKE = 1, 3, 4, 5, 6
_PEER_RECEIVED, _PEER_SENT, _PEER_NETWORKS = 7, 8, 9
_PEER_REMOVE, _PEER_REPLACE_NETWORKS = 1, 2
_NETWORK_FAMILY, _NETWORK_ADDRESS, _NETWORK_LENGTH = 1, 2, 3
_U16, _U32, _U64, _TIME = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=Q"), struct.Struct("=qq")
_FAMILY = struct.Struct("=H")
_IN4 = struct.Struct("!H4s8x")  # port, address
_IN6 = struct.Struct("!HI16sI")  # port, flow, address, scope


class KernelWireGuard:
    """The linux.wireguard.Implementation. Raises NoWireGuard when it is made where the kernel has none."""

    name = "the kernel"

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        try:
            self._socket = NetlinkSocket(PROTOCOL)
        except OSError as error:
            raise NoWireGuard(f"the kernel has no generic netlink ({error.strerror})") from None
        try:
            self._family = family(self._socket, KIND)  # this also loads the module
        except OSError as error:
            self._socket.close()
            why = "has no module wireguard" if error.errno == errno.ENOENT else f"does not tell ({error.strerror})"
            raise NoWireGuard(f"the kernel {why}") from None

    def close(self) -> None:
        self._socket.close()

    async def make(self, interface: str) -> KernelDevice:
        """Make one. Raises WireGuardError."""
        try:
            self._netlink.make_link(interface, KIND)
        except NetlinkError as error:
            raise WireGuardError(error.errno, f"cannot make {interface}: {error.strerror}") from None
        return self.found(interface, None)

    def found(self, interface: str, process: tuple[int, str] | None) -> KernelDevice:
        """Go on with one. Raises WireGuardError."""
        link = next((each for each in self._netlink.links() if each.name == interface), None)
        if process is not None or link is None or link.kind != KIND:
            raise WireGuardError(errno.ENODEV, f"there is no interface {interface} of the kernel's WireGuard")
        return KernelDevice(interface, link.index, self._family, self._socket, self._netlink)


class KernelDevice:
    """An interface of the kernel's. Requests do not wait, nor does anything here."""

    process = None

    def __init__(self, interface: str, index: int, family: int, own: NetlinkSocket, netlink: Netlink) -> None:
        self.interface = interface
        self._index = index
        self._family = family
        self._socket = own
        self._netlink = netlink

    async def configure(self, config: LinkConfig) -> None:
        """See linux.wireguard.Device."""
        before = await self.state()
        if before.port != config.port:
            need_port(config.port)
        try:
            self._socket.request(self._family, encode(self._index, config, before.peer))
        except OSError as error:
            raise WireGuardError(error.errno, f"{self.interface}: {error.strerror}") from None

    async def state(self) -> LinkState:
        """What it is like now. Raises WireGuardError."""
        body = HEAD.pack(_GET, _VERSION) + pack_attribute(_IFINDEX, _U32.pack(self._index))
        try:
            return decode(self._socket.dump(self._family, body))
        except OSError as error:
            raise WireGuardError(error.errno, f"{self.interface}: {error.strerror}") from None

    async def gone(self) -> None:
        """It stays: whoever deletes it from outside is noticed by `state`."""
        await asyncio.Event().wait()

    async def remove(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self._netlink.delete_link(self._index)


def encode(index: int, config: LinkConfig, before: bytes = b"") -> bytes:
    """The request that sets an interface, which has the peer of this key `before`.

    A peer with another key comes first, then the old one goes: an interface without a peer refuses what is sent by it.
    The same one is made anew.
    """
    instead = before not in (b"", config.peer)
    networks = b"".join(
        _nested(0, _network(family, length)) for family, length in ((socket.AF_INET6, 16), (socket.AF_INET, 4))
    )
    peer = pack_attribute(_PEER_KEY, config.peer)
    peer += pack_attribute(_PEER_FLAGS, _U32.pack(_PEER_REPLACE_NETWORKS))
    if config.endpoint is not None:
        peer += pack_attribute(_PEER_ENDPOINT, _encode_endpoint(config.endpoint))
    peer += pack_attribute(_PEER_KEEPALIVE, _U16.pack(config.keepalive)) + _nested(_PEER_NETWORKS, networks)
    peers = _nested(0, peer)
    if instead:
        peers += _nested(0, pack_attribute(_PEER_KEY, before) + pack_attribute(_PEER_FLAGS, _U32.pack(_PEER_REMOVE)))
    return (
        HEAD.pack(_SET, _VERSION)
        + pack_attribute(_IFINDEX, _U32.pack(index))
        + pack_attribute(_PRIVATE_KEY, config.secret)
        + pack_attribute(_LISTEN_PORT, _U16.pack(config.port))
        + (b"" if config.mark is None else pack_attribute(_MARK, _U32.pack(config.mark)))
        + pack_attribute(_FLAGS, _U32.pack(0 if instead else _REPLACE_PEERS))
        + _nested(_PEERS, peers)
    )


def decode(answers: list[bytes]) -> LinkState:
    """What the kernel tells of an interface. Raises NetlinkError."""
    port, peer = 0, dict[int, bytes]()
    for body in answers:
        unpack(HEAD, body)
        for kind, value in read_attributes(body[HEAD.size :]):
            if kind == _LISTEN_PORT:
                port = _field(_U16, value)[0]
            elif kind == _PEERS:
                for _, each in read_attributes(value):
                    peer |= dict(read_attributes(each))
    seconds, nanoseconds = _field(_TIME, peer.get(_PEER_HANDSHAKE, bytes(_TIME.size)))
    (received,), (sent,) = (_field(_U64, peer.get(kind, bytes(8))) for kind in (_PEER_RECEIVED, _PEER_SENT))
    handshake, endpoint = seconds + nanoseconds / 1e9, _decode_endpoint(peer.get(_PEER_ENDPOINT, b""))
    return LinkState(port, peer.get(_PEER_KEY, b""), handshake or None, endpoint, received, sent)


def _nested(kind: int, value: bytes) -> bytes:
    return pack_attribute(kind | _NESTED, value)


def _network(family: int, length: int) -> bytes:
    """Every address of a family."""
    attributes = pack_attribute(_NETWORK_FAMILY, _U16.pack(family)) + pack_attribute(_NETWORK_ADDRESS, bytes(length))
    return attributes + pack_attribute(_NETWORK_LENGTH, b"\0")


def _encode_endpoint(endpoint: tuple[Address, int]) -> bytes:
    host, port = endpoint
    if isinstance(host, IPv6Address):
        return _FAMILY.pack(socket.AF_INET6) + _IN6.pack(port, 0, host.packed, 0)
    return _FAMILY.pack(socket.AF_INET) + _IN4.pack(port, host.packed)


def _decode_endpoint(data: bytes) -> tuple[Address, int] | None:
    if not data:
        return None
    (family,) = unpack(_FAMILY, data)
    if family == socket.AF_INET6:
        port, _, packed, _ = _field(_IN6, data[_FAMILY.size :])
        return IPv6Address(packed), port
    port, packed = _field(_IN4, data[_FAMILY.size :])
    return IPv4Address(packed), port


def _field(form: struct.Struct, value: bytes) -> tuple[Any, ...]:
    if len(value) != form.size:
        raise malformed()
    return form.unpack(value)
