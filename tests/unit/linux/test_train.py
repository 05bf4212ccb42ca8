"""A train of packets over the loopback interface, which carries more than any link; and what goes first."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address

import pytest

from re6st.core.routing.packet_train import FEW, MANY, ON_THE_LINK, SLOW
from re6st.linux.train import Train, measured


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
