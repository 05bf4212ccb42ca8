"""What a node answers to messages of port 326, and what it does on them (wire.md 6.5)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from re6st import __version__
from re6st.client.registry_client import PLATFORM
from re6st.core.limits.budget import Bucket, Buckets
from re6st.core.mesh import policy as mesh
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code, Endpoint, format_addresses, outside, parse_addresses
from re6st.core.wire.sessions import Sessions
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.registry_updates import Updates

SOFTWARE = f"{__version__}, {PLATFORM}"
VERSION_LIMIT = 1100
"""Bytes of a peer's version that are remembered: a number, and a signature by a key of 8192 bits."""
LOG_LIMIT = 500
"""Bytes of a message for the log (code 7) that are kept."""
LOG_RATE = 0.1, 5.0, 1.0, 50.0
"""Such messages a second, and at once, of one peer and of all."""
REFRESH_RATE = 1 / 60, 2.0
"""How often any program here may have us ask the registry, a second and at once, where there is no registry beside us.
"""
TOLD_LIMIT = 256
"""Peers of whom we remember what addresses they were told."""

log = logging.getLogger(__name__)


class RegionTalk(Protocol):
    """Who finds somebody in another region, and names somebody of ours: noded/region_finder.py."""

    def heard(self, peer: Prefix) -> None: ...
    def answer(self, peer: Prefix, payload: bytes) -> bytes | None: ...
    def told(self, peer: Prefix, endpoints: tuple[Endpoint, ...]) -> None: ...


class MessageHandler:
    """`answer` takes each message; `event` is the policy's ear, `remember` keeps the addresses of a peer, which the
    policy knows then.
    """

    def __init__(
        self,
        policy: mesh.Mesh,
        updates: Updates,
        own: OwnAddresses,
        sessions: Sessions,
        event: Callable[[mesh.Event], None],
        remember: Callable[[Prefix, tuple[Endpoint, ...]], None],
    ) -> None:
        self.about_links: Callable[[Prefix, bytes], object] = lambda *_: None
        """Hears what peers say about WireGuard links."""
        self.about_lines: Callable[[Prefix, bytes], object] = lambda *_: None
        """Hears what they say about lines."""
        self.about_regions: RegionTalk | None = None
        """Hears what peers say about somebody of their region, and what we asked for that."""
        self.about_further_links: Callable[[Prefix, bytes], object] = lambda *_: None
        """Hears what they say about further ones with the same peer."""
        self._mesh = policy
        self._updates = updates
        self._own = own
        self._sessions = sessions
        self._event = event
        self._remember = remember
        self._logged: Buckets[Prefix] = Buckets(*LOG_RATE)
        self._refreshed = Bucket(*REFRESH_RATE)
        self._told: dict[Prefix, str] = {}
        """Our addresses as peers were told them last, the latest last."""

    def answer(self, peer: Prefix | None, code: int, payload: bytes, relayed: bool = False) -> bytes | None:
        """The answer to a message, if it has one; `peer` None: from the registry on this machine (wire.md 7).

        `relayed`: the peer asks for the registry beside it, which tells others.
        """
        registry = self._updates.parameters.registry_prefix
        if self.about_regions is not None and peer is not None and not relayed:
            self.about_regions.heard(peer)
        match code:
            case Code.VERSION:
                return self._version(peer, payload)
            case Code.ADDRESS if payload and peer is not None:
                endpoints = outside(parse_addresses(payload.decode("utf-8", "replace")), self._own.network)
                self._remember(peer, endpoints)
                self._event(mesh.AddressLearned(peer, endpoints))
                if self.about_regions is not None:
                    self.about_regions.told(peer, endpoints)
                return self._tell_inside(peer)
            case Code.ADDRESS:
                return self.addresses(peer, published=relayed).encode()
            case Code.ASK_CLOSE if peer is not None:
                self._event(mesh.CloseAsked(peer))
            case Code.ALLOW_CLOSE if peer is not None:
                self._event(mesh.CloseAllowed(peer))
            case Code.SOFTWARE:
                return SOFTWARE.encode()
            case Code.TOPOLOGY if peer in (None, registry):
                clients = [p.cn for p in self._mesh.clients]
                ours = [t.peer.cn for t in self._mesh.tunnels.values() if t.phase is not mesh.Phase.OPENING]
                return " ".join((str(len(ours)), *ours, *clients)).encode()
            case Code.LOG if self._mesh.settings.own == registry and peer is not None:
                if self._logged.take(peer, time.monotonic()):
                    log.info("%s says: %s", peer, _printable(payload[:LOG_LIMIT]))
            case Code.WIREGUARD if peer is not None and not relayed:
                self.about_links(peer, payload)
            case Code.LINES if peer is not None and not relayed:
                self.about_lines(peer, payload)
            case Code.REGION if self.about_regions is not None and peer is not None and not relayed:
                return self.about_regions.answer(peer, payload)
            case Code.FURTHER_LINKS if peer is not None and not relayed:
                self.about_further_links(peer, payload)
        return None

    def _tell_inside(self, peer: Prefix) -> bytes | None:
        """What a peer behind our router should have as well; not again what it was told, as it answers likewise."""
        if not self._is_behind_our_router(peer):
            return None
        before = self._told.get(peer)
        text = self.addresses(peer)
        return None if text == before else text.encode()

    def _is_behind_our_router(self, peer: Prefix) -> bool:
        """By what it said last of where it is."""
        return self._own.share_router(self._mesh.known.get(peer, ()))

    def _version(self, peer: Prefix | None, version: bytes) -> bytes | None:
        if peer is None:  # the registry on this machine: there is something new
            settings = self._mesh.settings
            is_beside = settings.own in (self._updates.parameters.registry_prefix, *settings.other_registries)
            # The registry may have come to this machine a moment ago; but so says any program.
            if is_beside or self._refreshed.take(time.monotonic()):
                self._updates.refresh()
            return None
        answer = self._updates.hear(version)
        if known := self._sessions.peer(peer):
            known.version = max(known.version, version[:VERSION_LIMIT], self._updates.parameters.version)
        return answer

    def addresses(self, peer: Prefix | None, published: bool = False) -> str:
        """Our endpoints, in the form that the peer reads: with the private ones for who is behind the same router,
        unless it asks for somebody else and so they would be `published`.
        """
        endpoints = self._own.endpoints()
        if peer is not None and not published and self._is_behind_our_router(peer):
            endpoints = tuple(dict.fromkeys((*endpoints, *self._own.inner())))
        known = self._sessions.peer(peer) if peer else None
        if known is not None and known.protocol < 7:
            endpoints = tuple(Endpoint(e.host, e.port, e.protocol) for e in endpoints)
        text = format_addresses(endpoints)
        if peer is not None and not published:
            self._told.pop(peer, None)
            self._told[peer] = text
            if len(self._told) > TOLD_LIMIT:
                del self._told[next(iter(self._told))]
        return text


def _printable(text: bytes) -> str:
    """What a peer wrote, on one line and without what a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in text.decode("utf-8", "replace"))
