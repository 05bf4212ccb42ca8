"""What strangers may ask the registry for: by network, by wider ones, all together; members get in meanwhile."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from re6st import cert
from re6st.core.limits.networks import Limits, levels, neighbourhood
from re6st.core.wire.rpc import target
from tests.unit.registry_world import A, World

HOME = "2001:db8:7:1::"
LONG, SHORT = "x" * 18, "qwertzui"


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def of_48(number: int) -> str:
    """Networks /64 of one /48."""
    return str(IPv6Address((0x20010DB80000 << 80) + (number << 64)))


def of_32(number: int) -> str:
    """Networks /64 of one /32, each of another /48."""
    return str(IPv6Address((0x20010DB8 << 96) + (number << 80)))


def from_everywhere(number: int) -> str:
    """Networks that have nothing in common."""
    return str(IPv4Address(0x0A000000 + (number << 16)))


def test_the_wider_networks_of_a_network() -> None:
    assert levels("2001:db8:1:2::") == ("2001:db8:1:2::", "2001:db8:1::/48", "2001:db8::/32")
    assert levels("192.0.2.1") == ("192.0.2.1", "192.0.2.0/24", "192.0.0.0/16")
    assert levels("elsewhere") == ("elsewhere",)
    assert neighbourhood("2001:db8:1:2::") == "2001:db8:1::/48"
    assert neighbourhood("192.0.2.1") == "192.0.2.1"
    assert neighbourhood("") == ""


def test_whoever_has_a_48_or_a_32_has_a_bound() -> None:
    """However many networks of it he uses, and however many buckets he makes us forget so."""
    for sources, most in ((of_48, 100 * 8), (of_32, 100 * 32)):
        limits = Limits()
        assert sum(limits.hello(sources(number % 20_000), 0.0) for number in range(40_000)) == most


def test_strangers_from_everywhere_have_a_bound_and_members_get_in_meanwhile() -> None:
    limits = Limits()
    limits.note_member(HOME)
    assert sum(limits.hello(from_everywhere(number), 0.0) for number in range(6000)) == 5000
    assert not limits.hello("203.0.113.7", 0.0)
    assert limits.hello(HOME, 0.0)
    assert sum(limits.hello(HOME, 0.0) for _ in range(200)) < 100, "it has a bound of its own"
    assert limits.hello("203.0.113.7", 1.0), "later there is room again"


def test_a_flood_from_the_neighbourhood_does_not_keep_a_member_out() -> None:
    limits = Limits()
    limits.note_member(of_48(60_000))
    for number in range(10_000):
        limits.hello(of_48(number), 0.0)
    assert not limits.hello(of_48(60_001), 0.0)
    assert limits.hello(of_48(60_000), 0.0)


def test_certificates_without_a_token_are_few() -> None:
    limits = Limits()
    assert sum(limits.anonymous("192.0.2.1", 0.0) for _ in range(100)) == 20
    assert sum(limits.anonymous(from_everywhere(number), 0.0) for number in range(1000)) == 180
    day = sum(limits.anonymous(from_everywhere(number), 86400 * number / 50_000) for number in range(50_000))
    assert day < 10_000


def test_mails_are_few_for_a_source_an_address_a_domain_and_all() -> None:
    limits = Limits()
    assert sum(limits.mail(from_everywhere(n), "a@b.example", 0.0) for n in range(100)) == 3
    assert not limits.mail("203.0.113.7", "A@B.Example", 0.0), "however it is spelt"
    assert not limits.mail(None, "a@b.example", 0.0), "and whoever asks"
    assert sum(limits.mail(from_everywhere(n), f"a{n}@b.example", 0.0) for n in range(100)) == 47
    assert sum(limits.mail("192.0.2.1", f"a@b{n}.example", 0.0) for n in range(100)) == 10
    limits = Limits()
    assert sum(limits.mail(from_everywhere(n), f"a@b{n}.example", 0.0) for n in range(200)) == 100


def test_short_tokens_are_not_guessed_and_long_ones_work_meanwhile() -> None:
    limits = Limits()
    assert sum(limits.token(from_everywhere(n), SHORT, 0.0) for n in range(1000)) == 200
    assert not limits.token("203.0.113.7", SHORT, 0.0)
    assert limits.token("203.0.113.7", LONG, 0.0)
    year = sum(limits.token(from_everywhere(n % 60_000), SHORT, 3600.0 + n / 10) for n in range(36_000))
    assert year <= 3600 + 200 + 1, "one a second"


def test_right_tokens_do_not_count() -> None:
    limits = Limits()
    for _ in range(1000):
        assert limits.token("192.0.2.1", SHORT, 0.0)
        limits.right_token("192.0.2.1", SHORT)


# --- over HTTP ---


def test_a_stranger_does_not_take_all_subnets(world: World) -> None:
    async def test(world: World) -> None:
        path = target("requestCertificate", {"token": "", "req": world.request()})
        statuses = [(await world.get(path, X_Forwarded_For="198.51.100.66")).status for _ in range(25)]
        assert statuses == [200] * 20 + [429] * 5
        assert (await world.get(path, X_Forwarded_For="203.0.113.7")).status == 200, "others are not concerned"
        world.now += 31
        assert (await world.get(path, X_Forwarded_For="198.51.100.66")).status == 200

    world.run(test)


def test_a_members_network_is_known_by_its_calls_and_not_by_its_hellos(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        hello = target("hello", {"client_prefix": A.bits, "protocol": "10"})
        for number in range(6000):
            world.registry.limits.hello(from_everywhere(number), world.now)
        assert (await world.get(hello, X_Forwarded_For="203.0.113.7")).status == 429
        world.registry.limits.note_member("203.0.113.7")
        assert (await world.get(hello, X_Forwarded_For="203.0.113.7")).status == 200

    world.run(test)


def test_tokens_of_invitations_and_mails_are_not_to_be_guessed(world: World) -> None:
    world.settings = replace(world.settings, prefix_length=16)

    async def test(world: World) -> None:
        tokens = {await world.registry.tokens.new("", 16) for _ in range(20)}
        assert len(tokens) == 20
        assert all(len(token) == 18 and token.isascii() and token.islower() for token in tokens)

    world.run(test)
