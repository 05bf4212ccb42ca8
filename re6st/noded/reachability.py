"""How others reach us, kept true while this machine moves (wire.md 10.5, 6.5).

A changed address is noticed at once from the kernel; the tunnels that ran from it are left if it does not come back
(core/machine/absence.py), the router is asked again, and what we tell peers changes: those we have spoken with are
told, a few a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from ipaddress import IPv4Address, ip_address
from typing import Protocol

from re6st.core.machine.absence import Absences
from re6st.core.machine.hosts import is_behind_another
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint, format_addresses
from re6st.core.wire.news import Audience
from re6st.linux import address_monitor
from re6st.linux.kernel import Address
from re6st.linux.local_addresses import source_address
from re6st.linux.netlink import NetlinkError
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.port_mappers import PortMappers
from re6st.tunnel import Connected

TELL_EVERY = 1.0
"""Seconds between two rows of messages."""
READ_AGAIN = 0.5
OUTSIDE = "192.0.2.1", "2001:db8::1"
"""Addresses that are nobody's (RFC 5737, RFC 3849): the way there is the default route."""

log = logging.getLogger(__name__)


class UplinkKernel(Protocol):
    """Who has addresses: the kernel."""

    async def uplinks(self) -> dict[Address, bool]:
        """They, and whether each is on a link that has a carrier."""


class Keeper(Protocol):
    """Who knows which of them are inside re6st, and remembers our endpoints."""

    def is_ours(self, ip: Address) -> bool: ...
    def keep(self, endpoints: tuple[Endpoint, ...]) -> None: ...


class Teller(Protocol):
    """Who tells peers where we are."""

    def acquainted(self) -> Iterable[Prefix]:
        """The peers we have spoken with."""

    def is_reachable(self, peer: Prefix) -> bool:
        """Whether one can be told now."""

    def has_answered(self, peer: Prefix) -> bool: ...
    def tell(self, peer: Prefix) -> None: ...


class Lines(Protocol):
    """Who knows the lines to the Internet, where there are several: noded/uplinks.py."""

    def outer(self) -> tuple[Address, ...]:
        """Our addresses on them, which lead outside."""

    def inner(self) -> Mapping[str, IPv4Address]:
        """One of IPv4 on each, by its name."""


class MoveFollower(Protocol):
    """Who hears which addresses are gone for good, and whether there are others that were not there before."""

    def moved(self, lost: frozenset[Address], *, news: bool) -> None: ...


