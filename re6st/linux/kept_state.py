"""What a node gave the kernel, declared in one place: put back when others remove or change it, and removed at the end.

Network managers, firewalls and people do that at any moment. noded/caretaker.py looks when and how often.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol

from re6st.linux.netlink import NetlinkError
from re6st.linux.rtnetlink import IFA_F_NODAD, IFF_UP, RTN_UNREACHABLE, Address, InterfaceAddress, Link, Network, Route

RTPROT_RE6ST = 146
"""Marks our routes to peers; a number that nobody registered (/etc/iproute2/rt_protos)."""
SYSCTL = Path("/proc/sys/net")
IPV6_OFF = "ipv6/conf/{}/disable_ipv6"


@dataclass(frozen=True, slots=True)
class Placed:
    """An address on an interface."""

    ip: Address
    length: int
    interface: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl below net/ that must not have the value `wrong`."""

    name: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"the sysctl net.{self.name.replace('/', '.')}={self.right}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something of ours that was not there, in words. It is again, but where `trouble` says what keeps it away."""

    what: str
    trouble: str = ""
    forbidden: bool = False
    """We have not the right to put it back."""

    def __str__(self) -> str:
        return f"{self.what} is missing: {self.trouble}" if self.trouble else self.what


class LinkKernel(Protocol):
    """What is asked of the kernel here; rtnetlink.Netlink is it. Each raises NetlinkError."""

    def links(self) -> list[Link]: ...
    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None: ...
    def addresses(self) -> list[InterfaceAddress]: ...
    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None: ...
    def routes(self, family: int, protocol: int = 0, type: int = 0) -> Iterator[Route]: ...
    def add_route(self, route: Route, *, replace: bool = False) -> None: ...


class KeptState:
    """What is declared is to be there from now on. `put_back` sees to it."""

    def __init__(self, netlink: LinkKernel, sysctl: Path = SYSCTL) -> None:
        self.addresses: list[Placed] = []
        self.unreachable: list[Network] = []
        """Networks that nothing leaks from."""
        self.routes: list[tuple[IPv4Address, IPv4Address]] = []
        """Hosts, and the gateways that they are reached by."""
        self.up: dict[str, int] = {}
        """Interfaces of tunnels that are up, with the index of each."""
        self.settings: tuple[Setting, ...] = ()
        self.deleted: set[str] = set()
        """Interfaces of tunnels that others deleted: whoever holds their tunnels has to make them anew."""
        self.absent: list[Placed] = []
        """Addresses that could not be put where they belong."""
        self._netlink = netlink
        self._sysctl = sysctl
        self._met: set[str] = set()
        """Interfaces for our addresses that were there once."""

    def put_back(self) -> list[Fault]:
        """Put back what is missing, and say what was. Raises NetlinkError where much changes meanwhile: call again."""
        found = [fault for setting in self._all_settings() if (fault := self._set_right(setting))]
        links = {link.name: link for link in self._netlink.links()}
        found += self._raise_links(links)
        there = {(each.address, each.index) for each in self._netlink.addresses()}
        self.absent = []
        for placed in self.addresses:
            link = links.get(placed.interface)
            faults = self._place(placed, link, link is not None and (placed.ip, link.index) in there)
            if any(fault.trouble for fault in faults):
                self.absent.append(placed)
            found += faults
        return found + list(self._lead())

    def _all_settings(self) -> Iterator[Setting]:
        # The unreachable routes are on lo.
        names = dict.fromkeys(("lo", *(placed.interface for placed in self.addresses), *self.up))
        for name in names if self.unreachable else ():
            yield Setting(IPV6_OFF.format(name), "1", "0")
        yield from self.settings

    def _set_right(self, setting: Setting) -> Fault | None:
        path = self._sysctl / setting.name
        try:
            if path.read_text().strip() != setting.wrong:
                return None
        except OSError:  # no such interface
            return None
        try:
            path.write_text(f"{setting.right}\n")
        except OSError as error:
            return Fault(str(setting), f"{path}: {error.strerror}")
        return Fault(str(setting))

    def _raise_links(self, links: dict[str, Link]) -> Iterator[Fault]:
        for name, index in list(self.up.items()):
            link = links.get(name)
            if link is None or link.index != index:
                del self.up[name]
                self.deleted.add(name)
            elif not link.flags & IFF_UP:
                with _trying(f"the interface {name}, which was down") as found:
                    self._netlink.set_link(index, up=True)
                yield from found

    def _place(self, placed: Placed, link: Link | None, there: bool) -> list[Fault]:
        what = f"our address {placed.ip} on {placed.interface}"
        if link is None:
            return [Fault(what, f"there is no interface {placed.interface}")]
        # One of the user's that was up, and is down now, is his own business.
        is_down = not link.flags & IFF_UP
        if is_down and placed.interface in self._met and placed.interface != "lo":
            return [Fault(what, f"the interface {placed.interface} is down")]
        self._met.add(placed.interface)
        if there and not is_down:
            return []
        # Our certificate says that it is ours alone; no route can have it as source before it is found to be.
        flags = IFA_F_NODAD if placed.ip.version == 6 else 0
        with _trying(what) as found:
            if is_down:
                self._netlink.set_link(link.index, up=True)
            self._netlink.put_address(placed.ip, placed.length, link.index, flags)
        return found

    def _lead(self) -> Iterator[Fault]:
        families = {family_of(network) for network in self.unreachable}
        there = {each.destination for family in families for each in self._unreachable_of(family)}
        for network in self.unreachable:
            if network not in there:
                with _trying(f"the route unreachable {network}") as found:
                    self._netlink.add_route(Route(network, type=RTN_UNREACHABLE), replace=True)
                yield from found
        if not self.routes:
            return
        had = {each.destination for each in self._netlink.routes(socket.AF_INET, protocol=RTPROT_RE6ST)}
        for host, gateway in self.routes:
            route = host_route(host, gateway)
            if route.destination not in had:
                # The kernel does not take it while the gateway cannot be reached, and that is nobody's doing.
                with suppress(NetlinkError):
                    self._netlink.add_route(route)
                    yield Fault(f"the route to {host} by {gateway}")

    def _unreachable_of(self, family: int) -> Iterator[Route]:
        return self._netlink.routes(family, type=RTN_UNREACHABLE)


def host_route(ip: IPv4Address, gateway: IPv4Address) -> Route:
    return Route(IPv4Network(ip), gateway=gateway, protocol=RTPROT_RE6ST)


def family_of(network: Network) -> int:
    return socket.AF_INET6 if network.version == 6 else socket.AF_INET


@contextmanager
def _trying(what: str) -> Iterator[list[Fault]]:
    """Put something back; the list has what that was, and why it failed, afterwards."""
    found: list[Fault] = []
    try:
        yield found
    except NetlinkError as error:
        found.append(Fault(what, f"the kernel refuses it ({error.strerror})", error.errno == errno.EPERM))
    else:
        found.append(Fault(what))
