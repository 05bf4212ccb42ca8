"""Who announces what is not his, by babel's table and the certificates at the other ends of the tunnels."""

from __future__ import annotations

import contextlib
import json
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import INFINITY, NextHop, Route, Route4, Table
from re6st.core.routing.claims import (
    GRACE,
    HELD_FLAT,
    HELD_OWN,
    HELD_REGION,
    HOLD,
    REFUSED_FIRST,
    REFUSED_LAST,
    REMEMBERED,
    STALE,
    Claims,
    Findings,
    Heard,
    Lie,
    Payload,
    Refusals,
    hardware_address,
    link_local,
)

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, LIAR, OTHER, VICTIM = (Prefix(n, 16) for n in (1, 2, 3, 4))
HOP = NextHop(IPv6Address("fe80::5c2e:7eff:fe12:a001"), "re6stnet1")
ELSE = NextHop(IPv6Address("fe80::5c2e:7eff:fe12:a002"), "re6stnet-udp")
ENDS = {HOP: LIAR, ELSE: OTHER}
ANY = IPv6Network("::/0")


def route(destination: IPv6Network | Prefix, via: NextHop = HOP, refmetric: int = 0, router: str = "r1") -> Route:
    if isinstance(destination, Prefix):
        destination = subnet(NETWORK, destination)
    ours = destination.subnet_of(subnet(NETWORK, OWN))
    metric = INFINITY if ours or refmetric == INFINITY else refmetric + 96
    return Route("", destination, ANY, False, metric, refmetric, via, router)


def after(
    seconds: float,
    *routes: Route,
    accepted: tuple[str, ...] = (),
    since: float = -1000.0,
    region_length: int = 0,
    behind: bool = False,
) -> Findings:
    """What is found when these routes have been there for so long."""
    table = Table()
    table.routes = {str(number): each for number, each in enumerate(routes)}
    claims = Claims(NETWORK, OWN, [ip_network(each) for each in accepted])
    claims.look(table, ENDS.get, 0.0, since, region_length=region_length, behind=behind)
    return claims.look(table, ENDS.get, seconds, since, region_length=region_length, behind=behind)


def test_who_announces_the_subnet_of_another_is_named_with_it() -> None:
    found = after(HOLD, route(LIAR), route(VICTIM), route(OTHER, ELSE))
    assert found.lies == (Lie(LIAR, (HOP,), (subnet(NETWORK, VICTIM),)),)
    assert str(found.lies[0]) == "2001:db8:42:4::/64"


def test_a_claim_must_last_a_moment() -> None:
    """babel may know a little longer whom a tunnel led to."""
    found = after(HOLD / 2, route(VICTIM))
    assert found.lies == ()
    assert found.again is not None
    assert 0 < found.again <= HOLD / 2


def test_what_babel_still_knows_by_a_former_peer_is_nobodys_lie() -> None:
    """A tunnel ends, and the next one is on its interface; on a slow machine, babel forgets the neighbour later."""
    claims, table = Claims(NETWORK, OWN), Table()
    table.routes = {"1": route(OTHER)}
    assert not claims.look(table, {HOP: OTHER}.get, 0.0, -1000.0).lies
    assert not claims.look(table, lambda _: None, 1.0, -1000.0).lies
    for now in (2.0, 2.0 + HOLD, 2.0 + STALE - 0.1):
        found = claims.look(table, {HOP: VICTIM}.get, now, -1000.0)
        assert not found.lies, now
    assert found.again is not None
    assert 0 < found.again <= 0.1 + 1e-6
    claims.look(table, {HOP: VICTIM}.get, 2.0 + STALE, -1000.0)
    assert claims.look(table, {HOP: VICTIM}.get, 2.0 + STALE + HOLD, -1000.0).lies, "it is its own, then"


