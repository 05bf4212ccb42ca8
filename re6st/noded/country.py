"""Which country we are in, where the network keeps tunnels inside countries (wire.md 10.5, 10.6).

The user says it (--country), or the registry is asked for the country of our first address. It goes with the addresses
that we tell to peers, as long as the network has such countries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from re6st.client.registry_client import RegistryError
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.process import Backoff
from re6st.noded.own_addresses import OwnAddresses
from re6st.service.geoip import GeoIp, GeoIpError

PATIENCE = 3.0
"""Seconds that the first tunnels wait for the registry's answer."""
AGAIN_FIRST, AGAIN_LAST = 1.0, 300.0

log = logging.getLogger(__name__)


class CountryLookup:
    """Keeps the country of `own` up to date.

    `given` is what the user said, `ask` asks the registry, `remembered` is what we told in an earlier run; `moved` is
    set when our addresses may be others, and `changed` hears when our country is another one.
    """

    def __init__(
        self,
        own: OwnAddresses,
        given: str,
        ask: Callable[[str], Awaitable[str | None]],
        remembered: tuple[Endpoint, ...],
        moved: asyncio.Event,
        changed: Callable[[], None],
    ) -> None:
        self._own = own
        self._given = given
        self._ask = ask
        self._remembered = {endpoint.host: endpoint.country for endpoint in remembered}
        self._changed = changed
        self._wanted = False
        self._asked = ""
        self._news = moved

    def require(self, wanted: bool) -> None:
        """Whether the network wants to know it."""
        self._wanted = wanted
        if not wanted:
            self._asked = ""  # what was told then is not remembered
        if not wanted or self._given:
            self._set(self._given if wanted else "")
        elif not self._own.country:
            self._set(self._remembered.get(self._address, ""))
        self._news.set()

    async def start(self) -> None:
        """Ask for the first time, for a while."""
        with contextlib.suppress(TimeoutError, RegistryError):
            async with asyncio.timeout(PATIENCE):
                await self._look()

    async def run(self) -> None:
        """Ask when our first address changes, again until there is an answer; for ever."""
        backoff = Backoff(AGAIN_FIRST, AGAIN_LAST)
        while True:
            self._news.clear()
            delay = None
            try:
                await self._look()
                backoff.reset()
            except RegistryError as error:
                delay = backoff.next()
                log.warning(
                    "the country of this node is not known: %s Next try in %.0f s, or give --country.", error, delay
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._news.wait()

    @property
    def _address(self) -> str:
        return str(next(iter(self._own.addresses()), ""))

    async def _look(self) -> None:
        address = self._address
        if self._wanted and not self._given and address and address != self._asked:
            country = await self._ask(address) or ""
            if self._wanted:
                self._asked = address
                self._set(country)

    def _set(self, country: str) -> None:
        if country != self._own.country:
            self._own.country = country
            if country:
                log.info("this node is in the country %s", country)
            self._changed()


def locator(database: Path | None) -> Callable[[str], str]:
    """What tells the country of a host by a database of countries; without one, or for a name, nothing."""
    if database is None:
        return lambda host: ""
    try:
        places = GeoIp(database)
    except GeoIpError as error:
        log.warning("cannot look up the countries of peers: %s", error)
        return lambda host: ""

    def locate(host: str) -> str:
        try:
            return places.place(host).country
        except ValueError:
            return ""

    return locate
