"""What stands in for the kernel, for babel's filter and for the tunnels of a node in tests of the rooms around them.

Each has all methods of the contract it stands for (re6st/tunnel.py, re6st/noded/contracts.py), or it fails the type
check where a test hands it over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from re6st import cert
from re6st.client.files import Files
from re6st.core.mesh import policy
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix
from re6st.core.telemetry.report import Link
from re6st.core.transport.link_records import LinkRecord
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import Role, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import Parameters
from re6st.linux.hardware import Hardware
from re6st.linux.kernel import Address, KernelError
from re6st.noded.contracts import LinkEnd, TunnelKernel
from re6st.noded.packet_filter import Sender
from re6st.noded.remote_gateway import RemoteGateways
from re6st.noded.settings import Config, EffectiveConfig, InForce
from re6st.noded.tunnel_parts import TunnelParts
from re6st.service.tasks import Tasks
from re6st.tunnel import (
    Connected,
    Dialer,
    FoundClient,
    FoundServer,
    ListenerOwner,
    ServerClient,
    Traffic,
    TunnelFactory,
)


class FakeKernel:
    """One where an interface may take long to be bounced, and that has no routes by other gateways."""

    def __init__(self, seconds: float = 60) -> None:
        self.hardware = Hardware(None)
        self.bounced: list[str] = []
        self._seconds = seconds

    def gateways(self) -> dict[IPv4Address, IPv4Address]:
        return {}

    async def add_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        raise AssertionError(f"a route to {ip} by {gateway}")

    async def delete_route(self, ip: IPv4Address, gateway: IPv4Address) -> None:
        raise AssertionError(f"a route to {ip} by {gateway}")

    async def leads_outside(self, host: str, mark: int = 0) -> bool:
        return True

    async def make_tap(self, name: str) -> None: ...

    async def set_up(self, name: str, mtu: int | None = None) -> None: ...

    async def bounce(self, name: str, until_unused: Callable[[], Awaitable[None]]) -> None:
        self.bounced.append(name)
        await asyncio.sleep(self._seconds)


class BusyKernel(FakeKernel):
    """An interface that somebody else holds at first."""

    def __init__(self) -> None:
        super().__init__(0)
        self.tries = 0

    async def make_tap(self, name: str) -> None:
        self.tries += 1
        if self.tries < 3:
            raise KernelError("cannot make the interface re6stnet-udp: Device or resource busy.")


class FakeFilter:
    """Notes what is drained, and what no longer."""

    def __init__(self) -> None:
        self.available = self.counts = True
        self.told: Callable[[list[Sender]], object] = lambda _: None
        self.done: list[str] = []
        self.undone: list[str] = []

    async def mute(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        await asyncio.sleep(0)
        self.done.append(interface)

    async def unmute(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        await asyncio.sleep(0)
        self.undone.append(interface)


class Surroundings:
    """A routing plane that uses nothing, and a door that is open."""

    async def until_unused(self, interface: str) -> None: ...

    def look_again(self) -> None: ...

    def is_refused(self, peer: Prefix) -> bool:
        return False

    def came(self, peer: Prefix, address: str) -> str:
        return ""

    def told_of_twin(self, peer: Prefix, place: str) -> None: ...

    def untimely(self, refused: Untimely) -> None: ...


class FakeLinks:
    """No links, unless a test says that some peers have one."""

    def __init__(self) -> None:
        self.carried: dict[Prefix, asyncio.Event] = {}
        """By links, until these are set."""
        self.ended: list[Prefix] = []
        self.counts: dict[Prefix, TunnelProtocol] = {}
        """Clients of our servers that have links."""
        self.others: dict[str, list[str]] = {}
        """By the interface of a link those of links beside it."""
        self.spare: set[str] = set()
        """Interfaces of links beside another one."""
        self.left: list[str] = []
        """Lines that are dead."""
        self.up: list[LinkEnd] = []

    def go_on(self, found: Iterable[LinkRecord], resumed: Callable[[list[LinkRecord]], None]) -> None:
        resumed([record for record in found if record.link.role is Role.CLIENT])

    def carries(self, peer: Prefix) -> bool:
        return peer in self.carried

    async def outlast(self, peer: Prefix) -> None:
        if peer in self.carried:
            await self.carried[peer].wait()

    async def outlast_all(self) -> None:
        for peer in list(self.carried):
            await self.outlast(peer)

    def end(self, peer: Prefix) -> None:
        self.ended.append(peer)

    def cut(self, peer: Prefix) -> None:
        self.ended.append(peer)

    def cut_off(self, crl: frozenset[int]) -> None: ...

    async def leave(self) -> None: ...

    def ends(self) -> list[LinkEnd]:
        return self.up

    def reports(self) -> list[Link]:
        return []

    def why_not(self, peer: Prefix) -> str:
        return ""

    def beside(self, interface: str) -> list[str]:
        return self.others.get(interface, [])

    def gives_up(self, peer: Prefix, interface: str) -> bool:
        return interface in self.spare

    def leave_line(self, name: str) -> None:
        self.left.append(name)

    def user_of(self, peer: Prefix, interface: str) -> Hashable:
        return (peer, 1) if interface in self.spare else peer

    def served(self, protocol: TunnelProtocol, besides: Prefix) -> int:
        return sum(each is protocol and peer != besides for peer, each in self.counts.items())

    def is_served(self, peer: Prefix, protocol: TunnelProtocol) -> bool:
        return self.counts.get(peer) is protocol


class FakeDialer:
    """A tunnel that is being opened for ever, or is up with its peer."""

    def __init__(self, interface: str, peer: Prefix | None, *, connected: bool = False) -> None:
        self.interface = interface
        self.peer = peer
        self.connected = connected
        self.number: int | None = None
        self.serial: int | None = None
        self.source: Address | None = None
        self.mark = 0
        self.since: float | None = None
        self.traffic: Traffic | None = None
        self.process: tuple[int, str] | None = None
        self.endpoint: Endpoint | None = None

    async def run(self) -> bool:
        await asyncio.sleep(60)
        return False


class FakeListener:
    """A server that listens at once, and notes in `log` when it starts and ends, and whom it cuts off."""

    def __init__(self, interface: str, log: list[str] | None = None, kind: str = "") -> None:
        self.interface = interface
        self.listening = asyncio.Event()
        self.runs = 0
        self.pid: int | None = None
        self.clients: dict[int, ServerClient] = {}
        self.traffic: dict[int, Traffic] = {}
        self.hardware: dict[str, Prefix] = {}
        self.looked: Callable[[], object] = lambda: None
        self.log: list[str] = [] if log is None else log
        self._kind = kind

    async def run(self) -> None:
        self.runs += 1
        self.log.append(f"a server starts, {self._kind}")
        self.listening.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.log.append("it ends")

    def restart(self) -> None:
        self.log.append("server restarted")

    def look(self) -> None:
        self.looked()

    def cut(self, peer: Prefix) -> None:
        self.log.append(f"{peer} is cut off")
        self.clients = {ident: client for ident, client in self.clients.items() if client.peer != peer}

    def kick(self, revoked: frozenset[int]) -> None:
        self.log.append(f"{sorted(revoked)} are revoked")


class FakeFactory:
    """Makes those. A tunnel is made anew where encryption, or the certificate, is another one."""

    def __init__(self, effective: EffectiveConfig, log: list[str] | None = None) -> None:
        self._effective = effective
        self._log = log

    def config_digest(self, *, encrypt: bool | None = None) -> str:
        encrypted = self._effective.parameters.encrypt if encrypt is None else encrypt
        return f"{self._effective.identity.prefix}, {'encrypted' if encrypted else 'clear'}"

    def listener(
        self, interface: str, port: int, protocol: TunnelProtocol, owner: ListenerOwner, found: FoundServer | None
    ) -> FakeListener:
        return FakeListener(interface, self._log, "encrypted" if self._effective.parameters.encrypt else "clear")

    def dialer(
        self,
        interface: str,
        peer: Prefix | None,
        endpoints: Sequence[Endpoint],
        connected: Callable[[Connected], Awaitable[None]],
        found: FoundClient | None,
        mark: int = 0,
    ) -> Dialer:
        return FakeDialer(interface, peer)


def effective_config(tmp_path: Path, identity: cert.Identity, *ports: tuple[int, TunnelProtocol]) -> EffectiveConfig:
    """Of a node that this identity has, with servers on these ports."""
    files = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key"))
    config = Config("http://re6st.example.com/", files, tmp_path, tmp_path, tmp_path, ports=ports)
    return EffectiveConfig(config, identity, Parameters(Prefix(0, 16)), {"openvpn": "/usr/sbin/openvpn"})


def parts_of(
    effective: EffectiveConfig,
    tasks: Tasks,
    kernel: TunnelKernel | None = None,
    *,
    event: Callable[[policy.Event], None] = lambda _: None,
    links: FakeLinks | None = None,
    factory: Callable[[EffectiveConfig], TunnelFactory] = FakeFactory,
    uplinks: UplinkChoice | None = None,
) -> TunnelParts:
    """What the tunnels of a node that is alone in its tests need."""
    around, kernel = Surroundings(), kernel or FakeKernel(0)
    gateways = RemoteGateways(kernel, effective.config.remote_gateways)
    parts = TunnelParts(
        InForce(effective), kernel, gateways, tasks, event, around, around, links or FakeLinks(), factory
    )
    return parts if uplinks is None else replace(parts, uplinks=uplinks)
