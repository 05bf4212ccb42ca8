"""What tests of re6st-registry's commands start from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from re6st import cert
from re6st.cli.registry import main as registry
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import ROOT
from re6st.registryd.records import LastCall, Slot
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.sqlite.store import Store
from tests.unit.cli.registry.test_cli_registry import Process, wait_until
from tests.unit.operator_place import EMAILS, Place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a network with the nodes 0/16, 1/16 and 2/16."""
    directory = tmp_path_factory.mktemp("admin") / "etc"
    assert registry.main(["init", "--network", "2001:db8:42::/48", "--dir", str(directory), "--anonymous"]) == 0
    with (directory / "re6st-registry.conf").open("a") as file:
        file.write("db r.db\nlogfile log/r.log\nrun .\n")
    key = cert.new_key(2048)
    authority = cert.Authority(
        cert.load_pem((directory / "ca.crt").read_bytes()), cert.load_private_key((directory / "ca.key").read_bytes())
    )

    def make(slot: Slot) -> x509.Certificate:
        subject = cert.subject_for(x509.Name([]), slot.number, slot.prefix)
        return authority.issue(subject, key.public_key(), slot.serial, datetime.now(UTC))

    def fill(ledger: Ledger) -> None:
        for email in EMAILS:
            ledger.issue(ROOT, 16, email, make)
        ledger.set_config("babel_hmac0", bytes(16))
        ledger.mark_seen([LastCall(Prefix(1, 16), int(datetime.now(UTC).timestamp()), 10, "1.5, Linux", "rekey")])

    async def main() -> None:
        store = Store(directory / "r.db", authority.trust.network)
        await store.change(fill)
        store.close()

    asyncio.run(main())
    return directory


@pytest.fixture
def resting(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    for path in made.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return Place(tmp_path, capsys)


@pytest.fixture(params=["running", "resting"])
def place(resting: Place, request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "resting":
        yield resting
        return
    started = Process(resting.directory)
    try:
        wait_until(started.answers)
        wait_until((resting.directory / "r.db.sock").exists)
        resting.process = started
        yield resting
    finally:
        started.process.terminate()
        assert started.finish() == (0, "")
