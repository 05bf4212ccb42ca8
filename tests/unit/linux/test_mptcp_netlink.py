"""The kernel's endpoints of MPTCP: what it is told, as iproute2 says it, and what it tells."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from re6st.core.machine.mptcp import SIGNAL, SUBFLOW, MptcpEndpoint, MptcpLimits
from re6st.linux import mptcp_netlink
from re6st.linux.mptcp_netlink import MptcpNetlink, NoMptcp, decode, encode
from re6st.linux.netlink import NetlinkError, pack_attribute, read_attributes

FAMILY = 0x1C
SIX = MptcpEndpoint(ip_address("2001:db8::1"), SIGNAL | SUBFLOW)
BY_IPROUTE2 = bytes.fromhex(
    "010100003000018005000200050000000800060003000000060001000a0000001400040020010db8000000000000000000000001"
)
"""What `ip mptcp endpoint add 2001:db8::1 id 5 signal subflow` of iproute2 6.1 sends, after the netlink header."""


def test_an_endpoint_is_added_as_iproute2_does_it() -> None:
    without_number = BY_IPROUTE2[:4] + bytes.fromhex("28000180") + BY_IPROUTE2[16:]
    assert encode(SIX) == without_number
    assert decode(BY_IPROUTE2) == (5, SIX), "the kernel tells it in the same form"


def test_one_of_ipv4_is_read_too() -> None:
    four = MptcpEndpoint(ip_address("192.0.2.7"), SUBFLOW)
    head, nested = encode(four)[:4], encode(four)[8:]
    assert decode(head + pack_attribute(1, nested + pack_attribute(2, b"\x09"))) == (9, four)


@pytest.mark.parametrize("cut", [3, 4, 20, 40])
def test_a_message_that_is_cut_off_is_an_error(cut: int) -> None:
    with pytest.raises(NetlinkError):
        decode(BY_IPROUTE2[:cut])


class PlaySocket:
    """A kernel with one endpoint."""

    def __init__(self, protocol: int) -> None:
        assert protocol == 16
        self.said: list[bytes] = []
        self.family = True
        self.closed = False

    def request(self, kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        if kind == 16:
            if not self.family:
                raise NetlinkError(errno.ENOENT, "no such file")
            assert body.endswith(b"mptcp_pm\0\0\0\0")
            return [(16, bytes(4) + pack_attribute(1, FAMILY.to_bytes(2, "little")))]
        assert kind == FAMILY
        self.said.append(body)
        limits = pack_attribute(2, b"\4\0\0\0") + pack_attribute(3, b"\2\0\0\0")
        return [(FAMILY, b"\6\1\0\0" + limits)] if body[0] == 6 else []

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        assert (kind, body) == (FAMILY, b"\3\1\0\0")
        return [BY_IPROUTE2]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def sysctl(tmp_path: Path) -> Callable[[str, str], Path]:
    (tmp_path / "mptcp").mkdir()

    def write(name: str, value: str) -> Path:
        (tmp_path / "mptcp" / name).write_text(f"{value}\n")
        return tmp_path

    write("enabled", "1")
    return write


def test_what_there_is_can_be_asked_changed_and_deleted(
    sysctl: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PlaySocket(16)
    monkeypatch.setattr(mptcp_netlink, "NetlinkSocket", lambda _: own)
    kernel = MptcpNetlink(sysctl("pm_type", "0"))
    assert kernel.endpoints() == {5: SIX}
    assert kernel.limits() == MptcpLimits(subflows=2, accepted=4)
    kernel.set_limits(MptcpLimits(8, 3))
    assert own.said[-1][:1] == b"\5"
    assert dict(read_attributes(own.said[-1][4:])) == {2: b"\3\0\0\0", 3: b"\x08\0\0\0"}
    kernel.add(SIX)
    assert own.said[-1] == encode(SIX)
    kernel.delete(5, SIX)
    assert own.said[-1] == b"\2" + BY_IPROUTE2[1:]
    kernel.close()
    assert own.closed


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("enabled", "", r"this kernel has no MPTCP \(CONFIG_MPTCP"),
        ("enabled", "0", "switched off: sysctl net.mptcp.enabled=1"),
        ("pm_type", "1", "another program chooses the subflows: sysctl net.mptcp.pm_type=0"),
    ],
)
def test_where_it_cannot_be_used_the_text_says_why(
    sysctl: Callable[[str, str], Path], name: str, value: str, says: str
) -> None:
    with pytest.raises(NoMptcp, match=says):
        MptcpNetlink(sysctl(name, value))


def test_a_kernel_with_mptcp_and_no_endpoints_says_so(
    sysctl: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PlaySocket(16)
    own.family = False
    monkeypatch.setattr(mptcp_netlink, "NetlinkSocket", lambda _: own)
    with pytest.raises(NoMptcp, match=r"use one from 5\.10 on"):
        MptcpNetlink(sysctl("enabled", "1"))
    assert own.closed
