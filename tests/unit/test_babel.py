"""babeld's configuration, word for word, and its life before a babeld that a test plays (wire.md section 9)."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from re6st.babel import Babel, BabeldFiles, Left, Network, command_line
from re6st.core.routing.babel_settings import Settings, configuration, left_out, outgrown, update_interval
from re6st.linux.process import Backoff
from tests.unit.fake_program import FakeChild, FakePrograms, Script, all_gone, install, until

PLAIN = Settings(
    network=IPv6Network("2001:db8:42::/48"),
    subnet=IPv6Network("2001:db8:42:b::/64"),
    address=IPv6Address("2001:db8:42:b::1"),
    tunnels=("re6stnet-tcp", "re6stnet1"),
)
ROUTE = (
    "add route 55f0c6ed9410 prefix 2001:db8:42:b::/64 from ::/0 installed yes id a8:e2:88:40:b9:88:04:42 metric 96 "
    "refmetric 0 via fe80::3cb3:c7ff:fe1d:47a8 if re6stnet1"
)


def test_the_plainest_configuration() -> None:
    assert configuration(PLAIN) == (
        "kernel-priority 1024\n"
        "smoothing-half-life 0\n"
        "random-id true\n"
        "redistribute local deny\n"
        "redistribute ip 2001:db8:42:b::/64 eq 64\n"
        "default hello-interval 15 update-interval 1 link-quality true split-horizon false\n"
        "in ip ::/0 eq 0 src-ip ::/0 src-eq 0 deny\n"
        "in ip 2001:db8:42:b::/64 metric 65534\n"
        "in ip 2001:db8:42::/48 ge 49 le 128 src-ip ::/0 src-eq 0 allow\n"
        "in ip ::/0 eq 0 src-ip 2001:db8:42::/48 src-eq 48 allow\n"
        "in deny\n"
        "install ip 2001:db8:42:b::/64 deny\n"
        "redistribute deny\n"
        "install pref-src 2001:db8:42:b::1\n"
        "interface re6stnet-tcp type tunnel\n"
        "interface re6stnet1 type tunnel\n"
    )


def test_the_fullest_configuration() -> None:
    settings = replace(
        PLAIN,
        lan=("eth0",),
        babel_default="max-rtt-penalty 5000 rtt-max 500 rtt-decay 125",
        key_sign=bytes(range(16)),
        accept_unsigned=True,
        ipv4=IPv4Network("10.42.3.0/24"),
        ipv4_network=IPv4Network("10.42.0.0/16"),
        ipv4_length=24,
        longest=64,
        accepted=(IPv4Network("192.168.7.0/24"), IPv6Network("2001:db8:99::/48")),
        refused=(IPv4Network("10.99.0.0/16"),),
        gateway=True,
        hello=4,
        update=12.5,
    )
    assert configuration(settings) == (
        "kernel-priority 1024\n"
        "smoothing-half-life 0\n"
        "random-id true\n"
        "redistribute local deny\n"
        "redistribute ip 2001:db8:42:b::/64 eq 64\n"
        "key id sign type blake2s128 value 000102030405060708090a0b0c0d0e0f\n"
        "default max-rtt-penalty 5000 rtt-max 500 rtt-decay 75 hello-interval 4 update-interval 12.5 "
        "link-quality true split-horizon false key sign accept-bad-signatures true\n"
        "redistribute ip 10.42.3.0/24 eq 24\n"
        "redistribute ip ::/0 eq 0 src-prefix 2001:db8:42::/48\n"
        "redistribute ip ::/0 eq 0 proto 3 src-prefix 2001:db8:42::/48\n"
        "in ip ::/0 eq 0 src-ip ::/0 src-eq 0 deny\n"
        "in ip 2001:db8:42:b::/64 metric 65534\n"
        "in ip 10.42.3.0/24 metric 65534\n"
        "in ip 10.99.0.0/16 deny\n"
        "in ip 2001:db8:42::/48 ge 49 le 64 src-ip ::/0 src-eq 0 allow\n"
        "in ip ::/0 eq 0 src-ip 2001:db8:42::/48 src-eq 48 allow\n"
        "in ip 10.42.0.0/16 eq 24 allow\n"
        "in ip 192.168.7.0/24 allow\n"
        "in ip 2001:db8:99::/48 allow\n"
        "in deny\n"
        "install ip 2001:db8:42:b::/64 deny\n"
        "install ip 10.42.3.0/24 deny\n"
        "redistribute deny\n"
        "install pref-src 2001:db8:42:b::1\n"
        "install pref-src 10.42.3.1\n"
        "interface re6stnet-tcp type tunnel\n"
        "interface re6stnet1 type tunnel\n"
        "interface eth0\n"
    )


def test_a_kernel_without_routes_by_source_takes_no_default_route_and_hands_none_on() -> None:
    lines = configuration(replace(PLAIN, source_routes=False)).splitlines()
    assert [line for line in lines if line.startswith("in ")] == [
        "in ip ::/0 eq 0 deny",
        "in ip 2001:db8:42:b::/64 metric 65534",
        "in ip 2001:db8:42::/48 ge 49 le 128 src-ip ::/0 src-eq 0 allow",
        "in deny",
    ]


@pytest.mark.parametrize(("hello", "decay"), [(15, 125), (2, 41), (0.25, 5), (0.1, 2)])
def test_round_trips_that_are_measured_often_count_less_each(hello: float, decay: int) -> None:
    text = configuration(replace(PLAIN, babel_default="rtt-max 500 rtt-decay 125", hello=hello))
    assert f" rtt-decay {decay} " in text


def test_what_is_not_taken_of_the_registrys_words_is_named() -> None:
    assert left_out("rtt-max 500 type wired unicast true") == ["type", "unicast"]
    assert left_out("") == []


def test_a_key_is_defined_before_it_is_used_and_shown_nowhere_else() -> None:
    settings = replace(PLAIN, key_sign=b"k" * 16)
    text = configuration(settings)
    assert text.index("key id sign") < text.index("key sign")
    assert "accept-bad-signatures" not in text
    assert (b"k" * 16).hex() not in repr(settings)
    assert "accept" not in configuration(replace(PLAIN, accept_unsigned=True)), (
        "there is nothing to accept without a key"
    )


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("", ""),
        ("rtt-max 500 type wired", "rtt-max 500"),
        ("key none rxcost 100", "rxcost 100"),
        ("hello-interval 60", ""),
        ("rtt-max", ""),
        ("accept-bad-signatures true enable-timestamps false", "enable-timestamps false"),
    ],
)
def test_the_registry_sets_costs_only(text: str, taken: str) -> None:
    (line,) = [line for line in configuration(replace(PLAIN, babel_default=text)).splitlines() if "default " in line]
    assert line == " ".join(f"default {taken}".split()) + line[line.index(" hello-interval") :]


def test_a_second_plane_talks_on_another_port_and_has_a_table_of_its_own() -> None:
    second = configuration(replace(PLAIN, port=6697, table=6697)).splitlines()
    assert [line for line in second if line not in configuration(PLAIN).splitlines()] == [
        "protocol-port 6697",
        "export-table 6697",
    ]


def test_the_command_line() -> None:
    run, state = Path("/run/re6stnet"), Path("/var/lib/re6stnet")
    files = BabeldFiles(
        run / "babeld.conf", run / "babeld.ctl", state / "babeld.state", log=Path("/var/log/babeld.log")
    )
    assert command_line("/usr/sbin/babeld", files, ["-d", "1"]) == [
        "/usr/sbin/babeld",
        *("-c", "/run/re6stnet/babeld.conf", "-G", "/run/re6stnet/babeld.ctl"),
        *("-S", "/var/lib/re6stnet/babeld.state", "-L", "/var/log/babeld.log", "-I", "", "-s", "-d", "1"),
    ]
    assert "/dev/null" in command_line("babeld", replace(files, log=None), [])


def test_routes_are_repeated_often_while_there_are_few() -> None:
    assert update_interval(0) == update_interval(6) == 1
    assert update_interval(40) < 3 < 10 < update_interval(1000) < 15
    assert update_interval(100_000) == 20


def test_an_interval_is_outgrown_when_twice_as_long_would_do() -> None:
    assert not outgrown(update_interval(0), 24)
    assert outgrown(update_interval(0), 25)
    assert not outgrown(update_interval(300), 1000)
    assert outgrown(update_interval(200), 1000)
    assert not outgrown(update_interval(1000), 10)
    assert not outgrown(update_interval(1000), 100_000)


# --- a babeld that a test plays ---


def played(*events: str, then: Callable[[asyncio.StreamReader], Awaitable[object]] | None = None) -> Script:
    """Greets, dumps one route, tells events, and goes on until its socket is closed."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = ("BABEL 1.0", "version babeld-1.12.1", "host x", "my-id 02:00:00:00:00:00:00:01", "ok")
        writer.write("".join(f"{line}\n" for line in greeting).encode())
        assert await reader.readline() == b"monitor\n"
        writer.write(f"{ROUTE}\nok\n".encode())
        writer.write("".join(f"{line}\n" for line in events).encode())
        await (then or asyncio.StreamReader.read)(reader)

    return script


