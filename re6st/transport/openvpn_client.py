"""A client tunnel: the life of one, from its first OpenVPN process on (wire.md section 8).

transport/openvpn.py knows how a process is started and spoken with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from re6st.core.prefix import Prefix, PrefixError
from re6st.core.transport.openvpn_lines import Environment, Hold, ProcessState, ProcessTraffic, ProcessUp
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import Address
from re6st.linux.local_addresses import source_address
from re6st.linux.process import last_words
from re6st.service import run_names
from re6st.transport import openvpn
from re6st.transport.openvpn import FOLLOW, Management, OpenVpnSettings, client_command
from re6st.tunnel import Connected, FoundClient

CONNECT_TIME = 15.0
"""Seconds a client has to get connected to one address."""
SILENT_TIME = 10.0
"""Seconds an address of several has to give a first answer; with STAGGER, this bounds how many are tried at once."""
STAGGER = 2.5
"""Seconds until the next address is tried beside one that does not answer (RFC 8305 has 0.25, for TCP alone)."""
LAST_TRY = 3.0
"""Seconds more for OpenVPN's own retries at the last address: they would take long."""

log = logging.getLogger(__name__)


class OpenVpnClient:
    """A tunnel.Dialer: the peer's addresses are tried until one connects and then ends, each by a process of its own.

    An address that fails makes place for the next one at once, and one that does not answer stands aside for it after
    STAGGER seconds (RFC 8305): the first that connects ends the others. All share one interface, which OpenVPN opens
    only when it is let in. `source` is our own address under the tunnel (None: not known, or no way to the peer),
    `serial` and `number` those of the peer's certificate and of the node in it. `peer` may be anybody (None) until the
    tunnel is up. Its packets have the `mark`. One that was `found` up is gone on with, and no address is tried.
    """

    def __init__(
        self,
        settings: OpenVpnSettings,
        interface: str,
        peer: Prefix | None,
        endpoints: Sequence[Endpoint],
        connected: Callable[[Connected], Awaitable[None]],
        found: FoundClient | None = None,
        mark: int = 0,
    ) -> None:
        self.interface = interface
        self.mark = mark
        self.peer = peer
        self.serial: int | None = None
        self.number: int | None = None
        self.source: Address | None = None
        self.since: float | None = None
        """When it came up, by the event loop's clock."""
        self.traffic: ProcessTraffic | None = None
        self._settings = settings
        self._endpoints = endpoints
        self._wanted = peer
        self._name = peer or "a server"
        self._told = connected
        self._found = found
        self._winner: _Attempt | None = None
        self._attempts: list[_Attempt] = []

    @property
    def process(self) -> tuple[int, str] | None:
        """The number and the name of the process of a tunnel that is up."""
        return (self._winner.pid, self._winner.name) if self._winner else None

    @property
    def connected(self) -> bool:
        """Whether it is up, or was."""
        return self._winner is not None

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it leads, or which address is being tried."""
        attempt = self._winner or (self._attempts[-1] if self._attempts else None)
        return attempt.endpoint if attempt else None

    async def run(self) -> bool:
        """Whether it was connected at all. Cancelling it ends the tunnel."""
        if self._found is not None:
            await self._go_on(self._found)
            return True
        try:
            async with asyncio.TaskGroup() as group:
                for number, endpoint in enumerate(self._endpoints, 1):
                    name = run_names.attempt(self.interface, number)
                    attempt = _Attempt(endpoint, name, last=number == len(self._endpoints))
                    attempt.task = group.create_task(self._try(attempt), name=f"{self._name} at {endpoint}")
                    self._attempts.append(attempt)
                    await self._turn(attempt)
                    if self._winner is not None:
                        break
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        return self.connected

    async def _go_on(self, found: FoundClient) -> None:
        self._winner = attempt = _Attempt(found.connected.endpoint, found.name, last=True, pid=found.pid)
        self.peer, self.serial, self.since = found.connected.peer, found.connected.serial, found.since
        self.source, self.number = found.connected.source, found.connected.number
        try:
            child, management = await openvpn.resume(self._settings, found.name, found.pid)
        except OSError as error:
            log.warning("tunnel to %s at %s, of an earlier run: %s", self._name, attempt.endpoint, error)
            return
        try:
            await self._told(found.connected)
            await self._follow(attempt, management, None)
        finally:
            management.close()
            await child.stop(grace=2)
            openvpn.forget(self._settings, found.name)

    async def _turn(self, attempt: _Attempt) -> None:
        """Wait until the address after this one may be tried."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STAGGER):
                await attempt.over.wait()
        if attempt.answered:
            await attempt.over.wait()

    async def _try(self, attempt: _Attempt) -> None:
        try:
            await self._run_process(attempt)
        except PrefixError as error:
            log.warning("tunnel to %s at %s: %s", self._name, attempt.endpoint, error)
        except TimeoutError:
            log.info("tunnel to %s at %s: not connected in time", self._name, attempt.endpoint)
        except OSError as error:
            words = last_words(self._settings.output(attempt.name))
            log.warning("tunnel to %s at %s: %s: %s", self._name, attempt.endpoint, error, words)
        finally:
            attempt.over.set()
            openvpn.forget(self._settings, attempt.name)

    async def _run_process(self, attempt: _Attempt) -> None:
        if self._winner is None:
            self.source = source_address(attempt.endpoint.host, self.mark)
        argv = client_command(self._settings, self.interface, self._wanted, attempt.endpoint, attempt.name, self.mark)
        child, management = await openvpn.start(self._settings, attempt.name, argv)
        attempt.pid = child.pid
        log.debug("tunnel to %s at %s: OpenVPN runs, process %s", self._name, attempt.endpoint, child.pid)
        try:
            await self._follow(attempt, management, CONNECT_TIME if attempt.last else SILENT_TIME)
        finally:
            management.close()
            await child.stop(grace=2)

    async def _follow(self, attempt: _Attempt, management: Management, patience: float | None) -> None:
        """Keep up with one process, until it ends or has not connected in time. Raises TimeoutError."""
        clock = asyncio.get_running_loop().time
        started = clock()
        management.send(*FOLLOW)
        async with asyncio.timeout(patience) as deadline:
            async for event in management.events():
                if isinstance(event, ProcessState):
                    log.debug("tunnel to %s at %s: OpenVPN says %s", self._name, attempt.endpoint, event.name)
                match event:
                    case Hold():
                        management.send("hold release")
                    case ProcessState("AUTH"):
                        attempt.answered = True
                        if self._winner is None:
                            deadline.reschedule(started + CONNECT_TIME)
                    case ProcessTraffic() if attempt is self._winner:
                        self.traffic = event
                    case ProcessUp(environment):
                        deadline.reschedule(None)
                        await self._up(attempt, environment)
                    case ProcessState(name, reason) if not self._winner and name in ("RECONNECTING", "EXITING"):
                        log.info("tunnel to %s at %s: %s", self._name, attempt.endpoint, reason or name.lower())
                        if not attempt.last:
                            attempt.over.set()
                            return
                        # Its own next tries.
                        deadline.reschedule(min(deadline.when() or 0, clock() + LAST_TRY))

    async def _up(self, attempt: _Attempt, environment: Environment) -> None:
        """Raises PrefixError for a server, of unknown name, which is no node, or whose certificate has no number."""
        peer = self._wanted or Prefix.from_cn(environment.common_name)
        if environment.serial is None:  # the tunnel could not be closed when it is revoked
            raise PrefixError("OpenVPN does not tell the serial number of the server's certificate")
        self._winner, self.peer, self.since = attempt, peer, asyncio.get_running_loop().time()
        for other in self._attempts:
            if other is not attempt and other.task:
                other.task.cancel()
        self.serial, self.number = environment.serial, environment.number
        if environment.trusted_ip and not is_address(attempt.endpoint.host):
            # A name may have another address the next time; a WireGuard link goes to that of this tunnel.
            attempt.endpoint = replace(attempt.endpoint, host=environment.trusted_ip)
        self.source = source_address(environment.trusted_ip or attempt.endpoint.host, self.mark)
        mtu = environment.get("tun_mtu", "")
        await self._told(
            Connected(
                peer,
                attempt.endpoint,
                self.interface,
                environment.serial,
                environment.external_ip,
                min(int(mtu), 9000) if mtu.isascii() and mtu.isdigit() and int(mtu) >= 1280 else 1500,
                self.source,
                self.number,
                environment.twin,
            )
        )


def is_address(host: str) -> bool:
    """Whether it is no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(slots=True, eq=False)
class _Attempt:
    """One address that is tried."""

    endpoint: Endpoint
    name: str
    last: bool
    """There is no other after it, so it may take its time."""
    pid: int = 0
    task: asyncio.Task[None] | None = None
    answered: bool = False
    """Somebody speaks TLS there."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """It is the next one's turn."""
