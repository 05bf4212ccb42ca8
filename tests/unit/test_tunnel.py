"""OpenVPN's command lines, and servers and client tunnels before an OpenVPN that a test plays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from re6st import tunnel
from re6st.core.prefix import Prefix
from re6st.core.transport.openvpn_lines import Environment
from re6st.core.transport.untimely import Untimely
from re6st.core.tunnel_protocols import SERVED, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.process import Backoff
from re6st.transport import openvpn
from re6st.transport.openvpn import Settings, client_command, server_command
from re6st.tunnel import ClientTunnel, Connected, FoundClient, FoundServer, Server, ServerClient
from tests.unit.fake_program import FakeChild, FakePrograms, Script, all_gone, install, until

A, B = Prefix(1, 16), Prefix(2, 16)
ONE, TWO = Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP), Endpoint("192.0.2.2", 443, TunnelProtocol.UDP)


def made(run: Path, *, encrypt: bool = True, log: Path | None = None) -> Settings:
    return Settings(
        program="/usr/sbin/openvpn",
        run=run,
        log=log,
        ca=Path("/etc/ca.crt"),
        cert=Path("/etc/cert.crt"),
        key=Path("/etc/cert.key"),
        encrypt=encrypt,
        ping_exit=60,
        extra=("--verb", "4"),
    )


# --- command lines (wire.md 8.1 to 8.3) ---


def test_the_command_line_of_a_server() -> None:
    assert server_command(made(Path("/run/x")), "re6stnet-udp", 1194, TunnelProtocol.UDP, 20, Path("/var/dh.pem")) == [
        "/usr/sbin/openvpn",
        *("--dev-type", "tap", "--dev", "re6stnet-udp", "--persist-tun", "--persist-key"),
        *("--script-security", "1", "--management-hold", "--ping", "15"),
        *("--management", "/run/x/re6stnet-udp.sock", "unix"),
        *("--ca", "/etc/ca.crt", "--cert", "/etc/cert.crt", "--key", "/etc/cert.key"),
        *("--crl-verify", "/run/x/revoked", "dir", "--verb", "0"),
        *("--tun-mtu", "1348", "--mtu-disc", "yes"),
        *("--tls-server", "--mode", "server", "--dh", "/var/dh.pem"),
        *("--port", "1194", "--proto", "udp4", "--max-clients", "4096"),
        *("--management-client-auth", "--auth-user-pass-optional", "--hand-window", "30"),
        *("--ping-exit", "60", "--connect-freq-initial", "100000", "10", "--verb", "4"),
    ]


def test_a_server_may_serve_both_families_on_one_port() -> None:
    def protocol(name: TunnelProtocol, *, both: bool) -> str:
        command = server_command(made(Path("/run/x")), f"re6stnet-{name}", 1194, name, 20, None, both_families=both)
        return command[command.index("--proto") + 1]

    assert protocol(TunnelProtocol.TCP, both=True) == "tcp6-server", "OpenVPN binds :: for both"
    assert protocol(TunnelProtocol.TCP, both=False) == "tcp4-server"
    assert protocol(TunnelProtocol.UDP, both=True) == "udp4", "its packets have another size in each family"


def test_the_command_line_of_a_client() -> None:
    settings = made(Path("/run/x"), encrypt=False, log=Path("/log"))
    assert client_command(settings, "re6stnet3", A, ONE) == [
        "/usr/sbin/openvpn",
        *("--dev-type", "tap", "--dev", "re6stnet3", "--persist-tun", "--persist-key"),
        *("--script-security", "1", "--management-hold", "--ping", "15"),
        *("--management", "/run/x/re6stnet3.sock", "unix"),
        *("--ca", "/etc/ca.crt", "--cert", "/etc/cert.crt", "--key", "/etc/cert.key"),
        *("--crl-verify", "/run/x/revoked", "dir", "--verb", "3"),
        *("--cipher", "none", "--data-ciphers", "none:AES-256-GCM", "--data-ciphers-fallback", "none"),
        *("--socket-flags", "TCP_NODELAY"),
        *("--nobind", "--client", "--remote", "192.0.2.1", "1194", "tcp4", "--verify-x509-name", "1/16", "name"),
        *("--resolv-retry", "0", "--connect-retry", "1", "--connect-retry-max", "3", "--connect-timeout", "5"),
        *("--tls-exit", "--remap-usr1", "SIGTERM", "--management-up-down"),
        *("--ping-exit", "60", "--route-noexec", "--ifconfig-noexec", "--verb", "4"),
        *openvpn.pull_filters(),
    ]


def obeyed(pushed: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a client takes an option from its server: the first filter that matches says so (openvpn(8))."""
    command = client_command(replace(made(Path("/run/x")), extra=extra), "re6stnet3", A, ONE)
    filters = [command[place + 1 : place + 3] for place, word in enumerate(command) if word == "--pull-filter"]
    return next(action == "accept" for action, start in filters if pushed.startswith(start))


