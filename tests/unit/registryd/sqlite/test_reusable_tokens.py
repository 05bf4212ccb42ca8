"""A registry that is killed never lets in more machines than an invitation says, and forgets none that it let in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from re6st.registryd.records import NodeFilter
from re6st.registryd.repository import Queries
from re6st.registryd.sqlite.store import Store

NETWORK = IPv6Network("2001:db8:42::/48")
USES = 12

ENROL = """
import asyncio, sys
from datetime import UTC, datetime
from ipaddress import IPv6Network
from pathlib import Path
from cryptography import x509
from re6st import cert
from re6st.core.registry.allocator import ROOT
from re6st.registryd.sqlite.store import Store

_, path, ca, key, network = sys.argv
authority = cert.Authority(cert.load_pem(Path(ca).read_bytes()), cert.load_private_key(Path(key).read_bytes()))

def make(slot):
    subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
    return authority.issue(subject, authority.key.public_key(), slot.serial, datetime(2027, 6, 1, tzinfo=UTC))

def enrol(changes):
    known = changes.token("t")
    if known is None:
        return False
    changes.use_token("t")
    changes.set_tags(changes.issue(ROOT, known.prefix_length, None, make).prefix, known.tags)
    return True

async def main():
    store = Store(Path(path), IPv6Network(network))
    while await store.change(enrol):
        print("enrolled", flush=True)
    print("spent", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def arguments(tmp_path: Path, vector: Callable[[str], Any]) -> list[str]:
    pki = vector("pki")
    for name in ("ca_crt", "ca_key"):
        (tmp_path / name).write_text(pki[name])
    return [str(tmp_path / name) for name in ("registry.db", "ca_crt", "ca_key")] + [str(NETWORK)]


def test_the_count_is_never_exceeded_by_a_registry_that_is_killed(arguments: list[str]) -> None:
    path = Path(arguments[0])
    store = Store(path, NETWORK)
    asyncio.run(_changed(store))
    store.close()
    acknowledged = 0
    for most in (1, 4, USES):
        with subprocess.Popen([sys.executable, "-c", ENROL, *arguments], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [process.stdout.readline().strip() for _ in range(most) if process.poll() is None]
            process.kill()
            said += process.stdout.read().split()
        acknowledged += said.count("enrolled")
        store = Store(path, NETWORK)
        enrolled, left = asyncio.run(_state(store))
        store.close()
        assert enrolled + left == USES
        assert acknowledged <= enrolled <= USES, "what was said is true; what was not may have been done"
    assert left == 0, "the last one was let work until nothing was left"


async def _changed(store: Store) -> None:
    await store.change(lambda changes: changes.add_token("t", "", 16, 1.0, uses=USES, tags=("web",)))


async def _state(store: Store) -> tuple[int, int]:
    """How many nodes there are, and how many more the token is good for."""
    nodes = await store.browse(lambda lists: lists.nodes(NodeFilter(), "", 99))
    assert all(node.tags == ("web",) for node in nodes), "no node is without what its invitation gave"

    def left(queries: Queries) -> int:
        known = queries.token("t")
        return known.uses if known else 0

    return len(nodes), await store.read(left)
