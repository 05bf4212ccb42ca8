"""Whatever the kernel has, it is brought to have what is wanted of it, and what others made is left alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.machine import mptcp
from re6st.core.machine.share_rules import ShareRules, kernel_rules
from re6st.core.machine.uplinks import Uplink, WayOut, things
from re6st.core.machine.wanted_state import (
    IFF_RUNNING,
    IFF_UP,
    RTN_UNREACHABLE,
    Actual,
    AddressPlan,
    Fault,
    Kept,
    KernelLink,
    KernelRoute,
    KernelRule,
    Mtu,
    Placed,
    Property,
    Setting,
    Tap,
    TapState,
    Thing,
    Wanted,
    bulk_rules,
    deleted,
    forwarding,
    host_route,
    left,
    missing,
    surplus,
    tap_settings,
)
from re6st.core.routing.regions import ROUTE_PROTOCOL

NET6, NET4 = IPv6Network("2001:db8:42::/48"), IPv4Network("10.42.0.0/16")
PLANS = (
    AddressPlan(NET6, IPv6Address("2001:db8:42:1::1"), 64, (NET6,)),
    AddressPlan(NET4, IPv4Address("10.42.3.1"), 32, (NET4, IPv4Network("10.42.3.0/24"))),
    AddressPlan(NET4, IPv4Address("10.42.3.1"), 24, (NET4,)),
    AddressPlan(IPv4Network("10.43.0.0/16"), IPv4Address("10.43.3.1"), 32, (IPv4Network("10.43.0.0/16"),)),
)
GATEWAYS = (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
HOSTS = tuple(IPv4Address(f"192.0.2.{number}") for number in range(3))
TAPS = ("re6stnet1", "re6stnet2", "re6stnet-tcp")
SHARES = ShareRules(NET6, IPv6Network("2001:db8:42:1::/64"), {1: ("re6stnet1",), 2: ("re6stnet2",)})
ROOM = IPv6Network("2001:db8:42:1:ffff:ffff:ffff:fe00/120")
LINES = {
    number: Uplink(f"line{number}", "eth0", 2, (IPv4Address(f"192.168.{number}.5"),), {4: WayOut(gateway)})
    for number, gateway in enumerate(GATEWAYS, 1)
}
OTHERS = (
    KernelRoute(IPv4Network("0.0.0.0/0"), gateway=GATEWAYS[0], interface=2, table=177),
    Placed(IPv6Address("2001:db8:42:1::5"), 128, "lo"),
    Placed(IPv4Address("10.42.3.5"), 32, "lo"),
    Placed(IPv4Address("192.168.0.2"), 24, "eth0"),
    KernelRoute(IPv6Network("2001:db8:42:1:8000::/80"), gateway=IPv6Address("fe80::2"), interface=2),
    KernelRoute(IPv6Network("2001:db8:43::/48"), type=RTN_UNREACHABLE),
    KernelRoute(IPv4Network("192.0.2.9/32"), gateway=GATEWAYS[0], protocol=3),
)


def region_plan(network: str) -> AddressPlan:
    net = IPv6Network(network)
    return AddressPlan(net, net[-1], 128, (net,), ROUTE_PROTOCOL)


class Machine:
    """A kernel that does what it is told."""

    def __init__(self) -> None:
        names = ("lo", "eth0", "re6stnet-backup", *TAPS)
        self.index = {name: number for number, name in enumerate(names, 1)}
        self.links = {name: KernelLink(self.index[name], name, IFF_UP, "") for name in ("lo", "eth0")}
        self.add_tap("re6stnet-backup")
        self.things: set[Placed | KernelRoute | KernelRule] = set()
        self.settings: dict[str, str] = {}

    def add_tap(self, name: str) -> None:
        self.links[name] = KernelLink(self.index[name], name, 0, "tun", bytes(5) + b"\1")

    def has(self) -> Actual:
        placed = [each for each in self.things if isinstance(each, Placed)]
        routes = [each for each in self.things if isinstance(each, KernelRoute)]
        kernels = [each for each in routes if each.type == RTN_UNREACHABLE or each.protocol == 146]
        rules = [each for each in self.things if isinstance(each, KernelRule)]
        return Actual(dict(self.links), placed, kernels, dict(self.settings), rules)

    def put(self, thing: Property | Thing) -> None:
        match thing:
            case Setting():
                self.settings[thing.name] = thing.right
            case Mtu():
                self.links[thing.interface] = replace(self.links[thing.interface], mtu=thing.bytes)
            case Tap():
                self._raise(thing.interface)
            case Placed():
                if thing.routed:
                    self._raise(thing.interface)
                assert thing.interface in self.links
                self.things.add(thing)
            case KernelRoute() | KernelRule():
                self.things.add(thing)

    def remove(self, thing: Thing) -> None:
        """What is gone already is no error."""
        if isinstance(thing, Tap):
            self.links.pop(thing.interface, None)
            self.things -= {
                each for each in self.things if isinstance(each, Placed) and each.interface == thing.interface
            }
        else:
            self.things.discard(thing)

    def follow(self, before: Wanted, now: Wanted) -> list[Fault]:
        """Come from what was wanted before to what is now; returns what cannot be there."""
        for thing in surplus(before, now):
            self.remove(thing)
        faults = []
        for step in missing(now, self.has(), ("eth0",)):
            if isinstance(step, Fault):
                faults.append(step)
            else:
                self.put(step)
        return faults

    def _raise(self, name: str) -> None:
        self.links[name] = replace(self.links[name], flags=IFF_UP | IFF_RUNNING)


@st.composite
def wanted_states(draw: st.DrawFn) -> Wanted:
    routes = {host: draw(st.sampled_from(GATEWAYS)) for host in draw(st.sets(st.sampled_from(HOSTS)))}
    index = Machine().index
    names = draw(st.sets(st.sampled_from(TAPS)))
    return Wanted(
        routes=tuple(host_route(*each) for each in routes.items()),
        taps={
            name: draw(st.sampled_from((None, TapState(index[name]), TapState(index[name], 1400)))) for name in names
        },
        on_taps=draw(st.sampled_from((None, IPv4Interface("10.42.3.1/24"), IPv4Interface("10.43.3.1/24")))),
        settings=draw(st.sampled_from(((), forwarding(ipv4=False), forwarding(ipv4=True)))),
        rules=draw(st.sampled_from(((), bulk_rules(NET6)))),
        uplinks=draw(st.sampled_from(((), things(LINES), things({1: LINES[1]}), things({2: LINES[1], 1: LINES[2]})))),
        shares=draw(st.sampled_from(((), kernel_rules(SHARES)))),
        mptcp=draw(st.sampled_from(((), mptcp.things(ROOM, NET6, {1, 2}), mptcp.things(ROOM, NET6, {2, 3})))),
    ).with_plans(draw(st.lists(st.sampled_from(PLANS), unique=True)), draw(st.sampled_from(("lo", "eth0", "br0"))))


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """With things of others."""
    machine = Machine()
    machine.things |= draw(st.sets(st.sampled_from(OTHERS)))
    settings = (*forwarding(ipv4=True), *(setting for name in TAPS for setting in tap_settings(name)))
    for setting in draw(st.sets(st.sampled_from(settings))):
        machine.settings[setting.name] = setting.wrong or "2"
    if draw(st.booleans()):
        machine.links["eth0"] = replace(machine.links["eth0"], flags=0)
    return machine


def make(machine: Machine, wanted: Wanted) -> None:
    for name in wanted.taps.keys() - machine.links.keys():
        machine.add_tap(name)


@given(machines(), st.lists(wanted_states(), min_size=1), st.data())
def test_it_has_what_is_wanted_and_what_others_made_whatever_was_wanted_before(
    machine: Machine, states: list[Wanted], data: st.DataObject
) -> None:
    others = set(machine.things)
    before = Wanted()
    for now in states:
        make(machine, now)
        machine.follow(before, now)
        # Others take some of it away.
        machine.things -= (
            data.draw(st.sets(st.sampled_from(sorted(machine.things, key=str)))) if machine.things else set()
        )
        machine.things |= others
        faults = machine.follow(now, now)
        assert all(isinstance(fault.thing, Placed) and fault.thing.interface != "lo" for fault in faults)
        absent = {fault.thing for fault in faults}
        on = {(each.ip, each.interface) for each in machine.things if isinstance(each, Placed)}
        for placed in now.addresses:
            assert (placed in absent) != ((placed.ip, placed.interface) in on)
        assert {*now.routes, *now.uplinks, *now.shares, *now.mptcp} <= machine.things
        for name, up in now.taps.items():
            link = machine.links[name]
            assert up is None or (link.up and up.mtu in (None, link.mtu))
        assert all(machine.settings.get(each.name) not in (each.wrong, "2") for each in now.all_settings)
        assert [step for step in missing(now, machine.has(), ("eth0",)) if not isinstance(step, Fault)] == []
        assert others <= machine.things
        before = now
    machine.follow(before, Wanted())
    assert machine.things == others
    assert not machine.links.keys() & set(TAPS)


@given(machines(), wanted_states())
def test_a_start_removes_all_that_a_killed_run_left_and_no_more(machine: Machine, wanted: Wanted) -> None:
    others, links = set(machine.things), set(machine.links)
    make(machine, wanted)
    machine.follow(Wanted(), wanted)
    assert machine.follow(*left(machine.has(), PLANS, None)) == []
    assert machine.things == others
    assert set(machine.links) == links
    assert left(machine.has(), PLANS, None) == (Wanted(), Wanted())


@given(machines(), wanted_states(), st.sets(st.sampled_from(HOSTS)))
def test_a_daemon_that_takes_over_leaves_what_the_traffic_needs(
    machine: Machine, wanted: Wanted, hosts: set[IPv4Address]
) -> None:
    make(machine, wanted)
    machine.follow(Wanted(), wanted)
    before, links = set(machine.things), dict(machine.links)
    main = wanted.addresses[0].interface if wanted.addresses else "lo"
    kept = Kept([str(host) for host in hosts], main)
    found, now = left(machine.has(), PLANS, kept)
    machine.follow(found, now)
    gone = before - machine.things
    assert machine.links == links
    to_others = {each for each in wanted.routes if each.gateway and each.destination.network_address not in hosts}
    assert gone == {*to_others, *wanted.shares}, "what goes over which line is found anew"
    # It wants the same addresses as the one before, so that nothing of that is touched.
    before = set(machine.things)
    again = replace(now, addresses=wanted.addresses, routes=wanted.routes, on_taps=wanted.on_taps)
    assert set(now.mptcp) == set(wanted.mptcp), "no subflow ends"
    assert set(now.uplinks) == set(wanted.uplinks), "what is bound to a line keeps to it"
    assert {thing for thing in surplus(now, again) if isinstance(thing, Placed)} == set()
    machine.follow(now, again)
    assert before <= machine.things


def test_the_route_of_a_region_that_nobody_knows_of_goes_with_its_address_also_at_a_takeover() -> None:
    """Else babeld would tell others of that region for ever."""
    flat, former, now = PLANS[0], region_plan("2001:db8:42:100::/56"), region_plan("2001:db8:42::/57")
    machine = Machine()
    machine.follow(Wanted(), Wanted().with_plans([flat, now], "lo"))
    before = set(machine.things)
    machine.follow(Wanted(), Wanted().with_plans([former], "lo"))
    user = Placed(IPv6Address("2001:db8:42:1ff:ffff:ffff:ffff:fffe"), 128, "lo")
    elsewhere = KernelRoute(IPv6Network("2001:db8:43:100::/56"), type=RTN_UNREACHABLE, protocol=44, priority=1)
    machine.things |= {user, elsewhere}
    machine.follow(*left(machine.has(), [flat, now], Kept()))
    assert machine.things == before | {user, elsewhere}


def test_the_route_of_a_region_that_is_still_told_of_stays_at_a_takeover() -> None:
    plans = [PLANS[0], region_plan("2001:db8:42:100::/56")]
    machine = Machine()
    machine.follow(Wanted(), Wanted().with_plans(plans, "lo"))
    before = set(machine.things)
    machine.follow(*left(machine.has(), plans, Kept()))
    assert machine.things == before


def test_an_interface_that_is_another_one_now_was_deleted() -> None:
    wanted = Wanted().with_tap("re6stnet1", TapState(7, 1400)).with_tap("re6stnet2", TapState(8)).with_tap("re6stnet3")
    links = {"re6stnet1": KernelLink(9, "re6stnet1", IFF_UP, "tun"), "re6stnet2": KernelLink(8, "re6stnet2", 0, "tun")}
    assert deleted(wanted, Actual(links)) == ["re6stnet1"]
    assert list(missing(wanted, Actual(links))) == [Tap("re6stnet2")]


def test_of_a_setting_that_is_fine_with_several_values_none_of_these_is_touched() -> None:
    filter_of_sources = forwarding(ipv4=True)[-1]
    assert [filter_of_sources.holds(value) for value in ("", "0", "1", "2")] == [True, True, False, True]
    advertisements = tap_settings("re6stnet1")[-1]
    assert [advertisements.holds(value) for value in ("", "0", "1", "2")] == [True, True, False, False]


def test_a_link_that_others_interrupted_gets_the_address_back_that_its_peer_was_told() -> None:
    """It has no hardware address, of which the kernel could make one."""
    name, told = "re6stnet-wg1", IPv6Address("fe80::1234")
    wanted = Wanted().with_tap(name, TapState(7, 1420, told))
    settings = {each.name: each.right for each in tap_settings(name)}
    link = KernelLink(7, name, IFF_UP, "wireguard", mtu=1420)
    other = Placed(IPv6Address("fe80::1"), 64, name)
    assert list(missing(wanted, Actual({name: link}, [other], settings=settings))) == [Placed(told, 64, name)]
    assert list(missing(wanted, Actual({name: link}, [Placed(told, 64, name)], settings=settings))) == []
    down = Actual({name: replace(link, flags=0)}, settings=settings)
    assert list(missing(wanted, down)) == [Tap(name), Placed(told, 64, name)]


def test_what_a_killed_daemon_left_of_wireguard_goes_unless_it_is_gone_on_with() -> None:
    """Also what wireguard-go had made, and nobody had named yet: with it, its process ends."""
    kinds = {"re6stnet-wg1": "wireguard", "re6stnet-wgs1": "tun", "re6stnet-wg2": "wireguard", "r60123abcd": "tun"}
    names = {"re6stnet1": "tun", **kinds, "wg0": "wireguard", "r60123abce": "dummy"}
    links = {name: KernelLink(number, name, IFF_UP, kind) for number, (name, kind) in enumerate(names.items(), 1)}
    before, now = left(Actual(links), (), Kept(links=frozenset({"re6stnet-wg2"})))
    assert {each.interface for each in surplus(before, now) if isinstance(each, Tap)} == kinds.keys() - {"re6stnet-wg2"}
    before, now = left(Actual(links), (), None)
    assert {each.interface for each in surplus(before, now) if isinstance(each, Tap)} == {*kinds, "re6stnet1"}
