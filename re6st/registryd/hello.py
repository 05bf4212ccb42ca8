"""How the registry begins the session of a node: as the deployed software does (wire.md 3.3), or by offers (offers.py).

A node of our software makes an offer, which it signs. Ours in return is the same for all nodes for a minute, so that it
is signed once a minute: what makes an answer fit one offer is the key that comes from both, which the answer proves. An
offer that somebody repeats gets another session each time, by a nonce of ours, so that no call can be repeated with it.
With the minute ends the key, and nobody can learn again what the sessions that began in it were encrypted with.
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
    """The offer is not signed by the key that the registry has of this node."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The answer to a hello, and what protects the calls after it."""

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
        """A session of the deployed software. Raises CertError."""
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
        """The proof, for who made this offer, that it is us who know nobody of that prefix."""
        parties = (sealing.key_text(self._authority.trust.ca), prefix.bits.encode("ascii"))
        signature = sealing.sign(self._authority.key, offers.statement(UNKNOWN_PURPOSE, parties, offer))
        return base64.b64encode(signature).decode("ascii")

    def forget(self) -> None:
        """Forget a key of ours that is old. To be called every minute or so: without hellos nothing else does."""
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
