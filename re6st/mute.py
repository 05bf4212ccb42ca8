"""Muting babel on an interface, which drains a tunnel without losing a packet (design.md section 3).

Babel's own packets (UDP 6696) are dropped by nftables, in and out; every hello that is missed raises the cost of the
link on both sides, so the routes move away while the tunnel still forwards.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv6Address

from re6st.process import MissingProgram, find_program

TABLE = "re6stnet"

_SETUP = f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
    set muted {{ type ifname; }}
    set unheard {{ type ifname . ipv6_addr; }}
    chain input {{
        type filter hook input priority 0
        iifname @muted udp dport 6696 drop
        iifname . ip6 saddr @unheard udp dport 6696 drop
    }}
    chain output {{ type filter hook output priority 0; oifname @muted udp dport 6696 drop; }}
}}
"""

log = logging.getLogger(__name__)


class Mute:
    """The set of muted interfaces. Without nftables nothing can be muted, and `available` is False."""

    def __init__(self) -> None:
        self._muted: set[str] = set()
        """Elements of the sets, with the name of their set."""
        self._ready = False
        self._lock = asyncio.Lock()
        try:
            self._program = find_program("nft")
            self.available = True
        except MissingProgram:
            log.warning("nft: program not found: tunnels are not refreshed. Install nftables.")
            self.available = False

    async def add(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Mute an interface; or no longer hear one neighbour on it, who notices by what we say that we hear."""
        element = _element(interface, neighbour)
        async with self._lock:
            if self.available and not self._ready:
                self._ready = await self._nft(_SETUP)
            if self._ready and await self._nft(f"add element inet {TABLE} {element}\n"):
                self._muted.add(element)

    async def remove(self, interface: str, neighbour: IPv6Address | None = None) -> None:
        """Undo it."""
        element = _element(interface, neighbour)
        async with self._lock:
            if element in self._muted:
                self._muted.discard(element)
                await self._nft(f"delete element inet {TABLE} {element}\n")

    async def close(self) -> None:
        """Remove our table, also one that an earlier run left."""
        async with self._lock:
            if self._ready:
                await self._nft(f"delete table inet {TABLE}\n")
                self._ready = False
                self._muted.clear()

    async def clear(self) -> None:
        """Remove the table of an earlier run that was killed."""
        if self.available:
            await self._nft(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")

    async def _nft(self, commands: str) -> bool:
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._program, "-f", "-"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            log.error("nft: %s", error.strerror)
            return False
        _, errors = await process.communicate(commands.encode())
        if process.returncode:
            log.error("nft: %s", errors.decode("utf-8", "replace").strip().splitlines()[:1])
        return process.returncode == 0


def _element(interface: str, neighbour: IPv6Address | None) -> str:
    return f"muted {{ {interface} }}" if neighbour is None else f"unheard {{ {interface} . {neighbour} }}"
