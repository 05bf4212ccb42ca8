"""Peers that lack what the network requires are refused, and said to be (core/wire/requirement.py decides who)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.wire import extensions
from re6st.core.wire.requirement import AnnouncedNames, Requirement

EVERY = 5.0

log = logging.getLogger(__name__)


class AnnouncingPeers(Protocol):
    """What knows which extensions peers announced."""

    @property
    def sessions(self) -> AnnouncingSessions: ...
    def begin_anew(self, peer: Prefix) -> None: ...


class AnnouncingSessions(Protocol):
    def announced(self) -> Mapping[Prefix, AnnouncedNames]: ...


class TunnelCutter(Protocol):
    """What cuts tunnels."""

    def cut(self, peer: Prefix) -> None: ...


class RequirementWatch:
    """Looks at what peers announce, and cuts the tunnels of those that lack something."""

    def __init__(self, requirement: Requirement, peers: AnnouncingPeers, tunnels: TunnelCutter) -> None:
        self._requirement = requirement
        self._peers = peers
        self._tunnels = tunnels
        self._next = 0.0

    def tick(self, required: frozenset[str], now: float) -> None:
        """To be called at `next_deadline`, with the names that are required now."""
        if now < self._next:
            return
        self._next = now + EVERY
        found = self._requirement.look(required, self._peers.sessions.announced() if required else {}, now)
        for peer, missing in found.lacking:
            log.warning(
                "%s lacks what this network requires, %s: cutting its tunnels and refusing it. Upgrade it",
                *(peer, extensions.text(missing)),
            )
            self._tunnels.cut(peer)
        for peer in found.again:
            self._peers.begin_anew(peer)

    def next_deadline(self, required: frozenset[str]) -> float:
        """When to look again."""
        return self._next if required else float("inf")

    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        return [
            f"{peer} lacks {extensions.text(missing)}, which this network requires: it is refused"
            for peer, missing in self._requirement.lacking.items()
        ]
