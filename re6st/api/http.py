"""The registry's HTTP server: who may call, which call it is, what is answered (wire.md 3.1 to 3.3).

`RequestGate` gets every connection first. It reads the head of one request, within limits of size and time, and refuses
invalid ones. Only then aiohttp gets the connection. A connection has one request, as clients of the registry use it. A
bad request gives its sender an error, and us one line in the log, which never contains the query, since there are
tokens in it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qsl

from aiohttp import __version__ as aiohttp_version
from aiohttp import web

from re6st.api import front_page, openapi
from re6st.api.health import RETRY_AFTER, Health
from re6st.core.limits.crowd import Crowd
from re6st.core.registry.origins import (
    Origins,
    ambiguous,
    foreign_page,
    is_careless_relay,
    is_relayed,
    network_of,
    stray_browser,
)
from re6st.core.wire.rpc import HEADER, METHODS, OFFER_HEADER, Access, Method
from re6st.linux.process import allow_files
from re6st.registry import Registry
from re6st.registryd.call import Call, RpcError, read_prefix
from re6st.registryd.events import EventKind
from re6st.registryd.repository import RepositoryError

_CLOSES_IDLE = tuple(map(int, aiohttp_version.split(".")[:2])) >= (3, 9)
"""Whether aiohttp has to be told to close connections without a request; that of Debian 12 does so when it ends."""

logger = logging.getLogger("http")

LINE_LIMIT = 16 * 1024
"""Bytes of the request line: a certificate request with an RSA-4096 key takes a quarter."""
HEAD_LIMIT = LINE_LIMIT + 16 * 1024
HEADERS_LIMIT = 100
DRAIN_LIMIT = 64 << 20
DRAIN_TIMEOUT = 2.0
"""Seconds for which a refused client may still send, so that it comes to reading our answer."""
SHARE_OF_SENDER, RESERVE = 16, 4
"""One sender may use a sixteenth of the connections; a quarter of them is not for strangers."""
OTHER_FILES = 64
"""Files that the process opens besides its connections."""
STOP_TIMEOUT = 10.0
FIELDS_LIMIT = 16


@dataclass(frozen=True, slots=True)
class HttpBounds:
    """How many connections there may be, and for how many seconds they may wait."""

    connections: int = 4000
    head: float = 10.0
    """For a request to arrive."""
    sweep: float = 60.0
    """A connection that two sweeps find is closed: its client does not read its answer."""


BOUNDS = HttpBounds()

HARMLESS = frozenset({"getCa"})
"""Methods to which a link on any page may lead: they change nothing, and anybody may have their answer."""

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

NO_STORE = {"Cache-Control": "no-store"}
"""In every answer: it must not be used for others, or later (RFC 9111 section 5.2.2.5)."""

_REQUEST = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.[01]")
_FORWARDED = "X-Forwarded-For"


class HttpServer:
    """Serves a registry on some sockets. `origins` are the addresses that may call restricted methods, besides this
    machine. `names` are the names by which we may be called, besides IP addresses. Without `operators`, nobody may call
    restricted methods here, since a proxy may pass on any request of a stranger.
    """

    def __init__(
        self,
        registry: Registry,
        origins: Iterable[str] = (),
        names: Iterable[str] = (),
        *,
        operators: bool = True,
        bounds: HttpBounds = BOUNDS,
    ) -> None:
        self._registry = registry
        self.bounds = bounds
        self._origins = Origins(origins)
        self._names = frozenset(name.lower() for name in names)
        self._operators = operators
        self._health = Health(registry.resources.repository, time.monotonic)
        self.observed: Callable[[str, int, float], None] = lambda method, status, seconds: None
        """Is told of each call: its method (`request` if there is no such method), the status of the answer, the
        seconds it took.
        """
        self._server: _Server | None = None
        self._listening: list[asyncio.Server] = []
        self._gates: set[RequestGate] = set()
        """Connections whose request is not complete yet."""
        self._crowd: Crowd[RequestGate] = Crowd(0, 0, 0)

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Serve connections to these bound sockets."""
        limit = _connections_limit(self.bounds.connections)
        self._crowd = Crowd(limit, max(1, limit // SHARE_OF_SENDER), limit // RESERVE)
        self._server = server = _Server(
            self._crowd.leave,
            self._handle,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            lingering_time=0,
            access_log=None,
            logger=_quiet_logger(),
        )
        loop = asyncio.get_running_loop()
        for each in sockets:
            self._listening.append(await loop.create_server(lambda: RequestGate(self, server), sock=each, backlog=1024))

    async def run(self) -> None:
        """Close connections that do not end, and drop old keys of sessions, for ever."""
        before: set[RequestGate] = set()
        while self._server is not None:
            await asyncio.sleep(self.bounds.sweep)
            self._registry.greeter.forget()
            now = self._server.gates()
            for gate in now & before:
                gate.abort()  # closing it would wait for a client that does not read
            before = now - before

    async def stop(self) -> None:
        """Accept no more connections, and finish the answers under way."""
        for listening in self._listening:
            listening.close()
        for gate in tuple(self._gates):
            gate.abort()
        if self._server is not None:
            if _CLOSES_IDLE:
                self._server.pre_shutdown()
            await self._server.shutdown(STOP_TIMEOUT)
            self._server = None

    def enter(self, gate: RequestGate, peer: str) -> bool:
        """Admit a new connection. If there are too many, of this sender or in all, close the one of them that has
        waited longest for a complete request. False if all have complete requests: then there is no room.
        """
        client = self._origins.client(peer, [])
        sender = None if client is None else network_of(client)
        known = sender is not None and self._registry.limits.is_member(sender)
        entry = self._crowd.enter(gate, sender, known=known)
        if entry.instead is not None:
            entry.instead.abort()
        if entry.admitted:
            self._gates.add(gate)
        return entry.admitted

    def asked(self, gate: RequestGate) -> None:
        """The request of this connection is complete."""
        self._gates.discard(gate)
        self._crowd.asked(gate)

    def leave(self, gate: RequestGate) -> None:
        """This connection has ended without a request."""
        self._gates.discard(gate)
        self._crowd.leave(gate)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        name, response = await self._respond(request)
        response.headers.update(NO_STORE)
        self.observed(name, response.status, time.monotonic() - started)
        return response

    async def _respond(self, request: web.BaseRequest) -> tuple[str, web.Response]:
        """The name of the method, if it exists, and the answer."""
        name = "request"
        if reason := ambiguous(request.raw_headers, request.version):
            return name, self._refuse(request, name, HTTPStatus.BAD_REQUEST, reason)
        if request.raw_path == openapi.PATH:
            response = web.json_response(openapi.document())
            response.force_close()
            return "api", response
        if (page := front_page.response(request.raw_path)) is not None:
            page.force_close()
            return name, page
        if (state := await self._health.response(request.raw_path)) is not None:
            state.force_close()
            return "health", state
        try:
            method, arguments = parse_target(request.raw_path)
            name = method.name
            call = await self._admit(method, arguments, request)
            body = await self._registry.call(call)
        except RpcError as error:
            refusal = self._refuse(request, name, error.status, str(error))
            refusal.headers.update(error.headers)
            return name, refusal
        except RepositoryError as error:
            refusal = self._refuse(request, name, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            refusal.headers.update(RETRY_AFTER)
            return name, refusal
        except Exception as error:
            logger.debug("%s", name, exc_info=True)
            reason = f"{type(error).__name__}: {error}"
            return name, self._refuse(request, name, HTTPStatus.INTERNAL_SERVER_ERROR, reason)
        proof = None
        if call.session is not None:
            sealed, proof = call.session.keys.seal(body or b"")
            body = None if body is None else sealed
        if body is None:
            response = web.Response(status=HTTPStatus.NO_CONTENT)
        else:
            response = web.Response(body=body, content_type="application/octet-stream")
        if proof is not None:
            response.headers[HEADER] = proof
        response.force_close()
        logger.info("%s %s: %d", request.remote, name, response.status)
        return name, response

    async def _admit(self, method: Method, arguments: Mapping[str, str], request: web.BaseRequest) -> Call:
        """Check who calls (wire.md 3.2). Raises RpcError, RepositoryError."""
        peer, forwarded = request.remote or "", request.headers.getall(_FORWARDED, [])
        careless = is_careless_relay(forwarded, request.headers, request.version)
        client = self._origins.client(peer, forwarded)
        if client is None and (careless or not (self._operators or forwarded)):
            client = peer  # all clients of such a proxy count as one
        source = None if client is None else network_of(client)
        address = peer if client is None else client
        if method.name not in HARMLESS and (reason := foreign_page(request.headers)):
            raise RpcError(HTTPStatus.FORBIDDEN, f"a browser sent it for a page of another site: {reason}")
        match method.access:
            case Access.PUBLIC:
                offer = request.headers.get(OFFER_HEADER, "")
                return Call(method.name, arguments, source, address=address, offer=offer)
            case Access.RESTRICTED:
                self._admit_operator(peer, forwarded, request, careless=careless)
                return Call(method.name, arguments, None, address=address)
        caller = read_prefix(arguments["cn"])
        header = request.headers.get(HEADER)
        if header is None:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"the header {HEADER} is missing")
        known, session = await self._registry.sessions.check(caller, request.raw_path.encode("ascii"), header)
        if not known:
            raise RpcError(HTTPStatus.UNAUTHORIZED, f"there is no session with {caller}")
        if session is None:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"wrong {HEADER} for {caller}")
        if source is not None:
            self._registry.limits.note_member(source)
        self._registry.seen.note(caller, session.claims, request.headers.get("User-Agent", ""), address)
        return Call(method.name, arguments, source, caller, session, address)

    def _admit_operator(self, peer: str, forwarded: list[str], request: web.BaseRequest, *, careless: bool) -> None:
        """Raises RpcError."""
        if not self._operators:
            reason = "the operator's methods are not on this port: see --operator-port"
        elif not self._origins.authorized(peer, forwarded):
            reason = "from an origin that is not authorized"
        elif careless:
            reason = f"a proxy at {peer} does not say for whom it calls: have it set {_FORWARDED}"
        elif is_relayed(peer, forwarded, request.headers.get("Host", "")):
            reason = f"passed on by a proxy or a tunnel on this machine, for {request.host[:80]!r}: see --operator-port"
        else:
            reason = stray_browser(request.headers, self._names)
        if reason:
            raise RpcError(HTTPStatus.FORBIDDEN, reason)

    def _refuse(self, request: web.BaseRequest, name: str, status: HTTPStatus, reason: str) -> web.Response:
        logger.warning("%s %s: %d %s", request.remote, name, status, reason)
        self._registry.events.note(EventKind.REFUSED, f"{name} from {request.remote}: {status.value} {reason}")
        response = web.Response(status=status, text=_page(status), content_type="text/html")
        response.force_close()
        return response


class _Server(web.Server):
    """aiohttp's handler, which reports when a connection that it was given has ended."""

    def __init__(self, ended: Callable[[RequestGate], None], handler: _Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._ended = ended
        self._gates: dict[web.RequestHandler, RequestGate] = {}

    def take(self, gate: RequestGate) -> web.RequestHandler:
        """The reader of further data from this connection."""
        handler = self()
        self._gates[handler] = gate
        return handler

    def gates(self) -> set[RequestGate]:
        """The connections whose requests are being answered."""
        return set(self._gates.values())

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if (gate := self._gates.pop(handler, None)) is not None:
            self._ended(gate)


class RequestGate(asyncio.Protocol):
    """Reads the head of a request; if it is valid, hands it with its connection to aiohttp."""

    def __init__(self, owner: HttpServer, server: _Server) -> None:
        self._owner = owner
        self._server = server
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._head = bytearray()
        self._refused = False
        self._drained = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if not self._owner.enter(self, peer[0] if peer else ""):
            self._transport.abort()
            return
        self._start_timer(self._owner.bounds.head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def eof_received(self) -> bool | None:
        return None  # close

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._drained += len(data)
            if self._drained > DRAIN_LIMIT:
                self.abort()
            return
        self._head += data
        try:
            if self._is_complete():
                self._hand_over()
        except RpcError as error:
            self._refuse(error)

    def abort(self) -> None:
        self._leave()
        self._transport.abort()

    def _is_complete(self) -> bool:
        """Whether the whole head has arrived. Raises RpcError if it is not a GET request."""
        line, separator, _ = self._head.partition(b"\r\n")
        if len(line) > LINE_LIMIT:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"request line of more than {LINE_LIMIT} bytes")
        if not separator:
            return False
        match = _REQUEST.fullmatch(line)
        if match is None:
            raise RpcError(HTTPStatus.BAD_REQUEST, "not an HTTP request line")
        if match[1] != b"GET":
            raise RpcError(HTTPStatus.NOT_IMPLEMENTED, f"method {match[1][:40].decode('ascii')}")
        if self._head.count(b"\r\n") > HEADERS_LIMIT + 2:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"more than {HEADERS_LIMIT} header lines")
        if b"\r\n\r\n" in self._head:
            return True
        if len(self._head) > HEAD_LIMIT:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"request head of more than {HEAD_LIMIT} bytes")
        return False

    def _hand_over(self) -> None:
        self._stop_timer()
        self._owner.asked(self)
        handler = self._server.take(self)
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        handler.data_received(bytes(self._head))

    def _refuse(self, error: RpcError) -> None:
        """Answer, then let the client finish sending: a reset would destroy the answer before the client reads it."""
        peer = self._transport.get_extra_info("peername")
        logger.warning("%s request: %d %s", peer[0] if peer else "?", error.status, error)
        body = _page(error.status).encode()
        head = (
            f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\nContent-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        self._refused = True
        self._head.clear()
        self._transport.write(head.encode("ascii") + body)
        self._transport.write_eof()
        self._start_timer(DRAIN_TIMEOUT)

    def _start_timer(self, delay: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _leave(self) -> None:
        self._stop_timer()
        self._owner.leave(self)


def parse_target(target: str) -> tuple[Method, dict[str, str]]:
    """The method and its arguments in a request target (wire.md 3.1). Raises RpcError."""
    path, _, query = target.partition("?")
    method = METHODS.get(path[1:]) if path.startswith("/") else None
    if method is None:
        raise RpcError(HTTPStatus.BAD_REQUEST, f"unknown method {path[:40]!r}")
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS_LIMIT
        )
    except ValueError:
        if query:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"{method.name}: malformed query") from None
        pairs = []
    arguments = dict(pairs)
    unknown = arguments.keys() - method.parameters.keys()
    missing = [name for name, required in method.parameters.items() if required and name not in arguments]
    if unknown:
        raise RpcError(HTTPStatus.BAD_REQUEST, f"{method.name} has no parameter {min(unknown)[:40]!r}")
    if missing:
        raise RpcError(HTTPStatus.BAD_REQUEST, f"{method.name} lacks the parameter {missing[0]}")
    return method, arguments


def _connections_limit(wanted: int) -> int:
    """Number of connections that we can have open. From now on, the process may open as many files as the system
    permits.
    """
    return allow_files(wanted + OTHER_FILES) - OTHER_FILES


def _page(status: HTTPStatus) -> str:
    title = f"{status.value} {status.phrase}"
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"


class _OneLine(logging.Filter):
    """aiohttp logs errors of clients with a traceback: keep the line and the cause, without the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            cause = " ".join(str(record.exc_info[1]).split()) or type(record.exc_info[1]).__name__
            record.msg, record.args = f"{record.getMessage()}: {cause[:200]}", ()
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def _quiet_logger() -> logging.Logger:
    named = logging.getLogger("http.server")
    if not named.filters:
        named.addFilter(_OneLine())
    return named
