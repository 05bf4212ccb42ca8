"""re6st-status: what it asks, prints and ends with, against a control socket that the test plays."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from re6st.cli.status import down, icmp
from re6st.cli.status import main as status
from re6st.core.telemetry.report import Record
from re6st.service import control_client, json_lines, run_names, rundir
from re6st.service.control import ControlError, ControlServer
from re6st.service.json_lines import Status
from re6st.view.screen import line
from tests.unit.view.test_status_text import EVENTS, ROUTES, STATUS, TUNNELS

NODE: Record = {"peer": "9/16", "address": "::1", "subnet": "::/64"}
WAY: Record = {
    "destination": "::/64",
    "source": None,
    "peer": "9/16",
    "via": "4/16",
    "interface": "re6stnet1",
    "address": "fe80::4",
    "metric": 226,
    "behind": 96,
    "in_use": True,
}


CERTIFICATE: Record = {
    "cn": "9/16",
    "subject": "CN=9/16",
    "serial": 7,
    "subnet": "::/64",
    "address": "::1",
    "key_bits": 2048,
    "starts": 1_790_000_000,
    "until": 1_820_000_000,
    "renews": 1_817_000_000,
    "fingerprint": "sha256:77aa",
    "ca": {
        "subject": "CN=Example mesh",
        "network": "::/48",
        "starts": 1_700_000_000,
        "until": 2_000_000_000,
        "key_bits": 2048,
        "fingerprint": "sha256:3f9a",
    },
}
PEERS: list[Record] = [
    {
        "peer": "4/16",
        "reached": True,
        "metric": 96,
        "tunnel": "out",
        "last": None,
        "addresses": [{"host": "198.51.100.7", "port": 1194, "protocol": "udp", "country": ""}],
    },
    {
        "peer": "5/16",
        "addresses": [],
        "reached": False,
        "metric": None,
        "tunnel": None,
        "last": {**EVENTS[0], "kind": "tunnel-failed"},
    },
]


class Played:
    """A node that is well, if nothing else is said."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {**STATUS, "health": {"verdict": "ok", "problems": []}}
        self.status["registry"] = {**STATUS["registry"], "cn": NODE["peer"]}
        self.routes: list[Record] = []
        self.stays = False

    def call(
        self, operation: str, arguments: Mapping[str, Any], *, trusted: bool
    ) -> Record | AsyncGenerator[Record, None]:
        match operation:
            case "status":
                return self.status
            case "tunnels":
                return {"tunnels": TUNNELS}
            case "neighbours":
                return {"neighbours": [{**WAY, "peer": None, "rtt_ms": None, "cost": 96, "reach": "ffff", "routes": 1}]}
            case "routes":
                page = self.routes[arguments.get("offset", 0) :][: arguments["limit"]]
                return {**ROUTES, "count": len(self.routes), "routes": page}
            case "events":
                return {"events": EVENTS}
            case "watch":
                return self._watch()
            case "peers":
                return {"peers": PEERS}
            case "certificate":
                return CERTIFICATE
            case "follow" if not arguments:
                return self._follow()
            case "why" if arguments["peer"] in ("9/16", "::1"):
                return {**NODE, "since": None, "routes": [WAY]}
            case "why":
                raise ControlError(Status.NOT_FOUND, "no route to it is known")
            case "names" if arguments["peers"] == ["x"]:
                raise ControlError(Status.USAGE, "'x' is not a node")
            case "names":
                return {"names": {each: NODE if each in ("9/16", "::1") else None for each in arguments["peers"]}}
        raise ControlError(Status.NOT_ALLOWED, "only root may")

    async def _watch(self) -> AsyncGenerator[Record, None]:
        yield {"watching": True}
        yield {**EVENTS[0], "number": 2, "kind": "babel-ended", "peers": [], "count": 0}

    async def _follow(self) -> AsyncGenerator[Record, None]:
        yield {"following": True, "level": 2}
        logged = {"time": 1_800_000_000.5, "level": "ERROR", "name": "re6st.babel"}
        yield {**logged, "text": "babeld ended\nTraceback", "left_out": 3}
        if self.stays:
            await asyncio.get_running_loop().create_future()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Played]:
    """Serves in a thread of its own; its socket is in the test's directory."""
    played = Played()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    serving: list[asyncio.Task[None]] = []
    server = ControlServer(played, tmp_path)

    def run() -> None:
        task = loop.create_task(server.run())
        serving.append(task)
        loop.call_later(0.05, ready.set)
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(5)
    yield played
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in serving])
    thread.join(5)


