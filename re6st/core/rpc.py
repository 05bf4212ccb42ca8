"""The registry's HTTP calls, as both ends see them: methods, parameters, the ratchet of a session (wire.md section 3).

No HTTP here: a call is a request target and a body; `Ratchet` gives and checks the header Re6stHMAC.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlencode

HEADER = "Re6stHMAC"
SECRET_LENGTH = 20


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
        try:
            given = base64.b64decode(header, validate=True)
        except (binascii.Error, ValueError):
            return False
        if not hmac.compare_digest(given, self._digest(message)):
            return False
        self._step()
        return True

    def _digest(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha1")

    def _step(self) -> None:
        self._key = hashlib.sha1(self._key).digest()
