"""A server before an OpenVPN that a test plays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport.openvpn_lines import Environment
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.transport import openvpn_server
from re6st.transport.openvpn import OpenVpnSettings, server_command
from re6st.transport.openvpn_server import OpenVpnServer
from re6st.tunnel import FoundServer, ServerClient
from tests.unit.fake_program import FakeChild, FakePrograms, all_gone, install, until
from tests.unit.openvpn_play import A, B, Peer, QuickBackoff, made, played, resumed


@dataclass
class Told:
    """What a server told the node."""

    joined: list[ServerClient] = field(default_factory=list)
    left: list[ServerClient] = field(default_factory=list)
    up: list[tuple[str, int]] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    refused: set[Prefix] = field(default_factory=set)
    revoked: set[int] = field(default_factory=set)
    room: int = 20
    down_for: float = 0.0
    make_room: Callable[[Prefix], bool] = lambda _: False

    twin: str = ""
    refused_certificates: list[Untimely] = field(default_factory=list)

    def server(self, settings: OpenVpnSettings, found: FoundServer | None = None) -> OpenVpnServer:
        command = server_command(settings, "re6stnet-tcp", 1194, TunnelProtocol.TCP, 20, None)
        return OpenVpnServer(settings, "re6stnet-tcp", command, Owner(self), 1500, found)


@dataclass
class Owner:
    """Notes it."""

    told: Told

    def admits(self, peer: Prefix, serial: int | None) -> bool:
        return peer not in self.told.refused and serial not in self.told.revoked

    def room(self, peer: Prefix) -> int:
        return self.told.room

    def make_room(self, peer: Prefix) -> bool:
        return self.told.make_room(peer)

    def joined(self, client: ServerClient) -> None:
        self.told.joined.append(client)

    def left(self, client: ServerClient) -> None:
        self.told.left.append(client)

    async def up(self, interface: str, mtu: int) -> None:
        self.told.up.append((interface, mtu))

    async def down(self, interface: str) -> None:
        self.told.down.append(interface)
        await asyncio.sleep(self.told.down_for)

    def came(self, peer: Prefix, address: str) -> str:
        return self.told.twin if (peer, address) == (A, "192.0.2.7") else ""

    def untimely(self, refused: Untimely) -> None:
        self.told.refused_certificates.append(refused)


def serve(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    parts: list[Callable[[Peer], Awaitable[None]] | int],
    watch: Callable[[OpenVpnServer, Told, FakePrograms], Awaitable[None]],
) -> Told:
    """Run a server before these plays until `watch` returns."""
    monkeypatch.setattr("re6st.linux.process.Backoff", QuickBackoff)
    programs = install(monkeypatch, "--management", *(p if isinstance(p, int) else played(p) for p in parts))
    told = Told()

    async def run() -> None:
        server = told.server(made(tmp_path))
        task = asyncio.create_task(server.run())
        try:
            await watch(server, told, programs)
        finally:
            task.cancel()
            await asyncio.wait([task])
        await all_gone(programs)

    asyncio.run(run())
    return told


def test_a_client_comes_and_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def part(peer: Peer) -> None:
        peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
        certificate = {"common_name": "1/16", "tls_serial_0": 12, "X509_0_serialNumber": 7}
        peer.block("CLIENT", "CONNECT,0,1", **certificate, untrusted_ip="192.0.2.7")
        await peer.hears("END")
        pushed = ('push "setenv-safe external_ip 192.0.2.7"', 'push "ping 15"', 'push "ping-exit 60"')
        assert peer.heard[-5:] == ["client-auth 0 1", *pushed, "END"]
        peer.block("CLIENT", "ESTABLISHED,0", common_name="1/16")
        peer.block("CLIENT", "REAUTH,0,2", common_name="1/16", tls_serial_0=12)
        await peer.hears("client-auth-nt 0 2")
        peer.block("CLIENT", "DISCONNECT,0", common_name="1/16")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: told.left)
        assert server.listening.is_set()
        assert server.clients == {}

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert told.joined == told.left == [ServerClient(A, 12, "192.0.2.7", number=7)]
    assert told.up == [("re6stnet-tcp", 1500)]
    assert told.down == ["re6stnet-tcp"]


def test_openvpn_is_made_to_look_at_a_client_that_was_let_in_until_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise it lets some in only a second later."""
    stirred: list[str] = []
    monkeypatch.setattr(openvpn_server, "send_to_all_nodes", stirred.append)

    async def part(peer: Peer) -> None:
        peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
        peer.block("CLIENT", "CONNECT,0,1", common_name="1/16", tls_serial_0=12, untrusted_ip="192.0.2.7")
        await peer.hears("END")
        await until(lambda: len(stirred) > 2)
        peer.block("CLIENT", "ESTABLISHED,0", common_name="1/16")
        peer.block("CLIENT", "CONNECT,1,1", common_name="2/16", tls_serial_0=12, untrusted_ip="192.0.2.8")
        peer.block("CLIENT", "DISCONNECT,1", common_name="2/16")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: told.left)
        count = len(stirred)
        await asyncio.sleep(3 * openvpn_server.STIR_FIRST)
        assert len(stirred) == count, "nobody waits any more"
        assert set(stirred) == {"re6stnet-tcp"}

    serve(monkeypatch, tmp_path, [part], watch)


