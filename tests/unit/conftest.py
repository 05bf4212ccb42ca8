"""The recorded vectors (wire.md, first table) as values: a CA and the nodes 0/16 and 1/16, with their keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from re6st import cert

VECTORS = Path(__file__).parent.parent / "vectors"


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
