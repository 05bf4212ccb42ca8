"""Which version of IP this machine and its peers have in common (core/mesh/families.py)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from re6st.core.machine.hosts import Ip
from re6st.core.mesh.families import nothing_in_common
from re6st.core.wire.datagrams import parse_addresses

SIX, FOUR = ip_address("2a00:1::3"), ip_address("192.168.0.5")


@pytest.mark.parametrize(
    ("own", "servers"),
    [
        ([SIX], "2a00:1::1,1194,tcp6"),
        ([SIX], "198.51.100.1,1194,tcp;2a00:1::1,1194,udp6"),
        ([FOUR], "198.51.100.1,1194,tcp4"),
        ([FOUR, SIX], "198.51.100.1,1194,udp"),
        ([], "198.51.100.1,1194,tcp"),
        ([SIX], ""),
        ([ip_address("::1"), ip_address("fe80::1")], "198.51.100.1,1194,tcp"),
    ],
)
def test_nothing_is_missing_or_nothing_is_known(own: list[Ip], servers: str) -> None:
    assert nothing_in_common(own, parse_addresses(servers)) is None


def test_what_is_missing_is_named_with_the_side_that_lacks_it() -> None:
    text = nothing_in_common([SIX], parse_addresses("198.51.100.1,1194,tcp"))
    assert text is not None
    assert text.startswith("this machine has IPv6 only, and the servers of all peers that it knows have IPv4 only")
    assert "listen on IPv6" in text
    text = nothing_in_common([FOUR], parse_addresses("2a00:1::1,1194,tcp6"))
    assert text is not None
    assert text.startswith("this machine has IPv4 only")