async def at_once(_reader: asyncio.StreamReader) -> None: ...


class Quick(Backoff):
    def next(self) -> float:
        return 0.001


class PlayedLinks:
    """A machine's interfaces: `put` is called with what is to be on them."""

    def __init__(self) -> None:
        self.put: Callable[[IPv4Interface | None], None] = lambda own: None

    async def address_links(self, own: IPv4Interface | None) -> None:
        self.put(own)


def files_in(run: Path) -> BabeldFiles:
    return BabeldFiles(run / "babeld.conf", run / "babeld.ctl", run / "babeld.state", run / "babeld.out")


def live(
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    scripts: list[Script | int],
    watch: Callable[[Babel, FakePrograms], Awaitable[None]],
    settings: Settings = PLAIN,
    links: PlayedLinks | None = None,
) -> list[int]:
    """Keep a babeld until `watch` returns; the number of routes at each change of the table that was told."""
    monkeypatch.setattr("re6st.linux.process.Backoff", Quick)
    programs = install(monkeypatch, "-G", *scripts)
    sizes: list[int] = []
    known: list[Babel] = []

    def changed() -> None:
        sizes.append(len(known[0].table.routes))

    async def main() -> None:
        files = files_in(run)
        kept = Babel(command_line("babeld", files, []), files, settings, changed, links or PlayedLinks())
        known.append(kept)
        task = asyncio.create_task(kept.run())
        try:
            await watch(kept, programs)
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()
        assert not kept.ready.is_set()
        assert kept.table.routes == {}
        await all_gone(programs)

    asyncio.run(main())
    return sizes


