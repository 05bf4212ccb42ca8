"""Who may hold a connection, and who goes for another (core/limits/crowd.py)."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.limits.crowd import Crowd, Decision


def test_one_sender_has_a_share_and_its_oldest_idle_connection_goes_for_its_next() -> None:
    crowd: Crowd[int] = Crowd(100, 3, 10)
    assert [crowd.enter(n, "192.0.2.1").instead for n in range(3)] == [None] * 3
    crowd.asked(0)
    assert crowd.enter(3, "192.0.2.1") == Decision(True, 1), "0 has asked for something"
    assert crowd.enter(4, "198.51.100.1").instead is None, "another sender costs nobody anything"


def test_who_has_asked_keeps_its_place_and_the_next_of_that_sender_is_refused() -> None:
    crowd: Crowd[int] = Crowd(100, 2, 10)
    for n in range(2):
        crowd.enter(n, "192.0.2.1")
        crowd.asked(n)
    assert not crowd.enter(2, "192.0.2.1").admitted
    crowd.leave(0)
    assert crowd.enter(3, "192.0.2.1").admitted


def test_strangers_from_everywhere_leave_the_reserve_to_members_and_to_this_machine() -> None:
    crowd: Crowd[str] = Crowd(20, 2, 5)
    for n in range(50):
        key = f"stranger {n}"
        if crowd.enter(key, f"198.{n}.100.1").admitted:
            crowd.asked(key)
    assert len(crowd) == 15
    assert all(crowd.enter(f"member {n}", f"203.0.113.{n}", known=True).admitted for n in range(4))
    assert crowd.enter("operator", None) == Decision(True)
    assert crowd.enter("one more", None).instead == "member 0", "which has asked for nothing"


def test_whoever_has_a_wide_network_has_not_the_share_of_each_of_its_addresses() -> None:
    crowd: Crowd[int] = Crowd(10_000, 10, 100)
    site = int(IPv6Address("2001:db8:1::"))
    for n in range(1000):
        if crowd.enter(n, str(IPv6Address(site + (n << 64)))).admitted:
            crowd.asked(n)
    assert len(crowd) == 80, "eight times the share for a /48"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=200))
def test_the_counts_are_those_of_the_connections_whatever_happens(moves: list[tuple[int, int, bool]]) -> None:
    crowd: Crowd[int] = Crowd(8, 3, 2)
    inside: dict[int, str | None] = {}
    for number, (what, who, known) in enumerate(moves):
        sender = None if who == 9 else f"192.0.2.{who}"
        if what == 0 and inside:
            gone = sorted(inside)[who % len(inside)]
            crowd.leave(gone)
            del inside[gone]
        elif what == 1 and inside:
            crowd.asked(sorted(inside)[who % len(inside)])
        else:
            entry = crowd.enter(number, sender, known=known)
            if entry.instead is not None:
                del inside[entry.instead]
            if entry.admitted:
                inside[number] = sender
        assert len(crowd) == len(inside) <= 8
        senders = [each for each in inside.values() if each is not None]
        assert all(senders.count(each) <= 3 for each in senders)
    for key in list(inside):
        crowd.leave(key)
    assert not crowd._held
    assert not crowd._waiting
