"""What a node gave the kernel is there again after others took it away; played by a kernel that keeps it in memory."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest

from re6st.core.machine.wanted_state import (
    IFF_RUNNING,
    IFF_UP,
    RTN_UNREACHABLE,
    Address,
    Fault,
    KernelLink,
    KernelRoute,
    KernelRule,
    Network,
    Placed,
    Setting,
    TapState,
    Wanted,
    forwarding,
    host_route,
    tap_settings,
)
from re6st.linux.kept_state import KeptState
from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import InterfaceAddress
from re6st.noded.caretaker import Caretaker
from re6st.noded.router_advertisements import Advertisements

ADDRESS = IPv6Address("2001:db8:42:b::1")
NETWORK = IPv6Network("2001:db8:42::/48")
MAC, LINK_LOCAL = bytes.fromhex("06ca82c632de"), IPv6Address("fe80::4ca:82ff:fec6:32de")
HOST, GATEWAY = IPv4Address("192.0.2.7"), IPv4Address("10.0.0.1")


class Netlink:
    """The part of the kernel that is asked by rtnetlink."""

    def __init__(self) -> None:
        self.up = {"lo": True, "re6stnet1": True}
        self.mtu = 1500
        self.index = {"lo": 1, "re6stnet1": 7, "br0": 9}
        self.there: set[tuple[Address, int]] = {(LINK_LOCAL, 7)}
        self.known: set[tuple[Network, int]] = set()
        self.ours: list[KernelRule] = []
        self.refuses = 0
        self.carrier = True
        self.noticed = True
        """Whether this kernel has dealt with the carrier."""

    def links(self) -> list[KernelLink]:
        running = IFF_UP | (IFF_RUNNING if self.noticed else 0)
        flags = {name: running if up else 0 for name, up in self.up.items()}
        return [KernelLink(self.index[name], name, flags[name], "", MAC, self.mtu) for name in flags]

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None:
        self._may()
        self.mtu = mtu or self.mtu
        self.up[next(name for name, number in self.index.items() if number == index)] = up
        if up and index == 7 and self.carrier:
            self.there.add((LINK_LOCAL, index))

    def delete_link(self, index: int) -> None:
        raise AssertionError

    def addresses(self) -> list[InterfaceAddress]:
        return [InterfaceAddress(ip, ip.max_prefixlen, index, 0, 0) for ip, index in self.there]

    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None:
        self._may()
        self.there.add((ip, index))

    def delete_address(self, ip: Address, length: int, index: int) -> None:
        self._may()
        self.there.remove((ip, index))

    def routes(self, family: int, protocol: int = 0, type: int = 0) -> Iterator[KernelRoute]:
        for destination, kind in self.known:
            if kind == type or (protocol and kind != RTN_UNREACHABLE):
                yield KernelRoute(destination, type=kind)

    def add_route(self, route: KernelRoute, *, replace: bool = False) -> None:
        self._may()
        self.known.add((route.destination, route.type))

    def delete_route(self, route: KernelRoute) -> None:
        self._may()
        self.known.remove((route.destination, route.type))

    def rules(self) -> list[KernelRule]:
        return list(self.ours)

    def add_rule(self, rule: KernelRule) -> None:
        self._may()
        self.ours.append(rule)

    def delete_rule(self, rule: KernelRule) -> None:
        self._may()
        self.ours.remove(rule)

    def _may(self) -> None:
        if self.refuses:
            raise NetlinkError(self.refuses, "no")


class Machine:
    def __init__(self, sysctl: Path) -> None:
        self.kernel = Netlink()
        self.sysctl = sysctl
        self.state = KeptState(self.kernel, sysctl)
        for name in ("lo", "br0", "re6stnet1", "all"):
            (sysctl / f"ipv6/conf/{name}").mkdir(parents=True)
            self.set(f"ipv6/conf/{name}/disable_ipv6", 0)
        self.set("ipv6/conf/all/forwarding", 1)

    def set(self, name: str, value: int) -> None:
        (self.sysctl / name).write_text(f"{value}\n")

    def get(self, name: str) -> str:
        return (self.sysctl / name).read_text().strip()

    def want(self, **wanted: Any) -> None:
        """Besides what is wanted already."""
        self.state.want(replace(self.state.wanted, **wanted))

    def said(self) -> list[str]:
        return [str(fault) for fault in self.state.put_back()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.want(addresses=(Placed(ADDRESS, 64, "lo"),), routes=(KernelRoute(NETWORK, type=RTN_UNREACHABLE),))
    made.state.put_back()
    assert made.kernel.there == {(ADDRESS, 1), (LINK_LOCAL, 7)}
    assert made.said() == []
    return made


def test_what_is_removed_is_put_back_once(machine: Machine) -> None:
    machine.kernel.there.clear()
    machine.kernel.known.clear()
    assert machine.said() == [f"our address {ADDRESS} on lo", f"the route unreachable {NETWORK}"]
    assert machine.kernel.there == {(ADDRESS, 1)}
    assert machine.kernel.known == {(NETWORK, RTN_UNREACHABLE)}
    assert machine.said() == []


def test_links_and_addresses_are_read_where_the_kernel_told_of_a_change(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read them takes longer than all else that is looked at every two seconds."""
    read: list[str] = []
    links = machine.kernel.links

    def read_links() -> list[KernelLink]:
        read.append("links")
        return links()

    monkeypatch.setattr(machine.kernel, "links", read_links)
    assert machine.state.put_back(told=False) == []
    assert read == []
    machine.kernel.known.clear()
    machine.set("ipv6/conf/lo/disable_ipv6", 1)
    faults = machine.state.put_back(told=False)
    assert len(faults) == 2, "routes and sysctls are looked at each time"
    assert read == []
    machine.state.put_back(told=False)
    assert read == ["links"], "something was wrong the last time"
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    machine.state.put_back(told=False)
    assert read == ["links"] * 2, "an interface has come that is wanted"
    machine.kernel.there.clear()
    assert len(machine.state.put_back(told=True)) == 2