def test_its_table_is_read_and_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def watch(kept: Babel, _programs: FakePrograms) -> None:
        await kept.ready.wait()
        assert len(kept.table.routes) == 1
        await until(lambda: kept.table.routes["55f0c6ed9410"].metric == 200)
        assert len(kept.table.routes) == 1, "a line that makes no sense costs that line"

    events = ["nonsense", "add route 1", ROUTE.replace("add", "change").replace("metric 96", "metric 200")]
    assert live(monkeypatch, tmp_path, [played(*events)], watch) == [1, 1, 0]


def test_its_configuration_is_read_by_its_owner_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "babeld.conf").write_text("from an earlier run")
    (tmp_path / "babeld.ctl").touch()

    async def watch(kept: Babel, _programs: FakePrograms) -> None:
        await kept.ready.wait()
        file = tmp_path / "babeld.conf"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == configuration(PLAIN)

    live(monkeypatch, tmp_path, [played()], watch)


def test_a_babeld_that_ends_is_started_again_and_meanwhile_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await kept.ready.wait()
        programs.started[0].end(-11)
        await programs.started[0].stop()
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())
        assert len(kept.table.routes) == 1

    assert live(monkeypatch, tmp_path, [played()], watch) == [1, 0, 1, 0]
    assert "babeld ended" in caplog.text


