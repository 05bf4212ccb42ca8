"""Keys that cost nothing, for what is fuzzed behind them."""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.wire import datagrams, peer_crypto


@dataclass(frozen=True)
class Certificate:
    prefix: Prefix
    serial: int
    der: bytes
    fingerprint: bytes
    until: float = 4e9


class Crypto:
    """Whoever sends two bytes of a prefix has its certificate, and all signatures are good."""

    def __init__(self, own: Prefix) -> None:
        self.prefix = own
        self.der = own.value.to_bytes(2)
        self.fingerprint = self.der * 10

    def read(self, der: bytes) -> Certificate:
        if len(der) != 2:
            raise datagrams.WireError("no certificate")
        return Certificate(Prefix(int.from_bytes(der), 16), 1, der, der * 10)

    def admit(self, certificate: peer_crypto.PeerCertificate) -> None:
        pass

    def still_good(self, certificate: peer_crypto.PeerCertificate) -> bool:
        return True

    def encrypt(self, certificate: peer_crypto.PeerCertificate, data: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes) -> bytes:
        return data

    def sign(self, data: bytes) -> bytes:
        return data

    def verify(self, certificate: peer_crypto.PeerCertificate, signature: bytes, data: bytes) -> bool:
        return signature == data
