"""Which further links are opened: over which lines, to whom, and when none is."""

from __future__ import annotations

from collections.abc import Mapping, Set
from ipaddress import IPv4Address, ip_address

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.transport.further_links import (
    FEW,
    IDLE,
    LOST_PAUSE,
    MANY,
    TELL_AGAIN,
    FurtherLinkChoice,
    LinkedPeer,
    Pair,
    Telling,
    serves,
)
from re6st.core.transport.wireguard_state import PAUSE
from re6st.core.wire.further_links import LINES_LIMIT, Address
from re6st.core.wire.wireguard import Reason

P, Q = Prefix(1, 16), Prefix(2, 16)
X, Y, Z = (IPv4Address(f"192.0.2.{number}") for number in (1, 2, 3))
FOUR = frozenset({4})
ONE: Mapping[str, Set[int]] = {"": frozenset({4, 6})}
TWO: Mapping[str, Set[int]] = {"a": FOUR, "b": FOUR}


def opened(
    lines: Mapping[str, Set[int]], first: Pair, *places: Address, neighbours: int = 1, used: Set[str] = frozenset({"a"})
) -> list[Pair]:
    """All further links with one peer, one after the other."""
    further, pairs = FurtherLinkChoice(), [first]
    while (found := further.next(lines, used, neighbours, {P: LinkedPeer(tuple(pairs), places)}, 0.0)) is not None:
        assert len(pairs) < LINES_LIMIT
        pairs.append(found[1])
    return pairs[1:]


def test_two_nodes_with_one_line_each_have_one_link() -> None:
    assert opened(ONE, Pair("", X)) == opened(ONE, Pair("", X), X) == []


def test_two_nodes_with_two_lines_each_have_two_links_that_share_none() -> None:
    assert opened(TWO, Pair("a", X), X, Y) == [Pair("b", Y)]


def test_each_line_of_the_end_that_has_more_is_used() -> None:
    assert opened(TWO, Pair("a", X)) == [Pair("b", X)]
    assert opened(ONE, Pair("", X), X, Y, Z) == [Pair("", Y), Pair("", Z)]


def test_a_line_is_not_tried_for_a_family_that_it_does_not_carry() -> None:
    six = ip_address("2001:db8::1")
    assert opened(TWO, Pair("a", X), X, six) == [Pair("b", X)]
    assert opened({"a": FOUR, "b": frozenset({6})}, Pair("a", X), X, six) == [Pair("b", six)]


@given(
    st.dictionaries(st.sampled_from("abcdefg"), st.just(FOUR), min_size=1),
    st.lists(st.integers(1, 9).map(lambda number: IPv4Address(f"192.0.2.{number}")), max_size=LINES_LIMIT, unique=True),
)
def test_whatever_lines_there_are_links_are_few_and_all_different(
    lines: Mapping[str, Set[int]], places: list[Address]
) -> None:
    first = Pair(min(lines), X)
    pairs = [first, *opened(lines, first, *places)]
    assert len(pairs) == len(set(pairs)) <= LINES_LIMIT
    wanted = max(len(lines), len({X, *places} if X in places else places))
    assert len(pairs) >= min(wanted, LINES_LIMIT)


def test_among_many_neighbours_only_a_line_that_nobody_has_used_for_a_while_gets_one() -> None:
    further, peers = FurtherLinkChoice(), {P: LinkedPeer((Pair("a", X),), (X, Y)), Q: LinkedPeer((Pair("a", Z),), ())}
    assert further.next(TWO, {"a", "b"}, FEW, peers, 0.0) is None
    assert further.next(TWO, {"a"}, FEW, peers, 1.0) is None, "the policy may be about to use it"
    assert further.next(TWO, {"a"}, FEW, peers, 1.0 + IDLE) == (P, Pair("b", Y))
    assert further.next(TWO, {"a", "b"}, FEW, peers, 2.0 + IDLE) is None


def test_with_whom_one_failed_none_is_opened_for_a_while() -> None:
    further, peers = FurtherLinkChoice(), {P: LinkedPeer((Pair("a", X),), ()), Q: LinkedPeer((Pair("a", Z),), ())}
    further.ended(P, Reason.NO_HANDSHAKE, 0.0, was_up=False)
    assert further.next(TWO, {"a"}, 2, peers, 1.0) == (Q, Pair("b", Z))
    further.ended(Q, Reason.SILENT, 1.0, was_up=True)
    assert further.next(TWO, {"a"}, 2, peers, 2.0) is None
    assert further.next(TWO, {"a"}, 2, peers, 1.0 + LOST_PAUSE) == (Q, Pair("b", Z))
    assert further.next(TWO, {"a"}, 2, peers, PAUSE) == (P, Pair("b", X))


def test_a_link_stays_while_it_serves() -> None:
    assert serves("b", TWO, {"a"}, 100), "nothing else goes over its line"
    assert serves("b", TWO, {"a", "b"}, MANY - 1)
    assert not serves("b", TWO, {"a", "b"}, MANY)
    assert not serves("lte", TWO, {"a"}, 1), "a metered line, as others are up again"


def test_a_peer_is_told_at_once_and_then_less_and_less_often() -> None:
    telling = Telling()
    moments = [now / 2 for now in range(400) if telling.due(P, "this", now / 2)]
    first, second, third, later = TELL_AGAIN
    assert moments[:5] == [0.0, first, first + second, first + second + third, first + second + third + later]
    assert telling.due(P, "that", 200.0), "what is new is told at once"
    telling.keep(set())
    assert not telling.knows(P)
