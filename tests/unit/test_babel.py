"""babeld's configuration, word for word, and its life before a babeld that a test plays (wire.md section 9)."""

from __future__ import annotations

import asyncio
import re
import stat
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from re6st.babel import Babel, BabeldFiles, command_line
from re6st.core.routing.babel_settings import configuration, left_out, live_commands, outgrown, update_interval
from tests.unit.babel_play import PLAIN, ROUTE, at_once, live, played
from tests.unit.fake_program import FakePrograms, Script, until


def test_the_plainest_configuration() -> None:
    assert configuration(PLAIN) == (
        "kernel-priority 1024\n"
        "smoothing-half-life 0\n"
        "random-id true\n"
        "redistribute local deny\n"
        "redistribute ip 2001:db8:42:b::/64 eq 64\n"
        "redistribute ip 2001:db8:42::/48 ge 49 proto 44\n"
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
        "redistribute ip 2001:db8:42::/48 ge 49 proto 44\n"
        "key id sign type blake2s128 value 000102030405060708090a0b0c0d0e0f\n"
        "default max-rtt-penalty 5000 rtt-max 500 rtt-decay 75 hello-interval 4 update-interval 12.5 "
        "link-quality true split-horizon false\n"
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
        "interface re6stnet-tcp type tunnel key sign accept-bad-signatures true\n"
        "interface re6stnet1 type tunnel key sign accept-bad-signatures true\n"
        "interface eth0 key sign accept-bad-signatures true\n"
    )


def test_a_wireguard_link_has_rare_hellos_and_no_key() -> None:
    settings = replace(
        PLAIN,
        tunnels=("re6stnet1", "re6stnet-wg1"),
        links=frozenset(["re6stnet-wg1"]),
        babel_default="rtt-decay 125",
        key_sign=bytes(16),
        hello=0.25,
    )
    default, tunnel, link = (
        line for line in configuration(settings).splitlines() if line.startswith(("default", "interface"))
    )
    assert default == "default rtt-decay 5 hello-interval 0.25 update-interval 1 link-quality true split-horizon false"
    assert tunnel == "interface re6stnet1 type tunnel key sign"
    assert link == (
        "interface re6stnet-wg1 type tunnel rtt-decay 21 hello-interval 1 update-interval 2.5 link-quality true"
        " split-horizon false"
    )


@pytest.mark.parametrize("links", [["new"], []])
def test_an_interface_that_is_added_later_is_told_all(links: list[str]) -> None:
    old = replace(PLAIN, key_sign=bytes(16), hello=20, update=15)
    (command,) = live_commands(old, replace(old, tunnels=(*old.tunnels, "new"), links=frozenset(links)))
    assert command.startswith("interface new type tunnel hello-interval 20 update-interval 15 ")
    assert command.endswith(" key sign") is (not links)


@pytest.mark.parametrize(("links", "update", "longest"), [([], 2, 2), (["wg1"], 2, 2.5), (["wg1"], 15, 15)])
def test_all_routes_are_known_when_the_slowest_interface_has_told_them(
    links: list[str], update: float, longest: float
) -> None:
    assert replace(PLAIN, links=frozenset(links), update=update).longest_update == longest


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


def test_a_second_plane_has_a_port_and_a_table_of_its_own_and_leaves_forwarding_to_the_first() -> None:
    second = configuration(replace(PLAIN, port=6697, table=224)).splitlines()
    assert [line for line in second if line not in configuration(PLAIN).splitlines()] == [
        "protocol-port 6697",
        "export-table 224",
        "skip-kernel-setup true",
    ]


def test_links_cost_what_is_said_where_routes_go_by_capacity() -> None:
    """Whatever the round-trip time, which the registry's words are about."""
    settings = replace(PLAIN, by_capacity=True, costs=(("re6stnet1", 2048),), babel_default="max-rtt-penalty 5000")
    lines = configuration(settings).splitlines()
    assert lines[-2:] == [
        "interface re6stnet-tcp type wired rxcost 256",
        "interface re6stnet1 type wired rxcost 2048",
    ]
    assert not [line for line in lines if "rtt" in line]
    more = replace(settings, tunnels=(*settings.tunnels, "re6stnet2"), costs=(*settings.costs, ("re6stnet2", 512)))
    (command,) = live_commands(settings, more)
    assert command.startswith("interface re6stnet2 type wired rxcost 512 hello-interval 15 ")
    assert live_commands(settings, replace(settings, costs=(("re6stnet1", 512),))) == []


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
    assert "-L" not in command_line("babeld", replace(files, log=None), []), "it is with what it prints"


def test_routes_are_repeated_often_while_there_are_few() -> None:
    assert update_interval(0) == update_interval(6) == 1
    assert update_interval(40) < 3 < 10 < update_interval(1000) < 15
    assert update_interval(100_000) == 20


def test_an_interval_is_outgrown_when_twice_as_long_would_do_or_the_longest() -> None:
    assert not outgrown(update_interval(0), 24)
    assert outgrown(update_interval(0), 25)
    assert not outgrown(update_interval(300), 1000)
    assert outgrown(update_interval(200), 1000)
    assert not outgrown(update_interval(1000), 10)
    assert not outgrown(update_interval(2000), 100_000)
    assert not outgrown(update_interval(1000), 2499)
    assert outgrown(update_interval(1000), 2500), "the longest one is for all large networks"


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


def test_one_that_hangs_up_on_us_is_asked_again_less_and_less_often_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It hangs up on slow readers: a machine that has too much to do is not helped by another babeld."""
    monkeypatch.setattr("re6st.linux.process.END_TIME", 0.01)
    monkeypatch.setattr("re6st.babel.SLOW_FIRST", 0.002)
    monkeypatch.setattr("re6st.babel.SLOW_LAST", 0.008)
    connections, late = 0, 9
    informed: list[bool] = []

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if 2 <= connections < late:  # before it has told everything
            writer.write(f"ok\n{ROUTE}\n".encode())
            await reader.readline()
        else:
            then = at_once if connections == 1 else None
            await played(*[ROUTE.replace("9410", "9411")] * min(connections - 1, 1), then=then)(reader, writer)
        writer.close()
        await asyncio.Event().wait()

    async def watch(kept: Babel, programs: FakePrograms) -> None:
        await until(lambda: connections == 1 and len(kept.table.routes) == 1 and not kept.informed)
        informed.append(kept.informed)
        await until(lambda: len(kept.table.routes) == 2)
        informed.append(kept.informed)
        assert len(programs.started) == 1
        assert not programs.started[0].stopped

    counts = live(monkeypatch, tmp_path, [hangs_up], watch)
    assert (set(counts[:-2]), counts[-2:]) == ({1}, [2, 0])  # nothing is forgotten meanwhile
    assert informed == [False, True]
    waits = re.findall(r"babeld closed its socket, which .* in ([0-9.]+) s", caplog.text)
    assert waits == ["0.002", "0.004", *["0.008"] * (late - 3)]


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (1, "exit status 1"),
        (played(then=at_once), "exit status 0"),
        (played("add " + "x" * 1_000_000), ""),
    ],
    ids=["refuses its options", "ends", "a line without end"],
)
def test_whatever_babeld_does_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, first: Script | int, says: str
) -> None:

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
