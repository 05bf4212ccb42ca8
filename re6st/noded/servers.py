"""Our servers: which run, with what settings, and who may come in and has come (wire.md 8.4).

tunnel.py says what a server is. server_rollout.py has them follow new settings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from re6st.core import interfaces
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.telemetry.report import Link, Server
from re6st.core.transport.records import ServerRecord
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.linux.kernel import KernelError
from re6st.linux.process import Backoff
from re6st.noded.takeover import Records, found_server, server_record
from re6st.noded.tunnel_parts import TunnelParts
from re6st.service.tasks import end
from re6st.tunnel import Listener, ServerClient

log = logging.getLogger(__name__)


class Servers:
    """Starts and ends them, and tells the policy of their clients."""

    def __init__(self, parts: TunnelParts) -> None:
        self.running: dict[TunnelProtocol, Listener] = {}
        """By protocol."""
        self._tasks: dict[TunnelProtocol, asyncio.Task[None]] = {}
        self._digests: dict[TunnelProtocol, str] = {}
        """What each was started with; see TunnelFactory.config_digest."""
        self._parts = parts
        self._records = Records(parts.in_force.effective.config.run)

    async def serve(self, found: Mapping[str, ServerRecord]) -> None:
        """Start all, or go on with those that an earlier daemon left, by interface. Raises KernelError."""
        for port, protocol in self._parts.in_force.effective.servers:
            interface = interfaces.server(protocol)
            await self._parts.kernel.make_tap(interface)  # who may not, is told at once
            self.start(port, protocol, found.get(interface))

    def start(self, port: int, protocol: TunnelProtocol, record: ServerRecord | None = None) -> None:
        """Start one, or go on with the one of a `record`."""
        interface, factory = interfaces.server(protocol), self._parts.factory()
        server = factory.listener(interface, port, protocol, _Owner(self, self._parts, protocol), found_server(record))
        self.running[protocol] = server
        self._digests[protocol] = record.config_digest if record else factory.config_digest()
        self._tasks[protocol] = self._parts.tasks.start(self._run(server), f"server {protocol}")

    async def _run(self, server: Listener) -> None:
        """Keep a server running, on an interface that may not be had at once: others can hold it."""
        backoff = Backoff()
        while True:
            try:
                await self._parts.kernel.make_tap(server.interface)
                break
            except KernelError as error:
                delay = backoff.next()
                log.error("server %s: %s. Next try in %.1f s.", server.interface, error, delay)
                await asyncio.sleep(delay)
        await server.run()

    async def end(self, protocol: TunnelProtocol) -> None:
        """End one for good."""
        server = self.running.pop(protocol)
        del self._digests[protocol]
        await end(self._tasks.pop(protocol))
        self._records.forget(server.interface)

    # -- for the operator --

    def reports(self) -> list[Server]:
        """Each server."""
        ports = self.wanted()
        return [
            Server(
                protocol,
                ports.get(protocol, 0),
                server.interface,
                server.listening.is_set(),
                len(server.clients),
                max(0, server.runs - 1),
            )
            for protocol, server in self.running.items()
        ]

    def links(self) -> Iterator[Link]:
        """The tunnels of clients."""
        for protocol, server in self.running.items():
            for ident, known in server.clients.items():
                traffic = server.traffic.get(ident)
                yield Link(
                    known.peer,
                    outgoing=False,
                    protocol=protocol,
                    remote=known.address or "",
                    interface=server.interface,
                    since=known.since,
                    received=traffic.received if traffic else None,
                    sent=traffic.sent if traffic else None,
                )

    # -- settings --

    def wanted(self) -> Mapping[TunnelProtocol, int]:
        """The port of each server that the settings of now have."""
        return {protocol: port for port, protocol in self._parts.in_force.effective.servers}

    def hello(self) -> float:
        """Seconds between two hellos of babel."""
        return self._parts.in_force.effective.babel_hello

    def is_outdated(self, protocol: TunnelProtocol) -> bool:
        """Whether one has other settings than those of now."""
        return self._digests[protocol] != self._parts.factory().config_digest()

    def encryption_begins(self) -> bool:
        """Whether one is in clear that is to be encrypted."""
        if not self._parts.in_force.effective.parameters.encrypt:
            return False
        return self._parts.factory().config_digest(encrypt=False) in self._digests.values()

    # -- clients --

    def client(self, peer: Prefix) -> tuple[TunnelProtocol, ServerClient] | None:
        """A client of one of our servers, and of which."""
        found = ((protocol, each) for protocol, server in self.running.items() for each in server.clients.values())
        return next(((protocol, each) for protocol, each in found if each.peer == peer), None)

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        """Whether a peer may have a tunnel with our servers."""
        effective = self._parts.in_force.effective
        return (
            not self._parts.door.is_refused(peer)
            and serial not in effective.parameters.crl
            and peer != effective.identity.prefix
        )

    def cut(self, peer: Prefix) -> None:
        """End every tunnel of a peer."""
        for server in self.running.values():
            server.cut(peer)

    def cut_off(self, crl: frozenset[int]) -> None:
        """End every tunnel of a peer whose certificate is revoked, or of unknown number."""
        for server in self.running.values():
            server.kick(crl)

    def make_room(self, protocol: TunnelProtocol, newcomer: Prefix) -> bool:
        """End a client of a server that is dead, by its tunnel or the link that took the place of that."""
        if self._parts.in_force.effective.max_clients <= 0:
            return False
        dead, now = self._parts.dead_clients, time.monotonic()
        for peer in dead.spare(now):
            if peer == newcomer or not self._has(peer, protocol):
                continue
            _, since = dead.known[peer]
            dead.heard((peer,))
            log.info(
                "%s loses its place to %s: it is dead for %.1f s, and gives no sign of life",
                *(peer, newcomer, now - since),
            )
            self.running[protocol].cut(peer)
            self._parts.links.cut(peer)
            return True
        dead.place_sought = True
        return False

    def _has(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        """Whether a peer has a place at a server, by its tunnel there, or by the link that took the place of that."""
        by_tunnel = any(each.peer == peer for each in self.running[protocol].clients.values())
        return by_tunnel or self._parts.links.is_served(peer, protocol)

    def joined(self, client: ServerClient, protocol: TunnelProtocol) -> None:
        """A client has connected."""
        self._parts.dead_clients.joined(client.peer, time.monotonic())
        log.info("%s connected from %s by %s", client.peer, client.address, protocol)
        self._parts.gateways.hold(client.address)
        self._note(protocol)
        self._parts.event(policy.ClientUp(client.peer))

    def left(self, client: ServerClient, protocol: TunnelProtocol) -> None:
        """A client is gone."""
        log.info("%s disconnected", client.peer)
        self._parts.ended.note(interfaces.server(protocol), client.peer)
        self._parts.dead_clients.heard((client.peer,))
        self._parts.gateways.let_go(client.address)
        self._note(protocol)
        self._parts.event(policy.ClientDown(client.peer))

    def link_ended(self, peer: Prefix) -> None:
        """A client that had a link instead of its tunnel is gone: it has no place that could be taken."""
        self._parts.dead_clients.heard((peer,))

    async def up(self, interface: str, mtu: int, protocol: TunnelProtocol) -> None:
        """A server listens. Raises OSError."""
        await self._parts.kernel.set_up(interface, mtu)
        self._note(protocol)

    def _note(self, protocol: TunnelProtocol) -> None:
        """What the next daemon has to know of a server."""
        server = self.running.get(protocol)
        if server is not None and (record := server_record(server, self._digests[protocol])):
            self._records.write(server.interface, record)


@dataclass(frozen=True, slots=True)
class _Owner:
    """What one of our servers asks and tells us (tunnel.ListenerOwner)."""

    servers: Servers
    parts: TunnelParts
    protocol: TunnelProtocol

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        return self.servers.admits(peer, serial)

    def room(self, peer: Prefix) -> int:
        # Those whose link took the place of their tunnel to this server still count.
        return self.parts.in_force.effective.max_clients - self.parts.links.served(self.protocol, peer)

    def make_room(self, peer: Prefix) -> bool:
        return self.servers.make_room(self.protocol, peer)

    def joined(self, client: ServerClient) -> None:
        self.servers.joined(client, self.protocol)

    def left(self, client: ServerClient) -> None:
        self.servers.left(client, self.protocol)

    async def up(self, interface: str, mtu: int) -> None:
        await self.servers.up(interface, mtu, self.protocol)

    async def down(self, interface: str) -> None:
        await self.parts.bounce(interface)

    def came(self, peer: Prefix, address: str) -> str:
        return self.parts.door.came(peer, address)

    def untimely(self, refused: Untimely) -> None:
        self.parts.door.untimely(refused)