@pytest.mark.parametrize(
    "pushed",
    [
        "setenv-safe external_ip 192.0.2.7",
        "setenv-safe twin 192.0.2.8",
        *("ping 15", "ping-exit 60", "peer-id 0", "cipher AES-256-GCM", "tun-mtu 1500"),
        *("key-derivation tls-ekm", "protocol-flags cc-exit tls-ekm dyn-tls-crypt", "push-continuation 2"),
    ],
)
def test_a_client_takes_from_a_server_what_the_tunnel_needs(pushed: str) -> None:
    assert obeyed(pushed)


@pytest.mark.parametrize(
    "pushed",
    [
        *("route 8.8.8.0 255.255.255.0", "route-ipv6 2000::/3", "redirect-gateway def1", "route-gateway 10.9.0.1"),
        *("ifconfig 10.9.0.2 255.255.255.0", "ifconfig-ipv6 2001:db8::1/64 2001:db8::2", "topology subnet"),
        *("dhcp-option DNS 192.0.2.1", "block-ipv6", "setenv-safe external_ipv6 x", "setenv x y"),
        *("inactive 1", "ping-restart 9", "compress lz4", "comp-lzo yes", "auth-token x", "echo x", "verb 11"),
        *("sndbuf 1", "socket-flags TCP_NODELAY", "persist-tun", "shaper 100", "explicit-exit-notify 3", "what-comes"),
    ],
)
def test_a_client_obeys_a_server_in_nothing_else(pushed: str) -> None:
    assert not obeyed(pushed)


def test_the_user_may_have_more_or_less_of_it_obeyed() -> None:
    extra = ("--pull-filter", "accept", "route 10.", "--pull-filter", "ignore", "tun-mtu ")
    assert obeyed("route 10.1.0.0 255.255.0.0", extra)
    assert not obeyed("route 8.8.8.0 255.255.255.0", extra)
    assert not obeyed("tun-mtu 1400", extra)


def test_a_given_server_may_be_any_node_of_the_network() -> None:
    settings = made(Path("/run/x"))
    named, any_node = (client_command(settings, "re6stnet", peer, ONE) for peer in (A, None))
    place = named.index("--verify-x509-name")
    assert any_node == named[:place] + named[place + 3 :]


@pytest.mark.parametrize(
    ("protocol", "encrypt", "mtu"),
    [
        (TunnelProtocol.UDP, True, "1348"),
        (TunnelProtocol.UDP4, True, "1348"),
        (TunnelProtocol.UDP, False, "1372"),
        (TunnelProtocol.UDP6, True, "1366"),
        (TunnelProtocol.UDP6, False, "1390"),
        (TunnelProtocol.TCP, True, None),
        (TunnelProtocol.TCP6, False, None),
    ],
)
def test_both_sides_agree_on_the_mtu(protocol: TunnelProtocol, encrypt: bool, mtu: str | None) -> None:
    settings = made(Path("/r"), encrypt=encrypt)
    client = client_command(settings, "x", A, Endpoint("h", 1, protocol))
    commands = [client]
    if protocol in SERVED:
        commands.append(server_command(settings, "x", 1, protocol, 1, None))
    for command in commands:
        assert ("--tun-mtu" in command) == (mtu is not None) == ("--mtu-disc" in command)
        assert mtu is None or command[command.index("--tun-mtu") + 1] == mtu
        assert ("--cipher" in command) == (not encrypt)


def test_protocols_are_named_as_openvpn_names_them() -> None:
    settings = made(Path("/r"))

    def proto(command: list[str], option: str, place: int) -> str:
        return command[command.index(option) + place]

    assert [proto(client_command(settings, "x", A, Endpoint("h", 1, p)), "--remote", 3) for p in TunnelProtocol] == [
        "udp4",
        "tcp4",
        "udp4",
        "tcp4",
        "udp6",
        "tcp6",
    ]
    servers = {p: proto(server_command(settings, "x", 1, p, 1, None), "--proto", 1) for p in SERVED}
    assert servers == {"udp": "udp4", "tcp": "tcp4-server", "udp6": "udp6", "tcp6": "tcp6-server"}
    assert proto(server_command(settings, "x", 1, TunnelProtocol.TCP, 1, None), "--dh", 1) == "none"


