"""Counts the connections to the operator's page: for each sender and in all (core/limits/crowd.py)."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from aiohttp import web

from re6st.core.limits.crowd import Crowd
from re6st.core.registry.origins import LOCAL, network_of
from re6st.web.bounds import PageBounds


class Entrances:
    """Makes the protocol of each new connection to `server`.

    A connection is closed if the head of its first request does not end in time: aiohttp does this only since 3.14.
    """

    def __init__(self, server: web.Server, bounds: PageBounds) -> None:
        self._server = server
        self._patience = bounds.head
        self.crowd: Crowd[Entrance] = Crowd(bounds.connections, bounds.share, bounds.reserve)

    def new(self) -> Entrance:
        """For asyncio.create_server and similar functions."""
        return Entrance(self.crowd, self._server(), self._patience)


class Entrance(asyncio.Protocol):
    """One connection: passes its events on, and counts."""

    def __init__(self, crowd: Crowd[Entrance], handler: web.RequestHandler, patience: float) -> None:
        self._crowd = crowd
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        self._tail = b""
        """Bytes of a head that is not complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        own = cast(asyncio.Transport, transport)
        entry = self._crowd.enter(self, _sender(own))
        # All of them may be closed for a new one: a browser reloads a page that it did not get.
        if entry.instead is not None:
            entry.instead.abort()
        if not entry.admitted:
            own.abort()
            return
        self._transport = own
        self._deadline = asyncio.get_running_loop().call_later(self._patience, self.abort)
        self._handler.connection_made(own)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._in_time()
        if self._transport is not None:
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            if b"\r\n\r\n" in self._tail + data:
                self._in_time()
            self._tail = (self._tail + data)[-3:]
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        self._handler.eof_received()
        return None

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _sender(transport: asyncio.Transport) -> str | None:
    """The network of the other end; None for this machine, and for a unix socket."""
    own, peer = transport.get_extra_info("socket"), transport.get_extra_info("peername")
    if own is None or own.family == socket.AF_UNIX or not peer or peer[0] in LOCAL:
        return None
    return network_of(peer[0])
