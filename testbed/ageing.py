"""Certificates that end soon, as if the network were a year old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from re6st import cert
from testbed.network import Network, Node


def authority(network: Network) -> cert.Authority:
    directory = network.registry_directory
    key = cert.load_private_key((directory / "ca.key").read_bytes())
    return cert.Authority(cert.load_pem((directory / "ca.crt").read_bytes()), key)


def shorten(network: Network, node: Node, left: timedelta) -> None:
    """Give the node a certificate that ends soon, as if it had been issued a year ago; the registry knows it too."""
    path = node.host.etc / "cert.crt"
    old = cert.load_pem(path.read_bytes())
    now = datetime.now(UTC)
    new = authority(network).issue(
        old.subject, cert.key_of_cert(old), old.serial_number, now + left - cert.VALIDITY, now + left
    )
    path.write_bytes(cert.to_pem(new))
    assert network.stop_registry() == 0
    script = (
        "import sqlite3, sys; db = sqlite3.connect('registry.db');"
        "db.execute('UPDATE cert SET cert = ? WHERE prefix = ?', (open(sys.argv[1]).read(), sys.argv[2]));"
        "db.commit()"
    )
    network.registry_host.run(["python3", "-c", script, path, node.prefix.bits], cwd=network.registry_directory)
    network.start_registry()