def test_a_table_that_was_read_before_a_tunnel_led_elsewhere_accuses_nobody() -> None:
    """A large table is read now and then: it tells of the former peer for as long."""
    claims, table = Claims(NETWORK, OWN), Table()
    table.routes = {"1": route(OTHER)}
    assert not claims.look(table, {HOP: OTHER}.get, 0.0, -1000.0).lies
    claims.look(table, {HOP: VICTIM}.get, 2.0, -1000.0)
    for now in (2.0 + STALE, 2.0 + STALE + HOLD, 2.0 + STALE + 7.0):
        assert not claims.look(table, {HOP: VICTIM}.get, now, -1000.0, age=8.0).lies, now
    for now in (20.0, 20.0 + HOLD):
        found = claims.look(table, {HOP: VICTIM}.get, now, -1000.0)
    assert found.lies, "it was read again, and still says so"


def test_a_claim_lasts_as_long_as_babel_is_known_to_have_heard_it() -> None:
    claims, table = Claims(NETWORK, OWN), Table()
    table.routes = {"1": route(VICTIM)}
    for seconds in range(10):
        assert not claims.look(table, {HOP: OTHER}.get, 100.0 + seconds, -1000.0, age=float(seconds)).lies, "one dump"
    assert claims.look(table, {HOP: OTHER}.get, 111.0, -1000.0, age=0.5).lies


def test_a_new_neighbour_on_an_interface_is_judged_at_once() -> None:
    claims, table = Claims(NETWORK, OWN), Table()
    table.routes = {"1": route(OTHER)}
    claims.look(table, {HOP: OTHER}.get, 0.0, -1000.0)
    new = NextHop(IPv6Address("fe80::1"), HOP.interface)
    table.routes = {"2": route(OTHER, new)}
    claims.look(table, {HOP: LIAR, new: LIAR}.get, 1.0, -1000.0)
    assert [lie.peer for lie in claims.look(table, {new: LIAR}.get, 1.0 + HOLD, -1000.0).lies] == [LIAR]


def test_a_part_of_a_subnet_is_as_much_a_lie_and_so_is_one_of_nobody() -> None:
    part = IPv6Network("2001:db8:42:4:8000::/65")
    assert after(HOLD, route(part)).lies[0].subnets == (part,)
    assert after(HOLD, route(Prefix(99, 16))).lies[0].subnets == (subnet(NETWORK, Prefix(99, 16)),)


def test_a_node_may_announce_its_own_region_and_no_other_part_of_the_network() -> None:
    assert after(HELD_REGION, route(Prefix(0, 14)), region_length=14) == Findings()
    assert after(HOLD, route(Prefix(1, 14)), region_length=14).lies, "a region of others"
    shorter = route(Prefix(0, 4))
    assert not after(HOLD, shorter, region_length=14).lies, "it may have heard first that regions are larger now"
    assert after(HELD_REGION, shorter, region_length=14).lies


def test_in_a_flat_network_a_shorter_prefix_is_a_lie_unless_it_may_be_a_region_that_we_do_not_know() -> None:
    shorter = route(Prefix(0, 14))
    assert not after(HELD_FLAT - 1, shorter).lies, "we may not have heard yet that there are regions"
    assert after(HELD_FLAT, shorter).lies
    assert not after(HELD_FLAT, shorter, behind=True).lies, "there are parameters that we do not have"
    assert after(HELD_REGION, shorter, behind=True).lies


def test_where_there_were_regions_others_may_tell_of_them_still() -> None:
    claims, table = Claims(NETWORK, OWN), Table()
    table.routes = {"1": route(Prefix(0, 14))}
    assert not claims.look(table, ENDS.get, 0.0, -1000.0, region_length=14).lies
    claims.look(table, ENDS.get, 1.0, -1000.0)
    found = claims.look(table, ENDS.get, 1.0 + HELD_FLAT, -1000.0)
    assert not found.lies
    assert found.again is not None
    assert claims.look(table, ENDS.get, 1.0 + HELD_REGION, -1000.0).lies


def test_honest_neighbours_are_never_named() -> None:
    for honest in (
        route(LIAR),
        route(IPv6Network("2001:db8:42:2:8000::/65")),  # as an older node may by its own -B
        route(VICTIM, refmetric=96),
        route(VICTIM, refmetric=INFINITY),
        route(IPv6Network("2001:db8:99::/48")),
        route(ANY),
    ):
        assert after(1000, honest) == Findings(), honest


