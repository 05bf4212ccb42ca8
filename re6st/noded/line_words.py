"""What neighbours and this node tell each other about their lines, by messages on port 326 (core/wire/lines.py)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from re6st.core.prefix import Prefix
from re6st.core.routing.line_wishes import Able, Message, Ready, Wish
from re6st.core.wire.datagrams import Code, WireError
from re6st.core.wire.extensions import Extension
from re6st.core.wire.lines import decode, encode
from re6st.core.wire.sessions import Sessions

log = logging.getLogger(__name__)


class LineSocket(Protocol):
    """The socket of port 326: noded/peer_socket.py."""

    @property
    def sessions(self) -> Sessions: ...
    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None: ...
    def ensure(self, peer: Prefix) -> None: ...


class HearsWishes(Protocol):
    """Who does what neighbours with several lines wish: noded/handing.py."""

    def wished(self, by: Prefix, wish: Wish) -> None: ...
    def ready(self, by: Prefix, word: Ready) -> None: ...


class HearsAble(Protocol):
    """Who wishes: noded/incoming_shares.py."""

    def able(self, by: Prefix, word: Able) -> None: ...


class LineWords:
    """Speaks with those that understand it, and with nobody else."""

    def __init__(self, socket: LineSocket, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket
        self._clock = clock

    def understands(self, peer: Prefix) -> bool:
        """Whether a peer does. Where there is no session that tells it, one is begun."""
        if self._socket.sessions.speaks(peer, Extension.LINES, self._clock()):
            return True
        self._socket.ensure(peer)
        return False

    def tell(self, peer: Prefix, message: Message) -> None:
        """Tell a peer, now or never: what is said late may not be true any more."""
        if self.understands(peer):
            self._socket.send(peer, Code.LINES, encode(message))


class LineEars:
    """Hands on what peers say."""

    def __init__(self, words: LineWords, handing: HearsWishes, incoming: HearsAble) -> None:
        self._words = words
        self._handing = handing
        self._incoming = incoming

    def received(self, peer: Prefix, body: bytes) -> None:
        """Take a message. What is none, or not from whom we take them, is dropped."""
        if not self._words.understands(peer):
            return
        try:
            message = decode(body)
        except WireError as error:
            log.debug("%s: %s", peer, error)
            return
        match message:
            case Wish():
                self._handing.wished(peer, message)
            case Ready():
                self._handing.ready(peer, message)
            case Able():
                self._incoming.able(peer, message)
