"""What the kernel tells of TCP connections, and which tunnels it is about."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.lossy import AGAIN_LEAST, Sent
from re6st.core.telemetry.report import Link, Server
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.linux import retransmits
from re6st.linux.netlink import NetlinkError
from re6st.linux.retransmits import LossWatch, SocketDiagnosis, TcpConnection

P, Q, R, S = (Prefix(number, 16) for number in range(4))
NOTHING: frozenset[Prefix] = frozenset()


@contextmanager
def connection(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection on this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((host, 0), family=family))
        client = stack.enter_context(socket.create_connection(server.getsockname()[:2]))
        yield client, stack.enter_context(server.accept()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_counts_what_a_connection_sends(host: str) -> None:
    diagnosis = SocketDiagnosis()
    try:
        with connection(host) as (client, server):
            port = server.getsockname()[1]
            (out,) = (each for each in diagnosis.search(theirs=port))
            (back,) = (each for each in diagnosis.search(ours=port))
            assert out.remote == back.remote == ip_address(host)
            for _ in range(7):
                client.send(b"x")
                assert server.recv(1) == b"x"
            found = diagnosis.sent(out)
            assert found is not None
            assert (found.segments, found.again) == (7, 0)
            assert found.silent < 5
            assert diagnosis.sent(back) is not None
        assert diagnosis.sent(out) is None
        assert diagnosis.search(ours=1, theirs=1) == []
    finally:
        diagnosis.close()


class Played(SocketDiagnosis):
    """Tunnels, and a kernel that tells of their connections."""

    def __init__(self, *links: Link) -> None:
        self.known = list(links)
        self.connections: dict[TcpConnection, tuple[bool, int]] = {}
        self.counts: dict[TcpConnection, Sent] = {}
        self.searched = 0

    def links(self) -> list[Link]:
        return self.known

    def listeners(self) -> list[Server]:
        return [Server(TunnelProtocol.TCP, 1194, "re6stnet-tcp", True, 2, 0)]

    def connect(self, host: str, *, outgoing: bool, port: int = 1194) -> TcpConnection:
        made = TcpConnection(socket.AF_INET, bytes([len(self.connections)]), ip_address(host))
        self.connections[made] = outgoing, port
        self.counts[made] = Sent(100, 0, 0.0)
        return made

    def search(self, *, ours: int = 0, theirs: int = 0) -> list[TcpConnection]:
        self.searched += 1
        way = (False, ours) if ours else (True, theirs)
        return [each for each, leads in self.connections.items() if leads == way]

    def sent(self, connection: TcpConnection) -> Sent | None:
        return self.counts.get(connection)

    def close(self) -> None: ...


def watching(played: Played) -> tuple[LossWatch, list[frozenset[Prefix]]]:
    """One that has searched, and what it tells."""
    told: list[frozenset[Prefix]] = []

    def event(happened: policy.Event) -> None:
        assert isinstance(happened, policy.TunnelsLossy)
        told.append(happened.peers)

    watch = LossWatch(played, event)
    watch.search(played)
    return watch, told


def looks(watch: LossWatch, played: Played, lossy: TcpConnection | None = None, *, since: float = 100.0) -> None:
    """Look for a while, in which one connection has to send every second segment again."""
    for step in range(AGAIN_LEAST + 10):
        for each, sent in played.counts.items():
            played.counts[each] = Sent(sent.segments + 4, sent.again + 2 * (each is lossy), 0.0)
        watch.look(played, since + step / 4)


def outgoing(peer: Prefix, host: str) -> Link:
    return Link(peer, True, TunnelProtocol.TCP, host, 1194, "re6stnet1", 1.0)


def incoming(peer: Prefix, host: str) -> Link:
    return Link(peer, False, TunnelProtocol.TCP, host, None, "re6stnet-tcp", 1.0)


def test_both_our_own_tunnels_and_those_of_our_clients_are_looked_at() -> None:
    played = Played(
        outgoing(P, "192.0.2.1"),
        incoming(Q, "::ffff:192.0.2.1"),
        Link(R, True, TunnelProtocol.UDP, "192.0.2.3", 1194, "re6stnet2", 1.0),
        Link(S, True, TunnelProtocol.TCP, "192.0.2.4", 443, "re6stnet3", None),
        outgoing(R, "server.example.com"),
        outgoing(S, ""),
    )
    out = played.connect("192.0.2.1", outgoing=True)
    back = played.connect("192.0.2.1", outgoing=False)
    watch, told = watching(played)
    looks(watch, played, out)
    looks(watch, played, back, since=200)
    looks(watch, played, since=300)
    assert told == [{P}, NOTHING, {Q}, NOTHING]
    assert played.searched == 2, "the others have no connection, none of TCP, or no address"
    watch.search(played)
    assert played.searched == 2, "all are known"


def test_a_connection_that_ended_is_looked_for_again() -> None:
    played = Played(outgoing(P, "192.0.2.1"))
    first = played.connect("192.0.2.1", outgoing=True)
    watch, told = watching(played)
    looks(watch, played, first)
    del played.counts[first], played.connections[first]
    looks(watch, played, since=200)
    watch.search(played)
    second = played.connect("192.0.2.1", outgoing=True)
    watch.search(played)
    looks(watch, played, second, since=300)
    assert told == [{P}, NOTHING, {P}]


def test_of_several_behind_one_address_nothing_is_said() -> None:
    played = Played(incoming(P, "192.0.2.1"), incoming(Q, "192.0.2.1"))
    lossy, _ = (played.connect("192.0.2.1", outgoing=False) for _ in range(2))
    watch, told = watching(played)
    for _ in range(2):
        watch.search(played)
        looks(watch, played, lossy)
        played.known.pop()
    assert told == []


def test_a_kernel_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> SocketDiagnosis:
        raise NetlinkError(93, "Protocol not supported")

    monkeypatch.setattr(retransmits, "SocketDiagnosis", refuse)
    asyncio.run(LossWatch(Played(), lambda happened: None).run())
    assert caplog.messages == ["the kernel does not report what TCP retransmits: Protocol not supported"]


def test_after_an_error_it_is_tried_again_and_nothing_is_believed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before it would hold for ever."""
    played = Played(outgoing(P, "192.0.2.1"))
    lossy = played.connect("192.0.2.1", outgoing=True)
    watch, told = watching(played)
    looks(watch, played, lossy)

    def fail(connection: TcpConnection) -> Sent | None:
        raise NetlinkError(105, "No buffer space available")

    monkeypatch.setattr(played, "sent", fail)
    monkeypatch.setattr(retransmits, "SocketDiagnosis", lambda: played)
    monkeypatch.setattr(retransmits, "PACE", 0.001)
    monkeypatch.setattr(retransmits, "PACE_CALM", 0.001)
    monkeypatch.setattr(retransmits, "AGAIN", 0.01)

    async def main() -> None:
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(0.1)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert told == [{P}, NOTHING]
