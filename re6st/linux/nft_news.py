"""News of nftables, from the kernel as it changes: when to look again what is there (linux/netfilter/nfnetlink.h)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable

from re6st.linux import address_monitor

_NETLINK_NETFILTER, _NFTABLES = 12, 1 << 6


def open_netlink() -> socket.socket:
    """A socket that the kernel writes to when somebody changes nftables. Raises OSError."""
    return address_monitor.listening(_NETLINK_NETFILTER, _NFTABLES)


async def looks(
    news: asyncio.Event,
    pause: Callable[[], float],
    unheard: float,
    make: Callable[[], socket.socket] = open_netlink,
) -> AsyncGenerator[None, None]:
    """When to look: at once, then after each change, when `news` is set, and at the latest after a pause in seconds.

    Where the kernel does not tell of changes, it is every `unheard` seconds, or sooner.
    """
    listening = asyncio.create_task(_listen(news, make))
    try:
        while True:
            news.clear()
            yield
            seconds = min(pause(), unheard) if listening.done() else pause()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await news.wait()
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _listen(news: asyncio.Event, make: Callable[[], socket.socket]) -> None:
    """Until cancelled, or at once where there is no such socket."""
    with contextlib.suppress(OSError):
        async with contextlib.aclosing(address_monitor.changes(make)) as changes:
            async for _ in changes:
                news.set()
    news.set()  # the pause is another one now