class AddressAdvertiser:
    """Keeps `own` up to date, and has peers told."""

    def __init__(self, own: OwnAddresses, machine: UplinkKernel, keeper: Keeper, teller: Teller, *, upnp: bool) -> None:
        self._own = own
        self._machine = machine
        self._keeper = keeper
        self._teller = teller
        self._audience = Audience()
        self._absences = Absences()
        self._told = own.endpoints()
        ports = [(port, protocol) for port, protocol in own.ports if protocol.family == 4]
        self._routers = PortMappers(ports, self._mapped) if upnp and ports else None
        self._mapped_by: dict[str, tuple[Endpoint, ...]] = {}
        """By line: what its router sends on to us."""
        self._lines: Lines | None = None
        self._look_again = asyncio.Event()

    async def run(self, follower: MoveFollower) -> None:
        """Until cancelled, which also closes the ports at the router. Raises OSError when the kernel tells nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(follower), name="addresses")
            group.create_task(self._tick(follower), name="telling addresses")
            group.create_task(self._follow_lines(), name="addresses of lines")
            if self._routers is not None:
                group.create_task(self._routers.run(), name="UPnP")

    def learn(self, connected: Connected, theirs: Iterable[Endpoint]) -> None:
        """A server, which has the endpoints `theirs`, saw us from outside."""
        seen = connected.external_ip
        if not seen or self._keeper.is_ours(ip_address(seen)):
            return  # a tunnel inside re6st
        if self._own.learn(seen, connected.source, connected.peer, theirs):
            log.info("%s sees this node at %s", connected.peer, seen)
            self._changed()

    def refresh(self) -> None:
        """What goes with our addresses is different."""
        self._changed()

    def open_for_links(self, ports: frozenset[int]) -> None:
        """See contracts.PortOpener. Who has no server has no links of others either."""
        if self._routers is not None:
            self._routers.open_for_links(ports)

    def follow(self, lines: Lines) -> None:
        """The lines of this machine to the Internet changed, or this is who knows them."""
        self._lines = lines
        if self._routers is not None:
            self._routers.follow(lines.inner())
        self._look_again.set()

    def _mapped(self, line: str, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints == self._mapped_by.get(line, ()):
            return
        self._mapped_by[line] = endpoints
        self._own.mapped = tuple(dict.fromkeys(each for found in self._mapped_by.values() for each in found))
        what = f"the router of {line}" if line else "the router"
        log.info("%s forwards %s to this node", what, format_addresses(endpoints) or "no port")
        if endpoints and is_behind_another(endpoints[0].host):
            log.warning(
                "the router itself has %s: it is behind a second NAT, where it cannot open ports", endpoints[0].host
            )
        self._changed()

    async def _watch(self, follower: MoveFollower) -> None:
        before: dict[Address, bool] | None = None
        async with aclosing(address_monitor.changes()) as changes:
            async for _ in changes:
                now = await self._read()
                if before is not None and now != before:
                    self._compare(before, now, follower)
                elif before is None:
                    self._own.moved(tuple(now), self._leading_out(now))
                    self._changed()
                before = now

    async def _follow_lines(self) -> None:
        while True:
            await self._look_again.wait()
            self._look_again.clear()
            now = await self._read()
            self._own.moved(tuple(now), self._leading_out(now))
            self._changed()

    async def _read(self) -> dict[Address, bool]:
        while True:
            try:
                found = await self._machine.uplinks()
            except NetlinkError as error:
                log.debug("the addresses of this machine: %s", error)
                await asyncio.sleep(READ_AGAIN)
            else:
                return {ip: alive for ip, alive in found.items() if not self._keeper.is_ours(ip)}

    def _compare(self, before: dict[Address, bool], now: dict[Address, bool], follower: MoveFollower) -> None:
        lost = frozenset(before.keys() - now.keys())
        news = any(alive and not before.get(ip) for ip, alive in now.items())
        for ip in sorted(lost, key=str):
            log.info("this machine no longer has the address %s", ip)
        for ip in sorted(now.keys() - before.keys(), key=str):
            log.info("this machine has a new address: %s", ip)
        leading_out = self._leading_out(now)
        self._own.moved(tuple(now), leading_out)
        self._changed()
        if self._routers is not None:
            self._routers.ask_again()
        follower.moved(self._absences.note(lost, now.keys(), leading_out, time.monotonic()), news=news)

    def _leading_out(self, addresses: dict[Address, bool]) -> tuple[Address, ...]:
        """Those of the lines to the Internet; where there is one, or none is known, see below."""
        by_lines = () if self._lines is None else self._lines.outer()
        return tuple(ip for ip in by_lines if ip in addresses) or _leading_out(addresses)

    def _changed(self) -> None:
        endpoints = self._own.endpoints()
        if endpoints:
            self._keeper.keep(endpoints)
        if endpoints != self._told:
            self._told = endpoints
            # An empty list would be a question (wire.md 6.5): who has none tells nobody.
            self._audience.start(self._teller.acquainted() if endpoints else (), time.monotonic())

    async def _tick(self, follower: MoveFollower) -> None:
        while True:
            if gone := self._absences.due(time.monotonic()):
                follower.moved(gone, news=False)
            for peer in self._audience.next(self._teller.is_reachable, self._teller.has_answered, time.monotonic()):
                self._teller.tell(peer)
            await asyncio.sleep(TELL_EVERY)


def _leading_out(addresses: dict[Address, bool]) -> tuple[Address, ...]:
    """Those of the default routes; without one, all whose link has a carrier.

    So that a bridge of containers, for instance, is left out where there is something better.
    """
    by_default = [ip for ip in map(source_address, OUTSIDE) if ip in addresses]
    return tuple(dict.fromkeys(by_default)) or tuple(ip for ip, alive in addresses.items() if alive)
