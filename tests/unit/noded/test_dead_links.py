"""A node leads around links that are dead: counters, probes and routes are played, the decisions are real."""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from re6st.core.machine.uplinks import Uplink
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing.babel_lines import INFINITY, Neighbour, NextHop, Route4
from re6st.core.routing.detours import ANYWHERE, HALVES, Detour, Way, detours, for_packets_of
from re6st.core.routing.liveness import BUSY, IDLE_FOR, OWED, QUIET, RESENT
from re6st.linux.link_traffic import Shared
from re6st.noded.dead_links import EVERYBODY, FORGOTTEN, LASTING, PROOF, PROOFS
from re6st.noded.link_counts import FOLLOW, FOLLOW_QUIET
from tests.unit.dead_links_world import (
    HOP_A,
    HOP_B,
    NETWORK,
    OTHER,
    OTHERS,
    OURS,
    OWN,
    WAY_A,
    WAY_B,
    A,
    B,
    World,
    around,
    make_world,
)

__all__ = ["make_world"]


@pytest.mark.parametrize(("hop", "way", "other"), [(HOP_A, WAY_A, HOP_B), (HOP_B, WAY_B, HOP_A)])
def test_what_a_dead_link_led_to_goes_another_way_within_half_a_second(
    world: World, caplog: pytest.LogCaptureFixture, hop: NextHop, way: Way, other: NextHop
) -> None:
    """Of a tunnel of ours, and of one behind a server, whose interface others use too."""
    caplog.set_level(logging.INFO)
    world.flow(hop, 2, back=True)
    assert world.routes == {}
    world.answers_to = {other.address}
    world.flow(hop, 0.5, back=False)
    assert world.routes == for_packets_of(way, OURS, Detour(other, hop, unproved=True))
    assert f"the link with {world.owner_at(hop)} on {hop.interface} is dead: nothing has come for" in caplog.text
    assert "1 destination behind it is led around it" in caplog.text
    assert world.room.record()["dead"] == world.room.record()["died"] == 1
    assert [each.kind for each in world.event_log.happenings] == ["link-died"]