# --- an OpenVPN that a test plays ---


class Peer:
    """The OpenVPN's end of one management connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.heard: list[str] = []

    def say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    def block(self, kind: str, head: str, **values: object) -> None:
        self.say(f">{kind}:{head}", *(f">{kind}:ENV,{n}={v}" for n, v in values.items()), f">{kind}:ENV,END")

    async def hears(self, line: str) -> None:
        """Read on until this line comes."""
        async with asyncio.timeout(10):
            while line not in self.heard:
                got = await self._reader.readline()
                if not got:
                    raise EOFError(f"{line!r} never came, only {self.heard}")
                self.heard.append(got.decode().rstrip("\n"))

    async def closes(self) -> None:
        async with asyncio.timeout(10):
            while await self._reader.readline():
                pass


def played(part: Callable[[Peer], Awaitable[None]]) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        peer.say(">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info")
        peer.say(">HOLD:Waiting for hold release:0")
        await peer.hears("hold release")
        assert "state on" in peer.heard
        await part(peer)

    return script


@dataclass
class Told:
    """What a server told the node."""

    joined: list[ServerClient] = field(default_factory=list)
    left: list[ServerClient] = field(default_factory=list)
    up: list[tuple[str, int]] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    refused: set[Prefix] = field(default_factory=set)
    room: int = 20
    down_for: float = 0.0

    async def set_up(self, interface: str, mtu: int) -> None:
        self.up.append((interface, mtu))

    async def set_down(self, interface: str) -> None:
        self.down.append(interface)
        await asyncio.sleep(self.down_for)

    def server(self, settings: Settings, found: FoundServer | None = None) -> Server:
        return Server(
            settings,
            "re6stnet-tcp",
            server_command(settings, "re6stnet-tcp", 1194, TunnelProtocol.TCP, 20, None),
            admit=lambda peer, serial: peer not in self.refused,
            room=lambda: self.room,
            joined=self.joined.append,
            left=self.left.append,
            up=self.set_up,
            down=self.set_down,
            mtu=1500,
            found=found,
        )


class QuickBackoff(Backoff):
    def next(self) -> float:
        return 0.001


def serve(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    parts: list[Callable[[Peer], Awaitable[None]] | int],
    watch: Callable[[Server, Told, FakePrograms], Awaitable[None]],
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

    async def watch(server: Server, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: told.left)
        assert server.listening.is_set()
        assert server.clients == {}

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert told.joined == told.left == [ServerClient(A, 12, "192.0.2.7", number=7)]
    assert told.up == [("re6stnet-tcp", 1500)]
    assert told.down == ["re6stnet-tcp"]


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

    async def watch(server: Server, told: Told, _programs: FakePrograms) -> None:
        server.came = lambda peer, address: "192.0.2.8" if (peer, address) == (A, "192.0.2.7") else ""
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

    async def watch(server: Server, _told: Told, _programs: FakePrograms) -> None:
        refused: list[Untimely] = []
        server.untimely = refused.append
        await until(lambda: refused)
        assert refused == [Untimely(A, 11, early=True)]

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

    async def watch(server: Server, _told: Told, _programs: FakePrograms) -> None:
        await until(lambda: 21 in server.clients)

    told = serve(monkeypatch, tmp_path, [part], watch)
    assert len(told.joined) == 21


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

    async def watch(server: Server, told: Told, _programs: FakePrograms) -> None:
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
    most = int(tunnel.COMINGS[1])

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

    async def watch(server: Server, told: Told, _programs: FakePrograms) -> None:
        await until(lambda: any(client.peer == A for client in told.joined))
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING):
        told = serve(monkeypatch, tmp_path, [part], watch)
    assert most <= sum(client.peer == B for client in told.joined) < most + 10
    said = [record.message for record in caplog.records if "again and again" in record.message]
    assert said == [
        "2/16 at None connects again and again: it is let in every 2 s at most. Ask its owner, or throw it out:"
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

    async def watch(server: Server, told: Told, _programs: FakePrograms) -> None:
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

    async def watch(server: Server, told: Told, programs: FakePrograms) -> None:
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
    async def watch(_server: Server, _told: Told, programs: FakePrograms) -> None:
        await until(lambda: len(programs.started) > 2)

    told = serve(monkeypatch, tmp_path, [1], watch)
    assert told.joined == []
    assert "re6stnet-tcp ended (exit status 1): Options error: no good." in caplog.text


# --- client tunnels ---


def connect(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    parts: list[Callable[[Peer], Awaitable[None]] | int],
    endpoints: list[Endpoint],
    times: dict[str, float] | None = None,
) -> tuple[bool, list[Connected], FakePrograms]:
    """Run a client tunnel before these plays to its end."""
    for name, value in ({"CONNECT_TIME": 0.3, "SILENT_TIME": 0.3, "STAGGER": 5.0} | (times or {})).items():
        monkeypatch.setattr(tunnel, name, value)
    programs = install(monkeypatch, "--management", *(p if isinstance(p, int) else played(p) for p in parts))
    told: list[Connected] = []

    async def connected(event: Connected) -> None:
        told.append(event)

    async def run() -> bool:
        async with asyncio.timeout(20):
            worked = await ClientTunnel(made(tmp_path), "re6stnet1", A, endpoints, connected).run()
        await all_gone(programs)
        return worked

    worked = asyncio.run(run())
    return worked, told, programs


async def comes_up(peer: Peer) -> None:
    peer.say(">STATE:1,CONNECTED,SUCCESS,,,,,")
    peer.block("UPDOWN", "UP", tls_serial_0=5, OPENVPN_external_ip="203.0.113.9", tun_mtu=1348)


async def never(peer: Peer) -> None:
    peer.say(">STATE:1,WAIT,,,,,,")
    await peer.closes()


def test_a_client_tunnel_lives_and_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worked, told, programs = connect(monkeypatch, tmp_path, [comes_up], [ONE, TWO])
    assert worked
    assert told == [Connected(A, ONE, "re6stnet1", 5, "203.0.113.9", 1348)]
    assert len(programs.started) == 1, "one that worked is not tried at its other addresses when it ends"


def test_the_next_address_is_tried_when_one_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worked, told, programs = connect(monkeypatch, tmp_path, [1, never, comes_up], [ONE, ONE, TWO])
    assert worked
    assert [event.endpoint for event in told] == [TWO]
    assert [child.argv[child.argv.index("--remote") + 1] for child in programs.started] == [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
    ]
    assert "exit status 1: Options error: no good" in caplog.text
    assert "not connected in time" in caplog.text


def test_a_silent_address_is_overtaken_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    times = {"STAGGER": 0.05, "SILENT_TIME": 5.0}
    worked, told, programs = connect(monkeypatch, tmp_path, [never, never, comes_up], [ONE, TWO, ONE, TWO], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]
    assert len(programs.started) == 3, "nothing is tried once one is up"
    sockets = {child.argv[child.argv.index("--management") + 1] for child in programs.started}
    assert len(sockets) == 3, "they run beside each other"
    assert {child.argv[child.argv.index("--dev") + 1] for child in programs.started} == {"re6stnet1"}


def test_an_earlier_address_that_is_slow_may_still_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await comes_up(peer)

    times = {"STAGGER": 0.05, "SILENT_TIME": 5.0}
    worked, told, _ = connect(monkeypatch, tmp_path, [slow, never], [ONE, TWO], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]


def test_an_address_that_answers_is_given_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def answers(peer: Peer) -> None:
        peer.say(">STATE:1,AUTH,,,,,,")
        await asyncio.sleep(0.4)
        await comes_up(peer)

    times = {"STAGGER": 0.1, "SILENT_TIME": 0.2, "CONNECT_TIME": 5.0}
    worked, told, programs = connect(monkeypatch, tmp_path, [answers], [ONE, TWO], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]
    assert len(programs.started) == 1


def test_a_server_whose_answer_has_no_end_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It can say for ever that more of its options come (push-continuation): that is not to be connected."""

    async def without_end(peer: Peer) -> None:
        while True:
            for state in ("AUTH", "GET_CONFIG"):
                peer.say(f">STATE:1,{state},,,,,,")
            await asyncio.sleep(0.01)

    worked, told, _ = connect(monkeypatch, tmp_path, [without_end], [ONE])
    assert (worked, told) == (False, [])


