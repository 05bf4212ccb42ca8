"""rtnetlink without root: what the kernel of this machine says, and what nobody can rely on."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from re6st.core.machine.handing_rules import kernel_rules
from re6st.core.machine.uplinks import Uplink, WayOut, things
from re6st.core.machine.wanted_state import RTN_UNREACHABLE, RTPROT_RE6ST, KernelRoute, KernelRule, bulk_rules
from re6st.linux import rtnetlink
from re6st.linux.netlink import ATTEMPTS, NetlinkError, pack_attribute, read_attributes
from re6st.linux.rtnetlink import Netlink


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    own = Netlink()
    yield own
    own.close()


def test_what_this_machine_has(netlink: Netlink) -> None:
    lo = next(link for link in netlink.links() if link.name == "lo")
    assert lo.index == socket.if_nametoindex("lo")
    assert {link.name for link in netlink.links()} == {name for _, name in socket.if_nameindex()}
    if lo.up:
        found = [each for each in netlink.addresses(socket.AF_INET) if each.index == lo.index]
        assert (ip_address("127.0.0.1"), 8) in [(each.address, each.length) for each in found]
        route = netlink.route_to(ip_address("127.0.0.1"))
        assert route is not None
        assert route.interface == lo.index
        local = list(netlink.routes(socket.AF_INET, protocol=2))
        assert IPv4Network("127.0.0.0/8") in [route.destination for route in local]
        assert {route.protocol for route in local} == {2}


def test_a_refusal_has_its_number(netlink: Netlink) -> None:
    for _ in range(2):
        with pytest.raises(NetlinkError) as error:
            netlink.delete_link(0x7FFFFFF0)
        assert error.value.errno in (errno.ENODEV, errno.EPERM)
        assert error.value.strerror


class FakeSocket:
    """The kernel's side: what it sends for each request."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = list(packets)
        self.sent: list[bytes] = []

    def sendto(self, data: bytes, _to: object) -> None:
        self.sent.append(data)

    def recv(self, _size: int) -> bytes:
        return self.packets.pop(0)

    def close(self) -> None: ...


def message(kind: int, body: bytes, sequence: int = 1, flags: int = 0) -> bytes:
    packed = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
    return packed + bytes(-len(packed) % 4)


LINK = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + struct.pack("=HH6s2x", 10, 3, b"tap00\0")
DONE = bytes(4)


def talk(monkeypatch: pytest.MonkeyPatch, netlink: Netlink, *packets: bytes) -> FakeSocket:
    fake = FakeSocket(*packets)
    netlink.close()
    monkeypatch.setattr(netlink, "_socket", fake)
    return fake


def test_a_dump_in_several_packets(monkeypatch: pytest.MonkeyPatch, netlink: Netlink) -> None:
    stale = message(16, LINK, sequence=99)
    talk(monkeypatch, netlink, stale + message(16, LINK), message(16, LINK) + message(16, LINK) + message(3, DONE))
    assert [link.name for link in netlink.links()] == ["tap00"] * 3


def test_a_dump_that_was_interrupted_is_begun_again(monkeypatch: pytest.MonkeyPatch, netlink: Netlink) -> None:
    broken = [message(16, LINK, n, 0x10) + message(3, DONE, n) for n in range(1, ATTEMPTS + 1)]
    fake = talk(monkeypatch, netlink, broken[0], message(16, LINK, 2) + message(3, DONE, 2))
    assert len(netlink.links()) == 1
    assert len(fake.sent) == 2
    monkeypatch.setattr(netlink, "_sequence", 0)
    talk(monkeypatch, netlink, *broken)
    with pytest.raises(NetlinkError, match="changed while it was read"):
        netlink.links()


@pytest.mark.parametrize("length", [0, 15, 17, 4096])
def test_lengths_that_are_wrong(monkeypatch: pytest.MonkeyPatch, netlink: Netlink, length: int) -> None:
    talk(monkeypatch, netlink, struct.pack("=IHHII", length, 16, 0, 1, 0))
    with pytest.raises(NetlinkError):
        netlink.links()


def test_attributes_end_where_they_are_wrong() -> None:
    good = struct.pack("=HHI", 8, 4, 1500)
    assert list(read_attributes(good + struct.pack("=HH", 3, 9))) == [(4, struct.pack("=I", 1500))]
    assert list(read_attributes(good + struct.pack("=HH", 9, 9))) == [(4, struct.pack("=I", 1500))]
    assert list(read_attributes(b"\x08")) == []


