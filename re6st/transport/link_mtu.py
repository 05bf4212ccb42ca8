"""The size of packets on links: core/transport/mtu_probe.py decides; here are the clock, the echoes and the interfaces.

An interface carries what all neighbours on it get. A probe that is larger than that is sent while the interface is
opened for it, in one go, so that no other packet goes out meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol, assert_never

from re6st.core.transport.mtu_probe import LEAST, Action, MtuProbe, Probe, Unfit, UseMtu
from re6st.linux.echo import EchoSocket

log = logging.getLogger(__name__)


class InterfaceMtus(Protocol):
    """What sets the MTU of interfaces, and what they have sent (linux/rtnetlink.py)."""

    def set_mtu(self, index: int, mtu: int) -> None:
        """Raises OSError."""

    def bytes_sent(self, index: int) -> int | None:
        """Bytes that an interface has sent; None where the kernel does not say."""


class Echo(Protocol):
    """See linux.echo.EchoSocket."""

    def send(self, index: int, neighbour: IPv6Address, number: int, size: int) -> None: ...


@dataclass(slots=True)
class _Neighbour:
    """One that is asked."""

    interface: str
    index: int
    address: IPv6Address
    probe: MtuProbe
    limit: Callable[[], int | None]
    seen_limit: int | None = None


class LinkMtus:
    """The MTUs of interfaces. `unfit` is told of a link on which packets of 1,280 bytes do not pass, but small ones."""

    def __init__(
        self,
        interfaces: InterfaceMtus,
        unfit: Callable[[str, IPv6Address], object] = lambda interface, address: None,
        clock: Callable[[], float] = time.monotonic,
        index: Callable[[str], int] = socket.if_nametoindex,
    ) -> None:
        self._interfaces = interfaces
        self._unfit = unfit
        self._clock = clock
        self._index = index
        self._echo: Echo | None = None
        self._neighbours: dict[tuple[int, IPv6Address], _Neighbour] = {}
        self._mtus: dict[int, int] = {}
        """What the interfaces have, by index."""
        self._changed = asyncio.Event()

    def mtu(self, interface: str) -> int | None:
        """What an interface that is watched carries."""
        found = [each.probe.mtu for each in self._neighbours.values() if each.interface == interface]
        return min(found, default=None)

    def watch(
        self, interface: str, address: IPv6Address, sizes: Iterable[int], limit: Callable[[], int | None] = lambda: None
    ) -> None:
        """Ask a neighbour which of these sizes pass; from the first question on, until one is answered, the interface
        has the least. Where no echo requests can be sent, it stays as it is.

        `limit` says what the system knows of the path under the link, less what the link adds. Raises OSError.
        """
        index = self._index(interface)
        if (index, address) not in self._neighbours:
            probe = MtuProbe(sizes, self._clock())
            self._neighbours[index, address] = _Neighbour(interface, index, address, probe, limit)
            self._changed.set()

    def forget(self, interface: str, address: IPv6Address | None = None) -> None:
        """Ask a neighbour, or all on an interface, no more."""
        for key, each in list(self._neighbours.items()):
            if each.interface == interface and address in (None, each.address):
                del self._neighbours[key]
                if any(other.index == each.index for other in self._neighbours.values()):
                    self._set(each.index)
                else:
                    self._mtus.pop(each.index, None)

    def moved(self, interface: str) -> None:
        """The path under a link is another one."""
        for each in list(self._neighbours.values()):
            if each.interface == interface:
                each.seen_limit = each.limit()
                self._do(each, each.probe.search(self._clock(), each.seen_limit))
        self._changed.set()

    async def run(self) -> None:
        """Ask, until cancelled; where no echo requests can be sent, it ends."""
        try:
            echo = EchoSocket(self.answered)
        except OSError as error:
            log.warning("it is not found out how large packets may be on tunnels: no echo requests: %s", error.strerror)
            return
        try:
            self._echo = echo
            while True:
                self._changed.clear()
                due = min((each.probe.deadline for each in self._neighbours.values()), default=None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                        await self._changed.wait()
                self.tick()
        finally:
            self._echo = None
            echo.close()

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock()
        for each in list(self._neighbours.values()):
            if now >= each.probe.deadline:
                self._set(each.index)
                limit = each.limit()
                if limit is not None and limit < each.probe.mtu and limit != each.seen_limit:
                    # The system was told that packets were too big.
                    self._do(each, each.probe.search(now, limit))
                else:
                    self._do(each, each.probe.tick(now, self._interfaces.bytes_sent(each.index)))
                each.seen_limit = limit

    def answered(self, index: int, address: IPv6Address, number: int) -> None:
        """An echo came back."""
        if (each := self._neighbours.get((index, address))) is not None:
            self._do(each, each.probe.answered(number, self._clock()))
            self._changed.set()

    def _do(self, each: _Neighbour, actions: Iterable[Action]) -> None:
        probes: list[Probe] = []
        for action in actions:
            match action:
                case Probe():
                    probes.append(action)
                case UseMtu(mtu):
                    log.info("packets of %s bytes pass on %s to %s", mtu, each.interface, each.address)
                    self._set(each.index)
                case Unfit():
                    log.warning(
                        "packets of %s bytes do not pass on %s to %s, small ones do: the path under it swallows them",
                        *(LEAST, each.interface, each.address),
                    )
                    self._unfit(each.interface, each.address)
                case _:
                    assert_never(action)
        if probes:
            self._send(each, probes)

    def _send(self, each: _Neighbour, probes: list[Probe]) -> None:
        if self._echo is None:
            return
        has, needs = self._mtus.get(each.index, LEAST), max(probe.size for probe in probes)
        with suppress(OSError):
            if needs > has:
                self._interfaces.set_mtu(each.index, needs)
            try:
                for probe in probes:
                    self._echo.send(each.index, each.address, probe.number, probe.size)
            finally:
                if needs > has:
                    self._interfaces.set_mtu(each.index, has)

    def _set(self, index: int) -> None:
        """Give an interface, if it is still there, what all its neighbours get."""
        mtu = min(each.probe.mtu for each in self._neighbours.values() if each.index == index)
        if self._echo is not None and self._mtus.get(index) != mtu:
            with suppress(OSError):
                self._interfaces.set_mtu(index, mtu)
                self._mtus[index] = mtu
