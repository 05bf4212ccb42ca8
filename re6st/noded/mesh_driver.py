"""Drives the mesh policy: events go in, and the actions that come out are carried out (core/mesh/policy.py)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Protocol, assert_never

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.telemetry.chronicle import Chronicle
from re6st.core.wire.datagrams import Code, Endpoint

log = logging.getLogger(__name__)


class Tunnels(Protocol):
    """What carries out decisions about tunnels and links: noded/tunnels.py."""

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None: ...
    def close(self, peer: Prefix) -> None: ...
    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...
    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...


class Peers(Protocol):
    """What sends messages to peers: noded/peer_socket.py."""

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None: ...
    def ensure(self, peer: Prefix) -> None: ...


class MeshDriver:
    """The one who talks with the policy of a node.

    `bootstrap` is called when the policy wants a first peer from the registry, `doubted` when a tunnel is closed
    through which nobody was ever met: parameters or certificates may have changed.
    """

    def __init__(
        self,
        mesh: policy.Mesh,
        chronicle: Chronicle,
        tunnels: Tunnels,
        peers: Peers,
        *,
        bootstrap: Callable[[], object],
        doubted: Callable[[], None],
    ) -> None:
        self._mesh = mesh
        self._chronicle = chronicle
        self._tunnels = tunnels
        self._peers = peers
        self._bootstrap = bootstrap
        self._doubted = doubted
        self._stopped = False

    @property
    def connected(self) -> bool:
        """Whether we reach the registry's node, by what the policy knows."""
        return self._mesh.connected

    def stop(self) -> None:
        """Carry out nothing any more: what ends while the node leaves must not be replaced."""
        self._stopped = True

    def event(self, event: policy.Event) -> None:
        """Tell the policy what happened, and do what it decides."""
        actions = self._mesh.handle(event, time.monotonic())
        self._chronicle.note(event, connected=self._mesh.connected, now=time.time())
        self._carry_out(actions)

    def tick(self) -> None:
        """Tell the policy that time has passed, and do what it decides."""
        self._carry_out(self._mesh.tick(time.monotonic()))

    def _carry_out(self, actions: list[policy.Action]) -> None:
        for action in actions:
            if self._stopped:
                return
            if not isinstance(action, policy.EnsureSession):  # that one comes every second
                log.debug("%s", action)
            self._chronicle.decided(action, time.time())
            self._do(action)

    def _do(self, action: policy.Action) -> None:
        match action:
            case policy.OpenTunnel(peer, endpoints):
                self._tunnels.open(peer, endpoints)
            case policy.CloseTunnel(peer, reason):
                log.info("closing the tunnel to %s: %s", peer, reason)
                if not self._mesh.tunnels[peer].met:
                    self._doubted()
                self._tunnels.close(peer)
            case policy.DrainTunnel(peer, reason):
                log.info("draining the tunnel to %s: %s", peer, reason)
                self._tunnels.drain(self._mesh.tunnels[peer].interface)
            case policy.UndrainTunnel(peer):
                log.info("keeping the tunnel to %s", peer)
                self._tunnels.undrain(self._mesh.tunnels[peer].interface)
            case policy.DrainClient(peer, hop):
                log.info("draining the tunnel from %s", peer)
                self._tunnels.drain(hop.interface, hop.address)
            case policy.AvoidLink(peer, hop):
                log.info("packets get lost on the link with %s: other ways are used", peer)
                self._tunnels.drain(hop.interface, hop.address)
            case policy.TrustLink(peer, hop):
                log.info("the link with %s is used again", peer)
                self._tunnels.undrain(hop.interface, hop.address)
            case policy.UndrainClient(_, hop):
                self._tunnels.undrain(hop.interface, hop.address)
            case policy.AskAddress(peer):
                self._peers.send(peer, Code.ADDRESS)
            case policy.AskBootstrap():
                self._bootstrap()
            case policy.AskClose(peer):
                self._peers.send(peer, Code.ASK_CLOSE)
            case policy.AllowClose(peer):
                log.info("%s may close its tunnel to us", peer)
                self._peers.send(peer, Code.ALLOW_CLOSE)
            case policy.EnsureSession(peer):
                self._peers.ensure(peer)
            case _:
                assert_never(action)
