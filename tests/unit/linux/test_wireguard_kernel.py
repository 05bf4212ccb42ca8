"""The kernel's WireGuard: what it is told, in its form, and what it tells. (No kernel of the tests here has it.)"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from re6st.core.machine.wanted_state import KernelLink
from re6st.core.transport.wireguard_uapi import LinkConfig, LinkState
from re6st.linux import wireguard_kernel
from re6st.linux.netlink import NetlinkError, pack_attribute, read_attributes
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import Implementation, NoWireGuard, WireGuardError
from re6st.linux.wireguard_kernel import KernelWireGuard, decode, encode
from tests.unit.linux.test_wireguard_go import free_port

CONFIG = LinkConfig(b"s" * 32, 51820, b"p" * 32, (ip_address("2001:db8::1"), 51821), 25)


def attributes(data: bytes) -> dict[int, bytes]:
    return dict(read_attributes(data))


def test_what_the_kernel_is_told_has_the_form_of_linux_wireguard_h() -> None:
    told = encode(7, CONFIG)
    assert told[:4] == b"\1\1\0\0", "WG_CMD_SET_DEVICE, version 1"
    device = attributes(told[4:])
    assert device.keys() == {1, 3, 5, 6, 8}
    assert (device[1], device[3], device[5]) == (struct.pack("=I", 7), b"s" * 32, struct.pack("=I", 1))
    assert device[6] == struct.pack("=H", 51820)
    (peer,) = (attributes(each) for _, each in read_attributes(device[8]))
    assert (peer[1], peer[3], peer[5]) == (b"p" * 32, struct.pack("=I", 2), struct.pack("=H", 25))
    assert peer[4] == struct.pack("=H", 10) + struct.pack("!HI", 51821, 0) + ip_address("2001:db8::1").packed + bytes(4)
    networks = [attributes(each) for _, each in read_attributes(peer[9])]
    assert [(each[1], each[2], each[3]) for each in networks] == [
        (struct.pack("=H", 10), bytes(16), b"\0"),
        (struct.pack("=H", 2), bytes(4), b"\0"),
    ]


def test_packets_are_marked_where_that_is_said_and_else_as_they_were() -> None:
    assert attributes(encode(7, replace(CONFIG, mark=0x20))[4:])[7] == struct.pack("=I", 0x20)


def test_a_peer_with_another_key_is_there_before_the_old_one_goes() -> None:
    """In between, programs would be told that nobody can be reached."""
    device = attributes(encode(7, CONFIG, b"o" * 32)[4:])
    assert device[5] == struct.pack("=I", 0), "not all peers away first"
    new, old = (attributes(each) for _, each in read_attributes(device[8]))
    assert (new[1], new[3]) == (b"p" * 32, struct.pack("=I", 2))
    assert old == {1: b"o" * 32, 3: struct.pack("=I", 1)}, "WGPEER_F_REMOVE_ME"
    assert encode(7, CONFIG, CONFIG.peer) == encode(7, CONFIG), "so that another handshake begins"


def test_nested_parts_say_that_they_are() -> None:
    """Kernels of today refuse others."""
    kinds = []
    data = encode(7, CONFIG)[4:]
    while data:
        length, kind = struct.unpack_from("=HH", data)
        kinds.append(kind)
        data = data[(length + 3) & ~3 :]
    assert kinds[-1] == 8 | 0x8000


def test_what_the_kernel_tells_is_read() -> None:
    ipv4 = struct.pack("=H", 2) + struct.pack("!H", 9) + ip_address("192.0.2.1").packed + bytes(8)
    peer = pack_attribute(1, b"p" * 32) + pack_attribute(4, ipv4)
    peer += pack_attribute(6, struct.pack("=qq", 1700000000, 500000000))
    peer += pack_attribute(7, struct.pack("=Q", 1 << 40)) + pack_attribute(8, struct.pack("=Q", 148))
    head = b"\0\1\0\0" + pack_attribute(1, struct.pack("=I", 7))
    told = [head + pack_attribute(6, struct.pack("=H", 51820)), head + pack_attribute(8, pack_attribute(0, peer))]
    assert decode(told) == LinkState(51820, b"p" * 32, 1700000000.5, (ip_address("192.0.2.1"), 9), 1 << 40, 148)
    assert decode([head]) == LinkState()
    assert decode([encode(7, CONFIG)]).endpoint == CONFIG.endpoint


@pytest.mark.parametrize("kind", [4, 6, 7, 8])
def test_what_it_cannot_have_told_is_refused(kind: int) -> None:
    peer = pack_attribute(0, pack_attribute(kind, b"\2\0\0"))
    with pytest.raises(NetlinkError):
        decode([b"\0\1\0\0" + pack_attribute(8, peer)])
    with pytest.raises(NetlinkError):
        decode([b"\0"])


class PlaySocket:
    """Generic netlink of a kernel that has WireGuard, or not."""

    def __init__(self, number: int | None = 33) -> None:
        self.number = number
        self.asked: list[tuple[int, bytes]] = []
        self.refusal: int | None = None
        self.closed = False

    def request(self, kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        self.asked.append((kind, body))
        if kind == 16 and self.number is None:
            raise NetlinkError(errno.ENOENT, "No such file or directory")
        if self.refusal is not None:
            raise NetlinkError(self.refusal, "refused")
        return [(kind, b"\1\2\0\0" + pack_attribute(1, struct.pack("=H", self.number)))] if kind == 16 else []

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        self.asked.append((kind, body))
        return [self.asked[-2][1]] if len(self.asked) > 2 else []

    def close(self) -> None:
        self.closed = True


class PlayNetlink(Netlink):
    def __init__(self) -> None:
        self.there: list[KernelLink] = []

    def links(self) -> list[KernelLink]:
        return self.there

    def make_link(self, name: str, kind: str) -> None:
        self.there.append(KernelLink(7, name, 0, kind))

    def delete_link(self, index: int) -> None:
        self.there = [link for link in self.there if link.index != index]


@contextmanager
def kernel(own: PlaySocket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[KernelWireGuard, PlayNetlink]]:
    made: Any = own
    monkeypatch.setattr(wireguard_kernel, "NetlinkSocket", lambda _protocol: made)
    netlink = PlayNetlink()
    yield KernelWireGuard(netlink), netlink


def test_an_interface_of_the_kernel_is_made_set_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        own = PlaySocket()
        with kernel(own, monkeypatch) as (implementation, netlink):
            kind: Implementation = implementation
            device = await kind.make("re6stnet1")
            assert [(link.name, link.kind) for link in netlink.there] == [("re6stnet1", "wireguard")]
            assert device.process is None
            config = LinkConfig(b"s" * 32, free_port(), b"p" * 32)
            await device.configure(config)
            assert own.asked[-1] == (33, encode(7, config))
            assert (await device.state()).port == config.port
            assert implementation.found("re6stnet1", None).interface == "re6stnet1"
            own.refusal = errno.ENODEV
            with pytest.raises(WireGuardError, match="re6stnet1: refused"):
                await device.configure(config)
            await device.remove()
            assert netlink.there == []
            with pytest.raises(WireGuardError):
                implementation.found("re6stnet1", None)
            implementation.close()
            assert own.closed

    asyncio.run(play())


def test_a_kernel_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PlaySocket(None)
    with pytest.raises(NoWireGuard, match="the kernel has no module wireguard"), kernel(own, monkeypatch):
        pass
    assert own.closed


def test_an_interface_of_another_kind_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        with kernel(PlaySocket(), monkeypatch) as (implementation, netlink):
            netlink.there.append(KernelLink(7, "re6stnet1", 0, "tun"))
            with pytest.raises(WireGuardError):
                implementation.found("re6stnet1", None)

    asyncio.run(play())