def test_many_clients_that_are_let_in_at_once_are_served_by_few_packets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OpenVPN sends each to every client."""
    many, stirred = 50, list[float]()
    monkeypatch.setattr(openvpn_server, "STIR_LAST", 4 * openvpn_server.STIR_FIRST)
    monkeypatch.setattr(
        openvpn_server, "send_to_all_nodes", lambda _: stirred.append(asyncio.get_running_loop().time())
    )

    async def part(peer: Peer) -> None:
        peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
        for ident in range(many):
            name = f"{ident}/16"
            peer.block("CLIENT", f"CONNECT,{ident},1", common_name=name, tls_serial_0=12, untrusted_ip="192.0.2.7")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        told.room = many
        await until(lambda: len(told.joined) == many)
        last = told.joined[-1].since
        await until(lambda: len([moment for moment in stirred if moment >= last]) > 3)

    serve(monkeypatch, tmp_path, [part], watch)
    assert all(after - before >= 0.99 * openvpn_server.STIR_FIRST for before, after in pairwise(stirred))


def test_a_client_whose_certificate_another_machine_has_is_told_where_that_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
        peer.block("CLIENT", "CONNECT,0,1", common_name="1/16", tls_serial_0=12, untrusted_ip="192.0.2.7")
        await peer.hears("END")
        assert 'push "setenv-safe twin 192.0.2.8"' in peer.heard
        peer.block("CLIENT", "DISCONNECT,0", common_name="1/16")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        told.twin = "192.0.2.8"
        await until(lambda: told.left)

    serve(monkeypatch, tmp_path, [part], watch)


@pytest.mark.parametrize(
    ("told", "twin"), [("192.0.2.8", "192.0.2.8"), ("elsewhere", "elsewhere"), ("rm -rf", "elsewhere"), ("", "")]
)
def test_what_a_server_tells_of_a_twin_is_an_address_or_nothing_precise(told: str, twin: str) -> None:
    assert Environment({"OPENVPN_twin": told}).twin == twin


def test_a_server_tells_whose_certificate_it_refused_for_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        await peer.hears("log on")
        peer.say(
            ">LOG:1795956994,I,TCP connection established with [AF_INET]192.0.2.7:51698",
            ">LOG:1795956994,N,192.0.2.7:51698 VERIFY ERROR: depth=0, error=certificate is not yet valid:"
            " serialNumber=1, CN=1/16, serial=11",
        )
        await peer.closes()

    async def watch(_server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: told.refused_certificates)
        assert told.refused_certificates == [Untimely(A, 11, early=True)]

    serve(monkeypatch, tmp_path, [part], watch)
    settings = made(tmp_path)
    assert replace(settings, extra=()).follow_refusals == ("verb 1", "log on"), "at 0 OpenVPN does not say why"
    for verbose in (settings, replace(settings, extra=(), log=tmp_path)):
        assert verbose.follow_refusals == ("log on",), "what prints more goes on to"


def test_a_server_has_ended_when_babel_is_told_and_ends_also_if_that_is_cut_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The interface comes up again at once: its clients must not be met there any more."""

    async def part(peer: Peer) -> None:
        peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
        await asyncio.sleep(60)  # it goes on when the management's connection ends

    async def run() -> None:
        programs, told = install(monkeypatch, "--management", played(part)), Told()
        told.down_for = 10.0
        task = asyncio.create_task(told.server(made(tmp_path)).run())
        await until(lambda: told.up)
        task.cancel()
        await until(lambda: told.down)
        assert not programs.started[0].running
        task.cancel()
        await asyncio.wait([task])
        await all_gone(programs)

    asyncio.run(run())


