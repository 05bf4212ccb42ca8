"""Since when a destination is reached by whom."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from re6st.core.routing import route_history
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.route_history import RouteHistory, RouteState

NET = IPv6Network("2001:db8:42:1::/64")
A, B = (NextHop(IPv6Address(f"fe80::{n}"), "re6stnet1") for n in (1, 2))


def route(
    number: int, via: NextHop, *, metric: int = 96, destination: IPv6Network = NET, installed: bool = True
) -> str:
    return (
        f"add route {number} prefix {destination} from ::/0 installed {'yes' if installed else 'no'} id 0"
        f" metric {metric} refmetric 0 via {via.address} if {via.interface}"
    )


def test_a_way_changes_goes_and_comes_back() -> None:
    table, known = Table(), RouteHistory()
    known.note(table, 1)
    assert known[NET] is None
    table.feed(route(1, A))
    known.note(table, 2)
    known.note(table, 3)
    assert known[NET] == RouteState(A, 2)
    table.feed(route(1, A, installed=False))
    table.feed(route(2, B))
    known.note(table, 4)
    assert known[NET] == RouteState(B, 4, A)
    table.feed(route(2, B, metric=65535))
    known.note(table, 5)
    known.note(table, 6)
    assert known[NET] == RouteState(None, 5, B)
    table.feed(route(2, B))
    known.note(table, 7)
    assert known[NET] == RouteState(B, 7, B)


def test_what_is_gone_is_remembered_for_some_only() -> None:
    table, known = Table(), RouteHistory()
    nets = list(IPv6Network("2001:db8:42::/48").subnets(new_prefix=64))[: route_history.GONE_LIMIT + 5]
    for number, net in enumerate(nets):
        table.feed(route(number, A, destination=net))
    known.note(table, 1)
    table.clear()
    known.note(table, 2)
    assert sum(known[net] is not None for net in nets) == route_history.GONE_LIMIT
