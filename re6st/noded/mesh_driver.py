"""Drives the mesh policy: events go in, and the actions that come out are carried out (core/mesh/policy.py)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Protocol, assert_never

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.telemetry.event_log import EventLog
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.core.wire.news import Speaker

log = logging.getLogger(__name__)


class Clock(Protocol):
    """What tells the time, in seconds: the module `time`, or a simulator."""

    def monotonic(self) -> float: ...
    def time(self) -> float: ...


class TunnelActions(Protocol):
    """What carries out decisions about tunnels and links: noded/tunnels.py."""

    def open(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None: ...
    def close(self, peer: Prefix, *, lost: bool = False) -> None: ...
    def drain(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...
    def undrain(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...
    def avoid(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...
    def trust(self, interface: str, neighbour: IPv6Address | None = None) -> None: ...


class LastResort(Protocol):
    """Who is asked when the mesh does not help."""

    def ask_first_peer(self) -> None:
        """A first peer is wanted; the answer comes as an event."""

    def doubt(self) -> None:
        """A tunnel is closed through which nobody was ever met: parameters or certificates may have changed."""


class MeshDriver:
    """The one who talks with the policy of a node, from `start` on: events that come before wait.

    What is decided is carried out in the order in which it was decided, also where carrying out one thing is an event
    by which the policy decides another. `wake` is called when the next deadline may be another one.
    """

    def __init__(
        self, mesh: policy.Mesh, event_log: EventLog, clock: Clock, wake: Callable[[], object] = lambda: None
    ) -> None:
        self._mesh = mesh
        self._event_log = event_log
        self._clock = clock
        self._wake = wake
        self._hands: tuple[TunnelActions, Speaker, LastResort] | None = None
        self._waiting: list[policy.Event] = []
        self._decided: deque[policy.Action] = deque()
        self._at_work = False
        self._stopped = False

    def start(self, tunnels: TunnelActions, peers: Speaker, registry: LastResort) -> None:
        """Have what the policy decides carried out by these."""
        self._hands = tunnels, peers, registry
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            self.event(event)

    @property
    def connected(self) -> bool:
        """Whether we reach the registry's node, by what the policy knows."""
        return self._mesh.connected

    def status(self) -> str:
        """How the node is, in a line."""
        mesh = self._mesh
        up = sum(tunnel.phase is not policy.Phase.OPENING for tunnel in mesh.tunnels.values())
        state = "connected" if mesh.connected else "the registry's node cannot be reached"
        return f"{state}, {up} of {max(up, mesh.limit)} tunnels, {len(mesh.survey.peers)} routes"

    def stop(self) -> None:
        """Carry out nothing any more: what ends while the node leaves must not be replaced."""
        self._stopped = True

    def event(self, event: policy.Event) -> None:
        """Tell the policy what happened, and do what it decides."""
        if self._hands is None:
            self._waiting.append(event)
            return
        self._decided += self._mesh.handle(event, self._clock.monotonic())
        self._event_log.note(event, connected=self._mesh.connected, now=self._clock.time())
        self._carry_out(*self._hands)
        self._wake()

    def next_deadline(self, now: float) -> float:
        """When `tick` is to be called, if no event comes before."""
        return float("inf") if self._hands is None or self._stopped else self._mesh.next_deadline(now)

    def tick(self) -> None:
        """Tell the policy that time has passed, and do what it decides."""
        if self._hands is not None:
            self._decided += self._mesh.tick(self._clock.monotonic())
            self._carry_out(*self._hands)

    def _carry_out(self, tunnels: TunnelActions, peers: Speaker, registry: LastResort) -> None:
        if self._at_work:
            return
        self._at_work = True
        try:
            while self._decided and not self._stopped:
                action = self._decided.popleft()
                if not isinstance(action, policy.EnsureSession):  # that one comes each time
                    log.debug("%s", action)
                self._event_log.decided(action, self._clock.time())
                self._do(action, tunnels, peers, registry)
        finally:
            self._at_work = False

    def _do(self, action: policy.Action, tunnels: TunnelActions, peers: Speaker, registry: LastResort) -> None:
        match action:
            case policy.OpenTunnel(peer, endpoints):
                tunnels.open(peer, endpoints)
            case policy.CloseTunnel(peer, reason, lost):
                log.info("closing the tunnel to %s: %s", peer, reason)
                if not self._mesh.tunnels[peer].met:
                    registry.doubt()
                tunnels.close(peer, lost=lost)
            case policy.DrainTunnel(peer, reason):
                log.info("draining the tunnel to %s: %s", peer, reason)
                tunnels.drain(self._mesh.tunnels[peer].interface)
            case policy.UndrainTunnel(peer):
                log.info("keeping the tunnel to %s", peer)
                tunnels.undrain(self._mesh.tunnels[peer].interface)
            case policy.DrainClient(peer, hop):
                log.info("draining the tunnel from %s", peer)
                tunnels.drain(hop.interface, hop.address)
            case policy.AvoidLink(peer, hop, sign):
                log.info("packets get lost on the link with %s, as %s: other routes are used", peer, sign)
                tunnels.avoid(hop.interface, hop.address)
            case policy.TrustLink(peer, hop):
                log.info("the link with %s is used again", peer)
                tunnels.trust(hop.interface, hop.address)
            case policy.UndrainClient(_, hop):
                tunnels.undrain(hop.interface, hop.address)
            case policy.AskAddress(peer):
                peers.send(peer, Code.ADDRESS)
            case policy.AskRegion(region):
                peers.send(region, Code.ADDRESS)  # whoever is nearest there answers for its region
            case policy.AskBootstrap():
                registry.ask_first_peer()
            case policy.AskClose(peer):
                peers.send(peer, Code.ASK_CLOSE)
            case policy.AllowClose(peer):
                log.info("%s may close its tunnel to us", peer)
                peers.send(peer, Code.ALLOW_CLOSE)
            case policy.EnsureSession(peer):
                peers.ensure(peer)
            case _:
                assert_never(action)