def test_more_than_there_is_room_for_are_denied_but_not_who_comes_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        for number in range(20):
            peer.block("CLIENT", f"CONNECT,{number},1", common_name=f"{number}/16", tls_serial_0=number)
        peer.block("CLIENT", "CONNECT,20,1", common_name="20/16", tls_serial_0=20)
        await peer.hears('client-deny 20 1 "not accepted"')
        peer.block("CLIENT", "CONNECT,21,1", common_name="3/16", tls_serial_0=3)
        await peer.hears("client-auth 21 1")
        await peer.closes()

    async def watch(server: OpenVpnServer, _told: Told, _programs: FakePrograms) -> None:
        await until(lambda: 21 in server.clients)

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert len(told.joined) == 21


def test_where_there_is_no_room_a_client_that_is_dead_goes_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        for number in range(3):
            peer.block("CLIENT", f"CONNECT,{number},1", common_name=f"{number}/16", tls_serial_0=number)
        await peer.hears("client-kill 1")
        await peer.hears("client-auth 2 1")
        peer.block("CLIENT", "CONNECT,3,1", common_name="3/16", tls_serial_0=3)
        await peer.hears('client-deny 3 1 "not accepted"')
        peer.block("CLIENT", "DISCONNECT,1", common_name="1/16")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        def make_room(newcomer: Prefix) -> bool:
            if newcomer != Prefix(2, 16):
                return False
            server.cut(Prefix(1, 16))
            return True

        told.room, told.make_room = 2, make_room
        await until(lambda: 2 in server.clients)
        assert server.clients.keys() == {0, 2}
        assert [client.peer for client in told.left] == [Prefix(1, 16)], "once"

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert len(told.joined) == 3


@pytest.mark.parametrize("case", ["it is in already", "it comes too often", "many are too many", "it makes no room"])
def test_no_dead_client_goes_for_one_who_does_not_get_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    asked: list[Prefix] = []
    full, denied = asyncio.Event(), asyncio.Event()
    most = int(openvpn_server.COMINGS[1])

    async def part(peer: Peer) -> None:
        for number in range(4):
            peer.block("CLIENT", f"CONNECT,{number},1", common_name=f"{number}/16", tls_serial_0=number)
        for number in range(10, 10 + most if case == "it comes too often" else 10):
            peer.block("CLIENT", f"CONNECT,{number},1", common_name="4/16", tls_serial_0=4)
            peer.block("CLIENT", f"DISCONNECT,{number}", common_name="4/16")
        peer.block("CLIENT", "CONNECT,5,1", common_name="5/16", tls_serial_0=5)
        await peer.hears("client-auth 5 1")
        await full.wait()
        if case == "it is in already":
            peer.block("CLIENT", "REAUTH,3,2", common_name="3/16", tls_serial_0=3)
            await peer.hears('client-deny 3 2 "not accepted"')
        else:
            peer.block("CLIENT", "CONNECT,100,1", common_name="4/16", tls_serial_0=4)
            await peer.hears('client-deny 100 1 "not accepted"')
        denied.set()
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        def make_room(newcomer: Prefix) -> bool:
            asked.append(newcomer)
            return len(asked) < 10

        await until(lambda: 5 in server.clients)
        told.room, told.make_room = 3 if case == "many are too many" else len(server.clients), make_room
        if case == "it is in already":
            told.room -= 1
        full.set()
        async with asyncio.timeout(5):
            await denied.wait()

    serve(monkeypatch, tmp_path, [part], watch)
    assert asked == ([Prefix(4, 16)] if case == "it makes no room" else []), "once, if it is of no use"


