"""All tunnels of one node: the client tunnels that the policy wants, and our servers (wire.md 8.4).

tunnel.py says what a tunnel is; here is which client tunnels there are now, and on which interfaces. servers.py has
the same of servers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv6Address
from random import Random
from typing import TYPE_CHECKING

from re6st.core import interfaces
from re6st.core.mesh import policy
from re6st.core.mesh.uplink_choice import carried
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.telemetry.report import Link, Server
from re6st.core.transport.records import ClientRecord
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import Address, KernelError
from re6st.linux.process import Backoff
from re6st.noded.accused import accuse
from re6st.noded.contracts import BabelFilter
from re6st.noded.name_lookup import addresses_of
from re6st.noded.other_ends import OtherEnds
from re6st.noded.server_rollout import ServerRollout
from re6st.noded.servers import Servers
from re6st.noded.takeover import Found, Records, client_record, found_client
from re6st.noded.tunnel_parts import TunnelParts
from re6st.service.tasks import end
from re6st.tunnel import Connected, Dialer

if TYPE_CHECKING:
    from re6st.core.transport.link_records import LinkRecord

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
    """Opens, closes and drains tunnels, and tells the policy what became of them; has our servers.

    `connected` hears first of each client tunnel that came up.
    """

    def __init__(
        self, parts: TunnelParts, drains: BabelFilter, connected: Callable[[Connected], None], found: Found
    ) -> None:
        self._in_force = parts.in_force
        self._clients: dict[Prefix, _Client] = {}
        self._taps: set[str] = set()
        """Interfaces of client tunnels in use."""
        self._fresh: set[str] = set()
        """Those whose tunnel was not up yet."""
        self._parts = parts
        self._kernel = parts.kernel
        self._gateways = parts.gateways
        self._uplinks = parts.uplinks
        self._drains = drains
        self._start = parts.tasks.start
        self._event = parts.event
        self._connected = connected
        self._found = found
        self._door = parts.door
        self._links = parts.links
        self.servers = Servers(parts)
        self._rollout = ServerRollout(self.servers, self, drains, Random())  # noqa: S311
        self.ends = OtherEnds(self.servers.running, self._held, parts.kernel.hardware, parts.links.ends, parts.ended)
        self.ends.looked = parts.routing.look_again
        drains.told = partial(accuse, suspects=self.ends.suspects)
        self._records = Records(parts.in_force.effective.config.run)

    def __contains__(self, peer: Prefix) -> bool:
        return peer in self._clients

    def __iter__(self) -> Iterator[Prefix]:
        """Peers we have a client tunnel with, or try to."""
        return iter(tuple(self._clients))

    def links(self) -> Iterator[Link]:
        """All tunnels, for the operator: ours, and those of our servers' clients."""
        for link in self._links.reports():
            uplink = link.uplink or (self._uplinks.used(link.peer) if link.outgoing else "")
            yield replace(link, uplink=uplink)
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
                uplink=self._uplinks.used(peer),
            )
        yield from self.servers.links()

    def listeners(self) -> list[Server]:
        """Our servers, for the operator."""
        return self.servers.reports()

    async def leave(self) -> None:
        """End all client tunnels, and links. The servers end with the task group."""
        await asyncio.gather(*(end(client.task) for client in tuple(self._clients.values())))
        await self._links.leave()

    def go_on(self) -> None:
        """Take over the tunnels that an earlier daemon left up."""
        if self._found:
            self._links.go_on(self._found.links.values(), self._resume)

    def _resume(self, links: list[LinkRecord]) -> None:
        """Take over client tunnels, and those that links carry; the policy is told first, or it would open others."""
        records = self._found.clients.items()
        held = [(record.peer, name) for name, record in records if name != interfaces.SOLE]
        self._event(policy.Resumed((*held, *((each.peer, each.link.interface) for each in links))))
        self._gateways.go_on(self._kernel.gateways())
        for interface, record in records:
            if interface != interfaces.SOLE:  # see `follow`
                self._taps.add(interface)
                self._uplinks.resume(record.peer, record.mark, record.endpoint)
                hold = self._hold(record.peer, (record.endpoint,), (interface, record))
                task = self._start(hold, f"tunnel to {record.peer}")
                self._clients[record.peer] = _Client(task, None, record.config_digest)
        for each in links:
            self._uplinks.resume(each.peer, each.mark, each.place)
            hold = self._hold(each.peer, (each.place,) if each.place else (), by_link=True)
            self._clients[each.peer] = _Client(self._start(hold, f"tunnel to {each.peer}"))

    async def renew(self, survey: Callable[[], Survey]) -> None:
        """Have as many servers as the settings of now want, all with these and with our certificate of now.

        One after another, each drained first (`survey` is the mesh as we see it); client tunnels are the policy's.
        """
        await self._rollout.renew(survey)

    def outdated_clients(self) -> frozenset[Prefix]:
        """The peers of our client tunnels with other settings than those of now."""
        now = self._parts.factory().config_digest()
        return frozenset(peer for peer, client in self._clients.items() if client.config_digest not in ("", now))

    def tell_outdated(self) -> None:
        """Tell the policy of those, if there are any."""
        if outdated := self.outdated_clients():
            self._event(policy.TunnelsOutdated(outdated))

    def cut(self, peer: Prefix) -> None:
        """End every tunnel with a peer."""
        self.servers.cut(peer)
        self._links.cut(peer)
        self.close(peer)

    def cut_off(self, crl: frozenset[int]) -> None:
        """End every tunnel with a peer whose certificate is revoked, or of unknown number."""
        self.servers.cut_off(crl)
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

    def leave_lines(self, names: Collection[str]) -> None:
        """These uplinks are dead: end the tunnels over them at once, and links too."""
        for name in names:
            self._links.leave_line(name)
            for peer in self._uplinks.over(name):
                if isinstance(peer, Prefix) and peer in self._clients:
                    log.info("closing the tunnel to %s: its uplink %s is down", peer, name)
                    self.close(peer)

    def join_lines(self) -> None:
        """Tunnels that were opened before there were several uplinks go over that whose address they have."""
        for peer, client in self._clients.items():
            if client.tunnel is not None and client.tunnel.connected and not self._uplinks.used(peer):
                self._note_line(peer, client.tunnel.source, client.tunnel.endpoint)

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        """Have a tunnel to a peer we have none with."""
        self._clients[peer] = _Client(self._start(self._hold(peer, endpoints), f"tunnel to {peer}"))

    def close(self, peer: Prefix, *, lost: bool = False) -> None:
        """Close a tunnel, which may give no sign of life."""
        if lost:
            self._uplinks.lost(peer, time.monotonic())
        if peer in self._clients:
            # After its first step: a task that is cancelled before it tells nobody of its end.
            asyncio.get_running_loop().call_soon(self._clients[peer].task.cancel)

    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Make babel move its routes away from a tunnel, on an interface, or of one neighbour there. It is drained with
        all links that it has."""
        self.avoid(interface, neighbour)
        for name in self._links.beside(interface):
            self.avoid(name)

    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        self.trust(interface, neighbour)
        for name in self._links.beside(interface):
            self.trust(name)

    def avoid(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Make babel move its routes away from one link."""
        self._start(self._drains.mute(interface, neighbour), f"drain {interface}")

    def trust(self, interface: str, neighbour: IPv6Address | None = None) -> None:
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
            held.tunnel, held.config_digest = client, self._parts.factory().config_digest()
            self._clients[connected.peer] = held
            await self._up(connected)

        found, self._found = self._found.clients.get(interfaces.SOLE), Found()
        remotes, mark = self._bind(None, self._in_force.effective.config.remotes, found)
        client = self._parts.factory().dialer(
            interfaces.SOLE, None, remotes, up, found_client(found, interfaces.SOLE), mark
        )
        try:
            try:
                await self._make_tap(interfaces.SOLE, found)
                if not await self._dial(held, client):
                    self._uplinks.missed(None, time.monotonic())
                    log.warning("none of the servers of --client can be reached")
            except KernelError as error:
                log.error("tunnel of --client: %s", error)
            finally:
                self._records.forget(interfaces.SOLE)
                held.tunnel, held.config_digest = None, ""
                try:
                    await self._parts.bounce(interfaces.SOLE)
                finally:  # muted, so that routes moved to the link: the next tunnel on it is not
                    await self._drains.unmute(interfaces.SOLE)
            if client.peer is not None:
                await self._links.outlast(client.peer)
        finally:  # also if that is cut short
            self._uplinks.release(None)
            if client.peer is not None:
                self._uplinks.release(client.peer)
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
            self._uplinks.release(peer)
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

    def _held(self) -> list[Dialer]:
        return [client.tunnel for client in self._clients.values() if client.tunnel is not None]

    def openvpn_tunnels(self) -> dict[Prefix, Dialer]:
        """Our own that are up, and are no links yet."""
        found = {peer: client.tunnel for peer, client in self._clients.items()}
        return {peer: each for peer, each in found.items() if each is not None and each.since is not None}

    def hold_way(self, address: str | None) -> None:
        """Packets to a client keep the way that they take; undo it by `let_go`."""
        self._gateways.hold(address)

    def let_go(self, address: str | None) -> None:
        self._gateways.let_go(address)

    async def _hold_towards(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        if self._door.is_refused(peer):
            return
        found, mark = self._bind(peer, await addresses_of(endpoints))
        endpoints = tuple([each for each in found if await self._kernel.leads_outside(each.host, mark)])
        if not endpoints:
            over = self._uplinks.used(peer)
            where = f"over the uplink {over}" if over else "except through the network itself"
            log.info("no route to %s %s", peer, where)
            self._uplinks.missed(peer, time.monotonic())
            return
        tap = next((name for name in self._in_force.effective.client_interfaces if name not in self._taps), None)
        if tap is None:
            log.warning("no interface left for a tunnel to %s", peer)
            return
        self._taps.add(tap)
        self._clients[peer].config_digest = self._parts.factory().config_digest()
        await self._hold_on(peer, endpoints, tap, mark=mark)

    def _bind(
        self, peer: Prefix | None, endpoints: tuple[Endpoint, ...], found: ClientRecord | None = None
    ) -> tuple[tuple[Endpoint, ...], int]:
        """The uplink for a tunnel: where it can lead to by that one, and the mark of its packets; that of one that was
        `found` is known.
        """
        if found is not None:
            self._uplinks.resume(peer, found.mark)
            return endpoints, found.mark
        uplink = self._uplinks.choose(peer, endpoints, time.monotonic())
        if uplink is None:
            return endpoints, 0
        log.debug("the tunnel to %s goes over the uplink %s", peer or "a server", uplink.name)
        return carried(uplink, endpoints), self._uplinks.mark(uplink.name)

    async def _hold_on(
        self,
        peer: Prefix,
        endpoints: tuple[Endpoint, ...],
        tap: str,
        record: ClientRecord | None = None,
        mark: int = 0,
    ) -> None:
        """Hold one on an interface that was taken for it."""
        try:
            await self._make_tap(tap, record)
            found, mark = found_client(record, tap), mark if record is None else record.mark
            client = self._parts.factory().dialer(tap, peer, endpoints, self._up, found, mark)
            self._clients[peer].tunnel = client
            if await self._dial(self._clients[peer], client):
                log.info("tunnel to %s ended", peer)
                if not self._links.carries(peer):
                    self._uplinks.lost(peer, time.monotonic())
            else:
                self._gateways.missed(endpoints)
                self._uplinks.missed(peer, time.monotonic())
        finally:
            self._clients[peer].tunnel, self._clients[peer].config_digest = None, ""
            self._parts.ended.note(tap, peer)
            self._records.forget(tap)
            try:
                await self._parts.bounce(tap)
            finally:  # also if that is cut short
                await self._drains.unmute(tap)
                self._taps.discard(tap)

    async def _make_tap(self, name: str, record: ClientRecord | None) -> None:
        """The interface of a tunnel; `record` is of one that is gone on with. Raises KernelError."""
        await self._kernel.make_tap(name)
        if record is None:
            self._fresh.add(name)

    async def _up(self, connected: Connected) -> None:
        # Also one that an earlier daemon left.
        if connected.serial is None or connected.serial in self._in_force.effective.parameters.crl:
            log.warning("closing the tunnel to %s: its certificate %s is revoked", connected.peer, connected.serial)
            self.close(connected.peer)
            return
        log.info("tunnel to %s at %s is up, on %s", connected.peer, connected.endpoint, connected.interface)
        if connected.interface in self._fresh:
            self._fresh.remove(connected.interface)
            # It may be up since its last tunnel. Now there is somebody for babel to greet.
            await self._parts.bounce(connected.interface)
        await self._kernel.set_up(connected.interface, connected.mtu)
        self._note_client(connected)
        self._gateways.reached(connected.endpoint.host)
        self._connected(connected)
        if connected.twin:
            self._door.told_of_twin(connected.peer, connected.twin)
        uplink = self._reached_over(connected) or self._gateways.uplink(connected.endpoint.host) or connected.source
        self._event(policy.TunnelUp(connected.peer, connected.interface, str(uplink or "")))

    def _reached_over(self, connected: Connected) -> str:
        """The uplink of a tunnel that is up; empty where it is bound to none."""
        if connected.interface == interfaces.SOLE:
            self._uplinks.turned_out(connected.peer)
        self._note_line(connected.peer, connected.source, connected.endpoint)
        return self._uplinks.used(connected.peer)

    def _note_line(self, peer: Prefix, source: Address | None, place: Endpoint | None) -> None:
        self._uplinks.settle(peer, source)
        if place is not None:
            self._uplinks.reached(peer, place, time.monotonic())

    def _note_client(self, connected: Connected) -> None:
        """What the next daemon has to know of a client tunnel."""
        client = self._clients[connected.peer]
        if client.tunnel is not None and (record := client_record(client.tunnel, connected, client.config_digest)):
            self._records.write(connected.interface, record)
