"""Keys of WireGuard links: X25519 (RFC 7748), each made for one link."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def new_keys() -> tuple[bytes, bytes]:
    """A secret key, and the public one to it."""
    key = X25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return secret, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
