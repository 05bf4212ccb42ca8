"""Whether somebody answers over a line, asked of this machine's own sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time

import pytest

from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded.uplink_probes import answers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="marks need root")


def place(port: int, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(host, port, TunnelProtocol.TCP)


def asked(*places: Endpoint, patience: float = 1.0) -> bool | None:
    return asyncio.run(answers(places, 0x10, patience))


def test_who_takes_a_connection_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert asked(place(server.getsockname()[1]))


def test_where_nobody_can_be_asked_a_line_is_not_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def ask() -> bool | None:
        monkeypatch.setattr("re6st.noded.uplink_probes.socket.socket", refuse)
        try:
            return await answers([place(1), place(2)], 0x10, 1.0)
        finally:
            monkeypatch.undo()

    assert asyncio.run(ask()) is None


def test_a_refusal_is_an_answer() -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        assert asked(place(own.getsockname()[1]))


def test_one_answer_is_enough_and_comes_at_once() -> None:
    """The other one is silent: its queue is full."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(silent.getsockname())
        began = time.monotonic()
        assert asked(place(silent.getsockname()[1]), place(server.getsockname()[1]), patience=30)
        assert time.monotonic() - began < 10
        assert not asked(place(silent.getsockname()[1]), patience=0.2)
        for each in waiting:
            each.close()


def test_where_there_is_no_way_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("asyncio.selector_events.BaseSelectorEventLoop.sock_connect", unreachable)
    assert not asked(place(1194), place(1194, "::1"), patience=30)
    assert not asked()
