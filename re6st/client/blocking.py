"""The registry's calls for other programs, as blocking functions: `from re6st.registry import RegistryClient`.

SlapOS manages tokens with it (docs/slapos.md). Names, parameters and results have been the same there for years: a call
returns bytes, which are empty if the registry has nothing to say, and None, with a line in the log, if it failed. Only
a refusal for lack of rights (status 403) is raised. Programs of this project use re6st/client/registry_client.py, which
tells more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from http import HTTPStatus

from re6st import cert
from re6st.client import registry_client
from re6st.client.registry_client import RegistryError, RegistryRefused

Text = str | bytes
"""The result of an earlier call, or text: getNodePrefix's result is passed to revoke as it is."""

log = logging.getLogger(__name__)


class RegistryClient:
    """Calls one registry, one call at a time; threads may share it. Do not use it within an event loop.

    `identity` is for the calls of nodes, which have the parameter `cn`. Raises RegistryError for an invalid URL.
    """

    def __init__(
        self, url: str, identity: cert.Identity | None = None, *, timeout: float = registry_client.TIMEOUT
    ) -> None:
        """`timeout` is in seconds, for one call."""
        self._client = registry_client.RegistryClient(url, identity, timeout=timeout)
        self._identity = identity
        self._lock = threading.Lock()

    # --- for everybody ---

    def hello(self, client_prefix: Text, protocol: Text = "1") -> bytes | None:
        return self._call("hello", client_prefix=client_prefix, protocol=protocol)

    def getCa(self) -> bytes | None:
        """The certificate of the CA, in PEM form."""
        return self._call("getCa")

    def requestToken(self, email: Text) -> bytes | None:
        """Make the registry mail a token."""
        return self._call("requestToken", email=email)

    def requestCertificate(self, token: Text, req: Text, location: Text = "", ip: Text = "") -> bytes | None:
        """A certificate in PEM form; empty for an unknown token. An empty token asks for an anonymous certificate."""
        return self._call("requestCertificate", token=token, req=req, location=location, ip=ip)

    # --- for nodes ---

    def renewCertificate(self, cn: Text = "") -> bytes | None:
        return self._call_as("renewCertificate", cn)

    def getDh(self, cn: Text = "") -> bytes | None:
        return self._call_as("getDh", cn)

    def getNetworkConfig(self, cn: Text = "") -> bytes | None:
        return self._call_as("getNetworkConfig", cn)

    def getCountry(self, cn: Text, address: Text) -> bytes | None:
        return self._call_as("getCountry", cn, address=address)

    def getBootstrapPeer(self, cn: Text = "") -> bytes | None:
        return self._call_as("getBootstrapPeer", cn)

    # --- for the operator, from an authorized origin ---

    def addToken(self, email: Text, token: Text) -> bytes | None:
        """Empty if it was added; None if it exists already."""
        return self._call("addToken", email=email, token=token)

    def isToken(self, token: Text) -> bytes | None:
        """b"1" as long as it has not been used, else empty."""
        return self._call("isToken", token=token)

    def deleteToken(self, token: Text) -> bytes | None:
        return self._call("deleteToken", token=token)

    def revoke(self, cn_or_serial: Text | int) -> bytes | None:
        """Revoke a certificate by its serial, or remove the node with this CN (`INT/LEN`) from the network."""
        return self._call("revoke", cn_or_serial=str(cn_or_serial) if isinstance(cn_or_serial, int) else cn_or_serial)

    def updateHMAC(self) -> bytes | None:
        """Take the next step of a change of babel's keys."""
        return self._call("updateHMAC")

    def getNodePrefix(self, email: Text) -> bytes | None:
        """The CN of the node that was enrolled with this e-mail address; empty if there is none."""
        return self._call("getNodePrefix", email=email)

    def getIPv6Address(self, email: Text) -> bytes | None:
        """The IPv6 address, inside the network, of the node that was enrolled with this e-mail address; empty if there
        is none.
        """
        return self._call("getIPv6Address", email=email)

    def getIPv4Information(self, email: Text) -> bytes | None:
        """The IP address at which this node is reached from outside the network; empty if it is not known."""
        return self._call("getIPv4Information", email=email)

    def versions(self) -> bytes | None:
        """JSON: the version of each node's software."""
        return self._call("versions")

    def topology(self) -> bytes | None:
        """JSON: which nodes have tunnels to each other."""
        return self._call("topology")

    def _call_as(self, method: str, cn: Text, **arguments: Text) -> bytes | None:
        """A call in a session. Raises ValueError if `cn` is not that of the identity, or if there is no identity."""
        if self._identity is None:
            raise ValueError(f"{method} is for nodes: give RegistryClient an identity")
        own = self._identity.prefix
        if cn and _text(cn) not in (own.bits, own.cn):
            raise ValueError(f"{method} for {_text(cn)!r}, but the identity is that of {own.bits}")
        return self._call(method, **arguments)

    def _call(self, method: str, **arguments: Text) -> bytes | None:
        values = {name: _text(value) for name, value in arguments.items()}
        try:
            with self._lock:
                return asyncio.run(self._client.call(method, **values)) or b""
        except RegistryRefused as error:
            if error.status == HTTPStatus.FORBIDDEN:
                raise
            log.warning("%s: %s", method, error)
        except RegistryError as error:
            log.warning("%s: %s", method, error)
        return None


def _text(value: Text) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value
