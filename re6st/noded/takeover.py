"""What runs on when a daemon ends without leaving, and how the next one finds it.

A tunnel is an OpenVPN process of its own, and the routes are babeld's: both live on when the daemon is killed, or is
replaced by a newer one. Their sockets are in the run directory, where the next daemon connects to them; what the
sockets do not tell was noted in a file beside each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from re6st import babel, tunnel
from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.transport.records import (
    SIZE_LIMIT,
    ClientOfServer,
    ClientRecord,
    Record,
    RecordError,
    ServerRecord,
    decode,
    encode,
)
from re6st.core.tunnel_protocols import Role
from re6st.linux.local_addresses import source_address
from re6st.linux.process import leftovers
from re6st.service import run_names, rundir
from re6st.transport import catalogue

if TYPE_CHECKING:
    from re6st.core.transport.link_records import LinkRecord

log = logging.getLogger(__name__)

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier daemon left running, and can be gone on with: OpenVPN processes and links by interface."""

    clients: Mapping[str, ClientRecord] = field(default_factory=dict)
    servers: Mapping[str, ServerRecord] = field(default_factory=dict)
    babeld: int | None = None
    links: Mapping[str, LinkRecord] = field(default_factory=dict)
    """Of WireGuard: whether their interfaces are there is seen when they are gone on with."""

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.clients or self.servers or self.links or self.babeld is not None)

    @property
    def pids(self) -> frozenset[int]:
        clients, servers = self.clients.values(), self.servers.values()
        babeld = () if self.babeld is None else (self.babeld,)
        return frozenset((*(record.pid for record in clients), *(record.pid for record in servers), *babeld))

    @property
    def names(self) -> frozenset[str]:
        """Interfaces and processes that files in the run directory belong to."""
        named = (record.name for record in self.clients.values())
        return frozenset((*self.clients, *self.servers, *self.links, *named))

    @property
    def hosts(self) -> frozenset[str]:
        """The other ends of the client tunnels."""
        places = (record.place for record in self.links.values() if record.place is not None)
        return frozenset((*(r.endpoint.host for r in self.clients.values()), *(place.host for place in places)))


class Records:
    """The notes beside the sockets, one for each interface."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def write(self, interface: str, record: Record) -> None:
        """Note it. What cannot be noted costs the take-over only."""
        self._write(interface, encode(record))

    def write_link(self, interface: str, record: LinkRecord) -> None:
        """The same of a WireGuard link."""
        from re6st.core.transport import link_records

        self._write(interface, link_records.encode(record))

    def _write(self, interface: str, note: bytes) -> None:
        path = self._run / run_names.record(interface)
        try:
            rundir.write(path, note)
        except OSError as error:
            log.warning("cannot write %s: %s. A restart will cut its tunnels", path, error.strerror)

    def forget(self, interface: str) -> None:
        with contextlib.suppress(OSError):
            (self._run / run_names.record(interface)).unlink()

    def read(self) -> dict[str, Record]:
        """Every note of a process that is there and can be read."""
        return self._read(decode, links=False)

    def read_links(self) -> dict[str, LinkRecord]:
        """Every note of a WireGuard link."""
        if not any(self._noted(links=True)):
            return {}
        from re6st.core.transport import link_records  # most nodes have no use for it

        found = self._read(link_records.decode, links=True)
        return {interface: record for interface, record in found.items() if record.link.interface == interface}

    def _noted(self, *, links: bool) -> list[Path]:
        found = sorted(self._run.glob(run_names.record("*")))
        return [each for each in found if interfaces.is_ours(each.stem) and interfaces.is_link(each.stem) == links]

    def _read(self, read: Callable[[bytes], _Read], *, links: bool) -> dict[str, _Read]:
        found: dict[str, _Read] = {}
        for path in self._noted(links=links):
            try:
                with path.open("rb") as file:
                    found[path.stem] = read(file.read(SIZE_LIMIT))
            except (OSError, RecordError) as error:
                log.warning("%s: %s", path, error)
        return found


def look(run: Path, babeld: Sequence[str]) -> Found:
    """Find what runs with this run directory: `babeld` is the command line that ours has."""
    processes = leftovers(catalogue.PROGRAMS | {babel.PROGRAM}, run)
    clients: dict[str, ClientRecord] = {}
    servers: dict[str, ServerRecord] = {}
    peers: set[Prefix] = set()
    records = Records(run)
    for interface, record in records.read().items():
        name = record.name if isinstance(record, ClientRecord) else interface
        if not catalogue.is_managed(processes.get(record.pid, ()), run, name):
            continue
        if isinstance(record, ServerRecord):
            servers[interface] = record
        elif record.peer not in peers:
            clients[interface] = record
            peers.add(record.peer)
    same = [pid for pid, argv in processes.items() if list(argv) == list(babeld)]
    found = records.read_links()
    # Of a link that was about to take the place of a tunnel, the tunnel counts; and there is one with each peer.
    links = {link: record for link, record in found.items() if _goes_on(record, peers)}
    return Found(clients, servers, same[0] if len(same) == 1 else None, links)


def _goes_on(record: LinkRecord, peers: Collection[Prefix]) -> bool:
    """Whether a link is gone on with, where these are the peers of the client tunnels that are."""
    return record.link.role is Role.SERVER or record.peer not in peers


def client_record(client: tunnel.Dialer, connected: tunnel.Connected, config_digest: str) -> ClientRecord | None:
    """What the next daemon has to know of a client tunnel that is up; None where it ends with this daemon."""
    if client.process is None or client.since is None:
        return None
    pid, name = client.process
    return ClientRecord(
        pid,
        config_digest,
        name,
        connected.peer,
        connected.endpoint,
        connected.serial,
        connected.external_ip,
        connected.mtu,
        since_1970(client.since),
        connected.number,
        client.mark,
    )


def server_record(server: tunnel.Listener, config_digest: str) -> ServerRecord | None:
    """What the next daemon has to know of a server; None where it ends with this daemon, or does not run yet."""
    if server.pid is None:
        return None
    clients = {
        ident: ClientOfServer(client.peer, client.serial, client.address, since_1970(client.since), client.number)
        for ident, client in server.clients.items()
    }
    return ServerRecord(server.pid, config_digest, clients)


def found_client(record: ClientRecord | None, interface: str) -> tunnel.FoundClient | None:
    """The client tunnel that an earlier daemon left, as its record (`client_record`) says; None without one."""
    if record is None:
        return None
    connected = tunnel.Connected(
        record.peer,
        record.endpoint,
        interface,
        record.serial,
        record.external_ip,
        record.mtu,
        source_address(record.endpoint.host, record.mark),
        record.number,
    )
    return tunnel.FoundClient(record.pid, record.name, monotonic(record.since), connected)


def found_server(record: ServerRecord | None) -> tunnel.FoundServer | None:
    """The server that an earlier daemon left, as its record (`server_record`) says; None without one."""
    if record is None:
        return None
    clients = {
        ident: tunnel.ServerClient(client.peer, client.serial, client.address, monotonic(client.since), client.number)
        for ident, client in record.clients.items()
    }
    return tunnel.FoundServer(record.pid, clients)


def since_1970(moment: float) -> float:
    """A moment of the event loop's clock as Unix time, which the next daemon can read."""
    return time.time() - asyncio.get_running_loop().time() + moment


def monotonic(moment: float) -> float:
    """The inverse of `since_1970`."""
    return asyncio.get_running_loop().time() - time.time() + moment
