"""A machine whose clock is set late after its start, as of a board without a battery for it: the node waits for that.

A certificate of the future is no reason to give up: nothing but the time is wrong, and nobody needs to mend anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from re6st.cert import NotYetValid

LOOK = 1.0
"""Seconds between two looks at the clock."""
SAY_AGAIN = 3600

log = logging.getLogger(__name__)

T = TypeVar("T")


async def made_when_valid(make: Callable[[], T], stop: asyncio.Event, say: Callable[[str], None]) -> T | None:
    """What `make` makes, once the clock is no longer before the certificate; None where `stop` is set before.

    `say` is told what is waited for, at once. Raises what `make` raises, but for NotYetValid.
    """
    looks = 0
    while True:
        try:
            return make()
        except NotYetValid as error:
            if looks % SAY_AGAIN == 0:
                log.warning("%s. Waiting until it is.", error)
                say(f"waiting for the clock: {error}")
        looks += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await stop.wait()
            return None
