"""The registry's HTTP calls, as both ends see them: methods, parameters, the ratchet of a session (wire.md section 3).

No HTTP here: a call is a request target and a body; a ratchet gives and checks the header Re6stHMAC. `Ratchet` is that
of the deployed software, `SealedRatchet` ours, whose answers are encrypted and whose keys do not last.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol
from urllib.parse import urlencode

from re6st.core.wire.offers import Aead, expand

HEADER = "Re6stHMAC"
SECRET_LENGTH = 20
OFFER_HEADER = "Re6stOffer"
"""Of the request `hello`: the client's offer in base64. Other registries ignore it, and answer as they always do."""
OFFER_MARK = b"re6st offer\n"
"""How the answer to an offer begins: NONCE_LENGTH bytes of chance, the registry's offer, and
TAG_LENGTH bytes that only the session's key makes."""
NONCE_LENGTH = 16
TAG_LENGTH = 16
CLIENT_PURPOSE, REGISTRY_PURPOSE, CALLS_PURPOSE = "re6st node's hello", "re6st registry's hello", "re6st calls"
"""What the two offers, and the key that comes from them, are for."""
UNKNOWN_HEADER = "Re6stUnknown"
"""Of a refused `hello` with an offer: the registry's signature, in base64, that it knows nobody of that prefix.
Anything on the way can answer with 404."""
UNKNOWN_PURPOSE = "re6st registry knows no such node"


class Access(Enum):
    """Who may call a method (wire.md 3.2)."""

    PUBLIC = "public"
    NODE = "node"
    """Holders of a session; the parameter `cn` names the caller."""
    RESTRICTED = "restricted"
    """Callers from an authorized origin."""


@dataclass(frozen=True, slots=True)
class Method:
    """One call: its parameters in order (True: required) and who may make it."""

    name: str
    access: Access
    parameters: Mapping[str, bool]


def _method(name: str, access: Access, *required: str, **optional: None) -> Method:
    return Method(name, access, dict.fromkeys(required, True) | dict.fromkeys(optional, False))


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        _method("hello", Access.PUBLIC, "client_prefix", protocol=None),
        _method("getCa", Access.PUBLIC),
        _method("requestToken", Access.PUBLIC, "email"),
        _method("requestCertificate", Access.PUBLIC, "token", "req", location=None, ip=None),
        _method("renewCertificate", Access.NODE, "cn"),
        _method("rekeyCertificate", Access.NODE, "cn", "req"),
        _method("revokeSuperseded", Access.NODE, "cn"),
        _method("presentCertificate", Access.PUBLIC, "cert", version=None),
        _method("getDh", Access.NODE, "cn"),
        _method("getNetworkConfig", Access.NODE, "cn"),
        _method("getCountry", Access.NODE, "cn", "address"),
        _method("getBootstrapPeer", Access.NODE, "cn"),
        _method("addToken", Access.RESTRICTED, "email", "token"),
        _method("isToken", Access.RESTRICTED, "token"),
        _method("deleteToken", Access.RESTRICTED, "token"),
        _method("revoke", Access.RESTRICTED, "cn_or_serial"),
        _method("updateHMAC", Access.RESTRICTED),
        _method("getNodePrefix", Access.RESTRICTED, "email"),
        _method("getIPv6Address", Access.RESTRICTED, "email"),
        _method("getIPv4Information", Access.RESTRICTED, "email"),
        _method("versions", Access.RESTRICTED),
        _method("topology", Access.RESTRICTED),
    )
}


def target(method: str, arguments: Mapping[str, str]) -> str:
    """The request target of a call, without the base of the registry's URL: '/METHOD?name=value&...'."""
    query = urlencode(arguments)
    return f"/{method}?{query}" if query else f"/{method}"


class CallKeys(Protocol):
    """What protects the calls of one session; both ends hold one that moves on with every message."""

    def sign(self, message: bytes) -> str:
        """The header value for our call; the keys move on."""

    def check(self, message: bytes, header: str) -> bool:
        """Whether the header fits the other end's call; only then the keys move on."""

    def seal(self, body: bytes) -> tuple[bytes, str]:
        """An answer as it travels, and its header value; the keys move on."""

    def open(self, body: bytes, header: str) -> bytes | None:
        """The answer in what arrived; None, and the keys stay, if that is not what the other end sent."""

    @property
    def secret(self) -> bytes:
        """What there is to keep of it: with that one of the same kind goes on from here."""

    def answered(self) -> CallKeys:
        """As it will be after one more message."""


class Ratchet:
    """The key of one session, as it moves on with every message (wire.md 3.3).

    A call takes two steps: the request's HMAC and the answer's, each followed by key = SHA1(key). Both ends hold one of
    these; a call that fails half-way leaves them apart, and a new hello brings them together.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = secret

    def sign(self, message: bytes) -> str:
        """The header value for our message; the key moves on."""
        digest = self._digest(message)
        self._step()
        return base64.b64encode(digest).decode("ascii")

    def check(self, message: bytes, header: str) -> bool:
        """Whether the header fits the other end's message; only then the key moves on."""
        given = _unbase64(header)
        if given is None or not hmac.compare_digest(given, self._digest(message)):
            return False
        self._step()
        return True

    def seal(self, body: bytes) -> tuple[bytes, str]:
        return body, self.sign(body)

    def open(self, body: bytes, header: str) -> bytes | None:
        return body if self.check(body, header) else None

    @property
    def secret(self) -> bytes:
        return self._key

    def answered(self) -> Ratchet:
        return Ratchet(_next_key(self._key))

    def _digest(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha1")

    def _step(self) -> None:
        self._key = _next_key(self._key)


class SealedRatchet:
    """The keys of one session that offers began (offers.py): each message has one of its own.

    From the chain come the key of the next message and the next chain; the old one is forgotten, so who learns it later
    cannot go back. A call is authenticated; an answer is encrypted too.
    """

    def __init__(self, secret: bytes, aead: Aead) -> None:
        self._chain = secret
        self._aead = aead

    def sign(self, message: bytes) -> str:
        tag = self._aead.seal(self._key("call"), 0, b"", message)
        self._step()
        return base64.b64encode(tag).decode("ascii")

    def check(self, message: bytes, header: str) -> bool:
        tag = _unbase64(header)
        if tag is None or self._aead.open(self._key("call"), 0, tag, message) is None:
            return False
        self._step()
        return True

    def seal(self, body: bytes) -> tuple[bytes, str]:
        sealed = self._aead.seal(self._key("answer"), 0, body, b"")
        self._step()
        return sealed[:-TAG_LENGTH], base64.b64encode(sealed[-TAG_LENGTH:]).decode("ascii")

    def open(self, body: bytes, header: str) -> bytes | None:
        tag = _unbase64(header)
        if tag is None or len(tag) != TAG_LENGTH:
            return None
        opened = self._aead.open(self._key("answer"), 0, body + tag, b"")
        if opened is not None:
            self._step()
        return opened

    @property
    def secret(self) -> bytes:
        return self._chain

    def answered(self) -> SealedRatchet:
        return SealedRatchet(expand(self._chain, "next"), self._aead)

    def _key(self, message: str) -> bytes:
        return expand(self._chain, message)

    def _step(self) -> None:
        self._chain = expand(self._chain, "next")


def _next_key(key: bytes) -> bytes:
    return hashlib.sha1(key).digest()


def _unbase64(header: str) -> bytes | None:
    try:
        return base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        return None
