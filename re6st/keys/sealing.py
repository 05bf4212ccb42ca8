"""The algorithms of core/wire/offers.py: X25519, ChaCha20-Poly1305, and signatures by RSA-PSS with SHA-256.

All keys in certificates of a network are RSA keys, since the deployed software encrypts with them (wire.md 0.1).
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from re6st.core.wire.offers import OfferError

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


class SessionKey:
    """A key of X25519 for one session."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def shared(self, public: bytes) -> bytes:
        """Raises OfferError."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise OfferError("an offer whose key cannot be used") from None


class Cipher:
    """ChaCha20-Poly1305 (RFC 8439)."""

    def seal(self, key: bytes, number: int, data: bytes, associated: bytes) -> bytes:
        return ChaCha20Poly1305(key).encrypt(number.to_bytes(12), data, associated)

    def open(self, key: bytes, number: int, data: bytes, associated: bytes) -> bytes | None:
        try:
            return ChaCha20Poly1305(key).decrypt(number.to_bytes(12), data, associated)
        except InvalidTag:
            return None


CIPHER = Cipher()


def sign(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    return key.sign(data, _PSS, hashes.SHA256())


def verify(key: rsa.RSAPublicKey, signature: bytes, data: bytes) -> bool:
    """Whether the owner of this key signed `data`."""
    try:
        key.verify(signature, data, _PSS, hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def key_text(certificate: x509.Certificate) -> bytes:
    """A certificate's key in bytes. A renewed certificate has the same key."""
    form, kind = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.DER
    return certificate.public_key().public_bytes(kind, form)