def run(tmp_path: Path, *words: str) -> int:
    try:
        return status.main(["--control", str(tmp_path / "control.sock"), *words])
    except SystemExit as end:
        return int(end.code or 0)


def test_the_exit_status_says_whether_it_is_well(
    node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "health: ok" in shown
    assert "\x1b" not in shown, "no colour off a terminal"
    for verdict, plugin in (("warning", 1), ("failed", 2)):
        node.status["health"] = {"verdict": verdict, "problems": [{"severity": verdict, "text": "of | a kind"}]}
        assert run(tmp_path) == 1
        assert run(tmp_path, "check") == plugin
        line_of_plugin = capsys.readouterr().out.splitlines()[-1]
        assert line_of_plugin.startswith(f"RE6ST {'WARNING' if plugin == 1 else 'CRITICAL'} - of / a kind | tunnels=2;")


def test_json_is_of_a_schema_and_nothing_else(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [(), ("tunnels",), ("neighbours",), ("routes",), ("events",), ("why", "9/16"), ("check",), ("wait",)]
    words += [("peers",), ("graph",), ("cert",)]
    for each in words:
        assert run(tmp_path, *each, "--json") == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["schema"] == 1
        assert not err
    assert run(tmp_path, "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["running"]
    assert whole["tunnels"] == TUNNELS
    assert whole["cn"] == "120/16"


def test_words(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["tunnels"], "198.51.100.7:1194/udp"),
        (["neighbours"], "fe80::4"),
        (["routes"], "DESTINATION"),
        (["events"], "lost 2 nodes: 5/16, 6/16"),
        (["why", "9/16"], "reached via 4/16"),
        (["wait", "--for", "address"], ""),
        (["peers"], "198.51.100.7:1194/udp"),
        (["cert"], "CN=Example mesh"),
        (["graph"], "120/16, 0 neighbours"),
        (["graph", "--dot"], '"120/16" [color=gold3];'),
    ):
        assert run(tmp_path, *words) == 0
        assert expected in capsys.readouterr().out


def test_all_pages_of_routes(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node.routes = [WAY] * 2100
    assert run(tmp_path, "routes") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2101


def test_following_events(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "events", "--follow") == 3, "until the node ends"
    out = capsys.readouterr().out
    assert "2027-01-15 07:58:30Z  babeld ended" in out


def test_following_the_log(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "log", "-f") == 3, "until the node ends"
    head = "2027-01-15 08:00:00Z ERROR re6st.babel: "
    assert capsys.readouterr().out.splitlines() == ["3 lines left out", f"{head}babeld ended", f"{head}Traceback"]
    assert run(tmp_path, "log", "--follow", "--json") == 3
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (record["schema"], record["left_out"], record["name"]) == (1, 3, "re6st.babel")


def test_ctrl_c_ends_following_without_a_word(node: Played, tmp_path: Path) -> None:
    node.stays = True
    argv = [sys.executable, "-m", "re6st.cli.status.main", "--control", str(tmp_path / "control.sock"), "log", "-f"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"3 lines left out\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"")


def test_the_certificate_of_a_node_that_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, vector: Callable[[str], Any]
) -> None:
    monkeypatch.setattr(down, "DIRECTORY", tmp_path)
    assert run(tmp_path, "cert") == 3
    assert "No such file" in capsys.readouterr().err
    pki = vector("pki")
    (tmp_path / "ca.crt").write_text(pki["ca_crt"])
    (tmp_path / "cert.crt").write_text(pki["nodes"][1]["crt"])
    assert run(tmp_path, "cert", "--json") == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["cn"] == "1/16"
    assert "not running" in err


def test_refusals(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected, number in (
        (["why", "8/16"], "no route to it is known", 1),
        (["ping", "x"], "'x' is not a node", 2),
        (["trace", "fd00::8"], "no node is known to have this address", 1),
        (["log", "3"], "only root may", 4),
        (["log", "-f", "3"], "only root may", 4),
        (["log"], "--follow to see the log", 2),
        (["pong"], "unknown command 'pong'. Did you mean ping? Try re6st-status --help.", 2),
        (["frobnicate"], "unknown command 'frobnicate'. Commands are tunnels, ", 2),
        (["--watch"], "needs a terminal", 2),
        (["--watch", "tunnels"], "argument --watch: cannot be combined with tunnels", 2),
        (["wait", "--timeout", "-1"], "is not a number between", 2),
    ):
        assert run(tmp_path, *words) == number, words
        out, err = capsys.readouterr()
        assert expected in err
        assert len(err.splitlines()) == 1
        assert not out


def test_ping_and_trace(
    node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.001, None, None])
    monkeypatch.setattr(icmp, "ping", lambda address, timeout: next(times))
    assert run(tmp_path, "ping", "9/16", "-c", "2", "-t", "1") == 0
    assert "2 sent, 1 answered" in capsys.readouterr().out
    assert run(tmp_path, "ping", "9/16", "-c", "1", "-t", "1") == 1
    assert "Babel has a route, via 4/16 on re6stnet1" in capsys.readouterr().out
    assert run(tmp_path, "trace", "9/16", "--json") == 0, "it is the loopback"
    answer = json.loads(capsys.readouterr().out)
    assert answer["reached"]
    assert [(hop["hop"], hop["peer"], hop["address"]) for hop in answer["hops"]] == [(1, "9/16", "::1")]
    assert answer["bulk"] is None
    node.status["bulk"] = {**node.status["bulk"], "active": True}
    assert run(tmp_path, "trace", "9/16") == 0
    assert "the route of bulk traffic (class CS1)" in capsys.readouterr().out
    node.status["bulk"] = {**node.status["bulk"], "active": False}
    silent = iter([icmp.Hop(n) for n in range(1, 31)])
    monkeypatch.setattr(icmp, "trace", lambda address, timeout, traffic_class: silent)
    assert run(tmp_path, "trace", "9/16") == 1
    assert "not reached" in capsys.readouterr().out
    assert next(silent).number == 5, "after four that are silent it gives up"


def test_waiting(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node.status = {**node.status, "health": {"verdict": "failed", "problems": [{"severity": "failed", "text": "bad"}]}}
    assert run(tmp_path, "wait", "--timeout", "1") == 5
    assert capsys.readouterr().err == "re6st-status: not healthy within 1.0 s: bad\n"
    threading.Timer(0.5, lambda: node.status.update(health={"verdict": "ok", "problems": []})).start()
    assert run(tmp_path, "wait", "--timeout", "10") == 0


def test_waiting_for_an_answer_through_the_mesh(
    node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route is the way there: what was sent before the other end had the way back was lost."""
    heard = iter([False, False, True, True, True])
    monkeypatch.setattr(icmp, "answers", lambda address, timeout: next(heard))
    assert run(tmp_path, "wait") == 0
    assert [run(tmp_path, "wait", "--for", until) for until in ("peer", "registry")] == [0, 0]
    assert next(heard, None) is None
    monkeypatch.setattr(icmp, "answers", lambda address, timeout: False)
    for until in ("healthy", "peer", "registry"):
        assert run(tmp_path, "wait", "--for", until, "--timeout", "1") == 5
        assert "no answer through the mesh yet (from 9/16)" in capsys.readouterr().err
    assert run(tmp_path, "wait", "--for", "address") == 0
    node.status["cn"] = "9/16"
    assert run(tmp_path, "wait", "--for", "registry") == 0, "this is the registry's node"


def test_a_node_that_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = {"state": "failed", "result": "exit-code", "enabled": "enabled"}
    monkeypatch.setattr(down, "_unit", lambda: unit)
    monkeypatch.setattr(down, "DIRECTORY", tmp_path)
    known = {"cn": "9/16", "file": "cert.crt", "until": int(time.time()) + 86400 * 30, "subnet": "2001:db8::/64"}
    monkeypatch.setattr(down, "_certificate", lambda directory: known)
    assert run(tmp_path) == 3
    out, err = capsys.readouterr()
    assert not out
    first, *more = err.splitlines()
    assert first.startswith("re6st-status: re6stnet is not running (no ")
    assert first.endswith("The unit failed (exit-code): see journalctl -u re6stnet, then systemctl restart re6stnet.")
    assert "9/16, subnet 2001:db8::/64, until" in more[0]
    assert "re6stnet.service: failed, enabled at boot" in more[1]
    assert run(tmp_path, "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["running"], answer["unit"], answer["schema"]) == (False, unit, 1)
    assert run(tmp_path, "check") == 2
    assert run(tmp_path, "tunnels") == 3
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.sock"))
    assert run(tmp_path) == 3
    assert "it was killed, or crashed" in capsys.readouterr().err


def test_remedies() -> None:
    def remedy(state: str | None, certificate: bool = True) -> str:
        unit = None if state is None else {"state": state, "result": "", "enabled": ""}
        return down.remedy({"unit": unit, "certificate": {} if certificate else None})

    assert "--control" in remedy(None)
    assert "re6st-conf" in remedy("inactive", certificate=False)
    assert "systemctl start re6stnet" in remedy("inactive")
    assert "wait" in remedy("activating")


def test_who_may_not_connect_is_told_which_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: socket.socket, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(control_client, "GROUP", "no-such-group-of-re6st")
    assert run(tmp_path) == 4
    assert "make a group no-such-group-of-re6st" in capsys.readouterr().err
    monkeypatch.setattr(control_client, "GROUP", grp.getgrgid(0).gr_name)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 65534)
    assert run(tmp_path, "tunnels") == 4
    assert "join the group root" in capsys.readouterr().err
    assert run(tmp_path, "wait") == 4, "at once"
    monkeypatch.setattr(os, "getgroups", lambda: [0])
    assert run(tmp_path, "wait", "--timeout", "1") == 5, "its directory may be open to the group in a moment"
    capsys.readouterr()
    assert run(tmp_path, "check") == 3
    assert capsys.readouterr().out.startswith("RE6ST UNKNOWN - no permission for ")


@pytest.mark.parametrize("answer", [b"x\n", b"[]\n", b'{"error": 1}\n', b"", b'{"protocol": 1}\n'])
def test_another_program_at_the_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(tmp_path / "control.sock"))
        own.listen()

        def serve() -> None:
            with own.accept()[0] as connected:
                connected.recv(4096)
                connected.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert run(tmp_path) == (1 if answer else 3)
        thread.join()
    assert "Traceback" not in capsys.readouterr().err


def test_a_node_of_another_version(node: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del node.status["certificate"]
    assert run(tmp_path) == 1
    err = capsys.readouterr().err
    assert "does it run another version? Restart re6stnet." in err
    assert len(err.splitlines()) == 1


def test_both_ends_of_the_socket_agree() -> None:
    assert (
        control_client.PROTOCOL,
        control_client.GROUP,
        control_client.DEFAULT.name,
    ) == (json_lines.PROTOCOL, rundir.GROUP, run_names.CONTROL_SOCKET)


def test_a_frame_fills_the_screen() -> None:
    from re6st.cli.status.live import frame

    text = frame([line(f"line {n}") for n in range(30)], 20, 10, colour=False)
    rows = text.removeprefix("\x1b[H").replace("\x1b[K", "").replace("\x1b[J", "").split("\r\n")
    assert len(rows) == 10
    assert rows[0] == "line 0"
    assert rows[-2:] == ["line 8", "q: leave   lines 1 …"]


def test_live_in_a_terminal_until_q(node: Played, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    argv = [sys.executable, "-m", "re6st.cli.status.main", "--control", str(tmp_path / "control.sock"), "--watch"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    before = termios.tcgetattr(slave)
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        shown = b""
        while b"q: leave" not in shown:
            shown += os.read(master, 65536)
        os.write(master, b"q")
        assert process.wait(10) == 0
    os.set_blocking(master, False)
    shown += os.read(master, 65536)
    assert b"\x1b[32mhealth: ok" in shown
    assert shown.endswith(b"\x1b[?1049l"), "the screen from before is back"
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
