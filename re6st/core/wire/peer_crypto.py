"""What sessions.py needs of keys and certificates: our own, those of peers, and the CA."""

from __future__ import annotations

from typing import Protocol

from re6st.core.prefix import Prefix


class PeerCertificate(Protocol):
    """What `Sessions` needs of a peer's certificate."""

    @property
    def prefix(self) -> Prefix: ...
    @property
    def serial(self) -> int: ...
    @property
    def der(self) -> bytes: ...
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def until(self) -> float:
        """When it ends, in seconds since 1970."""


class Crypto(Protocol):
    """Our own keys and the CA, as `Sessions` uses them. All methods raise WireError when they refuse."""

    prefix: Prefix
    der: bytes
    fingerprint: bytes

    def read(self, der: bytes) -> PeerCertificate:
        """A peer's certificate, as far as it can be checked for little: its form, issuer, dates, and not revoked."""

    def admit(self, certificate: PeerCertificate) -> None:
        """Verify one that was read strictly, its signature too (wire.md 2.4)."""

    def still_good(self, certificate: PeerCertificate) -> bool:
        """Whether a certificate admitted before is still valid and not revoked."""

    def encrypt(self, certificate: PeerCertificate, data: bytes) -> bytes: ...

    def decrypt(self, data: bytes) -> bytes: ...

    def sign(self, data: bytes) -> bytes: ...

    def verify(self, certificate: PeerCertificate, signature: bytes, data: bytes) -> bool: ...
