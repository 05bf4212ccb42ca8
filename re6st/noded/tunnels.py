"""All tunnels of one node: our servers, and the client tunnels that the policy wants (wire.md 8.4).

tunnel.py says what one is; here is which of them run now, and on which interfaces.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from random import Random

from re6st.core import interfaces
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.telemetry.report import Link, Server
from re6st.core.transport.records import ClientRecord, ServerRecord
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import Address, KernelError
from re6st.linux.process import Backoff
from re6st.noded.accused import accuse
from re6st.noded.contracts import BabelFilter, Links, Routing, TunnelAdmission, TunnelKernel
from re6st.noded.name_lookup import addresses_of
from re6st.noded.other_ends import OtherEnds
from re6st.noded.remote_gateway import RemoteGateways
from re6st.noded.server_rollout import ServerRollout
from re6st.noded.settings import EffectiveConfig
from re6st.noded.takeover import Found, Records, client_record, found_client, found_server, server_record
from re6st.service.tasks import Tasks, end
from re6st.tunnel import Connected, Dialer, Listener, ServerClient, TunnelFactory

AGAIN_FIRST, AGAIN_LAST = 0.5, 8.0
"""Seconds between two tries of the servers of --client."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Client:
    task: asyncio.Task[None]
    tunnel: Dialer | None = None
    """None also once a WireGuard link carries it."""
    config_digest: str = ""
    """What it was started with; see TunnelFactory.config_digest."""
    dialling: asyncio.Task[bool] | None = None
    """What holds it as long as no link does."""


