"""How two parties of this software begin a session with forward secrecy: the bytes that are sent and signed.

Each side makes an *offer*: the public half of a key that it made for this session only (X25519, RFC 7748), the names of
what it can do, and a signature by its lasting key. Who answers an offer signs that too, so what somebody on the way
changes in either of them is seen, and an answer fits one offer only. The keys of the session come from both offers
(HKDF, RFC 5869, with SHA-256). The lasting keys only sign: who steals one later can read nothing of what was recorded.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

PUBLIC_LENGTH = 32
KEY_LENGTH = 32
SIGNATURE_LIMIT = 1024
"""Bytes of a signature by an RSA key of 8192 bits."""
NAMES_LIMIT = 1024


class OfferError(ValueError):
    """Bytes that are no offer, or an offer that is not accepted."""


class Ephemeral(Protocol):
    """A key made for one session, and forgotten with it."""

    @property
    def public(self) -> bytes: ...

    def shared(self, public: bytes) -> bytes:
        """The secret that only the holders of both keys know. Raises OfferError for a public key that is none."""


class Aead(Protocol):
    """Authenticated encryption; each key is used with each number once."""

    def seal(self, key: bytes, number: int, data: bytes, associated: bytes) -> bytes: ...

    def open(self, key: bytes, number: int, data: bytes, associated: bytes) -> bytes | None:
        """None for what was not sealed so."""


@dataclass(frozen=True, slots=True)
class Offer:
    """`names` as they were sent, since that is signed."""

    public: bytes
    names: str
    signature: bytes = b""

    def signed_by(self, signature: bytes) -> Offer:
        return Offer(self.public, self.names, signature)


def encode(offer: Offer) -> bytes:
    names = offer.names.encode("ascii")
    return offer.public + len(names).to_bytes(2) + names + offer.signature


def decode(data: bytes) -> Offer:
    """Raises OfferError."""
    public, length, rest = data[:PUBLIC_LENGTH], data[PUBLIC_LENGTH : PUBLIC_LENGTH + 2], data[PUBLIC_LENGTH + 2 :]
    size = int.from_bytes(length)
    if len(length) < 2 or size > NAMES_LIMIT or not size < len(rest) <= size + SIGNATURE_LIMIT:
        raise OfferError("an offer that is cut short or too long")
    names = rest[:size]
    if not names.isascii():
        raise OfferError("an offer whose names are not ASCII")
    return Offer(public, names.decode("ascii"), rest[size:])


def statement(purpose: str, parties: Iterable[bytes], offer: Offer) -> bytes:
    """What the maker of an offer signs: what it is for, what both know of each other, and what is offered.

    Each part is preceded by its length, so that no two statements have the same bytes.
    """
    parts = [purpose.encode("ascii"), *parties, offer.public, offer.names.encode("ascii")]
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def session_key(purpose: str, shared: bytes, first: Offer, second: Offer, nonce: bytes = b"") -> bytes:
    """The first key of a session, from the common secret and the two offers.

    `nonce` is what makes this session another one where an offer is made again.
    """
    transcript = b"".join(len(part).to_bytes(4) + part for part in (encode(first), encode(second), nonce))
    return expand(hmac.digest(hashlib.sha256(transcript).digest(), shared, "sha256"), purpose)


def expand(key: bytes, purpose: str) -> bytes:
    """Another key that comes from this one, and does not tell it (HKDF-Expand, one block)."""
    return hmac.digest(key, purpose.encode("ascii") + b"\1", "sha256")
