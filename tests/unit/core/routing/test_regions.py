"""Regions: which one a prefix is in, what a node takes of them, and what its babeld is told."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix, PrefixError, address, control_address, subnet
from re6st.core.routing.babel_lines import NextHop, Route, Table
from re6st.core.routing.regions import (
    LATELY,
    RecentLengths,
    announced,
    anycast_address,
    filters,
    not_installed,
    own_region,
    region_of,
)
from re6st.core.routing.survey import Survey, survey

NETWORK = IPv6Network("2001:db8::/32")
PREFIXES = st.integers(1, 16).flatmap(lambda length: st.builds(Prefix, st.integers(0, 2**length - 1), st.just(length)))
LENGTHS = st.integers(0, 8)


def bits(text: str) -> Prefix:
    return Prefix.from_bits(text)


def test_a_region_is_the_first_bits_of_a_prefix() -> None:
    assert region_of(bits("0110011"), 3) == bits("011")
    assert region_of(bits("011"), 3) == bits("011"), "one node is the whole region"
    assert region_of(bits("01"), 3) == bits("01"), "and this one is two of them"
    assert region_of(bits("0110011"), 0) == Prefix(0, 0), "a flat network is one region"


def takes(own: Prefix, length: int, net: IPv6Network) -> bool:
    """Whether a node takes a route to that destination, by the lines that its babeld is given."""
    allowed = False
    for line in filters(NETWORK, own, length, 48):
        words = line.split()
        assert words[-1] == "allow"
        within = net.subnet_of(IPv6Network(words[2]))
        allowed |= within and int(words[4]) <= net.prefixlen <= int(words[6])
    return allowed


def test_a_node_takes_its_region_and_one_route_of_each_other_one() -> None:
    def taken(text: str) -> bool:
        return takes(bits("0110011"), 3, subnet(NETWORK, bits(text)))

    assert all(map(taken, ["0111111", "011", "010", "111", "1", "00"]))
    assert not any(map(taken, ["0101", "1110011"]))
    assert not takes(bits("0110011"), 3, IPv6Network("2001:db9::/40")), "not of this network"


@given(own=PREFIXES, other=PREFIXES, length=LENGTHS)
def test_the_lines_for_babeld_say_what_a_node_takes(own: Prefix, other: Prefix, length: int) -> None:
    wanted = other.length <= length or region_of(own, length).contains(other)
    assert takes(own, length, subnet(NETWORK, other)) == wanted


@given(own=PREFIXES, length=LENGTHS)
def test_each_node_tells_of_a_region_that_is_more_than_itself(own: Prefix, length: int) -> None:
    region = own_region(own, length)
    assert (region is None) == (own.length <= length or not length)
    assert region is None or (region.contains(own) and region.length == length)


def test_babel_tells_of_any_region_for_which_the_kernel_has_our_route() -> None:
    assert announced(NETWORK) == "redistribute ip 2001:db8::/32 ge 33 proto 44"


def test_no_way_of_others_to_its_own_region_comes_into_the_kernel_but_ways_to_nodes_and_larger_regions_do() -> None:
    assert not_installed(NETWORK, Prefix(5, 16), 14) == ["install ip 2001:db8:4::/46 eq 46 deny"]
    assert not_installed(NETWORK, Prefix(5, 16), 0) == []
    assert not_installed(NETWORK, Prefix(5, 14), 14) == [], "its own subnet has a line of its own"


def test_the_address_of_a_region_is_that_of_no_node() -> None:
    region = bits("011")
    found = anycast_address(NETWORK, region)
    for text in ("0110000", "0111111", "011"):
        assert found in subnet(NETWORK, region)
        assert found not in {address(NETWORK, bits(text)), control_address(NETWORK, bits(text))}
    with pytest.raises(PrefixError):
        anycast_address(IPv6Network("2001:db8::/120"), bits("01100110"))


# --- what babel's table says of regions ---

OWN = bits("0110011")


def route(text: str, via: int, router: str, refmetric: int = 0, installed: bool = True) -> Route:
    hop = NextHop(IPv6Address(0xFE80 << 112 | via), f"re6stnet{via}")
    return Route(
        f"{text}-{via}",
        subnet(NETWORK, bits(text)),
        IPv6Network("::/0"),
        installed,
        96 + refmetric,
        refmetric,
        hop,
        router,
    )


def seen(*routes: Route) -> Survey:
    table = Table()
    table.routes = {route.ident: route for route in routes}
    return survey(table, NETWORK, OWN, 3)


def test_a_neighbour_in_another_region_is_known_by_that_region() -> None:
    found = seen(
        route("0110000", 1, "a"),
        route("011", 1, "a", installed=False),
        route("101", 2, "b"),
        route("110", 2, "c", refmetric=96),
    )
    assert found.peers == {bits("0110000"), bits("101"), bits("110")}
    assert found.neighbours.keys() == {bits("0110000"), bits("101")}
    assert not found.split


def test_a_region_is_split_if_somebody_announces_it_whom_no_route_leads_to() -> None:
    assert seen(route("101", 2, "b"), route("011", 2, "d", refmetric=96, installed=False)).split
    assert not seen(route("0110000", 1, "d"), route("011", 2, "d", refmetric=96, installed=False)).split


def flat(*routes: Route, recent: frozenset[int] = frozenset()) -> Survey:
    table = Table()
    table.routes = {route.ident: route for route in routes}
    return survey(table, NETWORK, OWN, recent=recent)


def test_in_a_flat_network_nobody_hides_a_node_by_a_subnet_of_it() -> None:
    """Prefixes have two lengths there, and a member says that it heard of somebody within a node's own subnet."""
    node, within = route("1010", 1, "a", refmetric=96), route("1010000", 2, "liar", refmetric=96)
    for recent in (frozenset[int](), frozenset((3,))):
        found = flat(node, within, recent=recent)
        assert bits("1010") in found.peers
        assert bits("1010") in found.metrics


def test_regions_of_a_moment_ago_are_no_nodes() -> None:
    """Their nodes are known one by one again, or in regions of another length."""
    node, region = route("1010000", 1, "a", refmetric=96), route("101", 1, "a", refmetric=96)
    assert flat(node, region, recent=frozenset((3,))).peers == {bits("1010000")}
    assert flat(region, recent=frozenset((3,))).peers == {bits("101")}, "it is all that we have"


def test_who_is_next_to_us_is_not_hidden_even_then() -> None:
    neighbour, within = route("101", 1, "a"), route("1010000", 2, "liar", refmetric=96)
    assert bits("101") in flat(neighbour, within, recent=frozenset((3,))).peers


def test_lengths_of_regions_are_remembered_for_some_minutes() -> None:
    lengths = RecentLengths()
    assert lengths.note(0, 0.0) == frozenset()
    assert lengths.note(14, 1.0) == {14}
    assert lengths.note(15, 2.0) == {14, 15}
    assert lengths.note(0, 1.0 + LATELY) == {15}
    assert lengths.note(0, 2.0 + LATELY) == frozenset()


def test_ways_of_others_to_what_was_our_region_are_no_peers_that_we_miss() -> None:
    """The network is flat again, and the other nodes have not forgotten our region yet."""
    table = Table()
    others = route("1010000", 2, "b"), route("101", 2, "b", installed=False), route("101", 1, "b", refmetric=96)
    for each in (route("0110000", 1, "a"), route("011", 1, "a", installed=False), *others):
        table.routes[each.ident] = each
    found = survey(table, NETWORK, OWN, recent={3})
    assert found.peers == found.neighbours.keys() == {bits("0110000"), bits("1010000")}
    assert not found.starved, "or babeld would be started anew for it"
