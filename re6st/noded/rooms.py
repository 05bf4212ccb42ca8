"""The rooms of a node, built one after the other, each complete when it is made (node.py starts and ends them).

Three floors: what there is before the network's parameters are known (`Base`), what the node has on this machine
(`MachineRooms`), and the rooms that live in the mesh (`Rooms`). Where two rooms need each other, one of them gets the
other when it starts, or both know a small object of news.py.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from re6st import babel, cert
from re6st.client.counted_client import CountedClient
from re6st.core.machine.uplinks import Uplink
from re6st.core.mesh import policy
from re6st.core.mesh.dead_clients import DeadClients
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix
from re6st.core.routing.planes import MAIN, THROUGHPUT
from re6st.core.telemetry.event_log import EventLog
from re6st.core.wire.extensions import Extension
from re6st.core.wire.news import VersionNews
from re6st.core.wire.requirement import Requirement
from re6st.linux.kernel import Kernel
from re6st.linux.link_traffic import LinkTraffic
from re6st.linux.nftables import Nft
from re6st.linux.probes import ProbeSocket
from re6st.linux.process import MissingProgram
from re6st.linux.retransmits import LossWatch
from re6st.linux.train import measure
from re6st.noded import dead_links, multicast
from re6st.noded.admission import Admission
from re6st.noded.babeld_sysctls import BabeldSysctls
from re6st.noded.country import CountryLookup, locator
from re6st.noded.dead_links import DeadLinks
from re6st.noded.first_peer import AskRegistry, FirstPeer
from re6st.noded.guard import Guard
from re6st.noded.hooks import Hooks
from re6st.noded.kernel_care import KernelCare
from re6st.noded.known_peers import KnownPeers
from re6st.noded.line_shares import TunnelLines
from re6st.noded.link_capacities import LinkCapacities
from re6st.noded.mesh_driver import MeshDriver
from re6st.noded.mptcp import Mptcp
from re6st.noded.mptcp_settings import MptcpSettings
from re6st.noded.network_addresses import NetworkAddresses
from re6st.noded.news import (
    AddressTeller,
    Arrivals,
    CountryNews,
    DeadLinkNews,
    LineNews,
    Moves,
    PolicySettings,
    SettingsNews,
    Whereabouts,
)
from re6st.noded.no_links import NoLinks
from re6st.noded.observer import BulkRooms, LineRooms, MeshRooms, Observer, Watchers
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.packet_filter import PacketFilter
from re6st.noded.peer_cache import Cache
from re6st.noded.peer_messages import MessageHandler
from re6st.noded.peer_socket import NodeCrypto, Peers, sessions_with
from re6st.noded.pulse import Pulse, VersionTeller
from re6st.noded.reachability import AddressAdvertiser
from re6st.noded.region_finder import RegionFinder
from re6st.noded.registry_updates import Updates
from re6st.noded.remote_gateway import RemoteGateways
from re6st.noded.requirement import RequirementWatch
from re6st.noded.router_advertisements import Advertisements
from re6st.noded.routing import Planes, RoutingPlane
from re6st.noded.settings import Config, EffectiveConfig, InForce
from re6st.noded.sharing_rooms import SharingParts, SharingRooms
from re6st.noded.table_changes import TableChanges
from re6st.noded.takeover import Found
from re6st.noded.throughput import BesideKernel, TablePlane, Throughput
from re6st.noded.tunnel_mtus import TunnelMtus
from re6st.noded.tunnel_parts import TunnelParts
from re6st.noded.tunnels import Tunnels
from re6st.noded.uplinks import Uplinks
from re6st.service import run_names
from re6st.service.control import ControlServer
from re6st.service.tasks import Tasks
from re6st.transport.link_mtu import LinkMtus

if TYPE_CHECKING:
    from re6st.linux.wireguard import Implementation
    from re6st.noded.further_links import FurtherLinks
    from re6st.service.metrics_http import MetricsServer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Base:
    """What there is before the network's parameters are known, and from an earlier life."""

    config: Config
    identity: cert.Identity
    """As it was at the start; the effective configuration has the one of now."""
    programs: Mapping[str, str]
    client: CountedClient
    own: OwnAddresses
    cache: Cache
    updates: Updates
    first_peer: FirstPeer


