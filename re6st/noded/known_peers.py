"""What a node knows of its peers: who is in reach, who is next to it, and where each was last."""

from __future__ import annotations

from collections.abc import Mapping

from re6st.core.mesh import memory
from re6st.core.mesh.policy import Mesh
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.requirement import Requirement
from re6st.noded.peer_cache import Cache


class KnownPeers:
    """`own` is the prefix of this node."""

    def __init__(self, own: Prefix, mesh: Mesh, requirement: Requirement, cache: Cache) -> None:
        self._own = own
        self._mesh = mesh
        self._requirement = requirement
        self._cache = cache

    @property
    def addresses(self) -> Mapping[Prefix, tuple[Endpoint, ...]]:
        """Where they are, as far as we know."""
        return self._cache.addresses

    def is_routed(self, peer: Prefix) -> bool:
        """Whether there is a route to a peer, or to the region that it is in."""
        return peer in self._mesh.survey.peers or self._mesh.region_of(peer) in self._mesh.survey.peers

    def lacks_extension(self, peer: Prefix) -> bool:
        """Whether it lacks what the network requires."""
        return self._requirement.lacks(peer)

    def near(self) -> set[Prefix]:
        """Those next to us: neighbours, and both ends of our tunnels; those of other regions only if at such an end."""
        seen = (peer for peer in self._mesh.survey.neighbours if self._mesh.region_of(peer) is None)
        return {*seen, *self._mesh.tunnels, *self._mesh.clients}

    def remember(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        """Where one is now. Those without a tunnel to them make room first."""
        if endpoints and peer != self._own:
            self._cache.learn(peer, endpoints, self._has_no_tunnel)

    def worked(self, peer: Prefix, endpoint: Endpoint) -> None:
        """It was met there."""
        self._cache.worked(peer, endpoint)

    def worth_keeping(self) -> list[Prefix]:
        """Whom to remember for the next start, those we had tunnels with first."""
        mesh = self._mesh
        return memory.worth_keeping(self._cache.addresses, mesh.survey.neighbours, mesh.settings.client_count)

    def _has_no_tunnel(self, peer: Prefix) -> bool:
        return peer not in self._mesh.tunnels
