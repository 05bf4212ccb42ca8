"""Traffic goes on when something breaks: one case of each kind; how fast, `./run bench failover` tells."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.failover import CASES, measure
from re6st.core.tunnel_protocols import TunnelCarrier

LONGEST = 15.0
"""Seconds: ten times what it takes on a quiet machine."""


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_traffic_finds_another_way(relayed: bool, record_property: Callable[[str, object], None]) -> None:
    cases = [case for case in CASES if case.relayed is relayed and TunnelCarrier.OPENVPN in case.carriers]
    found = measure(cases, [], calm=3.0)
    record_property("outages", str(found))
    assert max(found.values()) < LONGEST, found
