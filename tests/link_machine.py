"""A machine with WireGuard links and nothing else of a node, on a host of the bed; several agree on links.

What they say to each other is handed over here; a node has authenticated sessions for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_state import Ended, LinkSettings
from re6st.core.transport.wireguard_uapi import Address
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import Implementation
from re6st.linux.wireguard_kernel import KernelWireGuard
from re6st.transport.wireguard import WireGuardLinks
from testbed.host import Host

ENDS = 60
KEY_LIFE_AFTER = 86400.0


class LinkMachine:
    """It lives in a thread of its own, which is in the host's namespace. `implementation` makes the interfaces."""

    def __init__(
        self,
        host: Host,
        number: int,
        machines: dict[Prefix, LinkMachine],
        implementation: Callable[[Netlink], Implementation],
        key_life: float,
    ) -> None:
        self.host = host
        self.own = Prefix(number, 16)
        self.machines = machines
        machines[self.own] = self
        self.clients = 0
        """Interfaces of links that we opened."""
        self.process: tuple[int, str] | None = None
        self.gone: list[Ended] = []
        self._implementation = implementation
        self._settings = LinkSettings(range(51820, 51830), ("re6stnet11", "re6stnet12"), key_life=key_life)
        self._there = threading.Event()
        self._thread = threading.Thread(target=lambda: host.namespace.call(lambda: asyncio.run(self._live())))

    def start(self) -> None:
        self._thread.start()
        assert self._there.wait(ENDS)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(ENDS)
        assert not self._thread.is_alive()

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        netlink = Netlink()
        implementation = self._implementation(netlink)
        self.links = WireGuardLinks(
            self.own,
            self._settings,
            implementation,
            netlink,
            self,
            lambda live, name: asyncio.create_task(live, name=name),
        )
        running = asyncio.create_task(self.links.run())
        self._there.set()
        await self._ended.wait()
        await self.links.end()
        running.cancel()
        if isinstance(implementation, KernelWireGuard):
            implementation.close()
        netlink.close()

    def open(self, peer: LinkMachine) -> None:
        self.clients += 1
        self.loop.call_soon_threadsafe(self.links.open, peer.own, f"re6stnet{self.clients}")

    def keep_keys(self) -> None:
        """Change none any more, but those that are due."""
        agreement = self.links.agreement
        agreement.settings = replace(agreement.settings, key_life=KEY_LIFE_AFTER)

    def link(self, peer: LinkMachine) -> WireGuardLink | None:
        return self.links.agreement.links.get(peer.own)

    def target(self, peer: LinkMachine) -> str:
        """What ping(8) here is told to reach a peer by the link with it."""
        link = self.link(peer)
        assert link is not None
        return f"{link.theirs.address}%{link.interface}"

    def reaches(self, peer: LinkMachine) -> bool:
        """Whether packets as large as the link carries go there and back."""
        link = self.link(peer)
        assert link is not None
        ping = ["ping", "-6", "-n", "-q", "-c", "1", "-W", "5", "-M", "do", "-s", str(link.mtu - 48)]
        return self.host.run([*ping, self.target(peer)], check=False).returncode == 0

    # --- what its links ask and tell ---

    def say(self, peer: Prefix, body: bytes) -> None:
        other = self.machines[peer]
        other.loop.call_soon_threadsafe(other.links.received, self.own, body)

    def admits(self, peer: Prefix) -> bool:
        return True

    def hosts(self, peer: Prefix) -> list[Address]:
        return [ip_address(self.machines[peer].host.address)]

    def mark(self, peer: Prefix) -> int:
        return 0

    def made(self, interface: str) -> None: ...

    async def leaving(self, interface: str) -> None: ...

    def confirmed(self, link: WireGuardLink) -> None: ...

    def met(self, link: WireGuardLink, moved: bool) -> None: ...

    def up(self, link: WireGuardLink, process: tuple[int, str] | None) -> None:
        self.process = self.process or process

    def ended(self, ended: Ended) -> None:
        self.gone.append(ended)
