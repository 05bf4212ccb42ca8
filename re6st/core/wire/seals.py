"""How messages of a session between two nodes of this software are sealed: encrypted, with forward secrecy.

A session begins as the deployed protocol has it (wire.md 6.3), and works at once. Whoever got its secret then *asks* by
a message that holds an offer (offers.py), and asks again when nothing comes of it; others acknowledge it as any message
that they do not know. Who made the secret *answers* with an offer of his own, however often he is asked. Who has both
offers has the keys: the asker seals what it sends from then on, since the answer shows that the other has them too; the
answerer when the first sealed message shows the same. What a peer seals once, it is not believed unsealed again in that
session. So whatever is lost, doubled or late, each side understands all that the other sends; at worst a session stays
as it began.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from re6st.core.wire import extensions, offers
from re6st.core.wire.datagrams import SEALED, Sealed
from re6st.core.wire.extensions import KNOWN, Extension, ExtensionError
from re6st.core.wire.offers import Aead, Ephemeral, Offer, OfferError
from re6st.core.wire.requirement import AnnouncedNames

PURPOSES = "re6st node's question", "re6st node's answer"
"""What the offers of who asks and of who answers are for."""
KEYS_PURPOSE = "re6st messages"
ASK_AGAIN = 2.0, 8.0
"""Seconds after which we ask again, and once more."""
LIFE = 86400.0
"""Seconds after which a sealed session is replaced, so that its keys are forgotten."""


class Sealer(Protocol):
    """Our keys, for offers to peers. `Certificate` is the peer's, as Sessions knows it."""

    aead: Aead

    @property
    def abilities(self) -> frozenset[Extension]:
        """What this machine can do now beyond what every one can (extensions.OF_THE_MACHINE)."""

    def ephemeral(self) -> Ephemeral: ...

    def sign_offer(self, statement: bytes) -> bytes: ...

    def verify_offer(self, der: bytes, signature: bytes, statement: bytes) -> bool:
        """Whether the holder of a peer's certificate, which was verified before, signed this."""


class Seal:
    """The sealing of one session. `own` and `peer` are the certificates in use, `asks` says who got the secret."""

    def __init__(self, sealer: Sealer, own: bytes, peer: bytes, *, asks: bool, now: float) -> None:
        self.asks = asks
        self.names: frozenset[str] = frozenset()
        """What the peer announced."""
        self.active = False
        """We seal what we send."""
        self.confirmed = False
        """The peer does, too: nothing else of it is taken any more."""
        self.rx = self.tx = 0
        self._sealer = sealer
        self._own, self._peer = own, peer
        self._since = now
        self._asked = 0
        self._ask_after = now
        self._key: Ephemeral | None = None
        self._ours: Offer | None = None
        self._theirs = b""
        self._sending = self._receiving = b""

    @property
    def announced(self) -> AnnouncedNames:
        """What the peer told us of itself."""
        return AnnouncedNames(self.names if self._theirs else None, self._since)

    def due(self, now: float) -> bool:
        """Whether it is time to ask; then it is noted as done."""
        if not self.asks or self.active or self._asked > len(ASK_AGAIN) or now < self._ask_after:
            return False
        self._ask_after = now + ASK_AGAIN[min(self._asked, len(ASK_AGAIN) - 1)]
        self._asked += 1
        return True

    def old(self, now: float) -> bool:
        """Whether the keys have been in use for long."""
        return self.active and now - self._since > LIFE

    def offer(self) -> bytes:
        """Our offer, always the same one in a session."""
        if self._ours is None:
            self._key = self._sealer.ephemeral()
            offer = Offer(self._key.public, extensions.text(KNOWN | self._sealer.abilities))
            signature = self._sealer.sign_offer(self._statement(offer, self.asks, self._own, self._peer))
            self._ours = offer.signed_by(signature)
        return offers.encode(self._ours)

    def take(self, data: bytes) -> None:
        """Take the peer's offer. Raises OfferError.

        Without the extension in it there are only the names.
        """
        if self._theirs:
            if data != self._theirs:
                raise OfferError("another offer in the same session")
            return
        theirs = offers.decode(data)
        said = self._statement(theirs, not self.asks, self._peer, self._own)
        if not self._sealer.verify_offer(self._peer, theirs.signature, said):
            raise OfferError("an offer that is not signed by the peer")
        try:
            self.names = extensions.read(theirs.names)
        except ExtensionError as error:
            raise OfferError(str(error)) from None
        self.offer()
        if Extension.SEALED_MESSAGES in self.names:
            self._derive(theirs)
        self._key = None
        self._theirs = data

    def seal(self, payload: bytes) -> bytes:
        """The datagram of a message."""
        self.tx += 1
        number = SEALED | self.tx
        head = number.to_bytes(4)
        return head + self._sealer.aead.seal(self._sending, number, payload, head)

    def open(self, packet: Sealed) -> bytes | None:
        """The message in a datagram, if it was sealed in this session, and is later than the last one."""
        counter = packet.number & ~SEALED
        if not self._receiving or counter <= self.rx:
            return None
        payload = self._sealer.aead.open(self._receiving, packet.number, packet.data, packet.number.to_bytes(4))
        if payload is not None:
            self.rx = counter
            self.active = self.confirmed = True
        return payload

    def _derive(self, theirs: Offer) -> None:
        if self._key is None or self._ours is None:
            raise RuntimeError("an offer of our own comes first")
        question, answer = (self._ours, theirs) if self.asks else (theirs, self._ours)
        secret = offers.session_key(KEYS_PURPOSE, self._key.shared(theirs.public), question, answer)
        keys = [offers.expand(secret, purpose) for purpose in PURPOSES]
        self._sending, self._receiving = keys if self.asks else keys[::-1]
        self.active = self.asks

    @staticmethod
    def _statement(offer: Offer, question: bool, by: bytes, to: bytes) -> bytes:
        parties = (hashlib.sha256(der).digest() for der in (by, to))
        return offers.statement(PURPOSES[0 if question else 1], parties, offer)
