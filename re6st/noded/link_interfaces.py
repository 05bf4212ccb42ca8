"""What becomes of the interfaces of WireGuard links on this machine, beside the links themselves: the kernel has them
up, babel hears when nobody is behind one any more, and it is seen which size of packets passes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address

from re6st.core.transport.mtu_probe import WIREGUARD
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.linux.kernel import KernelError
from re6st.noded.contracts import BabelFilter, InterfacesKernel, Routing
from re6st.transport.link_mtu import LinkMtus


class LinkInterfaces:
    """`unfit` is told of an interface by which not even the smallest packets pass."""

    def __init__(
        self, kernel: InterfacesKernel, drains: BabelFilter, routing: Routing, unfit: Callable[[str], object]
    ) -> None:
        self._kernel = kernel
        self._drains = drains
        self._routing = routing

        def told(interface: str, _: IPv6Address) -> None:
            unfit(interface)

        self._mtus = LinkMtus(kernel, told)

    async def run(self) -> None:
        """See what links carry, until cancelled."""
        await self._mtus.run()

    def take(self, interface: str) -> None:
        """Take one for ours. Raises OSError."""
        try:
            self._kernel.take_link(interface)
        except KernelError as error:
            raise OSError(None, str(error)) from None

    def keep_up(self, link: WireGuardLink) -> None:
        """Its link is up."""
        self._kernel.keep_link_up(link.interface, link.own.terms.address)

    def watch(self, link: WireGuardLink) -> None:
        """See which size of packets passes on it."""
        with suppress(OSError):  # it is gone, which is told
            self._mtus.watch(link.interface, link.theirs.address, [size for size in WIREGUARD if size <= link.mtu])

    async def leave(self, interface: str) -> None:
        """Tell babel that nobody is behind one, which is about to go."""
        self._mtus.forget(interface)
        try:
            await self._kernel.bounce(interface, lambda: self._routing.until_unused(interface))
        finally:
            self._kernel.leave_link(interface)
            await self._drains.unmute(interface)  # it may have been drained, and the next one of its name is not

    async def remove(self, interface: str) -> None:
        """Remove what an earlier daemon left."""
        await self._kernel.delete_link(interface)