def test_one_that_hangs_up_on_us_is_asked_again_and_nothing_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("re6st.linux.process.END_TIME", 0.01)
    connections = 0

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 2:  # before it has told everything
            writer.write(f"ok\n{ROUTE}\n".encode())
            await reader.readline()
        else:
            then = at_once if connections == 1 else None
            await played(*[ROUTE.replace("9410", "9411")] * (connections - 1), then=then)(reader, writer)
        writer.close()
        await asyncio.Event().wait()

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await until(lambda: len(kept.table.routes) == 2)
        assert len(programs.started) == 1
        assert not programs.started[0].stopped

    assert live(monkeypatch, tmp_path, [hangs_up], watch) == [1, 1, 2, 0]
    assert caplog.text.count("babeld hung up on us") == 2


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (1, "exit status 1"),
        (played(then=at_once), "exit status 0"),
        (played("add " + "x" * 100_000), ""),
    ],
    ids=["refuses its options", "ends", "a line without end"],
)
def test_whatever_babeld_does_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, first: Script | int, says: str
) -> None:
    monkeypatch.setattr("re6st.babel.BACKLOG", 1 << 16)

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await until(lambda: len(programs.started) >= 2 and kept.ready.is_set())

    live(monkeypatch, tmp_path, [first, played()], watch)
    assert says in caplog.text


@pytest.mark.parametrize(
    ("greeting", "says"), [(b"", "exit status 0"), (b"no\n", "its socket"), (b"BABEL 1.0\nbad\n", "its socket")]
)
def test_a_socket_that_says_no(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, greeting: bytes, says: str
) -> None:
    async def refuses(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await until(lambda: len(programs.started) >= 2 and kept.ready.is_set())

    live(monkeypatch, tmp_path, [refuses, played()], watch)
    assert says in caplog.text


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
    assert "started anew: new settings" in caplog.text
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
    assert "started anew: all its neighbours are gone" in caplog.text
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


def test_one_that_became_deaf_is_started_anew_and_one_that_hears_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("re6st.babel.DEAF_TIME", 0.2)
    deaf = [0]
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"BABEL 1.0\nok\n")
        while line := await reader.readline():
            if deaf[0] and line != b"monitor\n":
                deaf[0] -= 1
                if not deaf[0]:
                    writer.write(b"ok\nok\n")
            else:
                writer.write(f"{ROUTE}\nok\n".encode() if line == b"monitor\n" else b"ok\n")

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        task = asyncio.create_task(kept.watch())
        kept.doubted.set()
        await kept.ready.wait()
        kept.doubted.set()
        await asyncio.sleep(0.4)
        assert len(programs.started) == 1
        deaf[0] = 1
        kept.doubted.set()
        await until(lambda: not deaf[0])
        await asyncio.sleep(0.4)
        assert len(programs.started) == 1, "once may be ourselves"
        deaf[0] = 9
        kept.doubted.set()
        await until(lambda: len(programs.started) == 2 and kept.ready.is_set())
        task.cancel()
        await asyncio.wait([task])
        assert connections == 2, "of four that babeld serves, one is ours"

    live(monkeypatch, tmp_path, [script, script], watch)
    assert caplog.text.count("started anew: it hears nothing") == 1


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

    async def main() -> None:
        (run / "babeld.conf").write_text(text)
        programs.found[7] = found = FakeChild([])
        await found.listen(str(run / "babeld.ctl"), played())
        files, left = replace(files_in(run), output=None), Left(7, LEFT)
        kept = Babel(command_line("babeld", files, []), files, PLAIN, lambda: None, PlayedLinks(), left)
        task = asyncio.create_task(kept.run())
        try:
            async with asyncio.timeout(10):
                await kept.ready.wait()
            assert len(kept.table.routes) == 1
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
