"""Serves the metrics over HTTP (--metrics): one page at /metrics, for a Prometheus that asks now and then.

Clients are limited in number, time and size; h11 parses their requests. The page is made at most once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11

from re6st.core.registry.origins import is_plain_host
from re6st.service.connections import Clients
from re6st.service.exposition import CONTENT_TYPE
from re6st.service.metrics_place import ListenAddress, MetricsError

PATH = b"/metrics"
HEAD_LIMIT = 8192
"""Bytes of the head of a request."""
CLIENTS_LIMIT, SHARE = 32, 8
"""Number of clients in all, and from one address."""
TIMEOUT = 10.0
"""Seconds to send a request, and again to read the answer."""
FRESH = 1.0
"""Seconds for which a page can be used again."""
_IP_FREEBIND = 15  # ip(7); it also holds for IPv6
_LOOPBACK = ("127.0.0.1", "::1")

log = logging.getLogger(__name__)


def listen(place: ListenAddress) -> list[socket.socket]:
    """The sockets, bound. Raises MetricsError."""
    sockets: list[socket.socket] = []
    for host in [place.host] if place.host else _LOOPBACK:
        own = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if own.family == socket.AF_INET6:
                own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # An address of ours inside re6st appears only later.
            own.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            own.bind((host, place.port))
        except OSError as error:
            own.close()
            if sockets and not place.host:  # a machine without ::1
                continue
            for each in sockets:
                each.close()
            raise MetricsError(f"--metrics {place}: {error.strerror}. Choose another address or port.") from None
        sockets.append(own)
    return sockets


class MetricsServer:
    """Serves the output of `render`."""

    def __init__(self, sockets: list[socket.socket], render: Callable[[], Awaitable[bytes]]) -> None:
        self._sockets = sockets
        self._render = render
        self._page: tuple[float, bytes] | None = None
        self._making = asyncio.Lock()
        self._clients = Clients(CLIENTS_LIMIT, self._serve, share=SHARE)
        self._trouble = ""

    async def run(self) -> None:
        """Serve until cancelled."""
        servers = [
            await asyncio.start_server(self._clients.connected, sock=own, limit=HEAD_LIMIT) for own in self._sockets
        ]
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for server in servers:
                server.close()
            await self._clients.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        async with asyncio.timeout(TIMEOUT):
            try:
                request = await _request(connection, reader)
            except h11.RemoteProtocolError as error:
                await _send(connection, writer, HTTPStatus(error.error_status_hint))
                return
        if request is None:
            return
        own = writer.get_extra_info("sockname")
        if own[0] in _LOOPBACK and not _names_us(request):
            await _send(connection, writer, HTTPStatus.FORBIDDEN, b"ask for localhost, or the address, by name\n")
        elif request.target.partition(b"?")[0] != PATH:
            await _send(connection, writer, HTTPStatus.NOT_FOUND, b"the metrics are at /metrics\n")
        elif request.method not in (b"GET", b"HEAD"):
            await _send(connection, writer, HTTPStatus.METHOD_NOT_ALLOWED)
        elif (page := await self._fresh()) is None:
            await _send(connection, writer, HTTPStatus.SERVICE_UNAVAILABLE, b"see the log\n")
        else:
            await _send(connection, writer, HTTPStatus.OK, page, CONTENT_TYPE)

    async def _fresh(self) -> bytes | None:
        """The page; None if it cannot be made now."""
        async with self._making:
            if self._page is None or time.monotonic() - self._page[0] > FRESH:
                try:
                    self._page = time.monotonic(), await self._render()
                except Exception as error:  # a fault of the metrics must not end the daemon
                    trouble, known = f"{type(error).__name__}: {error}", self._trouble
                    self._trouble = trouble
                    log.log(logging.DEBUG if trouble == known else logging.ERROR, "metrics: %s", trouble)
                    return None
            return self._page[1]


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The head of a request; None if none comes. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await reader.read(HEAD_LIMIT))


def _names_us(request: h11.Request) -> bool:
    """Whether the header Host is localhost or an address: a page in a browser on this machine, whose name somebody lets
    point here, uses that name.
    """
    hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
    return all(map(is_plain_host, hosts))


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    status: HTTPStatus,
    body: bytes = b"",
    content_type: str = "text/plain; charset=utf-8",
) -> None:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")]
    head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
    writer.write(connection.send(head) or b"")
    with contextlib.suppress(h11.LocalProtocolError):  # a HEAD has no body
        writer.write(connection.send(h11.Data(data=body)) or b"")
    async with asyncio.timeout(TIMEOUT):
        await writer.drain()