class Tunnels:
    """Opens, closes and drains tunnels, and tells the policy (`event`) what became of them.

    `connected` hears first of each client tunnel that came up. `plan` may be replaced at any time; see `renew`.
    """

    def __init__(
        self,
        plan: EffectiveConfig,
        kernel: TunnelKernel,
        drains: BabelFilter,
        tasks: Tasks,
        event: Callable[[policy.Event], None],
        connected: Callable[[Connected], None],
        found: Found,
        routing: Routing,
        door: TunnelAdmission,
        links: Links,
        factory: Callable[[EffectiveConfig], TunnelFactory] = EffectiveConfig.tunnel_factory,
    ) -> None:
        self.plan = plan
        self._factory = factory
        self.servers: dict[TunnelProtocol, Listener] = {}
        """By protocol."""
        self._serving: dict[TunnelProtocol, asyncio.Task[None]] = {}
        self._digests: dict[TunnelProtocol, str] = {}
        """What each server was started with."""
        self._rollout = ServerRollout(self, drains, Random())  # noqa: S311
        self._clients: dict[Prefix, _Client] = {}
        self._taps: set[str] = set()
        """Interfaces of client tunnels in use."""
        self._fresh: set[str] = set()
        """Those whose tunnel was not up yet."""
        self._kernel = kernel
        self._gateways = RemoteGateways(kernel, plan.config.remote_gateways)
        self._drains = drains
        self._start = tasks.start
        self._event = event
        self._connected = connected
        self._found = found
        self._routing = routing
        self._door = door
        self._links = links
        self.ends = OtherEnds(
            self.servers,
            lambda: [c.tunnel for c in self._clients.values() if c.tunnel is not None],
            kernel.hardware,
            links.ends,
        )
        self.ends.looked = routing.look_again
        drains.told = lambda found: accuse(found, self.ends.suspects)
        self._records = Records(plan.config.run)

    def __contains__(self, peer: Prefix) -> bool:
        return peer in self._clients

    def __iter__(self) -> Iterator[Prefix]:
        """Peers we have a client tunnel with, or try to."""
        return iter(tuple(self._clients))

    def links(self) -> Iterator[Link]:
        """All tunnels, for the operator: ours, and those of our servers' clients."""
        yield from self._links.reports()
        for peer, client in self._clients.items():
            if self._links.carries(peer):
                continue
            endpoint = client.tunnel.endpoint if client.tunnel else None
            traffic = client.tunnel.traffic if client.tunnel else None
            yield Link(
                peer,
                outgoing=True,
                protocol=endpoint.protocol if endpoint else None,
                remote=endpoint.host if endpoint else "",
                port=endpoint.port if endpoint else None,
                interface=client.tunnel.interface if client.tunnel else "",
                since=client.tunnel.since if client.tunnel else None,
                received=traffic.received if traffic else None,
                sent=traffic.sent if traffic else None,
                no_link=self._links.why_not(peer),
            )
        for protocol, server in self.servers.items():
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

    def listeners(self) -> list[Server]:
        """Our servers, for the operator."""
        ports = {protocol: port for port, protocol in self.plan.servers}
        return [
            Server(
                protocol,
                ports.get(protocol, 0),
                server.interface,
                server.listening.is_set(),
                len(server.clients),
                max(0, server.runs - 1),
            )
            for protocol, server in self.servers.items()
        ]

    async def leave(self) -> None:
        """End all client tunnels, and links. The servers end with the task group."""
        await asyncio.gather(*(end(client.task) for client in tuple(self._clients.values())))
        await self._links.leave()

    # -- servers --

    async def serve(self) -> None:
        """Start our servers. Raises KernelError."""
        for port, protocol in self.plan.servers:
            interface = interfaces.server(protocol)
            await self._kernel.make_tap(interface)  # who may not, is told at once
            self.start_server(port, protocol, self._found.servers.get(interface))

    def go_on(self) -> None:
        """Take over the tunnels that an earlier daemon left up."""
        if not self._found:
            return
        records = self._found.clients.items()
        links = self._links.go_on(self._found.links.values())
        held = [(record.peer, name) for name, record in records if name != interfaces.SOLE]
        self._event(policy.Resumed((*held, *((each.peer, each.link.interface) for each in links))))
        self._gateways.go_on(self._kernel.gateways())
        for interface, record in records:
            if interface != interfaces.SOLE:  # see `follow`
                self._taps.add(interface)
                hold = self._hold(record.peer, (record.endpoint,), (interface, record))
                task = self._start(hold, f"tunnel to {record.peer}")
                self._clients[record.peer] = _Client(task, None, record.config_digest)
        for each in links:
            hold = self._hold(each.peer, (each.place,) if each.place else (), by_link=True)
            self._clients[each.peer] = _Client(self._start(hold, f"tunnel to {each.peer}"))

    async def renew(self, survey: Callable[[], Survey]) -> None:
        """Go on with `plan`: have as many servers as it wants, all with its settings and our certificate of now.

        One after another, each drained first (`survey` is the mesh as we see it); client tunnels are the policy's.
        """
        await self._rollout.renew(survey)

    def wanted(self) -> Mapping[TunnelProtocol, int]:
        """The port of each server that the plan has."""
        return {protocol: port for port, protocol in self.plan.servers}

    def hello(self) -> float:
        """Seconds between two hellos of babel."""
        return self.plan.babel_hello

    def is_outdated(self, protocol: TunnelProtocol) -> bool:
        """Whether a server has other settings than those of now."""
        return self._digests[protocol] != self._digest()

    def encryption_begins(self) -> bool:
        """Whether a server is in clear that is to be encrypted."""
        return self.plan.parameters.encrypt and self._digest(encrypt=False) in self._digests.values()

    def outdated_clients(self) -> frozenset[Prefix]:
        """The peers of our client tunnels with other settings than those of now."""
        now = self._digest()
        return frozenset(peer for peer, client in self._clients.items() if client.config_digest not in ("", now))

    def tell_outdated(self) -> None:
        """Tell the policy of those, if there are any."""
        if outdated := self.outdated_clients():
            self._event(policy.TunnelsOutdated(outdated))

    def _digest(self, *, encrypt: bool | None = None) -> str:
        """What a running tunnel cannot change, of the settings of now."""
        return self._factory(self.plan).config_digest(encrypt=encrypt)

    async def end_server(self, protocol: TunnelProtocol) -> None:
        """End a server for good."""
        server = self.servers.pop(protocol)
        del self._digests[protocol]
        await end(self._serving.pop(protocol))
        self._records.forget(server.interface)

    def cut(self, peer: Prefix) -> None:
        """End every tunnel with a peer."""
        for server in self.servers.values():
            server.cut(peer)
        self._links.cut(peer)
        self.close(peer)

    def cut_off(self, crl: frozenset[int]) -> None:
        """End every tunnel with a peer whose certificate is revoked, or of unknown number."""
        for server in self.servers.values():
            server.kick(crl)
        for client in self._clients.values():
            held = client.tunnel
            if held is not None and held.connected and (held.serial is None or held.serial in crl):
                client.task.cancel()
        self._links.cut_off(crl)

    def moved(self, lost: Collection[Address]) -> None:
        """Our addresses changed: end at once the client tunnels from those lost, and the tries that had no way out."""
        for peer, client in self._clients.items():
            tunnel = client.tunnel
            if tunnel and (tunnel.source in lost or (tunnel.source is None and not tunnel.connected)):
                lacks = tunnel.source or "no address of ours"
                log.info("closing the tunnel to %s: this machine no longer has its source address, %s", peer, lacks)
                client.task.cancel()

    def start_server(self, port: int, protocol: TunnelProtocol, record: ServerRecord | None = None) -> None:
        """Start one, or go on with the one of a `record`."""
        interface = interfaces.server(protocol)
        factory, owner, found = self._factory(self.plan), _Owner(self, self._door, protocol), found_server(record)
        server = factory.listener(interface, port, protocol, owner, found)
        self.servers[protocol] = server
        self._digests[protocol] = record.config_digest if record else factory.config_digest()
        self._serving[protocol] = self._start(self._serve(server), f"server {protocol}")

    async def _serve(self, server: Listener) -> None:
        """Keep a server running, on an interface that may not be had at once: others can hold it."""
        backoff = Backoff()
        while True:
            try:
                await self._kernel.make_tap(server.interface)
                break
            except KernelError as error:
                delay = backoff.next()
                log.error("server %s: %s. Next try in %.1f s.", server.interface, error, delay)
                await asyncio.sleep(delay)
        await server.run()

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        """Whether a peer may have a tunnel with our servers."""
        return (
            not self._door.is_refused(peer)
            and serial not in self.plan.parameters.crl
            and peer != self.plan.identity.prefix
        )

    def joined(self, client: ServerClient, protocol: TunnelProtocol) -> None:
        """A client has connected to a server of ours."""
        log.info("%s connected from %s by %s", client.peer, client.address, protocol)
        self._gateways.hold(client.address)
        self.note_server(protocol)
        self._event(policy.ClientUp(client.peer))

    def left(self, client: ServerClient, protocol: TunnelProtocol) -> None:
        """A client of a server of ours is gone."""
        log.info("%s disconnected", client.peer)
        self.ends.ended(interfaces.server(protocol), client.peer)
        self._gateways.let_go(client.address)
        self.note_server(protocol)
        self._event(policy.ClientDown(client.peer))

    async def bounce(self, interface: str) -> None:
        """Tell babel that nobody is behind an interface any more."""
        await self._kernel.bounce(interface, lambda: self._routing.until_unused(interface))

    async def serving(self, interface: str, mtu: int, protocol: TunnelProtocol) -> None:
        """A server of ours listens. Raises OSError."""
        await self._kernel.set_up(interface, mtu)
        self.note_server(protocol)

    def note_server(self, protocol: TunnelProtocol) -> None:
        """What the next daemon has to know of a server."""
        server = self.servers.get(protocol)
        if server is not None and (record := server_record(server, self._digests[protocol])):
            self._records.write(server.interface, record)

    # -- client tunnels --

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        """Have a tunnel to a peer we have none with."""
        self._clients[peer] = _Client(self._start(self._hold(peer, endpoints), f"tunnel to {peer}"))

    def close(self, peer: Prefix) -> None:
        if peer in self._clients:
            # After its first step: a task that is cancelled before it tells nobody of its end.
            asyncio.get_running_loop().call_soon(self._clients[peer].task.cancel)

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Make babel move its routes away from an interface, or from one neighbour on it."""
        self._start(self._drains.mute(interface, neighbour), f"drain {interface}")

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self._start(self._drains.unmute(interface, neighbour), f"undrain {interface}")

    async def follow(self) -> None:
        """Have one tunnel, with whoever answers at the addresses of --client, again and again, until cancelled."""
        await self._links.outlast_all()  # that which an earlier daemon left
        backoff = Backoff(AGAIN_FIRST, AGAIN_LAST)
        while True:
            once = self._start(self._follow_once(backoff), "tunnel of --client")
            try:
                await asyncio.wait([once])
            finally:
                await end(once)
            await asyncio.sleep(backoff.next())

    async def _follow_once(self, backoff: Backoff) -> None:
        this = asyncio.current_task()
        assert this is not None
        held = _Client(this)

        async def up(connected: Connected) -> None:
            backoff.reset()
            held.tunnel, held.config_digest = client, self._digest()
            self._clients[connected.peer] = held
            await self._up(connected)

        found, self._found = self._found.clients.get(interfaces.SOLE), Found()
        client = self._factory(self.plan).dialer(
            interfaces.SOLE, None, self.plan.config.remotes, up, found_client(found, interfaces.SOLE)
        )
        try:
            await self._make_tap(interfaces.SOLE, found)
            if not await self._dial(held, client):
                log.warning("none of the servers of --client can be reached")
        except KernelError as error:
            log.error("tunnel of --client: %s", error)
        finally:
            self._records.forget(interfaces.SOLE)
            held.tunnel, held.config_digest = None, ""
            try:
                await self.bounce(interfaces.SOLE)
                if client.peer is not None:
                    await self._links.outlast(client.peer)
            finally:  # also if that is cut short
                if client.peer is not None:
                    log.info("tunnel to %s ended", client.peer)
                    self._links.end(client.peer)
                    self._clients.pop(client.peer, None)
                    self._event(policy.TunnelDown(client.peer))

    async def _hold(
        self,
        peer: Prefix,
        endpoints: tuple[Endpoint, ...],
        found: tuple[str, ClientRecord] | None = None,
        *,
        by_link: bool = False,
    ) -> None:
        """Hold one client tunnel, from the way to the peer and a free interface to giving them back.

        A WireGuard link that takes its place is held after it; `by_link`: one has done so already.
        """
        try:
            async with self._gateways.towards(endpoints):
                if found is not None:
                    await self._hold_on(peer, endpoints, *found)
                elif not by_link:
                    await self._hold_towards(peer, endpoints)
                await self._links.outlast(peer)
        except KernelError as error:
            log.error("tunnel to %s: %s", peer, error)
        finally:
            self._links.end(peer)
            del self._clients[peer]
            self._event(policy.TunnelDown(peer))

    async def _dial(self, client: _Client, dialer: Dialer) -> bool:
        """Hold a tunnel by its dialer until it, or `retire`, ends it; whether it was connected. Raises KernelError."""
        client.dialling = dialling = asyncio.create_task(dialer.run())
        try:
            await asyncio.wait((dialling,))
            return dialling.cancelled() or dialling.result()
        finally:
            dialling.cancel()
            await asyncio.wait((dialling,))
            client.dialling = None

    def retire(self, peer: Prefix) -> None:
        """End a tunnel that a link carries now."""
        client = self._clients.get(peer)
        if client is not None and client.dialling is not None:
            log.info("the tunnel to %s is one of WireGuard now: its OpenVPN is ended", peer)
            client.dialling.cancel()

    def openvpn_tunnels(self) -> dict[Prefix, Dialer]:
        """Our own that are up, and are no links yet."""
        found = {peer: client.tunnel for peer, client in self._clients.items()}
        return {peer: each for peer, each in found.items() if each is not None and each.since is not None}

    def server_client(self, peer: Prefix) -> tuple[TunnelProtocol, ServerClient] | None:
        """A client of one of our servers, and of which."""
        found = ((protocol, each) for protocol, server in self.servers.items() for each in server.clients.values())
        return next(((protocol, each) for protocol, each in found if each.peer == peer), None)

    def served_by_links(self, protocol: TunnelProtocol, besides: Prefix) -> int:
        """How many clients of a server have a link instead of their tunnel to it, a peer left out."""
        return self._links.served(protocol, besides)

    def hold_way(self, address: str | None) -> None:
        """Packets to a client keep the way that they take; undo it by `let_go`."""
        self._gateways.hold(address)

    def let_go(self, address: str | None) -> None:
        self._gateways.let_go(address)

    async def _hold_towards(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        if self._door.is_refused(peer):
            return
        found = await addresses_of(endpoints)
        endpoints = tuple([each for each in found if await self._kernel.leads_outside(each.host)])
        if not endpoints:
            log.info("no route to %s except through the network itself", peer)
            return
        tap = next((name for name in self.plan.client_interfaces if name not in self._taps), None)
        if tap is None:
            log.warning("no interface left for a tunnel to %s", peer)
            return
        self._taps.add(tap)
        self._clients[peer].config_digest = self._digest()
        await self._hold_on(peer, endpoints, tap)

    async def _hold_on(
        self, peer: Prefix, endpoints: tuple[Endpoint, ...], tap: str, record: ClientRecord | None = None
    ) -> None:
        """Hold one on an interface that was taken for it."""
        try:
            await self._make_tap(tap, record)
            found = found_client(record, tap)
            client = self._factory(self.plan).dialer(tap, peer, endpoints, self._up, found)
            self._clients[peer].tunnel = client
            if await self._dial(self._clients[peer], client):
                log.info("tunnel to %s ended", peer)
            else:
                self._gateways.missed(endpoints)
        finally:
            self._clients[peer].tunnel, self._clients[peer].config_digest = None, ""
            self.ends.ended(tap, peer)
            self._records.forget(tap)
            try:
                await self.bounce(tap)
            finally:  # also if that is cut short
                await self._drains.unmute(tap)
                self._taps.discard(tap)

    async def _make_tap(self, name: str, record: ClientRecord | None) -> None:
        """The interface of a tunnel; `record` is of one that is gone on with. Raises KernelError."""
        await self._kernel.make_tap(name)
        if record is None:
            self._fresh.add(name)

    async def _up(self, connected: Connected) -> None:
        if connected.serial is None or connected.serial in self.plan.parameters.crl:  # since an earlier daemon, too
            log.warning("closing the tunnel to %s: its certificate %s is revoked", connected.peer, connected.serial)
            self.close(connected.peer)
            return
        log.info("tunnel to %s at %s is up, on %s", connected.peer, connected.endpoint, connected.interface)
        if connected.interface in self._fresh:
            self._fresh.remove(connected.interface)
            # It may be up since its last tunnel. Now there is somebody for babel to greet.
            await self.bounce(connected.interface)
        await self._kernel.set_up(connected.interface, connected.mtu)
        self._note_client(connected)
        self._gateways.reached(connected.endpoint.host)
        self._connected(connected)
        if connected.twin:
            self._door.told_of_twin(connected.peer, connected.twin)
        uplink = self._gateways.uplink(connected.endpoint.host) or connected.source
        self._event(policy.TunnelUp(connected.peer, connected.interface, str(uplink or "")))

    def _note_client(self, connected: Connected) -> None:
        """What the next daemon has to know of a client tunnel."""
        client = self._clients[connected.peer]
        if client.tunnel is not None and (record := client_record(client.tunnel, connected, client.config_digest)):
            self._records.write(connected.interface, record)


@dataclass(frozen=True, slots=True)
class _Owner:
    """What one of our servers asks and tells us (tunnel.ListenerOwner)."""

    tunnels: Tunnels
    door: TunnelAdmission
    protocol: TunnelProtocol

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        return self.tunnels.admits(peer, serial)

    def room(self, peer: Prefix) -> int:
        return self.tunnels.plan.max_clients - self.tunnels.served_by_links(self.protocol, peer)

    def joined(self, client: ServerClient) -> None:
        self.tunnels.joined(client, self.protocol)

    def left(self, client: ServerClient) -> None:
        self.tunnels.left(client, self.protocol)

    async def up(self, interface: str, mtu: int) -> None:
        await self.tunnels.serving(interface, mtu, self.protocol)

    async def down(self, interface: str) -> None:
        await self.tunnels.bounce(interface)

    def came(self, peer: Prefix, address: str) -> str:
        return self.door.came(peer, address)

    def untimely(self, refused: Untimely) -> None:
        self.door.untimely(refused)
