"""WireGuard interfaces of this machine, whichever implementation makes them, and which one there is.

The kernel's own comes first (wireguard_kernel.py), then wireguard-go (wireguard_go.py); where there is neither, a node
says why, and goes on without.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Protocol

from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.linux.rtnetlink import IFA_F_NODAD

ADDRESS_LENGTH = 64
SYSCTL = Path("/proc/sys/net/ipv6/conf")
SETTINGS = {"disable_ipv6": "0", "addr_gen_mode": "1", "accept_ra": "0", "accept_dad": "0", "dad_transmits": "0"}
"""Of each interface: it has IPv6, and the kernel makes no address for it."""
NEEDED = "disable_ipv6"


class WireGuardError(OSError):
    """An interface cannot be made, or does not do what it is told; `errno` is the kernel's, or None."""


class NoWireGuard(Exception):
    """This machine has no WireGuard of that kind; the text says why."""


class Device(Protocol):
    """One interface. Its methods raise WireGuardError."""

    @property
    def interface(self) -> str: ...

    @property
    def process(self) -> tuple[int, str] | None:
        """The number and the name of the process that carries it; None where the kernel does."""

    async def configure(self, config: LinkConfig) -> None:
        """Have these keys, this port and this peer. If it is up, and knows where the peer is, a handshake begins.

        Done again, it begins another one: WireGuard itself waits for 5 s. `errno` is EADDRINUSE where somebody else has
        the port.
        """

    async def state(self) -> LinkState:
        """What it is like now."""

    async def gone(self) -> None:
        """Wait until it has gone without us; the kernel's own does not."""

    async def remove(self) -> None:
        """Remove the interface. Raises nothing."""


class Implementation(Protocol):
    """What makes interfaces."""

    @property
    def name(self) -> str:
        """For people."""

    async def make(self, interface: str) -> Device:
        """Make an interface, which is down and has no address. Raises WireGuardError."""

    def found(self, interface: str, process: tuple[int, str] | None) -> Device:
        """Go on with one that an earlier daemon left. Raises WireGuardError where it is gone."""


class WireGuardKernel(Protocol):
    """What an interface of any kind needs of the kernel; rtnetlink.Netlink has it. Each raises NetlinkError."""

    def put_address(self, ip: Address, length: int, index: int, flags: int = 0) -> None: ...

    def set_link(self, index: int, *, up: bool, mtu: int | None = None) -> None: ...


def bring_up(kernel: WireGuardKernel, interface: str, address: IPv6Address, mtu: int) -> None:
    """Give an interface the address of its link, and no other one, and bring it up. Raises OSError."""
    index = socket.if_nametoindex(interface)
    for setting, value in SETTINGS.items():
        path = SYSCTL / interface / setting
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            # In containers none can be changed: the others are better so, but a link works without.
            if setting == NEEDED:
                raise WireGuardError(error.errno, f"{path}: {error.strerror}") from None
    kernel.put_address(address, ADDRESS_LENGTH, index, IFA_F_NODAD)
    kernel.set_link(index, up=True, mtu=mtu)


def choose(kinds: Sequence[Callable[[], Implementation]]) -> Implementation:
    """The first implementation that there is. Raises NoWireGuard, with the reasons of all."""
    reasons = []
    for kind in kinds:
        try:
            return kind()
        except NoWireGuard as error:
            reasons.append(str(error))
    raise NoWireGuard("; ".join(reasons))


def need_port(port: int) -> None:
    """Raises WireGuardError where a UDP port is somebody's.

    An interface that cannot have its port says so only in the log of the kernel, or of wireguard-go, if it is down yet.
    """
    for family, anywhere in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        try:
            probe = socket.socket(family, socket.SOCK_DGRAM)
        except OSError:  # a machine without that family
            continue
        with probe:
            try:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((anywhere, port))
            except OSError as error:
                raise WireGuardError(error.errno, f"UDP port {port}: {error.strerror}") from None
