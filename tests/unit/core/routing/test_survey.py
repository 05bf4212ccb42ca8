"""What the routing table says about the mesh (wire.md 10.3)."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_lines import NextHop, Table
from re6st.core.routing.survey import Survey, survey

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, B, C, D, E = (Prefix(n, 16) for n in range(1, 6))


class Babel:
    """Writes babeld's lines."""

    def __init__(self) -> None:
        self.table = Table()

    def route(
        self,
        destination: Prefix | str,
        via: str,
        interface: str,
        metric: int,
        refmetric: int,
        *,
        installed: bool = True,
        source: str = "::/0",
    ) -> None:
        net = destination if isinstance(destination, str) else subnet(NETWORK, destination)
        self.table.feed(
            f"add route {len(self.table.routes):x} prefix {net} from {source} installed {'yes' if installed else 'no'} "
            f"id 00:00:00:00:00:00:00:01 metric {metric} refmetric {refmetric} via {via} if {interface}"
        )

    def neighbour(self, address: str, interface: str, cost: int = 96, *, reach: int = 0xFFFF, txcost: int = 96) -> None:
        self.table.feed(
            f"add neighbour {len(self.table.neighbours):x} address {address} if {interface} reach {reach:04x} "
            f"ureach 0000 rxcost 96 txcost {txcost} rtt 1.000 rttcost 0 cost {cost}"
        )

    @property
    def survey(self) -> Survey:
        return survey(self.table, NETWORK, OWN)


def test_nothing() -> None:
    assert Babel().survey == Survey()


def test_whoever_announces_itself_is_next_to_us() -> None:
    babel = Babel()
    babel.neighbour("fe80::b", "re6stnet1")
    babel.route(B, "fe80::b", "re6stnet1", 96, 0)
    babel.route(C, "fe80::b", "re6stnet1", 192, 96)
    seen = babel.survey
    assert seen.peers == {B, C}
    assert set(seen.neighbours) == {B}
    assert seen.carried(B) == seen.carried_by("re6stnet1") == {B, C}
    assert seen.sole_by("re6stnet1") == {B, C}
    assert seen.carried(C) == seen.carried_by("re6stnet2") == frozenset()
    assert seen.alive == {"re6stnet1"}
    assert seen.unidentified == ()


def test_a_neighbour_is_known_also_when_its_own_subnet_is_better_reached_through_another() -> None:
    babel = Babel()
    babel.route(B, "fe80::b", "re6stnet1", 96, 0)
    babel.route(C, "fe80::c", "re6stnet2", 900, 0, installed=False)
    babel.route(C, "fe80::b", "re6stnet1", 192, 96)
    babel.route(D, "fe80::c", "re6stnet2", 950, 50)
    seen = babel.survey
    assert set(seen.neighbours) == {B, C}
    assert seen.carried(B) == {B, C}
    assert seen.carried(C) == {D}


def test_a_next_hop_without_a_name() -> None:
    babel = Babel()
    babel.route(D, "fe80::f", "re6stnet-tcp", 192, 96)
    seen = babel.survey
    assert [link.carried for link in seen.unidentified] == [{D}]
    assert seen.carried_by("re6stnet-tcp") == {D}
    assert seen.neighbours == {}


def test_two_links_to_one_neighbour() -> None:
    babel = Babel()
    babel.route(B, "fe80::b1", "re6stnet1", 96, 0)
    babel.route(B, "fe80::b2", "re6stnet-tcp", 96, 0, installed=False)
    seen = babel.survey
    assert len(seen.neighbours[B]) == 2
    assert seen.carried(B) == {B}
    assert seen.sole_by("re6stnet1") == frozenset(), "the other link leads there too"


def test_clients_of_one_server_share_its_interface() -> None:
    babel = Babel()
    babel.route(B, "fe80::b", "re6stnet-tcp", 96, 0)
    babel.route(C, "fe80::c", "re6stnet-tcp", 96, 0)
    assert babel.survey.carried_by("re6stnet-tcp") == {B, C}
    assert babel.survey.carried(C) == {C}


