"""Logs that nobody can fill, that a full disk does not stop, and the journal."""

from __future__ import annotations

import json
import logging
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.service import logs
from re6st.service.logs import LogHandler, RepeatFilter, in_journal, set_verbosity, setup_logging


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[LogHandler, Path]]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    made = setup_logging(2, tmp_path / "logs" / "a.log")
    assert made is not None
    yield made, tmp_path / "logs" / "a.log"
    root.removeHandler(made)
    made.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def test_the_log_is_reopened_under_its_name(log: tuple[LogHandler, Path]) -> None:
    handler, path = log
    logging.getLogger("a").info("one")
    path.rename(path.with_name("a.log.1"))
    handler.reopen()
    logging.getLogger("a").info("two")
    assert path.with_name("a.log.1").read_text().endswith("INFO a: one\n")
    assert path.read_text().endswith("INFO a: two\n")


def test_a_message_cannot_forge_a_second_line(log: tuple[LogHandler, Path]) -> None:
    logging.getLogger("a").info("evil\n2026 INFO a: forged \x1b[31m")
    assert log[1].read_text().count("\n") == 1
    assert "\x1b" not in log[1].read_text()


def test_the_same_line_is_written_a_few_times_only(log: tuple[LogHandler, Path]) -> None:
    for _ in range(1000):
        logging.getLogger("a").warning("again")
    assert log[1].read_text().count("again") == RepeatFilter.SAME_LINE.at_once


def test_warnings_of_one_kind_are_bounded_and_counted() -> None:
    bound = RepeatFilter()

    def passes(text: str, now: float) -> str | None:
        record = logging.LogRecord("a", logging.WARNING, "", 0, "bad request %s", (text,), None)
        record.created = now
        return f"{record.getMessage()} {getattr(record, 'left_out', 0)}" if bound.filter(record) else None

    passed = [passes(str(i), i / 100) for i in range(1000)]
    assert sum(text is not None for text in passed) == RepeatFilter.SAME_KIND.at_once
    assert passes("later", 100.0) == "bad request later 900"
    assert len(bound._seen) <= RepeatFilter.KEYS


def test_news_of_a_peer_that_flaps_are_bounded() -> None:
    bound = RepeatFilter()
    written = 0
    for turn in range(36_000):  # an hour of ten lines a second, each another one
        record = logging.LogRecord("a", logging.INFO, "", 0, "%s connected from port %s", ("4/16", turn), None)
        record.created = turn / 10
        written += bool(bound.filter(record))
    assert written <= RepeatFilter.SAME_NEWS.at_once + 3600 / RepeatFilter.SAME_NEWS.every
    assert len(bound._seen) <= RepeatFilter.KEYS


def minute(turn: int) -> str:
    return f"{turn // 60 % 24:02}:{turn % 60:02}:07"


Arguments = Callable[[int], tuple[object, ...]]

FAULTS: list[tuple[str, int, float, str, Arguments]] = [
    (
        *("linux/process.py", logging.ERROR, 60, "%s ended (%s): %s. Next start in %.1f s."),
        lambda turn: ("babeld", "exit status 1", f"2026-11-23 {minute(turn)} no memory", 45 + turn % 30 / 2),
    ),
    (
        *("linux/process.py", logging.ERROR, 60, "%s ended (%s): %s. Next start in %.1f s."),
        lambda turn: ("server tcp/1194", "exit status 1", f"2026-11-23 {minute(turn)} Address in use", 45.0),
    ),
    (
        *("noded/registry_updates.py", logging.WARNING, 60, "no network parameters yet: %s Next try in %.0f s."),
        lambda turn: ("registry http://r/: connection refused.", 45 + turn % 30),
    ),
    (
        "noded/first_peer.py",
        logging.WARNING,
        10,
        "no first peer: %s",
        lambda _: ("registry http://r/: connection refused.",),
    ),
    (
        "noded/mesh_driver.py",
        logging.INFO,
        30,
        "closing the tunnel to %s: %s",
        lambda _: ("4/16", "it did not come up"),
    ),
    (
        *(
            "noded/country.py",
            logging.WARNING,
            60,
            "the country of this node is not known: %s Next try in %.0f s, or give --country.",
        ),
        lambda turn: ("registry http://r/: connection refused.", 45 + turn % 30),
    ),
    (
        *("transport/openvpn_client.py", logging.WARNING, 5, "tunnel to %s at %s: %s: %s"),
        lambda turn: (
            "4/16",
            "192.0.2.7:1194",
            "exit status 1",
            f"2026-11-23 {minute(turn)} TLS Error: handshake failed",
        ),
    ),
    (
        *("transport/openvpn_client.py", logging.INFO, 5, "tunnel to %s at %s: not connected in time"),
        lambda _: ("4/16", "192.0.2.7:1194"),
    ),
    (
        *("noded/peer_socket.py", logging.WARNING, 10, "port %s: dropped %s datagram(s), the last from %s: %s"),
        lambda turn: (326, turn, "2001:db8:42:7::1", "not signed"),
    ),
    ("noded/upnp.py", logging.WARNING, 30, "%s: %s", lambda _: ("UPnP of fibre", "the router refuses")),
    ("babeld/feed.py", logging.WARNING, 1, "cannot read a line of babeld's socket: %s", lambda _: ("'add nonsense'",)),
    (
        "noded/packet_filter.py",
        logging.ERROR,
        60,
        "nft: %s: what is muted and filtered cannot be changed. It is tried again",
        lambda _: ("Operation not permitted",),
    ),
    ("noded/tunnels.py", logging.WARNING, 20, "none of the servers of --client can be reached", lambda _: ()),
]


