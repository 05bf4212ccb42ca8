"""re6st-status netcheck beside a node, a registry and a router that the test plays."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import miniupnpc
import pytest

from re6st import cert
from re6st.cli import kernel_findings, machine
from re6st.cli.status import down, icmp, netcheck
from re6st.core.telemetry import report
from re6st.service.control_client import NotRunning
from re6st.view.findings import Finding
from re6st.view.netcheck import RegistryAnswer
from tests.unit.cli.status.test_cli_status import CERTIFICATE, NODE, PEERS, WAY
from tests.unit.view.test_netcheck import NODE as STATUS
from tests.unit.view.test_status_text import TUNNELS

GOOD = RegistryAnswer("IPv4", 5.0, "sha256:3f9a", 0.0)


class Connection:
    """A node's answers."""

    def ask(self, operation: str, **arguments: Any) -> Any:
        answers: Mapping[str, Any] = {
            "status": {**STATUS, "pid": 1, "health": {"verdict": "ok", "problems": []}},
            "tunnels": {"tunnels": TUNNELS},
            "peers": {"peers": PEERS},
            "options": {"options": {"upnp": True}, "source_routes": True},
            "certificate": CERTIFICATE,
            "neighbours": {"neighbours": [{**WAY, "peer": "4/16"}]},
            "routes": {"routes": [WAY, {**WAY, "peer": "4/16", "metric": 96}, {**WAY, "peer": None, "metric": 999}]},
            "names": {"names": {"9/16": NODE}},
        }
        return answers[operation]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nobody is asked."""

    async def ask(url: str) -> list[RegistryAnswer]:
        return [GOOD]

    async def software(*_: object) -> bytes:
        return b"1.0, Linux"

    for name in ("capabilities", "programs", "source_routes", "advertisements", "tun_device"):
        monkeypatch.setattr(machine, name, lambda *_: iter([Finding("ok", "machine", "a thing")]))
    for name in ("ipv6", "firewall"):
        monkeypatch.setattr(kernel_findings, name, lambda *_: iter(()))
    monkeypatch.setattr(netcheck, "ask_registry", ask)
    monkeypatch.setattr(netcheck, "find_router", lambda: None)
    monkeypatch.setattr(netcheck, "_software", software)
    monkeypatch.setattr(icmp, "path_mtu", lambda *_: None)
    return monkeypatch


def play(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    @contextmanager
    def connect(path: Path) -> Any:
        if error is not None:
            raise error
        yield Connection()

    monkeypatch.setattr(netcheck, "connect", connect)


def test_a_line_each_and_the_verdict(quiet: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play(quiet)
    options = argparse.Namespace(control=Path("control.sock"), json=False)
    assert netcheck.run(options) == 0, "a warning is no failure"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    a thing, a thing, a thing, a thing, a thing"
    assert lines[1].startswith("ok    registry answers over IPv4 in 5 ms, CA matches, clock within")
    assert any(line.startswith("warn  UPnP: no router answered in 2 s -> forward tcp/1194 to ") for line in lines)
    assert any("passes inside, 9/16 has version 1.0" in line for line in lines)
    assert lines[-1].startswith("warn  9/16 does not answer echo requests")
    options.json = True
    assert netcheck.run(options) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["verdict"]) == (1, "warn")
    assert {"level", "about", "text", "remedy"} == set(told["findings"][0])


def test_without_a_node(
    quiet: pytest.MonkeyPatch, tmp_path: Path, vector: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    play(quiet, NotRunning("re6stnet is not running (no control.sock)"))
    quiet.setattr(down, "DIRECTORY", tmp_path)
    quiet.setattr(down, "_unit", lambda: None)
    options = argparse.Namespace(control=Path("control.sock"), json=False)
    assert netcheck.run(options) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("fail  re6stnet is not running (no control.sock) -> Start it")
    assert last.endswith("-> join a network with re6st-conf")
    pki = vector("pki")
    (tmp_path / "ca.crt").write_text(pki["ca_crt"])
    (tmp_path / "cert.crt").write_text(pki["nodes"][1]["crt"])
    for text, expected in (("registry http://x/\n'\nca ca.crt\n", "CA is sha256:3f9a"), ("registry x", "'x'")):
        (tmp_path / "re6stnet.conf").write_text(text)
        assert netcheck.run(options) == 1
        assert expected in capsys.readouterr().out


def test_large_packets_are_sent_to_the_other_ends_of_tunnels(
    quiet: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(quiet)
    sent: list[tuple[str, str]] = []

    def measure(address: IPv6Address, timeout: float, interface: str = "") -> icmp.PathMtu:
        sent.append((str(address), interface))
        return icmp.PathMtu(1372, 1280)

    quiet.setattr(icmp, "path_mtu", measure)
    netcheck.run(argparse.Namespace(control=Path("control.sock"), json=False))
    *_, last = capsys.readouterr().out.splitlines()
    assert sent == [("fe80::4", "re6stnet1")], "each tunnel that is up, and where babel hears its other end; no farther"
    assert last.startswith("warn  tunnel with 4/16 (")
    assert "packets of 1372 bytes vanish, those of 1280 pass" in last


@pytest.mark.parametrize("field", ["refused", "likely_refused"])
@pytest.mark.parametrize(("refused", "words"), [(True, "this node was revoked"), (False, "nobody has connected")])
def test_a_revoked_node_is_told_so_and_not_to_look_at_its_firewall(
    quiet: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], field: str, refused: bool, words: str
) -> None:
    play(quiet)
    problem = {"severity": "failed", "text": report.REVOKED}
    health = {"verdict": "failed", "problems": [problem]} if refused else {"verdict": "ok", "problems": []}
    cut = {"registry": {**STATUS["registry"], field: refused}, "health": health, "pid": 1, "uptime_seconds": 9000}
    ask = Connection.ask
    quiet.setattr(Connection, "ask", lambda *a, **k: {**ask(*a, **k), **(cut if a[1] == "status" else {})})
    quiet.setattr(netcheck, "has_route", lambda host: True)
    netcheck.run(argparse.Namespace(control=Path("control.sock"), json=False))
    shown = " ".join(capsys.readouterr().out.split())
    assert words in shown
    assert ("firewall" in shown) is not refused


def test_without_an_uplink_that_is_what_is_told(quiet: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play(quiet)
    quiet.setattr(netcheck, "has_route", lambda host: False)
    netcheck.run(argparse.Namespace(control=Path("control.sock"), json=False))
    shown = " ".join(capsys.readouterr().out.split())
    assert "its uplink is down" in shown
    assert "firewall" not in shown


def test_a_route_is_looked_up_and_nothing_sent() -> None:
    assert netcheck.has_route("127.0.0.1")
    assert not netcheck.has_route("no address")


@pytest.mark.parametrize(("status", "refused"), [(404, True), (200, False), (500, False)])
def test_who_may_not_read_the_key_is_told_what_the_registry_answers_and_not_to_enrol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, refused: bool
) -> None:
    """It may be the answer of a proxy."""
    monkeypatch.setattr(down, "DIRECTORY", tmp_path)

    async def test(url: str) -> None:
        found = await netcheck.membership([url], "1/16")
        assert bool(found) is refused
        for each in found:
            said = "it does not know 1/16; only a user who may read the key can verify this"
            assert each.text == f"registry {url.rstrip('/')}: {said}"
            assert each.remedy == "ask the operator of the network whether 1/16 was revoked"

    serve(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode(), test)


def serve(answer: bytes, test: Callable[[str], Awaitable[None]]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            await test(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    asyncio.run(run())


def test_a_registry_is_asked_for_its_ca_and_the_time(vector: Callable[[str], Any]) -> None:
    ca = vector("pki")["ca_crt"].encode()
    date = formatdate(time.time() + 3600, usegmt=True)
    head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {len(ca)}\r\n\r\n".encode()

    async def test(url: str) -> None:
        (answer,) = await netcheck.ask_registry(url)
        assert (answer.family, answer.error) == ("IPv4", "")
        assert answer.ca == f"sha256:{cert.fingerprint(cert.load_pem(ca), 'sha256').hex()}"
        assert answer.clock is not None
        assert 3500 < answer.clock < 3700
        assert answer.milliseconds > 0

    serve(head + ca, test)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "not a CA certificate"),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, "too long"),
    ],
)
def test_what_is_no_registry(answer: bytes, words: str) -> None:
    async def test(url: str) -> None:
        (found,) = await netcheck.ask_registry(url)
        assert words in found.error

    serve(answer, test)


def test_a_password_is_taken_from_the_options_where_they_may_be_read(
    quiet: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    async def ask(url: str) -> list[RegistryAnswer]:
        asked.append(url)
        return [GOOD]

    play(quiet)
    quiet.setattr(netcheck, "ask_registry", ask)
    quiet.setattr(down, "DIRECTORY", tmp_path)
    own = str(STATUS["registry"]["url"])
    for configured in (f"https://me:SECRET@{own.removeprefix('https://').rstrip('/')}", "https://other/", "none"):
        (tmp_path / "re6stnet.conf").write_text(f"registry {configured}\n")
        quiet.setitem(STATUS["registry"], "url", own.rstrip("/"))
        netcheck.run(argparse.Namespace(control=Path("control.sock"), json=False))
    assert ["SECRET" in url for url in asked] == [True, False, False]
    assert "SECRET" not in capsys.readouterr().out


def test_a_registry_with_a_password_that_we_do_not_know_answers_all_the_same() -> None:
    async def test(url: str) -> None:
        (found,) = await netcheck.ask_registry(url)
        assert (found.error, found.ca) == ("", "")
        (found,) = await netcheck.ask_registry(url.replace("127.0.0.1", "me:wrong@127.0.0.1"))
        assert "401 Unauthorized" in found.error

    serve(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", test)


def test_what_the_library_of_upnp_prints_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Library:
        discoverdelay = 0

        def discover(self) -> None:
            os.write(2, b"sendto: Network is unreachable")

        def selectigd(self) -> None:
            raise Exception("No UPnP device discovered")

    monkeypatch.setattr(miniupnpc, "UPnP", Library)
    assert netcheck.find_router() is None
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


def test_a_host_that_is_none() -> None:
    (found,) = asyncio.run(netcheck.ask_registry("http://no-such-host.invalid/"))
    assert "host name unknown" in found.error
