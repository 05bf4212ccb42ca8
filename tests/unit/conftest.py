"""The recorded vectors (wire.md, first table) as values: a CA and the nodes 0/16 and 1/16, with their keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import settings

from re6st import cert
from re6st.registryd.postgresql import watch
from tests.postgresql_cluster import FAST, Cluster, Opener, in_postgresql

VECTORS = Path(__file__).parent.parent / "vectors"

# By default an example that takes 0.2 s fails: on a busy machine any of them may.
settings.register_profile("however busy the machine is", deadline=None)
settings.load_profile("however busy the machine is")


@pytest.fixture(scope="session", autouse=True)
def wrong_keys_are_told() -> Iterator[None]:
    """Who decrypts with a wrong key in a test learns it.

    OpenSSL 3.2 and later give bytes of chance instead of an error (implicit rejection, for Bleichenbacher's attack);
    in one of 250 cases there are as many as a secret has, and a test that waits for the refusal would wait in vain.
    """
    made: dict[bytes, bytes] = {}
    encrypt, decrypt = cert.encrypt, cert.decrypt

    def noted(certificate: x509.Certificate, data: bytes) -> bytes:
        encrypted = encrypt(certificate, data)
        made[encrypted] = data
        return encrypted

    def checked(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
        plain = decrypt(key, data)
        if made.get(data, plain) != plain:
            raise cert.CertError("cannot be decrypted with our key")
        return plain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cert, "encrypt", noted)
        patch.setattr(cert, "decrypt", checked)
        yield


@pytest.fixture(scope="session")
def vector() -> Callable[[str], Any]:
    """Loads a vector by its name."""

    def load(name: str) -> Any:
        return json.loads((VECTORS / f"{name}.json").read_text())

    return load


@pytest.fixture(scope="session")
def when() -> datetime:
    """A time at which the certificates of the vectors are valid."""
    return datetime(2027, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def authority(vector: Callable[[str], Any]) -> cert.Authority:
    """The CA of the vectors."""
    pki = vector("pki")
    return cert.Authority(cert.load_pem(pki["ca_crt"].encode()), cert.load_private_key(pki["ca_key"].encode()))


@pytest.fixture(scope="session")
def nodes(vector: Callable[[str], Any], authority: cert.Authority) -> dict[str, cert.Identity]:
    """The nodes of the vectors by their CN."""
    return {
        node["cn"]: cert.Identity(
            authority.trust, cert.load_pem(node["crt"].encode()), cert.load_private_key(node["key"].encode())
        )
        for node in vector("pki")["nodes"]
    }


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL for the tests of one process, each of which makes databases of its own."""
    made = Cluster(*FAST)
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def registries_look_often_for_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test waits for that, and for the end of the look."""
    monkeypatch.setattr(watch, "INTERVAL", 0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest) -> Opener | None:
    """What opens the same state in PostgreSQL each time; None for one in a file. For tests that any store must pass."""
    if request.param == "sqlite":
        return None
    return in_postgresql(request.getfixturevalue("cluster").database())
