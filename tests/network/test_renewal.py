"""Certificates are renewed while the node runs: nobody who talks notices (wire.md 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from re6st import cert
from testbed import Bed, Network, Node, Pinger, wait_until
from testbed.ageing import authority, shorten

FORMS = 90
LONGEST_GAP = 5.0
"""Seconds without an answer that are too many; usually there is none."""


@pytest.fixture
def network(bed: Bed) -> Network:
    network = Network(bed, 4, registry_options=["--hello", "2"])
    network.create()
    network.enrol()
    return network


def own(node: Node) -> Path:
    return node.host.etc / "cert.crt"


def load(path: Path) -> x509.Certificate:
    return cert.load_pem(path.read_bytes())


def start(network: Network) -> None:
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)


def logged(node: Node, text: str) -> bool:
    return text in (node.host.log / "re6stnet.log").read_text()


@pytest.mark.parametrize("left", [timedelta(days=20), timedelta(0)], ids=["ends soon", "has ended"])
def test_a_certificate_is_renewed_at_the_start(network: Network, bed: Bed, left: timedelta) -> None:
    node = network.nodes[2]
    shorten(network, node, left)
    old = load(own(node))
    start(network)
    wait_until(lambda: load(own(node)) != old, 30, "the certificate is renewed", bed.tails)
    assert load(own(node)).not_valid_after_utc > datetime.now(UTC) + timedelta(days=300)
    network.wait_connected(FORMS)


def test_a_revoked_serial_is_replaced_everywhere(
    network: Network, bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    *_, node, other = network.nodes
    start(network)
    before, processes = load(own(node)), set(node.pids("openvpn"))
    pinger = Pinger(other.host, node.address)
    with pinger.running():
        # By its serial only, which has it renewed at once.
        network.call("revoke", f"cn_or_serial={before.serial_number}")
        wait_until(lambda: load(own(node)) != before, 30, "the certificate is renewed", bed.tails)
        wait_until(lambda: not processes & set(node.pids("openvpn")), 90, "no process has the old one", bed.tails)
    network.wait_connected(FORMS)
    record_property("pings", str(pinger))
    print(pinger)


def test_nobody_notices_a_renewal(network: Network, bed: Bed, record_property: Callable[[str, object], None]) -> None:
    *_, node, other = network.nodes
    shorten(network, node, cert.RENEW_BEFORE + timedelta(seconds=20))
    start(network)
    before, processes = load(own(node)), set(node.pids("openvpn"))
    pinger = Pinger(other.host, node.address)
    with pinger.running():
        wait_until(lambda: load(own(node)) != before, 60, "the certificate is renewed", bed.tails)
        wait_until(lambda: not processes & set(node.pids("openvpn")), 90, "no process has the old one", bed.tails)
    network.wait_connected(FORMS)
    record_property("pings", str(pinger))
    print(pinger)
    assert pinger.longest < 2 * LONGEST_GAP


def test_the_ca_is_renewed_by_one_of_the_same_key_only(network: Network, bed: Bed) -> None:
    real = authority(network)
    now = datetime.now(UTC)
    near = renewed_ca(real, now - timedelta(days=3600), now + timedelta(days=20))
    for node in network.nodes[1:]:
        (node.host.etc / "ca.crt").write_bytes(cert.to_pem(near))
    start(network)
    for node in network.nodes[1:]:
        wait_until(lambda: load(node.host.etc / "ca.crt") == real.trust.ca, 30, "the CA is renewed", bed.tails)  # noqa: B023
    network.wait_connected(FORMS)


def test_nobody_notices_that_the_ca_is_renewed(
    network: Network, bed: Bed, record_property: Callable[[str, object], None]
) -> None:
    real = authority(network)
    now = datetime.now(UTC)
    near = renewed_ca(real, now - timedelta(days=3600), now + cert.RENEW_BEFORE + timedelta(seconds=15))
    for node in network.nodes:
        (node.host.etc / "ca.crt").write_bytes(cert.to_pem(near))
    start(network)
    before = {node: set(node.pids("openvpn")) for node in network.nodes}
    assert all(load(node.host.etc / "ca.crt") == near for node in network.nodes)
    *_, one, other = network.nodes
    pinger = Pinger(one.host, other.address)

    def anew() -> bool:
        return not any(before[node] & set(node.pids("openvpn")) for node in network.nodes)

    with pinger.running():
        for node in network.nodes:
            taken = lambda: load(node.host.etc / "ca.crt") == real.trust.ca  # noqa: E731, B023
            wait_until(taken, 60, "the CA is renewed", bed.tails)
        wait_until(anew, 120, "no process has the old one", bed.tails)
    network.wait_connected(FORMS)
    record_property("pings", str(pinger))
    print(pinger)
    assert pinger.longest < 2 * LONGEST_GAP


def renewed_ca(authority: cert.Authority, start: datetime, end: datetime) -> x509.Certificate:
    """The CA with other dates."""
    old = authority.trust.ca
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .serial_number(old.serial_number)
        .not_valid_before(start)
        .not_valid_after(end)
        .public_key(authority.key.public_key())
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(authority.key, hashes.SHA512())
