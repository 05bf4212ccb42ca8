"""What the tunnels of a node need of its other rooms: those that we open (tunnels.py), and our servers (servers.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from re6st.core.mesh import policy
from re6st.core.mesh.dead_clients import DeadClients
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.noded.contracts import Links, Routing, TunnelAdmission, TunnelKernel
from re6st.noded.other_ends import EndedTunnels
from re6st.noded.remote_gateway import RemoteGateways
from re6st.noded.settings import EffectiveConfig, InForce
from re6st.service.tasks import Tasks
from re6st.tunnel import TunnelFactory


@dataclass(frozen=True, slots=True)
class TunnelParts:
    """Rooms and small objects, the same for both. `event` tells the policy."""

    in_force: InForce
    kernel: TunnelKernel
    gateways: RemoteGateways
    tasks: Tasks
    event: Callable[[policy.Event], None]
    routing: Routing
    door: TunnelAdmission
    links: Links
    make_factory: Callable[[EffectiveConfig], TunnelFactory] = EffectiveConfig.tunnel_factory
    ended: EndedTunnels = field(default_factory=EndedTunnels)
    uplinks: UplinkChoice = field(default_factory=UplinkChoice)
    """Over which uplinks the tunnels go."""
    dead_clients: DeadClients = field(default_factory=DeadClients)
    """Which clients are dead."""

    def factory(self) -> TunnelFactory:
        """What makes tunnels with the settings of now."""
        return self.make_factory(self.in_force.effective)

    async def bounce(self, interface: str) -> None:
        """Tell babel that nobody is behind an interface any more."""
        await self.kernel.bounce(interface, partial(self.routing.until_unused, interface))
