"""The drain of a server: when it is worth it, when it has worked, and when it is given up."""

from __future__ import annotations

from ipaddress import IPv6Address
from random import Random

import pytest

from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey
from re6st.core.transport.server_drain import (
    DRAIN,
    DRAIN_AGAIN,
    DRAIN_HELLOS,
    SPREAD_LAST,
    Drain,
    Verdict,
    first_pause,
    is_worth_it,
    pause_again,
    spread,
)

SERVER, OTHER = "re6stnet-tcp", "re6stnet1"
HELLO = 4.0
A, B = Prefix(1, 16), Prefix(2, 16)


def seen(*carried: Prefix, sole: tuple[Prefix, ...] = (), gone: tuple[Prefix, ...] = (), by: str = SERVER) -> Survey:
    """A mesh of two others, where a link carries some of them."""
    link = LinkUse(NextHop(IPv6Address("fe80::1"), by), frozenset(carried), frozenset(sole))
    return Survey(peers=frozenset((A, B)) - frozenset(gone), neighbours={A: (link,)})


def test_what_carries_something_that_has_another_way_is_drained() -> None:
    assert is_worth_it(seen(A), SERVER)
    assert not is_worth_it(seen(), SERVER), "nothing to lose"
    assert not is_worth_it(seen(A, by=OTHER), SERVER)
    assert not is_worth_it(seen(A, B, sole=(B,)), SERVER), "a short end costs less"


@pytest.mark.parametrize(
    ("survey", "hellos", "verdict"),
    [
        (seen(A), 0, Verdict.GOES_ON),
        (seen(A), DRAIN, Verdict.GOES_ON),
        (seen(A), DRAIN + 0.1, Verdict.NEEDED),
        (seen(A, sole=(A,)), DRAIN_HELLOS, Verdict.GOES_ON),
        (seen(A, sole=(A,)), DRAIN_HELLOS + 0.1, Verdict.NEEDED),
        (seen(A, gone=(B,)), 1, Verdict.NEEDED),
        (seen(), 1, Verdict.EMPTY),
        (seen(A, by=OTHER), 99, Verdict.EMPTY),
    ],
)
def test_a_drain_ends_empty_or_in_time(survey: Survey, hellos: float, verdict: Verdict) -> None:
    drain = Drain(SERVER, HELLO, 100.0, frozenset((A, B)))
    assert drain.verdict(survey, 100.0 + hellos * HELLO) is verdict


def test_a_larger_network_takes_its_time_but_not_for_ever() -> None:
    assert spread(HELLO, 0) == 0
    assert 0 < spread(HELLO, 2) < spread(HELLO, 5) < SPREAD_LAST == spread(HELLO, 10_000)


def test_the_nodes_of_a_network_begin_at_different_times_within_the_spread() -> None:
    pauses = [first_pause(HELLO, 10, Random(seed)) for seed in range(20)]
    assert len(set(pauses)) == 20
    assert 0 <= min(pauses) <= max(pauses) <= spread(HELLO, 10)
    assert max(pauses) - min(pauses) > spread(HELLO, 10) / 2


def test_a_server_that_was_needed_rests_before_it_is_drained_again() -> None:
    assert all(DRAIN_AGAIN <= pause_again(Random(seed)) <= 2 * DRAIN_AGAIN for seed in range(20))
