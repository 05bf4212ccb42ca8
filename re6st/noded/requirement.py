"""Peers that lack what the network requires are refused, and said to be (core/wire/requirement.py decides who)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from re6st.core.prefix import Prefix
from re6st.core.wire import extensions
from re6st.core.wire.requirement import Requirement
from re6st.noded.peer_socket import Peers
from re6st.noded.tunnels import Tunnels

EVERY = 5.0

log = logging.getLogger(__name__)


class RequirementWatch:
    """`required` gives the names of now."""

    def __init__(self, required: Callable[[], frozenset[str]], peers: Peers, tunnels: Tunnels) -> None:
        self._required = required
        self._peers = peers
        self._tunnels = tunnels
        self._requirement = Requirement()
        self._next = 0.0
        peers.refused = self.lacks

    def lacks(self, peer: Prefix) -> bool:
        """Whether a peer is refused."""
        return peer in self._requirement.lacking

    def tick(self) -> None:
        """To be called every second or so."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        required = self._required()
        found = self._requirement.look(required, self._peers.sessions.announced() if required else {}, now)
        for peer, missing in found.lacking:
            log.warning(
                "%s lacks what this network requires, %s: its tunnels are cut, and it is refused. Upgrade it",
                *(peer, extensions.text(missing)),
            )
            self._tunnels.cut(peer)
        for peer in found.again:
            self._peers.begin_anew(peer)

    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        return [
            f"{peer} lacks {extensions.text(missing)}, which this network requires: it is refused"
            for peer, missing in self._requirement.lacking.items()
        ]