def test_what_is_no_peer() -> None:
    babel = Babel()
    babel.route(OWN, "fe80::b", "re6stnet1", 288, 192)
    babel.route("::/0", "fe80::b", "re6stnet1", 192, 96, source=str(NETWORK))
    babel.route("2001:db8:43::/64", "fe80::b", "re6stnet1", 192, 96)
    babel.route(str(NETWORK), "fe80::b", "re6stnet1", 192, 96)
    babel.route(C, "fe80::b", "re6stnet1", 65535, 65535)
    babel.route(D, "fe80::b", "re6stnet1", 96, 0, installed=False)
    seen = babel.survey
    assert seen.peers == frozenset(), "a route that is unreachable or not installed reaches nobody"
    assert set(seen.neighbours) == {D}
    assert seen.unidentified == ()


def test_a_way_back_through_ourselves_is_no_other_way() -> None:
    """Measured with babeld 1.12.1, three nodes in a line and us in the middle: each end announces the other end."""
    babel = Babel()
    babel.route(D, "fe80::d", "re6stnet1", 96, 0)
    babel.route(D, "fe80::b", "re6stnet2", 288, 192, installed=False)
    babel.route(B, "fe80::b", "re6stnet2", 96, 0)
    babel.route(B, "fe80::d", "re6stnet1", 288, 192, installed=False)
    seen = babel.survey
    assert seen.sole_by("re6stnet1") == {D}
    assert seen.sole_by("re6stnet2") == {B}


def test_a_way_that_is_about_to_be_lost_is_no_other_way() -> None:
    """Two nodes drain the two ways to D at one time: seven hellos were missed on each."""
    babel = Babel()
    babel.route(D, "fe80::d", "re6stnet1", 24576, 0)
    babel.route(D, "fe80::b", "re6stnet2", 12288 + 192, 12288 + 96, installed=False)
    assert babel.survey.sole_by("re6stnet1") == {D}
    babel.route(D, "fe80::c", "re6stnet3", 6144, 96, installed=False)
    assert babel.survey.sole_by("re6stnet1") == frozenset()


def test_in_a_triangle_both_are_other_ways() -> None:
    babel = Babel()
    babel.route(D, "fe80::d", "re6stnet1", 96, 0)
    babel.route(D, "fe80::b", "re6stnet2", 192, 96, installed=False)
    babel.route(B, "fe80::b", "re6stnet2", 96, 0)
    babel.route(B, "fe80::d", "re6stnet1", 192, 96, installed=False)
    seen = babel.survey
    assert seen.sole_by("re6stnet1") == seen.sole_by("re6stnet2") == frozenset()


def test_a_silent_neighbour_is_not_alive() -> None:
    babel = Babel()
    babel.neighbour("fe80::b", "re6stnet1", 65535)
    babel.neighbour("fe80::c", "re6stnet2")
    assert babel.survey.alive == {"re6stnet2"}


PREFIXES = st.sampled_from([OWN, B, C, D, E])
HOPS = st.sampled_from([("fe80::b", "re6stnet1"), ("fe80::c", "re6stnet2"), ("fe80::d", "re6stnet-tcp")])


@given(
    st.lists(
        st.tuples(PREFIXES, HOPS, st.sampled_from([96, 192, 65535]), st.sampled_from([0, 96, 300]), st.booleans()),
        max_size=12,
    )
)
def test_what_holds_for_every_table(routes: list[tuple[Prefix, tuple[str, str], int, int, bool]]) -> None:
    babel = Babel()
    for destination, (via, interface), metric, refmetric, installed in routes:
        babel.route(destination, via, interface, metric, refmetric, installed=installed)
    seen = babel.survey
    links = [link for found in seen.neighbours.values() for link in found] + list(seen.unidentified)
    assert OWN not in seen.peers
    assert OWN not in seen.neighbours
    assert frozenset().union(*(link.carried for link in links)) == seen.peers
    assert sum(len(link.carried) for link in links) == len(seen.peers), "each goes one way"
    assert all(link.sole <= link.carried for link in links)
    assert all(link.carried for link in seen.unidentified)
    for interface in {"re6stnet1", "re6stnet2", "re6stnet-tcp"}:
        assert seen.sole_by(interface) <= seen.carried_by(interface)


