"""re6st-conf on a machine that has joined before: whether it is a member still, so that no token is spent in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
"""Seconds without an answer after which a user is told that we wait."""


async def patiently(work: Awaitable[T], client: RegistryClient, warn: Callable[[str], None]) -> T:
    """The result of a call of a registry, which may last a minute; after a few seconds the user is told."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    if not done:
        warn(f"registry {client.url} has not answered yet: waiting for it, up to a minute")
    return await task


def identity_in(ca: Path, own: Path, key: Path) -> cert.Identity | None:
    """Who this machine is by these files; None: nobody, or nobody any more."""
    if not (own.exists() and key.exists() and ca.exists()):
        return None
    now = datetime.now(UTC)
    try:
        found = cert.Identity.load(ca, own, key, now)
    except cert.CertError:
        return None
    return found if pki.end_of(found.cert) > now else None


class Membership(Enum):
    """What a registry says of this machine."""

    MEMBER = auto()
    """It has its certificate; or nobody says otherwise, as where the registry is out of reach."""
    REVOKED = auto()
    """It has proven that it has none."""
    DOUBTED = auto()
    """It has none, or one of another key, which only one of this software proves."""


async def membership(url: str, identity: cert.Identity) -> Membership:
    """Whether a registry has the certificate of this machine."""
    try:
        await RegistryClient(url, identity).get_network_config()
    except RegistryRefused as error:
        if error.proven:
            return Membership.REVOKED
        # re6stnet's registries say the one or the other (wire.md 3.1).
        unknown = error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Membership.DOUBTED if unknown else Membership.MEMBER
    except RegistryKeyError:
        return Membership.DOUBTED
    except RegistryError:
        pass
    return Membership.MEMBER
