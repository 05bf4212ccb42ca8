"""re6st-conf --is-needed: whether a machine is in the network already, by its routes."""

from __future__ import annotations

from ipaddress import IPv6Network

from re6st.cli.conf.main import is_inside
from testbed import Bed

NETWORK = IPv6Network("2001:db8:42::/48")


def inside(bed: Bed, *commands: str) -> bool:
    """What a host says after these commands of ip(8)."""
    host = bed.host("machine")
    host.namespace.ip("link set eth0 up", *commands)
    return host.namespace.call(lambda: is_inside(NETWORK))


def test_a_machine_without_any_route_to_the_network(bed: Bed) -> None:
    assert not inside(bed, "address add 2001:db8:99::2/64 dev eth0 nodad")


def test_a_machine_whose_default_route_leads_elsewhere(bed: Bed) -> None:
    assert not inside(
        bed, "address add 2001:db8:99::2/64 dev eth0 nodad", "route add default via 2001:db8:99::1 dev eth0"
    )


def test_a_machine_behind_a_router_of_the_network(bed: Bed) -> None:
    assert inside(
        bed, "address add 2001:db8:42:5::2/64 dev eth0 nodad", "route add default via 2001:db8:42:5::1 dev eth0"
    )


def test_a_node_that_runs(bed: Bed) -> None:
    assert inside(
        bed,
        "address add 2001:db8:42:5::1/64 dev lo nodad",
        "route add unreachable 2001:db8:42::/48",
        "route add 2001:db8:42::/64 via fe80::1 dev eth0 src 2001:db8:42:5::1",
    )


def test_a_node_that_runs_alone(bed: Bed) -> None:
    assert inside(bed, "address add 2001:db8:42:5::1/64 dev lo nodad", "route add unreachable 2001:db8:42::/48")


def test_the_network_closed_off_by_somebody_else(bed: Bed) -> None:
    assert not inside(bed, "route add unreachable 2001:db8::/32")
