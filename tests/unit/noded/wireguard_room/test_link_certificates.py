"""Who may have a WireGuard link, and by which certificate: it ends when that is revoked, or expires."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import CHECK_AGAIN, DIAL_TIME
from re6st.core.wire import wireguard as words
from re6st.core.wire.datagrams import Code
from re6st.core.wire.extensions import Extension
from re6st.core.wire.sessions import AbilitiesTold, Datagram, Message, Output, Sessions
from re6st.core.wire.wireguard import Met
from re6st.noded import link_table
from re6st.noded import wireguard as room
from tests.unit.core.wire.test_seals import PlaySealer, SealedWorld
from tests.unit.fake_program import until
from tests.unit.session_world import NETWORK, PlayCertificate, PlayCrypto, source
from tests.unit.wireguard_room_world import SERIAL, Node, World, killed, scene


@pytest.mark.parametrize("refused", [True, False], ids=["one that is kept out", "one without a tunnel"])
@scene
async def test_only_clients_that_are_there_and_let_in_get_a_link(world: World, refused: bool) -> None:
    if refused:
        world.b.refused.add(world.a.own)
    world.a.dial(world.b)
    if not refused:
        world.b.clients.clear()
    await until(lambda: world.a.room.why_not(world.b.own) != "")
    assert "does not want" in world.a.room.why_not(world.b.own)
    assert not world.air.devices


@pytest.mark.parametrize("end", ["ours", "theirs"])
@scene
async def test_where_packets_are_not_counted_there_is_no_link(world: World, end: str) -> None:
    """As a kernel may refuse to: a link that died would be noticed late."""
    (world.a if end == "ours" else world.b).drains.counts = False
    world.a.dial(world.b)
    await until(lambda: world.a.room.why_not(world.b.own) != "")
    assert ("not counted here" if end == "ours" else "does not want") in world.a.room.why_not(world.b.own)
    assert not world.air.devices


@scene
async def test_a_node_that_would_refuse_links_does_not_announce_them_and_does_so_once_it_would_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "is_spoken_with", words.is_spoken_with)
    a, b = world.a, world.b
    b.drains.counts = False
    speech = Speech(a, b)
    speech.say(a.own, b.own, b"\0")
    a.dial(b)
    b.first.look()
    assert not words.is_spoken_with(a.sessions, b.own, time.monotonic())
    assert words.is_spoken_with(b.sessions, a.own, time.monotonic())
    b.drains.counts = True
    await until(lambda: "re6stnet-wg1" in a.kernel.links)


@scene
async def test_a_node_that_has_links_goes_on_to_announce_them(world: World) -> None:
    """For peers would end them, although nftables may be there again in a second."""
    await world.moved()
    world.b.drains.counts = False
    assert world.b.room.abilities() == {Extension.WIREGUARD, Extension.FURTHER_LINKS}
    world.b.room.cut(world.a.own)
    assert world.b.room.abilities() == frozenset()


@scene
async def test_who_is_revoked_has_no_link_at_once_and_hears_nothing(world: World) -> None:
    await world.moved()
    world.a.hears = False
    world.b.room.cut_off(frozenset({SERIAL + 1}))
    assert len(world.b.room.ends()) == 1
    world.b.room.cut_off(frozenset({SERIAL}))
    assert world.b.room.ends() == []
    assert world.b.mesh.clients == {}
    await until(lambda: not world.b.kernel.links)


@pytest.mark.parametrize("case", ["a client", "a client whose tunnel is gone", "a server"])
@scene
async def test_who_is_revoked_while_its_link_waits_for_a_handshake_gets_none(world: World, case: str) -> None:
    """At once, not when the link would be given up; and though OpenVPN may take a moment to end the tunnel."""
    a, b = world.a, world.b
    node, interface = (a, "re6stnet-wg1") if case == "a server" else (b, "re6stnet-wgs1")
    world.air.passes = False
    a.dial(b)
    await until(lambda: interface in node.kernel.links)
    a.hears = b.hears = False
    if case == "a client whose tunnel is gone":
        b.clients.clear()
    node.room.cut_off(frozenset({SERIAL + 1}))
    if case != "a client whose tunnel is gone":  # nobody knows which certificate that one has
        assert interface in node.kernel.links
    node.room.cut_off(frozenset({SERIAL}))
    await until(lambda: not node.kernel.links, DIAL_TIME / 2)
    assert node.room.ends() == []


@scene
async def test_a_handshake_of_who_was_revoked_a_moment_ago_brings_no_link_up(world: World) -> None:
    a, b = world.a, world.b
    world.air.passes = False
    a.dial(b)
    await until(lambda: "re6stnet-wgs1" in b.kernel.links)
    b.refused.add(a.own)
    world.air.passes = True
    world.air.cable()
    await until(lambda: not b.kernel.links)
    assert b.room.ends() == []
    assert b.client_events() == [policy.ClientUp]


@scene
async def test_who_has_a_link_is_known_by_the_certificate_by_which_it_says_that_it_has_it(world: World) -> None:
    """It may have renewed it. A machine that speaks by another certificate of the same node may have no link: that with
    the first one has it, and is cut off when that certificate is revoked."""
    await world.moved()
    a, b = world.a, world.b
    b.shows(SERIAL + 1)
    a.hears = False
    b.room.met_again(a.own)
    b.is_told(a, Met(b.served_link(a).number, moved=True))
    assert b.serials() == [SERIAL]
    b.is_told_of_the_link(a)
    assert b.serials() == [SERIAL + 1]
    (noted,) = b.noted().values()
    assert noted.identity.serial == SERIAL + 1


class Speech(SealedWorld):
    """The real sessions of two nodes, over which they speak of links."""

    def __init__(self, *nodes: Node) -> None:
        super().__init__()
        self.nodes = {node.own: node for node in nodes}
        for node in nodes:
            self.machines[node.own] = node.sessions = self.made(node.own, SERIAL)
            node.carry, node.begin = self.say, self.begin

    def made(self, own: Prefix, serial: int) -> Sessions:
        certificate = PlayCertificate(own, serial)
        sealer = PlaySealer(certificate, self.nodes[own].room.abilities)
        return Sessions(NETWORK, PlayCrypto(certificate), 10, b"\0", lambda: next(self.secrets), sealer=sealer)

    def say(self, own: Prefix, other: Prefix, payload: bytes) -> None:
        self.now = time.monotonic()
        self.send(own, other, payload)

    def carry(self, sender: Prefix, outputs: list[Output]) -> int:
        """Each node acts at once on what it is told, as it does on what its socket brings."""
        flying = [(sender, data) for data in self.act(sender, outputs)]
        for count in range(100):
            if not flying:
                return count
            sender, data = flying.pop(0)
            (receiver,) = self.nodes.keys() - {sender}
            outputs = self.machines[receiver].receive(source(sender), data, self.now)
            flying += [(receiver, answer) for answer in self.act(receiver, outputs)]
        raise AssertionError("an endless exchange")

    def act(self, own: Prefix, outputs: list[Output]) -> list[bytes]:
        """What a node sends."""
        sent: list[bytes] = []
        for output in outputs:
            match output:
                case Datagram(_, _, data):
                    sent.append(data)
                case AbilitiesTold(peer):
                    self.nodes[own].room.met_again(peer)
                case Message() as message:
                    if message.code == Code.WIREGUARD:
                        self.nodes[own].first.received(message.peer, message.payload)
                    sent += self.act(own, self.machines[own].answer(message, None, self.now))
        return sent

    def begin(self, own: Prefix, other: Prefix) -> None:
        self.now = time.monotonic()
        self.carry(own, self.machines[own].begin_anew(other, self.now))

    def renew(self, own: Prefix, serial: int) -> None:
        """One goes on with another certificate."""
        fresh, machine = self.made(own, serial), self.machines[own]
        machine.crypto, machine._sealer = fresh.crypto, fresh._sealer
        self.nodes[own].room.renewed()


@scene
async def test_a_link_ends_with_the_certificate_that_its_peer_renewed_and_not_with_the_earlier_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who renews it begins new sessions: in each it is asked whether it has the link, and answers by the new one."""
    monkeypatch.setattr(room, "is_spoken_with", words.is_spoken_with)
    monkeypatch.setattr(link_table, "has_none", words.has_none)
    a, b = world.a, world.b
    speech = Speech(a, b)
    speech.say(a.own, b.own, b"\0")
    await world.moved()
    assert [*a.serials(), *b.serials()] == [SERIAL, SERIAL]
    speech.renew(a.own, SERIAL + 1)
    await until(lambda: b.serials() == [SERIAL + 1], CHECK_AGAIN / 2)
    (noted,) = b.noted().values()
    assert noted.identity.serial == SERIAL + 1
    b.room.cut_off(frozenset({SERIAL}))
    assert len(b.room.ends()) == 1, "the first one was replaced, and revoked for that"
    b.room.cut_off(frozenset({SERIAL + 1}))
    assert b.room.ends() == []