def test_what_the_kernel_told_of_is_read_later_where_it_cannot_be_read_at_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.state.put_back(told=False) == []

    def refuse() -> list[KernelLink]:
        raise NetlinkError(errno.ENOBUFS, "No buffer space available")

    machine.kernel.there.clear()
    with monkeypatch.context() as patched:
        patched.setattr(machine.kernel, "links", refuse)
        with pytest.raises(NetlinkError):
            machine.state.put_back(told=True)
    assert machine.state.put_back(told=False) != []
    assert (ADDRESS, 1) in machine.kernel.there


def test_lo_and_tunnels_are_brought_up_again(machine: Machine) -> None:
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    machine.kernel.up.update(lo=False, re6stnet1=False)
    machine.kernel.there.clear()
    assert machine.said() == ["the interface re6stnet1, which was down", f"our address {ADDRESS} on lo"]
    assert machine.kernel.up == {"lo": True, "re6stnet1": True}
    assert machine.said() == []


def test_a_tunnel_gets_a_link_local_address_again(machine: Machine) -> None:
    """Without one babeld does not use it, and says so again and again; the kernel does not put it back."""
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    machine.kernel.carrier = False
    machine.kernel.there.remove((LINK_LOCAL, 7))
    assert machine.said() == [f"our address {LINK_LOCAL} on re6stnet1"]
    assert machine.said() == []
    machine.kernel.there.remove((LINK_LOCAL, 7))
    machine.kernel.there.add((IPv6Address("fe80::1"), 7))
    assert machine.said() == [], "another one will do"


def test_a_tunnel_that_just_came_up_gets_its_link_local_address_from_the_kernel(machine: Machine) -> None:
    """The kernel notices a carrier up to a second late: nobody removed the address in between."""
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    machine.kernel.there.remove((LINK_LOCAL, 7))
    machine.kernel.noticed = False
    assert machine.said() == []
    machine.kernel.noticed = True
    assert machine.said() == [f"our address {LINK_LOCAL} on re6stnet1"]


