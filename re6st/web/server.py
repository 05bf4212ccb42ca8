"""The HTTP server of the operator's page: its routes, who may enter, what every answer contains.

Each view is HTML, or JSON if its path ends with `.json`. A change is a POST that contains the token of its visitor; its
answer is a page or a redirection to one. Nothing is loaded from another host, and no script or style is in a page
itself: the content security policy forbids it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web

from re6st.api import front_page
from re6st.api.operations import AdminError
from re6st.core.limits.rate import RateLimit
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.registry.origins import ambiguous, is_careless_relay
from re6st.registryd.events import EventKind, Events
from re6st.registryd.listings import Record
from re6st.registryd.records import NODE_SORTS, NODE_STATES
from re6st.service.json_lines import Status
from re6st.web import access, mesh_graph
from re6st.web.access import COOKIE, PageAccess, Visitor
from re6st.web.bounds import BOUNDS, PageBounds
from re6st.web.entrance import Entrances
from re6st.web.node_query import PAGE, NodeQuery
from re6st.web.render import STATIC, Renderer, csv_text
from re6st.web.views import EXPORT_LIMIT, Views

logger = logging.getLogger("web")

SCHEMA = 1
"""Version of the JSON: it counts up when a field changes its meaning or is removed."""
FORM_LIMIT = 16 * 1024
STREAMS_LIMIT = 32
STREAM_BEAT = 15.0
"""After so many seconds without a change, a stream shows that it is alive."""
STREAM_REST = 0.5
"""Seconds between two changes that a stream reports."""
STOP_TIMEOUT = 2.0

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send no Origin with our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

STATUS = {
    Status.USAGE: HTTPStatus.BAD_REQUEST,
    Status.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Status.CONFLICT: HTTPStatus.CONFLICT,
    Status.FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
}

VISITOR: ContextVar[Visitor | None] = ContextVar("visitor", default=None)
"""The visitor who made the request that this task answers. (aiohttp can store this with the request only since 3.14.)
"""
CN = r"{number:\d{1,39}}/{length:\d{1,3}}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Make = Callable[[web.Request], Awaitable[Record]]


class PageServer:
    """Serves the page on one bound socket."""

    def __init__(self, views: Views, entry: PageAccess, events: Events, bounds: PageBounds = BOUNDS) -> None:
        self._bounds = bounds
        self._views = views
        self._entry = entry
        self._events = events
        self._renderer = Renderer()
        self._login_rate = RateLimit(1 / 2, 10)
        self._streams: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve connections to this bound socket."""
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            shutdown_timeout=STOP_TIMEOUT,
            handle_signals=False,
            keepalive_timeout=self._bounds.head,
        )
        await runner.setup()
        assert runner.server is not None
        connected = Entrances(runner.server, self._bounds).new
        loop = asyncio.get_running_loop()
        is_unix = listening.family == socket.AF_UNIX
        create = loop.create_unix_server(connected, sock=listening) if is_unix else None
        self._server = await (create or loop.create_server(connected, sock=listening))
        self._runner = runner

    async def stop(self) -> None:
        """Accept no more connections, end the streams, and finish the other answers."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._streams):
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=FORM_LIMIT)
        views = self._views

        def view(path: str, name: str, make: Make) -> None:
            async def page(request: web.Request) -> web.StreamResponse:
                return self._page(request, name, await make(request))

            async def twin(request: web.Request) -> web.StreamResponse:
                return _json(await make(request))

            app.router.add_get(path, page)
            app.router.add_get(f"{'/overview' if path == '/' else path}.json", twin)

        view("/", "overview", lambda request: views.overview())
        view("/nodes", "nodes", self._nodes)
        view(f"/nodes/{CN}", "node", lambda request: views.node(_cn(request)))
        view("/tokens", "tokens", lambda request: views.tokens_behind(request.query.get("after", "")[:64]))
        view("/revoked", "revoked", lambda request: views.revoked(request.query.get("after", "")[:64]))
        view("/network", "network", lambda request: views.network())
        view("/topology", "topology", self._topology)
        view("/events", "events", lambda request: _done(views.events(request.query.get("kind", ""))))
        view(f"/nodes/{CN}/revoke", "revoke", lambda request: views.node(_cn(request), ask=False))
        app.router.add_get("/nodes.csv", self._csv)
        app.router.add_get("/topology.dot", self._dot)
        app.router.add_get("/stream", self._stream)
        app.router.add_post("/tokens", self._invite)
        app.router.add_post("/tokens/delete", self._delete_token)
        app.router.add_post(f"/nodes/{CN}/revoke", self._revoke)
        app.router.add_post("/network/rotate", self._rotate)
        app.router.add_get("/login", self._login_page)
        app.router.add_post("/login", self._login)
        app.router.add_post("/logout", self._logout)
        app.router.add_get("/static/copy.js", self._copy_script)
        app.router.add_static("/static/", STATIC)
        return app

    # --- who comes in, and what every answer carries ---

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await self._admitted(request, handler)
        except web.HTTPException as error:
            response = self._error(request, HTTPStatus(error.status), error.reason)
        except AdminError as error:
            response = self._error(request, STATUS[error.status], str(error))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            logger.error("%s: unexpected error: %s: %s", request.path, type(error).__name__, error)
            response = self._error(request, HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected error: {error}")
        if not response.prepared:
            self._finish(request, response)
        return response

    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        VISITOR.set(None)  # the previous request on this connection was somebody else's
        if ambiguous(request.raw_headers, request.version):
            raise web.HTTPBadRequest
        is_static = request.path.startswith("/static/")
        peer, forwarded = _peer(request), request.headers.getall("X-Forwarded-For", [])
        careless = is_careless_relay(forwarded, request.headers, request.version)
        cookie = request.cookies.get(COOKIE, "")
        visitor = self._entry.visitor(peer, forwarded, request.host, cookie, careless=careless)
        if visitor is not None:
            VISITOR.set(visitor)
        elif not is_static and request.path != "/login":
            if request.method == hdrs.METH_GET and not request.path.endswith(".json"):
                return _way("/login")
            raise web.HTTPUnauthorized
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            await self._check_form(request, visitor)
        elif visitor is not None and not is_static:
            await self._views.watch.look()
        return await handler(request)

    async def _check_form(self, request: web.Request, visitor: Visitor | None) -> None:
        headers = request.headers
        if not access.is_same_origin(request.host, headers.get("Origin"), headers.get("Sec-Fetch-Site")):
            raise AdminForbidden("this form comes from another site")
        if request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType
        try:
            async with asyncio.timeout(self._bounds.form):
                form = await request.post()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        if visitor is not None and not access.is_ours(visitor, str(form.get("form", ""))):
            raise AdminForbidden("this form is too old, or the browser keeps no cookie: load the page again")

    def _finish(self, request: web.Request, response: web.StreamResponse) -> None:
        is_static = request.path.startswith("/static/") and response.status in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)
        response.headers.update(HEADERS)
        if is_static:
            response.headers["Cache-Control"] = "no-cache"  # asked for again, and mostly answered "not modified"
        visitor = VISITOR.get()
        if visitor is not None and visitor.is_new and not is_static:
            self._set_cookie(request, response, visitor.cookie)

    def _set_cookie(self, request: web.Request, response: web.StreamResponse, value: str) -> None:
        is_secure = request.headers.get("X-Forwarded-Proto", "") == "https"
        response.set_cookie(COOKIE, value, path="/", httponly=True, samesite="Strict", secure=is_secure)

    # --- answers ---

    def _page(self, request: web.Request, name: str, record: Mapping[str, Any], status: int = 200) -> web.Response:
        visitor = VISITOR.get()
        json_path = "/overview.json" if request.path == "/" else f"{request.path}.json"
        values = {
            **record,
            "record": record,
            "page_name": name,
            "args": dict(request.query),
            "json_url": json_path + (f"?{request.query_string}" if request.query_string else ""),
            "form_token": visitor.form_token if visitor else "",
            "logged_in": visitor is not None and visitor.logged_in,
            "entered": visitor is not None,
            "revision": self._views.watch.picture.revision,
        }
        return web.Response(text=self._renderer.page(name, values), content_type="text/html", status=status)

    def _error(self, request: web.Request, status: HTTPStatus, reason: str) -> web.Response:
        if status >= HTTPStatus.BAD_REQUEST and status != HTTPStatus.NOT_FOUND:
            logger.warning("%s %s %s: %d %s", _peer(request), request.method, request.path[:80], status, reason)
        if request.path.endswith(".json"):
            return web.json_response({"schema": SCHEMA, "error": reason, "status": status.value}, status=status.value)
        return self._page(
            request, "error", {"title": f"{status.value} {status.phrase}", "reason": reason}, status.value
        )

    # --- looking ---

    async def _nodes(self, request: web.Request) -> Record:
        return await self._views.nodes(self._query(request)) | _choices(request)

    def _query(self, request: web.Request, limit: int = PAGE) -> NodeQuery:
        choices = _choices(request)
        text = request.query.get("page", "1")
        page = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1
        return NodeQuery(
            search=choices["search"],
            state=choices["state"],
            sort=choices["sort"],
            descending=choices["descending"],
            offset=(max(page, 1) - 1) * limit,
            online=self._views.watch.picture.online,
            limit=limit,
        )

    async def _csv(self, request: web.Request) -> web.Response:
        record = await self._views.nodes(self._query(request, EXPORT_LIMIT))
        text = await asyncio.to_thread(csv_text, record["nodes"])
        return _download(text, "text/csv", "nodes.csv")

    async def _topology(self, request: web.Request) -> Record:
        record = await self._views.topology()
        if not request.path.endswith(".json"):
            record = record | await asyncio.to_thread(mesh_graph.svg_shapes, record)
        return record

    async def _copy_script(self, _: web.Request) -> web.FileResponse:
        """The page for newcomers has it, too."""
        return web.FileResponse(front_page.COPY)

    async def _dot(self, request: web.Request) -> web.Response:
        return _download(mesh_graph.dot(await self._views.topology()), "text/vnd.graphviz", "topology.dot")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the revision of the picture each time it changes."""
        task = asyncio.current_task()
        if task is None or len(self._streams) >= STREAMS_LIMIT:
            raise web.HTTPServiceUnavailable
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        self._streams.add(task)
        try:
            await response.prepare(request)
            watch = self._views.watch
            revision = -1
            while True:
                if watch.picture.revision != revision:
                    revision = watch.picture.revision
                    await response.write(f"data: {revision}\n\n".encode())
                    await asyncio.sleep(STREAM_REST)
                elif not await watch.newer(revision, STREAM_BEAT):
                    await response.write(b": alive\n\n")
                await watch.look()
                if not self._may_stay(request):
                    break
        except ConnectionError:
            pass
        finally:
            self._streams.discard(task)
        return response

    def _may_stay(self, request: web.Request) -> bool:
        """Whether the visitor of a stream would still be admitted."""
        forwarded = request.headers.getall("X-Forwarded-For", [])
        return self._entry.visitor(_peer(request), forwarded, request.host, request.cookies.get(COOKIE, "")) is not None

    # --- changing ---

    async def _invite(self, request: web.Request) -> web.Response:
        try:
            made = await self._views.invite(await _form(request))
        except AdminError as error:
            record = await self._views.tokens() | {"refused": str(error)}
            return self._page(request, "tokens", record, STATUS[error.status].value)
        self._log(request, "made a token")
        return self._page(request, "tokens", await self._views.tokens() | {"made": made})

    async def _delete_token(self, request: web.Request) -> web.Response:
        await self._views.delete_token((await _form(request)).get("id", ""))
        self._log(request, "deleted a token")
        return _way("/tokens")

    async def _revoke(self, request: web.Request) -> web.Response:
        cn = _cn(request)
        try:
            await self._views.revoke(cn, await _form(request))
        except AdminError as error:
            if error.status is Status.NOT_FOUND:
                raise
            record = await self._views.node(cn, ask=False) | {"refused": str(error)}
            return self._page(request, "revoke", record, STATUS[error.status].value)
        self._log(request, f"revoked {cn}")
        return _way("/revoked")

    async def _rotate(self, request: web.Request) -> web.Response:
        if (await _form(request)).get("confirm") != "yes":
            raise AdminError(Status.USAGE, "nothing was changed: tick the box to confirm")
        await self._views.rotate()
        self._log(request, "changed babel's key")
        return _way("/network")

    def _log(self, request: web.Request, what: str) -> None:
        logger.warning("%s %s, on the page", _peer(request), what)

    # --- logging in ---

    async def _login_page(self, request: web.Request) -> web.Response:
        return self._page(request, "login", {"token": "", "refused": None})

    async def _login(self, request: web.Request) -> web.Response:
        source = self._entry.source(_peer(request), request.headers.getall("X-Forwarded-For", []))
        if not self._login_rate.allow(source, time.monotonic()):
            raise web.HTTPTooManyRequests
        cookie = self._entry.log_in((await _form(request)).get("token", ""))
        if cookie is None:
            self._events.note(
                EventKind.REFUSED, f"login from {_peer(request)}: the link was used already, is too old, or unknown"
            )
            return self._page(
                request,
                "login",
                {"token": "", "refused": "This link was used already, is too old, or unknown."},
                HTTPStatus.FORBIDDEN,
            )
        self._events.note(EventKind.LOGIN, f"from {_peer(request)}")
        logger.warning("%s logged in", _peer(request))
        response = _way("/")
        self._set_cookie(request, response, cookie)
        return response

    async def _logout(self, request: web.Request) -> web.Response:
        visitor = VISITOR.get()
        if visitor is not None:
            self._entry.log_out(visitor.cookie)
        response = _way("/login")
        response.del_cookie(COOKIE, path="/")
        return response