@scene
async def test_whose_certificate_expires_loses_its_link(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that never changes the keys; but nobody whose next certificate is not known to be that of the link."""
    monkeypatch.setattr(room, "PEERS_EVERY", 0.0)
    await world.moved()
    a, b = world.a, world.b
    a.hears = False
    good = True
    b.sessions.crypto = SimpleNamespace(still_good=lambda certificate: good or certificate.serial != SERIAL)
    b.shows(SERIAL + 1)
    b.first.look()
    b.shows(SERIAL)
    b.first.look()
    assert len(b.room.ends()) == 1
    good = False
    b.first.look()
    assert b.room.ends() == []
    await until(lambda: not b.kernel.links)


@scene
async def test_that_is_known_of_a_peer_that_has_no_session_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the next daemon forget when the certificate ends, and how old the keys are."""
    monkeypatch.setattr(room, "PEERS_EVERY", 0.0)
    await world.moved()
    a, b = world.a, world.b
    ends = time.time() + 1000
    b.shows(SERIAL, ends)
    a.hears = False
    b.is_told_of_the_link(a)
    b.sessions.peer = lambda _: None
    (noted,) = b.noted().values()
    assert noted.identity.until == ends
    assert noted.keyed == pytest.approx(time.time(), abs=30)
    found = await killed(b)
    b.room.go_on(found.values(), lambda _: None)
    b.first.look()
    assert len(b.room.ends()) == 1
    monkeypatch.setattr(link_table, "time", SimpleNamespace(time=lambda: ends + 1))
    b.first.look()
    assert b.room.ends() == []
