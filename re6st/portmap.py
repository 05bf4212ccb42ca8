"""Ports opened at the router of a machine behind NAT, by UPnP (wire.md 10.5; miniupnpc).

One mapping for each IPv4 port and protocol of ours, made, renewed, made again when the router forgot it or changed its
address, removed at exit. No router, or one that refuses: the node carries on, and asks again now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any

import miniupnpc

from re6st.core.wire import Endpoint

EXTERNAL_PORTS = (32768, 49151)
TRIES = 15
RENEW = 500.0
RETRY = 60.0
LEASE = 1000
"""Seconds a mapping lasts at a router that forgets us: twice the time to its renewal."""
DISCOVER_MS = 2000

log = logging.getLogger(__name__)


class PortMapError(Exception):
    """No router, or it refuses."""


class PortMapper:
    """Keeps our ports open. `changed` is told the endpoints under which they can be reached; none while they cannot."""

    def __init__(
        self, ports: Sequence[tuple[int, str]], changed: Callable[[tuple[Endpoint, ...]], None], country: str = ""
    ) -> None:
        self._ports = ports
        self._changed = changed
        self._country = country
        self._router: Any = None
        self._mapped: dict[tuple[int, str], int] = {}
        self._endpoints: tuple[Endpoint, ...] = ()

    async def run(self) -> None:
        """Make and renew the mappings until cancelled, then remove them."""
        try:
            while True:
                try:
                    endpoints = await asyncio.to_thread(self._refresh)
                    delay = RENEW
                except PortMapError as error:
                    log.log(logging.WARNING if self._endpoints else logging.INFO, "UPnP: %s", error)
                    endpoints, delay, self._router = (), RETRY, None
                if endpoints != self._endpoints:
                    self._endpoints = endpoints
                    self._changed(endpoints)
                await asyncio.sleep(delay)
        finally:
            await asyncio.to_thread(self._remove)

    # -- in a thread: the library blocks --

    def _refresh(self) -> tuple[Endpoint, ...]:
        router = self._router = self._router or self._discover()
        try:
            external = ip_address(router.externalipaddress())
        except Exception as error:  # the library raises its own and bare ones
            raise PortMapError(f"the router does not tell its address: {error}") from None
        if not isinstance(external, IPv4Address):
            raise PortMapError(f"the router's address is {external}")
        endpoints = []
        for port, protocol in self._ports:
            outside = self._map(router, port, protocol)
            endpoints.append(Endpoint(str(external), outside, protocol, self._country))
        return tuple(endpoints)

    def _discover(self) -> Any:
        router = miniupnpc.UPnP()
        router.discoverdelay = DISCOVER_MS
        try:
            router.discover()
            router.selectigd()
        except Exception as error:
            raise PortMapError(f"no router found ({error})") from None
        log.info("UPnP: found a router, our address there is %s", router.lanaddr)
        self._mapped.clear()
        return router

    def _map(self, router: Any, port: int, protocol: str) -> int:
        """The external port for one of ours, the same as before where possible."""
        kind = protocol[:3].upper()
        known = self._mapped.get((port, protocol))
        last: object = "no free port"
        for attempt in range(TRIES):
            outside = known if known and not attempt else random.randint(*EXTERNAL_PORTS)  # noqa: S311
            name = f"re6stnet openvpn server ({port}/{protocol})"
            try:
                if router.addportmapping(outside, kind, router.lanaddr, port, name, "", LEASE):
                    self._mapped[port, protocol] = outside
                    return outside
            except Exception as error:
                last = error
        raise PortMapError(f"the router maps no port to {port}/{protocol}: {last}")

    def _remove(self) -> None:
        for (_, protocol), outside in self._mapped.items():
            with contextlib.suppress(Exception):
                self._router.deleteportmapping(outside, protocol[:3].upper())
        self._mapped.clear()
