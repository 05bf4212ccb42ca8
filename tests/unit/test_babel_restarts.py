"""A babeld that is started anew, or that the next daemon goes on with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Network
from pathlib import Path

import pytest

from re6st.babel import Babel, Left, Network, command_line
from re6st.core.routing.babel_settings import configuration
from tests.unit.babel_play import PLAIN, ROUTE, PlayedLinks, Quick, at_once, files_in, live, played
from tests.unit.fake_program import FakeChild, FakePrograms, all_gone, install, until


def test_new_settings_restart_it_without_waiting_and_the_same_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await kept.ready.wait()
        await kept.reconfigure(replace(PLAIN))
        assert programs.started[0].running
        await kept.reconfigure(replace(PLAIN, hello=9))
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())
        assert "hello-interval 9" in (tmp_path / "babeld.conf").read_text()

    live(monkeypatch, tmp_path, [played()], watch)
    assert "starting babeld again: new settings" in caplog.text
    assert "babeld ended" not in caplog.text


def test_what_is_on_the_interfaces_changes_while_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It forgets all routes of an interface whose address changes."""
    put: list[tuple[str, int]] = []
    links = PlayedLinks()

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        links.put = lambda own: put.append((str(own), sum(child.running for child in programs.started)))
        await kept.ready.wait()
        await kept.reconfigure(replace(PLAIN, ipv4=IPv4Network("10.42.3.0/24")))
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())
        await kept.reconfigure(PLAIN)
        await until(lambda: len(programs.started) == 3 and kept.ready.is_set())

    live(monkeypatch, tmp_path, [played()], watch, links=links)
    assert put == [("None", 0), ("10.42.3.1/24", 0), ("None", 0)]


def test_it_can_be_started_anew_to_forget_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await kept.ready.wait()
        await kept.renew("all its neighbours are gone")
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())

    live(monkeypatch, tmp_path, [played()], watch)
    assert "starting babeld again: all its neighbours are gone" in caplog.text
    assert "babeld ended" not in caplog.text


def test_what_the_last_one_left_is_given_up_way_by_way_once_the_new_one_has_had_it_for_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("re6st.babel.STEP", 0.01)
    monkeypatch.setattr("re6st.babel.SETTLED", 0.1)
    monkeypatch.setattr("re6st.babel.TAKE_OVER", 1.0)
    shaky = ROUTE.replace("9410", "9411").replace("2001:db8:42:b::", "2001:db8:42:c::")
    lost = shaky.replace("metric 96", "metric 65535").replace("add", "change")

    async def watch(kept: Babel, _programs: FakePrograms) -> None:
        await kept.ready.wait()
        await until(lambda: len(kept.table.routes) == 2)
        kept.left = frozenset((IPv6Network(f"2001:db8:42:{name}::/64"), IPv6Network("::/0")) for name in "bc")
        kept.settings = replace(PLAIN, update=0.0)
        clock = asyncio.get_running_loop().time
        began = clock()
        told = []
        async for ways in kept.take_over():
            told.append((sorted(str(destination) for destination, _ in ways), clock() - began))
        assert [ways for ways, _ in told] == [["2001:db8:42:b::/64"]]
        assert told[0][1] >= 0.1
        assert clock() - began >= 1, "the other one is waited for"
        kept.left = kept.ways
        assert [way async for way in kept.take_over()]
        assert clock() - began < 10

    live(monkeypatch, tmp_path, [played(shaky, lost)], watch)


