"""All that looks after this machine's part in the network, which other programs change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from re6st.babel import Babel
from re6st.linux.kernel import Kernel
from re6st.noded.caretaker import Caretaker, forwarding
from re6st.noded.deleted_taps import make_anew
from re6st.noded.firewall_check import FirewallCheck
from re6st.noded.interface_check import InterfaceCheck
from re6st.noded.route_check import RouteCheck
from re6st.noded.router_advertisements import Advertisements
from re6st.noded.settings import Plan
from re6st.noded.tunnels import Tunnels


class KernelCare:
    """For one node. `changed` is called when `forwards` changes."""

    def __init__(
        self,
        kernel: Kernel,
        babel: Babel,
        tunnels: Tunnels,
        advertisements: Advertisements,
        plan: Callable[[], Plan],
        changed: Callable[[], object],
    ) -> None:
        self._caretaker = Caretaker(
            kernel.state,
            # babeld sets them as it starts.
            lambda: forwarding(ipv4=plan().ipv4 is not None) if babel.ready.is_set() else (),
            lambda name: make_anew(name, kernel, tunnels, babel.table.is_up),
            advertisements,
        )
        self._routes = RouteCheck(kernel, babel, lambda: plan().presences)
        self._interfaces = InterfaceCheck(babel)
        self._firewall = FirewallCheck(changed)

    @property
    def present(self) -> asyncio.Event:
        """Set while our addresses are on the machine."""
        return self._caretaker.present

    @property
    def forwards(self) -> bool:
        """Whether packets from one tunnel may leave by another."""
        return self._firewall.forwards

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
