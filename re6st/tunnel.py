"""Server and client tunnels: the life of one of each, from its first OpenVPN process on (wire.md section 8).

transport/openvpn.py knows how a process is started and spoken with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from re6st.core.limits.budget import Buckets
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.transport.openvpn_lines import (
    Behind,
    Client,
    ClientChange,
    EndOfList,
    Environment,
    Fatal,
    Hold,
    Listed,
    State,
    Traffic,
    Up,
)
from re6st.core.transport.untimely import Untimely
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import Address, source_address
from re6st.linux.process import Child, end_of, keep_running, last_words
from re6st.service import run_names
from re6st.transport import openvpn
from re6st.transport.openvpn import FOLLOW, Management, Settings, client_command

CONNECT_TIME = 15.0
"""Seconds a client has to get connected to one address."""
SILENT_TIME = 10.0
"""Seconds an address of several has to give a first answer; with STAGGER, this bounds how many are tried at once."""
STAGGER = 2.5
"""Seconds until the next address is tried beside one that does not answer (RFC 8305 has 0.25, for TCP alone)."""
LAST_TRY = 3.0
"""Seconds more for OpenVPN's own retries at the last address: they would take long."""
CLIENT_LIMIT = 100_000
COMINGS = 0.5, 40, 100, 1000
"""How often one client is let in a second, and at once, and all of them: each time costs us as much as it likes, in the
policy of the mesh, in babel and in the log, and an honest one comes a few times, over all its addresses and ours."""
TELL_EVERY = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A client that is connected to one of our servers."""

    peer: Prefix
    serial: int | None
    address: str | None
    since: float = field(default=0.0, compare=False)
    """When it came, by the event loop's clock."""
    number: int | None = None
    """The node number in its certificate."""


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that an earlier daemon left running, with its clients by their numbers."""

    pid: int
    clients: Mapping[int, ServerClient]


class Server:
    """An OpenVPN server that is kept running; one process serves all clients of one protocol on one interface.

    `admit` says whether a certificate may come in, `room` how many clients may be there; `joined` and `left` are told
    about clients. `up` and `down` set the interface: down means to babel that all neighbours behind it are gone.
    """

    def __init__(
        self,
        settings: Settings,
        interface: str,
        argv: Sequence[str],
        *,
        admit: Callable[[Prefix, int | None], bool],
        room: Callable[[], int],
        joined: Callable[[ServerClient], None],
        left: Callable[[ServerClient], None],
        up: Callable[[str, int], Awaitable[None]],
        down: Callable[[str], Awaitable[None]],
        mtu: int,
        found: FoundServer | None = None,
    ) -> None:
        self.interface = interface
        self.settings = settings
        self.argv = argv
        self.listening = asyncio.Event()
        self.runs = 0
        """How often it was started."""
        self.clients: dict[int, ServerClient] = {}
        self.hardware: dict[str, Prefix] = {}
        """Whose hardware addresses are behind which client, by the last `look`."""
        self.looked: Callable[[], object] = lambda: None
        """Called after each."""
        self.came: Callable[[Prefix, str], str] = lambda *_: ""
        """Called when a client has connected, with its address; where another machine with its certificate is."""
        self.untimely: Callable[[Untimely], object] = lambda _: None
        """Called when a certificate was refused for the time."""
        self.traffic: dict[int, Traffic] = {}
        """By client; at most COUNT_TIME old."""
        self._admit = admit
        self._room = room
        self._joined = joined
        self._left = left
        self._up = up
        self._down = down
        self._mtu = mtu
        self._found = found
        self._child: Child | None = None
        self._management: Management | None = None
        self._comings: Buckets[Prefix] = Buckets(*COMINGS)
        self._told_of_haste = float("-inf")

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def run(self) -> None:
        """Start it, or go on with the one `found`; serve, start it again when it ends, until cancelled."""
        name = f"OpenVPN server {self.interface}"
        await keep_running(name, self._run_once, self.settings.output(self.interface))

    def restart(self) -> None:
        """End the process, which is started again: its clients come back."""
        if self._child is not None:
            self._child.signal(signal.SIGTERM)

    def look(self) -> None:
        """Ask OpenVPN again whose hardware addresses are behind which client; see `hardware`."""
        if self._management and self.listening.is_set():
            self._management.send("status 3")

    def cut(self, peer: Prefix) -> None:
        """Cut off every client with the certificate of a peer."""
        for ident, client in self.clients.items():
            if client.peer == peer and self._management:
                self._management.send(f"client-kill {ident}")

    def kick(self, revoked: frozenset[int]) -> None:
        """Cut off the clients whose certificate is revoked, or of unknown number; the others notice nothing."""
        for ident, client in self.clients.items():
            if (client.serial is None or client.serial in revoked) and self._management:
                if client.serial is None:
                    log.warning(
                        "cutting off %s: OpenVPN does not tell the serial number of its certificate", client.peer
                    )
                else:
                    log.warning("cutting off %s: its certificate %s is revoked", client.peer, client.serial)
                self._management.send(f"client-kill {ident}")

    async def _run_once(self) -> str:
        self.runs += 1
        found, self._found = self._found, None
        if found is None:
            child, management = await openvpn.start(self.settings, self.interface, self.argv)
        else:
            child, management = await openvpn.resume(self.settings, self.interface, found.pid)
        self._child, self._management = child, management
        listed: set[int] = set()
        behind: dict[str, str] = {}
        taking_over, reason = found is not None, ""
        try:
            management.send(*FOLLOW, *self.settings.follow_refusals)
            if found is not None:
                for ident, client in found.clients.items():
                    self.clients[ident] = client
                    self._joined(client)
                management.send("status 3")
                await self._serving()
            async for event in management.events():
                match event:
                    case Behind(hardware, name):
                        behind[hardware] = name
                    case Listed(ident, name) if taking_over:
                        known = self.clients.get(ident)
                        # Without a serial number it could not be cut off when it is revoked.
                        if known is not None and known.peer.cn == name and known.serial is not None:
                            listed.add(ident)
                        else:
                            # It came while nobody could say whether it may; it will come again.
                            management.send(f"client-kill {ident}")
                    case EndOfList():
                        for ident in self.clients.keys() - listed if taking_over else ():
                            self._left(self.clients.pop(ident))
                        taking_over = False
                        names = {client.peer.cn: client.peer for client in self.clients.values()}
                        self.hardware = {key: names[name] for key, name in behind.items() if name in names}
                        behind = {}
                        self.looked()
                    case Hold():
                        management.send("hold release")
                    case Traffic(int(ident)) if ident in self.clients:
                        self.traffic[ident] = event
                    case State("CONNECTED"):
                        await self._serving()
                    case Client():
                        self._client(event, management)
                    case Untimely():
                        self.untimely(event)
                    case Fatal(text):
                        reason = text
            return reason or await end_of(child)
        finally:
            self._child = self._management = None
            self.listening.clear()
            management.close()
            # Before anything that waits, and so could be cut short by a cancellation.
            self.traffic.clear()
            self.hardware = {}
            for ident in list(self.clients):
                self._left(self.clients.pop(ident))
            try:
                await child.stop()
            finally:
                await self._down(self.interface)

    async def _serving(self) -> None:
        await self._up(self.interface, self._mtu)
        self.listening.set()

    def _client(self, event: Client, management: Management) -> None:
        match event.change:
            case ClientChange.CONNECT | ClientChange.REAUTH:
                self._let_in(event, management)
            case ClientChange.DISCONNECT:
                self.traffic.pop(event.ident, None)
                if client := self.clients.pop(event.ident, None):
                    self._left(client)

    def _let_in(self, event: Client, management: Management) -> None:
        environment, ident = event.environment, event.ident
        try:
            peer, now = Prefix.from_cn(environment.common_name), asyncio.get_running_loop().time()
            client = ServerClient(peer, environment.serial, environment.trusted_ip, now, environment.number)
            if client.serial is None:  # it could not be cut off when it is revoked
                raise PrefixError(f"OpenVPN does not tell the serial number of the certificate of {peer}")
        except PrefixError as error:
            client = None
            log.warning("refused a tunnel from %s: %s", environment.trusted_ip, error)
        if client is None or not self._may_come(client, event.change):
            management.send(f'client-deny {ident} {event.key} "not accepted"')
            return
        if event.change is ClientChange.REAUTH:
            management.send(f"client-auth-nt {ident} {event.key}")
            return
        # Peers behind NAT learn their public address from this push (wire.md 8.1).
        push = [f'push "setenv-safe external_ip {client.address}"'] if client.address else []
        # Whom another server holds does not notice by itself that there are two of it.
        if client.address and (twin := self.came(client.peer, client.address)):
            push.append(f'push "setenv-safe twin {twin}"')
        # Both ends must agree on how long silence may last, also after the network's interval has changed.
        push += [f'push "ping {self.settings.ping}"', f'push "ping-exit {self.settings.ping_exit}"']
        management.send(f"client-auth {ident} {event.key}", *push, "END")
        self.clients[ident] = client
        self._joined(client)

    def _may_come(self, client: ServerClient, change: ClientChange) -> bool:
        if not self._admit(client.peer, client.serial) or self._full(client.peer):
            return False
        if change is not ClientChange.CONNECT or self._comings.take(client.peer, client.since):
            return True
        if client.since - self._told_of_haste >= TELL_EVERY:
            self._told_of_haste = client.since
            log.warning(
                "%s at %s connects again and again: it is let in every %g s at most. Ask its owner, or throw it out:"
                " re6st-registry revoke %s",
                *(client.peer, client.address, 1 / COMINGS[0], client.peer),
            )
        return False

    def _full(self, peer: Prefix) -> bool:
        # Who connects again is not counted twice.
        others = sum(client.peer != peer for client in self.clients.values())
        return others >= min(self._room(), CLIENT_LIMIT)


@dataclass(frozen=True, slots=True)
class Connected:
    """A client tunnel is up. `external_ip` is our address as the peer sees it, `source` as this machine does."""

    peer: Prefix
    endpoint: Endpoint
    interface: str
    serial: int | None
    external_ip: str | None
    mtu: int
    source: Address | None = field(default=None, compare=False)
    number: int | None = None
    """The node number in the peer's certificate."""
    twin: str = field(default="", compare=False)
    """Where the peer has seen another machine with our certificate."""


