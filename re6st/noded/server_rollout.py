"""Has our servers follow new settings or another certificate: one after another, each drained first (wire.md 10.7).

How long that may take is told by core/transport/server_drain.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Protocol

from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.transport.server_drain import DRAIN_TRIES, Drain, Verdict, first_pause, is_worth_it, pause_again
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.noded.contracts import Drains
from re6st.tunnel import Listener

LISTEN_TIME = 10.0
"""Seconds that a server which was restarted has to listen, before the next one is restarted."""
POLL = 0.2
CHANGE_OVER, CHANGE_LAST, CHANGE_POLL = 10.0, 120.0, 1.0
"""Seconds that others get for their client tunnels once ours are encrypted, that ours get, and between two looks."""

log = logging.getLogger(__name__)


class RolledServers(Protocol):
    """Our servers: noded/servers.py."""

    @property
    def running(self) -> Mapping[TunnelProtocol, Listener]: ...

    def wanted(self) -> Mapping[TunnelProtocol, int]:
        """The port of each server that we are to have."""

    def hello(self) -> float:
        """Seconds between two hellos of babel."""

    def is_outdated(self, protocol: TunnelProtocol) -> bool:
        """Whether a server has other settings than those of now."""

    def encryption_begins(self) -> bool:
        """Whether a server is in clear that is to be encrypted."""

    def start(self, port: int, protocol: TunnelProtocol) -> None: ...

    async def end(self, protocol: TunnelProtocol) -> None: ...


class ClientTunnels(Protocol):
    """Our client tunnels, of which some are made anew before the servers: noded/tunnels.py."""

    def outdated_clients(self) -> frozenset[Prefix]:
        """The peers of those with other settings than those of now."""

    def tell_outdated(self) -> None:
        """Tell the policy of those, if there are any."""


class ServerRollout:
    """Does it; one at a time."""

    def __init__(self, servers: RolledServers, clients: ClientTunnels, drains: Drains, chance: Random) -> None:
        self._servers = servers
        self._clients = clients
        self._drains = drains
        self._chance = chance
        self._lock = asyncio.Lock()

    async def renew(self, survey: Callable[[], Survey]) -> None:
        """Have as many servers as are wanted, all with the settings of now. `survey` is the mesh as we see it."""
        async with self._lock:
            await self._renew(survey)
        self._clients.tell_outdated()

    async def _renew(self, survey: Callable[[], Survey]) -> None:
        ours, wanted = self._servers, self._servers.wanted()
        if ours.encryption_begins():
            await self._change_clients()
        for protocol in ours.running.keys() - wanted.keys():
            await self._empty(interfaces.server(protocol), survey)
            await ours.end(protocol)
        for protocol, port in wanted.items():
            interface = interfaces.server(protocol)
            if protocol not in ours.running:
                ours.start(port, protocol)
            elif ours.is_outdated(protocol):
                await self._empty(interface, survey)
                log.info("server %s is restarted with new settings", interface)
                await ours.end(protocol)
                ours.start(port, protocol)
            else:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_TIME):
                    await ours.running[protocol].listening.wait()
            await self._drains.unmute(interface)

    async def _change_clients(self) -> None:
        """Have client tunnels encrypted first: a server in clear takes those as well, but not the other way round."""
        self._clients.tell_outdated()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHANGE_LAST):
                while self._clients.outdated_clients():  # noqa: ASYNC110
                    await asyncio.sleep(CHANGE_POLL)
        await asyncio.sleep(CHANGE_OVER)

    async def _empty(self, interface: str, survey: Callable[[], Survey]) -> None:
        """Have babel move its routes away from a server, as far as there are other ways, before it ends."""
        # Others do the same, and a network should not do it all at one time.
        await asyncio.sleep(first_pause(self._servers.hello(), len(survey().peers), self._chance))
        for _ in range(DRAIN_TRIES):
            if not self._drains.available or not is_worth_it(survey(), interface):
                return
            log.info("draining %s", interface)
            await self._drains.mute(interface)
            if await self._is_drained(interface, survey):
                return
            log.info("keeping %s: a destination has no other route", interface)
            await self._drains.unmute(interface)
            await asyncio.sleep(pause_again(self._chance))

    async def _is_drained(self, interface: str, survey: Callable[[], Survey]) -> bool:
        """Wait until nothing goes through an interface any more; False as soon as somebody has no other way."""
        clock = asyncio.get_running_loop().time
        drain = Drain(interface, self._servers.hello(), clock(), survey().carried_by(interface))
        while (verdict := drain.verdict(survey(), clock())) is Verdict.GOES_ON:  # noqa: ASYNC110
            await asyncio.sleep(POLL)
        if verdict is Verdict.EMPTY:
            await asyncio.sleep(2 * drain.hello)  # our clients may see it a moment later
        return verdict is Verdict.EMPTY
