"""The node: wires the rooms together and carries out what the mesh policy decides (wire.md section 10).

Start, run, stop. Everything that is added to the machine is made by one of the rooms (linux/kernel.py, babel.py,
tunnel.py, noded/peer_socket.py) and taken away again in `_leave`, babeld first, so that it can tell its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from re6st import PROTOCOL, babel, cert, tunnel
from re6st.babeld.binary_socket import offer
from re6st.client.answered_hellos import AnsweredHellos
from re6st.client.counted_client import CountedClient
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing.planes import ONLY
from re6st.core.telemetry.chronicle import Chronicle
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.core.wire.news import VersionNews
from re6st.core.wire.params import Parameters
from re6st.core.wire.requirement import Requirement
from re6st.linux import kernel, process
from re6st.linux.kernel import Kept, Kernel, Network
from re6st.linux.retransmits import LossWatch
from re6st.noded import multicast, program_outputs, takeover
from re6st.noded.admission import Admission
from re6st.noded.country import Home, locator
from re6st.noded.first_peer import first_peer
from re6st.noded.guard import Guard
from re6st.noded.hooks import Hooks
from re6st.noded.kernel_care import KernelCare
from re6st.noded.left_behind import LEFT, remove
from re6st.noded.left_routes import lead_out
from re6st.noded.mesh_driver import MeshDriver
from re6st.noded.metrics import NodeMetrics
from re6st.noded.network_addresses import Presences
from re6st.noded.observer import Observer
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.packet_filter import PacketFilter
from re6st.noded.peer_answers import Answers
from re6st.noded.peer_cache import Cache
from re6st.noded.peer_socket import NodeCrypto, Peers, control_socket
from re6st.noded.pem_files import rewrite
from re6st.noded.reachability import Reach
from re6st.noded.registry_updates import Updates
from re6st.noded.requirement import RequirementWatch
from re6st.noded.router_advertisements import Advertisements
from re6st.noded.routing import RoutingPlane
from re6st.noded.settings import Config, InForce, Plan
from re6st.noded.table_changes import TableChanges
from re6st.noded.takeover import Found
from re6st.noded.tunnels import Tunnels
from re6st.service import run_names
from re6st.service.control import ControlServer
from re6st.service.metrics_http import MetricsServer, listen
from re6st.service.rundir import RunDirectory, remove_old, write_revoked
from re6st.service.sd_notify import Notifier
from re6st.service.tasks import Latest, Tasks, end, unless
from re6st.transport import openvpn

TICK = 1.0
LAST_WORD = 0.2
"""Seconds for the news to get to those that it cuts off: whose serial was revoked, may renew and come back."""
PROGRAMS = (babel.PROGRAM, openvpn.PROGRAM)

log = logging.getLogger(__name__)


class Node:
    """One node, from start to end. `run` may be called once."""

    def __init__(self, config: Config) -> None:
        """Reads the keys and finds the programs. Raises CertError, RegistryError, MissingProgram."""
        self.config = config
        identity = cert.Identity.load(config.files.ca, config.files.cert, config.files.key, datetime.now(UTC))
        rewrite(config.files)
        self.prefix = identity.prefix
        self.network = identity.trust.network
        self.subnet = subnet(self.network, self.prefix)
        self.address = address(self.network, self.prefix)
        self._identity = identity
        self._programs = {name: process.find_program(name) for name in PROGRAMS}
        if config.multicast:
            self._programs[multicast.PROGRAM] = process.find_program(multicast.PROGRAM, multicast.REMEDY)
        self._client = CountedClient(config.registry, identity)
        self._run = RunDirectory(config.run, keep=True)  # for the next one, if we never live
        local = [ip for ip in kernel.local_addresses() if ip not in self.network]
        self._own = OwnAddresses(config.offered, config.ip, local, network=self.network)
        self._found = Found()
        self._routes_left: Mapping[tuple[Network, Network], int] = {}
        self._loops: list[asyncio.Task[None]] = []
        self.started = False
        """Whether all that a person can have set up wrong has worked."""
        self._ticked = 0.0
        self._chronicle = Chronicle(lambda: self._routing.ending())

    @property
    def _plan(self) -> Plan:
        return self._in_force.plan

    # -- start --

    async def run(self, stop: asyncio.Event) -> None:
        """Live until `stop` is set, then leave nothing behind.

        Raises OSError, KernelError, PortInUse, TooOld and RunDirectoryError when it cannot start.
        """
        self._notifier = Notifier()
        self._waiting = asyncio.create_task(self._notifier.wait(), name="waiting")
        try:
            await self._run_alone(stop)
        finally:
            self._waiting.cancel()
            self._notifier.close()

    async def _run_alone(self, stop: asyncio.Event) -> None:
        # Nobody else's files, addresses or tunnels are touched before it is sure that we are alone here.
        with self._run, control_socket() as control:
            self._client.hellos = AnsweredHellos(self.config.state / "hellos")
            self._cache = Cache(self.config.state / "cache.db")
            try:
                self._updates = Updates(self._client, self.config.files, self._identity, self._cache)
                self._notifier.status("waiting for the network parameters from the registry")
                parameters = await unless(stop, self._updates.start())
                self._run.keep = False
                await (remove(self.config.run) if parameters is None else self._live(control, parameters, stop))
            finally:
                self._cache.close(keep=self._worth_keeping())

    async def hand_over(self) -> dict[str, str]:
        """Leave all that runs to another daemon; this one must end at once, without leaving in order.

        Tunnels and babeld go on, and so does the traffic. What the next one wants in its environment is returned.
        """
        log.info("handing over")
        self._notifier.reloading()
        if hasattr(self, "_driver"):
            self._driver.stop()
        if hasattr(self, "_hooks"):
            await self._hooks.stop()
            await self._filter.hand_over()
        if hasattr(self, "_cache"):
            self._cache.close(keep=self._worth_keeping())
        return self._notifier.environment

    def reopen_logs(self) -> None:
        """Have babeld open its log file again."""
        if hasattr(self, "_routing"):
            self._routing.reopen_log()

    async def _live(self, control: socket.socket, parameters: Parameters, stop: asyncio.Event) -> None:
        self._crypto = NodeCrypto(self._identity, lambda: self._updates.parameters.crl)
        self._peers = Peers(self._crypto, self._identity, parameters.version, lambda *m: self._answers.answer(*m))
        self._peers.links = frozenset({self.config.main_interface, *self.config.lan})
        self._kernel = Kernel()
        source_routes = await self._kernel.source_specific()
        self._in_force = InForce(Plan(self.config, self._identity, parameters, self._programs, source_routes))
        self._presences = Presences(self._kernel, self.config.main_interface, self.config.run)
        self._advertisements = Advertisements(self.config.run / run_names.ROUTER_ADVERTISEMENTS)
        self._filter = PacketFilter(changed=self._can_drain)
        self._hooks = Hooks(self.config.up, self.config.daemons, self._plan.environment, self.config.run)
        try:
            await self._clear()
            async with Tasks() as self._tasks:
                self._prepare()
                self._peers.open(control)
                try:
                    await self._enter()
                    self.started = True
                    await stop.wait()
                finally:
                    await self._leave()
        finally:
            # Also after a task died: what is left is little, and must not stay.
            await self._hooks.stop()
            await self._filter.close()
            await self._kernel.undo()
            self._advertisements.undo()
            if not self.started:  # with all that an earlier daemon left to us
                await remove(self.config.run, self._plan.presences)
            self._kernel.close()
            self._peers.close()

    async def _clear(self) -> None:
        """Find what an earlier run that was killed, or replaced, left running; remove what it left else."""
        self._found = found = takeover.look(self.config.run, self._plan.babel_command(ONLY))
        for pid in await process.end_leftovers(LEFT, self.config.run, found.pids):
            log.warning("ended process %s, left by an earlier run", pid)
        remove_old(self.config.run, found.names)
        await self._hooks.clear()
        if found.pids:
            self._routes_left = await self._kernel.babel_routes(self._plan.presences, ONLY.table)
            if lead_out(self._routes_left):
                self._filter.expect_outside()
        await self._filter.follow(self._plan.packet_rules)
        kept = Kept(found.hosts, self.config.main_interface) if found.pids else None
        for what in await self._kernel.clear(self._plan.presences, kept):
            log.warning("removed %s, left by an earlier run", what)
        if found.pids:
            log.info("going on with %s tunnels and %s servers", len(found.clients), len(found.servers))

    def _prepare(self) -> None:
        plan = self._plan
        self._own.ports = self._own.ports if plan.servers else ()
        self._mesh = policy.Mesh(self._settings(), self._cache.addresses, random.Random(), locator(self.config.places))  # noqa: S311
        self._peers.routed = lambda peer: peer in self._mesh.survey.peers
        self._answers = Answers(self._mesh, self._updates, self._own, self._peers.sessions, self._event, self._remember)
        left = babel.Left(self._found.babeld, self._routes_left)
        chance = random.Random()  # noqa: S311
        self._routing = RoutingPlane(ONLY, self._in_force, self._presences, self._kernel, self._cache, chance, left)
        requirement = Requirement()
        refused = self.config.run / run_names.REFUSED
        admission = Admission(refused, requirement, self._chronicle, self._client)
        self._peers.refused = requirement.lacks
        self._tunnels = Tunnels(
            plan,
            self._kernel,
            self._filter,
            self._tasks,
            self._event,
            self._connected,
            self._found,
            self._routing,
            admission,
        )
        self._driver = MeshDriver(
            self._mesh,
            self._chronicle,
            self._tunnels,
            self._peers,
            bootstrap=lambda: self._tasks.start(self._bootstrap(), "bootstrap"),
            doubted=self._updates.doubt,
        )
        self._reach = Reach(
            self._own,
            self._kernel.uplinks,
            self._ours,
            upnp=self.config.upnp,
            moved=self._moved,
            keep=self._keep_own,
            acquainted=self._peers.sessions.acquainted,
            reachable=lambda peer: peer in self._mesh.survey.peers,
            heard=self._peers.sessions.answered,
            tell=lambda peer: self._peers.send(peer, Code.ADDRESS, self._answers.addresses(peer).encode()),
        )
        self._news = VersionNews(
            self._peers.sessions,
            lambda: {*self._mesh.survey.neighbours, *self._tunnels, *self._mesh.clients},
            lambda peer: peer in self._mesh.survey.peers,
            self._peers,
        )
        self._home = Home(
            self._own, self.config.country, self._client.get_country, self._cache.own, changed=self._located
        )
        write_revoked(self.config.run, plan.parameters.crl)
        watch = RequirementWatch(requirement, self._peers, self._tunnels)
        self._guard = Guard(self._in_force, self._routing, self._tunnels, self._mesh, admission, watch, self._chronicle)
        self._care = KernelCare(
            self._kernel, self._presences, self._advertisements, self._routing, self._tunnels, self._in_force
        )
        observer = Observer(
            self._in_force,
            self._mesh,
            self._routing,
            self._guard,
            self._tunnels,
            self._own,
            self._chronicle,
            self._client,
            self._cache.addresses,
            self.config.verbosity,
            self._filter,
            self._care,
        )
        if self.config.metrics is not None:
            figures = NodeMetrics(
                self._in_force, observer, self._chronicle, self._peers, self._client, self._updates, self._own
            )
            self._metrics = MetricsServer(listen(self.config.metrics), figures.render)
        self._control = ControlServer(observer, self.config.run, self.config.console)

    async def _enter(self) -> None:
        """Put our address on the machine and start everything."""
        log.info("%s (%s), subnet %s, protocol %s", self.address, self.prefix.cn, self.subnet, PROTOCOL)
        self._advertisements.keep()
        await self._presences.enter(self._plan.presences)
        await self._tunnels.serve()
        self._tunnels.go_on()
        self._home.require(bool(self._plan.parameters.same_country))
        await self._home.start()
        following = Latest(self._follow_updates)
        self._updates.changed = lambda *_: following.news()
        self._updates.connected = lambda: self._mesh.connected
        changes = TableChanges(self.network, self._guard, self._filter, self._driver)
        self._loops = [
            self._tasks.start(self._routing.run(changes), "routing"),
            self._tasks.start(self._filter.run(), "packet filter"),
            self._tasks.start(self._care.run(), "what others change"),
            self._tasks.start(self._updates.run(), "updates"),
            self._tasks.start(following.run(), "new parameters"),
            self._tasks.start(self._home.run(), "country"),
            self._tasks.start(self._tick(), "tick"),
            self._tasks.start(self._reach.run(), "reach"),
            self._tasks.start(self._control.run(), "control socket"),
            self._tasks.start(LossWatch(self._tunnels, self._event).run(), "retransmissions"),
            self._tasks.start(program_outputs.keep_short(self.config.run), "outputs"),
        ]
        if self._found.pids:
            self._loops.append(self._tasks.start(self._catch_up(), "what was left running"))
        if self._plan.parameters.registry_prefix == self.prefix:  # and that registry may be of the older software
            shown = offer(self.config.run / run_names.BINARY_SOCKET, self._routing.table, self.subnet)
            self._loops.append(self._tasks.start(shown, run_names.BINARY_SOCKET))
        if self.config.metrics is not None:
            self._loops.append(self._tasks.start(self._metrics.run(), "metrics"))
        if self.config.remotes:
            self._loops.append(self._tasks.start(self._tunnels.follow(), "--client"))
        if self.config.multicast:
            program = multicast.Multicast(
                self._programs[multicast.PROGRAM],
                self.config.run,
                lambda: (*self._plan.server_interfaces, *self._plan.client_interfaces, *self.config.lan),
                self._kernel.links_up,
            )
            self._loops.append(self._tasks.start(program.run(), multicast.PROGRAM))
        await self._hooks.start()
        self._loops.append(self._tasks.start(self._hooks.watch(), "hooks"))
        self._waiting.cancel()  # ready once our address is there and babeld speaks
        ready = (self._routing.ready, self._care.present)
        told = self._notifier.go_on(ready, self._status, lambda: self._ticked)
        self._loops.append(self._tasks.start(told, "systemd"))

    async def _leave(self) -> None:
        """Stop everything, babeld first so that it retracts our routes (wire.md 10.9)."""
        log.info("leaving")
        self._driver.stop()
        self._notifier.stopping()
        self._cache.routes = len(self._mesh.survey.peers)
        await asyncio.gather(*map(end, self._loops))
        await self._tunnels.leave()
        await self._hooks.stop()
        await self._filter.close()
        await self._kernel.undo()
        self._advertisements.undo()
        await self._tasks.end_all()
        await process.end_leftovers(LEFT, self.config.run)  # found, and not gone on with

    # -- new parameters, new certificates --

    async def _follow_updates(self) -> bool:
        """Go on with what the registry said, changing only what it touches (wire.md 5.3 point 6); whether all is done.

        One at a time: of two that follow each other at once, the newer one has the last word.
        """
        self._identity = identity = self._updates.identity
        before = self._plan
        self._in_force.plan = self._tunnels.plan = plan = before.follow(self._updates.parameters, identity)
        self._crypto.use(identity)
        self._tasks.start(self._filter.follow(plan.packet_rules), "packet filter's rules")
        done = await self._presences.follow(plan.presences)
        self._peers.sessions.version = plan.parameters.version
        self._event(policy.SettingsChanged(self._settings()))
        self._home.require(bool(plan.parameters.same_country))
        self._news.start(time.monotonic())
        self._routing.follow_plan()
        if plan.parameters.crl - before.parameters.crl:
            await asyncio.sleep(LAST_WORD)
        self._cut_off(plan.parameters.crl)
        done = self._note_revoked() and done
        # It may take minutes, and has the newest plan at each step.
        self._tasks.start(self._tunnels.renew(lambda: self._mesh.survey), "servers with new settings")
        return done

    def _cut_off(self, crl: frozenset[int]) -> None:
        """End every session and tunnel with a peer whose certificate is revoked."""
        for peer in self._peers.sessions.forget(crl):
            log.warning("%s is revoked", peer)
        self._tunnels.cut_off(crl)

    def _note_revoked(self) -> bool:
        """Have OpenVPN refuse the revoked itself; whether that is done."""
        try:
            write_revoked(self.config.run, self._plan.parameters.crl)
        except OSError as error:
            log.error("%s: %s: OpenVPN does not know all revoked certificates", error.filename, error.strerror)
            return False
        return True

    # -- loops --

    async def _tick(self) -> None:
        while True:
            self._driver.tick()
            self._peers.tick()
            self._guard.tick()
            self._cache.tick()
            self._news.tick(time.monotonic(), older=self._plan.parameters.babel_hello is None)
            self._ticked = time.monotonic()
            await asyncio.sleep(TICK / 4 if self._mesh.draining else TICK)

    async def _catch_up(self) -> None:
        """Make anew what an earlier daemon left with another certificate or other settings, once we see the mesh."""
        await self._routing.babel.settle()
        await self._tunnels.renew(lambda: self._mesh.survey)

    def _status(self) -> str:
        up = sum(tunnel.phase is not policy.Phase.OPENING for tunnel in self._mesh.tunnels.values())
        state = "connected" if self._mesh.connected else "the registry's node is out of reach"
        return f"{state}, {up} of {max(up, self._mesh.limit)} tunnels, {len(self._mesh.survey.peers)} routes"

    # -- the mesh --

    def _event(self, event: policy.Event) -> None:
        self._driver.event(event)

    async def _bootstrap(self) -> None:
        peer, endpoints = await first_peer(self._client) or (None, ())
        if peer is not None:
            self._remember(peer, endpoints)
        self._event(policy.BootstrapAnswered(peer, endpoints))

    def _connected(self, connected: tunnel.Connected) -> None:
        self._cache.worked(connected.peer, connected.endpoint)
        self._reach.learn(connected, self._cache.addresses.get(connected.peer, ()))

    def _settings(self) -> policy.Settings:
        """What the policy is told."""
        return replace(self._plan.mesh(can_drain=self._filter.available), country=self._own.country)

    def _can_drain(self) -> None:
        """Tunnels can no longer be drained, or again."""
        if self._loops:
            self._event(policy.SettingsChanged(self._settings()))

    def _located(self) -> None:
        """Our country is another one."""
        self._event(policy.SettingsChanged(self._settings()))
        self._reach.refresh()

    def _keep_own(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Our addresses are these now."""
        self._cache.set_own(endpoints)
        self._home.moved()

    def _moved(self, lost: frozenset[kernel.Address], news: bool) -> None:
        """Addresses of this machine were lost, and others are there that were not."""
        self._tunnels.moved(lost)
        if news:
            self._event(policy.UplinkUp())

    def _ours(self, ip: kernel.Address) -> bool:
        """Whether an address is one inside re6st."""
        ipv4 = self._plan.parameters.ipv4
        return ip in self.network or (ipv4 is not None and ip in ipv4)

    def _remember(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints and peer != self.prefix:
            self._cache.learn(peer, endpoints, lambda p: p not in self._tunnels)

    def _worth_keeping(self) -> list[Prefix]:
        """Peers to remember for the next start, those we had tunnels with first."""
        if not hasattr(self, "_mesh"):
            return list(self._cache.addresses)
        count = max(self._mesh.settings.client_count, 10)
        return sorted(self._cache.addresses, key=lambda p: p not in self._mesh.survey.neighbours)[:count]