def test_it_stays_while_others_start_theirs_for_the_same_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each tells its neighbours first to forget all that it told them."""
    monkeypatch.setattr("re6st.babel.STEP", 0.01)
    monkeypatch.setattr("re6st.babel.SETTLED", 0.1)

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        clock = asyncio.get_running_loop().time
        await kept.ready.wait()
        began = clock()
        await kept.reconfigure(replace(PLAIN, hello=9), 1.5)
        for count in (2, 3):
            await kept.followed.wait()
            kept.followed.clear()
            assert len(programs.started) == count
            assert [len(ways) async for ways in kept.take_over()] == [1]
            assert clock() - began >= 1.5
            if count == 2:
                began = clock() - 1.5
                await kept.renew("another reason, that others do not have")

    live(monkeypatch, tmp_path, [played()], watch)


@pytest.mark.parametrize("spread", [0, 60])
def test_the_next_one_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spread: float) -> None:
    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await kept.ready.wait()
        await kept.reconfigure(replace(PLAIN, hello=9), spread)
        await kept.followed.wait()
        kept.followed.clear()
        both = asyncio.create_task(anext(kept.take_over(), None))
        await kept.renew("once more")
        assert await both is None
        assert kept.followed.is_set()
        assert len(kept.left) == 1

    live(monkeypatch, tmp_path, [played()], watch)


def test_settings_that_come_while_it_starts_are_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    links = PlayedLinks()

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        tasks: list[asyncio.Task[None]] = []

        def put(own: IPv4Interface | None) -> None:
            if not tasks:  # it runs once the file is written
                tasks.append(asyncio.create_task(kept.reconfigure(replace(PLAIN, hello=7))))

        links.put = put
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())
        assert "hello-interval 7" in (tmp_path / "babeld.conf").read_text()

    live(monkeypatch, tmp_path, [played()], watch, links=links)


def test_one_whose_routes_lead_nowhere_any_more_ends_in_good_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped = []

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await kept.ready.wait()
        assert kept._child is not None
        stop = kept._child.stop

        async def noted(grace: float = 5.0) -> None:
            stopped.append(grace)
            await stop(grace)

        monkeypatch.setattr(kept._child, "stop", noted)
        await kept.renew("this machine slept", stale=True)
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())

    live(monkeypatch, tmp_path, [played(), played()], watch)
    assert stopped[0] > 0


TRY = b"send_pc: no space left to accumulate pc.\nadd_hmac: no link-local address.\nCouldn't add HMAC.\n"


@pytest.mark.parametrize("late", [False, True], ids=["speaks with us", "does not speak with us"])
def test_one_that_tries_without_end_to_send_is_started_anew(
    late: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("re6st.babel.LOOK", 0.05)
    monkeypatch.setattr("re6st.babel.SURE", 0.05)
    output = files_in(tmp_path).output
    assert output is not None

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        async def tries() -> None:
            with output.open("ab") as file:
                while programs.started[0].running:
                    file.write(100 * TRY)
                    file.flush()
                    await asyncio.sleep(0.001)

        await until(lambda: kept.late) if late else await kept.ready.wait()
        output.write_bytes(b"before\n")
        watching = asyncio.create_task(kept.watch())
        await asyncio.sleep(0.2)
        assert len(programs.started) == 1
        trying = asyncio.create_task(tries())
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())
        await trying
        watching.cancel()
        await asyncio.wait([watching])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await played(then=at_once)(reader, writer)
        if late:
            writer.close()
        await asyncio.Event().wait()

    live(monkeypatch, tmp_path, [script, played()], watch)
    assert caplog.text.count("starting babeld again: it tries without end") == 1


LEFT: dict[tuple[Network, Network], int] = {
    (IPv6Network("2001:db8:42:b::/64"), IPv6Network("::/0")): 1024,
    (IPv6Network("2001:db8:42:c::/64"), IPv6Network("::/0")): 1030,
}
"""Routes that are in the kernel."""


def resumed(
    monkeypatch: pytest.MonkeyPatch, run: Path, text: str, watch: Callable[[Babel, FakePrograms], None]
) -> None:
    """Go on with a babeld that an earlier daemon started with this configuration."""
    monkeypatch.setattr("re6st.linux.process.Backoff", Quick)
    programs = install(monkeypatch, "-G", played())
    swept: list[int] = []

    async def starts() -> None:
        """What the one before had lost is forgotten when it is gone, and the next one is not there."""
        assert programs.found[7].stopped
        swept.append(len(programs.started))

    async def main() -> None:
        (run / "babeld.conf").write_text(text)
        programs.found[7] = found = FakeChild([])
        await found.listen(str(run / "babeld.ctl"), played())
        files, left = replace(files_in(run), output=None), Left(7, LEFT)
        argv = command_line("babeld", files, [])
        kept = Babel(argv, files, PLAIN, lambda: None, PlayedLinks(), left, before=starts)
        task = asyncio.create_task(kept.run())
        try:
            async with asyncio.timeout(10):
                await kept.ready.wait()
            assert len(kept.table.routes) == 1
            assert swept == list(range(1, len(programs.started)))
            watch(kept, programs)
        finally:
            task.cancel()
            await asyncio.wait([task])
        await all_gone(programs)

    asyncio.run(main())


def test_a_babeld_that_does_the_same_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def watch(kept: Babel, programs: FakePrograms) -> None:
        assert programs.started == [programs.found[7]]
        assert kept.priority == 1030

    resumed(monkeypatch, tmp_path, configuration(PLAIN, 1030), watch)


@pytest.mark.parametrize("text", [configuration(replace(PLAIN, hello=9), 1030), "", "kernel-priority x"])
def test_one_that_does_not_makes_place_and_its_routes_stay_until_the_next_knows_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    def watch(kept: Babel, programs: FakePrograms) -> None:
        assert len(programs.started) == 2
        assert programs.found[7].stopped
        assert kept.priority == 1031
        assert kept.left == LEFT.keys()
        assert kept.followed.is_set()
        assert (tmp_path / "babeld.conf").read_text() == configuration(PLAIN, 1031)

    resumed(monkeypatch, tmp_path, text, watch)
