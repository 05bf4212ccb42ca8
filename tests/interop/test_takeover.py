"""A running network changes its registry: on the same database, at any moment of its life, and may change back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.client.registry_client import RegistryRefused
from re6st.core.wire import params
from re6st.keys import pki
from testbed.forked import OWN_NAMESPACE
from testbed.network import environment, forked
from tests.interop.conftest import DEADLINE
from tests.interop.test_enrolment import add_token, call, is_token, node, parameters
from tests.stress.checker import Checker


@dataclass
class Network:
    """A network at some moment: who is in it, and who was."""

    folder: Path
    nodes: list[cert.Identity]
    renewable: cert.Identity
    """Its serial is revoked, its prefix is not."""
    evicted: cert.Identity
    before: params.Parameters
    """As its nodes had them last."""

    @property
    def database(self) -> Path:
        return self.folder / "registry.db"

    def check(self, registry: Any) -> params.Parameters:
        """Every node goes on: a session, the certificate it has, parameters signed by the CA and keys for it."""
        found = [parameters(registry.url, each) for each in self.nodes]
        for each, got in zip(self.nodes, found, strict=True):
            assert call(registry.url, each, lambda client: client.renew_certificate()) == each.cert
            assert params.check_version(got.version, each.verify_version)
            assert got == found[0]
        with pytest.raises(RegistryRefused):
            parameters(registry.url, self.evicted)
        return found[0]


class Enrolment:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(self, registry: Any, token: str = "") -> cert.Identity:
        self._count += 1
        folder = self._folder / f"node{self._count}"
        folder.mkdir()
        words = ["conf", "--registry", registry.url, "--dir", "."]
        words += ["--token", token] if token else ["--anonymous"]
        done = forked().run(OWN_NAMESPACE, words, folder, environment(), DEADLINE)
        assert done.returncode == 0, done.stderr
        return node(folder)


@pytest.fixture
def enrol(tmp_path: Path) -> Enrolment:
    return Enrolment(tmp_path)


COMMUNITIES = ("# by location\n000 *\n001 FR @EU\n", "000 FR @EU\n001 *\n")
"""The first ones, and those since the operator changed them: so there are nodes in both."""


def with_communities(registry: Any, number: int) -> Any:
    path = registry.folder / f"communities{number}"
    path.write_text(COMMUNITIES[number])
    registry.command = [*registry.command, "--community", str(path)]
    return registry


@pytest.fixture
def network(their_registry: Any, enrol: Enrolment) -> Network:
    """What the deployed registry leaves: two communities, tokens, revoked ones, a key rotation half way."""
    with with_communities(their_registry, 0).running() as registry:
        nodes = [enrol(registry) for _ in range(3)]
        for token in ("usedtokn", "lefttokn", "lasttokn"):
            add_token(registry.url, token)
        nodes.append(enrol(registry, "usedtokn"))
        renewable, evicted = enrol(registry), enrol(registry)
        call(registry.url, None, lambda client: client.call("revoke", cn_or_serial=str(renewable.cert.serial_number)))
        call(registry.url, None, lambda client: client.call("revoke", cn_or_serial=evicted.prefix.cn))
    with with_communities(their_registry, 1).running() as registry:
        nodes += [enrol(registry) for _ in range(2)]
        call(registry.url, None, lambda client: client.call("updateHMAC"))
    # After updateHMAC the release on PyPI answers getNetworkConfig with 500, until it is started again.
    with their_registry.running() as registry:
        before = parameters(registry.url, nodes[0])
    assert [each.prefix.bits[:3] for each in nodes] == ["000"] * 4 + ["001"] * 2
    return Network(their_registry.folder, nodes, renewable, evicted, before)


def disjoint(nodes: Sequence[cert.Identity]) -> bool:
    leaves = sorted(each.prefix.bits for each in nodes)
    return not any(other.startswith(one) for one, other in pairwise(leaves))


def test_a_network_is_taken_over_half_way_through_a_key_rotation_and_may_go_back(
    network: Network, our_registry: Any, their_registry: Any, enrol: Enrolment
) -> None:
    before, nodes = network.before, network.nodes
    keys = before.babel_hmac_sign, before.babel_hmac_accept
    assert None not in keys
    serial = max(each.cert.serial_number for each in [*nodes, network.renewable, network.evicted])
    with with_communities(our_registry, 1).running() as registry:
        got = network.check(registry)
        assert (got.babel_hmac_sign, got.babel_hmac_accept) == keys
        assert got.crl == before.crl == {network.renewable.cert.serial_number, network.evicted.cert.serial_number}
        assert got.registry_prefix == nodes[0].prefix
        assert got.valid_until == before.valid_until
        assert got.version > before.version, "it is of a later protocol"

        # Tokens: the used one is spent, the others are good for one certificate, of the length stored with them.
        assert [is_token(registry.url, token) for token in ("usedtokn", "lefttokn", "lasttokn")] == [False, True, True]
        nodes.append(enrol(registry, "lefttokn"))
        assert (nodes[-1].prefix.bits[:3], nodes[-1].prefix.length) == ("001", 3 + 16)
        assert not is_token(registry.url, "lefttokn")
        # Allocation goes on: the next serial, the smallest free number, the community of today.
        nodes.append(enrol(registry))
        assert (nodes[-1].prefix.bits[:3], nodes[-1].prefix.length) == ("001", 3 + 20)
        assert [each.cert.serial_number for each in nodes[-2:]] == [serial + 1, serial + 2]
        numbers = [cert.number_of_cert(each.cert) for each in [*nodes, network.renewable]]
        assert sorted(number for number in numbers if number is not None) == list(range(len(numbers)))
        assert disjoint([*nodes, network.renewable])

        renewed = call(registry.url, network.renewable, lambda client: client.renew_certificate())
        assert renewed.serial_number == serial + 3
        assert pki.end_of(renewed) == pki.end_of(network.renewable.cert)
        nodes.append(cert.Identity(network.renewable.trust, renewed, network.renewable.key))

        # The next step of the rotation: nodes sign with the new key, and still accept the old one.
        call(registry.url, None, lambda client: client.call("updateHMAC"))
        half = network.check(registry)
        assert (half.babel_hmac_sign, half.babel_hmac_accept) == keys[::-1]
        assert half.version > got.version
    assert Checker(network.database).problems() == []

    with their_registry.running() as registry:
        assert network.check(registry).babel_hmac_sign == keys[1]
        assert is_token(registry.url, "lasttokn")
        nodes.append(enrol(registry, "lasttokn"))
        assert nodes[-1].cert.serial_number == serial + 4
        call(registry.url, None, lambda client: client.call("updateHMAC"))
    with their_registry.running() as registry:
        last = network.check(registry)
        assert (last.babel_hmac_sign, last.babel_hmac_accept) == (keys[1], None)
        assert last.version > half.version
        evicted = nodes.pop(1)
        call(registry.url, None, lambda client: client.call("revoke", cn_or_serial=evicted.prefix.cn))
        last = network.check(registry)

    with our_registry.running() as registry:
        again = network.check(registry)
        assert again.crl == last.crl
        assert evicted.cert.serial_number in again.crl
        assert again.babel_hmac_sign == last.babel_hmac_sign
        nodes.append(enrol(registry))
        assert nodes[-1].cert.serial_number == serial + 5
        assert cert.number_of_cert(nodes[-1].cert) == cert.number_of_cert(evicted.cert)
        assert disjoint(nodes)
        network.check(registry)
    assert Checker(network.database).problems() == []


def test_both_give_alike(network: Network, our_registry: Any, their_registry: Any, enrol: Enrolment) -> None:
    """From one and the same database: length, community, serial and number, in turn."""
    kept = network.folder / "kept.db"
    shutil.copy(network.database, kept)

    def given(registry: Any) -> list[tuple[str, int, int, int | None]]:
        for path in network.folder.glob("registry.db*"):
            path.unlink()
        shutil.copy(kept, network.database)
        with registry.running():
            found = [enrol(registry, "lefttokn"), *(enrol(registry) for _ in range(6))]
        assert disjoint([*network.nodes, *found])
        return [
            (each.prefix.bits[:3], each.prefix.length, each.cert.serial_number, cert.number_of_cert(each.cert))
            for each in found
        ]

    assert given(with_communities(our_registry, 1)) == given(their_registry)


@pytest.mark.parametrize("length", ["80", "13"])
def test_reserved_and_split_leaves_are_understood(
    their_registry: Any, our_registry: Any, enrol: Enrolment, length: str
) -> None:
    """With single addresses the first one is reserved; both registries go on in the other's tree."""
    for registry in (their_registry, our_registry):
        registry.command = [*registry.command, "--anonymous-prefix-length", length]
    found = []
    for registry in (their_registry, our_registry, their_registry, our_registry):
        with registry.running():
            found += [enrol(registry) for _ in range(2)]
    first = 1 if length == "80" else 0
    assert sorted(each.prefix.value for each in found) == list(range(first, first + 8))
    assert Checker(our_registry.folder / "registry.db").problems() == []


def test_certificates_stay_of_their_kind(network: Network, our_registry: Any, enrol: Enrolment) -> None:
    """The release on PyPI reads and writes blobs only."""
    with our_registry.running() as registry:
        network.nodes.append(enrol(registry))
    with closing(sqlite3.connect(network.database)) as database:
        kinds = database.execute("SELECT DISTINCT typeof(cert) FROM cert WHERE cert IS NOT NULL").fetchall()
    assert kinds == [("blob",)]
