"""Two machines that have one certificate are found by the addresses that they come from in turn."""

from __future__ import annotations

from re6st.core.prefix import Prefix
from re6st.core.routing.twins import ELSEWHERE, LASTS, PEERS_LIMIT, Own, Twins

PEER = Prefix(2, 16)
A, B, C = "198.51.100.1", "203.0.113.7", "192.0.2.9"


def test_two_that_come_in_turn_are_named_once_with_both_addresses() -> None:
    twins = Twins()
    told = [twins.came(PEER, address, 0.5 * n) for n, address in enumerate((A, B, A, B, A))]
    assert [twin is not None for twin in told] == [False, False, True, False, False]
    (twin,) = twins.found(50)
    assert str(twin) == f"two machines have the certificate of 2/16: they connect from {A} and {B} in turn"
    assert twins.found(2 + LASTS) == [twin]
    assert twins.found(3 + LASTS) == []
    for n, address in enumerate((A, B)):
        assert twins.came(PEER, address, 2 * LASTS + n) is None
    assert twins.came(PEER, A, 2 * LASTS + 2) is not None, "again after a while"


def test_a_machine_that_moves_or_connects_again_is_none() -> None:
    for addresses in ((A, A, A, A, A), (A, B, B, B), (A, B, C, "192.0.2.10", "192.0.2.11")):
        twins = Twins()
        assert [twins.came(PEER, address, 10.0 * n) for n, address in enumerate(addresses)] == [None] * len(addresses)
    twins = Twins()
    assert all(twins.came(PEER, (A, B)[n % 2], 31.0 * n) is None for n in range(20)), "once in a while"


def test_a_machine_that_uses_ipv4_and_ipv6_in_turn_is_none() -> None:
    twins = Twins()
    assert all(twins.came(PEER, (A, "2001:db8::1")[n % 2], 10.0 * n) is None for n in range(9))


def test_what_is_remembered_is_bounded() -> None:
    twins = Twins()
    for number in range(3 * PEERS_LIMIT):
        for n in range(12):
            twins.came(Prefix(number, 16), (A, B)[n % 2], float(number))
    assert len(twins._comings) == PEERS_LIMIT
    assert len(twins.found(3.0 * PEERS_LIMIT)) <= PEERS_LIMIT


def test_each_of_two_can_be_told_where_the_other_one_is() -> None:
    twins = Twins()
    twins.came(PEER, A, 0)
    assert twins.other(PEER, A, 0) == ""
    twins.came(PEER, B, 1)
    twins.came(PEER, A, 2)
    assert (twins.other(PEER, A, 2), twins.other(PEER, B, 3)) == (B, A)
    assert twins.other(PEER, "2001:db8::1", 3) == ELSEWHERE, "which of the two that is nobody knows"
    assert twins.other(Prefix(3, 16), A, 3) == ""
    assert twins.other(PEER, A, 3 + LASTS) == ""


def test_what_others_say_of_our_own_certificate_is_said_once_and_ends() -> None:
    own = Own()
    assert own.words(0) == ""
    assert [own.told(Prefix(n, 16), place, n) for n, place in enumerate((A, B, ELSEWHERE))] == [True, False, False]
    assert own.words(3) == f"another machine has our certificate too ({A} and {B}), as 0/16, 1/16, 2/16 saw"
    assert own.words(2 + LASTS) == "another machine has our certificate too (elsewhere), as 2/16 saw"
    assert own.words(3 + LASTS) == ""
    assert own.told(PEER, A, 5 + LASTS), "again after a while"
    for number in range(1000):
        own.told(Prefix(number, 16), A, number)
    assert len(own._seen) < 10