def test_what_is_no_longer_wanted_is_removed_and_nothing_else(machine: Machine) -> None:
    others = IPv6Address("2001:db8:42:b::5")
    machine.kernel.there.add((others, 1))
    machine.kernel.known.add((IPv6Network("2001:db8:43::/48"), RTN_UNREACHABLE))
    removed = machine.state.want(Wanted())
    assert [thing.what for thing in removed] == [f"route {NETWORK}", f"address {ADDRESS}"]
    assert machine.kernel.there == {(others, 1), (LINK_LOCAL, 7)}
    assert machine.kernel.known == {(IPv6Network("2001:db8:43::/48"), RTN_UNREACHABLE)}
    assert machine.said() == []


@pytest.mark.parametrize("anew", [True, False], ids=["another of the same name", "gone"])
def test_a_deleted_interface_of_a_tunnel_is_told(machine: Machine, anew: bool) -> None:
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    if anew:
        machine.kernel.index["re6stnet1"] = 8
    else:
        del machine.kernel.up["re6stnet1"]
    assert machine.said() == []
    assert machine.state.deleted == {"re6stnet1"}
    assert machine.state.wanted.taps == {"re6stnet1": None}


def test_an_interface_of_the_users_is_brought_up_when_it_comes_and_left_down_afterwards(machine: Machine) -> None:
    machine.want(addresses=(Placed(ADDRESS, 64, "br0"),))
    assert machine.kernel.there == {(LINK_LOCAL, 7)}
    assert machine.said() == [f"our address {ADDRESS} on br0 is missing: there is no interface br0"]
    machine.kernel.up["br0"] = False
    assert machine.said() == [f"our address {ADDRESS} on br0"]
    assert machine.kernel.up["br0"]
    machine.kernel.up["br0"] = False
    machine.kernel.there.clear()
    assert machine.said() == [f"our address {ADDRESS} on br0 is missing: the interface br0 is down"]
    machine.kernel.up["br0"] = True
    assert machine.said() == [f"our address {ADDRESS} on br0"]
    assert (ADDRESS, 9) in machine.kernel.there


def test_ipv6_is_switched_on_where_it_is_needed_and_nowhere_else(machine: Machine) -> None:
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    for name in ("lo", "br0", "re6stnet1", "all"):
        machine.set(f"ipv6/conf/{name}/disable_ipv6", 1)
    assert machine.said() == [
        "the sysctl net.ipv6.conf.lo.disable_ipv6=0",
        "the sysctl net.ipv6.conf.re6stnet1.disable_ipv6=0",
    ]
    assert [machine.get(f"ipv6/conf/{name}/disable_ipv6") for name in ("lo", "br0", "re6stnet1", "all")] == list("0101")


def test_an_interface_of_a_tunnel_has_the_settings_that_it_got_again(machine: Machine) -> None:
    """A router advertisement of a peer would be our default route, where a network manager has it heard."""
    machine.want(taps={"re6stnet1": TapState(7, 1400)})
    machine.set("ipv6/conf/re6stnet1/accept_ra", 2)
    machine.set("ipv6/conf/re6stnet1/accept_dad", 1)
    said = ["the sysctl net.ipv6.conf.re6stnet1.accept_dad=0", "the sysctl net.ipv6.conf.re6stnet1.accept_ra=0"]
    assert machine.said() == [*said, "the MTU 1400 of re6stnet1"]
    assert machine.kernel.mtu == 1400
    assert machine.said() == []


@pytest.mark.parametrize(("code", "is_missed"), [(errno.EROFS, False), (errno.EACCES, True)])
def test_one_that_only_costs_time_is_not_missed_where_nobody_may_set_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, code: int, is_missed: bool
) -> None:
    def refuse(self: Path, text: str) -> int:
        raise OSError(code, "no")

    machine.want(taps={"re6stnet1": TapState(7)})
    machine.set("ipv6/conf/re6stnet1/accept_dad", 1)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert bool(machine.said()) is is_missed
    assert bool(machine.state.set(tap_settings("re6stnet1"))) is is_missed


