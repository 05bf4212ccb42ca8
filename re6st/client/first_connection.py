"""A connection to the first of several servers that takes one (in the manner of RFC 8305, "Happy Eyeballs").

The next server is tried at once when one refuses, and beside the others when one is silent for a second. So a server
that is slow to connect, on a slow line, is not given up for one that does not answer at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from re6st.client.http import Connection, HttpError, Url, connect

NEXT_SERVER = 1.0
"""Seconds until the next server is tried, beside those that have not answered yet."""
NO_CONNECTION = f"no connection within {NEXT_SERVER:g} s."
"""Why a server was passed over that may still answer."""


class NoConnection(Exception):
    """None of the servers took a connection."""


async def first_connection(urls: Sequence[Url], failures: dict[Url, str]) -> Connection:
    """A connection to the first of these servers that takes one. Raises NoConnection.

    Why others were passed over is noted in `failures`, at once, also if we are cancelled.
    """
    waiting, tries = list(urls), dict[asyncio.Task[Connection], Url]()
    try:
        while waiting or tries:
            if waiting:
                url = waiting.pop(0)
                tries[asyncio.create_task(connect(url), name=f"connection to {url}")] = url
            done, _ = await asyncio.wait(
                tries, timeout=NEXT_SERVER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [each for each in tries if each in done]:
                try:
                    found = task.result()
                except HttpError as error:
                    failures[tries.pop(task)] = str(error)
                else:
                    del tries[task]
                    return found
        raise NoConnection
    finally:
        for task, url in tries.items():
            if not task.done():
                failures[url] = NO_CONNECTION
                task.cancel()
        for result in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(result, Connection):
                await result.aclose()
