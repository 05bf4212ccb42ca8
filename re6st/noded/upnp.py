"""Ports opened at the router of a machine behind NAT, by UPnP (wire.md 10.5; miniupnpc).

One mapping for each IPv4 port and protocol of ours: made, renewed, made again when the router forgot it, started anew
or changed its address, removed at exit. No router, or one that refuses: the node carries on, and asks now and then.
A port where a peer is to come by a WireGuard link is mapped for as long as there is that link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any

import miniupnpc

from re6st.core.machine.hosts import is_behind_another, is_usable
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.service.threads import threads

EXTERNAL_PORTS = (32768, 49151)
TRIES, TRY_TIME = 15, 1.0
"""Ports that are tried for one mapping in a round, and seconds for that."""
LEASE = 1000
"""Seconds a mapping lasts at a router that forgets us: twice the time to its renewal."""
DISCOVER_MS = 1000
LINK = TunnelProtocol.UDP
"""What links go by."""
LEAVE_TIME = 3.0
"""Seconds we wait for the router to remove our mappings; else it does so when LEASE is over."""
NO_ADDRESS = "; it tells no public address of its own: it may be behind another router, a second NAT"
"""Why a router maps nothing, most likely: miniupnpd does so where its own address is private."""
PRIVATE_ADDRESS = "; its own address, %s, is not public: it is behind another router, a second NAT"
"""The same with miniupnpd 2.3.7, which tells that address."""

log = logging.getLogger(__name__)


class PortMapError(Exception):
    """No router, or it refuses."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Seconds between two rounds of each kind."""

    renew: float = 500.0
    check: float = 60.0
    """Asking whether the mappings are still there, and what the address is; reading costs a router nothing."""
    retry: float = 60.0


