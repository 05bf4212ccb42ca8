"""The control socket: strict, bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import gc
import grp
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from re6st.core.telemetry.report import Record
from re6st.service import run_names, rundir
from re6st.service.control import CLIENT_LIMIT, ControlError, ControlServer
from re6st.service.json_lines import Status

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Played:
    """Operations of the test's."""

    def __init__(self) -> None:
        self.watching = 0

    def call(
        self, operation: str, arguments: Mapping[str, Any], *, trusted: bool
    ) -> Record | AsyncGenerator[Record, None]:
        if operation == "flood":
            return self._flood()
        if operation == "quiet":
            return self._quiet()
        if operation != "echo":
            raise ControlError(Status.USAGE, "unknown")
        return {**arguments, "trusted": trusted}

    async def _flood(self) -> AsyncGenerator[Record, None]:
        self.watching += 1
        try:
            while True:
                yield {"filler": "x" * 10_000}
        finally:
            self.watching -= 1

    async def _quiet(self) -> AsyncGenerator[Record, None]:
        self.watching += 1
        try:
            yield {}
            await asyncio.get_running_loop().create_future()
        finally:
            self.watching -= 1


def serving(
    path: Path, test: Callable[[Path, Played], Awaitable[None]], other: Path | None = None, **settings: float
) -> None:
    async def run() -> None:
        played = Played()
        task = asyncio.create_task(ControlServer(played, path, other, **settings).run())
        try:
            async with asyncio.timeout(20):
                while not (path / run_names.CONTROL_SOCKET).is_socket():
                    await asyncio.sleep(0.01)
                await test(path / run_names.CONTROL_SOCKET, played)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in later turns of the loop

    asyncio.run(run())
    assert not (path / run_names.CONTROL_SOCKET).exists()


async def connect(path: Path) -> Streams:
    return await asyncio.open_unix_connection(str(path))


async def say(streams: Streams, line: bytes) -> Any:
    streams[1].write(line)
    return json.loads(await streams[0].readline())


REQUEST = b'{"protocol": 1, "operation": "echo", "arguments": {"a": 1}}\n'
NOT_JSON = [b"x\n", b"[]\n", b"1\n", b"\xff\n", b"[" * 3000 + b"\n", b'{"protocol": 1, "operation": [1]}\n', b"{}\n"]


def test_requests_and_answers(tmp_path: Path) -> None:
    async def test(path: Path, _: Played) -> None:
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o660)
        streams = await connect(path)
        for _turn in range(2):
            assert await say(streams, REQUEST) == {"protocol": 1, "result": {"a": 1, "trusted": True}}
        assert (await say(streams, b'{"protocol": 1, "operation": "x"}\n'))["error"] == {
            "status": 2,
            "message": "unknown",
        }
        assert "protocol 1" in (await say(streams, REQUEST.replace(b'l": 1', b'l": 2')))["error"]["message"]
        for line in NOT_JSON:
            assert (await say(streams, line))["error"]["status"] == 2
        assert "4096" in (await say(streams, b"x" * 5000 + b"\n"))["error"]["message"]
        assert await streams[0].read() == b"", "and is cut off"
        streams[1].close()

    serving(tmp_path, test)


def test_another_place_too(tmp_path: Path) -> None:
    other = tmp_path / "console"

    async def test(path: Path, _: Played) -> None:
        for place in (path, other):
            streams = await connect(place)
            assert "result" in await say(streams, REQUEST)
            streams[1].close()

    serving(tmp_path, test, other)
    assert not other.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
def test_a_service_that_is_not_in_the_group_lets_it_look_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no right to call chown. Who is in the group connects, others do not, and neither may write there."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(rundir, "GROUP", grp.getgrgid(4).gr_name)
    monkeypatch.setattr(os, "chown", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))

    def may(user: int, groups: list[int], work: Callable[[], object]) -> bool:
        if (pid := os.fork()) == 0:
            try:
                os.setgroups(groups)
                os.setgid(user)
                os.setuid(user)
                work()
            except OSError:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def connect_to_it() -> None:
        with socket.socket(socket.AF_UNIX) as own:
            own.connect(str(place / "control.sock"))

    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place / "control.sock"))
            listening.listen()
            rundir.give_to_group(place / "control.sock", 0o660)
            rundir.give_to_group(place, 0o710)
            for _ in range(2):
                assert may(64001, [4], connect_to_it)
                assert not may(64001, [], connect_to_it)
                assert not may(64001, [4], lambda: os.listdir(place))
                assert not may(64001, [4], lambda: (place / "planted").write_text(""))
                place.chmod(0o700)  # as the next daemon does
                assert not may(64001, [4], connect_to_it)
                rundir.give_to_group(place, 0o710)
    finally:
        shutil.rmtree(place)


def test_our_group_may_look_where_the_machine_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "GROUP", grp.getgrgid(os.getegid()).gr_name)

    async def test(path: Path, _: Played) -> None:
        (await connect(path))[1].close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o710

    serving(tmp_path, test)
    monkeypatch.setattr(rundir, "GROUP", "re6st-no-such-group")
    tmp_path.chmod(0o700)

    async def closed(path: Path, _: Played) -> None:
        (await connect(path))[1].close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    serving(tmp_path, closed)


def test_connections_are_counted(tmp_path: Path) -> None:
    async def test(path: Path, _: Played) -> None:
        all_of_them = [await connect(path) for _ in range(CLIENT_LIMIT)]
        for streams in all_of_them:
            assert "result" in await say(streams, REQUEST)
        late = await connect(path)
        assert str(CLIENT_LIMIT) in json.loads(await late[0].readline())["error"]["message"]
        for streams in (late, *all_of_them):
            streams[1].close()

    serving(tmp_path, test)


def test_who_does_not_read_is_cut_off(tmp_path: Path) -> None:
    gc.disable()  # what a stream has set up is undone at once, and not when garbage is collected

    async def test(path: Path, played: Played) -> None:
        reader, writer = await connect(path)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that reads, too
        writer.write(b'{"protocol": 1, "operation": "flood"}\n')
        await asyncio.sleep(0.5)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1 << 30)
        writer.close()
        assert not played.watching
        silent, other = await connect(path)
        assert await silent.read() == b""
        other.close()

    try:
        serving(tmp_path, test, idle=0.2)
    finally:
        gc.enable()


def test_a_stream_ends_with_its_reader(tmp_path: Path) -> None:
    async def test(path: Path, played: Played) -> None:
        streams = await connect(path)
        assert (await say(streams, b'{"protocol": 1, "operation": "quiet"}\n'))["result"] == {}
        assert played.watching == 1
        streams[1].close()
        while played.watching:
            await asyncio.sleep(0.01)

    serving(tmp_path, test)


def test_what_else_is_there_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("precious")

    async def test(path: Path, _: Played) -> None:
        streams = await connect(path)
        assert "result" in await say(streams, REQUEST)
        streams[1].close()

    serving(tmp_path, test, file)
    assert file.read_text() == "precious"
    assert "not a socket" in caplog.text
