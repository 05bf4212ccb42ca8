"""Fuzzed: what members say, beyond the form of a datagram: sealed sessions, extensions, links, routes, origins."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from typing import cast

from re6st.core.prefix import Prefix, address, control_address, subnet
from re6st.core.registry import hello_choice, origins
from re6st.core.routing import babel_lines, claims
from re6st.core.routing.claims import Claims, Refusals
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.transport.wireguard_links import OwnEnd
from re6st.core.transport.wireguard_state import Action, Change, Fresh, LinkSettings, Make, Remove, Send
from re6st.core.wire import datagrams, extensions, further_links, offers, peer_crypto, sessions, wireguard
from re6st.core.wire import lines as line_messages
from re6st.core.wire.seals import PURPOSES, Seal
from re6st.keys import sealing
from re6st.registryd import hello
from tests.fuzz.keys import Crypto
from tests.fuzz.target import Target, vector

NETWORK = IPv6Network("2001:db8:42::/48")
ONE, OTHER = Prefix(1, 16), Prefix(2, 16)


# --- names ---


def extension_names(data: bytes) -> None:
    """A list of extensions, and the registry's note of the hellos."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(extensions.ExtensionError):
        names = extensions.read(text)
        assert len(names) <= extensions.NAMES_LIMIT
        assert extensions.read(extensions.text(names)) == names
        extensions.needs_long_hellos(names)
    kept = hello_choice.read(text)
    if kept is not None:
        # Members choose what is said to it, not what is kept: as often as they like, it changes but once.
        first = hello_choice.choose(kept, older=True, now=1e9)
        assert not (first.short and hello_choice.choose(first, older=True, now=1e9).short is False)
        hello_choice.read(first.text())


def offer_header(data: bytes) -> None:
    """The header of a hello, from anybody: as it is, and as the bytes of an offer."""
    for header in (data.decode("latin-1"), base64.b64encode(data).decode()):
        with contextlib.suppress(offers.OfferError):
            offer = hello.read_offer(header)
            assert offers.decode(offers.encode(offer)) == offer
            with contextlib.suppress(extensions.ExtensionError):
                extensions.read(offer.names)
            sealing.SessionKey().shared(offer.public)


def wireguard_message(data: bytes) -> None:
    """What a peer says of a WireGuard link: what is taken is what can be sent."""
    with contextlib.suppress(datagrams.WireError):
        message = wireguard.decode(data)
        assert wireguard.decode(wireguard.encode(message)) == message


def lines_message(data: bytes) -> None:
    """What a peer says of lines: what is taken is what can be sent."""
    with contextlib.suppress(datagrams.WireError):
        message = line_messages.decode(data)
        assert line_messages.decode(line_messages.encode(message)) == message


def further_links_message(data: bytes) -> None:
    """The same of links beside the first one."""
    with contextlib.suppress(datagrams.WireError):
        message = further_links.decode(data)
        assert further_links.encode(message) == data


def wireguard_agreement(data: bytes) -> None:
    """A peer says what it likes of links, in any order: whatever that is, there is one link with it, or none."""
    made = iter(range(1, 1 << 20))

    def fresh() -> Fresh:
        number = next(made)
        terms = wireguard.Terms(number.to_bytes(32), 0, 0, wireguard.link_local(number))
        return Fresh(OwnEnd(bytes(32), terms), number)

    agreement = Agreement(
        ONE, LinkSettings(range(2000, 2003), ("re6stnet9",), key_life=20.0), fresh, lambda _peer: True
    )
    now, interfaces = 100.0, set[str]()

    def carry(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Make):
                assert action.link.interface not in interfaces
                interfaces.add(action.link.interface)
                carry(agreement.made(OTHER, action.link.number, now))
            elif isinstance(action, Remove):
                interfaces.remove(action.link.interface)
            elif isinstance(action, Change):
                assert action.link.interface in interfaces
                carry(agreement.changed(OTHER, action.link.number, now))
            elif isinstance(action, Send):
                wireguard.decode(wireguard.encode(action.message))
            assert len(interfaces) <= 1

    while data:
        first, data = data[0], data[1:]
        now += (first & 7) ** 2 / 4
        if first & 8:
            carry(agreement.open(OTHER, "re6stnet1", now))
        if first & 16:
            carry(agreement.heard(OTHER, now))
        carry(agreement.tick(now))
        length, data = data[0] if data else 0, data[1:]
        with contextlib.suppress(datagrams.WireError):
            carry(agreement.received(OTHER, wireguard.decode(data[:length]), now))
        data = data[length:]
        assert agreement.deadline() > now


# --- seals ---


