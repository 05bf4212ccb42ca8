"""Interfaces of tunnels that another program deleted: OpenVPN does not notice, and nothing comes through any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from re6st.linux.kernel import NOTICE, NOTICE_STEP, Kernel, KernelError
from re6st.noded.tunnels import Tunnels

log = logging.getLogger(__name__)


async def make_anew(interface: str, kernel: Kernel, tunnels: Tunnels, is_used: Callable[[str], bool]) -> None:
    """Leave the client tunnel on it, or have the server on it started again; `is_used` says whether babel uses it.

    The policy opens another tunnel, and the clients of a server come back.
    """
    for server in tunnels.servers.values():
        if server.interface == interface:
            # It has to see first that there is none: of another one by the same name it may think that it is the old.
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTICE):
                    while is_used(interface):  # noqa: ASYNC110
                        await asyncio.sleep(NOTICE_STEP)
            try:
                await kernel.make_tap(interface)
            except KernelError as error:
                log.error("%s", error)
            server.restart()
            return
    peer = tunnels.ends.owner(interface, "")
    if peer is not None:
        log.info("leaving the tunnel to %s: its interface is gone", peer)
        tunnels.close(peer)