class PortMapper:
    """Keeps our ports open. `changed` is told the endpoints under which they can be reached; none while they cannot.

    The host of an endpoint is empty where the router does not tell its address. The router is looked for on the network
    of our address `at`, that of a `line` of several; if it is empty, where the machine's default route leads.
    """

    def __init__(
        self,
        ports: Sequence[tuple[int, TunnelProtocol]],
        changed: Callable[[tuple[Endpoint, ...]], None],
        intervals: Intervals | None = None,
        line: str = "",
        at: str = "",
    ) -> None:
        self._ports = ports
        self._called = f"UPnP of {line}" if line else "UPnP"
        self._at = at
        self._changed = changed
        self._intervals = intervals or Intervals()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._trouble = ""
        self._again = asyncio.Event()
        self._moved = False
        self._links: frozenset[int] = frozenset()
        # Only the thread uses what follows: the library blocks, and one question is asked after the other.
        self._thread = threads(1, "UPnP")
        self._router: Any = None
        self._mapped: dict[tuple[int, TunnelProtocol], int] = {}
        self._opened: dict[int, float] = {}
        """Ports of links, and when each was mapped."""
        self._refused: set[int] = set()
        self._renewed = 0.0
        self._leaving = False

    def ask_again(self) -> None:
        """Our address changed: look for the router at once, which may be another one."""
        self._moved = True
        self._again.set()

    def move(self, at: str) -> None:
        """Our address on its line is this one."""
        if at != self._at:
            self._at = at
            self.ask_again()

    def open_for_links(self, ports: frozenset[int]) -> None:
        """Have these UDP ports open, too, each under its own number, since that is what peers are told."""
        if ports != self._links:
            self._links = ports
            if self._endpoints:  # else there is no router that opens any
                self._again.set()

    async def run(self) -> None:
        """Make, check and renew the mappings until cancelled, then remove them."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                anew, self._moved = self._moved, False
                self._again.clear()
                try:
                    endpoints = await loop.run_in_executor(self._thread, self._round, anew, self._links)
                    delay = self._intervals.check
                except PortMapError as error:
                    self._log(error)
                    endpoints, delay = (), self._intervals.retry
                else:
                    self._trouble = ""
                if endpoints != self._endpoints:
                    self._endpoints = endpoints
                    self._changed(endpoints)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._again.wait()
        finally:
            self._leaving = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_TIME):
                    await loop.run_in_executor(self._thread, self._remove)
            self._thread.shutdown(wait=False)

    def _log(self, error: PortMapError) -> None:
        """A machine without such a router says so once, not every minute."""
        known, self._trouble = self._trouble, str(error)
        level = logging.WARNING if self._endpoints else logging.DEBUG if known == self._trouble else logging.INFO
        log.log(level, "%s: %s", self._called, error)

    # -- in the thread --

    def _round(self, anew: bool, links: frozenset[int]) -> tuple[Endpoint, ...]:
        endpoints = self._round_of_servers(anew)
        self._keep_links(self._router, links)
        return endpoints

    def _round_of_servers(self, anew: bool) -> tuple[Endpoint, ...]:
        if self._router is not None and not anew:
            try:
                return self._keep(self._router)
            except PortMapError as error:
                log.info("%s: %s: looking for the router again", self._called, error)
        # What an earlier address of ours had mapped ends with its lease: a careful router lets nobody else remove it.
        self._renewed, self._router = 0.0, None
        self._router = self._discover()
        return self._keep(self._router)

    def _discover(self) -> Any:
        router = miniupnpc.UPnP(multicastif=self._at) if self._at else miniupnpc.UPnP()
        router.discoverdelay = DISCOVER_MS
        try:
            router.discover()
            router.selectigd()
        except Exception as error:  # the library raises bare ones
            raise PortMapError(f"no router found ({error})") from None
        log.info("%s: found a router, our address there is %s", self._called, router.lanaddr)
        return router

    def _keep(self, router: Any) -> tuple[Endpoint, ...]:
        """See to it that all mappings are there. Raises PortMapError."""
        now = time.monotonic()
        renew = now - self._renewed >= self._intervals.renew or not self._renewed
        host = _external_address(router)
        endpoints = []
        for port, protocol in self._ports:
            outside = self._mapped.get((port, protocol))
            if renew or not outside or not _holds(router, outside, protocol, port):
                outside = self._map(router, host, port, protocol)
            endpoints.append(Endpoint(host, outside, protocol))
        if renew:
            self._renewed = now
        return tuple(endpoints)

    def _map(self, router: Any, host: str, port: int, protocol: TunnelProtocol) -> int:
        """The external port for one of ours, the same as before where possible. Raises PortMapError."""
        known = self._mapped.get((port, protocol))
        last: object = "no free port"
        until = time.monotonic() + TRY_TIME
        for attempt in range(TRIES):
            if self._leaving or (attempt and time.monotonic() > until):
                break
            outside = known if known and not attempt else random.randint(*EXTERNAL_PORTS)  # noqa: S311
            name = f"re6stnet openvpn server ({port}/{protocol})"
            try:
                if _add(router, outside, protocol, port, name):
                    self._mapped[port, protocol] = outside
                    return outside
            except Exception as error:
                last = error
        raise PortMapError(f"the router maps no port to {port}/{protocol}: {last}{_likely_cause(host)}")

    def _keep_links(self, router: Any, links: frozenset[int]) -> None:
        """See to it that the ports of links are mapped, and no longer those of links that are over."""
        for port in self._opened.keys() - links:
            del self._opened[port]
            with contextlib.suppress(Exception):
                router.deleteportmapping(port, _kind(LINK))
        self._refused &= links
        now = time.monotonic()
        for port in sorted(links):
            since = self._opened.get(port, float("-inf"))
            if now - since < self._intervals.renew and _holds(router, port, LINK, port):
                continue
            if self._leaving:
                break
            self._open_for_link(router, port)

    def _open_for_link(self, router: Any, port: int) -> None:
        try:
            trouble = "" if _add(router, port, LINK, port, f"re6stnet WireGuard link ({port}/udp)") else "it refuses"
        except Exception as error:
            trouble = str(error)
        if trouble:
            level = logging.DEBUG if port in self._refused else logging.INFO
            words = "%s: the router does not map UDP port %s for a WireGuard link: %s"
            log.log(level, words, self._called, port, trouble)
            self._refused.add(port)
            self._opened.pop(port, None)
        else:
            self._refused.discard(port)
            self._opened[port] = time.monotonic()

    def _remove(self) -> None:
        if self._router is None:
            return
        ours = [(outside, _kind(protocol)) for (_, protocol), outside in self._mapped.items()]
        for port, kind in (*ours, *((port, _kind(LINK)) for port in self._opened)):
            try:
                self._router.deleteportmapping(port, kind)
            except Exception as error:
                if "NoSuchEntry" not in str(error):  # the router may be gone: every further question would cost seconds
                    return


def _add(router: Any, outside: int, protocol: TunnelProtocol, port: int, name: str) -> bool:
    """Have a router send an external port to one of ours. Raises what the library does."""
    words = outside, _kind(protocol), router.lanaddr, port, name, ""
    try:
        return bool(router.addportmapping(*words, LEASE))
    except Exception as error:
        if "OnlyPermanentLease" not in str(error):
            raise
    return bool(router.addportmapping(*words, 0))


def _likely_cause(outside: str) -> str:
    """Why a router with this external address maps nothing, as far as that says it."""
    if not outside:
        return NO_ADDRESS
    return PRIVATE_ADDRESS % outside if is_behind_another(outside) else ""


def _external_address(router: Any) -> str:
    """The router's address on the Internet; empty where it tells none."""
    try:
        address = ip_address(router.externalipaddress())
    except Exception:
        return ""
    return str(address) if isinstance(address, IPv4Address) and is_usable(address) else ""


def _holds(router: Any, outside: int, protocol: TunnelProtocol, port: int) -> bool:
    """Whether the router still sends this external port to ours."""
    try:
        found = router.getspecificportmapping(outside, _kind(protocol))
        return found is not None and found[0] == router.lanaddr and found[1] == port
    except Exception:
        return False


def _kind(protocol: TunnelProtocol) -> str:
    return protocol.transport.upper()
