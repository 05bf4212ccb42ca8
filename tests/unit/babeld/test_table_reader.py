"""How a table is kept as babeld's is, before a babeld that a test plays: small ones by news, large ones by dumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from re6st.babeld import table_reader
from re6st.babeld.table_reader import TableReader
from re6st.babeld.talk import Talk
from re6st.core.routing import dump_pace
from re6st.core.routing.babel_lines import Table
from tests.unit.fake_program import until


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "MANY", 3)


class Babeld:
    """It tells its routes to one client; `asked` are the commands that it got."""

    def __init__(self) -> None:
        self.routes: dict[int, int] = {}
        self.asked: list[str] = []
        self.monitored = False
        self.answers = True
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        writer.write(b"BABEL 1.0\nok\n")
        while line := await reader.readline():
            self.asked.append(command := line.decode().strip())
            if command in ("dump", "monitor"):
                for ident in self.routes:
                    self._tell("add", ident)
            self.monitored = command == "monitor" or (self.monitored and command != "unmonitor")
            if self.answers:
                writer.write(b"ok\n")
        writer.close()

    def learn(self, ident: int, metric: int = 96) -> None:
        verb = "change" if ident in self.routes else "add"
        self.routes[ident] = metric
        if self.monitored:
            self._tell(verb, ident)

    def _tell(self, verb: str, ident: int) -> None:
        assert self._writer is not None
        self._writer.write(
            f"{verb} route {ident} prefix 2001:db8:42:{ident}::/64 from ::/0 installed yes id 00:00:00:00:00:00:00:01"
            f" metric {self.routes[ident]} refmetric 0 via fe80::1 if re6stnet1\n".encode()
        )


class World:
    """A babeld, what is known of it, and a kernel that tells when routes change."""

    def __init__(self, size: int = 0) -> None:
        self.babeld = Babeld()
        self.table = Table()
        self.changes = 0
        self.size = size
        self.kernel = asyncio.Event()
        self.reader: TableReader
        self.closed = asyncio.Event()

    async def kernel_news(self) -> AsyncGenerator[None, None]:
        while True:
            await self.kernel.wait()
            self.kernel.clear()
            yield

    def changed(self) -> None:
        self.changes += 1

    def metrics(self) -> dict[int, int]:
        return {int(route.ident): route.metric for route in self.table.routes.values()}


def play(directory: Path, test: Callable[[World], Awaitable[None]], size: int = 0, routes: int = 1) -> None:
    async def main() -> None:
        world = World(size)
        world.babeld.routes = dict.fromkeys(range(1, routes + 1), 96)
        served: list[asyncio.Task[None]] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            served.append(task)
            await world.babeld.serve(reader, writer)

        async def follow() -> None:
            try:
                await world.reader.follow()
            finally:
                world.closed.set()

        async with await asyncio.start_unix_server(serve, directory / "babeld.ctl"), asyncio.timeout(20):
            talk = await Talk.open(directory / "babeld.ctl")
            await talk.greeting()
            world.reader = TableReader(talk, world.table, world.size, world.kernel_news, world.changed)
            await world.reader.begin()
            following = asyncio.create_task(follow())
            try:
                await test(world)
            finally:
                following.cancel()
                await asyncio.wait([following])
                talk.close()
                await asyncio.wait(served)

    asyncio.run(main())


def test_a_small_table_follows_the_news(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert world.metrics() == {1: 96}
        world.babeld.learn(2)
        await until(lambda: world.metrics() == {1: 96, 2: 96})
        world.reader.read_soon()
        assert world.reader.age == 0, "it is told all"
        await world.reader.catch_up()
        assert world.babeld.asked == ["monitor", ""]

    play(tmp_path, test)


def test_one_that_grows_is_read_when_the_kernel_tells_of_a_change(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        for ident in range(1, 7):
            world.babeld.learn(ident)
        await until(lambda: len(world.metrics()) == 6 and "unmonitor" in world.babeld.asked)
        assert not world.babeld.monitored
        await until(lambda: "dump" in world.babeld.asked)
        before = world.changes
        world.babeld.learn(7, 200)
        del world.babeld.routes[1]
        world.kernel.set()
        await until(lambda: world.metrics() == {**dict.fromkeys(range(2, 7), 96), 7: 200})
        assert world.changes > before
        before, asked = world.changes, len(world.babeld.asked)
        await until(lambda: len(world.babeld.asked) > asked + 1)
        assert world.changes == before, "it is read again, and nothing has changed"

    play(tmp_path, test)


def test_one_that_was_large_is_not_told_all_the_time_from_the_start(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert len(world.metrics()) == 5
        world.babeld.learn(6)
        await world.reader.catch_up()
        assert len(world.metrics()) == 6
        assert set(world.babeld.asked) == {"dump"}

    play(tmp_path, test, size=5, routes=5)


def test_it_says_how_old_the_table_is_and_reads_it_soon_if_that_matters(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await asyncio.sleep(0.02)
        before = world.reader.age
        assert before >= 0.02
        world.reader.read_soon()
        await until(lambda: world.reader.age < before)

    play(tmp_path, test, size=5)


def test_who_asks_for_it_is_told_when_it_was_read_though_nothing_is_new(tmp_path: Path) -> None:
    """That babeld knows the same still is what somebody waits for."""

    async def test(world: World) -> None:
        await until(lambda: "dump" in world.babeld.asked)
        world.reader.read_soon(tell=True)
        await until(lambda: world.changes == 1)
        asked = len(world.babeld.asked)
        world.kernel.set()
        await until(lambda: len(world.babeld.asked) > asked + 1)
        assert world.changes == 1, "once"

    play(tmp_path, test, size=5)


def test_without_news_it_is_read_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump_pace, "FIRST", 0.05)

    async def test(world: World) -> None:
        world.babeld.learn(1, 97)
        await until(lambda: world.metrics() == {1: 97})
        world.babeld.learn(1, 98)
        await until(lambda: world.metrics() == {1: 98})

    play(tmp_path, test, size=5)


def test_who_does_not_answer_a_dump_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "DUMP_TIME", 0.2)

    async def test(world: World) -> None:
        world.babeld.answers = False
        with pytest.raises(TimeoutError):
            await world.reader.catch_up()
        await world.closed.wait()
        assert world.metrics() == {1: 96}

    play(tmp_path, test, size=5)