class Sealer:
    """Real keys for a session; whoever knows what is signed signs for anybody."""

    aead: offers.Aead = sealing.CIPHER
    abilities: frozenset[extensions.Extension] = frozenset()

    def ephemeral(self) -> sealing.SessionKey:
        return sealing.SessionKey()

    def sign_offer(self, statement: bytes) -> bytes:
        return sha256(statement).digest()

    def verify_offer(self, der: bytes, signature: bytes, statement: bytes) -> bool:
        return signature == sha256(statement).digest()


def signed_offer(names: bytes, public: bytes, *, question: bool, by: bytes, to: bytes) -> bytes:
    """An offer of somebody who may sign, whatever it says."""
    offer = offers.Offer(public, names.decode("latin-1"))
    parties = (sha256(der).digest() for der in (by, to))
    said = offers.statement(PURPOSES[0 if question else 1], parties, offer)
    size = len(names).to_bytes(2)
    return public + size + names + sha256(said).digest()


def seal(data: bytes) -> None:
    """One session is sealed; then somebody sends what he likes: nothing opens that was not sealed in it.

    The first byte says what comes: offers with and without a right signature, or messages.
    """
    asker = Seal(Sealer(), b"one", b"other", asks=True, now=0.0)
    answerer = Seal(Sealer(), b"other", b"one", asks=False, now=0.0)
    kind, rest = data[:1], data[1:]
    if kind == b"o":
        with contextlib.suppress(offers.OfferError):
            answerer.take(rest)
        return
    if kind == b"s":
        with contextlib.suppress(offers.OfferError, UnicodeEncodeError):
            answerer.take(signed_offer(rest[32:], rest[:32], question=True, by=b"one", to=b"other"))
        return
    answerer.take(asker.offer())
    asker.take(answerer.offer())
    true = asker.seal(b"true")
    number = int.from_bytes(rest[:4]) | datagrams.SEALED
    assert answerer.open(datagrams.Sealed(number, rest[4:])) is None or rest[4:] == true[4:]
    packet = datagrams.decode(true)
    assert isinstance(packet, datagrams.Sealed)
    assert answerer.open(packet) == b"true"
    assert answerer.open(packet) is None


# --- sessions ---


def _sessions_of(node: Prefix, secrets: Iterator[int]) -> sessions.Sessions:
    """The sessions of a node whose secrets are numbers."""
    return sessions.Sessions(
        NETWORK,
        cast(peer_crypto.Crypto, Crypto(node)),
        10,
        b"\0",
        lambda: next(secrets).to_bytes(sessions.SECRET_LENGTH),
        sealer=Sealer(),
    )


def sealed_sessions(data: bytes) -> None:
    """Two nodes of ours, and a line between them that loses, doubles, swaps, changes and mirrors datagrams.

    Each byte is a step. A message that is heard was said; and once the line is good again, both are heard again.
    """
    secrets = iter(range(1, 1 << 20))
    nodes = {each: _sessions_of(each, secrets) for each in (ONE, OTHER)}
    wires: dict[Prefix, list[bytes]] = {ONE: [], OTHER: []}
    said: set[bytes] = set()
    heard: list[bytes] = []
    now = 100.0

    def carry(sender: Prefix, outputs: list[sessions.Output]) -> None:
        receiver = _other(sender)
        for output in outputs:
            if isinstance(output, sessions.Datagram):
                wires[receiver].append(output.data)
            elif isinstance(output, sessions.Message):
                if output.code == datagrams.Code.LOG:
                    heard.append(output.payload)
                carry(sender, nodes[sender].answer(output, None, now))

    def arrive(receiver: Prefix, datagram: bytes) -> None:
        sender = _other(receiver)
        with contextlib.suppress(datagrams.WireError):
            carry(receiver, nodes[receiver].receive((address(NETWORK, sender), datagrams.PORT), datagram, now))

    def say(sender: Prefix) -> None:
        text = f"{len(said)}".encode()
        said.add(text)
        receiver = _other(sender)
        carry(sender, nodes[sender].send(receiver, bytes([datagrams.Code.LOG]) + text, now))

    for step in data[:200]:
        node, queue = (ONE, wires[ONE]) if step & 1 else (OTHER, wires[OTHER])
        match step >> 1 & 7:
            case 0:
                say(node)
            case 1 | 2 if queue:
                arrive(node, queue.pop(0))
            case 3 if queue:
                del queue[0]
            case 4 if queue:
                queue.append(queue[0])
            case 5 if queue:
                broken = bytearray(queue[0])
                broken[step * 7 % len(broken)] ^= 1 << (step >> 4 & 7)
                arrive(node, bytes(broken))
            case 6 if queue:
                wires[_other(node)].append(queue.pop(0))  # back to who sent it
            case 7:
                now += (step >> 4) * 0.7
                carry(node, nodes[node].retry(now))
        del queue[64:]
    assert said.issuperset(heard), "heard what nobody said"
    before = len(heard)
    for _ in range(90):
        now += 1.0
        for node in (ONE, OTHER):
            say(node)
            carry(node, nodes[node].retry(now))
        for _ in range(40):
            for node in (ONE, OTHER):
                if wires[node]:
                    arrive(node, wires[node].pop(0))
        if len(heard) >= before + 4 and all(each.connected(_other(own), now) for own, each in nodes.items()):
            break
    else:
        raise AssertionError("they do not come together again")
    assert said.issuperset(heard)


