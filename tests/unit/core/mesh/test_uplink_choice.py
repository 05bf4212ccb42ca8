"""Over which line each tunnel goes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.machine.uplinks import Uplink, WayOut
from re6st.core.mesh.uplink_choice import (
    BAD_TIME,
    CALM,
    PLACES,
    PROOF,
    PROVE_AGAIN,
    PROVE_METERED,
    REMEMBERED,
    SILENT_PEERS,
    UplinkChoice,
    carried,
)
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
    found.follow(dict(enumerate(uplinks, 1)), 0.0)
    return found


def opened(choice: UplinkChoice, count: int, now: float = 0.0) -> dict[str, int]:
    """So many tunnels come up."""
    for peer in PEERS[:count]:
        assert choice.choose(peer, HERE, now) is not None
        choice.reached(peer, HERE[0], now)
    return dict(choice.counts())


def test_without_lines_nothing_is_bound() -> None:
    none = choice()
    assert none.choose(P, HERE, 0.0) is None
    none.reached(P, HERE[0], 0.0)
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
    both.reached(R, HERE[0], BAD_TIME + 1)
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
    both.follow({1: line("a"), 2: line("b", up=False)}, now)
    both.follow({1: line("a"), 2: line("b")}, now)
    assert not both.is_silent("b"), "after it was away it may be good"


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
    assert both.used(Q) == "a", "also where it was bound to none, as there was one line alone"


def test_whoever_answered_is_known_then() -> None:
    both = choice(line("a"), line("b"))
    both.choose(None, HERE, 0.0)
    both.turned_out(P)
    assert (both.used(P), both.used(None)) == ("a", "")
    both.release(P)
    assert both.counts().total() == 0


def test_the_only_tunnel_of_an_earlier_daemon_is_that_of_whoever_it_is_with() -> None:
    both = choice(line("a"), line("b"))
    both.resume(None, both.mark("b"))
    both.turned_out(P)
    assert both.used(P) == "b"
    both.to_prove(0.0)
    assert both.misplaced(0.0) <= {P}
    both.release(P)
    assert both.counts().total() == 0
    both.to_prove(0.0)


def test_a_line_that_went_while_it_was_to_be_asked_has_nobody_to_ask() -> None:
    both = choice(line("a"), line("b"))
    opened(both, 2)
    both.follow({}, 0.0)
    assert both.places("a") == []


def test_a_line_that_is_gone_is_forgotten() -> None:
    both = choice(line("a"), line("b"))
    opened(both, 2)
    both.follow({1: line("a")}, 0.0)
    assert [both.used(peer) for peer in (P, Q)] == ["a", ""]
    both.missed(Q, 0.0)
    both.reached(Q, HERE[0], 0.0)
    assert not both.is_silent("b")


def test_what_is_remembered_of_peers_is_limited() -> None:
    both = choice(line("a"), line("b"))
    for number in range(REMEMBERED + 50):
        both.choose(number, HERE, 0.0)
        both.missed(number, 0.0)
        both.release(number)
    assert len(both._missed_by) == REMEMBERED
    assert len(both._records["a"].missed) < SILENT_PEERS


# --- lines that may be dead ---


class Doubts:
    """Counts how often a line is to be proved at once."""

    def __init__(self, choice: UplinkChoice) -> None:
        self.count = 0
        choice.news = self.note

    def note(self) -> None:
        self.count += 1


def test_where_a_tunnel_died_the_line_is_to_be_proved_and_others_are_preferred_meanwhile() -> None:
    both = choice(line("a"), line("b"))
    doubts = Doubts(both)
    opened(both, 4)
    assert both.to_prove(1.0) == []
    (lost, other) = both.over("b")
    both.lost(lost, 1.0)
    both.lost(lost, 1.0)
    assert (both.to_prove(1.0), doubts.count) == (["b"], 1)
    assert both.choose(R, HERE, 1.0).name == "a"  # type: ignore[union-attr]
    assert both.proved("b", True, 1.5) is False, "it was not silent"
    assert both.to_prove(2.0) == []
    both.release(lost)
    both.doubt(other)
    assert both.to_prove(2.0) == ["b"]
    both.doubt(lost)
    both.missed(lost, 2.0)
    assert doubts.count == 2, "there is no tunnel of that one"


def test_one_by_which_nobody_answers_is_silent_until_somebody_does() -> None:
    both = choice(line("a"), line("b"))
    opened(both, 4)
    (lost, other) = both.over("b")
    both.lost(lost, 1.0)
    assert both.proved("b", False, 2.0) is True, "news: whoever has tunnels over it is to give them up"
    assert both.is_silent("b")
    assert set(both.over("b")) == {lost, other}
    for peer in (lost, other):
        both.release(peer)
        assert both.choose(peer, HERE, 2.0).name == "a"  # type: ignore[union-attr]
        both.reached(peer, HERE[0], 2.0)
    assert both.to_prove(3.0) == []
    assert both.to_prove(2.0 + PROVE_AGAIN) == ["b"]
    assert both.proved("b", False, 20.0) is False
    assert both.misplaced(20.0) == frozenset()
    assert both.proved("b", True, 30.0) is True
    assert not both.is_silent("b")
    assert both.misplaced(30.0) == frozenset(both.over("a"))


def test_a_line_is_asked_at_places_that_took_a_connection_its_own_first() -> None:
    both = choice(line("a"), line("b"), line("six", family=6))
    tcp, udp = TunnelProtocol.TCP, TunnelProtocol.UDP
    places = [Endpoint(f"203.0.113.{n}", 1194, tcp) for n in range(8)]
    for number, peer in enumerate(PEERS[:8]):
        both.choose(peer, HERE, 0.0)
        both.reached(peer, places[number], 0.0)
    of_b = [places[number] for number, peer in enumerate(PEERS[:8]) if both.used(peer) == "b"]
    assert both.places("b")[: len(of_b)] == of_b
    assert len(both.places("b")) == PLACES
    assert both.places("six") == []
    for peer in PEERS[:8]:
        both.reached(peer, Endpoint("203.0.113.1", 1194, udp), 0.0)
    assert both.places("b") == [], "nobody can tell whether something listens there"
    both.reached(P, Endpoint("node.example.org", 1194, tcp), 0.0)
    assert both.places("b") == []


def test_where_nobody_can_be_asked_a_line_counts_as_good() -> None:
    both = choice(line("a"), line("b"))
    opened(both, 4)
    both.lost(both.over("b")[0], 1.0)
    assert both.proved("b", None, 1.0) is False
    assert both.to_prove(2.0) == []
    assert both.proved("c", False, 2.0) is False


def test_a_metered_line_is_asked_less_often() -> None:
    both = choice(line("a"), line("lte", metered=True))
    miss(both, "lte", 0.0)
    both.proved("lte", False, 0.0)
    assert both.to_prove(PROVE_AGAIN) == []
    assert both.to_prove(PROVE_METERED) == ["lte"]


# --- tunnels that had better go over another line ---


def crowded(*lines: Uplink, over: str, count: int, now: float = 0.0) -> UplinkChoice:
    """All tunnels are up, over one line."""
    found = choice(*lines)
    for peer in PEERS[:count]:
        found._used[peer] = over
        found.reached(peer, HERE[0], now)
    return found


@pytest.mark.parametrize(
    ("lines", "count", "moves"),
    [
        ([line("a"), line("b")], 2, True),
        ([line("a"), line("b")], 1, False),
        ([line("a"), line("b", metered=True)], 5, False),
        ([line("a", metered=True), line("b")], 1, True),
        ([line("a"), line("b", up=False)], 5, False),
        ([line("a", 1000), line("b", 1)], 2, True),
    ],
    ids=["to an empty one", "not the last one", "not to a metered one", "from a metered one", "not to one that is down",
         "to the slowest one too"],
)  # fmt: skip
def test_tunnels_move_to_a_line_that_has_none(lines: list[Uplink], count: int, moves: bool) -> None:
    both = crowded(*lines, over="a", count=count)
    target = ["b"] if moves else []
    assert both.to_prove(1.0) == target, "it is asked first"
    both.proved("b", True, 1.0)
    assert both.misplaced(1.0) == (frozenset(PEERS[:count]) if moves else frozenset())
    assert both.misplaced(1.0 + PROOF + 1) == frozenset(), "that was long ago"


@given(
    st.lists(st.none() | st.floats(1, 1000), min_size=2, max_size=5),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_moves_come_to_an_end_with_a_tunnel_on_each_line(
    capacities: list[float | None], count: int, rng: Random
) -> None:
    lines = [line(f"line{number}", each) for number, each in enumerate(capacities)]
    both = choice(*lines)
    for peer in PEERS[:count]:
        both._used[peer] = rng.choice(lines).name
        both.reached(peer, HERE[0], 0.0)
    for _ in range(2 * count):
        for name in both.to_prove(1.0):
            both.proved(name, True, 1.0)
        moved = sorted(both.misplaced(1.0), key=str)
        if not moved:
            break
        leaves = rng.choice(moved)
        both.release(leaves)
        assert both.choose(leaves, HERE, 1.0) is not None
        both.reached(leaves, HERE[0], 1.0)
    assert not both.misplaced(1.0)
    assert len(both.counts()) == min(count, len(lines))


def test_a_line_that_comes_and_goes_is_waited_for_longer_and_longer() -> None:
    up, down = {1: line("a"), 2: line("b")}, {1: line("a"), 2: line("b", up=False)}
    both = crowded(*up.values(), over="a", count=3)
    now, waits = 100.0, []
    for _ in range(7):
        both.follow(down, now)
        both.follow(up, now)
        wait = 0
        while not both.misplaced(now + wait):
            wait += 10
            both.proved("b", True, now + wait)
        waits.append(wait)
        now += wait
    assert waits == [20, 40, 80, 160, 320, 600, 600]
    now += 3600
    both.follow(down, now)
    both.follow(up, now)
    both.proved("b", True, now + 20)
    assert both.misplaced(now + 20), "it was good for an hour"


def test_a_line_that_is_new_is_waited_for() -> None:
    both = crowded(line("a"), over="a", count=3)
    both.follow({1: line("a"), 2: line("b")}, 50.0)
    assert both.to_prove(51.0) == []
    assert both.to_prove(50.0 + CALM) == ["b"]


def test_a_line_with_another_router_is_another_line() -> None:
    both = choice(line("a"), line("b"))
    miss(both, "b", 0.0)
    assert both.is_silent("b")
    other = replace(line("b"), ways={4: WayOut(ip_address("198.51.100.1"))})
    both.follow({1: line("a"), 2: other}, 1.0)
    assert not both.is_silent("b")