@dataclass(frozen=True, slots=True)
class FoundClient:
    """A client tunnel that an earlier daemon left up, since a time of the event loop's clock."""

    pid: int
    name: str
    since: float
    connected: Connected


class ClientTunnel:
    """One client tunnel: the peer's addresses are tried until one connects and then ends, each by a process of its own.

    An address that fails makes place for the next one at once, and one that does not answer stands aside for it after
    STAGGER seconds (RFC 8305): the first that connects ends the others. All share one interface, which OpenVPN opens
    only when it is let in. `source` is our own address under the tunnel (None: not known, or no way to the peer),
    `serial` and `number` those of the peer's certificate and of the node in it. `peer` may be anybody (None) until the
    tunnel is up. One that was `found` up is gone on with, and no address is tried.
    """

    def __init__(
        self,
        settings: Settings,
        interface: str,
        peer: Prefix | None,
        endpoints: Sequence[Endpoint],
        connected: Callable[[Connected], Awaitable[None]],
        found: FoundClient | None = None,
    ) -> None:
        self.interface = interface
        self.peer = peer
        self.serial: int | None = None
        self.number: int | None = None
        self.source: Address | None = None
        self.since: float | None = None
        """When it came up, by the event loop's clock."""
        self.traffic: Traffic | None = None
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
            self.source = source_address(attempt.endpoint.host)
        argv = client_command(self._settings, self.interface, self._wanted, attempt.endpoint, attempt.name)
        child, management = await openvpn.start(self._settings, attempt.name, argv)
        attempt.pid = child.pid
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
                match event:
                    case Hold():
                        management.send("hold release")
                    case State("AUTH"):
                        attempt.answered = True
                        if self._winner is None:
                            deadline.reschedule(started + CONNECT_TIME)
                    case Traffic() if attempt is self._winner:
                        self.traffic = event
                    case Up(environment):
                        deadline.reschedule(None)
                        await self._up(attempt, environment)
                    case State(name, reason) if not self._winner and name in ("RECONNECTING", "EXITING"):
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
        self.source = source_address(environment.trusted_ip or attempt.endpoint.host)
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
