"""One GET over HTTP/1.1, or HTTPS, on its own connection (RFC 9112): a node needs no more from its registry.

This follows no redirection, decompresses nothing, repeats nothing and uses no proxy, and answers are limited in size
and time. We do not use a general HTTP client, because it would take a quarter of the node's memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote, unquote, urlsplit

import h11

CHUNK = 1 << 16
SECOND_ADDRESS = 0.25
"""Seconds until the next address of a host is tried in parallel, if one does not answer (RFC 8305 section 8)."""
PORTS = {"http": 80, "https": 443}
VERSION = b"HTTP/1."


class HttpError(Exception):
    """No answer, or only a part of it; the text tells the user the cause, and what to do."""


class TooLong(Exception):
    """The answer has more bytes than allowed."""


@dataclass(frozen=True, slots=True)
class Url:
    """A server: how its paths begin, and the user and password for it."""

    scheme: str
    host: str
    port: int
    path: str
    """Percent-encoded, and without a final '/'."""
    credentials: str = field(default="", repr=False)
    """USER:PASSWORD, or nothing."""

    @property
    def authority(self) -> str:
        """The server's name for the header Host, with the port if that is not the default one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Without user and password, for messages."""
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Response:
    """The names of headers are in lower case. The body is not read unless the status means success (2xx)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def parse_url(text: str) -> Url:
    """A URL of the form http[s]://[USER[:PASSWORD]@]HOST[:PORT][/PATH]. Raises ValueError."""
    parts = urlsplit(text.strip())
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(text)
    # IDNA is for names that are not ASCII; socket.getaddrinfo() refuses other invalid names.
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
    if any(character.isspace() or not character.isprintable() for character in host):
        raise ValueError(text)
    path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username is not None else ""
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    return Url(parts.scheme, host, port, path, credentials)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to a server, for one request."""

    url: Url
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def aclose(self) -> None:
        """Everything has been said, and we do not wait for a server that is slow to close TLS."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def get(
        self, target: str, headers: Mapping[str, str], *, limit: int, silence: float | None = None
    ) -> Response:
        """GET the path and query `target` below the URL, unchanged. Raises HttpError, TooLong (more than `limit`
        bytes).

        The server has to begin its answer within `silence` seconds, if that is given.
        """
        url = self.url
        sent = [("Host", url.authority), ("Accept", "*/*"), ("Connection", "close"), *headers.items()]
        if url.credentials:
            sent.append(("Authorization", "Basic " + base64.b64encode(url.credentials.encode()).decode("ascii")))
        try:
            talk = h11.Connection(h11.CLIENT)
            self.writer.write(talk.send(h11.Request(method="GET", target=url.path + target, headers=sent)) or b"")
            talk.send(h11.EndOfMessage())
            await self.writer.drain()
            return await _read(talk, self.reader, limit, silence)
        except h11.RemoteProtocolError:
            raise HttpError("what answers there is not an HTTP server. Check --registry.") from None
        except (OSError, EOFError) as error:
            if silence is not None and isinstance(error, TimeoutError) and error.errno is None:  # ours
                raise HttpError(f"no answer within {silence:g} s.") from None
            raise HttpError("the connection broke off before the answer was complete. Try again.") from None


async def get(
    url: Url, target: str, headers: Mapping[str, str], *, timeout: float, limit: int, family: int = 0
) -> Response:
    """As Connection.get, on a connection of its own, which is made and used within `timeout` seconds.

    If `family` is socket.AF_INET or AF_INET6, no other family is used.
    """
    try:
        async with asyncio.timeout(timeout), contextlib.aclosing(await connect(url, family)) as connection:
            return await connection.get(target, headers, limit=limit)
    except TimeoutError:
        raise HttpError(too_late(timeout)) from None


def too_late(timeout: float) -> str:
    """The error of a server that did not answer in time."""
    return f"no answer within {timeout:g} s. Try again later, or check the network and --registry."


async def _read(
    connection: h11.Connection, reader: asyncio.StreamReader, limit: int, silence: float | None
) -> Response:
    """Raises EOFError if the answer ends too early, TimeoutError if it does not begin, RemoteProtocolError if it is not
    HTTP.
    """
    head: h11.Response | None = None
    body = bytearray()
    began, ended = b"", False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            # Nothing was wrong except that the connection ended.
            if ended and began.startswith(VERSION[: len(began)]):
                raise EOFError from None
            raise
        if event is h11.NEED_DATA:
            async with asyncio.timeout(None if began else silence):
                data = await reader.read(CHUNK)
            began, ended = began + data[: len(VERSION) - len(began)], not data
            # Some servers speak first and wait, such as SSH: this shows before they have sent a whole head.
            if not VERSION.startswith(began):
                raise h11.RemoteProtocolError("another protocol")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            head = event
            if not 200 <= head.status_code < 300:
                break
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limit:
                raise TooLong
        elif isinstance(event, h11.EndOfMessage):
            break
    assert head is not None
    names = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Response(int(head.status_code), names, bytes(body))


async def connect(url: Url, family: int = 0) -> Connection:
    """A connection to the first of a server's addresses that answers. Raises HttpError if none can be made."""
    try:
        reader, writer = await asyncio.open_connection(
            url.host,
            url.port,
            ssl=ssl.create_default_context() if url.scheme == "https" else None,
            family=family,
            happy_eyeballs_delay=SECOND_ADDRESS,
        )
    except TimeoutError as error:
        if error.errno is None:  # ours
            raise
        raise HttpError(_cannot_connect(error)) from None
    except ssl.SSLCertVerificationError as error:
        raise HttpError(f"its TLS certificate is not accepted ({first_line(error)}).") from None
    except ssl.SSLError as error:
        raise HttpError(f"it does not speak TLS ({first_line(error)}). Does its URL begin with http://?") from None
    except (socket.gaierror, UnicodeError):
        raise HttpError("host name unknown. Check --registry.") from None
    except OSError as error:
        raise HttpError(_cannot_connect(error)) from None
    return Connection(url, reader, writer)


def _cannot_connect(error: OSError) -> str:
    words = os.strerror(error.errno) if error.errno else first_line(error)
    return f"cannot connect: {words}. Check the network and --registry."


def first_line(error: Exception) -> str:
    """The first line of a library's error, at most 200 characters."""
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def clock_ahead(date: str, now: float) -> float | None:
    """By how many seconds a server's clock is ahead; its header Date (RFC 9110 section 6.6.1) has whole seconds."""
    with contextlib.suppress(ValueError, TypeError):
        then = parsedate_to_datetime(date).timestamp() + 0.5
        return 0.0 if abs(then - now) <= 1 else then - now
    return None


def phrase(status: int) -> str:
    """The status with its name."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"