def test_sysctls_that_are_wanted_are_set_again(machine: Machine) -> None:
    machine.want(settings=forwarding(ipv4=True))
    machine.set("ipv6/conf/all/forwarding", 0)
    assert machine.said() == ["the sysctl net.ipv6.conf.all.forwarding=1"], "those of IPv4 are not there"
    assert machine.get("ipv6/conf/all/forwarding") == "1"


def test_a_sysctl_that_cannot_be_set_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, text: str) -> int:
        raise PermissionError(errno.EROFS, "Read-only file system")

    machine.want(settings=(Setting("ipv6/conf/all/forwarding", "0", "1"),))
    machine.set("ipv6/conf/all/forwarding", 0)
    monkeypatch.setattr(Path, "write_text", refuse)
    path = machine.sysctl / "ipv6/conf/all/forwarding"
    assert machine.said() == [f"the sysctl net.ipv6.conf.all.forwarding=1 is missing: {path}: Read-only file system"]


@pytest.mark.parametrize(("code", "forbidden"), [(errno.EPERM, True), (errno.EACCES, False)])
def test_what_the_kernel_refuses_is_named_and_tried_again(machine: Machine, code: int, forbidden: bool) -> None:
    """EACCES is what it says where IPv6 is off, which another program may change."""
    machine.kernel.there.clear()
    machine.kernel.refuses = code
    refused = Fault(Placed(ADDRESS, 64, "lo"), "the kernel refuses it (no)", forbidden)
    assert machine.state.put_back() == [refused]
    machine.kernel.refuses = 0
    assert machine.said() == [f"our address {ADDRESS} on lo"]


def test_a_route_to_a_gateway_that_cannot_be_reached_is_put_back_later(machine: Machine) -> None:
    machine.want(routes=(*machine.state.wanted.routes, host_route(HOST, GATEWAY)))
    machine.kernel.refuses = errno.ENETUNREACH
    assert machine.said() == []
    machine.kernel.refuses = 0
    assert machine.said() == [f"the route to {HOST} by {GATEWAY}"]
    assert (ip_network(HOST), 1) in machine.kernel.known
    assert machine.said() == []


# -- who looks, and says it --


class Looks:
    def __init__(self, machine: Machine, directory: Path) -> None:
        self.now = 0.0
        self.restored: list[str] = []
        (directory / "none").mkdir()
        advertisements = Advertisements(directory / "note", directory / "none")
        self.care = Caretaker(machine.state, lambda: (), self._restore, advertisements, lambda: self.now)

    async def _restore(self, name: str) -> None:
        self.restored.append(name)

    def look(self) -> None:
        asyncio.run(self.care.look())


@pytest.fixture
def looks(machine: Machine, tmp_path: Path) -> Looks:
    return Looks(machine, tmp_path)


def test_it_is_said_once_however_often_it_is_taken(
    machine: Machine, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    for looks.now in range(0, 200, 2):
        machine.kernel.there.clear()
        looks.look()
        assert machine.kernel.there
    assert caplog.text.count(": restoring it") == 1
    assert looks.care.problems() == []
    for looks.now in range(200, 300, 2):
        looks.look()
    machine.kernel.there.clear()
    looks.look()
    assert caplog.text.count(": restoring it") == 2, "after a quiet minute it is news"


def test_the_status_says_what_is_missing_as_long_as_it_is(machine: Machine, looks: Looks) -> None:
    looks.look()
    assert looks.care.present.is_set()
    machine.kernel.there.clear()
    machine.kernel.refuses = errno.EACCES
    looks.look()
    assert looks.care.problems() == [f"our address {ADDRESS} on lo is missing: the kernel refuses it (no)"]
    assert not looks.care.present.is_set()
    machine.kernel.refuses = 0
    looks.look()
    assert looks.care.problems() == []
    assert looks.care.present.is_set()


def test_tunnels_of_a_deleted_interface_are_made_anew_once(machine: Machine, looks: Looks) -> None:
    machine.want(taps={"re6stnet1": TapState(7, 1500)})
    del machine.kernel.up["re6stnet1"]
    looks.look()
    looks.look()
    assert looks.restored == ["re6stnet1"]
