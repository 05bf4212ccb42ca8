"""The first peer of a node that knows nobody, from the registry."""

from __future__ import annotations

import asyncio
import logging

from re6st.client.counted_client import CountedClient
from re6st.client.registry_client import RegistryError
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint, parse_addresses

PATIENCE = 10.0
"""Seconds for the registry."""

log = logging.getLogger(__name__)


async def first_peer(client: CountedClient) -> tuple[Prefix, tuple[Endpoint, ...]] | None:
    """A peer, with its addresses; None, and a line in the log, where the registry names none."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await client.get_bootstrap_peer()
    except TimeoutError:
        log.warning("no first peer: the registry does not answer")
    except RegistryError as error:
        log.warning("no first peer: %s", error)
    else:
        return (found[0], parse_addresses(found[1])) if found else None
    return None
