"""Begins a node's session: as the deployed software does (wire.md 3.3), or by offers (offers.py).

A node of our software makes an offer and signs it. The registry's offer in return is the same for all nodes for a
minute, so it is signed only once a minute. What ties an answer to one offer is the key that comes from both, which the
answer proves. If somebody repeats an offer, a nonce of ours gives it another session, so that no call can be repeated
with it. The key is dropped after the minute, and nobody can decrypt the sessions that began in it any more.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.wire import extensions, offers
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.offers import Offer, OfferError
from re6st.core.wire.rpc import (
    CALLS_PURPOSE,
    CLIENT_PURPOSE,
    NONCE_LENGTH,
    OFFER_MARK,
    REGISTRY_PURPOSE,
    SECRET_LENGTH,
    UNKNOWN_PURPOSE,
    CallKeys,
    Ratchet,
    SealedRatchet,
)
from re6st.keys import sealing

OFFER_LIFE = 60.0


class OtherKeyError(Exception):
    """The offer is not signed by the key that the registry has for this node."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello, and what protects the calls that follow."""

    answer: bytes
    keys: CallKeys


class Greeter:
    """Answers hellos. `monotonic` gives seconds."""

    def __init__(self, authority: cert.Authority, monotonic: Callable[[], float]) -> None:
        self._authority = authority
        self._monotonic = monotonic
        self._ours: tuple[sealing.SessionKey, Offer] | None = None
        self._made = 0.0

    def plain(self, certificate: x509.Certificate) -> Greeting:
        """A session as in the deployed software. Raises CertError."""
        secret = secrets.token_bytes(SECRET_LENGTH)
        encrypted = cert.encrypt(certificate, secret)
        return Greeting(encrypted + cert.sign(self._authority.key, encrypted), Ratchet(secret))

    def sealed(self, prefix: Prefix, certificate: x509.Certificate, offer: Offer) -> Greeting:
        """A session with forward secrecy. Raises OtherKeyError, OfferError, CertError."""
        ca = sealing.key_text(self._authority.trust.ca)
        said = offers.statement(CLIENT_PURPOSE, (ca, prefix.bits.encode("ascii")), offer)
        if not sealing.verify(cert.key_of_cert(certificate), offer.signature, said):
            raise OtherKeyError(f"the offer is not signed by the key of {prefix}")
        key, ours = self._offer(ca)
        nonce = secrets.token_bytes(NONCE_LENGTH)
        secret = offers.session_key(CALLS_PURPOSE, key.shared(offer.public), offer, ours, nonce)
        keys = SealedRatchet(secret, sealing.CIPHER)
        _, tag = keys.seal(b"")
        return Greeting(OFFER_MARK + nonce + offers.encode(ours) + base64.b64decode(tag), keys)

    def unknown(self, prefix: Prefix, offer: Offer) -> str:
        """Proves to the sender of this offer that it is the registry which knows nobody with that prefix."""
        parties = (sealing.key_text(self._authority.trust.ca), prefix.bits.encode("ascii"))
        signature = sealing.sign(self._authority.key, offers.statement(UNKNOWN_PURPOSE, parties, offer))
        return base64.b64encode(signature).decode("ascii")

    def forget(self) -> None:
        """Drop an old key of ours. Call this every minute or so: if no hello comes, nothing else drops it."""
        if self._ours is not None and self._monotonic() - self._made >= OFFER_LIFE:
            self._ours = None

    def _offer(self, ca: bytes) -> tuple[sealing.SessionKey, Offer]:
        self.forget()
        if self._ours is None:
            key = sealing.SessionKey()
            offer = Offer(key.public, extensions.text(KNOWN))
            said = offers.statement(REGISTRY_PURPOSE, (ca,), offer)
            self._ours, self._made = (key, offer.signed_by(sealing.sign(self._authority.key, said))), self._monotonic()
        return self._ours


def read_offer(header: str) -> Offer:
    """The offer in the header of a hello. Raises OfferError."""
    try:
        return offers.decode(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError):
        raise OfferError("an offer that cannot be read") from None
