"""The operations of the control socket: reads the rooms of the node, and tells (docs/control.md)."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any

from re6st import PROTOCOL, __version__, cert
from re6st.client.certificate_report import describe
from re6st.client.counted_client import CountedClient
from re6st.core.mesh import policy
from re6st.core.mesh.families import nothing_in_common
from re6st.core.prefix import Prefix, PrefixError, address, subnet
from re6st.core.telemetry import report
from re6st.core.telemetry.event_log import EventLog, Happening
from re6st.core.telemetry.report import Record
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import version_number
from re6st.keys import pki
from re6st.noded.dead_links import DeadLinks
from re6st.noded.guard import Guard
from re6st.noded.kernel_care import KernelCare
from re6st.noded.link_capacities import LinkCapacities
from re6st.noded.log_stream import LogStream
from re6st.noded.mptcp import Mptcp
from re6st.noded.options_in_use import options_in_use
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.packet_filter import PacketFilter
from re6st.noded.routing import RoutingPlane
from re6st.noded.settings import InForce
from re6st.noded.sharing_rooms import SharingRooms
from re6st.noded.throughput import Throughput
from re6st.noded.tunnels import Tunnels
from re6st.noded.uplinks import Uplinks
from re6st.service.control import ControlError
from re6st.service.json_lines import Status
from re6st.service.logs import LEVELS

if TYPE_CHECKING:
    from re6st.core.telemetry.metrics import MetricsPage
    from re6st.core.telemetry.node_metrics import Counts

PAGE = 1000
"""Routes, or events, in one answer."""
NAMES_LIMIT = 64
"""Names asked for at once."""
TEXT_LIMIT = 100
BEHIND_LIMIT = 256
"""Events that wait for somebody who watches, before the connection ends."""


@dataclass(frozen=True, slots=True)
class MeshRooms:
    """The rooms that know the mesh. `addresses` is where peers are, as far as we know."""

    policy: policy.Mesh
    routing: RoutingPlane
    tunnels: Tunnels
    own: OwnAddresses
    addresses: Mapping[Prefix, Sequence[Endpoint]]
    event_log: EventLog


@dataclass(frozen=True, slots=True)
class Watchers:
    """The rooms that look for trouble. `registry` knows what became of calls of the registry."""

    registry: CountedClient
    guard: Guard
    packet_filter: PacketFilter
    care: KernelCare
    dead_links: DeadLinks
    bulk: BulkRooms
    lines: LineRooms


@dataclass(frozen=True, slots=True)
class LineRooms:
    """The rooms of the machine's lines to the Internet."""

    uplinks: Uplinks
    shares: SharingRooms
    mptcp: Mptcp

    def record(self) -> Record:
        """For the operator."""
        return {**self.uplinks.record(), **self.shares.record(), "mptcp": self.mptcp.record()}

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        return [*self.uplinks.problems(), *filter(None, [self.mptcp.problem()])]


@dataclass(frozen=True, slots=True)
class BulkRooms:
    """The rooms of the throughput plane."""

    throughput: Throughput
    capacities: LinkCapacities

    def record(self, planes: int) -> Record:
        """For the operator; `planes` is how many the network has."""
        plane = self.throughput.plane
        return {
            "planes": planes,
            "active": plane is not None,
            "trouble": self.throughput.trouble,
            "routes": 0 if plane is None else sum(route.usable for route in plane.table.routes.values()),
            "trains": self.capacities.measured,
            "links": self.capacities.record() if plane is not None else {},
        }

    def problem(self) -> str | None:
        """What keeps the plane away, in words."""
        trouble = self.throughput.trouble
        return f"bulk traffic goes by latency: {trouble}" if trouble else None

    def reached(self) -> list[str] | None:
        """The nodes that bulk traffic gets to by capacity; None where all of it goes by latency."""
        plane = self.throughput.plane
        return None if plane is None else sorted(peer.cn for peer in plane.survey().peers)