def _other(node: Prefix) -> Prefix:
    return OTHER if node == ONE else ONE


def session_inputs(data: bytes) -> None:
    """A node is sent anything from anywhere, and told to speak with anybody: it keeps to its bounds."""
    state = _sessions_of(ONE, iter(range(1, 1 << 20)))
    now = 100.0
    while data:
        head, length = data[0], data[1] if len(data) > 1 else 0
        content, data = data[2 : 2 + length], data[2 + length :]
        now += head & 3
        peer = Prefix(head >> 4, 16)
        match head >> 2 & 3:
            case 0:
                state.send(peer, content or b"\1", now)
            case 1:
                state.ensure(peer, now)
            case _:
                with contextlib.suppress(datagrams.WireError):
                    for output in state.receive((control_address(NETWORK, peer), 326 + head), content, now):
                        if isinstance(output, sessions.Message):
                            state.answer(output, content, now)
        for output in state.retry(now):
            assert isinstance(output, sessions.Datagram)
            assert len(output.data) <= datagrams.DATAGRAM_LIMIT
        state.connected(peer, now)
        state.answered(peer)
    state.forget(frozenset({1}))


# --- routes ---


def is_inside(part: claims.Network, whole: claims.Network) -> bool:
    return part[0] in whole and part[-1] in whole


def told_routes(data: bytes) -> None:
    """What babeld tells of others' routes, as far as it says who claims what."""
    table = babel_lines.Table()
    found = Claims(NETWORK, ONE, (subnet(NETWORK, Prefix(3, 16)),))
    refusals, payload = Refusals(), claims.Payload(IPv4Network("10.42.0.0/16"), 8, IPv4Network("10.42.1.0/24"))
    for number, line in enumerate(data.decode("ascii", "replace").splitlines()):
        with contextlib.suppress(babel_lines.LineError):
            table.feed(line)
        now = number * 0.5
        findings = found.look(table, _owner, now, 0.0, payload, lambda _: (2,))
        for lie in findings.lies:
            assert lie.peer == OTHER
            own: list[claims.Network] = [subnet(NETWORK, OTHER), *payload.subnets((2,))]
            assert not any(is_inside(each, its) for each in lie.subnets for its in own)
            assert len(str(lie)) < 1000
            refusals.refuse(lie.peer, now)
        assert findings.again is None or findings.again > 0
    for hop in {route.via for route in table.routes.values()}:
        claims.hardware_address(hop.address)
    refusals.held(1e6)


def _owner(hop: babel_lines.NextHop) -> Prefix | None:
    return OTHER if hop.interface == "re6stnet1" else None


# --- who calls ---


def request_origin(data: bytes) -> None:
    """The headers of a call, from which it is told who makes it: a line each, and the address of the peer before."""
    peer, *lines = data.decode("latin-1").split("\n")
    pairs = [line.partition(": ")[::2] for line in lines]
    headers, forwarded = dict(pairs), [value for name, value in pairs if name == "X-Forwarded-For"]
    known = origins.Origins(("192.0.2.1", "2001:db8::1"))
    client = known.client(peer, forwarded)
    if client is not None:
        assert origins.network_of(client)
    if known.authorized(peer, forwarded):
        assert client is None, "a stranger is the operator"
    known.authorized_by_proxy(forwarded)
    origins.is_careless_relay(forwarded, headers, (1, 1))
    origins.foreign_page(headers)
    origins.stray_browser(headers, frozenset({"registry.example"}))


# --- what they take ---


