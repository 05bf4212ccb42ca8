"""The path MTU, on a way that the test plays: who is too big is told so, or vanishes."""

from __future__ import annotations

import contextlib
import errno
from ipaddress import IPv6Address

import pytest

from re6st.cli.status import icmp
from re6st.cli.status.icmp import IPV6_HEADER, PathMtu, ProbeError, path_mtu

THERE = IPv6Address("2001:db8::1")


class Way:
    """An echo socket on a way whose links carry `links`, the first our own interface's."""

    def __init__(self, *links: int, silent: bool = False, away: bool = False, lost: int = 0) -> None:
        self.links = list(links)
        self.silent = silent
        self.away = away
        self.lost = lost
        self.known = links[0]
        self.answer = b""
        self.sent: list[int] = []

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None: ...

    def setsockopt(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def getsockopt(self, *_: object) -> int:
        return self.known

    def connect(self, address: tuple[str, int, int, int]) -> None:
        if self.away:
            raise OSError(errno.EHOSTUNREACH, "No route to host")

    def send(self, data: bytes) -> None:
        size = len(data) + IPV6_HEADER
        self.sent.append(size)
        if size > self.known:
            raise OSError(errno.EMSGSIZE, "Message too long")
        if self.lost:
            self.lost -= 1
            return
        smaller = next((link for link in self.links if link < size), None)
        if smaller is None:
            self.answer = bytes((129,)) + data[1:]
        elif not self.silent:
            self.known = smaller

    def recv(self, limit: int) -> bytes:
        if not self.answer:
            raise TimeoutError
        answer, self.answer = self.answer, b""
        return answer


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (Way(1500), PathMtu(1500, 1500)),
        (Way(1500, 1420, 1400), PathMtu(1400, 1400)),
        (Way(1500, 1420, silent=True), PathMtu(1500, 1280)),
        (Way(1500, 1200, silent=True), PathMtu(1500, 64)),
        (Way(1500, 0, silent=True), None),
    ],
)
def test_path_mtu(way: Way, expected: PathMtu | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icmp, "_echo_socket", lambda: way)
    assert path_mtu(THERE, 1) == expected


def test_a_small_packet_goes_first_and_one_that_is_lost_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(1500, lost=1)
    monkeypatch.setattr(icmp, "_echo_socket", lambda: way)
    assert path_mtu(THERE, 1) == PathMtu(1500, 1500)
    assert way.sent == [64, 64, 1500]


def test_a_path_that_swallows_large_packets_is_sent_few(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(1500, 1200, silent=True)
    monkeypatch.setattr(icmp, "_echo_socket", lambda: way)
    assert path_mtu(THERE, 1) == PathMtu(1500, 64)
    assert way.sent == [64, 1500, 1500, 1280, 1280]


def test_a_way_that_never_settles_ends_the_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(1500, *range(1499, 1300, -1))
    monkeypatch.setattr(icmp, "_echo_socket", lambda: way)
    assert path_mtu(THERE, 1) == PathMtu(1500 - icmp.MTU_TRIES, 1280)


def test_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icmp, "_echo_socket", lambda: Way(1500, away=True))
    with pytest.raises(ProbeError, match=r"2001:db8::1: No route to host"):
        path_mtu(THERE, 1)


def test_the_loopback() -> None:
    with contextlib.suppress(ProbeError), open("/sys/class/net/lo/mtu") as file:  # this user may not
        assert path_mtu(IPv6Address("::1"), 2) == PathMtu(*2 * [int(file.read())])
