"""The addresses and endpoints by which one connection uses several lines."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.machine import mptcp_numbers, share_numbers, uplink_numbers
from re6st.core.machine.mptcp import (
    LINES,
    NEEDED,
    SIGNAL,
    SUBFLOW,
    MptcpEndpoint,
    MptcpLimits,
    differences,
    endpoints,
    things,
)
from re6st.core.machine.wanted_state import RT_TABLE_MAIN, KernelRule, Placed
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing import planes

NETWORK, SUBNET = IPv6Network("2001:db8:42::/48"), IPv6Network("2001:db8:42:1::/64")
ROOM = IPv6Network("2001:db8:42:1:ffff:ffff:ffff:fe00/120")


@given(st.integers(1, 128 - 48), st.integers(0))
def test_addresses_are_in_the_subnet_and_nobody_elses(length: int, value: int) -> None:
    own = Prefix(value % (1 << length), length)
    of = subnet(NETWORK, own)
    room = mptcp_numbers.reserved(of)
    assert (room is None) == (of.prefixlen > 112), "a longer one has no room"
    if room is None:
        return
    chosen = (mptcp_numbers.opening, mptcp_numbers.announced)
    found = [choose(room, slot) for slot in uplink_numbers.SLOTS for choose in chosen]
    assert len(set(found)) == len(found)
    anycast = IPv6Network((int(of.broadcast_address) - 127, 121))
    for each in found:
        assert each in of
        assert each in room
        assert each not in anycast
        assert int(each) - int(address(NETWORK, own)) > 0x1000, "where nobody counts to"


def test_the_addresses_stay_the_same_for_the_next_daemon_to_know_them() -> None:
    assert mptcp_numbers.reserved(SUBNET) == ROOM
    assert str(mptcp_numbers.opening(ROOM, 1)) == "2001:db8:42:1:ffff:ffff:ffff:fe01"
    assert str(mptcp_numbers.announced(ROOM, 2)) == "2001:db8:42:1:ffff:ffff:ffff:fe12"


def test_each_line_has_an_address_to_open_subflows_from_and_one_that_others_are_told() -> None:
    found = endpoints(ROOM, {3, 1})
    assert list(found) == [1, 3]
    assert [each.flags for each in found[1]] == [SUBFLOW, SIGNAL]
    assert [each.use for each in found[1]] == ["opening", "announced"]


def test_no_more_endpoints_are_made_than_the_kernel_takes() -> None:
    found = endpoints(ROOM, uplink_numbers.SLOTS)
    assert list(found) == list(uplink_numbers.SLOTS)[:LINES]
    assert sum(map(len, found.values())) == 8
    assert NEEDED.subflows <= 8, "the most that the kernel allows"


def test_what_has_such_a_source_goes_over_its_line_and_never_out_of_the_network() -> None:
    given = things(ROOM, NETWORK, {2, 1})
    placed = [each for each in given if isinstance(each, Placed)]
    assert all(
        (each.interface, each.length, each.routed, each.deprecated) == ("lo", 128, False, True) for each in placed
    )
    for slot in (1, 2):
        for each in endpoints(ROOM, {slot})[slot]:
            of = sorted(
                (rule for rule in given if isinstance(rule, KernelRule) and rule.source == IPv6Network(each.address)),
                key=lambda rule: rule.priority,
            )
            assert [(rule.table, rule.specific, rule.destination) for rule in of] == [
                (share_numbers.table(slot), False, NETWORK),
                (RT_TABLE_MAIN, True, NETWORK),
                (None, False, IPv6Network("::/0")),
            ], "over the line, else as babel says, else nowhere; a VPN's route for ::/1 does not count"


def test_these_rules_come_after_those_of_planes_and_before_those_of_lines() -> None:
    assert planes.PRIORITY + 1 + 2 * len(planes.BULK) < mptcp_numbers.PRIORITIES.start
    assert mptcp_numbers.PRIORITIES.stop <= share_numbers.PRIORITIES.start


def test_limits_are_only_raised() -> None:
    assert MptcpLimits(2, 0).at_least(NEEDED) == NEEDED
    assert MptcpLimits(8, 8).at_least(NEEDED) == MptcpLimits(8, 8)
    assert MptcpLimits(1, 7).at_least(NEEDED) == MptcpLimits(NEEDED.subflows, 7)


OURS = [each for of in endpoints(ROOM, {1, 2}).values() for each in of]
OTHERS = [MptcpEndpoint(ip_address("192.0.2.5"), SUBFLOW), MptcpEndpoint(IPv6Address("2001:db8:42:1::1"), SIGNAL)]


@given(st.sets(st.sampled_from(OURS)), st.lists(st.sampled_from(OURS + OTHERS), unique=True))
def test_endpoints_of_others_are_left_alone(wanted: set[MptcpEndpoint], there: list[MptcpEndpoint]) -> None:
    numbered = dict(enumerate(there, 1))
    surplus, missing = differences(wanted, numbered, ROOM)
    after = [each for number, each in numbered.items() if number not in surplus] + missing
    assert {*after} - {*OTHERS} == wanted
    assert len(after) == len(set(after))
    assert {*after} & {*OTHERS} == {*there} & {*OTHERS}


def test_one_of_ours_that_somebody_changed_is_made_anew() -> None:
    changed = MptcpEndpoint(OURS[0].address, SUBFLOW | 0x4)
    assert differences(OURS[:1], {7: changed}, ROOM) == ({7: changed}, OURS[:1])


@pytest.mark.parametrize("room", [None, ROOM])
def test_without_a_room_nothing_is_ours(room: IPv6Network | None) -> None:
    assert differences((), {1: OURS[0]}, room)[0] == ({} if room is None else {1: OURS[0]})
