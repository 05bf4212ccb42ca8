"""A train of packets over the loopback interface, which carries more than any link; and what goes first."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address

import pytest

from re6st.core.routing.packet_train import FEW, MANY, ON_THE_LINK, SLOW
from re6st.linux import train as train_room
from re6st.linux.icmpv6 import arrival
from re6st.linux.train import Train, measure, measured


def arriving(mbits: float, sent: list[int]) -> list[float]:
    return [number * 8 * ON_THE_LINK / mbits / 1e6 for number in range(sent[-1])]


@pytest.mark.parametrize(("mbits", "trains"), [(SLOW / 2, [FEW]), (10 * SLOW, [FEW, MANY, MANY])])
def test_of_a_slow_link_no_more_is_asked_than_a_few_packets(mbits: float, trains: list[int]) -> None:
    sent: list[int] = []

    def send(count: int) -> list[float]:
        sent.append(count)
        return arriving(mbits, sent)

    assert measured(send) == pytest.approx(mbits)
    assert sent == trains


def test_where_nothing_comes_back_nothing_is_known() -> None:
    assert measured(lambda _: []) is None


def test_where_only_the_few_come_back_they_count() -> None:
    """Else a line that swallows all that is sent at once would pass for a good one."""
    assert measured(lambda count: arriving(20, [count]) if count == FEW else []) == pytest.approx(20)


class Trickle:
    """A peer whose answers never end, and are none to our requests."""

    type = socket.SOCK_DGRAM

    def setsockopt(self, *_: int) -> None: ...
    def settimeout(self, _: float) -> None: ...
    def sendto(self, *_: object) -> None: ...
    def close(self) -> None: ...
    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        return b"", [], 0, None


def test_a_peer_that_answers_without_end_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_room, "echo_socket", Trickle)
    monkeypatch.setattr(train_room, "LONGEST", 0.02)
    assert measure(IPv6Address("fe80::1"), 1) is None


def test_what_the_kernel_notes_of_an_arrival_counts_where_it_has_the_form_of_64_bits() -> None:
    noted = (socket.SOL_SOCKET, 35, struct.pack("=qq", 7, 500_000_000))
    assert arrival([(socket.SOL_SOCKET, 1, b""), noted]) == 7.5
    assert arrival([(socket.SOL_SOCKET, 35, struct.pack("=ii", 7, 5))]) > 1e9
    assert arrival([]) > 1e9


def test_a_machine_answers_itself() -> None:
    try:
        train = Train(IPv6Address("::1"), 0)
    except OSError as error:
        pytest.skip(f"no sockets for echo requests here: {error.strerror}")
    try:
        came = train.send(FEW)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error.strerror}")
    finally:
        train.close()
    assert len(came) == FEW
    assert max(came) - min(came) < 10
    assert socket.has_ipv6
