"""A node finds somebody in another region, and names somebody of its own to whoever asks."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from random import Random
from typing import Any

import pytest

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Code, Endpoint
from re6st.noded.region_finder import RegionFinder

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, BESIDE, NEAREST, OTHER = (Prefix(number, 16) for number in (0, 3, 4, 6))
REGION = Prefix(1, 14)
PLACE = (Endpoint("192.0.2.6", 1194, TunnelProtocol.TCP),)


class Said:
    """Speaks with nobody, and notes what it was to say."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def send(self, peer: Prefix, code: int, payload: bytes = b"") -> None:
        self.said.append((peer, code, payload))

    def ensure(self, peer: Prefix) -> None:
        self.said.append((peer,))

    def greet(self, ip: IPv6Address) -> None:
        self.said.append((ip,))


def finder(said: Said, region_length: int = 14) -> tuple[RegionFinder, list[policy.Event]]:
    settings = policy.Settings(OWN, OWN, client_count=3, tunnel_refresh=300, close_time=60, region_length=region_length)
    mesh, events = policy.Mesh(settings, {}, Random(1)), list[policy.Event]()
    mesh.handle(policy.Surveyed(Survey(peers=frozenset((BESIDE, REGION)))), 0.0)
    made = RegionFinder(NETWORK, mesh, events.append, Random(1), lambda: 64)
    made.start(said)
    return made, events


def test_the_nearest_of_a_region_names_one_who_tells_where_it_is() -> None:
    said = Said()
    found, events = finder(said)
    found.send(REGION, Code.ADDRESS)
    found.heard(BESIDE)
    found.heard(NEAREST)
    assert found.answer(NEAREST, OTHER.bits.encode()) is None
    assert said.said == [
        (IPv6Address("2001:db8:42:7:ffff:ffff:ffff:ffff"),),
        (NEAREST, Code.REGION, b""),
        (OTHER, Code.ADDRESS, b""),
    ]
    assert not events
    found.told(OTHER, PLACE)
    assert events == [policy.RegionAnswered(REGION, OTHER, PLACE)]


@pytest.mark.parametrize("longer", [17, 80, 81, 128])
def test_one_whose_prefix_is_longer_than_any_of_the_network_is_asked_nothing(longer: int) -> None:
    """Many of them have no address at all, and one question to such would end the daemon."""
    said = Said()
    found, _ = finder(said)
    found.send(REGION, Code.ADDRESS)
    found.heard(NEAREST)
    found.answer(NEAREST, OTHER.bits.ljust(longer, "0").encode())
    assert said.said[-1] == (NEAREST, Code.REGION, b"")
    found.answer(NEAREST, OTHER.bits.encode())
    assert said.said[-1] == (OTHER, Code.ADDRESS, b"")


def test_what_is_for_a_node_goes_to_it() -> None:
    said = Said()
    found, _ = finder(said)
    found.send(NEAREST, Code.ADDRESS)
    found.send(REGION, Code.ASK_CLOSE)
    found.ensure(NEAREST)
    assert said.said == [(NEAREST, Code.ADDRESS, b""), (REGION, Code.ASK_CLOSE, b""), (NEAREST,)]
    found.send(Prefix(0, 14), Code.ADDRESS)
    assert len(said.said) == 3, "nobody is asked for our own region: the question would come to ourselves"
    flat, _ = finder(said, 0)
    flat.send(REGION, Code.ADDRESS)
    assert said.said[-1] == (REGION, Code.ADDRESS, b"")


def test_in_a_flat_network_nobody_is_named() -> None:
    flat, _ = finder(Said(), 0)
    assert flat.answer(NEAREST, b"") is None


def test_somebody_of_our_region_is_named_by_chance_but_not_for_ever() -> None:
    found, _ = finder(Said())
    names = {found.answer(Prefix(number, 16), b"") for number in range(4, 30)}
    assert names == {OWN.bits.encode(), BESIDE.bits.encode()}
    answers = [found.answer(NEAREST, b"") for _ in range(20)]
    assert answers[-1] is None, "one peer gets a few at once"
    assert found.answer(Prefix(40, 16), b"") is not None, "others are answered"
