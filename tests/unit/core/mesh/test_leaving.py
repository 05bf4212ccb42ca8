"""Clients that ask whether they may close their tunnel, as the server sees it (wire.md 10.7)."""

from __future__ import annotations

from ipaddress import IPv6Address

from re6st.core.mesh.events import Action, AllowClose, DrainClient, Settings, UndrainClient
from re6st.core.mesh.leaving import Leavers
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop
from re6st.core.routing.survey import LinkUse, Survey

OWN, REGISTRY, P, Q = (Prefix(n, 16) for n in range(4))
HOP, LAN = NextHop(IPv6Address("fe80::1"), "re6stnet-tcp"), NextHop(IPv6Address("fe80::1"), "eth0")
CLOSE = 100.0


def settings(*, drains: bool = False) -> Settings:
    return Settings(
        own=OWN,
        registry=REGISTRY,
        client_count=10,
        tunnel_refresh=300,
        close_time=CLOSE,
        drains=drains,
        lan=frozenset({"eth0"}),
    )


def carrying(*carried: Prefix, hop: NextHop = HOP) -> Survey:
    link = LinkUse(hop, frozenset(carried), frozenset())
    return Survey(peers=frozenset({P, Q}), neighbours={P: (link,)})


class Driver:
    def __init__(self, *, drains: bool = False) -> None:
        self.leavers = Leavers()
        self.settings = settings(drains=drains)
        self.survey = carrying(P, Q)

    def at(self, now: float) -> list[Action]:
        return self.leavers.advance(self.survey, self.settings, now)


def test_a_client_that_carries_nothing_may_close_at_once() -> None:
    driver = Driver()
    for driver.survey in (carrying(), carrying(P, hop=LAN), Survey()):
        driver.leavers.ask(P, 0)
        assert driver.at(0) == [AllowClose(P)]
        assert driver.at(1) == []
        assert driver.leavers.gone(P) == []


def test_among_our_own_the_client_makes_the_routes_move() -> None:
    driver = Driver(drains=True)
    driver.leavers.ask(P, 0)
    assert driver.at(1) == []
    driver.survey = carrying()
    assert driver.at(2) == [AllowClose(P)]


def test_beside_older_software_we_drain_our_side_until_it_is_gone() -> None:
    driver = Driver()
    driver.leavers.ask(P, 0)
    assert driver.at(0) == [DrainClient(P, HOP)]
    assert driver.at(1) == []
    driver.survey = carrying()
    assert driver.at(2) == [AllowClose(P)]
    assert driver.at(3) == []
    assert driver.leavers.gone(P) == [UndrainClient(P, HOP)]
    assert driver.leavers.gone(P) == []


def test_who_asks_again_did_not_hear_the_answer() -> None:
    driver = Driver()
    driver.leavers.ask(P, 0)
    driver.at(0)
    driver.survey = carrying()
    for _ in range(3):
        assert driver.at(2) == [AllowClose(P)]
        driver.leavers.ask(P, 2)


def test_who_is_still_needed_is_told_at_half_of_its_patience() -> None:
    driver = Driver()
    driver.leavers.ask(P, 0)
    driver.at(0)
    assert driver.at(CLOSE / 2) == []
    assert driver.at(CLOSE / 2 + 1) == [AllowClose(P)]


def test_who_stays_all_the_same_is_used_again() -> None:
    driver = Driver()
    driver.leavers.ask(P, 0)
    driver.at(0)
    driver.survey = carrying()
    driver.at(1)
    assert driver.at(CLOSE) == []
    assert driver.at(CLOSE + 2) == [UndrainClient(P, HOP)]
    assert driver.at(CLOSE + 3) == []
