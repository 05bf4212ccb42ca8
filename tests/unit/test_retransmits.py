"""What the kernel tells of TCP connections, and which tunnels it is about."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from re6st import retransmits
from re6st.core.lossy import Sent
from re6st.core.prefix import Prefix
from re6st.core.report import Link, Server
from re6st.kernel import Address
from re6st.netlink import NetlinkError
from re6st.retransmits import Connections, LossWatch, SocketDiagnosis

P, Q, R, S = (Prefix(number, 16) for number in range(4))
NOTHING: frozenset[Prefix] = frozenset()


@contextmanager
def connection(host: str) -> Iterator[tuple[socket.socket, int]]:
    """Our end of a connection on this machine, and the port at the other."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((host, 0), family=family))
        client = stack.enter_context(socket.create_connection(server.getsockname()[:2]))
        stack.enter_context(server.accept()[0])
        yield client, server.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_counts_what_a_connection_sends(host: str) -> None:
    diagnosis = SocketDiagnosis()
    try:
        with connection(host) as (client, port):
            for _ in range(5):
                client.send(b"x")
            (found,) = diagnosis.connections(theirs=port)[ip_address(host)]
            assert found.segments >= 1
            assert (found.again, found.silent < 5) == (0, True)
            assert diagnosis.connections(ours=port).keys() == {ip_address(host)}
        assert diagnosis.connections(ours=1, theirs=1) == {}
    finally:
        diagnosis.close()


class Played:
    """Tunnels, and a kernel that tells of their connections."""

    def __init__(self) -> None:
        self.known: list[Link] = []
        self.outgoing: Connections = {}
        self.incoming: Connections = {}
        self.asked = 0

    def links(self) -> list[Link]:
        return self.known

    def listeners(self) -> list[Server]:
        return [Server("tcp", 1194, "re6stnet-tcp", True, 2, 0)]

    def connections(self, *, ours: int = 0, theirs: int = 0) -> Connections:
        assert (ours, theirs) in ((1194, 0), (0, 1194), (0, 443))
        self.asked += 1
        return self.incoming if ours else self.outgoing if theirs == 1194 else {}

    def close(self) -> None: ...


def looks(monkeypatch: pytest.MonkeyPatch, played: Played, *steps: Callable[[], object]) -> list[frozenset[Prefix]]:
    """What is told while the steps are done, one a second."""
    told: list[frozenset[Prefix]] = []
    clock = iter(range(100, 200))

    async def main() -> None:
        watch = LossWatch(played, told.append)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: float(next(clock)))
        for step in steps:
            step()
            watch._look(played)  # type: ignore[arg-type]

    asyncio.run(main())
    return told


def sent(*counts: tuple[int, int]) -> list[Sent]:
    return [Sent(segments, again, 0.0) for segments, again in counts]


def test_both_our_own_tunnels_and_those_of_our_clients_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    played.known = [
        Link(P, True, "tcp", "192.0.2.1", 1194, "re6stnet1", 1.0),
        Link(Q, False, "tcp", "::ffff:192.0.2.1", None, "re6stnet-tcp", 1.0),
        Link(R, True, "udp", "192.0.2.3", 1194, "re6stnet2", 1.0),
        Link(S, True, "tcp", "192.0.2.4", 443, "re6stnet3", None),
    ]
    one: Address = ip_address("192.0.2.1")

    def counts(outgoing: tuple[int, int], incoming: tuple[int, int]) -> Callable[[], None]:
        def step() -> None:
            played.outgoing, played.incoming = {one: sent(outgoing)}, {one: sent(incoming)}

        return step

    told = looks(
        monkeypatch,
        played,
        counts((100, 0), (50, 0)),
        counts((110, 0), (70, 8)),
        counts((120, 9), (90, 16)),
        counts((500, 9), (900, 16)),
    )
    assert told == [{Q}, {P, Q}, NOTHING]
    assert played.asked == 8, "the other two have no connection yet, or none of TCP"


def test_of_several_behind_one_address_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    played.known = [Link(peer, False, "tcp", "192.0.2.1", None, "re6stnet-tcp", 1.0) for peer in (P, Q)]
    one = ip_address("192.0.2.1")

    def counts(*found: tuple[int, int]) -> Callable[[], None]:
        return lambda: setattr(played, "incoming", {one: sent(*found)})

    assert looks(monkeypatch, played, counts((1, 0), (1, 0)), counts((99, 90), (99, 90))) == []
    played.known.pop()
    assert looks(monkeypatch, played, counts((1, 0), (1, 0)), counts((99, 90), (99, 90))) == []


def test_a_kernel_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> SocketDiagnosis:
        raise NetlinkError(93, "Protocol not supported")

    monkeypatch.setattr(retransmits, "SocketDiagnosis", refuse)
    asyncio.run(LossWatch(Played(), lambda peers: None).run())
    assert caplog.messages == ["the kernel does not tell what TCP sends again: Protocol not supported"]
