"""Echo requests and traces over IPv6, for re6st-status, by the kernel's error queue and mostly without privileges.

Echo requests: RFC 4443 section 4. A trace sends UDP packets with a growing hop limit to ports that nobody uses. A
router that drops one says so (RFC 4443 sections 3.1 and 3.3), and the kernel keeps this for the sender (IPV6_RECVERR in
ipv6(7)).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from re6st.linux.icmpv6 import ECHO_REPLY, ECHO_REQUEST, echo_socket

FIRST_PORT = 33434
"""As in traceroute(8)."""
TRIES = 2
HOPS_LIMIT = 30
ECHO_LENGTH = 24
"""Bytes of an echo request."""
LEAST_MTU = 1280
"""Every link of IPv6 carries a packet of this size (RFC 8200 section 5)."""
IPV6_HEADER = 40
SMALL = IPV6_HEADER + ECHO_LENGTH
"""Bytes of a packet that passes wherever there is a route."""
MTU_TRIES = 8
"""Each hop may say once that a packet is too big for the next link."""

_ECHO = struct.Struct("!BBHHH")
_IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_RECVERR = 23, 24, 25  # linux/in6.h
_PMTUDISC_DO = 2
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err in linux/errqueue.h
_SOURCE = struct.Struct("=HHI16s")  # the beginning of a sockaddr_in6
_FROM_ICMP6 = 3
_UNREACHABLE, _TIME_EXCEEDED, _NO_PORT = 1, 3, 4


class ProbeError(Exception):
    """A packet cannot be sent; the text says why."""


@dataclass(frozen=True, slots=True)
class Hop:
    """Who answered a probe with this hop limit, and after how many seconds; `address` None: nobody."""

    number: int
    address: IPv6Address | None = None
    seconds: float | None = None
    reached: bool = False
    refusal: str = ""
    """Why the trace goes no farther."""


@dataclass(frozen=True, slots=True)
class PathMtu:
    """`told` is what the kernel has learned about the path to an address, in bytes with the IPv6 header.

    `passed` is the size of a packet that arrived: `told`, or LEAST_MTU or SMALL if larger ones vanish silently.
    """

    told: int
    passed: int


def ping(address: IPv6Address, timeout: float) -> float | None:
    """One echo request: the round-trip time in seconds, or None if no answer came. Raises ProbeError."""
    with _echo_socket() as own:
        try:
            own.connect((str(address), 0))
            return _echo(own, ECHO_LENGTH, timeout)
        except OSError as error:
            raise ProbeError(f"{address}: {error.strerror}") from None


def answers(address: IPv6Address, timeout: float) -> bool:
    """Whether a node answers: an echo request, or, if we may not send one, a datagram to a port that nobody uses."""
    try:
        return ping(address, timeout) is not None
    except ProbeError:
        pass
    try:
        with _watched_socket() as own:
            return _probe(own, address, HOPS_LIMIT, timeout).reached
    except ProbeError:
        return False


def path_mtu(address: IPv6Address, timeout: float, interface: str = "") -> PathMtu | None:
    """The largest packet that reaches an address in one piece (RFC 8201); None: not even a small one does.

    A link-local address needs the `interface`. `timeout` is for each try. The small packet is sent first: if a large
    one vanishes, a tunnel over TCP may stop behind it. Raises ProbeError.
    """
    with _echo_socket() as own:
        try:
            own.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            own.connect((str(address), 0, 0, socket.if_nametoindex(interface) if interface else 0))
            if not _passes(own, SMALL, timeout):
                return None
            told = own.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            for _ in range(MTU_TRIES):
                if _passes(own, told, timeout):
                    return PathMtu(told, told)
                before, told = told, own.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
                if told == before:  # nobody said Packet Too Big
                    break
            return PathMtu(told, LEAST_MTU if _passes(own, LEAST_MTU, timeout) else SMALL)
        except OSError as error:
            raise ProbeError(f"{address}: {error.strerror}") from None


def _passes(own: socket.socket, size: int, timeout: float) -> bool:
    """Whether a packet of that size is answered; if it is lost, it is sent once more. Raises OSError."""
    try:
        return any(_echo(own, size - IPV6_HEADER, timeout) is not None for _ in range(TRIES))
    except OSError as error:
        if error.errno == errno.EMSGSIZE:  # the kernel has just learned a smaller size
            return False
        raise


def _echo(own: socket.socket, length: int, timeout: float) -> float | None:
    """One echo request of `length` bytes to the address to which the socket is connected. Raises OSError."""
    token = os.urandom(16)
    sequence = token[0] << 8 | token[1]
    data = token.ljust(length - _ECHO.size, b"\0")
    started = time.monotonic()
    own.send(_ECHO.pack(ECHO_REQUEST, 0, 0, 0, sequence) + data)
    while (left := started + timeout - time.monotonic()) > 0:
        own.settimeout(left)
        try:
            answer = own.recv(1 << 16)
        except TimeoutError:
            break
        if answer[:1] == bytes((ECHO_REPLY,)) and answer[_ECHO.size :] == data:
            return time.monotonic() - started
    return None


def _echo_socket() -> socket.socket:
    """Raises ProbeError."""
    try:
        return echo_socket()
    except PermissionError:
        raise ProbeError("no permission to send echo requests. Use sudo.") from None
    except OSError as error:
        raise ProbeError(f"echo requests: {error.strerror}") from None


def trace(address: IPv6Address, timeout: float, limit: int = HOPS_LIMIT, traffic_class: int = 0) -> Iterator[Hop]:
    """Hops on the path to an address, as they answer; the last one has `reached` or `refusal`. Raises ProbeError.

    `traffic_class` is the byte of the header by which nodes may lead packets elsewhere.
    """
    with _watched_socket() as own:
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        for number in range(1, limit + 1):
            hop = Hop(number)
            for _ in range(TRIES):
                hop = _probe(own, address, number, timeout)
                if hop.address is not None:
                    break
            yield hop
            if hop.reached or hop.refusal:
                return


def _watched_socket() -> socket.socket:
    """A socket for datagrams, for which the kernel keeps errors."""
    own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    own.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    return own


def _probe(own: socket.socket, address: IPv6Address, number: int, timeout: float) -> Hop:
    own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, number)
    port = FIRST_PORT + number
    started = time.monotonic()
    try:
        own.sendto(b"re6st-status trace".ljust(32), (str(address), port))
    except OSError as error:
        raise ProbeError(f"{address}: {error.strerror}") from None
    poller = select.poll()
    poller.register(own, 0)  # errors are reported without asking
    while (left := started + timeout - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        hop = _error(own, address, number, port, time.monotonic() - started)
        if hop is not None:
            return hop
    return Hop(number)


def _error(own: socket.socket, target: IPv6Address, number: int, port: int, seconds: float) -> Hop | None:
    """The next entry of the error queue, if it is about our probe."""
    try:
        _, ancillary, _, about = own.recvmsg(64, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) != (socket.IPPROTO_IPV6, _IPV6_RECVERR) or len(data) < _ERROR.size + _SOURCE.size:
            continue
        _, origin, icmp_type, code, _, _, _ = _ERROR.unpack_from(data)
        if origin != _FROM_ICMP6 or about[1] != port:
            continue
        source = IPv6Address(_SOURCE.unpack_from(data, _ERROR.size)[3])
        if icmp_type == _TIME_EXCEEDED:
            return Hop(number, source, seconds)
        if icmp_type == _UNREACHABLE and (code == _NO_PORT or source == target):
            return Hop(number, source, seconds, reached=True)
        if icmp_type == _UNREACHABLE:
            reasons = {0: "it has no route", 1: "its firewall forbids it", 3: "the address does not answer"}
            return Hop(number, source, seconds, refusal=reasons.get(code, f"unreachable (code {code})"))
    return None
