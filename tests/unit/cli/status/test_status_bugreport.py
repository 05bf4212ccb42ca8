"""re6st-status bugreport: one bounded text for its owner alone, without secrets, and without names if so wanted."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from re6st.cli.status import bugreport, down, netcheck
from re6st.cli.status import main as status
from re6st.service.control_client import NotRunning
from re6st.view.findings import Finding
from tests.unit.cli.status.test_cli_status import CERTIFICATE, PEERS
from tests.unit.view.test_netcheck import NODE as STATUS
from tests.unit.view.test_status_text import EVENTS, ROUTES, TUNNELS

Run = Callable[..., str]
PRIVATE = ("120/16", "4/16", "203.0.113.9", "198.51.100.7", "re6st.example.com", "peer.example.org", "alice@")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Makes a report beside a played node; returns it. `running=False`: there is no node."""
    named = {"host": "peer.example.org", "port": 1194, "protocol": "udp", "country": ""}
    answers: dict[str, Any] = {
        "status": STATUS,
        "options": {"options": {"log": str(tmp_path), "registry": "http://re6st.example.com"}},
        "certificate": {**CERTIFICATE, "ca": {**dict(CERTIFICATE["ca"]), "network": "2001:db8:42::/48"}},  # type: ignore[call-overload]
        "tunnels": {"tunnels": TUNNELS},
        "neighbours": {"neighbours": []},
        "peers": {"peers": [*PEERS, {**PEERS[0], "peer": "6/16", "addresses": [named]}]},
        "routes": {**ROUTES, "routes": []},
        "events": {"events": EVENTS},
    }
    running = True

    class Connection:
        def ask(self, operation: str, **arguments: object) -> Any:
            return answers[operation]

    @contextmanager
    def connect(path: Path) -> Any:
        if not running:
            raise NotRunning("re6stnet is not running (no control.sock)")
        yield Connection()

    monkeypatch.setattr(bugreport, "connect", connect)
    monkeypatch.setattr(netcheck, "look", lambda control: iter([Finding("warn", "upnp", "no router")]))
    monkeypatch.setattr(down, "DIRECTORY", tmp_path)
    monkeypatch.setattr(down, "_unit", lambda: {"state": "active"})
    monkeypatch.setattr(bugreport, "LOG_DIRECTORY", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.chdir(tmp_path)

    def make(*, alive: bool = True, anonymise: bool = False) -> str:
        nonlocal running
        running = alive
        options = argparse.Namespace(control=Path("c.sock"), json=False, anonymise=anonymise, output="-", word="x")
        assert bugreport.run(options) == 0
        return capsys.readouterr().out

    return make


def test_of_a_long_log_the_newest_lines_are_told_whatever_they_are_made_of(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(b"caf\xc3\xa9 \xff\xff\xff %06d\n" % number for number in range(20_000))
    (tmp_path / "re6stnet.log").write_bytes(lines)
    (tmp_path / "journalctl").write_text(f"#!/bin/sh\nexec cat {tmp_path}/re6stnet.log\n")
    (tmp_path / "journalctl").chmod(0o700)
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / name))
    assert run().count("019999") == 2


def test_it_has_what_helps(run: Run, tmp_path: Path) -> None:
    (tmp_path / "re6stnet.log").write_text("2026-11-23T16:53:18Z INFO re6st.node: connected, says alice@example.org\n")
    text = run()
    for expected in (
        "== versions ==",
        "Python 3.",
        "warn  no router",
        "connected, says",
        '"state": "active"',
        *PRIVATE,
    ):
        assert expected in text
    shown = run(anonymise=True)
    assert [each for each in PRIVATE if each in shown] == []
    for expected in ("node-1", "registry-host", "host-", "connected, says email-1", "== events =="):
        assert expected in shown


def test_without_a_node_it_has_what_there_is(run: Run, tmp_path: Path, vector: Callable[[str], Any]) -> None:
    pki = vector("pki")
    (tmp_path / "ca.crt").write_text(pki["ca_crt"])
    (tmp_path / "cert.crt").write_text(pki["nodes"][1]["crt"])
    lines = (
        "registry http://me:SECRET@re6st.example.com",
        "up register SECRET",
        "B '-C' SECRET",
        "OSECRET",
        "daemon 'SECRET",
    )
    (tmp_path / "re6stnet.conf").write_text("\n".join((*lines, "# a note", "client-count 3", "@more", "registry")))
    text = run(alive=False)
    assert "SECRET" not in text
    for expected in ("is not running", '"cn": "1/16"', "registry http://re6st.example.com", "client-count 3", "@more"):
        assert expected in text
    shown = run(alive=False, anonymise=True)
    assert '"cn": "node-1"' in shown
    assert "registry http://registry-host" in shown
    assert "re6st.example.com" not in shown


def test_it_has_the_logs_of_all_babelds(run: Run, tmp_path: Path) -> None:
    for name in ("babeld.log", "re6stnet-plane-spare.log", "re6stnet-tcp.log"):
        (tmp_path / name).write_text(f"said by {name}\n")
    text = run()
    assert "said by babeld.log" in text
    assert "said by re6stnet-plane-spare.log" in text
    assert "said by re6stnet-tcp.log" not in text


def test_it_is_bounded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "re6stnet.log").write_text("".join(f"line {number} {'ä' * 50}\n" for number in range(20_000)))
    (tmp_path / "babeld.log").mkdir()
    text = run()
    assert len(text.encode()) < 3 * bugreport.SECTION_LIMIT
    assert f"line 19999 {'ä' * 50}" in text, "of a log the end is kept"
    assert "Is a directory" in text
    cut = bugreport.report([("long", "x" * 200_000), ("short", "y")], 0)
    assert len(cut) < bugreport.SECTION_LIMIT + 200
    assert "x\n[cut here]\n\n== short ==\ny\n" in cut


def test_the_file_is_for_its_owner_and_takes_nobody_elses_place(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*words: str) -> int:
        try:
            return status.main(["--control", "c.sock", "bugreport", *words])
        except SystemExit as end:
            return int(end.code or 0)

    assert write() == 0
    (path,) = tmp_path.glob("re6st-bugreport-*Z.txt")
    assert path.stat().st_mode & 0o777 == 0o600
    out, err = capsys.readouterr()
    assert out.startswith(f"{path.name}: ")
    assert "--anonymise" in out
    assert err.startswith("looking at")
    assert write("-o", str(path)) == 1
    assert "there is such a file. Choose another --output." in capsys.readouterr().err
    assert write("-o", "no/such/directory") == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert write("--json", "--anonymise", "-o", "other") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"schema": 1, "file": "other", "bytes": os.stat("other").st_size, "anonymised": True}
    assert write("--json", "-o", "-") == 0
    assert json.loads(capsys.readouterr().out)["report"].startswith("re6st-status bugreport, ")
