"""A registry that a test plays, and a node that asks it for parameters and certificates."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from pathlib import Path

from cryptography import x509

from re6st import PROTOCOL, cert
from re6st.client import http
from re6st.client.files import Files
from re6st.client.registries import Registries
from re6st.client.registry_client import RegistryClient
from re6st.core.prefix import Prefix
from re6st.core.wire import params
from re6st.core.wire.extensions import KNOWN
from re6st.core.wire.params import Parameters
from re6st.noded.peer_cache import Cache
from re6st.noded.registry_updates import Updates

NETWORK = IPv6Network("2001:db8:42::/48")
REGISTRY, OWN = Prefix(0, 16), Prefix(1, 16)
YEAR = timedelta(days=365)


class Registry:
    """Answers what it has, or raises it. Like RegistryClient, it is told of a new identity."""

    def __init__(self, authority: cert.Authority, identity: cert.Identity) -> None:
        self.authority, self.identity = authority, identity
        self.parameters: Parameters | Exception = self.version(1)
        self.certificate: x509.Certificate | Exception = OSError()
        self.ca: x509.Certificate | Exception = OSError()
        self.asked = 0
        self.renewed = 0
        self.presented: list[bytes] = []
        self.expected: Set[str] = frozenset()
        self.required: Set[str] = frozenset()
        self.registries = Registries([http.parse_url("http://192.0.2.1/")], timeout=60)

    def version(self, number: int, **changes: object) -> Parameters:
        """Parameters that are signed."""
        version = params.make_version(number, lambda data: cert.sign(self.authority.key, data))
        made = Parameters(
            registry_prefix=REGISTRY, version=version, protocol=PROTOCOL, extensions=KNOWN, babel_hello=0.5
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    async def get_network_config(self) -> bytes:
        self.asked += 1
        if isinstance(self.parameters, Exception):
            raise self.parameters
        values = self.parameters.public() | {"version": base64.b64encode(self.parameters.version).decode()}
        if self.parameters.valid_until is not None:
            values["valid_until"] = self.parameters.valid_until
        if self.parameters.babel_hmac_sign is not None:
            key = cert.encrypt(self.identity.cert, self.parameters.babel_hmac_sign)
            values["babel_hmac_sign"] = base64.b64encode(key).decode()
        return zlib.compress(json.dumps(values).encode())

    async def present_certificate(self, version: bytes) -> bool:
        self.presented.append(version)
        return False

    async def renew_certificate(self) -> x509.Certificate:
        self.renewed += 1
        if isinstance(self.certificate, Exception):
            raise self.certificate
        return self.certificate

    async def get_ca(self) -> x509.Certificate:
        if isinstance(self.ca, Exception):
            raise self.ca
        return self.ca


class World:
    def __init__(self, directory: Path, authority: cert.Authority, key_of: cert.Identity, *, ends: timedelta) -> None:
        now = datetime.now(UTC)
        ca = cert.new_ca(authority.key, NETWORK, "re6st.example.com", "x@example.com", now - timedelta(days=1))
        self.authority = cert.Authority(ca, authority.key)
        self.key = key_of.key
        self.files = Files(directory / "ca.crt", directory / "cert.crt", directory / "cert.key")
        identity = cert.Identity(self.authority.trust, self.issue(2, ends), self.key)
        for path, content in ((self.files.ca, ca), (self.files.cert, identity.cert)):
            path.write_bytes(cert.to_pem(content))
        self.registry = Registry(self.authority, identity)
        self.cache = Cache(directory / "cache.db")
        self.changes: list[tuple[Parameters, cert.Identity]] = []
        self.then: Callable[[], None] | None = None
        """What else a change has for a consequence."""
        self.connected = True
        self.updates = self.again()

    def again(self) -> Updates:
        """The same node, started again."""
        client: RegistryClient = self.registry  # type: ignore[assignment]
        self.updates = made = Updates(client, self.files, self.registry.identity, self.cache, self._changed)
        return made

    def _changed(self) -> None:
        self.changes.append((self.updates.parameters, self.updates.identity))
        if self.then is not None:
            self.then()

    def issue(self, serial: int, ends: timedelta, prefix: Prefix = OWN) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = cert.subject_for(x509.Name([]), serial, prefix)
        return self.authority.issue(subject, self.key.public_key(), serial, now - timedelta(days=1), now + ends)

    def run(self, watch: Callable[[], Awaitable[object]]) -> None:
        """Keep everything up to date until `watch` returns."""

        async def main() -> None:
            task = asyncio.create_task(self.updates.run(self))
            try:
                async with asyncio.timeout(20):
                    await watch()
            finally:
                task.cancel()
                await asyncio.wait([task])
            assert task.cancelled()

        asyncio.run(main())


def started(world: World) -> World:
    asyncio.run(world.updates.start())
    return world
