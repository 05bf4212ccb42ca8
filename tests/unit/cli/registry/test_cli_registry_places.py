"""The commands of re6st-registry: where the registry is, its file, and what is printed."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from re6st.cli.options import duration
from re6st.cli.registry import main as registry
from re6st.cli.registry import output
from re6st.cli.registry.commands import COMMANDS
from re6st.registryd import listings
from re6st.registryd.sqlite.check import check
from re6st.registryd.sqlite.store import Store
from tests.unit.cli.registry.test_cli_registry import Process, wait_until
from tests.unit.operator_place import Place, Terminal, damage

DOCUMENT = Path(__file__).parents[4] / "docs" / "registry-admin.md"


# --- the file ---


def test_check(place: Place) -> None:
    found = place.word("check", "--json").json
    assert (found["ok"], found["used"], found["findings"]) == (True, 3, [])
    assert re.match(r"ok  \S+: 3 certificates, \d+ free ranges, ", place.word("check").out), "no single prefixes"


def test_check_finds(resting: Place) -> None:
    store = Store(resting.directory / "r.db", resting.trust.network)
    asyncio.run(damage(store))
    store.close()
    outcome = resting.word("check")
    assert outcome.status == 1
    assert re.search(r"^1 problems in .*\nTABLE +KEY +PROBLEM\nconfig +serial +is 1, but there is", outcome.out)
    assert json.loads(resting.word("check", "--json").out)["ok"] is False
    (resting.directory / "r.db").write_bytes(b"SQLite format 3\0" + b"x" * 9000)
    assert "r.db" in resting.refused(1, "check")


def test_backup(place: Place, tmp_path: Path) -> None:
    copy = tmp_path / "saved.db"
    saved = place.word("backup", str(copy), "--json").json
    assert (saved["file"], saved["bytes"], saved["used"]) == (str(copy), copy.stat().st_size, 3)
    assert check(copy, place.trust).findings == []
    assert "exists already" in place.refused(4, "backup", str(copy))
    assert "verified" in place.word("backup", str(copy), "--force").out
    assert "exists already" in place.refused(1, "backup", str(place.directory / "r.db"), "--force")


# --- where it is ---


def test_a_word_that_is_none(resting: Place) -> None:
    for mistaken, hint in (("node", "Did you mean nodes?"), ("zzz", "Commands are init, nodes")):
        outcome = resting.word(mistaken)
        assert outcome.status == 2
        assert hint in outcome.err


def test_no_option_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        registry.main(["nodes", f"@{tmp_path}/none.conf"])
    assert stop.value.code == 2
    assert "none.conf: no such file. Name the registry's" in capsys.readouterr().err


def test_a_database_that_is_not_there(resting: Place) -> None:
    for name in ("r.db", "r.db-wal", "r.db-shm"):
        (resting.directory / name).unlink(missing_ok=True)
    for word in ("nodes", "tokens", "check", "rotate", "invite"):
        assert "no such file" in resting.refused(1, word)
    assert "Start the registry first" in resting.refused(1, "invite")
    assert not (resting.directory / "r.db").exists(), "a token in it would be good nowhere"


def test_a_registry_that_does_not_listen(resting: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("re6st.cli.registry.commands.START_TIME", 0.1)
    store = Store(resting.directory / "r.db", resting.trust.network)
    try:
        assert "a registry uses it, but does not listen on" in resting.refused(1, "nodes")
    finally:
        store.close()


def test_a_registry_is_not_kept_from_running_by_a_word(resting: Place) -> None:
    assert resting.word("nodes").status == 0
    started = Process(resting.directory)
    try:
        wait_until(started.answers)
    finally:
        started.process.terminate()
        assert started.finish()[0] == 0
    assert not (resting.directory / "r.db.sock").exists()


def test_a_socket_that_a_killed_registry_left(resting: Place) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(resting.directory / "r.db.sock"))
    assert len(resting.word("nodes", "--json").json["nodes"]) == 3


def test_names_are_relative_to_the_option_file(resting: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert len(resting.word("nodes", "--json").json["nodes"]) == 3
    monkeypatch.chdir(resting.directory)
    assert registry.main(["check", "--config", "re6st-registry.conf"]) == 0
    assert registry.main(["check", "@re6st-registry.conf", "--db", str(resting.directory / "r.db")]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        registry.main([command, "--help"])
    assert stop.value.code == 0
    assert f"example: re6st-registry {command}" in capsys.readouterr().out


def test_a_reader_that_had_enough(resting: Place) -> None:
    command = f"{sys.executable} -m re6st.cli.registry.main nodes @{resting.directory}/re6st-registry.conf | true"
    root = Path(__file__).parents[4]
    done = subprocess.run(["sh", "-c", command], cwd=root, stderr=subprocess.PIPE, timeout=30)
    assert done.stderr == b""


# --- output ---


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * 86400), ("12h", 43200), ("90m", 5400), ("45s", 45), ("2w", 1209600), ("7", 7)]
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((12 * 86400, "in 12 days"), (-4, "4 s ago"), (-300, "5 min ago"), (7 * 3600, "in 7 h"), (0, "0 s ago")),
        *((8 * 31557600, "in 8 years"), (1, "in 1 s")),
    ],
)
def test_times_relative_to_now(seconds: int, text: str) -> None:
    now = 1811808000
    when = datetime.fromtimestamp(now + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert listings.relative(when, now) == text


def test_nothing_that_a_terminal_obeys() -> None:
    assert output.table(("A", "B"), [("x\x1b[2J", None), ("y", "")]) == "A         B\nx\\x1b[2J  -\ny         -"


def test_json_is_documented(resting: Place, tmp_path: Path) -> None:
    """Every field of every word is in the manual under its name, and no other one is."""
    answers = {
        "nodes": resting.word("nodes", "--json").json,
        "nodes CN": resting.word("nodes", "1/16", "--json").json,
        "tag": resting.word("tag", "1/16", "web", "--json").json,
        "invite": resting.word("invite", "--url", "http://x/", "--json").json,
        "tokens": resting.word("tokens", "--json").json,
        "rotate": resting.word("rotate", "--json").json,
        "revoke": resting.word("revoke", "1/16", "--yes", "--json").json,
        "revoked": resting.word("revoked", "--json").json,
        "name": resting.word("name", "0/16", "web1", "--json").json,
        "own-node": resting.word("own-node", "--json").json,
        "hellos": resting.word("hellos", "--json").json,
        "params": resting.word("params", "--json").json,
        "topology": resting.word("topology", "--json").json,
        "versions": resting.word("versions", "--json").json,
        "check": resting.word("check", "--json").json,
        "backup": resting.word("backup", str(tmp_path / "copy"), "--json").json,
    }
    documented = dict(re.findall(r"^\| `([a-zA-Z -]+)` \| (.*) \|$", DOCUMENT.read_text(), re.M))
    token = answers["tokens"]["tokens"][0]["token"]
    answers["tokens --delete"] = resting.word("tokens", "--delete", token, "--json").json
    for name, answer in answers.items():
        text = documented[name.removesuffix(" --delete")]
        for field in fields(answer) - {"schema"}:
            assert f"`{field}`" in text, (name, field)


def fields(answer: dict[str, Any]) -> set[str]:
    """Names in an answer and in its records. Parameters of the network are wire.md's."""
    found = set(answer)
    for name, value in answer.items():
        for record in value if isinstance(value, list) else [value]:
            if isinstance(record, dict) and name != "parameters":
                found |= set(record)
    return found


def test_a_table_on_a_terminal_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [("2001:db8:1:2:3:4:5:6", "[red]x\x1b[2J" + "y" * 80)]
    shown = output.table(("ADDRESS", "TEXT"), rows)
    assert "\x1b[1m" in shown  # bold
    assert shown.count("\n") == 1
    assert "2001:db8:1:2:3:4:5:6  [red]x\\x1b[2J" + "y" * 80 in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in output.table(("ADDRESS", "TEXT"), rows)