def test_what_links_and_ways_cost() -> None:
    babel = Babel()
    babel.neighbour("fe80::b", "re6stnet1", cost=65535)
    babel.neighbour("fe80::b", "re6stnet1", cost=300)  # the first one lingers
    babel.neighbour("fe80::c", "re6stnet2", cost=65535)
    babel.route(B, "fe80::b", "re6stnet1", 300, 0)
    babel.route(C, "fe80::b", "re6stnet1", 420, 120)
    babel.route(C, "fe80::d", "re6stnet3", 900, 0, installed=False)
    assert babel.survey.costs == {"re6stnet1": 300}
    assert babel.survey.losses == {"re6stnet1": 1.0}
    assert babel.survey.metrics == {B: 300, C: 420}


def test_who_is_offered_ways_and_takes_none_is_starved_of_them() -> None:
    babel = Babel()
    babel.neighbour("fe80::b", "re6stnet1")
    babel.route(B, "fe80::b", "re6stnet1", 96, 0)
    babel.route(C, "fe80::b", "re6stnet1", 192, 96, installed=False)
    babel.route(C, "fe80::d", "re6stnet2", 288, 192, installed=False)
    babel.route(D, "fe80::b", "re6stnet1", 65535, 65535, installed=False)
    babel.route(OWN, "fe80::b", "re6stnet1", 192, 96, installed=False)
    assert babel.survey.starved == {C}, "nobody offers a way to D, and ours we know"
    babel.route(C, "fe80::e", "re6stnet3", 480, 384)
    assert babel.survey.starved == set()


def test_who_is_heard_and_does_not_hear_us() -> None:
    babel = Babel()
    babel.neighbour("fe80::b", "re6stnet1", 65535, txcost=65535)
    babel.neighbour("fe80::c", "re6stnet2", 65535, txcost=65535, reach=0x0FFF)
    babel.neighbour("fe80::d", "re6stnet3", 65535)
    babel.neighbour("fe80::e", "re6stnet4")
    assert babel.survey.unheard == {"re6stnet1"}
    assert babel.survey.alive == {"re6stnet4"}


def test_whose_hellos_have_holes_and_whether_anybody_was_heard_before() -> None:
    babel = Babel()
    babel.neighbour("fe80::b", "re6stnet1", reach=0xF800)
    assert (babel.survey.patchy, babel.survey.steady) == (frozenset(), False)
    babel.neighbour("fe80::c", "re6stnet-tcp", reach=0xB6DB)
    assert babel.survey.patchy == {NextHop(IPv6Address("fe80::c"), "re6stnet-tcp")}
    assert babel.survey.steady


def test_a_neighbour_that_is_silent_is_one_until_babel_gives_it_up() -> None:
    babel = Babel()
    assert babel.survey.alone
    babel.neighbour("fe80::b", "re6stnet1", cost=65535)
    assert not babel.survey.alone
    assert not babel.survey.alive


def test_links_beside_another_one_with_the_same_peer_count_as_that_one() -> None:
    babel = Babel()
    base, further = NextHop(IPv6Address("fe80::b"), "re6stnet-wg1"), "re6stnet-wg961"
    babel.neighbour("fe80::b", base.interface, 200)
    babel.neighbour("fe80::bb", further, 96)
    babel.route(B, "fe80::bb", further, 96, 0)
    babel.route(B, "fe80::b", base.interface, 200, 0, installed=False)
    babel.route(C, "fe80::bb", further, 192, 96)
    seen = survey(babel.table, NETWORK, OWN, as_one={further: base})
    (link,) = seen.neighbours[B]
    assert link.hop == base
    assert link.carried == link.sole == {B, C}
    assert seen.carried_by(base.interface) == seen.sole_by(base.interface) == {B, C}
    assert seen.carried_by(further) == frozenset()
    assert seen.alive == {base.interface}
    assert seen.costs == {base.interface: 96}, "it is as good as the best of them"
    assert len(babel.survey.neighbours[B]) == 2


def test_a_tunnel_is_alive_as_long_as_one_of_its_links_is() -> None:
    babel = Babel()
    babel.neighbour("fe80::bb", "re6stnet-wg961")
    as_one = {"re6stnet-wg961": NextHop(IPv6Address("fe80::b"), "re6stnet-wg1")}
    assert survey(babel.table, NETWORK, OWN, as_one=as_one).alive == {"re6stnet-wg1"}
