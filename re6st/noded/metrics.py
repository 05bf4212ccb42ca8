"""The metrics of a running node: what its rooms count, as one page for Prometheus (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping

from re6st.client.counted_client import CountedClient
from re6st.core.telemetry.event_log import EventLog
from re6st.core.telemetry.node_metrics import Counts
from re6st.noded.observer import Observer
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.peer_socket import Peers
from re6st.noded.registry_updates import Updates
from re6st.noded.settings import InForce
from re6st.service.exposition import exposition


class NodeMetrics:
    """Collects from the rooms of a node."""

    def __init__(
        self,
        in_force: InForce,
        observer: Observer,
        event_log: EventLog,
        peers: Peers,
        client: CountedClient,
        updates: Updates,
        own: OwnAddresses,
    ) -> None:
        self._in_force = in_force
        self._observer = observer
        self._event_log = event_log
        self._peers = peers
        self._client = client
        self._updates = updates
        self._own = own
        self._write = exposition()

    async def render(self) -> bytes:
        """The page."""
        counts = Counts(
            happened=self._event_log.counts,
            messages=self._peers.messages,
            dropped=self._peers.dropped,
            calls=self._client.durations,
            registry_reachable=self._client.reachable,
            parameters_since=self._updates.since,
            mapped=self._mapped(),
        )
        return self._write(self._observer.metrics(counts))

    def _mapped(self) -> Mapping[str, bool]:
        """The ports that we ask the router for, by protocol."""
        if not self._in_force.effective.config.upnp:
            return {}
        there = {endpoint.protocol for endpoint in self._own.mapped}
        return {protocol: protocol in there for _, protocol in self._own.ports if protocol.family == 4}