def _talk() -> tuple[bytes, ...]:
    """What a peer says when it opens a link, changes its keys and ends it, and when it is asked for one."""
    terms = [wireguard.Terms(bytes([key]) * 32, 51820, 1420, wireguard.link_local(7)) for key in (8, 9)]
    keys = [[number.to_bytes(32), bytes([key]) * 32] for number, key in ((1, 8), (2, 9))]
    said: list[tuple[int, wireguard.Message]] = [
        (0, wireguard.Propose(11, 0, terms[0])),
        (16, wireguard.Confirm(11, keys[0][1], keys[0][0])),
        (1, wireguard.Propose(13, 11, terms[1])),
        (1, wireguard.Confirm(13, keys[1][1], keys[1][0])),
        (6, wireguard.End(13, wireguard.Reason.CLOSED)),
    ]
    asked: list[tuple[int, wireguard.Message]] = [
        (8, wireguard.Accept(2, terms[0])),
        (16, wireguard.Done(2, keys[0][1], keys[0][0])),
        (23, wireguard.NoLink(7)),
        (23, wireguard.Accept(4, terms[1])),
        (1, wireguard.Done(4, keys[1][1], keys[1][0])),
        (7, wireguard.Propose(15, 0, terms[0])),
    ]
    return tuple(
        b"".join(bytes([first, len(body := wireguard.encode(message))]) + body for first, message in talk)
        for talk in (said, asked)
    )


def _targets() -> dict[str, Target]:
    offer = Seal(Sealer(), b"one", b"other", asks=True, now=0.0).offer()
    key = offer[:32]
    route = (
        b"add route %x prefix 2001:db8:42:%x::/64 from ::/0 installed yes id 02:00:00:00:00:00:00:0%d"
        b" metric 96 refmetric 0 via fe80::%d if re6stnet%d\n"
    )
    route4 = (
        b"add route %x prefix 10.42.%d.0/24 from 0.0.0.0/0 installed yes id 02:00:00:00:00:00:00:01"
        b" metric 96 refmetric 0 via fe80::%d if re6stnet1\n"
    )
    return {
        "extension-names": Target(
            extension_names, (b"babel-hello rekey sealed-calls", b"", b"short 1700000000 1700000000", b"long 0 0")
        ),
        "offer-header": Target(offer_header, (base64.b64encode(offer), offer)),
        "seal": Target(seal, (b"o" + offer, b"s" + key + b"rekey sealed-messages", b"m\0\0\0\1" + bytes(20))),
        "sealed-sessions": Target(
            sealed_sessions,
            (bytes([0, 3, 2, 3, 2, 3, 2, 1, 2, 3, 15, 2, 3]), bytes([0, 1, 9, 3, 11, 2, 12, 0x7E, 5, 13])),
        ),
        "session-inputs": Target(
            session_inputs,
            (
                b"\x20\1\1" + b"\x28\6\0\0\0\0\0\2" + b"\x28\x1b\0\0\0\1\x0a" + b"\0\1" * 10 + b"\0\2",
                b"\x24\0" * 4 + b"\x2b\0",
            ),
        ),
        "wireguard-message": Target(
            wireguard_message,
            tuple(bytes.fromhex(case["hex"]) for case in vector("wireguard_messages")["messages"]),
        ),
        "lines-message": Target(
            lines_message,
            (
                b"\1" + b"\x12" * 32 + b"\1\x08\7" + b"\2\x10\0\7",
                b"\1" + bytes(32),
                b"\2\1\x10\0\7",
                b"\3\6",
            ),
        ),
        "further-links-message": Target(
            further_links_message,
            (
                bytes.fromhex(f"0001{'00' * 10}ffffc0000201010000000000000007{'00' * 10}ffffc6336401"),
                b"\1\7" + bytes(8),
            ),
        ),
        "wireguard-agreement": Target(wireguard_agreement, _talk()),
        "told-routes": Target(
            told_routes,
            (
                route % (0x55AB, 2, 2, 2, 1) + route % (0x55AC, 7, 2, 2, 1) + route % (0x55AD, 1, 3, 3, 2),
                route % (0x55AB, 2, 2, 2, 1) + route % (0x55AC, 2, 3, 3, 1) + b"flush route 55ab\n",
                route4 % (0x55AB, 2, 2)
                + route4 % (0x55AC, 3, 2)
                + route4 % (0x55AD, 1, 2)
                + route % (0x55AE, 2, 2, 2, 1),
            ),
        ),
        "request-origin": Target(
            request_origin,
            (
                b"127.0.0.1\nHost: localhost:8080\nUser-Agent: Mozilla/5.0\nSec-Fetch-Site: none",
                b"192.0.2.1\nX-Forwarded-For: 198.51.100.7, 192.0.2.1\nHost: registry.example",
                b"::1\nOrigin: http://[::1]:80\nHost: [::1]:80\nReferer: http://evil.example/",
            ),
        ),
    }


TARGETS = _targets()