def test_it_is_used_again_once_it_is_heard_for_a_while(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.die(HOP_A, 0.6)
    world.answers_to.add(HOP_A.address)
    world.flow(HOP_A, 1, back=True)
    assert world.routes == {}
    assert "the link with 1/16 on re6stnet1 is alive again" in caplog.text
    assert world.room.record() == {
        "active": False,
        "probes": world.room.liveness.probes + world.room.losses.measured.asked_for,
        "died": 1,
        "dead": 0,
        "lossy": 0,
        "unanswered": False,
        "detours": 0,
    }


def test_another_plane_is_told_of_links_that_are_dead_and_when_they_are_not_any_more(world: World) -> None:
    world.die(HOP_A, 0.6)
    assert world.avoided == {HOP_A}
    world.answers_to.add(HOP_A.address)
    world.flow(HOP_A, 1, back=True)
    assert world.avoided == frozenset()


def test_a_neighbour_that_is_not_heard_by_its_detour_either_is_left_to_babel(world: World) -> None:
    """It is dead itself: packets to it would go round among those that miss it. Our own would not: see Mesh."""
    world.die(HOP_A, 0.5)
    assert set(around(world)) == {(WAY_A[0], OURS)}
    assert {world.routes[WAY_A[0], half].by for half in HALVES} == {HOP_A}, "packets of others go as before"
    asked = [address(NETWORK, OWN) for _ in range(world.asked.count((address(NETWORK, A), 0)))]
    assert world.sources == asked, "by the route that is for packets of ours"
    assert asked
    world.flow(HOP_A, PROOF + 0.1, back=False)
    assert world.routes == {}
    world.flow(HOP_A, 1, back=False)
    assert world.routes == {}


def test_one_that_is_heard_by_its_detour_keeps_it(world: World) -> None:
    world.flow(HOP_A, 2, back=True)
    world.answers_to = {address(NETWORK, A)}
    world.flow(HOP_A, PROOF + 1, back=False)
    assert world.routes.keys() == {WAY_A}
    before = len(world.asked)
    world.flow(HOP_A, 1, back=False)
    assert len(world.asked) - before <= 16, "a few a second"
    world.answers_to.clear()
    world.flow(HOP_A, PROOF + 0.5, back=False)
    assert world.routes == {}, "it may have died since"


@pytest.mark.parametrize("dropped", [True, False])
def test_a_way_that_may_lead_back_to_us_is_tried_where_packets_that_came_back_would_be_dropped(
    world: World, dropped: bool
) -> None:
    world.active = dropped
    world.way(WAY_A, HOP_B, 300, used=False)
    world.die(HOP_A, 0.5)
    assert set(around(world)) == ({(WAY_A[0], OURS)} if dropped else set())
    world.flow(HOP_A, PROOF, back=False)
    assert world.routes == {}


def test_payload_of_ipv4_waits_for_the_proof(world: World) -> None:
    """Only routes of IPv6 can be for packets of our subnet alone."""
    there = IPv4Network("10.1.0.0/24")
    for number, (via, refmetric) in enumerate(((HOP_A, 0), (HOP_B, 96))):
        ident = f"4{number}"
        world.table.ipv4_routes[ident] = Route4(ident, there, number == 0, refmetric + 96, refmetric, via)
    chosen = (IPv6Network("::/0"), NETWORK)
    world.way(chosen, HOP_A, 0, used=True)
    world.way(chosen, HOP_B, 96, used=False)
    world.die(HOP_A, 0.5)
    assert set(around(world)) == {(WAY_A[0], OURS), (chosen[0], OURS)}
    world.answers_to = {address(NETWORK, A)}
    world.flow(HOP_A, 0.2, back=False)
    assert world.routes.keys() == {WAY_A, (there, ANYWHERE), chosen}


THIRD = NextHop(IPv6Address("fe80::e"), "re6stnet-wg1")


def meet_third(world: World) -> None:
    """It knows a shorter way to A than B does."""
    world.meet(THIRD)
    world.owners[THIRD] = OTHERS
    world.answers_to.add(THIRD.address)
    world.way(WAY_A, THIRD, 48, used=False)


def test_where_a_line_dies_nothing_is_led_by_another_link_over_it(world: World) -> None:
    """Although nothing went over that one, so that it was not known to be dead."""
    meet_third(world)
    world.lines = dict.fromkeys((A, OTHERS), Uplink("dsl", "eth1"))
    world.flow(HOP_A, 2, back=True)
    world.answers_to = {HOP_B.address}
    ways = set[NextHop]()
    while world.room.liveness.dead != {HOP_A, THIRD}:
        world.flow(HOP_A, 0.01, back=False)
        ways |= {detour.by for detour in world.routes.values() if detour.leads_around}
        assert world.now < 103
    assert ways <= {HOP_B}
    world.flow(HOP_A, 0.1, back=False)
    assert around(world) == [(WAY_A[0], OURS)]


def test_a_link_on_the_same_line_that_answers_leads_around(world: World) -> None:
    meet_third(world)
    world.lines = dict.fromkeys((A, OTHERS), Uplink("dsl", "eth1"))
    world.flow(HOP_A, 2, back=True)
    world.answers_to = {HOP_B.address, THIRD.address}
    world.flow(HOP_A, 0.5, back=False)
    assert {detour.by for detour in world.routes.values() if detour.leads_around} == {THIRD}
    assert world.room.liveness.dead == {HOP_A}


def test_where_the_neighbour_is_not_heard_by_one_detour_another_is_tried(world: World) -> None:
    """Whom the first one leads by may have lost its link to it too."""
    meet_third(world)
    world.flow(HOP_A, 2, back=True)
    world.answers_to = {HOP_B.address, THIRD.address}
    tried = set[NextHop]()
    while len(tried) < 2:
        world.flow(HOP_A, 0.01, back=False)
        tried |= {detour.by for detour in world.routes.values() if detour.leads_around}
        assert world.now < 103
    world.answers_to.add(address(NETWORK, A))
    world.flow(HOP_A, 3 * PROOF, back=False)
    (detour,) = {each for each in world.routes.values() if each.leads_around}
    assert world.routes == {WAY_A: detour}, "it was heard by this one, which stays"


@pytest.mark.parametrize("case", ["a link", "a tunnel", "a link that is heard by another way", "the only way"])
def test_where_a_link_is_dead_and_its_neighbour_not_heard_by_another_way_babel_is_to_leave_it_at_once(
    world: World, case: str
) -> None:
    """Others may lead back to us, until they hear of it: babel would take three seconds for that."""
    meet_third(world)
    hop, owner = (HOP_A, A) if case == "a tunnel" else (THIRD, OTHERS)
    if case != "a tunnel":
        there = subnet(NETWORK, OTHERS), ANYWHERE
        world.way(there, THIRD, 0, used=True)
        if case != "the only way":
            world.way(there, HOP_B, 96, used=False)
    world.flow(hop, 2, back=True)
    world.answers_to = {HOP_B.address}
    if case == "a link that is heard by another way":
        world.answers_to.add(address(NETWORK, owner))
    world.flow(hop, 1.0, back=False)
    assert hop in world.room.liveness.dead
    assert world.forgotten == (["re6stnet-wg1"] if case == "a link" else [])


def test_a_way_by_which_the_neighbour_is_heard_stays_when_babel_forgets_its_link(world: World) -> None:
    """It was not heard by the first one, so that babel was to forget the link."""
    meet_third(world)
    world.meet(OTHER)
    there = subnet(NETWORK, OTHERS), ANYWHERE
    world.way(there, THIRD, 0, used=True)
    world.way(there, HOP_B, 96, used=False)
    world.way(there, HOP_A, 97, used=False)
    world.flow(THIRD, 2, back=True)
    world.answers_to = {HOP_A.address, HOP_B.address}
    while not world.forgotten:
        world.flow(THIRD, 0.1, back=False)
    world.answers_to.add(address(NETWORK, OTHERS))
    world.flow(THIRD, 0.3, back=False)
    assert there in around(world)
    world.table.neighbours = {name: each for name, each in world.table.neighbours.items() if each.key != THIRD}
    world.table.routes = {name: each for name, each in world.table.routes.items() if each.via != THIRD}
    for _ in range(30):
        world.look()
    assert around(world) == [there]


@pytest.mark.parametrize("then", ["babel finds a way", "babel meets it again", "nothing"])
def test_ways_around_a_relay_that_babel_was_to_forget_stay_until_babel_has_one(world: World, then: str) -> None:
    """A relay died: babel asks others for ways to what was behind it, and for some seconds it has none."""
    meet_third(world)
    far = subnet(NETWORK, Prefix.from_cn("4/16")), ANYWHERE
    for way, refmetric in ((subnet(NETWORK, OTHERS), ANYWHERE), 0), (far, 200):
        world.way(way, THIRD, refmetric, used=True)
        world.way(way, HOP_B, 96, used=False)
    world.flow(THIRD, 2, back=True)
    world.answers_to = {HOP_B.address}
    world.flow(THIRD, 1.0, back=False)
    assert world.forgotten
    assert world.room.silent_peers() == {OTHERS}
    relay = dict(world.table.neighbours), dict(world.table.routes)
    world.table.neighbours = {name: each for name, each in relay[0].items() if each.key != THIRD}
    world.table.routes = {name: each for name, each in relay[1].items() if each.via != THIRD}
    for _ in range(20):
        world.look()
    assert around(world) == [far], "the relay itself is not led to: nothing is heard of it"
    if then == "babel finds a way":
        world.way(far, HOP_B, 96, used=True)
    elif then == "babel meets it again":
        world.answers_to.add(THIRD.address)
        world.table.neighbours, world.table.routes = relay
    else:
        world.now += FORGOTTEN
    for _ in range(10):
        world.look()
    assert around(world) == []
    assert world.room.silent_peers() == ({OTHERS} if then == "babel finds a way" else set())


def test_the_owner_of_a_subnet_that_a_dead_neighbour_claimed_is_asked_for_and_led_to(world: World) -> None:
    claimed = subnet(NETWORK, OTHERS), ANYWHERE
    world.way(claimed, HOP_A, 0, used=True)
    world.way(claimed, HOP_B, 96, used=False)
    world.flow(HOP_A, 2, back=True)
    world.answers_to = {address(NETWORK, OTHERS)}
    world.flow(HOP_A, 0.5 + PROOF, back=False)
    assert world.routes == {claimed: Detour(HOP_B, HOP_A, unproved=True)}


def test_a_neighbour_that_claims_many_subnets_has_a_few_owners_asked_for(world: World) -> None:
    for number in range(500):
        prefix = Prefix.from_cn(f"{1000 + number}/16")
        world.answers_to.add(address(NETWORK, prefix))
        world.way((subnet(NETWORK, prefix), ANYWHERE), HOP_A, 0, used=True)
        world.way((subnet(NETWORK, prefix), ANYWHERE), HOP_B, 96, used=False)
    world.flow(HOP_A, 2, back=True)
    world.answers_to -= {HOP_A.address, address(NETWORK, A)}
    world.flow(HOP_A, 0.5 + PROOF, back=False)
    assert len({ip for ip, index in world.asked if not index}) == PROOFS + 1
    world.answers_to.add(address(NETWORK, A))
    world.flow(HOP_A, PROOF, back=False)
    assert 0 < len(world.routes) <= PROOFS, "those whose owners have answered: what the liar says proves nothing"


def test_longer_subnets_of_the_neighbour_itself_are_proved_by_its_answer(world: World) -> None:
    part = next(iter(subnet(NETWORK, A).subnets(4))), ANYWHERE
    world.way(part, HOP_A, 0, used=True)
    world.way(part, HOP_B, 96, used=False)
    world.flow(HOP_A, 2, back=True)
    world.answers_to = {address(NETWORK, A)}
    world.flow(HOP_A, 0.5 + PROOF, back=False)
    assert world.routes.keys() == {WAY_A, part}


def test_who_was_behind_a_link_is_remembered_while_it_is_dead(world: World) -> None:
    """A server forgets who had a hardware address when the tunnel has ended."""
    there = IPv4Network("10.2.0.0/24")
    for number, (via, refmetric) in enumerate(((HOP_B, 0), (HOP_A, 96))):
        world.table.ipv4_routes[f"4{number}"] = Route4(f"4{number}", there, number == 0, refmetric + 96, refmetric, via)
    world.flow(HOP_B, 2, back=True)
    world.answers_to = {address(NETWORK, B)}
    world.flow(HOP_B, 0.6, back=False)
    assert world.routes.keys() == {WAY_B, (there, ANYWHERE)}
    del world.owners[HOP_B]
    world.flow(HOP_B, PROOF + 0.5, back=False)
    assert world.routes.keys() == {WAY_B, (there, ANYWHERE)}


def test_a_link_whose_tunnel_has_ended_is_led_around_at_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.flow(HOP_B, 2, back=True)
    world.gone, before = {HOP_B}, world.now
    while not world.room.liveness.dead:
        world.flow(HOP_B, 0.01, back=False)
    assert world.now - before <= FOLLOW + 2 * BUSY
    assert "the link with 2/16 on re6stnet-tcp is dead: its tunnel has ended" in caplog.text


def test_while_nothing_goes_it_is_seldom_asked_who_is_there_and_soon_again_once_something_does(world: World) -> None:
    world.flow(HOP_A, 2, back=True)
    calm = world.now + OWED + IDLE_FOR + QUIET
    while world.now < calm:
        world.come(HOP_A)
        world.look()
    owned = world.owner_at
    asked: list[float] = []

    def owner_at(hop: NextHop) -> Prefix | None:
        asked.append(world.now)
        return owned(hop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "owner_at", owner_at)
        before = world.now
        while world.now < before + 10 * FOLLOW_QUIET:
            world.look()
    assert len(set(asked)) in range(9, 12)
    world.gone, before = {HOP_B}, world.now
    while not world.room.liveness.dead:
        world.flow(HOP_B, 0.01, back=False)
    assert world.now - before <= QUIET + FOLLOW + 2 * BUSY


def test_one_that_nothing_went_over_any_more_may_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """As a tunnel that was drained."""
    world.flow(HOP_B, 2, back=True)
    world.gone = {HOP_B}
    world.flow(HOP_A, 2, back=True)
    assert not world.room.liveness.dead
    assert not caplog.records


def test_ways_are_not_searched_for_at_each_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ten thousand destinations that takes a tenth of a second: others' links would not be looked at meanwhile."""
    found: list[float] = []

    def slow(*args: Any, **more: Any) -> dict[Way, Detour]:
        found.append(world.now)
        world.now += 0.1
        return detours(*args, **more)

    monkeypatch.setattr("re6st.noded.dead_links.detours", slow)
    world.die(HOP_A, 2.5)
    assert world.room.record()["died"] == 1
    assert 1 <= len(found) <= 6


@pytest.mark.parametrize("interface", ["re6stnet-wg1", "re6stnet-wgs1"])
def test_wireguard_links_are_watched_at_both_ends(world: World, interface: str) -> None:
    """Each has an interface of its own, at the end of who served the peer before too."""
    hop = NextHop(IPv6Address("fe80::e"), interface)
    world.meet(hop)
    world.owners[hop] = OTHERS
    way = (subnet(NETWORK, OTHERS), ANYWHERE)
    world.way(way, hop, 0, used=True)
    world.way(way, HOP_A, 96, used=False)
    world.answers_to.add(hop.address)
    world.flow(hop, 2, back=True)
    assert world.routes == {}
    world.answers_to = {HOP_A.address, address(NETWORK, OTHERS)}
    world.flow(hop, 0.5, back=False)
    assert world.room.liveness.dead == {hop}
    world.flow(hop, 0.2, back=False)
    assert world.routes.keys() == {way}
    assert world.events == [policy.LinkDoubted(OTHERS, interface)], "the policy knows on which interface its tunnel is"


def test_a_tunnel_of_ours_that_stays_dead_is_to_be_closed(world: World) -> None:
    world.die(HOP_A, LASTING)
    assert world.events == [policy.LinkDoubted(A, "re6stnet1")], "before babel has forgotten it"
    world.flow(HOP_A, 1, back=False)
    assert world.events == [policy.LinkDoubted(A, "re6stnet1"), policy.LinkDead(A, "re6stnet1")]


def test_a_tunnel_by_which_something_comes_now_and_then_is_not_closed(world: World) -> None:
    """As on a machine that has too much to do: a tunnel that is made anew would be more to do."""
    world.flow(HOP_A, 2, back=True)
    world.answers_to.clear()
    for _ in range(2 * int(LASTING)):
        world.flow(HOP_A, 1, back=False)
        world.come(HOP_A)
    assert world.room.record()["dead"] == 1
    assert world.events == [policy.LinkDoubted(A, "re6stnet1")]
    world.answers_to.add(HOP_A.address)
    world.flow(HOP_A, 1, back=True)
    assert world.events == [policy.LinkDoubted(A, "re6stnet1"), policy.LinkRevived(A, "re6stnet1")]


def test_over_tcp_a_link_that_lost_a_packet_has_longer(world: World) -> None:
    world.over_tcp = frozenset({HOP_A.interface})
    world.die(HOP_A, 0.3)
    world.flow(HOP_A, 0.1, back=True)
    world.flow(HOP_A, RESENT - 0.2, back=False)
    assert world.room.record()["died"] == 0
    world.flow(HOP_A, 0.5, back=False)
    assert world.room.record()["died"] == 1


def test_a_tunnel_that_we_have_ended_is_not_found_dead_though_babel_has_a_neighbour_there(world: World) -> None:
    """As for a moment after a WireGuard link has taken its place."""
    world.flow(HOP_A, 2, back=True)
    world.answers_to.clear()
    del world.owners[HOP_A]
    world.flow(HOP_A, 2, back=False)
    assert world.room.record()["died"] == 0
    assert world.routes == {}


def test_a_client_of_a_server_is_left_to_close_its_tunnel(world: World) -> None:
    world.die(HOP_B, LASTING + 1)
    assert world.room.record()["died"] == 1
    assert world.events == []


def test_detours_end_when_babel_has_given_the_link_up(world: World) -> None:
    world.die(HOP_A, 0.5)
    del world.table.neighbours[str(HOP_A)]
    del world.table.routes[f"{WAY_A}{HOP_A}"]
    world.look()
    assert world.routes == {}
    assert world.room.record()["dead"] == 0


def test_a_cost_that_grew_as_the_link_died_makes_no_way_good_that_was_not(world: World) -> None:
    world.way(WAY_A, HOP_B, 192, used=False)
    world.die(HOP_A, 0.3)
    world.table.neighbours[str(HOP_A)] = Neighbour("", HOP_A.address, HOP_A.interface, 0xFFF0, 96, 768, 768, None)
    world.flow(HOP_A, 0.3, back=False)
    assert world.room.record()["dead"] == 1
    assert world.routes == {}


def test_what_babel_itself_sends_is_no_traffic(world: World) -> None:
    world.flow(HOP_A, 2, back=True)
    world.flow(HOP_A, 8, back=True)
    calm = world.now + OWED + 0.1
    while world.now < calm:
        world.come(HOP_A)
        world.look()
    world.answers_to.clear()
    before = len(world.asked)
    for _ in range(100):
        world.sent["re6stnet1"] += 1
        world.local["re6stnet1"] = world.local.get("re6stnet1", 0) + 1
        world.look()
    assert len(world.asked) == before
    assert world.room.record()["died"] == 0


def test_others_behind_the_same_server_are_told_apart(world: World) -> None:
    world.meet(OTHER)
    world.flow(HOP_B, 2, back=True)
    world.answers_to.clear()
    for _ in range(30):
        world.come(OTHER)
        world.flow(HOP_B, 0.02, back=False)
    assert world.room.liveness.dead == {HOP_B}


def test_nobody_is_judged_where_more_is_there_than_can_be_counted(world: World) -> None:
    world.flow(HOP_B, 2, back=True)
    world.answers_to.clear()
    world.shared_now = Shared(full=True)
    world.flow(HOP_B, 2, back=False)
    assert world.room.record()["died"] == 0


def test_a_neighbour_of_unknown_hardware_address_is_looked_up(world: World) -> None:
    unknown = NextHop(IPv6Address("fe80::d"), "re6stnet-tcp")
    world.meet(unknown)
    world.flow(HOP_B, 1, back=True)
    assert world.looked_up == [unknown]


def test_a_link_that_is_lost_for_babel_is_not_led_by(world: World) -> None:
    world.flow(HOP_A, 2, back=True)
    world.way(WAY_A, HOP_B, INFINITY - 96, used=False)
    world.answers_to.clear()
    world.flow(HOP_A, 0.6, back=False)
    assert world.routes == {}


def test_nothing_is_watched_where_packets_are_not_counted(world: World) -> None:
    asyncio.run(_not_counted(world))


async def _not_counted(world: World) -> None:
    world.counts = False
    task = asyncio.create_task(world.room.run())
    await asyncio.sleep(0.05)
    assert not world.room.record()["active"]
    assert world.asked == []
    world.counts = True
    while not world.room.record()["active"]:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not world.room.record()["active"]
    assert world.closed == 2
    assert world.followed == 1, "whatever was there is taken away"


def test_what_keeps_links_from_being_watched_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("re6st.noded.dead_links.AGAIN", 0.001)
    tried: list[int] = []

    def fail() -> dict[str, int]:
        tried.append(1)
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(world, "local_sent", fail)
    asyncio.run(_until_tried(world, tried))
    assert caplog.text.count("links are not watched for packets: Operation not permitted") == 1


async def _until_tried(world: World, tried: list[int]) -> None:
    task = asyncio.create_task(world.room.run())
    while len(tried) < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def lose(world: World, hop: NextHop, seconds: float, share: float) -> None:
    """Requests to a neighbour get lost, or their answers, and hellos."""
    world.lost[hop.address] = share
    (key,) = [key for key, each in world.table.neighbours.items() if each.key == hop]
    world.table.neighbours[key] = replace(world.table.neighbours[key], reach=0x7FFF if share else 0xFFFF)
    world.flow(hop, seconds, back=True)


def test_a_link_on_which_requests_get_lost_is_told_of_and_when_it_is_a_good_one_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.flow(HOP_A, 5, back=True)
    lose(world, HOP_A, 3, 0.5)
    assert world.events == [policy.LinksLossy(frozenset({HOP_A}))]
    assert "packets get lost on the link with 1/16 on re6stnet1" in caplog.text
    assert world.room.record()["lossy"] == 1
    assert world.room.record()["died"] == 0
    lose(world, HOP_A, 100, 0.0)
    assert world.events[-1] == policy.LinksLossy(frozenset())


def test_a_link_that_the_policy_avoids_is_led_around_by_our_own_packets_until_babel_leaves_it(world: World) -> None:
    """The neighbour whom the detour leads by may avoid its link with it, too, and lead back to us."""
    world.answers_to.add(address(NETWORK, A))
    world.flow(HOP_A, 5, back=True)
    world.lossy = frozenset({HOP_A})
    world.flow(HOP_A, 3 * PROOF, back=True)
    assert world.routes == for_packets_of(WAY_A, OURS, Detour(HOP_B, HOP_A, unproved=True))
    assert world.avoided == {HOP_A}, "bulk traffic goes elsewhere too"
    assert world.room.record()["detours"] == 1
    asked = world.asked.count((address(NETWORK, A), 0))
    world.way(WAY_A, HOP_A, 0, used=False)
    world.way(WAY_A, HOP_B, 96, used=True)
    world.flow(HOP_A, 1, back=True)
    assert world.routes == {}
    world.flow(HOP_A, 10, back=True)
    assert world.asked.count((address(NETWORK, A), 0)) - asked < 20, "nobody is asked for any more"


def test_what_is_behind_a_link_that_is_avoided_goes_by_a_neighbour_that_is_nearer(world: World) -> None:
    there = subnet(NETWORK, OTHERS), ANYWHERE
    world.way(there, HOP_A, 96, used=True)
    world.way(there, HOP_B, 96, used=False)
    world.lossy = frozenset({HOP_A})
    world.flow(HOP_A, 1, back=True)
    assert world.routes[there] == Detour(HOP_B, HOP_A)
    world.lossy = frozenset()
    world.flow(HOP_A, 1, back=True)
    assert world.routes == {}


def test_nothing_leads_by_another_lossy_link(world: World) -> None:
    there = subnet(NETWORK, OTHERS), ANYWHERE
    third = NextHop(IPv6Address("fe80::e"), "re6stnet-wg1")
    world.meet(third)
    world.owners[third] = OTHERS
    world.answers_to.add(third.address)
    world.way(there, HOP_A, 96, used=True)
    world.way(there, third, 96, used=False)
    world.flow(HOP_A, 5, back=True)
    world.lossy = frozenset({HOP_A})
    lose(world, third, 4, 0.6)
    assert there not in world.routes


def test_links_over_tcp_and_those_behind_a_server_are_left_to_others_who_look(world: World) -> None:
    world.over_tcp = frozenset({HOP_A.interface})
    world.flow(HOP_A, 5, back=True)
    world.flow(HOP_B, 5, back=True)
    lose(world, HOP_A, 5, 0.5)
    lose(world, HOP_B, 5, 0.5)
    assert world.events == []


def test_over_a_line_that_is_paid_by_volume_nobody_is_asked_for_losses_and_dead_links_are_found_all_the_same(
    world: World,
) -> None:
    world.lines = {A: Uplink("lte", "wwan0", metered=True)}
    world.flow(HOP_A, 20, back=True)
    assert world.asked.count((HOP_A.address, 1)) < 10, "how long a round trip takes"
    lose(world, HOP_A, 5, 0.5)
    assert world.events == []
    world.die(HOP_A, 0.6)
    assert world.room.liveness.dead == {HOP_A}


def test_a_missed_hello_is_a_reason_to_ask(world: World) -> None:
    world.flow(HOP_A, 5, back=True)
    calm = world.now + 5
    while world.now < calm:
        world.come(HOP_A)
        world.look()
    before = len(world.asked)
    (key,) = [key for key, each in world.table.neighbours.items() if each.key == HOP_A]
    world.table.neighbours[key] = replace(world.table.neighbours[key], reach=0x7FFF)
    calm = world.now + 1
    while world.now < calm:
        world.come(HOP_A)
        world.look()
    assert len(world.asked) - before >= 10


def test_where_packets_are_not_counted_any_more_no_link_is_known_to_be_lossy(world: World) -> None:
    world.flow(HOP_A, 5, back=True)
    lose(world, HOP_A, 3, 0.5)
    world.room.losses.stop(world.now)
    assert world.events[-1] == policy.LinksLossy(frozenset())
    assert world.room.losses.measured.asked_for > 0


def test_a_client_that_is_gone_is_dead_although_nothing_went_to_it_and_lives_once_it_is_heard(world: World) -> None:
    """Several of its hellos did not come. Soon babel forgets it."""
    world.flow(HOP_A, 2, back=True)
    ident = str(HOP_B)
    alive = world.table.neighbours[ident]
    world.answers_to = {HOP_A.address}
    for reach in (0x7FFF, 0x3FFF):
        world.table.neighbours[ident] = replace(alive, reach=reach)
        world.flow(HOP_A, 1, back=True)
        assert not world.room.dead_clients, "it may have lost a hello"
    world.table.neighbours[ident] = replace(alive, reach=0x0FFF)
    began = world.now
    world.flow(HOP_A, 2, back=True)
    ((interface, last),) = world.room.dead_clients.known.values()
    assert interface == HOP_B.interface
    assert began - 3.5 < last < began + 0.5
    del world.table.neighbours[ident]
    world.flow(HOP_A, 2, back=True)
    assert B in world.room.dead_clients.known
    world.table.neighbours[ident] = alive
    world.answers_to.add(HOP_B.address)
    world.flow(HOP_A, 2, back=True)
    assert not world.room.dead_clients


@pytest.mark.parametrize("lives", [True, False])
def test_where_somebody_wants_a_place_all_clients_are_asked_for_a_sign_of_life(world: World, lives: bool) -> None:
    world.flow(HOP_A, 2, back=True)
    if not lives:
        world.answers_to = {HOP_A.address}
        world.table.neighbours[str(HOP_B)] = replace(world.table.neighbours[str(HOP_B)], reach=0x0FFF)
    before = len(world.asked)
    world.room.dead_clients.place_sought = True
    world.look()
    assert HOP_B not in world.room.liveness.doubtful, "ways around by it stay, and so do those to it"
    world.flow(HOP_A, 2, back=True)
    assert (HOP_B.address, 2) in world.asked[before:]
    assert not world.room.dead_clients.place_sought
    assert world.room.dead_clients.known.keys() == (set() if lives else {B})


def test_one_who_knocks_all_the_time_does_not_have_everybody_asked_each_second(world: World) -> None:
    world.flow(HOP_A, 8, back=True)
    before = len(world.asked)
    until = world.now + EVERYBODY - 0.3
    while world.now < until:
        world.room.dead_clients.place_sought = True
        world.flow(HOP_A, 0.1, back=True)
    assert world.asked[before:].count((HOP_B.address, 2)) <= 3, "asked once, at several looks"


def test_a_client_that_babel_hears_keeps_its_place_although_it_answers_no_echo_requests(world: World) -> None:
    """A firewall was switched on there; and hellos of babel's are no packets that count."""
    world.die(HOP_B, 5)
    assert HOP_B in world.room.liveness.dead
    assert not world.room.dead_clients


def test_where_links_are_not_watched_any_more_nobody_counts_as_dead(world: World) -> None:
    world.table.neighbours[str(HOP_B)] = replace(world.table.neighbours[str(HOP_B)], reach=0)
    world.die(HOP_B, 5)
    assert world.room.dead_clients
    asyncio.run(world.room._rest())
    assert not world.room.dead_clients
    assert world.routes == {}


def test_a_client_whose_hellos_do_not_come_and_that_answers_keeps_its_place(world: World) -> None:
    """Its babel is started anew, or its tunnel is drained."""
    world.flow(HOP_A, 2, back=True)
    ident = str(HOP_B)
    world.table.neighbours[ident] = replace(world.table.neighbours[ident], reach=0x0FFF)
    world.flow(HOP_A, 5, back=True)
    assert not world.room.dead_clients
    assert world.room.record()["died"] == 0


def test_a_client_that_is_dead_by_one_link_and_lives_by_another_keeps_its_place(world: World) -> None:
    world.owners[OTHER] = B
    world.meet(OTHER)
    world.answers_to.add(OTHER.address)
    world.flow(HOP_B, 2, back=True)
    world.answers_to.discard(HOP_B.address)
    world.flow(HOP_B, 1, back=False)
    assert world.room.liveness.dead == {HOP_B}
    assert not world.room.dead_clients
