"""Looks up the names in addresses that peers tell, before anybody dials them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from re6st.core.machine.hosts import is_usable
from re6st.core.wire.datagrams import Endpoint

PATIENCE = 3.0
"""Seconds for one name."""
EACH = 2
"""Addresses of one name that are tried."""

log = logging.getLogger(__name__)


async def addresses_of(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The same with addresses in place of names. A name whose address we may not dial, or that has none, is left out.

    A name is the peer's word: it may mean this machine to us.
    """
    found: list[Endpoint] = []
    for endpoint in endpoints:
        try:
            ip_address(endpoint.host)
        except ValueError:
            found += await _look_up(endpoint)
        else:
            found.append(endpoint)
    return tuple(dict.fromkeys(found))


async def _look_up(endpoint: Endpoint) -> list[Endpoint]:
    family = socket.AF_INET6 if endpoint.protocol.family == 6 else socket.AF_INET
    try:
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.get_running_loop().getaddrinfo(
                endpoint.host, endpoint.port, family=family, type=socket.SOCK_DGRAM
            )
    except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
        log.info("%s: %s", endpoint.host, error or "the name was not found in time")
        return []
    hosts = dict.fromkeys(str(answer[4][0]) for answer in answers)
    usable = [host for host in hosts if "%" not in host and is_usable(ip_address(host))]
    if not usable:
        log.info("%s means %s, which is not a place for a server", endpoint.host, ", ".join(hosts))
    return [replace(endpoint, host=host) for host in usable[:EACH]]
