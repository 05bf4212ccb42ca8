"""The bytes of messages about WireGuard links: of tests/vectors, there and back, and those that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import Prefix
from re6st.core.wire import wireguard
from re6st.core.wire.datagrams import Code, WireError
from re6st.core.wire.extensions import KNOWN, OF_THE_MACHINE, Extension
from re6st.core.wire.requirement import PATIENCE
from re6st.core.wire.sessions import Datagram, Output, Sessions
from re6st.core.wire.wireguard import (
    MTUS,
    NUMBER_LIMIT,
    PORTS,
    Accept,
    Confirm,
    Done,
    End,
    Message,
    Met,
    NoLink,
    Propose,
    Reason,
    Refuse,
    Terms,
    decode,
    encode,
    has_none,
    is_spoken_with,
    link_local,
)
from tests.unit.core.wire.test_seals import PlaySealer
from tests.unit.session_world import NETWORK, A, B, PlayCertificate, PlayCrypto, World

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "wireguard_messages.json").read_text())

numbers = st.integers(1, NUMBER_LIMIT - 1)
keys = st.binary(min_size=32, max_size=32).filter(any)
terms = st.builds(
    Terms, keys, st.sampled_from(PORTS), st.sampled_from(MTUS), st.integers(1, (1 << 64) - 1).map(link_local)
)
reasons = st.sampled_from(Reason)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Propose, numbers, st.just(0), terms),
    numbers.filter(lambda number: number > 1).map(
        lambda number: Propose(number, number - 1, Terms(b"k" * 32, 1024, 1280, link_local(1)))
    ),
    st.builds(Accept, numbers, terms),
    st.builds(Refuse, numbers, reasons, st.integers(0, NUMBER_LIMIT - 1)),
    st.builds(Confirm, numbers, keys, keys),
    st.builds(Done, numbers, keys, keys),
    st.builds(End, numbers, reasons),
    st.builds(NoLink, numbers),
    st.builds(Met, numbers, st.booleans()),
)
TERMS = Terms(b"k" * 32, 51820, 1420, IPv6Address("fe80::1"))


def named(case: dict[str, Any]) -> Message:
    """The message that a vector says in words."""
    fields = dict(case["fields"])
    for name, value in fields.items():
        if name == "terms":
            key, address = bytes.fromhex(value["key"]), IPv6Address(value["address"])
            fields[name] = Terms(key, value["port"], value["mtu"], address)
        elif name == "reason":
            fields[name] = Reason[value]
        elif name in ("mine", "yours"):
            fields[name] = bytes.fromhex(value)
    made: Callable[..., Message] = getattr(wireguard, case["kind"])
    return made(**fields)


@pytest.mark.parametrize("case", VECTORS["messages"], ids=[case["kind"] for case in VECTORS["messages"]])
def test_messages_have_the_bytes_of_the_vectors(case: dict[str, Any]) -> None:
    assert encode(named(case)).hex() == case["hex"]
    assert decode(bytes.fromhex(case["hex"])) == named(case)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=[case["why"] for case in VECTORS["refused"]])
def test_what_the_vectors_refuse_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(WireError):
        decode(bytes.fromhex(case["hex"]))


@given(messages)
def test_every_message_is_read_as_it_was_written_and_in_no_other_length(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    for other in (data[:-1], data + b"\0"):
        with pytest.raises(WireError):
            decode(other)


@pytest.mark.parametrize(
    "absurd",
    [
        replace(TERMS, key=bytes(32)),
        replace(TERMS, port=0),
        replace(TERMS, port=53),
        replace(TERMS, mtu=1279),
        replace(TERMS, mtu=9001),
        replace(TERMS, mtu=65535),
        replace(TERMS, address=IPv6Address("fe80::")),
    ],
)
def test_absurd_terms_are_no_message(absurd: Terms) -> None:
    for message in (Propose(7, 0, absurd), Accept(7, absurd)):
        with pytest.raises(WireError):
            decode(encode(message))


def test_reasons_of_later_versions_are_read() -> None:
    assert decode(encode(End(7, Reason.CLOSED))[:-1] + b"\xfe") == End(7, Reason.OTHER)
    assert all(reason.words for reason in Reason)


# --- who is told ---


class Able(World):
    """Machines of ours. Those that are named first can have WireGuard links."""

    def __init__(self, *able: Prefix) -> None:
        super().__init__()
        for prefix in able:
            self.ours(prefix, Extension.WIREGUARD)

    def ours(self, prefix: Prefix, *abilities: Extension) -> None:
        certificate = PlayCertificate(prefix, prefix.value + 1)
        sealer = PlaySealer(certificate, lambda: frozenset(abilities))
        crypto = PlayCrypto(certificate)
        self.machines[prefix] = Sessions(NETWORK, crypto, 10, b"\0", lambda: next(self.secrets), sealer=sealer)
        self.told.setdefault(prefix, [])

    def spoken(self, one: Prefix, other: Prefix) -> bool:
        return is_spoken_with(self.machines[one], other, self.now)

    def meet(self) -> None:
        self.send(A, B, bytes([Code.LOG]) + b"hello")


def test_two_nodes_that_can_speak_of_links_from_the_beginning_of_a_session() -> None:
    world = Able(A, B)
    assert not world.spoken(A, B)
    world.meet()
    assert world.spoken(A, B)
    assert world.spoken(B, A)


def test_a_node_that_cannot_is_not_spoken_to_of_links() -> None:
    world = Able(A)
    world.ours(B)
    world.meet()
    assert not world.spoken(A, B), "B has not said that it can"
    assert world.spoken(B, A), "B is told, but has nothing to say"


def test_nor_is_older_software_whatever_its_protocol_number() -> None:
    world = Able(A)
    world.add(B)
    world.meet()
    assert world.connected(A, B)
    assert not world.spoken(A, B)


def test_only_a_peer_that_says_so_is_known_to_have_no_links() -> None:
    for can in (True, False):
        world = Able(A)
        world.ours(B, *((Extension.WIREGUARD,) if can else ()))
        assert not has_none(world.machines[A], B, world.now)
        world.meet()
        assert has_none(world.machines[A], B, world.now) is not can


def test_older_software_is_known_to_have_no_links_once_it_has_had_time_to_say_otherwise() -> None:
    """A node that had links may run it now: its kernel still answers by them, but it takes no message about them."""
    world = Able(A)
    world.add(B)
    world.meet()
    assert not has_none(world.machines[A], B, world.now)
    world.now += PATIENCE
    world.meet()
    assert has_none(world.machines[A], B, world.now)
    world.lose = lambda _to, _data: True
    world.meet()
    world.now += 10
    assert not has_none(world.machines[A], B, world.now), "who answers no more may be another one by now"


def test_a_peer_that_answers_no_more_may_be_another_one_by_now_and_is_not_spoken_to() -> None:
    world = Able(A, B)
    world.meet()
    world.lose = lambda _to, _data: True
    world.meet()
    world.now += 10
    assert not world.spoken(A, B)


def test_what_every_machine_can_do_is_announced_to_the_registry_and_nothing_else() -> None:
    assert Extension.WIREGUARD not in KNOWN
    assert frozenset(Extension) == KNOWN | OF_THE_MACHINE


def test_messages_about_links_are_sealed() -> None:
    world = Able(A, B)
    world.meet()
    world.meet()
    body = encode(End(7, Reason.CLOSED))
    outputs: list[Output] = world.machines[A].send(B, bytes([Code.WIREGUARD]) + body, world.now)
    assert [output for output in outputs if isinstance(output, Datagram) and body not in output.data] == outputs
