"""Finds somebody in another region, and names somebody of ours to whoever asks (core/wire/region_questions.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from random import Random
from typing import Protocol

from re6st.core.limits.budget import Buckets
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.routing.regions import anycast_address
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.core.wire.news import Speaker
from re6st.core.wire.region_questions import ANSWER_RATE, RegionQuestions


class RegionGreeter(Speaker, Protocol):
    """Who speaks with peers: noded/peer_socket.py."""

    def greet(self, ip: IPv6Address) -> None:
        """Show whoever has this address who we are."""


class RegionFinder:
    """Speaks for the policy: its questions to regions are dealt with here, all else is passed on to peers.

    `event` is the policy's ear. `longest_subnet` tells how long the subnet of a member is at most.
    """

    def __init__(
        self,
        network: IPv6Network,
        mesh: policy.Mesh,
        event: Callable[[policy.Event], None],
        chance: Random,
        longest_subnet: Callable[[], int],
    ) -> None:
        self._network = network
        self._mesh = mesh
        self._event = event
        self._chance = chance
        self._longest_subnet = longest_subnet
        self._peers: RegionGreeter | None = None
        self._questions = RegionQuestions()
        self._answered: Buckets[Prefix] = Buckets(*ANSWER_RATE)

    def start(self, peers: RegionGreeter) -> None:
        """Speak with peers by this."""
        self._peers = peers

    # -- for the policy --

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        """Send a message; to a region: ask for somebody there."""
        if self._peers is None or self._is_ours(peer):  # the registry, and who is remembered, are asked for other parts
            return
        if code != Code.ADDRESS or not self._is_region(peer):
            self._peers.send(peer, code, payload)
        elif self._questions.ask(peer, time.monotonic()):
            try:
                self._peers.greet(anycast_address(self._network, peer))
            except PrefixError:  # a region of one address
                self._peers.send(peer, code, payload)

    def ensure(self, peer: Prefix) -> None:
        """Open a session if there is none."""
        if self._peers is not None:
            self._peers.ensure(peer)

    # -- what peers say --

    def heard(self, peer: Prefix) -> None:
        """A peer has said something, in a session: we may have greeted its region."""
        region = self._mesh.region_of(peer)
        if region is not None and self._peers is not None and self._questions.is_met(peer, region, time.monotonic()):
            self._peers.send(peer, Code.REGION)

    def answer(self, peer: Prefix, payload: bytes) -> bytes | None:
        """Name somebody of our region; or ask the one that was named to us where it is."""
        now = time.monotonic()
        if not payload:
            if not self._mesh.settings.region_length:
                return None  # in a flat network nobody has to ask
            return self._somebody(peer).bits.encode("ascii") if self._answered.take(peer, now) else None
        region = self._mesh.region_of(peer)
        longest = self._longest_subnet() - self._network.prefixlen
        named = None if region is None else self._questions.named(peer, region, payload, longest, now)
        if named is not None and self._peers is not None:
            self._peers.send(named, Code.ADDRESS)
        return None

    def told(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None:
        """A peer has told where it is: it may be the one that was named to us."""
        if region := self._questions.told(peer, time.monotonic()):
            self._event(policy.RegionAnswered(region, peer, endpoints))

    # -- within --

    def _is_region(self, peer: Prefix) -> bool:
        length = self._mesh.settings.region_length
        return length == peer.length and self._mesh.region_of(peer) == peer

    def _is_ours(self, peer: Prefix) -> bool:
        settings = self._mesh.settings
        return peer.length == settings.region_length < settings.own.length and peer.contains(settings.own)

    def _somebody(self, asking: Prefix) -> Prefix:
        own = self._mesh.settings.own
        others = (peer for peer in self._mesh.survey.peers if self._mesh.region_of(peer) is None and peer != asking)
        return self._chance.choice([own, *sorted(others)])
