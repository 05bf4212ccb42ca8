"""What rooms of a node tell each other: small objects between two rooms that need not know of one another."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from re6st.core.mesh import policy
from re6st.core.mesh.uplink_choice import UplinkChoice
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.core.wire.sessions import Sessions
from re6st.linux.kernel import Address
from re6st.noded.contracts import PolicyInput
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.reachability import Lines
from re6st.noded.settings import InForce
from re6st.tunnel import Connected


class Filter(Protocol):
    """Who drains tunnels, while that can be done."""

    @property
    def available(self) -> bool: ...


class PolicySettings:
    """What the policy is told of the settings in force, of our country and of what this machine can do."""

    def __init__(self, in_force: InForce, packet_filter: Filter, own: OwnAddresses) -> None:
        self._in_force = in_force
        self._filter = packet_filter
        self._own = own

    @property
    def now(self) -> policy.Settings:
        return replace(self._in_force.effective.mesh(can_drain=self._filter.available), country=self._own.country)


class SettingsNews:
    """Tells the policy of other settings."""

    def __init__(self, settings: PolicySettings, driver: PolicyInput) -> None:
        self._settings = settings
        self._driver = driver

    def tell(self) -> None:
        self._driver.event(policy.SettingsChanged(self._settings.now))

    async def follow(self, news: asyncio.Event) -> None:
        """Whenever there is news, until cancelled."""
        while True:
            await news.wait()
            news.clear()
            self.tell()


class Refreshed(Protocol):
    """Who tells peers our addresses."""

    def refresh(self) -> None: ...


class CountryNews:
    """Our country is another one: the policy and our peers are told."""

    def __init__(self, settings: SettingsNews, advertiser: Refreshed) -> None:
        self._settings = settings
        self._advertiser = advertiser

    def tell(self) -> None:
        self._settings.tell()
        self._advertiser.refresh()


class Remembering(Protocol):
    """Who remembers our endpoints for the next start."""

    def set_own(self, endpoints: tuple[Endpoint, ...]) -> None: ...


class Whereabouts:
    """What becomes of our addresses: they are remembered, and `moved` is set."""

    def __init__(self, in_force: InForce, memory: Remembering, moved: asyncio.Event) -> None:
        self._in_force = in_force
        self._memory = memory
        self._moved = moved

    def is_ours(self, ip: Address) -> bool:
        """Whether an address is one inside re6st."""
        effective = self._in_force.effective
        ipv4 = effective.parameters.ipv4
        return ip in effective.identity.trust.network or (ipv4 is not None and ip in ipv4)

    def keep(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Our endpoints are these now."""
        self._memory.set_own(endpoints)
        self._moved.set()


class SessionSpeaker(Protocol):
    """Who sends messages to peers, by sessions."""

    @property
    def sessions(self) -> Sessions: ...
    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None: ...


class Composer(Protocol):
    """Who knows what a peer is told of where we are."""

    def addresses(self, peer: Prefix | None) -> str: ...


class Routed(Protocol):
    """Who knows whether there is a route to a peer."""

    def is_routed(self, peer: Prefix) -> bool: ...


class AddressTeller:
    """Tells peers where we are."""

    def __init__(self, peers: SessionSpeaker, answers: Composer, known: Routed) -> None:
        self._peers = peers
        self._answers = answers
        self._known = known

    def acquainted(self) -> Iterable[Prefix]:
        """The peers we have spoken with."""
        return self._peers.sessions.acquainted()

    def is_reachable(self, peer: Prefix) -> bool:
        """Whether one can be told now."""
        return self._known.is_routed(peer)

    def has_answered(self, peer: Prefix) -> bool:
        """Whether it has answered what we sent."""
        return self._peers.sessions.answered(peer)

    def tell(self, peer: Prefix) -> None:
        self._peers.send(peer, Code.ADDRESS, self._answers.addresses(peer).encode())


class Learner(Protocol):
    """Who learns from peers how others see us."""

    def learn(self, connected: Connected, theirs: Iterable[Endpoint]) -> None: ...


class KnownEndpoints(Protocol):
    """Who knows where peers are."""

    @property
    def addresses(self) -> Mapping[Prefix, tuple[Endpoint, ...]]: ...
    def worked(self, peer: Prefix, endpoint: Endpoint) -> None: ...


class Arrivals:
    """What we learn from each client tunnel that came up: where the peer is, and how it sees us."""

    def __init__(self, known: KnownEndpoints, advertiser: Learner) -> None:
        self._known = known
        self._advertiser = advertiser

    def connected(self, connected: Connected) -> None:
        self._known.worked(connected.peer, connected.endpoint)
        self._advertiser.learn(connected, self._known.addresses.get(connected.peer, ()))


class LineFollower(Protocol):
    """Who tells others where we are."""

    def follow(self, lines: Lines) -> None: ...


class LineTunnels(Protocol):
    """The tunnels that go over lines."""

    def leave_lines(self, names: Collection[str]) -> None: ...
    def join_lines(self) -> None: ...


class LineNews:
    """What becomes of it when the lines to the Internet change: our addresses are told, and tunnels belong to lines."""

    def __init__(self, advertiser: LineFollower, tunnels: LineTunnels) -> None:
        self._advertiser = advertiser
        self._tunnels = tunnels

    def changed(self, lines: Lines) -> None:
        """They are others, or have other addresses."""
        self._advertiser.follow(lines)
        self._tunnels.join_lines()

    def left(self, names: Collection[str]) -> None:
        """Nobody can be reached by these any more."""
        self._tunnels.leave_lines(names)


class LinksBeside(Protocol):
    """Who knows of several links with one peer: contracts.Links."""

    def user_of(self, peer: Prefix, interface: str) -> Hashable: ...
    def gives_up(self, peer: Prefix, interface: str) -> bool: ...


class DeadLinkNews:
    """The policy hears of dead links; and before it, who has to know that a line may be dead. Of one where the tunnel
    goes on by another link it hears nothing.
    """

    def __init__(self, driver: PolicyInput, choice: UplinkChoice, links: LinksBeside) -> None:
        self._driver = driver
        self._choice = choice
        self._links = links

    def event(self, event: policy.Event) -> None:
        """See PolicyInput."""
        if isinstance(event, policy.LinkDoubted):
            self._choice.doubt(self._links.user_of(event.peer, event.interface))
        if isinstance(event, policy.LinkDead) and self._links.gives_up(event.peer, event.interface):
            return
        self._driver.event(event)


class Leaving(Protocol):
    """Who leaves tunnels that ran from addresses which are gone."""

    def moved(self, lost: frozenset[Address]) -> None: ...


class Moves:
    """What becomes of it when addresses of this machine were lost, or others are there that were not."""

    def __init__(self, tunnels: Leaving, driver: PolicyInput) -> None:
        self._tunnels = tunnels
        self._driver = driver

    def moved(self, lost: frozenset[Address], *, news: bool) -> None:
        self._tunnels.moved(lost)
        if news:
            self._driver.event(policy.UplinkUp())