class Observer:
    """Answers for one node, out of its rooms; `verbosity` is its -v."""

    def __init__(self, in_force: InForce, mesh: MeshRooms, watchers: Watchers, verbosity: int) -> None:
        self._in_force = in_force
        self._mesh = mesh.policy
        self._routing = mesh.routing
        self._tunnels = mesh.tunnels
        self._own = mesh.own
        self._addresses = mesh.addresses
        self._event_log = mesh.event_log
        self._registry = watchers.registry
        self._guard = watchers.guard
        self._filter = watchers.packet_filter
        self._care = watchers.care
        self._dead_links = watchers.dead_links
        self._bulk = watchers.bulk
        self._lines = watchers.lines
        self._log = LogStream(verbosity)
        self._started = time.monotonic()
        self._operations: Mapping[str, Callable[[_Arguments], Record]] = {
            "status": self._status,
            "tunnels": self._list_tunnels,
            "uplinks": self._list_uplinks,
            "neighbours": self._neighbours,
            "routes": self._routes,
            "reachable": self._reachable,
            "why": self._why,
            "names": self._names,
            "events": self._events,
            "peers": self._peers,
            "certificate": self._certificate,
            "parameters": self._parameters,
            "options": self._options,
        }

    def call(
        self, operation: str, arguments: Mapping[str, Any], *, trusted: bool
    ) -> Record | AsyncGenerator[Record, None]:
        """Raises ControlError."""
        given = _Arguments(arguments)
        if operation == "watch":
            given.end()
            return self._watch()
        if operation in ("log", "follow"):
            return self._level(operation, given, trusted)
        if operation not in self._operations:
            known = ", ".join(sorted((*self._operations, "watch", "log", "follow")))
            raise ControlError(Status.USAGE, f"unknown operation {operation[:40]!r}: one of {known}")
        return self._operations[operation](given)

    def health(self) -> Record:
        """The verdict, with reasons in words."""
        effective, now = self._in_force.effective, time.time()
        count = report.counts(self._mesh)
        up = sum(link.outgoing and link.since is not None for link in self._tunnels.links())
        return report.health(
            report.Vitals(
                now=now,
                connected=self._mesh.connected,
                babel_running=self._routing.ready.is_set(),
                babel_late=self._routing.babel.late,
                babel_ended=self._event_log.babel_ended(now),
                tunnels=up,
                clients=sum(self._mesh.clients.values()),
                reachable=len(self._mesh.survey.peers),
                alone=effective.parameters.registry_prefix == effective.identity.prefix and not count["peers"],
                servers=self._tunnels.listeners(),
                certificate_until=pki.end_of(effective.identity.cert).timestamp(),
                ca_until=pki.end_of(effective.identity.trust.ca).timestamp(),
                refused=self._registry.refused,
                likely_refused=self._registry.likely_refused,
                others=[
                    *self._guard.problems(),
                    *self._lines.problems(),
                    *filter(
                        None,
                        [self._bulk.problem(), self._registry.clock_problem(), None if up else self._families()],
                    ),
                    *self._care.doubts(),
                ],
                broken=self._care.broken(),
            )
        )

    def _families(self) -> str | None:
        """Why no tunnel can be opened to anybody that we know."""
        servers = [endpoint for endpoints in self._addresses.values() for endpoint in endpoints]
        return nothing_in_common(self._own.uplinks, servers)

    def metrics(self, counts: Counts) -> MetricsPage:
        """Everything in figures; `counts` is what others count."""
        from re6st.core.telemetry.node_metrics import node_page  # few nodes are asked for it

        now = asyncio.get_running_loop().time()
        return node_page(
            self._status(_Arguments({})),
            report.tunnels(self._mesh, self._routing.table, self._tunnels.links(), now),
            report.neighbours(self._mesh.survey, self._routing.table),
            self._routing.table,
            counts,
            time.time(),
        )

    # -- operations --

    def _status(self, given: _Arguments) -> Record:
        given.end()
        effective = self._in_force.effective
        identity, parameters = effective.identity, effective.parameters
        network, until = identity.trust.network, pki.end_of(identity.cert)
        return {
            "program": "re6stnet",
            "version": __version__,
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "tasks": len(asyncio.all_tasks()),
            "log_level": self._log.verbosity,
            "cn": identity.prefix.cn,
            "address": str(address(network, identity.prefix)),
            "subnet": str(subnet(network, identity.prefix)),
            "network": str(network),
            "ipv4": str(effective.ipv4_address) if effective.ipv4_address else None,
            "certificate": {
                "serial": identity.cert.serial_number,
                "until": int(until.timestamp()),
                "renews": int((until - cert.RENEW_BEFORE).timestamp()),
                "ca_until": int(pki.end_of(identity.trust.ca).timestamp()),
            },
            "registry": {
                "url": self._registry.registries.choice.present,
                "cn": self._mesh.registry_node.cn,
                "connected": self._mesh.connected,
                "answered": self._registry.answered,
                "refused": self._registry.refused,
                "likely_refused": self._registry.likely_refused,
                "all": self._registry.registries.record(),
            },
            "parameters": version_number(parameters.version),
            "require": sorted(parameters.require),
            "advertised": [
                {"host": e.host, "port": e.port, "protocol": e.protocol, "origin": self._own.origin(e)}
                for e in self._own.endpoints()
                if e.port
            ],
            "servers": [
                {
                    "protocol": server.protocol,
                    "port": server.port,
                    "interface": server.interface,
                    "listening": server.listening,
                    "clients": server.clients,
                    "restarts": server.restarts,
                }
                for server in self._tunnels.listeners()
            ],
            "babel": {
                "running": self._routing.ready.is_set(),
                "late": self._routing.babel.late,
                "ended_last_hour": self._event_log.babel_ended(time.time()),
                "routes_known": len(self._routing.table.routes),
            },
            "claims": self._guard.record(),
            "mesh": {**report.counts(self._mesh), "clients_served": self._event_log.counts["client-up"]},
            "regions": report.regions(self._mesh),
            "links": self._dead_links.record(),
            "bulk": self._bulk.record(effective.planes),
            "uplinks": self._lines.record(),
            "packet_filter": {
                "active": self._filter.active,
                "missing": sorted(part.value for part in self._filter.missing),
                "dropped": dict(self._filter.dropped),
            },
            "health": self.health(),
        }

    def _parameters(self, given: _Arguments) -> Record:
        """What a registry may have forgotten whose database was restored (registryd/restored.py)."""
        given.end()
        parameters = self._in_force.effective.parameters
        version = base64.b64encode(parameters.version).decode("ascii")
        return {"version": version, "revoked": sorted(parameters.crl)}

    def _list_tunnels(self, given: _Arguments) -> Record:
        given.end()
        now = asyncio.get_running_loop().time()
        links, lost = self._tunnels.links(), self._dead_links.losses.measured.share
        return {"tunnels": report.tunnels(self._mesh, self._routing.table, links, now, lost)}

    def _list_uplinks(self, given: _Arguments) -> Record:
        given.end()
        return self._lines.record()

    def _neighbours(self, given: _Arguments) -> Record:
        given.end()
        return {"neighbours": report.neighbours(self._mesh.survey, self._routing.table)}

    def _routes(self, given: _Arguments) -> Record:
        offset, limit = given.integer("offset", 0, 1 << 30, 0), given.integer("limit", 0, PAGE, PAGE)
        given.end()
        network = self._in_force.effective.identity.trust.network
        return report.routes(self._mesh.survey, self._routing.table, network, offset, limit)

    def _reachable(self, given: _Arguments) -> Record:
        """For the registry beside us, which would take one of babeld's few connections else."""
        given.end()
        peers = sorted(peer.cn for peer in self._mesh.survey.peers)
        return {
            "running": self._routing.ready.is_set(),
            "late": self._routing.babel.late,
            "reachable": peers,
            "by_capacity": self._bulk.reached(),
            "uplinks": self._lines.uplinks.states(),
            "claims": self._guard.record(),
        }

    def _why(self, given: _Arguments) -> Record:
        text = given.text("peer")
        given.end()
        effective = self._in_force.effective
        network, own = effective.identity.trust.network, effective.identity.prefix
        peer = self._find(text)
        if peer == own:
            raise ControlError(Status.USAGE, f"{peer} is this node itself")
        region = self._mesh.region_of(peer) if peer else None
        known = region or peer
        ways = report.why(self._mesh.survey, self._routing.table, network, known) if known else []
        if peer is None or known is None or not ways:
            raise ControlError(Status.NOT_FOUND, f"no route to {peer or text} is known")
        since = report.since(self._mesh.survey, self._routing.history[subnet(network, known)])
        return {
            **report.name(network, peer),
            "region": region.cn if region else None,
            "since": since,
            "routes": ways,
            "bulk": self._why_bulk(network, known),
        }

    def _why_bulk(self, network: IPv6Network, peer: Prefix) -> Record | None:
        """The same of bulk traffic; None where there is no plane for it."""
        plane = self._bulk.throughput.plane
        if plane is None:
            return None
        since = report.since(self._mesh.survey, plane.history[subnet(network, peer)])
        return {"since": since, "routes": report.why(self._mesh.survey, plane.table, network, peer)}

    def _names(self, given: _Arguments) -> Record:
        texts = given.texts("peers")
        given.end()
        network = self._in_force.effective.identity.trust.network
        found = {text: self._find(text) for text in texts}
        return {"names": {text: report.name(network, peer) if peer else None for text, peer in found.items()}}

    def _find(self, text: str) -> Prefix | None:
        identity = self._in_force.effective.identity
        try:
            return report.find(self._is_known, identity.trust.network, text)
        except PrefixError as error:
            message = f"{text!r} is not a node, such as 4/16, or an address or subnet of one: {error}"
            raise ControlError(Status.USAGE, message) from None

    def _is_known(self, prefix: Prefix) -> bool:
        identity, survey = self._in_force.effective.identity, self._mesh.survey
        if prefix in (identity.prefix, *survey.neighbours) or prefix in survey.peers or prefix in survey.starved:
            return True
        return self._routing.history[subnet(identity.trust.network, prefix)] is not None

    def _events(self, given: _Arguments) -> Record:
        after, limit = given.integer("after", 0, 1 << 60, 0), given.integer("limit", 1, PAGE, PAGE)
        given.end()
        found = [h for h in self._event_log.happenings if h.number > after]
        return {"events": [report.event(happening) for happening in found[-limit:]]}

    def _peers(self, given: _Arguments) -> Record:
        given.end()
        return {"peers": report.peers(self._mesh, self._addresses, self._event_log.happenings)}

    def _certificate(self, given: _Arguments) -> Record:
        given.end()
        identity = self._in_force.effective.identity
        return describe(identity.trust.ca, identity.cert)

    def _options(self, given: _Arguments) -> Record:
        given.end()
        return options_in_use(self._in_force.effective)

    def _level(self, operation: str, given: _Arguments, trusted: bool) -> Record | AsyncGenerator[Record, None]:
        """The log: another level for it, or what is logged from now on."""
        level = None
        if operation == "log" or "level" in given:
            level = given.integer("level", 0, len(LEVELS) - 1, None)
            if not trusted:
                raise ControlError(Status.NOT_ALLOWED, "only root may change the log level")
        given.end()
        if operation == "log" and level is not None:
            return self._log.change(level)
        return self._log.follow(level)

    async def _watch(self) -> AsyncGenerator[Record, None]:
        """Happenings as they come. Who does not keep up is cut off."""
        waiting: asyncio.Queue[Happening | None] = asyncio.Queue(BEHIND_LIMIT + 1)

        def hear(happening: Happening) -> None:
            if waiting.qsize() < BEHIND_LIMIT:
                waiting.put_nowait(happening)
            elif not waiting.full():
                waiting.put_nowait(None)

        self._event_log.listeners.add(hear)
        try:
            yield {"watching": True}
            while happening := await waiting.get():
                yield report.event(happening)
        finally:
            self._event_log.listeners.discard(hear)


class _Arguments:
    """The arguments of a request, from outside: read by type, and no others allowed."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def integer(self, name: str, low: int, high: int, default: int | None) -> int:
        value = self._values.pop(name, default)
        if type(value) is not int or not low <= value <= high:
            raise ControlError(Status.USAGE, f"{name} is not a number between {low} and {high}")
        return value

    def text(self, name: str) -> str:
        return self._text(name, self._values.pop(name, None))

    def texts(self, name: str) -> list[str]:
        values = self._values.pop(name, None)
        if not isinstance(values, list) or len(values) > NAMES_LIMIT:
            raise ControlError(Status.USAGE, f"{name} is not a list of at most {NAMES_LIMIT} texts")
        return [self._text(name, value) for value in values]

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= TEXT_LIMIT or not value.isprintable():
            raise ControlError(Status.USAGE, f"{name} is not a text of 1 to {TEXT_LIMIT} characters")
        return value

    def end(self) -> None:
        if self._values:
            raise ControlError(Status.USAGE, f"unknown argument {min(self._values)[:40]!r}")