def test_an_address_that_refuses_makes_place_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def refuses(peer: Peer) -> None:
        peer.say(">STATE:1,RECONNECTING,connection-refused,,,,,")
        await peer.closes()

    times = {"STAGGER": 60.0, "SILENT_TIME": 60.0, "CONNECT_TIME": 60.0}
    worked, told, _ = connect(monkeypatch, tmp_path, [refuses, refuses, comes_up], [ONE, TWO, ONE], times)
    assert worked
    assert [event.endpoint for event in told] == [ONE]


def test_what_fails_once_the_tunnel_is_up_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = install(monkeypatch, "--management", played(comes_up))

    async def connected(_event: Connected) -> None:
        raise LookupError("no such interface")

    async def run() -> None:
        with pytest.raises(LookupError, match="no such interface"):
            await ClientTunnel(made(tmp_path), "re6stnet1", A, [ONE, TWO], connected).run()
        await all_gone(programs)

    asyncio.run(run())


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worked, told, _ = connect(monkeypatch, tmp_path, [never], [ONE])
    assert (worked, told) == (False, [])
    assert connect(monkeypatch, tmp_path, [never], [])[0] is False


def test_a_tunnel_that_is_up_is_not_ended_by_the_time_to_connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def part(peer: Peer) -> None:
        await comes_up(peer)
        await asyncio.sleep(0.6)
        peer.say(">STATE:1,RECONNECTING,ping-restart,,,,,")
        await asyncio.sleep(0.1)
        peer.say("x" * 200_000, ">STATE:1,EXITING,SIGTERM,,,,,")

    worked, told, _ = connect(monkeypatch, tmp_path, [part], [ONE])
    assert (worked, len(told)) == (True, 1)