@pytest.mark.parametrize(
    ("room", "level", "every", "text", "arguments"), FAULTS, ids=[f"{each[0]}-{each[3]}" for each in FAULTS]
)
def test_what_stays_wrong_is_said_ten_times_an_hour_and_counted(
    room: str, level: int, every: float, text: str, arguments: Arguments
) -> None:
    assert f'"{text}"' in (Path(logs.__file__).parents[1] / room).read_text(), "nobody says that"
    bound, times, counted, turns = RepeatFilter(), [], 0, int(5 * 3600 / every)
    for turn in range(turns):
        record = logging.LogRecord("a", level, "", 0, text, arguments(turn), None)
        record.created = turn * every
        if bound.filter(record):
            times.append(record.created)
            counted += 1 + getattr(record, "left_out", 0)
    for hour in times:
        assert sum(hour <= each < hour + 3600 for each in times) <= 10
    assert times[0] == 0, "the first one is said at once"
    assert turns - counted <= 720 / every, "and how often, since"


def test_another_peer_is_another_fault() -> None:
    bound = RepeatFilter()
    for peer in range(50):
        record = logging.LogRecord("a", logging.WARNING, "", 0, "tunnel to %s/16 at 192.0.2.%s", (peer, peer), None)
        assert bound.filter(record)


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere"])
def test_a_full_disk_costs_the_messages_only(
    log: tuple[LogHandler, Path], capsys: pytest.CaptureFixture[str], path: str
) -> None:
    handler, good = log
    handler._path = Path(path) if path == "/dev/full" else good / "below a file"
    handler.reopen()
    if path == "/dev/full":
        record = logging.LogRecord("a", logging.INFO, "", 0, "x" * 10_000, (), None)
        tracemalloc.start()
        for _ in range(2000):
            handler.emit(record)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
        tracemalloc.stop()
    handler._path = good
    handler.reopen()
    logging.getLogger("a").info("there is room again")
    assert "there is room again" in good.read_text()
    assert capsys.readouterr().err.count("\n") == 1, "said once"


def test_the_level_changes_while_running(log: tuple[LogHandler, Path]) -> None:
    for level, word in ((2, "no"), (3, "yes"), (1, "no again"), (0, "no at all")):
        set_verbosity(level)
        logging.getLogger("a").debug("word %s.", word)
    logging.getLogger("a").critical("nor this")
    assert log[1].read_text().splitlines()[0].endswith("word yes.")
    assert log[1].read_text().count("\n") == 1


def test_the_journal_is_where_systemd_says(tmp_path: Path) -> None:
    with open(tmp_path / "stderr", "wb") as file:
        found = os.fstat(file.fileno())
        right = f"{found.st_dev}:{found.st_ino}"
        assert in_journal({"JOURNAL_STREAM": right}, file.fileno())
        assert not in_journal({"JOURNAL_STREAM": "8:1"}, file.fileno()), "it was redirected since"
        assert not in_journal({}, file.fileno())
    assert not in_journal({"JOURNAL_STREAM": right}, 9999)


def test_the_journal_gets_priorities_and_no_file(
    log: tuple[LogHandler, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = setup_logging(3, tmp_path / "other.log", journal=True)
    logger = logging.getLogger("a")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("e")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == ["<7>a: d", "<6>a: i", "<4>a: w", "<3>a: e"]
    assert all(line.startswith("<3>") for line in lines[3:])
    assert not (tmp_path / "other.log").exists()
    assert made is not None
    assert made.on_stderr
    logging.getLogger().removeHandler(made)


def test_json_has_an_object_a_line_and_what_it_is_about(
    log: tuple[LogHandler, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "a.jsonl"
    made = setup_logging(2, path, style="json")
    assert made is not None
    logger = logging.getLogger("re6st.a")
    peer, endpoint = Prefix(4, 16), Endpoint("192.0.2.7", 1194, TunnelProtocol.TCP)
    logger.info("tunnel to %s at %s is up, on %s", peer, endpoint, "re6stnet3")
    logger.warning("evil\n%s \x1b[31m", "re6stnet")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("e")
    for _ in range(9):
        logger.info("again")
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert told[0].pop("time").endswith("Z")
    assert told[0] == {
        "level": "info",
        "logger": "re6st.a",
        "message": f"tunnel to 4/16 at {endpoint} is up, on re6stnet3",
        "peer": "4/16",
        "endpoint": "192.0.2.7,1194,tcp",
        "interface": "re6stnet3",
    }
    assert told[1].keys() == {"time", "level", "logger", "message"}
    assert told[1]["message"] == "evil\nre6stnet \x1b[31m"
    assert told[2]["exception"].endswith("ValueError: two\nlines")
    assert len(told) == 3 + RepeatFilter.SAME_LINE.at_once
    logging.getLogger().removeHandler(made)
    journal = setup_logging(2, path, journal=True, style="json")
    assert journal is not None
    logger.error("e")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["level"] == "error"
    logging.getLogger().removeHandler(journal)
