"""re6st-conf on a machine that has joined before: is it still a member, so that no token is wasted?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from enum import Enum, auto
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from re6st import cert
from re6st.client.registry_client import RegistryClient, RegistryError, RegistryKeyError, RegistryRefused
from re6st.keys import pki

T = TypeVar("T")

PATIENCE = 5.0
"""After so many seconds without an answer, the user is told that we wait."""


async def patiently(work: Awaitable[T], client: RegistryClient, warn: Callable[[str], None]) -> T:
    """The result of a call to a registry, which may take a minute; after a few seconds the user is told."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    if not done:
        warn(f"registry {client.url} has not answered yet: waiting for it, up to a minute")
    return await task


def identity_in(ca: Path, own: Path, key: Path) -> cert.Identity | None:
    """The identity of this machine by these files; None if it has none, or no valid one any more."""
    if not (own.exists() and key.exists() and ca.exists()):
        return None
    now = datetime.now(UTC)
    try:
        found = cert.Identity.load(ca, own, key, now)
    except cert.CertError:
        return None
    return found if pki.end_of(found.cert) > now else None


class Membership(Enum):
    """What a registry says about this machine."""

    MEMBER = auto()
    """The registry has its certificate; or nobody denies that, as when the registry is out of reach."""
    REVOKED = auto()
    """The registry has proven that it has no certificate of this machine."""
    DOUBTED = auto()
    """The registry has none, or one for another key, but only a registry of this software could prove it."""


async def membership(urls: Sequence[str], identity: cert.Identity) -> Membership:
    """Whether the registries have the certificate of this machine."""
    try:
        await RegistryClient(urls, identity).get_network_config()
    except RegistryRefused as error:
        if error.proven:
            return Membership.REVOKED
        # re6stnet's registries answer with one of these (wire.md 3.1)
        unknown = error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Membership.DOUBTED if unknown else Membership.MEMBER
    except RegistryKeyError:
        return Membership.DOUBTED
    except RegistryError:
        pass
    return Membership.MEMBER