@dataclass(frozen=True, slots=True)
class MachineRooms:
    """What a node has on this machine beside its processes. `can_drain` is set when that may have changed."""

    kernel: Kernel
    addresses: NetworkAddresses
    sysctls: BabeldSysctls
    advertisements: Advertisements
    packet_filter: PacketFilter
    can_drain: asyncio.Event
    hooks: Hooks
    in_force: InForce
    wireguard: Implementation | None
    """What carries WireGuard links here; the configuration in force has none where nothing does."""
    lacking: str
    """Why nothing does, if they are wanted."""
    mptcp: MptcpSettings

    @classmethod
    async def of(cls, base: Base) -> MachineRooms:
        """Nothing is changed yet."""
        config, kernel, can_drain = base.config, Kernel(), asyncio.Event()
        source_routes = await kernel.source_specific()
        packet_filter = PacketFilter(changed=can_drain.set)
        wireguard, lacking = _wireguard(config, kernel, counted=packet_filter.available)
        config = replace(config, wireguard=wireguard is not None)
        effective = EffectiveConfig(config, base.identity, base.updates.parameters, dict(base.programs), source_routes)
        return cls(
            kernel=kernel,
            addresses=NetworkAddresses(kernel, config.main_interface, config.run),
            sysctls=BabeldSysctls(config.run / run_names.BABELD_SYSCTLS, config.lan),
            advertisements=Advertisements(config.run / run_names.ROUTER_ADVERTISEMENTS),
            packet_filter=packet_filter,
            can_drain=can_drain,
            hooks=Hooks(config.up, config.daemons, effective.environment, config.run),
            in_force=InForce(effective),
            wireguard=wireguard,
            lacking=lacking,
            mptcp=MptcpSettings(config.run / run_names.MPTCP),
        )

    async def clear_up(self) -> None:
        """End the user's commands, and take away what was added."""
        await self.hooks.stop()
        await self.packet_filter.close()
        self.mptcp.undo()
        await self.kernel.undo({*self.addresses.wanted, *self.addresses.former})
        self.sysctls.undo()
        self.advertisements.undo()

    async def hand_over(self) -> None:
        """End the user's commands, and leave all else to the next daemon."""
        await self.hooks.stop()
        await self.packet_filter.hand_over()
        self.mptcp.close()


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms that live in the mesh."""

    mesh: policy.Mesh
    driver: MeshDriver
    planes: Planes
    capacities: LinkCapacities
    table_changes: TableChanges
    crypto: NodeCrypto
    peers: Peers
    known: KnownPeers
    tunnels: Tunnels
    uplinks: Uplinks
    shares: SharingRooms
    mptcp: Mptcp
    links: FurtherLinks | None
    losses: LossWatch
    dead_links: DeadLinks
    link_mtus: LinkMtus
    advertiser: AddressAdvertiser
    moves: Moves
    country: CountryLookup
    settings_news: SettingsNews
    version_news: VersionNews
    care: KernelCare
    pulse: Pulse
    control: ControlServer
    metrics: MetricsServer | None
    multicast: multicast.Multicast | None

    @property
    def routing(self) -> RoutingPlane:
        """The plane by which the policy goes."""
        return self.planes.main


def build(base: Base, machine: MachineRooms, found: Found, left: babel.Left, tasks: Tasks) -> Rooms:
    """All of them; `found` and `left` is what an earlier daemon left running. Raises MetricsError and OSError."""
    config, own, in_force = base.config, base.own, machine.in_force
    own.ports = own.ports if in_force.effective.servers else ()
    settings = PolicySettings(in_force, machine.packet_filter, own)
    due = asyncio.Event()
    mesh = policy.Mesh(settings.now, base.cache.addresses, _chance(), locator(config.places))
    routing = RoutingPlane(MAIN, in_force, machine.addresses, machine.kernel, _chance(), base.cache, left)
    throughput = _throughput(machine, routing)
    planes = Planes(routing, throughput)
    event_log = EventLog(routing.ending)
    driver = MeshDriver(mesh, event_log, time, due.set)
    settings_news = SettingsNews(settings, driver)
    requirement = Requirement()
    known = KnownPeers(base.identity.prefix, mesh, requirement, base.cache)
    admission = Admission(config.run / run_names.REFUSED, requirement, event_log, base.client)
    choice, nft = UplinkChoice(), _nft()
    links = _links(machine, mesh, driver, planes, tasks, choice, own)
    if links is not None:
        routing.as_one = links.as_one
    of_lines = frozenset({Extension.LINES} if nft is not None else ())
    of_links = frozenset if links is None else links.abilities
    crypto = NodeCrypto(base.identity, base.updates.revoked, lambda: of_lines | of_links())
    handler, peers = _peers(base, in_force, mesh, driver, known, crypto, due)
    advertiser, country = _whereabouts(base, machine, AddressTeller(peers, handler, known), settings_news)
    parts = TunnelParts(
        in_force=in_force,
        kernel=machine.kernel,
        gateways=RemoteGateways(machine.kernel, config.remote_gateways),
        tasks=tasks,
        event=driver.event,
        routing=planes,
        door=admission,
        links=links or NoLinks(machine.kernel, config.run, tasks, machine.lacking),
        uplinks=choice,
    )
    tunnels = Tunnels(parts, machine.packet_filter, Arrivals(known, advertiser).connected, found)
    if links is not None:
        links.start(tunnels, peers, advertiser)
        handler.about_links, handler.about_further_links = links.first.received, links.received
        peers.told_abilities = links.met_again
    link_mtus = LinkMtus(machine.kernel)
    required = RequirementWatch(requirement, peers, tunnels)
    is_behind = base.updates.is_behind
    guard = Guard(in_force, routing, tunnels, mesh, admission, required, event_log, is_behind)
    line_news = LineNews(advertiser, tunnels)
    watched = not config.remote_gateways
    uplinks = Uplinks(config.uplinks, machine.kernel, choice, driver.event, line_news, watched=watched)
    trains = measure if config.probe else None
    capacities = LinkCapacities(routing, tunnels.ends, machine.in_force.own, trains, parts.links.user_of, choice.uplink)

    def look_beside(plane: TablePlane | None) -> None:
        guard.look_beside(plane)
        driver.event(policy.BulkSurveyed(None if plane is None else plane.survey()))

    throughput.start(capacities.follow, look_beside)

    def forget(interface: str) -> None:
        tasks.start(parts.bounce(interface), f"leave {interface}")

    news = DeadLinkNews(driver, choice, parts.links)
    network, own_prefix = base.identity.trust.network, base.identity.prefix
    mptcp = Mptcp(network, own_prefix, choice.up, machine.kernel, machine.mptcp, on=config.mptcp)
    shares = SharingRooms.of(
        SharingParts(
            network=network,
            own=own_prefix,
            routing=routing,
            owners=tunnels.ends,
            kernel=machine.kernel,
            nft=nft,
            lines=TunnelLines(choice, tunnels.links),
            socket=peers,
            bulk_apart=lambda: throughput.plane is not None,
            apart=mptcp.apart,
        )
    )
    handler.about_lines = shares.ears.received

    def line(peer: Prefix, interface: str) -> Uplink | None:
        return choice.uplink(parts.links.user_of(peer, interface))

    beside, clients = (shares, throughput), parts.dead_clients
    dead = _dead_links(base, machine, routing, beside, tunnels, news, mesh, line, event_log, forget, clients)
    routing.silent = dead.silent_peers
    care = KernelCare(machine.kernel, machine.addresses, machine.advertisements, planes, tunnels, in_force)
    version_news = VersionNews(peers.sessions, known.near, known.is_routed, peers)
    finder = RegionFinder(network, mesh, driver.event, _chance(), lambda: in_force.effective.longest_subnet)
    finder.start(peers)
    handler.about_regions, peers.anycast = finder, lambda: in_force.effective.anycast
    driver.start(tunnels, finder, AskRegistry(base.first_peer, known, driver, base.updates, tasks))
    operations = Observer(
        in_force,
        MeshRooms(mesh, routing, tunnels, own, known.addresses, event_log),
        Watchers(
            base.client,
            guard,
            machine.packet_filter,
            care,
            dead,
            BulkRooms(throughput, capacities),
            LineRooms(uplinks, shares, mptcp),
        ),
        config.verbosity,
    )
    return Rooms(
        mesh=mesh,
        driver=driver,
        planes=planes,
        capacities=capacities,
        table_changes=TableChanges(
            base.identity.trust.network,
            guard,
            machine.packet_filter,
            TunnelMtus(tunnels, link_mtus, in_force),
            driver,
            shares.outgoing,
        ),
        crypto=crypto,
        peers=peers,
        known=known,
        tunnels=tunnels,
        uplinks=uplinks,
        shares=shares,
        mptcp=mptcp,
        links=links,
        losses=LossWatch(tunnels, driver.event),
        dead_links=dead,
        link_mtus=link_mtus,
        advertiser=advertiser,
        moves=Moves(tunnels, driver),
        country=country,
        settings_news=settings_news,
        version_news=version_news,
        care=care,
        pulse=Pulse((driver, peers, guard, base.cache, VersionTeller(version_news, in_force)), due),
        control=ControlServer(operations, config.run, config.console),
        metrics=_metrics(base, in_force, operations, event_log, peers),
        multicast=_multicast(base, machine) if config.multicast else None,
    )


def _wireguard(config: Config, kernel: Kernel, *, counted: bool) -> tuple[Implementation | None, str]:
    """What carries WireGuard links here; None where nothing does, and why, if the user asked for them.

    `counted`: packets of tunnels are counted. Hellos are rare on a link: without that, one that died would be noticed
    after ten seconds, a tunnel of OpenVPN after two.
    """
    if not config.wireguard:
        return None, ""
    # Many nodes have none, and need not load what makes them.
    from re6st.linux.wireguard import NoWireGuard, choose
    from re6st.linux.wireguard_kernel import KernelWireGuard

    kinds: list[Callable[[], Implementation]] = [partial(KernelWireGuard, kernel.netlink)]
    if config.wireguard_go:
        from re6st.linux.wireguard_go import WireGuardGo

        kinds.append(partial(WireGuardGo, kernel.netlink))
    try:
        if not counted:
            raise NoWireGuard("without nftables, links that died would be noticed late")
        found = choose(kinds)
    except NoWireGuard as error:
        if not config.wireguard_asked:
            log.info("tunnels are those of OpenVPN: %s", error)
            return None, ""
        log.warning("tunnels stay those of OpenVPN, without WireGuard: %s", error)
        return None, f"not here: {error}"
    log.info("tunnels become WireGuard links where the other end has them too; here %s carries them", found.name)
    return found, ""


def _links(
    machine: MachineRooms,
    mesh: policy.Mesh,
    driver: MeshDriver,
    planes: Planes,
    tasks: Tasks,
    choice: UplinkChoice,
    own: OwnAddresses,
) -> FurtherLinks | None:
    """The room of WireGuard links, if something here carries them."""
    if machine.wireguard is None:
        return None
    from re6st.noded.further_links import FurtherLinks
    from re6st.noded.line_places import Here
    from re6st.noded.wireguard import WireGuard

    kernel = machine.kernel
    parts = machine.in_force, mesh, driver.event, kernel, machine.packet_filter, planes, tasks
    first = WireGuard(*parts, machine.wireguard, kernel.netlink)
    here = Here(choice, planes.main, own.endpoints)
    return FurtherLinks(first, *parts, machine.wireguard, kernel.netlink, here)


def _metrics(
    base: Base, in_force: InForce, operations: Observer, event_log: EventLog, peers: Peers
) -> MetricsServer | None:
    if base.config.metrics is None:
        return None
    from re6st.noded.metrics import NodeMetrics
    from re6st.service.metrics_http import MetricsServer, listen

    figures = NodeMetrics(in_force, operations, event_log, peers, base.client, base.updates, base.own)
    return MetricsServer(listen(base.config.metrics), figures.render)


def _peers(
    base: Base,
    in_force: InForce,
    mesh: policy.Mesh,
    driver: MeshDriver,
    known: KnownPeers,
    crypto: NodeCrypto,
    due: asyncio.Event,
) -> tuple[MessageHandler, Peers]:
    """What we answer to peers, and the socket by which we speak with them."""
    network, version = base.identity.trust.network, in_force.effective.parameters.version
    sessions = sessions_with(crypto, network, version, known)
    handler = MessageHandler(mesh, base.updates, base.own, sessions, driver.event, known.remember)
    links = frozenset((base.config.main_interface, *base.config.lan))
    return handler, Peers(sessions, base.identity.prefix, known, handler.answer, links, due.set)


def _whereabouts(
    base: Base, machine: MachineRooms, teller: AddressTeller, settings: SettingsNews
) -> tuple[AddressAdvertiser, CountryLookup]:
    """What looks where we are, and in which country that is."""
    config, moved = base.config, asyncio.Event()
    keeper = Whereabouts(machine.in_force, base.cache, moved)
    advertiser = AddressAdvertiser(base.own, machine.kernel, keeper, teller, upnp=config.upnp)
    changed = CountryNews(settings, advertiser).tell
    return advertiser, CountryLookup(base.own, config.country, base.client.get_country, base.cache.own, moved, changed)


def _throughput(machine: MachineRooms, main: RoutingPlane) -> Throughput:
    kernel, in_force = machine.kernel, machine.in_force

    def make() -> RoutingPlane:
        return RoutingPlane(THROUGHPUT, in_force, machine.addresses, BesideKernel(kernel), _chance())

    return Throughput(make, in_force, machine.packet_filter, kernel, kernel.throws, lambda: main.table)


def _dead_links(
    base: Base,
    machine: MachineRooms,
    routing: RoutingPlane,
    others: tuple[dead_links.OtherPlane, ...],
    tunnels: Tunnels,
    news: DeadLinkNews,
    mesh: policy.Mesh,
    line: Callable[[Prefix, str], Uplink | None],
    log: EventLog,
    forget: Callable[[str], object],
    dead_clients: DeadClients,
) -> DeadLinks:
    kernel = machine.kernel
    means = dead_links.LinkMachine(
        machine.packet_filter,
        kernel.hardware,
        kernel.detours,
        machine.addresses,
        LinkTraffic,
        ProbeSocket,
        others,
        forget,
    )
    network, own = base.identity.trust.network, base.identity.prefix
    parts = network, own, routing, tunnels.ends, means, news.event, log
    return DeadLinks(*parts, lambda: mesh.avoided_links, line, dead_clients=dead_clients)


def _nft() -> Nft | None:
    with suppress(MissingProgram):  # the packet filter has said so
        return Nft()
    return None


def _multicast(base: Base, machine: MachineRooms) -> multicast.Multicast:
    program, interfaces = base.programs[multicast.PROGRAM], machine.in_force.interfaces
    return multicast.Multicast(program, base.config.run, interfaces, machine.kernel.links_up)


def _chance() -> Random:
    return random.Random()  # noqa: S311
