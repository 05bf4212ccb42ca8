"""The routers of a machine that open ports for it (upnp.py): that which answers first or, with several lines to the
Internet, one on each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address

from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded.upnp import PortMapper

ANY: Mapping[str, IPv4Address | None] = {"": None}
"""Wherever the machine's default route leads."""


class PortMappers:
    """Keeps our `ports` open at each. `changed` is told the name of a line, and the endpoints under which they can be
    reached by it; none while they cannot.
    """

    def __init__(
        self, ports: Sequence[tuple[int, TunnelProtocol]], changed: Callable[[str, tuple[Endpoint, ...]], None]
    ) -> None:
        self._ports = ports
        self._changed = changed
        self._lines: Mapping[str, IPv4Address | None] = ANY
        self._links: frozenset[int] = frozenset()
        self._mappers: dict[str, tuple[PortMapper, asyncio.Task[None]]] = {}
        self._news = asyncio.Event()

    def follow(self, lines: Mapping[str, IPv4Address]) -> None:
        """These are the lines, with our address on each; none where there is nothing to choose."""
        self._lines = dict(lines) or ANY
        self._news.set()

    def ask_again(self) -> None:
        """Our addresses changed: look for the routers at once, which may be others."""
        for mapper, _ in self._mappers.values():
            mapper.ask_again()

    def open_for_links(self, ports: frozenset[int]) -> None:
        """See PortMapper."""
        self._links = ports
        for mapper, _ in self._mappers.values():
            mapper.open_for_links(ports)

    async def run(self) -> None:
        """Until cancelled, which closes the ports again."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                for name in self._mappers.keys() - self._lines.keys():
                    self._end(name)
                for name, ip in self._lines.items():
                    at = "" if ip is None else str(ip)
                    if name in self._mappers:
                        self._mappers[name][0].move(at)
                    else:
                        self._begin(group, name, at)
                await self._news.wait()

    def _begin(self, group: asyncio.TaskGroup, name: str, at: str) -> None:
        def told(endpoints: tuple[Endpoint, ...]) -> None:
            if self._mappers.get(name, (None,))[0] is mapper:  # else the line is over
                self._changed(name, endpoints)

        mapper = PortMapper(self._ports, told, line=name, at=at)
        mapper.open_for_links(self._links)
        self._mappers[name] = mapper, group.create_task(mapper.run(), name=f"UPnP {name}")

    def _end(self, name: str) -> None:
        _, task = self._mappers.pop(name)
        task.cancel()  # it closes the ports, if the router can still be reached
        self._changed(name, ())