@pytest.mark.parametrize("mtu", ["", "abc", "-1", "100", "²", "9" * 4000, None])
def test_an_mtu_that_makes_no_sense_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mtu: str) -> None:
    async def part(peer: Peer) -> None:
        peer.block("UPDOWN", "UP", tls_serial_0=5, **({"tun_mtu": mtu} if mtu is not None else {}))

    worked, told, _ = connect(monkeypatch, tmp_path, [part], [ONE])
    assert worked
    assert told[0].mtu in (1500, 9000)


def test_a_server_that_hides_its_certificate_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def part(peer: Peer) -> None:
        peer.block("UPDOWN", "UP", tun_mtu=1500)
        await peer.closes()

    worked, told, _ = connect(monkeypatch, tmp_path, [part], [ONE])
    assert not worked
    assert not told
    assert "does not tell the serial number" in caplog.text


def test_cancelling_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = install(monkeypatch, "--management", played(never))

    async def run() -> None:
        async def connected(_event: Connected) -> None: ...

        task = asyncio.create_task(ClientTunnel(made(tmp_path), "re6stnet1", A, [ONE], connected).run())
        await until(lambda: programs.started)
        task.cancel()
        await asyncio.wait([task])
        assert programs.started[0].stopped
        await all_gone(programs)

    asyncio.run(run())


def test_a_leftover_socket_is_no_hindrance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = replace(made(tmp_path), log=tmp_path)
    settings.management("re6stnet1").touch()
    settings.output("re6stnet1").write_text("earlier\n")
    assert connect(monkeypatch, tmp_path, [comes_up], [ONE])[0]
    assert settings.output("re6stnet1").read_text() == "earlier\n", "a log of the user's is kept"


# --- what an earlier daemon left ---


def resumed(script: Callable[[Peer], Awaitable[None]]) -> Script:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        await peer.hears("state on")
        await script(peer)

    return play


def test_a_server_is_gone_on_with_and_keeps_the_clients_that_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("re6st.linux.process.Backoff", QuickBackoff)
    programs = install(monkeypatch, "--management", 1)
    told = Told()
    servers: list[Server] = []

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
            await until(lambda: len(told.left) == 4)
            assert server.pid == child.pid
            assert server.listening.is_set()
        finally:
            task.cancel()
            await asyncio.wait([task])
        await all_gone(programs)

    asyncio.run(run())
    assert told.joined[:3] == [ServerClient(A, 12, "192.0.2.7"), ServerClient(A, 1, None), ServerClient(B, 2, None)]
    assert told.up == [("re6stnet-tcp", 1500)]


@pytest.mark.parametrize("alive", [True, False])
def test_a_client_tunnel_is_gone_on_with_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alive: bool
) -> None:
    programs = install(monkeypatch, "--management", 1)
    told: list[Connected] = []

    async def part(peer: Peer) -> None:
        peer.say(">BYTECOUNT:5,6")

    async def up(connected: Connected) -> None:
        told.append(connected)

    async def run() -> None:
        programs.found[7] = child = FakeChild([])
        if alive:
            await child.listen(str(tmp_path / "re6stnet1.2.sock"), resumed(part))
        else:
            child.end(0)
        connected = Connected(A, TWO, "re6stnet1", 12, None, 1400)
        found = FoundClient(7, "re6stnet1.2", 1.5, connected)
        client = ClientTunnel(made(tmp_path), "re6stnet1", A, [TWO], up, found)
        assert await client.run()
        assert told == [connected] * alive
        assert (client.since, client.serial, client.endpoint, client.process) == (1.5, 12, TWO, (7, "re6stnet1.2"))
        assert (client.traffic is not None) == alive
        await all_gone(programs)

    asyncio.run(run())
