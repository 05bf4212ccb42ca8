"""All that looks after this machine's part in the network, which other programs change."""

from __future__ import annotations

import asyncio

from re6st.core.machine.wanted_state import Setting, forwarding
from re6st.linux.kernel import Kernel
from re6st.noded.caretaker import Caretaker
from re6st.noded.deleted_taps import make_anew
from re6st.noded.firewall_check import FirewallCheck
from re6st.noded.interface_check import InterfaceCheck
from re6st.noded.network_addresses import NetworkAddresses
from re6st.noded.route_check import RouteCheck
from re6st.noded.router_advertisements import Advertisements
from re6st.noded.routing import Planes
from re6st.noded.settings import InForce
from re6st.noded.tunnels import Tunnels


class KernelCare:
    """For one node."""

    def __init__(
        self,
        kernel: Kernel,
        addresses: NetworkAddresses,
        advertisements: Advertisements,
        planes: Planes,
        tunnels: Tunnels,
        in_force: InForce,
    ) -> None:
        self._kernel = kernel
        self._planes = planes
        main = planes.main
        self._tunnels = tunnels
        self._in_force = in_force
        self._caretaker = Caretaker(kernel.state, self._settings, self._restore, advertisements)
        self._routes = RouteCheck(kernel.babel_routes(main.plane), main.babel, addresses)
        self._interfaces = InterfaceCheck(main.babel)
        self._firewall = FirewallCheck(planes.forward)

    @property
    def present(self) -> asyncio.Event:
        """Set while our addresses are on the machine."""
        return self._caretaker.present

    def broken(self) -> list[str]:
        """What keeps traffic from passing, in words."""
        return [*self._caretaker.problems(), *self._routes.problems(), *self._firewall.broken()]

    def doubts(self) -> list[str]:
        """What may do so."""
        return self._firewall.doubts()

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the kernel tells nothing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._caretaker.run(), name="what the kernel was given")
            group.create_task(self._routes.run(), name="babel's routes in the kernel")
            group.create_task(self._interfaces.run(), name="interfaces with babel's neighbours")
            group.create_task(self._firewall.run(), name="the rules of others")

    def _settings(self) -> tuple[Setting, ...]:
        """What babeld sets as it starts, and puts back as it ends."""
        main = self._planes.main
        runs = main.ready.is_set() and not main.ending()
        return forwarding(ipv4=self._in_force.effective.ipv4 is not None) if runs else ()

    async def _restore(self, interface: str) -> None:
        await make_anew(interface, self._kernel, self._tunnels, self._planes.until_unused)
