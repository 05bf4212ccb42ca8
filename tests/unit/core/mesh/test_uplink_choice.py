"""Over which line each tunnel goes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from re6st.core.machine.uplinks import Uplink, WayOut
from re6st.core.mesh.uplink_choice import BAD_TIME, REMEMBERED, SILENT_PEERS, UplinkChoice, carried
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

PEERS = [Prefix(number, 16) for number in range(30)]
P, Q, R = PEERS[:3]
HERE = (Endpoint("203.0.113.1", 1194, TunnelProtocol.TCP),)
SIX = (Endpoint("2001:db8::1", 1194, TunnelProtocol.TCP6),)


def line(name: str, mbits: float | None = None, *, metered: bool = False, up: bool = True, family: int = 4) -> Uplink:
    ways = {family: WayOut(ip_address("192.0.2.1"))} if up else {}
    addresses = (ip_address(f"192.0.2.{sum(map(ord, name)) % 200 + 2}"),)
    return Uplink(name, name, 2, addresses, ways, down=mbits, up=mbits, metered=metered)


def choice(*uplinks: Uplink) -> UplinkChoice:
    found = UplinkChoice()
    found.follow(dict(enumerate(uplinks, 1)))
    return found


def opened(choice: UplinkChoice, count: int, now: float = 0.0) -> dict[str, int]:
    """So many tunnels come up."""
    for peer in PEERS[:count]:
        assert choice.choose(peer, HERE, now) is not None
        choice.reached(peer)
    return dict(choice.counts())


def test_without_lines_nothing_is_bound() -> None:
    none = choice()
    assert none.choose(P, HERE, 0.0) is None
    none.reached(P)
    none.missed(P, 0.0)
    assert (none.used(P), none.mark(""), none.is_silent("")) == ("", 0, False)


@pytest.mark.parametrize(
    ("lines", "count", "spread"),
    [
        ([line("a"), line("b")], 10, {"a": 5, "b": 5}),
        ([line("a", 80), line("b", 20)], 10, {"a": 8, "b": 2}),
        ([line("a", 80), line("b", 20)], 2, {"a": 1, "b": 1}),
        ([line("a", 1000), line("b", 1)], 9, {"a": 8, "b": 1}),
        ([line("a", 30), line("b", 30), line("c", 30)], 9, {"a": 3, "b": 3, "c": 3}),
        ([line("a", 90), line("b", 30), line("c")], 12, {"a": 6, "b": 2, "c": 4}),
        ([line("a", 50), line("b", 50, up=False)], 4, {"a": 4}),
        ([line("a", 50), line("b", 500, metered=True)], 4, {"a": 4}),
        ([line("a", 50, up=False), line("b", 500, metered=True)], 4, {"b": 4}),
    ],
)
def test_tunnels_are_spread_by_capacity_and_never_all_on_one(
    lines: list[Uplink], count: int, spread: dict[str, int]
) -> None:
    assert opened(choice(*lines), count) == spread


def test_a_line_carries_only_its_families() -> None:
    both = choice(line("four"), line("six", family=6))
    assert [both.choose(peer, HERE, 0.0).name for peer in (P, Q)] == ["four", "four"]  # type: ignore[union-attr]
    assert both.choose(R, SIX, 0.0).name == "six"  # type: ignore[union-attr]
    assert choice(line("four")).choose(P, SIX, 0.0) is None
    name = (Endpoint("node.example.org", 1194, TunnelProtocol.TCP),)
    assert carried(line("four"), (*HERE, *SIX, *name)) == (*HERE, *name), "a name may be of either family"
    assert carried(line("four"), (Endpoint("::ffff:203.0.113.1", 1, TunnelProtocol.TCP),))


def test_a_peer_that_was_not_reached_by_one_line_is_tried_by_the_other() -> None:
    both = choice(line("a"), line("b"))
    names = []
    for _ in range(4):
        chosen = both.choose(P, HERE, 0.0)
        assert chosen is not None
        names.append(chosen.name)
        both.missed(P, 0.0)
        both.release(P)
    assert names == ["a", "b", "a", "b"]


def miss(choice: UplinkChoice, name: str, now: float) -> None:
    """As many peers as it takes are not reached over a line."""
    for peer in PEERS[20 : 20 + SILENT_PEERS]:
        choice._used[peer] = name
        choice.missed(peer, now)
        choice.release(peer)


def test_a_line_by_which_nobody_is_reached_is_avoided_and_tried_again() -> None:
    both = choice(line("a"), line("b"))
    miss(both, "b", 0.0)
    assert both.is_silent("b")
    assert opened(both, 4, now=1.0) == {"a": 4}
    later = both.choose(R, HERE, BAD_TIME + 1)
    assert later is not None
    assert later.name == "b"
    assert both.is_silent("b"), "nobody has been reached yet"
    both.reached(R)
    assert not both.is_silent("b")
    both.release(R)
    miss(both, "b", 100.0)
    assert both.choose(P, HERE, 100.0 + BAD_TIME - 1) != later


def test_it_is_avoided_longer_and_longer() -> None:
    both, now = choice(line("a"), line("b")), 0.0
    for times in (1, 2, 4, 8, 10, 10):
        miss(both, "b", now)
        assert both._records["b"].until == now + times * BAD_TIME
        now = both._records["b"].until
    both.came_back("b")
    assert not both.is_silent("b")


def test_a_line_with_a_tunnel_is_not_blamed_for_peers_that_are_away() -> None:
    both = choice(line("a"), line("b"))
    opened(both, 2)
    miss(both, "b", 0.0)
    assert not both.is_silent("b")


def test_a_metered_line_is_used_where_nobody_is_reached_by_the_others() -> None:
    both = choice(line("a"), line("lte", metered=True))
    assert both.choose(P, HERE, 0.0).name == "a"  # type: ignore[union-attr]
    both.missed(P, 0.0)
    both.release(P)
    assert both.choose(P, HERE, 1.0).name == "a", "one peer may be away itself"  # type: ignore[union-attr]
    both.release(P)
    miss(both, "a", 1.0)
    assert both.choose(P, HERE, 2.0).name == "lte"  # type: ignore[union-attr]


def test_tunnels_of_an_earlier_daemon_keep_their_lines() -> None:
    both = choice(line("a"), line("b"))
    both.resume(P, 0x20)
    both.resume(Q, 0)
    both.resume(R, 0x70)
    assert [both.used(peer) for peer in (P, Q, R)] == ["b", "", ""]
    assert both.choose(Q, HERE, 0.0).name == "a"  # type: ignore[union-attr]
    assert [both.mark(name) for name in ("a", "b", "c")] == [0x10, 0x20, 0]


def test_a_tunnel_counts_for_the_line_whose_address_it_has() -> None:
    """As where the peer is on the LAN of the other line."""
    a, b = line("a"), line("b")
    both = choice(a, b)
    both.choose(P, HERE, 0.0)
    both.settle(P, b.addresses[0])
    assert both.used(P) == "b"
    both.settle(P, ip_address("10.9.9.9"))
    both.settle(P, None)
    assert both.used(P) == "b"
    both.settle(Q, a.addresses[0])
    assert both.used(Q) == "", "it was bound to none"


def test_whoever_answered_is_known_then() -> None:
    both = choice(line("a"), line("b"))
    both.choose(None, HERE, 0.0)
    both.turned_out(P)
    assert (both.used(P), both.used(None)) == ("a", "")
    both.release(P)
    assert both.counts().total() == 0


def test_a_line_that_is_gone_is_forgotten() -> None:
    both = choice(line("a"), line("b"))
    opened(both, 2)
    both.follow({1: line("a")})
    assert [both.used(peer) for peer in (P, Q)] == ["a", ""]
    both.missed(Q, 0.0)
    both.reached(Q)
    assert not both.is_silent("b")


def test_what_is_remembered_of_peers_is_limited() -> None:
    both = choice(line("a"), line("b"))
    for number in range(REMEMBERED + 50):
        both.choose(number, HERE, 0.0)
        both.missed(number, 0.0)
        both.release(number)
    assert len(both._missed_by) == REMEMBERED
    assert len(both._records["a"].missed) < SILENT_PEERS
