"""Following the log: bounded, at a level of one's own, and the log itself stays as it was."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from re6st.noded.log_stream import BEHIND_LIMIT, LogStream
from re6st.service.control import ControlError
from re6st.service.logs import setup_logging

log = logging.getLogger("of the test")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    path = tmp_path / "log"
    setup_logging(2, path)
    yield path
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


async def following(stream: LogStream, level: int | None) -> Any:
    lines = cast("Any", stream.follow(level))
    assert (await anext(lines))["following"]
    return lines


async def next_of(lines: AsyncIterator[dict[str, object]]) -> dict[str, object]:
    async with asyncio.timeout(5):
        return await anext(lines)


def test_one_follows_as_the_log_is_written(file: Path) -> None:
    async def run() -> None:
        before = logging.getLogger().handlers[:]
        async with aclosing(await following(LogStream(2), None)) as lines:
            log.debug("not at this level")
            log.info("tunnel to %s", "4/16")
            line = await next_of(lines)
            assert (line["level"], line["name"], line["text"]) == ("INFO", "of the test", "tunnel to 4/16")
            thread = threading.Thread(target=log.warning, args=("from a thread",))
            thread.start()
            assert (await next_of(lines))["text"] == "from a thread"
            thread.join()
        assert logging.getLogger().handlers == before, "nothing is left of who went"

    asyncio.run(run())


def test_a_level_of_ones_own_adds_nothing_to_the_log(file: Path) -> None:
    async def run() -> None:
        stream = LogStream(2)
        async with aclosing(await following(stream, 3)) as deep:
            log.debug("deep")
            assert (await next_of(deep))["text"] == "deep"
            stream.change(1)
            log.info("only for who follows")
            texts = [(await next_of(deep))["text"] for _ in range(2)]
            assert texts == ["the log level is 1 now, it was 2", "only for who follows"]
        assert logging.getLogger().level == logging.WARNING
        stream.change(3)
        log.debug("for the log")

    asyncio.run(run())
    kept = file.read_text()
    assert "deep" not in kept
    assert "only for who follows" not in kept
    assert "the log level is 1 now, it was 2" in kept
    assert "for the log" in kept


def test_who_reads_slowly_is_told_how_many_lines_are_missing(file: Path) -> None:
    async def run() -> None:
        async with aclosing(await following(LogStream(2), None)) as lines:
            for number in range(BEHIND_LIMIT + 7):
                log.info("line %s", number)
            first = await next_of(lines)
            assert (first["left_out"], first["text"]) == (7, "line 7")
            assert "left_out" not in await next_of(lines)

    asyncio.run(run())


def test_a_node_without_a_log_can_be_followed_at_a_level(file: Path) -> None:
    async def run() -> None:
        stream = LogStream(0)
        with pytest.raises(ControlError, match="-v 0"):
            stream.follow(None)
        with pytest.raises(ControlError, match="-v 0"):
            stream.change(2)
        async with aclosing(await following(stream, 2)) as lines:
            log.info("all the same")
            assert (await next_of(lines))["text"] == "all the same"

    asyncio.run(run())
    assert not file.read_text()
