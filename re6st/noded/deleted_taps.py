"""Interfaces of tunnels that another program deleted: OpenVPN does not notice, and nothing comes through any more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.linux.kernel import KernelError
from re6st.tunnel import Listener

log = logging.getLogger(__name__)


class Owners(Protocol):
    """Who is at the other end of a tunnel: noded/other_ends.py."""

    def owner(self, interface: str, hardware: str) -> Prefix | None: ...


class TapServers(Protocol):
    """Our servers: noded/servers.py."""

    @property
    def running(self) -> Mapping[TunnelProtocol, Listener]: ...


class TapTunnels(Protocol):
    """The tunnels of a node: noded/tunnels.py."""

    @property
    def servers(self) -> TapServers: ...

    @property
    def ends(self) -> Owners: ...

    def close(self, peer: Prefix) -> None: ...


class Taps(Protocol):
    """What makes interfaces: linux/kernel.py."""

    async def make_tap(self, name: str) -> None:
        """Raises KernelError."""


async def make_anew(
    interface: str, kernel: Taps, tunnels: TapTunnels, until_unused: Callable[[str], Awaitable[None]]
) -> None:
    """Leave the client tunnel on it, or have the server on it started again, once babel does not use it any more.

    The policy opens another tunnel, and the clients of a server come back.
    """
    for server in tunnels.servers.running.values():
        if server.interface == interface:
            # It has to see first that there is none: of another one by the same name it may think that it is the old.
            await until_unused(interface)
            try:
                await kernel.make_tap(interface)
            except KernelError as error:
                log.error("%s", error)
            server.restart()
            return
    peer = tunnels.ends.owner(interface, "")
    if peer is not None:
        log.info("closing the tunnel to %s: its interface is gone", peer)
        tunnels.close(peer)