class AdminForbidden(AdminError):
    """A form that is refused."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.USAGE, message)


def _choices(request: web.Request) -> Record:
    """The query for a list of nodes: unknown values are ignored."""
    query = request.query
    sort, state = query.get("sort", "address"), query.get("state", "all")
    return {
        "search": query.get("search", "")[:100],
        "state": state if state in NODE_STATES else "all",
        "sort": sort if sort in NODE_SORTS else "address",
        "descending": query.get("descending", "") == "1",
    }


def _peer(request: web.Request) -> str:
    transport = request.transport
    own = None if transport is None else transport.get_extra_info("socket")
    return access.UNIX_PEER if own is not None and own.family == socket.AF_UNIX else request.remote or ""


def _cn(request: web.Request) -> str:
    cn = f"{request.match_info['number']}/{request.match_info['length']}"
    with suppress(PrefixError):
        return Prefix.from_cn(cn).cn
    raise AdminError(Status.NOT_FOUND, f"{cn}: no such node")


async def _form(request: web.Request) -> dict[str, str]:
    return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}


async def _done(record: Record) -> Record:
    return record


def _json(record: Record) -> web.Response:
    return web.Response(text=json.dumps({"schema": SCHEMA, **record}), content_type="application/json")


def _way(path: str) -> web.Response:
    """A redirection to another page, which the browser then asks for with GET."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: path})


def _download(text: str, content_type: str, name: str) -> web.Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(text=text, content_type=content_type, headers=headers)
