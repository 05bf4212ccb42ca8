"""What is said about further links, as bytes (docs/protocol.md)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.machine.hosts import is_usable
from re6st.core.wire.datagrams import Code, WireError
from re6st.core.wire.extensions import Extension
from re6st.core.wire.further_links import (
    LANES,
    LINES_LIMIT,
    Address,
    LineAddresses,
    OnLane,
    decode,
    encode,
    may_have_further,
)
from re6st.core.wire.wireguard import NUMBER_LIMIT
from tests.unit.core.wire.test_wireguard_messages import Able
from tests.unit.session_world import A, B

addresses: st.SearchStrategy[Address] = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).filter(is_usable)
places = st.builds(
    LineAddresses,
    st.lists(addresses, max_size=LINES_LIMIT).map(tuple),
    st.lists(st.tuples(st.integers(1, NUMBER_LIMIT - 1), addresses), max_size=LINES_LIMIT).map(tuple),
)
LINES = LineAddresses((IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")), ((7, IPv4Address("198.51.100.1")),))
MAPPED = "00" * 10 + "ffff"


def test_places_have_these_bytes() -> None:
    lines = f"02{MAPPED}c000020120010db8000000000000000000000001"
    assert encode(LINES).hex() == f"00{lines}010000000000000007{MAPPED}c6336401"


@given(places)
def test_places_are_read_as_they_were_written_and_in_no_other_length(found: LineAddresses) -> None:
    data = encode(found)
    assert decode(data) == found
    for other in (data[:-1], data + b"\0"):
        with pytest.raises(WireError):
            decode(other)


@given(st.sampled_from(LANES), st.binary(max_size=80))
def test_what_is_said_on_a_lane_is_not_looked_at(lane: int, body: bytes) -> None:
    assert decode(encode(OnLane(lane, body))) == OnLane(lane, body)


@given(st.binary(max_size=120))
def test_whatever_comes_is_a_message_or_refused(data: bytes) -> None:
    try:
        assert encode(decode(data)) == data
    except WireError:
        pass


@pytest.mark.parametrize(
    "absurd",
    [
        b"",
        bytes((max(LANES) + 1,)),
        encode(LineAddresses((IPv4Address("192.0.2.1"),) * (LINES_LIMIT + 1))),
        encode(LineAddresses((IPv4Address("127.0.0.1"),))),
        encode(LineAddresses((IPv6Address("fe80::1"),))),
        encode(LineAddresses((), ((0, IPv4Address("192.0.2.1")),))),
    ],
)
def test_what_is_absurd_is_refused(absurd: bytes) -> None:
    with pytest.raises(WireError):
        decode(absurd)


def test_only_peers_that_announced_it_are_spoken_to_of_further_links() -> None:
    for abilities, may in (((Extension.WIREGUARD,), False), ((Extension.WIREGUARD, Extension.FURTHER_LINKS), True)):
        world = Able()
        world.ours(A, Extension.WIREGUARD, Extension.FURTHER_LINKS)
        world.ours(B, *abilities)
        world.send(A, B, bytes([Code.LOG]) + b"hello")
        assert may_have_further(world.machines[A], B, world.now) is may
        assert world.spoken(A, B)
