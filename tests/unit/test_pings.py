"""What the pings of the test bed say about a gap."""

from __future__ import annotations

from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.pings import Pinger


def made(times: list[float], answered: list[int]) -> Pinger:
    host: Any = SimpleNamespace()
    pinger = Pinger(host, IPv6Address("2001:db8::1"), 0.1)
    pinger.times, pinger.trips = times, dict.fromkeys(answered, 0.01)
    return pinger


@pytest.mark.parametrize(
    ("times", "answered", "gap"),
    [
        ([], [], 0),
        ([1.0, 1.1, 1.2], [], 0.2),
        ([1.0, 1.1, 1.2], [0, 1, 2], 0),
        ([1.0, 1.1, 1.2, 1.3, 1.4], [0, 3, 4], 0.2),
        ([1.0, 1.1, 1.2], [2], 0.2),
        ([1.0, 1.1, 1.2], [0], 0.2),
        ([1.0, 1.1, 9.0, 9.1], [0, 1, 2, 3], 0),
        ([1.0, 1.1, 9.0, 9.1, 9.2], [0, 1, 2, 4], 0.1),
    ],
)
def test_a_gap_is_the_time_in_which_pings_were_lost_not_the_one_in_which_none_was_sent(
    times: list[float], answered: list[int], gap: float
) -> None:
    assert made(times, answered).longest == pytest.approx(gap)