@pytest.mark.parametrize(
    "route",
    [
        KernelRoute(IPv6Network("2001:db8::/48"), type=RTN_UNREACHABLE),
        KernelRoute(IPv6Network("::/0"), IPv6Network("2001:db8::/48"), ip_address("fe80::1"), 3, 42, priority=1024),
        KernelRoute(IPv4Network("192.0.2.1/32"), gateway=ip_address("192.0.2.254"), protocol=146, table=1000),
        KernelRoute(IPv4Network("0.0.0.0/0"), interface=2, priority=0),
        KernelRoute(IPv4Network("0.0.0.0/0"), gateway=ip_address("fe80::1"), interface=2, priority=0),
    ],
)
def test_a_route_is_read_as_it_was_written(route: KernelRoute) -> None:
    assert rtnetlink._read_route(rtnetlink._route(route, 0)) == route


def test_a_route_of_something_else_is_none() -> None:
    assert rtnetlink._read_route(rtnetlink._ROUTE.pack(128, 20, 0, 0, 254, 4, 0, 1, 0)) is None
    default = rtnetlink._read_route(rtnetlink._ROUTE.pack(socket.AF_INET6, 0, 0, 0, 254, 4, 0, 1, 0))
    assert default == KernelRoute(IPv6Network("::/0"))


@pytest.mark.parametrize(
    ("code", "raised"), [(errno.EAFNOSUPPORT, False), (errno.EOPNOTSUPP, False), (errno.EPERM, True)]
)
def test_a_kernel_without_rules_has_none(
    monkeypatch: pytest.MonkeyPatch, netlink: Netlink, code: int, raised: bool
) -> None:
    """A node starts on it all the same."""
    talk(monkeypatch, netlink, *(message(2, struct.pack("=i", -code), sequence) for sequence in (1, 2)))
    with pytest.raises(NetlinkError) if raised else nullcontext():
        assert netlink.rules() == []


def test_a_rule_is_read_as_it_is_written() -> None:
    """And those of others are left out."""
    line = Uplink(
        "a", "eth0", 3, (ip_address("192.0.2.7"), ip_address("2001:db8::7")), {4: WayOut(None), 6: WayOut(None)}
    )
    of_uplink = [each for each in things({2: line}) if isinstance(each, KernelRule)]
    assert len(of_uplink) == 8
    network = IPv6Network("2001:db8::/32")
    for rule in (*bulk_rules(network), *kernel_rules(network, (1, 7)), *of_uplink):
        body = rtnetlink._rule(rule)
        assert rtnetlink._read_rule(body) == rule
        assert rtnetlink._read_rule(body.replace(bytes([RTPROT_RE6ST]), b"\3")) is None


def test_a_default_route_with_several_gateways_is_one_for_each(
    monkeypatch: pytest.MonkeyPatch, netlink: Netlink
) -> None:
    """And a route that is none is not even read."""

    def hop(index: int, gateway: str) -> bytes:
        ip = ip_address(gateway)
        via = struct.pack("=H", socket.AF_INET6) + ip.packed
        attribute = pack_attribute(5, ip.packed) if ip.version == 4 else pack_attribute(18, via)
        return struct.pack("=HBBi", 8 + len(attribute), 0, 0, index) + attribute

    head = rtnetlink._ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
    several = head + pack_attribute(9, hop(2, "192.0.2.1") + hop(3, "fe80::1"))
    other = rtnetlink._ROUTE.pack(socket.AF_INET, 24, 0, 0, 254, 4, 0, 1, 0) + pack_attribute(1, b"bad")
    talk(monkeypatch, netlink, message(24, several) + message(24, other) + message(3, DONE), message(3, DONE, 2))
    found = netlink.default_routes()
    assert [(each.interface, str(each.gateway)) for each in found] == [(2, "192.0.2.1"), (3, "fe80::1")]


def test_a_default_route_whose_gateways_are_cut_off_is_an_error(
    monkeypatch: pytest.MonkeyPatch, netlink: Netlink
) -> None:
    head = rtnetlink._ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
    talk(
        monkeypatch,
        netlink,
        message(24, head + pack_attribute(9, struct.pack("=HBBi", 99, 0, 0, 2))) + message(3, DONE),
    )
    with pytest.raises(NetlinkError):
        netlink.default_routes()
