"""The parts of a registry between calls: what it remembers, and what it does by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from re6st.core.limits.networks import Limits
from re6st.core.prefix import Prefix
from re6st.core.registry.clock import Marks
from re6st.registryd.call import Call, too_many
from re6st.registryd.call_sessions import sessions_of
from re6st.registryd.events import Events, StoredEvents, stored_events
from re6st.registryd.hello import Greeter
from re6st.registryd.last_seen import CallsSeen, Served
from re6st.registryd.local_node import LocalNode
from re6st.registryd.mesh_view import MeshView
from re6st.registryd.others import OtherRegistries
from re6st.registryd.parameters import ParameterService, first_time
from re6st.registryd.presence import EarlierStays, PresenceService, earlier_stays
from re6st.registryd.records import StoredEvent
from re6st.registryd.rekey import KeyChanges
from re6st.registryd.repository import NotFound, Queries
from re6st.registryd.resources import Resources
from re6st.registryd.restored import Restored
from re6st.registryd.stored_certificates import Believed


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a registry knows from earlier runs when it starts."""

    marks: Marks
    events: Sequence[StoredEvent]
    stays: EarlierStays


async def beginning_of(resources: Resources) -> Beginning:
    """Read it from the repository. Raises RepositoryError."""

    def begin(queries: Queries) -> Beginning:
        return Beginning(first_time(queries, resources.clocks.wall()), stored_events(queries), earlier_stays(queries))

    return await resources.repository.read(begin)


class Parts:
    """The parts of one registry, and what all its calls need from them."""

    def __init__(self, resources: Resources, node: LocalNode, beginning: Beginning) -> None:
        authority, repository, clock = resources.authority, resources.repository, resources.clocks.wall
        self.resources = resources
        self.node = node
        self.mesh = MeshView(node)
        self.sessions = sessions_of(repository, authority)
        self.believed = Believed(authority.trust)
        self.events = Events(clock, beginning.events)
        self.event_log = StoredEvents(self.events, repository)
        self.served = Served()
        self.parameter_service = ParameterService(resources, self.mesh, beginning.marks)
        self.seen = CallsSeen(repository, clock, self.parameter_service.review)
        self.presence = PresenceService(repository, node, self.mesh, self.parameter_service, clock, beginning.stays)
        self.keys = KeyChanges(resources, self.parameter_service, self.sessions, self.events)
        self.restored = Restored(resources, self.parameter_service, self.events)
        self.greeter = Greeter(authority, resources.clocks.monotonic)
        self.limits = Limits()
        self.others = OtherRegistries(repository, self.parameter_service, self.event_log)

    def now(self) -> datetime:
        """The time with which to date a certificate. Raises ClockError."""
        return datetime.fromtimestamp(self.parameter_service.now(), UTC)

    async def certificate(self, prefix: Prefix) -> x509.Certificate:
        """The stored certificate of a prefix. Raises NotFound, CertError, RepositoryError."""
        pem = await self.resources.repository.read(lambda queries: queries.pem(prefix))
        if pem is None:
            raise NotFound(f"no certificate for {prefix}")
        return self.believed.certificate(prefix, pem)

    def limit(self, call: Call, allows: Callable[[str, float], bool]) -> None:
        """Raises RpcError if a stranger calls more often than the limit allows."""
        if call.source is not None and not allows(call.source, self.resources.clocks.wall()):
            raise too_many(call)
