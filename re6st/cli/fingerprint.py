"""The fingerprint of a CA, as people write it and as we show it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509

from re6st import cert
from re6st.view import pasted


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The expected digest of the CA certificate in DER form."""

    algorithm: str
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Read ALG:HEX, the output of openssl, or only the digits of SHA-256. Raises ValueError."""
        name, digest = pasted.fingerprint(text)
        names = (name, name.replace("-", ""), name.replace("-", "_"))
        algorithm = next((each for each in names if each in hashlib.algorithms_available), None)
        if algorithm is None:
            raise ValueError(text)
        if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
            raise ValueError(text)
        return cls(algorithm, digest)

    @classmethod
    def of(cls, ca: x509.Certificate, algorithm: str = "sha256") -> Fingerprint:
        return cls(algorithm, cert.fingerprint(ca, algorithm))

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest.hex()}"
