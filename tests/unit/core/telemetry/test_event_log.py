"""What the event log makes of a node's life."""

from __future__ import annotations

from ipaddress import IPv6Address

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import Survey
from re6st.core.telemetry.event_log import KEPT, LOST_LIMIT, NAMED, EventLog, Happening

A, B, C = (Prefix(n, 16) for n in (1, 2, 3))


def told(event_log: EventLog) -> list[tuple[str, str, float | None]]:
    return [(h.kind, " ".join(p.cn for p in h.peers), h.seconds) for h in event_log.happenings]


def seen(*peers: Prefix, running: bool = True) -> policy.Surveyed:
    return policy.Surveyed(Survey(peers=frozenset(peers), running=running))


def test_a_link_that_loses_packets_for_a_while() -> None:
    event_log, hop = EventLog(), NextHop(IPv6Address("fe80::1"), "re6stnet1")
    event_log.decided(policy.AvoidLink(A, hop), 10)
    event_log.decided(policy.TrustLink(A, hop), 90)
    assert told(event_log) == [("link-avoided", "1/16", None), ("link-trusted", "1/16", None)]


def test_tunnels_come_and_go() -> None:
    event_log = EventLog()

    def note(event: policy.Event, now: float) -> None:
        event_log.note(event, connected=True, now=now)

    note(policy.TunnelUp(A, "re6stnet1"), 10)
    note(policy.TunnelDown(A), 15)
    note(policy.TunnelUp(A, "re6stnet1"), 20)
    event_log.decided(policy.DrainTunnel(A), 21)
    event_log.decided(policy.CloseTunnel(A, "replaced"), 29)
    note(policy.TunnelDown(A), 30)
    note(policy.TunnelDown(B), 31)
    note(policy.ClientUp(C), 40)
    note(policy.ClientUp(C), 41)
    note(policy.ClientDown(C), 45)
    note(policy.ClientDown(C), 46)
    note(policy.ClientDown(C), 47)
    assert told(event_log) == [
        ("tunnel-up", "1/16", None),
        ("tunnel-lost", "1/16", 5),
        ("tunnel-up", "1/16", None),
        ("tunnel-draining", "1/16", None),
        ("tunnel-closed", "1/16", 10),
        ("tunnel-failed", "2/16", None),
        ("client-up", "3/16", None),
        ("client-up", "3/16", None),
        ("client-down", "3/16", 5),
        ("client-down", "3/16", 5),
        ("client-down", "3/16", None),
    ]
    assert [h.reason for h in event_log.happenings if h.reason] == ["replaced"]


def test_what_is_lost_and_healed_in_how_long() -> None:
    event_log = EventLog()
    for event, connected, now in (
        (seen(running=False), False, 0),
        (seen(A, B), True, 3),
        (seen(A), True, 10),
        (seen(A, B), True, 12),
        (seen(running=False), False, 20),
        (seen(B), True, 21),
        (seen(A, B), True, 22),
    ):
        event_log.note(event, connected=connected, now=now)
    assert told(event_log) == [
        ("babel-running", "", 3),
        ("connected", "", 3),
        ("peers-lost", "2/16", None),
        ("peers-back", "2/16", 2),
        ("babel-ended", "", 17),
        ("disconnected", "", 17),
        ("babel-running", "", 1),
        ("peers-lost", "1/16", None),
        ("connected", "", 1),
        ("peers-back", "1/16", 1),
    ]
    assert event_log.babel_ended(30) == 1
    assert event_log.babel_ended(4000) == 0


def test_a_babeld_that_we_end_ourselves_is_no_reason_to_worry() -> None:
    reason = ["new settings"]
    event_log = EventLog(lambda: reason[0])
    event_log.note(seen(A), connected=True, now=0)
    event_log.note(seen(running=False), connected=False, now=1)
    assert [h.reason for h in event_log.happenings if h.kind == "babel-ended"] == ["new settings"]
    assert event_log.babel_ended(2) == 0
    reason[0] = ""
    event_log.note(seen(A), connected=True, now=3)
    event_log.note(seen(running=False), connected=False, now=4)
    assert event_log.babel_ended(5) == 1


def test_a_large_network_that_flaps_is_told_in_bounds() -> None:
    event_log = EventLog()
    heard: list[Happening] = []
    event_log.listeners.add(heard.append)
    crowd = [Prefix(n, 16) for n in range(3 * LOST_LIMIT)]
    for turn in range(KEPT):
        event_log.note(seen(*crowd), connected=True, now=2 * turn)
        event_log.note(seen(), connected=True, now=2 * turn + 1)
    assert len(event_log.happenings) == KEPT
    assert max(len(h.peers) for h in event_log.happenings) == NAMED
    assert {h.count for h in event_log.happenings} == {LOST_LIMIT, 3 * LOST_LIMIT}
    assert len(event_log._lost) <= LOST_LIMIT
    assert [h.number for h in heard] == list(range(1, len(heard) + 1))
