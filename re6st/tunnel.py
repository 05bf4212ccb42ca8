"""What a tunnel is, whatever carries it (wire.md section 8). The kinds of tunnels are in transport/.

A `Listener` is a server of ours that peers connect to: one for each protocol, on an interface that all its clients
share. A `Dialer` is one tunnel that we open, on an interface of its own. noded/servers.py and noded/tunnels.py make the
interface, a TAP, before they call `run`, and bring it up when they are told that there is somebody (`ListenerOwner.up`,
`connected`).

Where a program carries a tunnel, that runs on when the daemon is replaced: the next daemon goes on with what it has
`found`, and makes it anew later if the `config_digest` of then is not that of now. A tunnel without a `pid` or
`process` ends with its daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.kernel import Address


class Traffic(Protocol):
    """Bytes that went through a tunnel since it is up."""

    @property
    def received(self) -> int: ...

    @property
    def sent(self) -> int: ...


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


class ListenerOwner(Protocol):
    """Whom a server asks who may come in, and tells what happens."""

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        """Whether a certificate may come in."""

    def room(self, peer: Prefix) -> int:
        """How many clients may be there, when a peer wants to be one."""

    def make_room(self, peer: Prefix) -> bool:
        """End a client that is dead, since a peer wants a place and there is none; False where no client is."""

    def joined(self, client: ServerClient) -> None: ...

    def left(self, client: ServerClient) -> None: ...

    async def up(self, interface: str, mtu: int) -> None:
        """Set the interface up, as the server listens now. Raises OSError."""

    async def down(self, interface: str) -> None:
        """The server ended, and all neighbours behind its interface are gone: babel is to know."""

    def came(self, peer: Prefix, address: str) -> str:
        """A client has connected from an address. Where another machine with its certificate is; empty: nowhere."""

    def untimely(self, refused: Untimely) -> None:
        """A certificate was refused for the time."""


class Listener(Protocol):
    """A server of ours, kept running; see the module."""

    looked: Callable[[], object]
    """Called after each `look`."""

    @property
    def interface(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def listening(self) -> asyncio.Event: ...

    @property
    def runs(self) -> int:
        """How often it was started."""

    @property
    def clients(self) -> Mapping[int, ServerClient]:
        """By number."""

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        """By the client's number."""

    @property
    def hardware(self) -> Mapping[str, Prefix]:
        """Whose hardware addresses are behind which client, by the last `look`."""

    async def run(self) -> None:
        """Start it, or go on with the one that was found; serve, start it again when it ends, until cancelled.

        Whoever comes is let in only if `ListenerOwner.admits` them. Raises nothing: the daemon would end.
        """

    def restart(self) -> None:
        """End it, so that it is started again: its clients come back."""

    def look(self) -> None:
        """Find out again whose hardware addresses are behind which client; see `hardware`."""

    def cut(self, peer: Prefix) -> None:
        """Cut off every client with the certificate of a peer."""

    def kick(self, revoked: frozenset[int]) -> None:
        """Cut off the clients whose certificate is revoked, or of unknown number; the others notice nothing."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A tunnel of ours is up. `external_ip` is our address as the peer sees it, `source` as this machine does."""

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
    """A tunnel of ours that an earlier daemon left up, since a time of the event loop's clock."""

    pid: int
    name: str
    since: float
    connected: Connected


class Dialer(Protocol):
    """A tunnel that we open. `serial` and `number` are those of the peer's certificate and of the node in it."""

    @property
    def interface(self) -> str: ...

    @property
    def peer(self) -> Prefix | None:
        """It may be anybody (None) until the tunnel is up."""

    @property
    def serial(self) -> int | None: ...

    @property
    def number(self) -> int | None: ...

    @property
    def source(self) -> Address | None:
        """Our own address under the tunnel; None where it is not known, or there is no way to the peer."""

    @property
    def mark(self) -> int:
        """What its packets are marked with, by which they leave by one uplink; 0: with nothing."""

    @property
    def since(self) -> float | None:
        """When it came up, by the event loop's clock."""

    @property
    def traffic(self) -> Traffic | None: ...

    @property
    def process(self) -> tuple[int, str] | None:
        """The number and the name of the process of a tunnel that is up."""

    @property
    def connected(self) -> bool:
        """Whether it is up, or was."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it leads, or which address is being tried."""

    async def run(self) -> bool:
        """Connect, and stay until the tunnel ends; whether it was connected at all. Cancelling it ends the tunnel.

        A peer that cannot be reached is no error, but False: the policy tries again, or others. Raises KernelError.
        """


class TunnelFactory(Protocol):
    """What makes tunnels of one kind, with the settings of now."""

    def config_digest(self, *, encrypt: bool | None = None) -> str:
        """What a running tunnel cannot change; with encryption or without, if that is given."""

    def listener(
        self, interface: str, port: int, protocol: TunnelProtocol, owner: ListenerOwner, found: FoundServer | None
    ) -> Listener: ...

    def dialer(
        self,
        interface: str,
        peer: Prefix | None,
        endpoints: Sequence[Endpoint],
        connected: Callable[[Connected], Awaitable[None]],
        found: FoundClient | None,
        mark: int = 0,
    ) -> Dialer:
        """A tunnel to a peer, or to whoever is there (None), whose packets have this mark; one that was `found` up is
        gone on with.

        `connected` is awaited once it is up, and the identity of the peer is proved.
        """
