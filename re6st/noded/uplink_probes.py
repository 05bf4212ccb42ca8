"""Whether peers answer over an uplink: a TCP connection to where one was reached before, which ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from re6st.core.wire.datagrams import Endpoint

PATIENCE = 2.0
"""Seconds for an answer."""


async def answers(places: Sequence[Endpoint], mark: int, patience: float = PATIENCE) -> bool | None:
    """Whether anybody takes a connection at one of these addresses, with packets that have this mark.

    That a connection is refused is an answer, too. None: nobody could be asked, as where there are too many open files.
    """
    tasks = [asyncio.create_task(_connect(each, mark)) for each in places]
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for next_done in asyncio.as_completed(tasks):
                    if await next_done:
                        return True
        return False
    except OSError:
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(place: Endpoint, mark: int) -> bool:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as own:
        own.setblocking(False)
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            await asyncio.get_running_loop().sock_connect(own, (place.host, place.port))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True
