"""News of the kernel, from a socket that a test writes to: of addresses and links, and of nftables."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from contextlib import aclosing
from typing import Any, ClassVar

import pytest

from re6st.linux import address_monitor, nft_news


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_monitor, "SETTLE", 0.02)


def play(steps: Any) -> None:
    async def run() -> None:
        kernel, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.setblocking(False)
        with kernel:
            news = address_monitor.changes(lambda: own)
            async with asyncio.timeout(10):
                await steps(kernel, news)
            await news.aclose()
        assert own.fileno() == -1, "closed"

    asyncio.run(run())


def test_once_at_first_then_once_for_each_group() -> None:
    async def steps(kernel: socket.socket, news: Any) -> None:
        await anext(news)
        for _ in range(5):
            kernel.send(b"link")
        await anext(news)
        waiting = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0.1)
        assert not waiting.done(), "five messages were one group"
        kernel.send(b"address")
        await waiting

    play(steps)


def test_messages_that_were_lost_are_news_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A socket whose buffer was full."""

        errors: ClassVar = [errno.ENOBUFS, errno.EAGAIN]

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

        def recv(self, _size: int) -> bytes:
            number = self.errors.pop(0)
            raise OSError(number, "")

    async def received(_loop: object, _sock: object, _size: int) -> bytes:
        raise OSError(errno.ENOBUFS, "")

    async def run() -> None:
        monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_recv", received)
        news = address_monitor.changes(Full)  # type: ignore[arg-type]
        await anext(news)
        await anext(news)
        assert Full.errors == []

    asyncio.run(run())


def test_another_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def received(_loop: object, _sock: object, _size: int) -> bytes:
        raise OSError(errno.EBADF, "gone")

    async def steps(_kernel: socket.socket, news: Any) -> None:
        await anext(news)
        monkeypatch.setattr(type(asyncio.get_running_loop()), "sock_recv", received)
        with pytest.raises(OSError, match="gone"):
            await anext(news)

    play(steps)


@pytest.mark.parametrize(
    "make", [address_monitor.open_netlink, address_monitor.open_babel_routes, nft_news.open_netlink]
)
def test_the_kernels_own_socket(make: Any) -> None:
    try:
        own = make()
    except PermissionError:
        pytest.skip("news of nftables are for root")
    with own as sock:
        assert not sock.getblocking()


# --- nftables ---


def look_at(news: asyncio.Event, pause: float, unheard: float, make: Any, times: int) -> float:
    """Seconds until there were so many looks."""

    async def run() -> float:
        start, count = time.monotonic(), 0
        async with asyncio.timeout(10), aclosing(nft_news.looks(news, lambda: pause, unheard, make)) as moments:
            async for _ in moments:
                count += 1
                if count == times:
                    break
        return time.monotonic() - start

    return asyncio.run(run())


def test_there_is_a_look_at_once_and_after_each_change() -> None:
    kernel, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    own.setblocking(False)
    with kernel:
        kernel.send(b"rule")
        assert look_at(asyncio.Event(), 60, 60, lambda: own, 3) < 5, "once more when it begins to listen"
    assert own.fileno() == -1, "closed"


def test_where_nothing_changes_there_is_a_look_after_the_pause() -> None:
    kernel, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    own.setblocking(False)
    with kernel:
        assert 0.2 <= look_at(asyncio.Event(), 0.1, 60, lambda: own, 4) < 5


def test_where_the_kernel_does_not_tell_there_is_a_look_now_and_then() -> None:
    def refuse() -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    assert 0.2 <= look_at(asyncio.Event(), 60, 0.1, refuse, 4) < 5