def test_a_neighbour_without_a_certificate_is_not_named_but_who_it_is_can_be_asked() -> None:
    """On a LAN nobody shows one; behind a server it may be a client that came after OpenVPN was asked who is there."""
    stranger = NextHop(HOP.address, "eth0")
    assert after(1000, route(VICTIM, stranger)) == Findings(unknown=frozenset((stranger,)))
    assert after(1000, route(VICTIM, stranger, refmetric=96)) == Findings()


def test_what_the_user_accepts_is_no_lie() -> None:
    part = IPv6Network("2001:db8:42:4:8000::/65")
    assert after(HOLD, route(part), accepted=("2001:db8:42:4::/64", "10.0.0.0/8")).lies == ()
    assert after(HOLD, route(VICTIM), accepted=("::/0",)).lies == ()
    assert after(HOLD, route(VICTIM), accepted=("2001:db8:42:5::/64", "2001:db8:99::/48")).lies != ()


def test_our_own_subnet_and_its_parts_are_heard_with_the_neighbours_by_which_they_come() -> None:
    part = IPv6Network("2001:db8:42:1:8000::/65")
    found = after(HELD_OWN, route(OWN, refmetric=96), route(part, ELSE, 192))
    assert found.heard == Heard((subnet(NETWORK, OWN), part), (ELSE, HOP))
    assert found.lies == ()
    assert after(HELD_OWN - 1, route(OWN, refmetric=96)).heard is None
    assert after(HELD_OWN, route(OWN, refmetric=INFINITY)).heard is None, "it was withdrawn"
    assert after(HELD_OWN, route(OWN)).lies[0].peer == LIAR, "a neighbour who calls it its own"


def test_what_others_still_tell_of_our_last_babeld_is_nobody_else() -> None:
    heard = route(OWN, refmetric=96)
    assert after(HELD_OWN, heard, since=0.0).heard is None
    assert after(GRACE + 1, heard, since=0.0).heard is not None


def test_a_certificate_on_two_machines_is_told_from_a_lie() -> None:
    twice = (route(OTHER, ELSE, router="r1"), route(OTHER, NextHop(ELSE.address + 1, "re6stnet-udp"), router="r2"))
    table = Table()
    table.routes = {str(number): each for number, each in enumerate(twice)}
    claims = Claims(NETWORK, OWN)
    claims.look(table, lambda _: OTHER, 0.0, -1000.0)
    found = claims.look(table, lambda _: OTHER, HELD_OWN, -1000.0)
    assert (found.doubled, found.lies) == (frozenset((OTHER,)), ())
    table.routes["1"] = route(OTHER, ELSE, router="r1")
    assert claims.look(table, lambda _: OTHER, HELD_OWN + 1, -1000.0).doubled == frozenset(), "two tunnels of one"


PAYLOAD = Payload(IPv4Network("10.42.0.0/16"), 8, IPv4Network("10.42.1.0/24"))
NUMBERS = {LIAR: {2}, OTHER: {3}}


def after4(
    *claims: str,
    refmetric: int = 0,
    payload: Payload | None = PAYLOAD,
    accepted: tuple[str, ...] = (),
    via: NextHop = HOP,
) -> Findings:
    """What is found when these IPv4 prefixes have been announced for long."""
    table = Table()
    for text in claims:
        ours = IPv4Network(text).subnet_of(IPv4Network("10.42.1.0/24"))
        metric = INFINITY if ours else refmetric + 96
        table.ipv4_routes[text] = Route4("", IPv4Network(text), True, metric, refmetric, via)
    found, numbers = Claims(NETWORK, OWN, [ip_network(each) for each in accepted]), lambda peer: NUMBERS.get(peer, ())
    found.look(table, ENDS.get, 0.0, -1000.0, payload, numbers)
    return found.look(table, ENDS.get, HELD_OWN, -1000.0, payload, numbers)


def test_who_announces_the_ipv4_subnet_of_another_is_named_with_it() -> None:
    assert after4("10.42.2.0/24", "10.42.3.0/24").lies == (Lie(LIAR, (HOP,), (IPv4Network("10.42.3.0/24"),)),)
    assert after4("10.42.3.0/25").lies != ()
    assert after4("10.42.0.0/16").lies != ()


