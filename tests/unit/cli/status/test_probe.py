"""Echo requests and traces, as far as the loopback interface goes; tests/network/test_status.py goes through a mesh."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address

import pytest

from re6st.cli.status import icmp
from re6st.cli.status.icmp import Hop, ProbeError, answers, ping, trace

LOOPBACK = IPv6Address("::1")


def test_the_loopback_is_one_hop() -> None:
    (hop,) = trace(LOOPBACK, 2)
    assert (hop.number, hop.address, hop.reached, hop.refusal) == (1, LOOPBACK, True, "")
    assert hop.seconds is not None
    assert 0 < hop.seconds < 2


def test_ping() -> None:
    try:
        seconds = ping(LOOPBACK, 2)
    except ProbeError as error:  # this user may not
        seconds, said = 1.0, str(error)
    else:
        said = "Use sudo"
    assert "Use sudo" in said
    assert seconds is not None
    assert 0 < seconds < 2


def test_who_may_not_send_echo_requests_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(LOOPBACK, 2)

    def refused(address: IPv6Address, timeout: float) -> float | None:
        raise ProbeError("no permission")

    monkeypatch.setattr(icmp, "ping", refused)
    assert answers(LOOPBACK, 2)
    assert not answers(IPv6Address("ff00::"), 0.1), "it cannot even be sent"


class Queue:
    """A socket with an error queue of the test's."""

    def __init__(self, *entries: tuple[int, int, str, int]) -> None:
        self.entries = list(entries)

    def recvmsg(self, *sizes: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple[str, int]]:
        if not self.entries:
            raise BlockingIOError
        kind, code, source, port = self.entries.pop(0)
        address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, IPv6Address(source).packed, 0)
        data = struct.pack("=IBBBBII", 0, 3, kind, code, 0, 0, 0) + address
        return b"", [(socket.IPPROTO_IPV6, 25, data)], 0, ("2001:db8::9", port)


@pytest.mark.parametrize(
    ("entry", "hop"),
    [
        ((3, 0, "2001:db8::4", 7), Hop(1, IPv6Address("2001:db8::4"), 0.5)),
        ((1, 4, "2001:db8::9", 7), Hop(1, IPv6Address("2001:db8::9"), 0.5, reached=True)),
        ((1, 1, "2001:db8::9", 7), Hop(1, IPv6Address("2001:db8::9"), 0.5, reached=True)),
        ((1, 0, "2001:db8::4", 7), Hop(1, IPv6Address("2001:db8::4"), 0.5, refusal="it has no route")),
        ((1, 99, "2001:db8::4", 7), Hop(1, IPv6Address("2001:db8::4"), 0.5, refusal="unreachable (code 99)")),
        ((3, 0, "2001:db8::4", 8), None),
        ((129, 0, "2001:db8::4", 7), None),
    ],
)
def test_what_the_error_queue_says(entry: tuple[int, int, str, int], hop: Hop | None) -> None:
    queue = Queue(entry)
    assert icmp._error(queue, IPv6Address("2001:db8::9"), 1, 7, 0.5) == hop  # type: ignore[arg-type]


def test_an_empty_queue_says_nothing() -> None:
    assert icmp._error(Queue(), LOOPBACK, 1, 7, 0.5) is None  # type: ignore[arg-type]


def test_where_nothing_can_be_sent() -> None:
    with pytest.raises(ProbeError, match="::1: Network is unreachable"):
        raise_unreachable()


def raise_unreachable() -> None:
    class Unsendable:
        def setsockopt(self, *what: int) -> None:
            pass

        def sendto(self, data: bytes, to: tuple[str, int]) -> int:
            raise OSError(101, "Network is unreachable")

    icmp._probe(Unsendable(), LOOPBACK, 1, 0.1)  # type: ignore[arg-type]
