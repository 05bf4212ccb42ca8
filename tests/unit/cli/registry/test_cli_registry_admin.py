"""The words of re6st-registry as the operator meets them, with a registry that runs and with only its file."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from re6st import cert
from re6st.cli.conf import main as conf
from re6st.cli.options import duration
from re6st.cli.registry import main as registry
from re6st.cli.registry import output
from re6st.cli.registry.words import WORDS
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT
from re6st.registryd import listings
from re6st.registryd.records import LastCall, Slot
from re6st.registryd.sqlite.check import check
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.store import Store
from tests.unit.cli.registry.test_cli_registry import Process, free_port, wait_until

DOCUMENT = Path(__file__).parents[4] / "docs" / "registry-admin.md"
EMAILS = (None, "alice@example.org", "bob@example.org")


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self
        answer = json.loads(self.out)
        assert answer["schema"] == 1
        return answer


@dataclass
class Place:
    """A registry's directory, with three nodes, and maybe a registry that runs."""

    directory: Path
    capsys: pytest.CaptureFixture[str]
    process: Process | None = None

    def word(self, *arguments: str) -> Outcome:
        self.capsys.readouterr()
        command = [*arguments, f"@{self.directory}/re6st-registry.conf"]
        try:
            status: int | str | None = registry.main(command)
        except SystemExit as stop:
            status = stop.code
        assert isinstance(status, int)
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(status, captured.out, captured.err)

    def refused(self, status: int, *arguments: str) -> str:
        """The one line of a word that fails."""
        outcome = self.word(*arguments)
        assert (outcome.status, outcome.out) == (status, ""), outcome
        *_, line = outcome.err.splitlines()
        assert line.startswith(f"re6st-registry {arguments[0]}: "), line
        return line

    @property
    def trust(self) -> cert.Trust:
        return cert.Trust(cert.load_pem((self.directory / "ca.crt").read_bytes()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a network with the nodes 0/16, 1/16 and 2/16."""
    directory = tmp_path_factory.mktemp("admin") / "etc"
    assert registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous"]) == 0
    with (directory / "re6st-registry.conf").open("a") as file:
        file.write("db r.db\nlogfile log/r.log\nrun .\n")
    key = cert.new_key(2048)
    authority = cert.Authority(
        cert.load_pem((directory / "ca.crt").read_bytes()), cert.load_private_key((directory / "ca.key").read_bytes())
    )

    def make(slot: Slot) -> x509.Certificate:
        subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
        return authority.issue(subject, key.public_key(), slot.serial, datetime.now(UTC))

    def fill(ledger: Ledger) -> None:
        for email in EMAILS:
            ledger.issue(ROOT, 16, email, make)
        ledger.set_config("babel_hmac0", bytes(16))
        ledger.mark_seen([LastCall(Prefix(1, 16), int(datetime.now(UTC).timestamp()), 10, "1.5, Linux", "rekey")])

    async def main() -> None:
        store = Store(directory / "r.db", authority.trust.network)
        await store.change(fill)
        store.close()

    asyncio.run(main())
    return directory


@pytest.fixture
def resting(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    for path in made.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return Place(tmp_path, capsys)


@pytest.fixture(params=["running", "resting"])
def place(resting: Place, request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "resting":
        yield resting
        return
    started = Process(resting.directory)
    try:
        wait_until(started.answers)
        wait_until((resting.directory / "r.db.sock").exists)
        resting.process = started
        yield resting
    finally:
        started.process.terminate()
        assert started.finish() == (0, "")


# --- nodes ---


def test_nodes(place: Place) -> None:
    head, *rows = place.word("nodes").out.splitlines()
    assert head.split() == ["CN", "SUBNET", "ADDRESS", "E-MAIL", "ISSUED", "EXPIRES", "SEEN", "VERSION"]
    assert len(rows) == 3
    assert [row.index("2001:db8:42:") for row in rows] == [head.index("SUBNET")] * 3
    assert rows[1].split()[:4] == ["1/16", "2001:db8:42:1::/64", "2001:db8:42:1::1", "alice@example.org"]
    assert re.search(r"in 365 days +\d+ (s|min) ago +1\.5 \(p10\)$", rows[1])
    assert re.search(r"in 365 days +- +-$", rows[2])
    found = place.word("nodes", "--json").json["nodes"]
    assert [(node["cn"], node["email"], node["registry"]) for node in found] == [
        ("0/16", None, True),
        ("1/16", "alice@example.org", False),
        ("2/16", "bob@example.org", False),
    ]
    assert {key: found[1][key] for key in ("prefix", "subnet", "address", "serial", "number", "version")} == {
        "prefix": "0000000000000001",
        "subnet": "2001:db8:42:1::/64",
        "address": "2001:db8:42:1::1",
        "serial": 2,
        "number": 1,
        "version": "1.5, Linux",
    }


def test_nodes_that_are_wanted(place: Place) -> None:
    def found(*arguments: str) -> list[str]:
        return [node["cn"] for node in place.word("nodes", "--json", *arguments).json["nodes"]]

    assert found("--expiring", "30d") == []
    assert found("--expiring", "366d") == ["0/16", "1/16", "2/16"]
    assert found("--unseen", "1d") == ["0/16", "2/16"]
    assert found("--email", "bob@example.org") == ["2/16"]


def test_one_node(place: Place) -> None:
    for target in ("1/16", "2", "2001:db8:42:1::7"):
        (node,) = place.word("nodes", target, "--json").json["nodes"]
        assert node["cn"] == "1/16"
    shown = place.word("nodes", "0/16").out
    assert re.search(r"^CN +0/16 \(the registry's own node\)$", shown, re.M)
    assert re.search(r"^expires +\d{4}-\d\d-\d\dT[0-9:]{8}Z, in 365 days$", shown, re.M)
    assert "9/16: no such node" in place.refused(3, "nodes", "9/16")
    assert "no CN" in place.refused(2, "nodes", "alice")


# --- tokens ---


def test_an_invitation_enrols(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = place.process.port if place.process else free_port()
    carol = ("invite", "carol@example.org", "--prefix-length", "20", "--expires", "7d")
    made = place.word(*carol, "--url", f"http://127.0.0.1:{port}/", "--json").json
    assert (made["email"], made["prefix_length"]) == ("carol@example.org", 20)
    assert shlex.split(made["join"])[-1] == f"{made['url']}#{made['fingerprint']},token={made['token']}"
    started = place.process or Process(place.directory, "--port", str(port))
    started.port = port
    try:
        wait_until(started.answers)
        program, *arguments = shlex.split(made["join"])
        assert (program, arguments[0]) == ("re6st-conf", "--join")
        home = tmp_path / "node"
        home.mkdir()
        assert conf.main([*arguments, "--dir", str(home)]) == 0
        prefix = cert.prefix_of_cert(cert.load_pem((home / "cert.crt").read_bytes()))
        assert prefix.length == 20
        (node,) = place.word("nodes", "--email", "carol@example.org", "--json").json["nodes"]
        assert node["cn"] == prefix.cn
        assert place.word("tokens", "--json").json["tokens"] == []
    finally:
        if place.process is None:
            started.process.terminate()
            assert started.finish() == (0, "")


def test_an_invitation_as_shown(place: Place) -> None:
    outcome = place.word("invite", "--url", "https://re6st.example.com/")
    token, who, blank, join = outcome.out.splitlines()[:4]
    assert (who, blank) == ("Who has it runs this, as root in /etc/re6stnet:", "")
    assert re.fullmatch(r"token  [a-z]{18}   prefix /16   until \d{4}-\d\d-\d\dT[0-9:]{8}Z", token)
    assert re.fullmatch(r"re6st-conf --join 'https://re6st.example.com/#sha256:[0-9a-f]{64},token=[a-z]{18}'", join)
    assert outcome.err == ""
    guessed = place.word("invite")
    assert "a guess" in guessed.err
    assert "--join 'http://" in guessed.out
    with (place.directory / "re6st-registry.conf").open("a") as file:
        file.write("url https://mesh.example.com\n")
    assert "--join 'https://mesh.example.com#sha256:" in place.word("invite").out


def test_tokens(place: Place) -> None:
    made = place.word("invite", "carol@example.org", "--expires", "7d", "--url", "http://x/", "--json").json
    (token,) = place.word("tokens", "--json").json["tokens"]
    assert {key: made[key] for key in token if key != "expired"} | {"expired": False} == token
    head, row = place.word("tokens").out.splitlines()
    assert head.split() == ["TOKEN", "E-MAIL", "PREFIX", "CREATED", "EXPIRES"]
    assert row.split()[:3] == [made["token"], "carol@example.org", "/16"]
    assert row.endswith("in 7 days")
    assert place.word("tokens", "--delete", made["token"], "--json").json == {"schema": 1, "deleted": made["token"]}
    assert "unknown" in place.refused(3, "tokens", "--delete", made["token"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prefix-length", "79"),
        ("--prefix-length", "0"),
        ("--expires", "soon"),
        ("--expires", "0d"),
        ("--url", "ftp://x/"),
        ("nobody",),
        ("a@b", "c@d"),
    ],
)
def test_an_invitation_that_makes_no_sense(resting: Place, arguments: tuple[str, ...]) -> None:
    resting.refused(2, "invite", *arguments)


# --- revoking ---


def test_revoke_by_cn(place: Place) -> None:
    outcome = place.word("revoke", "1/16", "--yes", "--reason", "stolen", "--json")
    assert (outcome.json["node"]["email"], outcome.json["subnet_kept"]) == ("alice@example.org", False)
    assert ("does not run" in outcome.err) == (place.process is None)
    assert "no such node" in place.refused(3, "revoke", "1/16", "--yes")
    (listed,) = place.word("revoked", "--json").json["revoked"]
    assert (listed["serial"], listed["cn"], listed["email"], listed["reason"]) == (
        *(2, "1/16", "alice@example.org"),
        "stolen",
    )
    assert place.word("params", "--json").json["parameters"]["crl"] == [2]
    head, row = place.word("revoked").out.splitlines()
    assert head.split() == ["SERIAL", "CN", "E-MAIL", "REVOKED", "REASON", "LISTED", "UNTIL"]
    assert row.split()[:3] == ["2", "1/16", "alice@example.org"]


def test_revoke_by_serial(place: Place) -> None:
    assert "its subnet is kept" in place.word("revoke", "2", "--yes").out
    assert "revoked already" in place.refused(4, "revoke", "2", "--yes")
    assert place.word("nodes", "1/16", "--json").json["nodes"][0]["revoked"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_revoke_asks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "Give --yes" in place.refused(2, "revoke", "1/16")
    assert "will be out" not in place.word("revoke", "1/16").err, "nobody is asked, so nothing is announced"
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    outcome = place.word("revoke", "1/16")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.endswith("Revoke it? [y/N] re6st-registry revoke: nothing was revoked\n")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    outcome = place.word("revoke", "1/16")
    assert outcome.out.startswith("revoked  1/16, serial 2, alice@example.org")
    assert "alice@example.org" in outcome.err
    assert "will be out of the network" in outcome.err, "it is not yet, when that is asked"


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_the_registry_s_own_node_is_not_revoked(
    place: Place, monkeypatch: pytest.MonkeyPatch, yes: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    line = place.refused(4, "revoke", "0/16", *yes)
    assert "0/16 is the registry's own node, and is not revoked" in line
    assert "re6st-conf rekey" in line
    assert place.word("nodes", "0/16", "--json").json["nodes"][0]["cn"] == "0/16"


def test_another_node_takes_the_place_of_the_registry_s_own(place: Place) -> None:
    assert place.word("own-node").out == "own node  0/16; it has a certificate\n"
    outcome = place.word("own-node", "1/16")
    assert outcome.out.startswith("own node  1/16; instead of 0/16; parameters of the network: version ")
    assert place.word("own-node", "1/16").out == "own node  1/16; it was already\n"
    assert place.word("params", "--json").json["registry"] == "1/16"
    assert place.word("revoke", "0/16", "--yes").status == 0
    assert "is the registry's own node" in place.refused(4, "revoke", "1/16", "--yes")
    assert "no such node" in place.refused(3, "own-node", "9/16")


def test_a_registry_that_lost_its_node_says_so_and_gets_it_back(place: Place, tmp_path: Path) -> None:
    """Earlier versions revoked it when they were told to."""
    evict_own_node(place)
    assert "no certificate, so the network gets no news" in place.word("own-node").out
    outcome = place.word("check")
    assert outcome.status == 1
    assert "warning  The registry's own node 0/16 has no certificate (was it revoked?)" in outcome.out
    assert place.word("backup", str(tmp_path / "copy")).status == 0, "the database itself is good"
    assert place.word("own-node", "1/16").status == 0
    assert place.word("check").out.startswith("ok  ")


def evict_own_node(place: Place) -> None:
    """As earlier versions did, with the registry stopped or not: what it knows is in the file."""
    with sqlite3.connect(place.directory / "r.db", timeout=20) as db:
        db.execute("UPDATE cert SET cert = 'reserved', email = NULL WHERE prefix = ?", (Prefix(0, 16).bits,))
    db.close()


# --- the network ---


def test_rotate(place: Place) -> None:
    assert place.word("rotate", "--status", "--json").json["state"] == "stable"
    for state, hint in (("phase 1", "to sign with it"), ("phase 2", "forget the old one"), ("stable", "nothing to do")):
        version = place.word("params", "--json").json["version"]
        step = place.word("rotate", "--force", "--json").json
        assert (step["state"], step["changed"], step["version"]) == (state, True, version + 1)
        assert hint in step["next"]
        again = place.word("rotate", "hmac", "--status", "--json").json
        assert again == step | {"changed": False}
    assert re.match(r"state +stable\nversion +\d+\nnext +nothing to do", place.word("rotate", "--status").out)


def test_the_next_step_of_a_rotation_is_not_made_before_its_time(place: Place) -> None:
    assert place.word("rotate", "--json").json["state"] == "phase 1"
    line = place.refused(4, "rotate")
    assert re.search(r"not before 20\d\d-.*Z: .* Nothing was changed\. --force", line)
    assert place.word("rotate", "--status", "--json").json["state"] == "phase 1"


def test_hellos(place: Place) -> None:
    shown = place.word("hellos", "--json").json
    assert (shown["hellos"], shown["older_nodes"], shown["short_from"]) == ("long", ["1/16"], None)
    assert re.search(r"^why +these nodes of older software need long ones: 1/16$", place.word("hellos").out, re.M)
    refused = place.word("hellos", "--short")
    assert (refused.status, "need long hellos: 1/16" in refused.err) == (4, True)
    place.word("revoke", "1/16", "--yes")
    assert re.search(r"^why .*: short ones from .*Z, or at once with --short$", place.word("hellos").out, re.M)
    assert place.word("hellos", "--short", "--json").json["hellos"] == "short"


def test_params(place: Place) -> None:
    shown = place.word("params", "--json").json
    assert (shown["registry"], shown["keys"], shown["parameters"]["hello"]) == ("0/16", "stable", 4)
    text = place.word("params").out
    assert re.search(r"^registry_prefix +0/16$", text, re.M)
    assert "hmac" not in text


def test_the_mesh_without_a_node_beside(place: Place) -> None:
    assert place.word("versions", "--json").json["versions"] == [
        {"cn": "0/16", "prefix": "0" * 16, "version": None},
    ]
    assert "no answer" in place.word("versions").out
    assert place.word("topology", "--json").json["topology"] == []
    assert place.word("topology", "--dot").out == "digraph re6st {\n}\n"


def test_a_graph_for_graphviz(resting: Place) -> None:
    record = {
        "topology": [
            {"cn": "0/16", "answered": True, "tunnels_to": ["1/16"]},
            {"cn": "1/16", "answered": False, "tunnels_to": []},
        ]
    }
    options = type("Options", (), {"dot": True})()
    assert output.topology(record, options).splitlines() == [
        "digraph re6st {",
        '  "0/16";',
        '  "1/16" [style=dashed];',
        '  "0/16" -> "1/16";',
        "}",
    ]


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


async def damage(store: Store) -> None:
    await store.change(lambda ledger: ledger.set_config("serial", 1))


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
    for mistaken, hint in (("node", "Did you mean nodes?"), ("zzz", "Words are init, nodes")):
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
    monkeypatch.setattr("re6st.cli.registry.words.START_TIME", 0.1)
    store = Store(resting.directory / "r.db", resting.trust.network)
    try:
        assert "a registry has it, but does not listen on" in resting.refused(1, "nodes")
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


@pytest.mark.parametrize("word", WORDS)
def test_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        registry.main([word, "--help"])
    assert stop.value.code == 0
    assert f"example: re6st-registry {word}" in capsys.readouterr().out


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
        "invite": resting.word("invite", "--url", "http://x/", "--json").json,
        "tokens": resting.word("tokens", "--json").json,
        "rotate": resting.word("rotate", "--json").json,
        "revoke": resting.word("revoke", "1/16", "--yes", "--json").json,
        "revoked": resting.word("revoked", "--json").json,
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