def test_honest_neighbours_are_never_named_for_ipv4() -> None:
    assert after4("10.42.2.0/24") == Findings()
    assert after4("10.42.3.0/24", refmetric=96) == Findings(), "handed on"
    assert after4("10.43.0.0/24") == Findings(), "not of the network: babel refuses it, or the user accepts it"
    assert after4("10.42.3.0/24", accepted=("10.42.0.0/16",)) == Findings()
    assert after4("10.42.3.0/24", payload=None) == Findings()
    changed = Payload(IPv4Network("10.0.0.0/8"), 16, None, former=((IPv4Network("10.42.0.0/16"), 8),))
    assert after4("10.42.2.0/24", payload=changed) == Findings(), "it has not gone over to the new ones yet"
    assert after4("10.42.3.0/24", payload=changed).lies != ()


def test_the_ipv4_of_a_node_whose_number_is_not_known_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(NUMBERS, LIAR)
    assert after4("10.42.3.0/24") == Findings()


def test_our_own_ipv4_subnet_is_heard_too() -> None:
    found = after4("10.42.1.0/24", refmetric=96, via=ELSE)
    assert found.heard == Heard((IPv4Network("10.42.1.0/24"),), (ELSE,))
    assert found.lies == ()


def test_a_liar_is_refused_longer_each_time() -> None:
    refusals, now, seconds = Refusals(), 0.0, []
    for _ in range(7):
        seconds.append(refusals.refuse(LIAR, now))
        assert refusals.refuse(LIAR, now + 1) == seconds[-1], "it counts once"
        assert refusals.holds(LIAR, now + seconds[-1] - 1)
        now += seconds[-1] + 2
        assert not refusals.holds(LIAR, now)
    assert seconds[:3] == [REFUSED_FIRST, 2 * REFUSED_FIRST, 4 * REFUSED_FIRST]
    assert seconds[-1] == REFUSED_LAST
    for number in range(2 * REMEMBERED):
        refusals.refuse(Prefix(number, 16), now)
    assert len(refusals.held(now)) == REMEMBERED


@pytest.mark.parametrize(
    "text", [b"[[5, 1, 2]]", b"[[null, 1, 2]]", b"[[[], 1, 2]]", b"5", b'[["1/16", {}, 2]]', b"[1]"]
)
def test_a_note_that_somebody_wrote_keeps_no_node_from_its_start(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"refused peers|prefix|CN|bits|'"):
        Refusals().restore(text, 0.0)


@given(st.binary(min_size=6, max_size=6))
def test_a_hardware_address_is_read_from_a_link_local_one(mac: bytes) -> None:
    interface = bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]))
    address = IPv6Address(b"\xfe\x80" + bytes(6) + interface)
    assert hardware_address(address) == mac.hex(":")
    assert link_local(mac) == address


def test_other_link_local_addresses_have_none() -> None:
    assert hardware_address(IPv6Address("fe80::1")) is None


def test_the_next_daemon_refuses_whom_the_last_one_did_and_as_long() -> None:
    before, after = Refusals(), Refusals()
    before.refuse(LIAR, 1000.0)
    after.restore(before.note(), 1010.0)
    assert after.holds(LIAR, 1000 + REFUSED_FIRST - 1)
    assert not after.holds(LIAR, 1000 + REFUSED_FIRST + 1)
    assert after.refuse(LIAR, 1000 + REFUSED_FIRST + 1) == 2 * REFUSED_FIRST, "nor is it forgotten how often"


def test_a_note_of_before_the_machine_started_refuses_nobody() -> None:
    before, after = Refusals(), Refusals()
    before.refuse(LIAR, 1e6)
    after.restore(before.note(), 5.0)
    assert not after.held(5.0)


@given(st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_another_text_is_no_note_of_who_is_refused(text: bytes) -> None:
    refusals = Refusals()
    with contextlib.suppress(ValueError):
        refusals.restore(text, 0.0)
    assert not refusals.held(0.0)
