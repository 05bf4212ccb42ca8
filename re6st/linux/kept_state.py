"""Has the kernel as a node wants it: puts there what is missing, and removes what is wanted no longer.

Network managers, firewalls and people change it at any moment. What is to be done then says
core/machine/wanted_state.py; noded/caretaker.py looks when and how often.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, assert_never

from re6st.core.machine.wanted_state import (
    RTN_UNREACHABLE,
    RTPROT_RE6ST,
    Actual,
    Address,
    Fault,
    KernelLink,
    KernelRoute,
    KernelRule,
    Mtu,
    Network,
    Placed,
    Property,
    Setting,
    Tap,
    Thing,
    Wanted,
    deleted,
    missing,
    surplus,
)
from re6st.linux.rtnetlink import (
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_TENTATIVE,
    InterfaceAddress,
)

SYSCTL = Path("/proc/sys/net")
LOOPBACK = "lo"
USABLE_TIME, USABLE_LOOK = 1.0, 0.001
"""Seconds that the kernel may take for a new address, and between two looks at it."""
VALUE_LIMIT = 64
"""Bytes of a sysctl that are read; ours are numbers."""


class LinkKernel(Protocol):
    """What is asked of the kernel here; rtnetlink.Netlink is it. Each raises NetlinkError."""

    def links(self) -> list[KernelLink]: ...
    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None: ...
    def delete_link(self, index: int) -> None: ...
    def addresses(self) -> list[InterfaceAddress]: ...
    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None: ...
    def delete_address(self, ip: Address, length: int, index: int) -> None: ...
    def routes(self, family: int, protocol: int = 0, type: int = 0) -> Iterator[KernelRoute]: ...
    def add_route(self, route: KernelRoute, *, replace: bool = False) -> None: ...
    def delete_route(self, route: KernelRoute) -> None: ...
    def rules(self) -> list[KernelRule]: ...
    def add_rule(self, rule: KernelRule) -> None: ...
    def delete_rule(self, rule: KernelRule) -> None: ...


class KeptState:
    """What is `wanted` is to be there. `put_back` sees to it."""

    def __init__(self, netlink: LinkKernel, sysctl: Path = SYSCTL) -> None:
        self.wanted = Wanted()
        self.deleted: set[str] = set()
        """Interfaces of tunnels that others deleted: whoever holds their tunnels has to make them anew."""
        self._netlink = netlink
        self._sysctl = sysctl
        self._met: frozenset[str] = frozenset()
        """Interfaces for our addresses that were there once."""
        self._right: tuple[Wanted, Actual] | None = None
        """What was wanted and what there was, where the last look has found nothing missing."""

    def want(self, wanted: Wanted) -> list[Thing]:
        """Want this from now on. What no longer is wanted is removed, and returned; if it is gone, that is no error."""
        before, self.wanted = self.wanted, wanted
        return self.remove(surplus(before, wanted))

    def remove(self, things: Iterable[Thing]) -> list[Thing]:
        """Remove these; those that were there, and could be, are returned."""
        return [thing for thing in things if self._remove(thing)]

    def put_back(self, *, told: bool = True) -> list[Fault]:
        """Put there what is missing, and say what was. Raises NetlinkError where much changes meanwhile: call again.

        Unless the kernel has `told` of a change of links or addresses, they are taken to be as they were when all was
        right: to read them costs several times as much as all the rest.
        """
        if told:
            self._right = None  # also where it cannot be read now
        actual = self.read(self.wanted) if told else self._read_rest()
        for name in deleted(self.wanted, actual):
            self.wanted = self.wanted.with_tap(name)
            self.deleted.add(name)
        steps = list(missing(self.wanted, actual, self._met))
        self._met |= {placed.interface for placed in self.wanted.addresses} & actual.links.keys()
        self._right = None if steps else (self.wanted, actual)
        found = (step if isinstance(step, Fault) else self._try(step, actual) for step in steps)
        return [fault for fault in found if fault is not None]

    def read(self, wanted: Wanted, *, to_peers: bool = False) -> Actual:
        """What there is of what is wanted; of rules, and routes `to_peers`, also if none is.

        Raises NetlinkError.
        """
        links = {link.index: link for link in self._netlink.links()}
        addresses = [each for each in self._netlink.addresses() if each.index in links]
        return Actual(
            {link.name: link for link in links.values()},
            [Placed(each.address, each.length, links[each.index].name) for each in addresses],
            self._routes(wanted, to_peers=to_peers),
            self._values(wanted),
            self._netlink.rules() if _has_rules(wanted) or to_peers else (),
        )

    def set(self, settings: Iterable[Setting]) -> list[Fault]:
        """Set these sysctls; those are returned that cannot be."""
        wrong = [each for each in settings if not each.holds(self.value(each))]
        found = (self._try(each, Actual()) for each in wrong)
        return [fault for fault in found if fault is not None and fault.trouble]

    def put(self, thing: Property | Thing, index: int = 0) -> None:
        """Put it there, on the interface of this index. Raises OSError."""
        match thing:
            case Setting():
                (self._sysctl / thing.name).write_text(f"{thing.right}\n")
            case Mtu():
                self._netlink.set_link(index, up=True, mtu=thing.bytes)
            case Tap():
                self._netlink.set_link(index, up=True)
            case Placed():
                if thing.routed:
                    self._netlink.set_link(index, up=True)
                flags = (0 if thing.routed else IFA_F_NOPREFIXROUTE) | (IFA_F_DEPRECATED if thing.deprecated else 0)
                if thing.ip.version == 6 and thing.interface != LOOPBACK:
                    # Our certificate says that it is ours alone; no route can have it as source before it is found to
                    # be.
                    flags |= IFA_F_NODAD
                self._netlink.put_address(thing.ip, thing.length, index, flags)
                if thing.interface == LOOPBACK:
                    self._wait_usable(thing.ip)
            case KernelRoute():
                nowhere = thing.type == RTN_UNREACHABLE and thing.protocol != RTPROT_RE6ST
                self._netlink.add_route(thing, replace=nowhere)
            case KernelRule():
                self._netlink.add_rule(thing)
            case _:
                assert_never(thing)

    def try_to_put(self, thing: KernelRoute | KernelRule) -> Fault | None:
        """Put it there; what kept it away, if anything did."""
        return self._try(thing, Actual())

    # -- within --

    def _wait_usable(self, address: Address) -> None:
        """Wait until the kernel is done with a new address of the loopback interface, mostly for less than 1 ms.

        There it looks for no duplicate, and need not be told so. Where it is told (IFA_F_NODAD), the address can be
        used before the kernel is done with it; and if forwarding is switched on in between, as babeld does, it counts
        one user too many of the anycast address of the subnet, which stays when ours is removed (seen on Linux 6.18).
        """
        deadline = time.monotonic() + USABLE_TIME
        while time.monotonic() < deadline:
            if not any(each.address == address and each.flags & IFA_F_TENTATIVE for each in self._netlink.addresses()):
                return
            time.sleep(USABLE_LOOK)

    def _read_rest(self) -> Actual:
        """As `read`, with the links and addresses of the last look, if that found all right and the same is wanted."""
        now = self.wanted
        if self._right is not None:
            before, actual = self._right
            of_links = (before.taps, before.all_addresses, before.on_taps)
            if of_links == (now.taps, now.all_addresses, now.on_taps):
                rules = self._netlink.rules() if _has_rules(now) else ()
                return replace(actual, routes=self._routes(now), settings=self._values(now), rules=rules)
        return self.read(now)

    def _routes(self, wanted: Wanted, *, to_peers: bool = False) -> list[KernelRoute]:
        families = {family_of(route.destination) for route in wanted.routes if route.type == RTN_UNREACHABLE}
        routes = [route for family in families for route in self._netlink.routes(family, type=RTN_UNREACHABLE)]
        if to_peers or wanted.uplinks or any(route.protocol == RTPROT_RE6ST for route in wanted.routes):
            routes += self._netlink.routes(socket.AF_INET, protocol=RTPROT_RE6ST)
        if to_peers or wanted.uplinks:
            routes += self._netlink.routes(socket.AF_INET6, protocol=RTPROT_RE6ST)
        return routes

    def _values(self, wanted: Wanted) -> dict[str, str]:
        return {setting.name: self.value(setting) for setting in wanted.all_settings}

    def _try(self, thing: Property | Thing, actual: Actual) -> Fault | None:
        """What was wrong, and why it still is where that failed; None for what is nobody's doing."""
        try:
            self.put(thing, actual.links[thing.interface].index if isinstance(thing, Tap | Mtu | Placed) else 0)
        except OSError as error:
            if isinstance(thing, Setting):
                if not thing.needed and error.errno == errno.EROFS:
                    return None
                return Fault(thing, f"{self._sysctl / thing.name}: {error.strerror}")
            if isinstance(thing, KernelRoute) and thing.gateway is not None:
                return None  # the kernel does not take it while the gateway cannot be reached
            return Fault(thing, f"the kernel refuses it ({error.strerror})", error.errno == errno.EPERM)
        return Fault(thing)

    def _remove(self, thing: Thing) -> bool:
        with suppress(OSError):
            match thing:
                case Tap():
                    self._netlink.delete_link(socket.if_nametoindex(thing.interface))
                case Placed():
                    self._netlink.delete_address(thing.ip, thing.length, socket.if_nametoindex(thing.interface))
                case KernelRoute():
                    self._netlink.delete_route(thing)
                case KernelRule():
                    self._netlink.delete_rule(thing)
                case _:
                    assert_never(thing)
            return True
        return False

    def value(self, setting: Setting) -> str:
        """What a sysctl is; empty where there is none."""
        # Several of each tunnel, every few seconds: a file object for each would cost five times as much.
        with suppress(OSError):  # no such interface
            descriptor = os.open(f"{self._sysctl}/{setting.name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(descriptor, VALUE_LIMIT).decode("ascii", "replace").strip()
            finally:
                os.close(descriptor)
        return ""


def _has_rules(wanted: Wanted) -> bool:
    return bool(wanted.rules or wanted.uplinks or wanted.shares or wanted.handed or wanted.mptcp)


def family_of(network: Network) -> int:
    return socket.AF_INET6 if network.version == 6 else socket.AF_INET
