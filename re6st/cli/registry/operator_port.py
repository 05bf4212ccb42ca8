"""Where the registry's operator calls by HTTP (--operator-port), and when a proxy makes this unsafe."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from re6st.cli.registry.page import OFF, Listen, place


@dataclass(frozen=True, slots=True)
class OperatorPlace:
    """Where restricted methods may be called: on the port for all, on a separate one, or nowhere."""

    with_others: bool
    listen: Listen | None = None

    def __str__(self) -> str:
        return "--port" if self.with_others else OFF if self.listen is None else self.listen.netloc


SAME_PORT = OperatorPlace(True)


def operator_place(text: str) -> OperatorPlace:
    """An argparse type: PORT, IP:PORT, [IP]:PORT, or `off`."""
    wanted = place(text)
    if wanted is not None and wanted.path is not None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give PORT, 127.0.0.1:PORT, [::1]:PORT, or {OFF}")
    return OperatorPlace(False, wanted)


def bound(wanted: Listen) -> socket.socket:
    """The listening socket. Raises OSError."""
    own = socket.socket(socket.AF_INET6 if wanted.address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if own.family == socket.AF_INET6:
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        own.bind((str(wanted.address), wanted.port))
    except OSError:
        own.close()
        raise
    return own


def own_names(url: str | None) -> tuple[str, ...]:
    """Names of this machine that no stranger's DNS has: the one in --url, and its host name."""
    named = url and urlsplit(url).hostname
    return tuple(filter(None, (named, socket.gethostname().lower())))


def warnings(ipv4: str, ipv6: str, port: int, url: str | None, operators: OperatorPlace) -> Iterator[str]:
    """Why, by the addresses on which the registry listens, a proxy may pass on operator's calls of anybody."""
    if not operators.with_others:
        return
    listening = [text for text in (ipv4, ipv6) if text]
    reason = ""
    if listening and all(_is_loopback(text) for text in listening):
        reason = "the registry listens on loopback only, so a proxy must be there"
    elif url and _is_elsewhere(url, port):
        reason = f"--url {url} is not where the registry listens, so a proxy must be there"
    if reason:
        yield (
            f"{reason}. If it ever leaves X-Forwarded-For out, everybody may revoke and make tokens:"
            f" give --operator-port {OFF}, or a port that it does not pass on"
        )


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_elsewhere(url: str, port: int) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.port or 80) != port
    except ValueError:
        return False
