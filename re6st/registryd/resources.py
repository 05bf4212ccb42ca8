"""What every part of a registry is given: the CA, the state, the settings, the clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from re6st import cert
from re6st.core.registry.allocator import Community
from re6st.core.wire.params import Parameters
from re6st.registryd.mail import Mailer
from re6st.registryd.repository import Repository
from re6st.service.geoip import GeoIp


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The settings from the command line. `parameters` has those of the network's parameters that it sets; `grace` is
    in seconds.
    """

    parameters: Parameters
    dh: bytes
    communities: tuple[Community, ...]
    prefix_length: int
    """For tokens; 0: no tokens."""
    anonymous_prefix_length: int
    """0: no anonymous certificates."""
    grace: int
    mailer: Mailer | None = None
    geoip: GeoIp | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """Tells the time, and waits, in seconds; `wall` gives Unix time, and may be wrong."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Resources:
    authority: cert.Authority
    repository: Repository
    settings: RegistrySettings
    clocks: Clocks = field(default_factory=Clocks)
