"""One connection to babeld, before a babeld that a test plays: how long it may be silent, and commands in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from re6st.babeld import talk as babel_talk
from re6st.babeld.talk import Talk

Player = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(directory: Path, player: Player, test: Callable[[Talk], Awaitable[None]]) -> None:
    async def main() -> None:
        served: list[asyncio.Task[None]] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            served.append(task)
            writer.write(b"BABEL 1.0\nok\n")
            try:
                await player(reader, writer)
            except asyncio.CancelledError:
                pass
            finally:
                writer.close()

        async with await asyncio.start_unix_server(serve, directory / "babeld.ctl"), asyncio.timeout(20):
            own = await Talk.open(directory / "babeld.ctl")
            try:
                await own.greeting()
                await test(own)
            finally:
                own.close()
                for task in served:
                    task.cancel()
                await asyncio.gather(*served, return_exceptions=True)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(babel_talk, "SILENCE", 0.4)


def test_a_table_that_takes_longer_than_the_silence_allowed_is_read(tmp_path: Path) -> None:
    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for number in range(12):
            writer.write(f"line {number}\n".encode())
            await asyncio.sleep(0.1)
        writer.write(b"ok\n")
        await reader.read()

    async def test(own: Talk) -> None:
        lines: list[str] = []
        await own.ask("dump", lines.append)
        assert len(lines) == 12

    talk(tmp_path, player, test)


def test_what_waits_for_us_who_did_not_run_is_read(tmp_path: Path) -> None:
    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"line 1\n")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"line 2\nok\n")
        time.sleep(1)  # the whole process stands still
        await reader.read()

    async def test(own: Talk) -> None:
        lines: list[str] = []
        await own.ask("dump", lines.append)
        assert lines == ["line 1", "line 2"]

    talk(tmp_path, player, test)


def test_one_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test(own: Talk) -> None:
        with pytest.raises(TimeoutError, match="silent"):
            await own.ask("dump", print)

    talk(tmp_path, player, test)


def test_commands_are_answered_between_news_one_after_another(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(b"change 1\n" + (b"no such thing\n" if line == b"bad\n" else b"ok\n") + b"change 2\n")

    async def test(own: Talk) -> None:
        news: list[str] = []

        listening = asyncio.create_task(own.listen(news.extend))
        both = await asyncio.gather(own.command("one"), own.command("bad"), own.command("two"), return_exceptions=True)
        assert [type(each) for each in both] == [type(None), OSError, type(None)]
        assert str(both[1]) == "its socket says no to bad"
        await asyncio.sleep(0.01)
        assert news == ["change 1", "change 2"] * 3
        listening.cancel()
        await asyncio.wait([listening])

    talk(tmp_path, player, test)
    assert heard == [b"one\n", b"bad\n", b"two\n"]


def test_the_lines_of_an_answer_go_to_who_asked_and_the_others_to_the_listener(tmp_path: Path) -> None:
    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"add 1\nadd 2\nok\nchange 1\n")

    async def test(own: Talk) -> None:
        news: list[str] = []
        answer: list[str] = []

        listening = asyncio.create_task(own.listen(news.extend))
        await asyncio.gather(own.command("dump", answer.extend), own.command("one"))
        assert answer == ["add 1", "add 2"]
        await asyncio.sleep(0.01)
        assert news == ["change 1", "add 1", "add 2", "change 1"]
        listening.cancel()
        await asyncio.wait([listening])

    talk(tmp_path, player, test)


def test_the_time_for_an_answer_begins_when_it_is_the_turn_of_the_command(tmp_path: Path) -> None:
    """A dump of a large table takes longer."""

    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"dump\n":
                await asyncio.sleep(0.6)
            if line != b"none\n":
                writer.write(b"ok\n")

    async def test(own: Talk) -> None:
        listening = asyncio.create_task(own.listen(print))
        await asyncio.gather(own.command("dump"), own.command("one", seconds=0.3))
        with pytest.raises(TimeoutError):
            await own.command("none", seconds=0.1)
        listening.cancel()
        await asyncio.wait([listening])

    talk(tmp_path, player, test)


def test_a_command_for_one_that_is_closed_fails_at_once(tmp_path: Path) -> None:
    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    async def test(own: Talk) -> None:
        own.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(own.command("one"), 1)

    talk(tmp_path, player, test)


def test_who_waits_hears_that_it_was_closed(tmp_path: Path) -> None:
    async def player(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    async def test(own: Talk) -> None:
        waiting = asyncio.create_task(own.command("one"))
        await asyncio.sleep(0)
        await own.listen(print)
        own.close()
        with pytest.raises(ConnectionResetError):
            await waiting

    talk(tmp_path, player, test)