def test_who_may_not_come_in_is_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def part(peer: Peer) -> None:
        for number, name in enumerate(["2/16", "", "nonsense", "9/1", "1/16\\n"]):
            peer.block("CLIENT", f"CONNECT,{number},7", common_name=name, tls_serial_0=1)
            await peer.hears(f'client-deny {number} 7 "not accepted"')
        peer.block("CLIENT", "CONNECT,8,7", common_name="1/16")  # it hides which certificate it has
        await peer.hears('client-deny 8 7 "not accepted"')
        peer.block("CLIENT", "CONNECT,9,7", common_name="1/16", tls_serial_0=1)
        await peer.hears("client-auth 9 7")
        peer.block("CLIENT", "DISCONNECT,0", common_name="2/16")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        told.refused.add(B)
        await until(lambda: told.joined)
        await asyncio.sleep(0)

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert [client.peer for client in told.joined] == [A]
    assert [client.peer for client in told.left] == [A], "only who came in leaves, here at the end"


def test_who_comes_again_and_again_is_kept_waiting_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each time costs a run of the policy, a change in babel, and two lines in the log."""
    most = int(openvpn_server.COMINGS[1])

    async def part(peer: Peer) -> None:
        for number in range(most + 30):
            peer.block("CLIENT", f"CONNECT,{number},1", common_name="2/16", tls_serial_0=2)
            peer.block("CLIENT", f"DISCONNECT,{number}", common_name="2/16")
        await peer.hears(f'client-deny {most + 29} 1 "not accepted"')
        peer.block("CLIENT", "CONNECT,1000,1", common_name="1/16", tls_serial_0=1)
        await peer.hears("client-auth 1000 1")
        peer.block("CLIENT", "REAUTH,1000,2", common_name="1/16", tls_serial_0=1)
        await peer.hears("client-auth-nt 1000 2")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: any(client.peer == A for client in told.joined))
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING):
        told = serve(monkeypatch, tmp_path, [part], watch)
    assert most <= sum(client.peer == B for client in told.joined) < most + 10
    said = [record.message for record in caplog.records if "again and again" in record.message]
    assert said == [
        "2/16 at None connects again and again: it is accepted every 2 s at most. Ask its owner, or revoke it:"
        " re6st-registry revoke 2/16"
    ]


def test_a_revoked_client_is_cut_off_and_refused_at_its_next_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        for number, name in ((3, "1/16"), (4, "2/16")):
            peer.block("CLIENT", f"CONNECT,{number},1", common_name=name, tls_serial_0=number + 10)
        await peer.hears("client-kill 4")
        assert "client-kill 3" not in peer.heard
        peer.block("CLIENT", "REAUTH,4,2", common_name="2/16", tls_serial_0=14)
        await peer.hears('client-deny 4 2 "not accepted"')
        peer.block("CLIENT", "DISCONNECT,4", common_name="2/16")
        await peer.closes()

    async def watch(server: OpenVpnServer, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: len(told.joined) == 2)
        told.refused.add(B)
        server.kick(frozenset({14, 99}))
        await until(lambda: told.left)
        assert [client.peer for client in server.clients.values()] == [A]

    serve(monkeypatch, tmp_path, [part], watch)


def test_a_server_that_ends_starts_again_and_its_clients_have_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def part(peer: Peer) -> None:
        peer.block("CLIENT", "CONNECT,0,1", common_name="1/16", tls_serial_0=12)
        await peer.hears("END")
        peer.say(">FATAL:out of luck")

    async def watch(server: OpenVpnServer, told: Told, programs: FakePrograms) -> None:
        await until(lambda: len(told.joined) >= 3)
        assert len(programs.started) >= 3
        assert len(told.joined) - len(told.left) <= 1
        server.kick(frozenset({12}))

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert told.joined == told.left
    assert len(told.down) >= 3
    assert "out of luck" in caplog.text


def test_an_option_that_openvpn_refuses_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def watch(_server: OpenVpnServer, _told: Told, programs: FakePrograms) -> None:
        await until(lambda: len(programs.started) > 2)

    told = serve(monkeypatch, tmp_path, [1], watch)
    assert told.joined == []
    assert "re6stnet-tcp ended (exit status 1): Options error: no good." in caplog.text


def test_a_server_is_gone_on_with_and_keeps_the_clients_that_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("re6st.linux.process.Backoff", QuickBackoff)
    programs = install(monkeypatch, "--management", 1)
    told = Told()
    servers: list[OpenVpnServer] = []

    async def part(peer: Peer) -> None:
        await peer.hears("status 3")
        for ident, name in ((3, "1/16"), (4, "1/16"), (5, "2/16"), (6, "UNDEF")):
            peer.say("\t".join(["CLIENT_LIST", name, *[""] * 8, str(ident), "0", ""]))
        peer.say("END")
        await peer.hears("client-kill 6")
        assert "client-kill 4" in peer.heard, "without a serial number it could not be cut off"
        await until(lambda: servers)
        servers[0].look()
        for name, last in (("1/16", "02"), ("9/16", "03")):
            peer.say("\t".join(["ROUTING_TABLE", f"5e:2e:7e:12:a0:{last}@0", name, "192.0.2.7:5", "", ""]))
        # One that is just coming is nobody's business here.
        peer.say("\t".join(["CLIENT_LIST", "UNDEF", *[""] * 8, "8", "0", ""]))
        peer.say("END")
        await until(lambda: servers[0].hardware)
        assert servers[0].hardware == {"5e:2e:7e:12:a0:02": A}
        assert set(servers[0].clients) == {3}
        assert "client-kill 8" not in peer.heard
        assert "client-kill 3" not in peer.heard
        assert "client-kill 5" in peer.heard, "another one than what was noted"
        peer.block("CLIENT", "DISCONNECT,3", common_name="1/16")
        await peer.closes()

    async def run() -> None:
        programs.found[7] = child = FakeChild([])
        await child.listen(str(tmp_path / "re6stnet-tcp.sock"), resumed(part))
        unknown = ServerClient(A, None, None)
        known = {3: ServerClient(A, 12, "192.0.2.7"), 5: ServerClient(A, 1, None), 9: ServerClient(B, 2, None)}
        known[4] = unknown
        server = told.server(made(tmp_path), FoundServer(7, known))
        servers.append(server)
        task = asyncio.create_task(server.run())
        try:
            await until(lambda: len(told.left) == 3)
            assert server.pid == child.pid
            assert server.listening.is_set()
        finally:
            task.cancel()
            await asyncio.wait([task])
        await all_gone(programs)

    asyncio.run(run())
    assert told.joined == [ServerClient(A, 12, "192.0.2.7"), ServerClient(A, 1, None), ServerClient(B, 2, None)]
    assert told.up == [("re6stnet-tcp", 1500)]


def test_a_client_that_was_revoked_while_the_daemon_was_replaced_is_cut_off_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenVPN itself looks again only when the keys of the tunnel change, an hour later at worst."""
    monkeypatch.setattr("re6st.linux.process.Backoff", QuickBackoff)
    programs = install(monkeypatch, "--management", 1)
    told = Told(revoked={77})
    cut: list[int] = []

    async def part(peer: Peer) -> None:
        await peer.hears("status 3")
        for ident, name in ((3, "1/16"), (4, "2/16")):
            peer.say("\t".join(["CLIENT_LIST", name, *[""] * 8, str(ident), "0", ""]))
        peer.say("END")
        await peer.hears("client-kill 4")
        assert "client-kill 3" not in peer.heard
        cut.append(4)
        await peer.closes()

    async def run() -> None:
        programs.found[7] = child = FakeChild([])
        await child.listen(str(tmp_path / "re6stnet-tcp.sock"), resumed(part))
        known = {3: ServerClient(A, 12, None), 4: ServerClient(B, 77, None)}
        task = asyncio.create_task(told.server(made(tmp_path), FoundServer(7, known)).run())
        try:
            await until(lambda: cut)
        finally:
            task.cancel()
            await asyncio.wait([task])
        await all_gone(programs)

    asyncio.run(run())
    assert told.joined == told.left == [ServerClient(A, 12, None)]
    assert f"cutting off {B}, whom an earlier daemon let in" in caplog.text
