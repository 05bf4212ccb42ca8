"""Tunnels over several uplinks: a route to each peer, by gateways that take turns (--remote-gateway, wire.md 10.4)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address

from re6st.core.mesh.gateways import Gateways
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import KernelError
from re6st.noded.contracts import RouteKernel

log = logging.getLogger(__name__)


class RemoteGateways:
    """Keeps the routes to peers. Hosts that are names, or IPv6 addresses, go their usual way."""

    def __init__(self, kernel: RouteKernel, gateways: Sequence[IPv4Address]) -> None:
        self._kernel = kernel
        self._gateways = Gateways(gateways)
        self._found: dict[IPv4Address, IPv4Address] = {}
        self._unused: list[tuple[IPv4Address, IPv4Address]] = []
        """Routes to remove when routes are next changed."""
        self._lock = asyncio.Lock()  # a route is removed before it is added again, and the other way round

    def go_on(self, routes: Mapping[IPv4Address, IPv4Address]) -> None:
        """Routes of an earlier daemon, for tunnels that are gone on with."""
        self._found = dict(routes)

    @asynccontextmanager
    async def towards(self, endpoints: Iterable[Endpoint]) -> AsyncIterator[None]:
        """Have routes to these endpoints meanwhile."""
        taken = []
        try:
            used = self._gateways or self._found
            for ip in dict.fromkeys(_ipv4(endpoint.host) for endpoint in endpoints) if used else ():
                if ip is not None:
                    taken.append(ip)
                    await self._take(ip)
            yield
        finally:
            for ip in taken:
                await self._release(ip)

    def uplink(self, host: str) -> IPv4Address | None:
        """The gateway that a peer in use is reached by."""
        return self._gateways.used(ip) if (ip := _ipv4(host)) else None

    def reached(self, host: str) -> None:
        """The peer was reached there."""
        if ip := _ipv4(host):
            self._gateways.tried(ip, time.monotonic(), reached=True)

    def missed(self, endpoints: Iterable[Endpoint]) -> None:
        """A peer was reached at none of these."""
        for endpoint in endpoints:
            if ip := _ipv4(endpoint.host):
                self._gateways.tried(ip, time.monotonic(), reached=False)

    def hold(self, host: str | None) -> None:
        """A client of ours is there: what we send it goes on the way it came."""
        if self._gateways and (ip := _ipv4(host or "")):
            self._gateways.take(ip)

    def let_go(self, host: str | None) -> None:
        """The client left."""
        if self._gateways and (ip := _ipv4(host or "")) and (gateway := self._gateways.release(ip)):
            self._unused.append((ip, gateway))

    async def _take(self, ip: IPv4Address) -> None:
        async with self._lock:
            await self._remove_unused()
            candidates = self._gateways.candidates(ip, time.monotonic())
            self._gateways.take(ip)
            if found := self._found.pop(ip, None):
                self._gateways.choose(ip, found)
                return
            for gateway in candidates:
                self._gateways.choose(ip, gateway)
                try:
                    await self._kernel.add_route(ip, gateway)
                except KernelError as error:
                    log.warning("%s", error)
                else:
                    log.info("%s is reached by the gateway %s", ip, gateway)
                    return
            if candidates:
                self._gateways.choose(ip, None)

    async def _release(self, ip: IPv4Address) -> None:
        async with self._lock:
            if gateway := self._gateways.release(ip):
                self._unused.append((ip, gateway))
            await self._remove_unused()

    async def _remove_unused(self) -> None:
        while self._unused:
            await self._kernel.delete_route(*self._unused.pop())


def _ipv4(host: str) -> IPv4Address | None:
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    return ip if isinstance(ip, IPv4Address) else ip.ipv4_mapped
