"""What an earlier daemon left running is found by its notes, as far as they are true."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.records import ClientRecord, ServerRecord
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded.takeover import Records, client_record, found_client, found_server, look, server_record
from re6st.tunnel import Connected, ServerClient
from tests.unit.tunnel_doubles import FakeDialer, FakeListener

PEER = Prefix(1, 16)


def client(pid: int, name: str, peer: Prefix = PEER) -> ClientRecord:
    return ClientRecord(pid, "made", name, peer, Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP), 5, None, 1500, 1000.0)


class Machine:
    """Processes that look like ours."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *arguments: str) -> int:
        script = ["-c", "echo; read x; exit 0"]
        process = subprocess.Popen(
            [f"/usr/sbin/{program}", *script, *arguments],
            executable="/bin/sh",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    def openvpn(self, name: str) -> int:
        return self.start("openvpn", "--management", str(self.run / f"{name}.sock"), "unix")

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.end()


def babeld(run: Path) -> list[str]:
    return ["/usr/sbin/babeld", "-c", "echo; read x; exit 0", "-c", f"{run}/babeld.conf"]


def test_everything_is_found(machine: Machine, tmp_path: Path) -> None:
    records = Records(tmp_path)
    server, tunnel = machine.openvpn("re6stnet-tcp"), machine.openvpn("re6stnet1.2")
    routing = machine.start("babeld", *babeld(tmp_path)[3:])
    records.write("re6stnet-tcp", ServerRecord(server, "made", {}))
    records.write("re6stnet1", client(tunnel, "re6stnet1.2"))
    found = look(tmp_path, babeld(tmp_path))
    assert (set(found.servers), set(found.clients)) == ({"re6stnet-tcp"}, {"re6stnet1"})
    assert found.pids == {server, tunnel, routing}
    assert found.hosts == {"192.0.2.1"}
    assert found.babeld == routing
    records.forget("re6stnet1")
    assert look(tmp_path, [*babeld(tmp_path), "-d", "1"]).pids == {server}, "a babeld with other options is another one"


def test_a_note_that_is_not_true_is_none(machine: Machine, tmp_path: Path) -> None:
    records = Records(tmp_path)
    pid, other = machine.openvpn("re6stnet1"), machine.openvpn("re6stnet2")
    records.write("re6stnet1", client(pid + 1_000_000, "re6stnet1"))
    records.write("re6stnet2", client(other, "re6stnet3"))
    records.write("re6stnet4", client(1, "re6stnet4"))
    (tmp_path / "re6stnet5.json").write_text("{")
    (tmp_path / "re6stnet6.json").mkdir()
    assert not look(tmp_path, babeld(tmp_path)).pids
    records.write("re6stnet1", client(pid, "re6stnet1"))
    records.write("re6stnet2", client(other, "re6stnet2"))
    assert len(look(tmp_path, babeld(tmp_path)).clients) == 1, "a peer has one tunnel"


def test_what_cannot_be_noted_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path / "gone")
    records.write("re6stnet1", client(1, "re6stnet1"))
    records.forget("re6stnet1")
    assert "A restart will cut its tunnels" in caplog.text


def test_a_client_tunnel_is_found_as_it_was_noted() -> None:
    there = Endpoint("127.0.0.1", 1194, TunnelProtocol.TCP)
    connected = Connected(PEER, there, "re6stnet1", 5, "198.51.100.1", 1400, number=7)

    async def play() -> None:
        tunnel = FakeDialer("re6stnet1", PEER, connected=True)
        tunnel.process, tunnel.since = (12, "re6stnet1-2"), asyncio.get_running_loop().time() - 30
        found = found_client(client_record(tunnel, connected, "made"), "re6stnet1")
        assert found is not None
        assert (found.pid, found.name, found.connected) == (12, "re6stnet1-2", connected)
        assert found.since == pytest.approx(tunnel.since, abs=1)

    asyncio.run(play())


def test_a_server_is_found_as_it_was_noted() -> None:
    async def play() -> None:
        server = FakeListener("re6stnet-tcp")
        server.pid = 13
        server.clients[4] = ServerClient(PEER, 5, "192.0.2.1", asyncio.get_running_loop().time() - 30, 7)
        found = found_server(server_record(server, "made"))
        assert found is not None
        assert (found.pid, found.clients) == (13, server.clients)
        assert found.clients[4].since == pytest.approx(server.clients[4].since, abs=1)

    asyncio.run(play())


def test_nothing_is_noted_of_what_ends_with_its_daemon() -> None:
    connected = Connected(PEER, Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP), "re6stnet1", 5, None, 1400)
    assert client_record(FakeDialer("re6stnet1", PEER, connected=True), connected, "made") is None
    assert server_record(FakeListener("re6stnet-tcp"), "made") is None
