"""The node: starts its rooms in order, follows what the registry says, and ends them (noded/rooms.py builds them).

Everything that is added to the machine is made by one of the rooms (linux/kernel.py, babel.py, tunnel.py,
noded/peer_socket.py) and taken away again in `_leave`, babeld first, so that it can tell its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from re6st import PROTOCOL, babel, cert
from re6st.client.answered_hellos import AnsweredHellos
from re6st.client.counted_client import CountedClient
from re6st.core.machine.wanted_state import AddressPlan, Kept
from re6st.core.prefix import Prefix, address, subnet
from re6st.core.routing.planes import MAIN
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.linux import process
from re6st.linux.local_addresses import local_addresses
from re6st.noded import multicast, program_outputs, takeover
from re6st.noded.first_peer import FirstPeer
from re6st.noded.left_behind import LEFT, former_regions, remove
from re6st.noded.left_routes import lead_out
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.peer_cache import Cache
from re6st.noded.peer_socket import control_socket
from re6st.noded.pem_files import rewrite
from re6st.noded.registry_updates import Updates
from re6st.noded.rooms import Base, MachineRooms, Rooms, build
from re6st.noded.routing import SPREAD_LAST
from re6st.noded.settings import Config, EffectiveConfig
from re6st.noded.takeover import Found
from re6st.service import run_names
from re6st.service.rundir import RunDirectory, remove_old, write_revoked
from re6st.service.sd_notify import Notifier
from re6st.service.tasks import Latest, Tasks, end, unless
from re6st.transport import catalogue

LAST_WORD = 0.2
"""Seconds for the news to get to those that it cuts off: whose serial was revoked, may renew and come back."""
FOLLOWED = SPREAD_LAST + 15.0
"""Seconds until all babelds have started anew with new parameters."""
PROGRAMS = (babel.PROGRAM, *sorted(catalogue.PROGRAMS))

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
        self._client = CountedClient([config.registry, *config.other_registries], identity)
        self._first_peer = FirstPeer(self._client)
        self._run = RunDirectory(config.run, keep=True)  # for the next one, if we never live
        local = [ip for ip in local_addresses() if ip not in self.network]
        self._own = OwnAddresses(config.offered, config.ip, local, network=self.network)
        self._cache: Cache | None = None
        self._machine: MachineRooms | None = None
        self._rooms: Rooms | None = None
        """What there is of us by now."""
        self.started = False
        """Whether all that a person can have set up wrong has worked."""
        self._notifier = Notifier()  # it takes from the environment what another node would need, if we were none
        log.debug("this node is %s", self.prefix)

    # -- for who runs us --

    async def run(self, stop: asyncio.Event) -> None:
        """Live until `stop` is set, then leave nothing behind.

        Raises OSError, KernelError, PortInUse, TooOld and RunDirectoryError when it cannot start.
        """
        waiting = asyncio.create_task(self._notifier.wait(), name="waiting")
        try:
            # Nobody else's files, addresses or tunnels are touched before it is sure that we are alone here.
            with self._run, control_socket() as control:
                self._client.hellos = AnsweredHellos(self.config.state / "hellos")
                self._cache = Cache(self.config.state / "cache.db")
                try:
                    await self._run_alone(self._cache, control, waiting, stop)
                finally:
                    self._cache.close(keep=self._worth_keeping(self._cache))
        finally:
            waiting.cancel()
            self._notifier.close()

    async def hand_over(self) -> dict[str, str]:
        """Leave all that runs to another daemon; this one must end at once, without leaving in order.

        Tunnels and babeld go on, and so does the traffic. What the next one wants in its environment is returned.
        """
        log.info("handing over to the next daemon")
        self._notifier.reloading()
        if self._rooms is not None:
            self._rooms.driver.stop()
        if self._machine is not None:
            await self._machine.hand_over()
        if self._cache is not None:
            self._cache.close(keep=self._worth_keeping(self._cache))
        return self._notifier.environment

    def reopen_logs(self) -> None:
        """Have babeld open its log file again."""
        if self._rooms is not None:
            self._rooms.planes.reopen_logs()

    def _worth_keeping(self, cache: Cache) -> list[Prefix]:
        """Peers to remember for the next start."""
        return list(cache.addresses) if self._rooms is None else self._rooms.known.worth_keeping()

    # -- start --

    async def _run_alone(
        self, cache: Cache, control: socket.socket, waiting: asyncio.Task[None], stop: asyncio.Event
    ) -> None:
        news = asyncio.Event()
        updates = Updates(self._client, self.config.files, self._identity, cache, news.set)
        base = Base(
            self.config, self._identity, self._programs, self._client, self._own, cache, updates, self._first_peer
        )
        self._notifier.status("waiting for the network parameters from the registry")
        parameters = await unless(stop, updates.start())
        self._run.keep = False
        if parameters is None:
            await remove(self.config.run)
            return
        log.debug("the network parameters are there, version %s", parameters.version.hex())
        self._machine = machine = await MachineRooms.of(base)
        rooms = None
        try:
            found, left, former = await self._clear(machine)
            async with Tasks() as tasks:
                self._rooms = rooms = build(base, machine, found, left, tasks)
                write_revoked(self.config.run, parameters.crl)
                rooms.peers.open(control)
                member = Member(base, machine, rooms, tasks, former)
                try:
                    await member.enter(found, news)
                    waiting.cancel()  # ready once our address is there and babeld speaks
                    member.tell(self._notifier)
                    self.started = True
                    await stop.wait()
                finally:
                    await member.leave(self._notifier)
        finally:
            # Also after a task died: what is left is little, and must not stay.
            await machine.clear_up()
            if not self.started:  # with all that an earlier daemon left to us
                await remove(self.config.run, machine.in_force.effective.address_plans)
            machine.kernel.close()
            if rooms is not None:
                rooms.peers.close()

    async def _clear(self, machine: MachineRooms) -> tuple[Found, babel.Left, list[AddressPlan]]:
        """Find what an earlier run that was killed, or replaced, left running; remove everything else that it left.

        Also found are the regions that its babeld tells others of, and that are none any more.
        """
        effective, run = machine.in_force.effective, self.config.run
        former = former_regions(run, effective.address_plans)
        found = takeover.look(run, effective.babel_command(MAIN))
        if not found and effective.client_count and effective.parameters.registry_prefix != self.prefix:
            self._first_peer.foresee()  # while we look after this machine
        for pid in await process.end_leftovers(LEFT, run, found.pids):
            log.warning("ended process %s, left by an earlier run", pid)
        remove_old(run, found.names)
        await machine.hooks.clear()
        routes = await machine.kernel.babel_routes(MAIN).ways(effective.address_plans) if found else {}
        if lead_out(routes):
            machine.packet_filter.expect_outside()
        await machine.packet_filter.follow(effective.packet_rules)
        kept = Kept(found.hosts, self.config.main_interface, frozenset(found.links)) if found else None
        for what in await machine.kernel.clear((*effective.address_plans, *former), kept):
            log.warning("removed %s, left by an earlier run", what)
        if found:
            counts = len(found.clients), len(found.servers), len(found.links)
            log.info("taking over %s tunnels, %s servers and %s WireGuard links", *counts)
        else:
            log.debug("nothing of an earlier run is left")
        return found, babel.Left(found.babeld, routes), former if found else []


class Member:
    """A node that has its rooms: enters the network, follows what the registry says, and leaves."""

    def __init__(
        self, base: Base, machine: MachineRooms, rooms: Rooms, tasks: Tasks, former_regions: Sequence[AddressPlan] = ()
    ) -> None:
        self._base = base
        self._machine = machine
        self._rooms = rooms
        self._tasks = tasks
        self._loops: list[asyncio.Task[None]] = []
        self._former_regions = list(former_regions)

    async def enter(self, found: Found, news: asyncio.Event) -> None:
        """Put our address on the machine and start everything; go on with what an earlier daemon left."""
        base, machine, rooms, effective = self._base, self._machine, self._rooms, self._machine.in_force.effective
        prefix, network = base.identity.prefix, base.identity.trust.network
        log.info("%s (%s), subnet %s, protocol %s", address(network, prefix), prefix.cn, effective.subnet, PROTOCOL)
        machine.sysctls.keep()
        machine.advertisements.keep()
        await self._enter_addresses()
        await rooms.uplinks.look()  # before any tunnel is opened, or gone on with
        rooms.tunnels.go_on()  # before the servers tell of clients: what we have is to be known by then
        await rooms.tunnels.servers.serve(found.servers)
        rooms.country.require(bool(effective.parameters.same_country))
        await rooms.country.start()
        self._start(rooms.planes.run(rooms.table_changes), "routing")
        self._start(machine.packet_filter.run(), "packet filter")
        self._start(rooms.settings_news.follow(machine.can_drain), "whether tunnels can be drained")
        self._start(rooms.care.run(), "what others change")
        self._start(base.updates.run(rooms.mesh), "updates")
        self._start(Latest(self._follow_updates, news).run(), "new parameters")
        self._start(rooms.country.run(), "country")
        self._start(rooms.uplinks.run(), "uplinks")
        self._start(rooms.pulse.run(), "pulse")
        self._start(rooms.advertiser.run(rooms.moves), "reach")
        self._start(rooms.control.run(), "control socket")
        self._start(rooms.losses.run(), "retransmissions")
        if rooms.links is not None:
            self._start(rooms.links.run(), "WireGuard links")
        self._start(rooms.link_mtus.run(), "sizes of packets on tunnels")
        self._start(rooms.dead_links.run(), "dead links")
        self._start(rooms.shares.outgoing.run(), "connections over several lines")
        self._start(rooms.shares.incoming.run(), "what comes over several lines")
        self._start(rooms.shares.handing.run(), "lines of neighbours")
        self._start(rooms.mptcp.run(), "one connection over several lines")
        self._start(rooms.capacities.run(), "what tunnels carry")
        self._start(program_outputs.keep_short(base.config.run), "outputs")
        if found:
            self._start(self._catch_up(), "what was left running")
        if effective.parameters.registry_prefix == prefix:  # and that registry may be of the older software
            from re6st.babeld.binary_socket import offer

            shown = offer(base.config.run / run_names.BINARY_SOCKET, rooms.routing.table, effective.subnet)
            self._start(shown, run_names.BINARY_SOCKET)
        if rooms.metrics is not None:
            self._start(rooms.metrics.run(), "metrics")
        if base.config.remotes:
            self._start(rooms.tunnels.follow(), "--client")
        if rooms.multicast is not None:
            self._start(rooms.multicast.run(), multicast.PROGRAM)
        await machine.hooks.start()
        self._start(machine.hooks.watch(), "hooks")

    def tell(self, notifier: Notifier) -> None:
        """Tell systemd that we are ready, once we are, and how we are."""
        ready = self._rooms.routing.ready, self._rooms.care.present
        self._start(notifier.go_on(ready, self._rooms.driver.status, self._rooms.pulse.last), "systemd")

    async def leave(self, notifier: Notifier) -> None:
        """Stop everything, babeld first so that it retracts our routes (wire.md 10.9)."""
        log.info("leaving the network")
        self._rooms.driver.stop()
        notifier.stopping()
        self._base.cache.routes = len(self._rooms.mesh.survey.peers)
        await asyncio.gather(*map(end, self._loops))
        await self._rooms.tunnels.leave()
        await self._machine.clear_up()
        await self._tasks.end_all()
        await process.end_leftovers(LEFT, self._base.config.run)  # found, and not gone on with

    def _start(self, loop: Coroutine[Any, Any, None], name: str) -> None:
        self._loops.append(self._tasks.start(loop, name))

    async def _catch_up(self) -> None:
        """Make anew what an earlier daemon left with another certificate or other settings, once we see the mesh."""
        await self._rooms.routing.babel.settle()
        await self._rooms.tunnels.renew(self._rooms.routing.survey)

    # -- new parameters, new certificates --

    async def _follow_updates(self) -> bool:
        """Go on with what the registry said, changing only what it touches (wire.md 5.3 point 6); whether all is done.

        One at a time: of two that follow each other at once, the newer one has the last word.
        """
        updates, machine, rooms, in_force = self._base.updates, self._machine, self._rooms, self._machine.in_force
        before = in_force.effective
        in_force.effective = effective = before.follow(updates.parameters, updates.identity)
        self._use_identity(before.identity, effective.identity)
        self._tasks.start(machine.packet_filter.follow(effective.packet_rules), "packet filter's rules")
        self._keep_region(before)
        done = await machine.addresses.follow(self._address_plans())
        rooms.peers.sessions.version = effective.parameters.version
        rooms.settings_news.tell()
        rooms.country.require(bool(effective.parameters.same_country))
        rooms.version_news.start(time.monotonic())
        rooms.pulse.wake()
        rooms.planes.follow_settings()
        if effective.parameters.crl - before.parameters.crl:
            await asyncio.sleep(LAST_WORD)
        self._cut_off(effective.parameters.crl)
        done = self._note_revoked(effective.parameters.crl) and done
        # It may take minutes, and has the newest settings at each step.
        self._tasks.start(rooms.tunnels.renew(rooms.routing.survey), "servers with new settings")
        return done

    async def _enter_addresses(self) -> None:
        """Put our addresses there, and those of regions that an earlier daemon told others of, for a while."""
        await self._machine.addresses.enter(self._address_plans())
        if self._former_regions:
            self._tasks.start(self._give_up(list(self._former_regions)), "a former region")

    def _keep_region(self, before: EffectiveConfig) -> None:
        """Go on telling others of a region that is none any more, as long as they may lead by it alone."""
        now = self._machine.in_force.effective.address_plans
        if gone := [plan for plan in before.address_plans if plan.protocol == ROUTE_PROTOCOL and plan not in now]:
            self._former_regions += gone
            self._tasks.start(self._give_up(gone), "a former region")

    async def _give_up(self, plans: list[AddressPlan]) -> None:
        await asyncio.sleep(FOLLOWED)
        self._former_regions = [plan for plan in self._former_regions if plan not in plans]
        await self._machine.addresses.follow(self._address_plans())

    def _address_plans(self) -> list[AddressPlan]:
        return list(dict.fromkeys((*self._machine.in_force.effective.address_plans, *self._former_regions)))

    def _use_identity(self, before: cert.Identity, now: cert.Identity) -> None:
        """Go on with our certificate of now; if it is another one, the peers of links learn it at once."""
        self._rooms.crypto.use(now)
        if self._rooms.links is not None and now.der != before.der:
            self._rooms.links.renewed()

    def _cut_off(self, crl: frozenset[int]) -> None:
        """End every session and tunnel with a peer whose certificate is revoked."""
        for peer in self._rooms.peers.sessions.forget(crl):
            log.warning("%s is revoked", peer)
            if self._rooms.links is not None:
                self._rooms.links.cut(peer)  # it may have agreed on one by an earlier certificate
        self._rooms.tunnels.cut_off(crl)

    def _note_revoked(self, crl: frozenset[int]) -> bool:
        """Have OpenVPN refuse the revoked itself; whether that is done."""
        try:
            write_revoked(self._base.config.run, crl)
        except OSError as error:
            log.error(
                "cannot write %s: %s. OpenVPN does not know all revoked certificates", error.filename, error.strerror
            )
            return False
        return True
