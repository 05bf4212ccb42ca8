"""The operator's page in re6st-registry: its options, its socket, and its parts."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from re6st.api.admin import Admin
from re6st.core.registry.origins import Origins
from re6st.registry import Registry
from re6st.service.unix_socket import listening_socket
from re6st.web.bounds import BOUNDS, PageBounds

logger = logging.getLogger("web")

OFF = "off"
DEFAULT_PORT = 8326
SOCKET_PATH_LIMIT = 107
"""Bytes of the path of a unix socket (unix(7))."""
SOCKET_MODE = 0o660
BACKLOG = 100


class WebError(Exception):
    """The page cannot be served; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the page is served: an address and port, or the path of a unix socket."""

    address: IPv4Address | IPv6Address = IPv4Address("127.0.0.1")  # noqa: RUF009 - it is immutable
    port: int = DEFAULT_PORT
    path: Path | None = None

    def __str__(self) -> str:
        return str(self.path) if self.path else self.netloc

    @property
    def netloc(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"

    @property
    def url(self) -> str | None:
        """How a browser on this machine calls it."""
        if self.path is not None:
            return None
        if self.address.is_unspecified:
            return f"http://localhost:{self.port}/"
        return f"http://{self.netloc}/"


@dataclass(frozen=True, slots=True)
class WebConfig:
    listen: Listen
    always_login: bool
    url: str | None
    """The registry's URL for nodes, if it is known."""
    port: int
    """The registry's port."""


def add_options(parser: argparse._ActionsContainer) -> None:
    """The options of the page."""
    add = parser.add_argument
    add(
        "--web",
        metavar="PLACE",
        type=place,
        help=f"serve the operator's page here: [IP:]PORT, the path of a unix socket, or {OFF} (default: {OFF})",
    )
    add(
        "--web-login",
        action="store_true",
        help="require a login to the page from this machine and the authorized origins too",
    )


def place(text: str) -> Listen | None:
    """An argparse type: PORT, IP:PORT, [IP]:PORT, a path with a slash, or `off`, which gives None."""
    if text == OFF:
        return None
    if "/" in text:
        if len(os.fsencode(text)) > SOCKET_PATH_LIMIT:
            raise argparse.ArgumentTypeError(f"{text!r} is too long for a unix socket: {SOCKET_PATH_LIMIT} bytes")
        return Listen(path=Path(text))
    host, _, port = text.rpartition(":")
    try:
        if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
            raise ValueError
        if not host:
            return Listen(port=int(port))
        return Listen(ip_address(host.removeprefix("[").removesuffix("]")), int(port))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a place to listen: give PORT, 127.0.0.1:PORT, [::1]:PORT, the path of a socket, or {OFF}"
        ) from None


def configured(options: argparse.Namespace) -> WebConfig | None:
    """The settings from the options; None: no page."""
    if options.web is None:
        return None
    return WebConfig(options.web, options.web_login, options.url, options.port)


def listen(config: WebConfig) -> socket.socket:
    """The listening socket. Raises WebError."""
    wanted = config.listen
    try:
        return _bound(wanted)
    except OSError as error:
        raise WebError(
            f"--web: cannot listen on {wanted}: {error.strerror}. Choose another place, or --web {OFF}."
        ) from None


def _bound(wanted: Listen) -> socket.socket:
    if wanted.path is not None:
        return listening_socket(wanted.path, backlog=BACKLOG, mode=SOCKET_MODE)
    bound = socket.socket(socket.AF_INET6 if wanted.address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((str(wanted.address), wanted.port))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


class WebPage:
    """The page of a running registry."""

    def __init__(
        self,
        config: WebConfig,
        listening: socket.socket,
        registry: Registry,
        admin: Admin,
        origins: tuple[str, ...],
        bounds: PageBounds = BOUNDS,
    ) -> None:
        # Imported here, so that a registry without the page does not spend memory and time on it.
        from re6st.web.access import PageAccess
        from re6st.web.server import PageServer
        from re6st.web.views import JoinAddress, Views
        from re6st.web.watch import Watch

        self._config = config
        self._listening = listening
        self._access = PageAccess(Origins(origins), time.monotonic, always_login=config.always_login)
        self.watch = Watch(registry)
        views = Views(registry, admin, self.watch, JoinAddress(config.url, config.port))
        self._server = PageServer(views, self._access, registry.events, bounds)

    def new_login(self) -> dict[str, Any]:
        """A link for one use, for `re6st-registry web-login`."""
        path = f"login#{self._access.new_link()}"
        url = self._config.listen.url
        return {"listening": str(self._config.listen), "path": f"/{path}", "url": url and url + path}

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._server.start(self._listening)
            logger.info("the operator's page is at %s", self._config.listen.url or self._config.listen)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.watch.run(), name="watch")
        finally:
            await self._server.stop()

    def close(self) -> None:
        """Close the socket."""
        self._listening.close()
        if self._config.listen.path is not None:
            with suppress(OSError):
                self._config.listen.path.unlink()
