"""What the registry keeps in order: a wrong clock harms nobody, what ended goes, a new CA certificate is served."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.core.wire.params import version_number
from re6st.keys import pki
from tests.unit.registry_world import DAY, START, A, B, World

YEAR = 365 * DAY


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def rows(world: World, statement: str) -> list[tuple[Any, ...]]:
    other = sqlite3.connect(world.directory / "registry.db")
    try:
        return other.execute(statement).fetchall()
    finally:
        other.close()


async def refuses_to_date(world: World) -> None:
    """Everything that the clock would date is refused; the rest is served."""
    ratchet = await world.hello(B)
    assert (await world.call("requestCertificate", token="", req=world.request())).status == 503
    assert (await world.call("requestCertificate", token="sesame", req=world.request())).status == 503
    assert (await world.in_session(ratchet, "renewCertificate", B)).status == 503
    assert (await world.call("addToken", email="a@b.c", token="second")).status == 503
    assert (await world.call("updateHMAC")).status == 503
    assert (await world.parameters(B)).crl == {3}
    assert (await world.call("getCa")).status == 200
    assert (await world.call("isToken", token="sesame")).body == b"1"


async def fill(world: World) -> None:
    """Two nodes, a revoked one, and a token."""
    for _ in range(3):
        await world.enrol()
    assert (await world.call("revoke", cn_or_serial="3")).status == 204
    assert (await world.call("addToken", email="a@b.c", token="sesame")).status == 204


@pytest.mark.parametrize("jump", [YEAR, 5 * YEAR, -YEAR, -5 * YEAR])
@pytest.mark.parametrize("restart", [False, True])
def test_a_wrong_clock_drops_and_dates_nothing(
    world: World, caplog: pytest.LogCaptureFixture, jump: float, restart: bool
) -> None:
    async def before(world: World) -> None:
        await fill(world)
        world.now += DAY
        if not restart:
            await trouble(world)

    async def trouble(world: World) -> None:
        old = {table: rows(world, f"SELECT * FROM {table}") for table in ("cert", "crl", "token")}
        world.wrong = jump
        await world.registry.parameter_service.clean_up()
        await refuses_to_date(world)
        world.now += 10 * DAY
        await world.registry.parameter_service.clean_up()
        assert old == {table: rows(world, f"SELECT * FROM {table}") for table in old}
        complaints = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(complaints) == 1, "said once"
        assert "the clock says" in complaints[0]
        assert "--trust-clock" in complaints[0]
        world.wrong = 0.0
        await world.enrol("sesame")
        assert (await world.call("updateHMAC")).status == 204
        assert "plausible again" in caplog.text

    world.run(before)
    if restart:
        world.wrong = jump
        world.run(trouble)


def test_a_revocation_counts_whatever_the_clock_says(world: World) -> None:
    """By a clock that is ahead the certificate has ended, which would let it stay in."""

    async def test(world: World) -> None:
        await fill(world)
        world.wrong = 5 * YEAR
        assert (await world.call("revoke", cn_or_serial="1/16")).status == 204
        assert (await world.parameters(A)).crl == {2, 3}

    world.run(test)


def test_the_operator_may_say_that_the_clock_is_right(world: World) -> None:
    async def later(world: World) -> None:
        assert (await world.call("requestCertificate", token="", req=world.request())).status == 503
        world.registry.parameter_service.trust_clock()
        await world.registry.parameter_service.clean_up()
        assert cert.prefix_of_cert(await world.enrol()) == B, "what ended is gone"
        assert rows(world, "SELECT * FROM crl") == []

    world.run(fill)
    world.now += 2 * YEAR
    world.run(later)


def test_time_off_does_not_count_for_the_grace_period(world: World) -> None:
    """Nobody could renew while the registry was off."""
    world.settings = replace(world.settings, grace=0)

    async def before(world: World) -> None:
        await fill(world)
        world.now = START + YEAR - DAY
        await world.registry.parameter_service.clean_up()

    async def after(world: World) -> None:
        assert (await world.in_session(await world.hello(B), "renewCertificate", B)).status == 200
        assert len(rows(world, "SELECT * FROM cert WHERE cert IS NOT NULL")) == 3
        world.now += DAY
        await world.registry.parameter_service.clean_up()
        assert len(rows(world, "SELECT * FROM cert WHERE cert IS NOT NULL")) == 2

    world.run(before)
    world.now += 30 * DAY
    world.run(after)


def test_revocations_of_ended_certificates_go_and_count_once(world: World) -> None:
    async def test(world: World) -> None:
        await fill(world)
        await world.call("revoke", cn_or_serial="1/16")
        before = await world.parameters(A)
        assert before.crl == {2, 3}
        world.now += YEAR + 1
        await world.registry.parameter_service.clean_up()
        after = await world.parameters(A)
        assert after.crl == frozenset()
        assert version_number(after.version) == version_number(before.version) + 1
        await world.registry.parameter_service.clean_up()
        assert (await world.parameters(A)).version == after.version

    world.run(test)


def test_what_ended_is_free_again_and_merged_but_the_registry_node_stays(world: World) -> None:
    async def test(world: World) -> None:
        for _ in range(8):
            await world.enrol()
        world.now += YEAR + world.settings.grace + 1
        await world.registry.parameter_service.clean_up()
        leaves = {(bits, value is None) for bits, value in rows(world, "SELECT prefix, cert FROM cert")}
        assert leaves == {("0" * 16, False), *(("0" * n + "1", True) for n in range(16))}
        assert (await world.call("hello", client_prefix=A.bits)).status == 200, "it may still renew"
        assert (await world.call("hello", client_prefix=B.bits)).status == 404
        assert cert.prefix_of_cert(await world.enrol()) == B

    world.run(test)


def test_the_clean_up_comes_by_itself(world: World) -> None:
    delays: list[float] = []

    async def sleep(delay: float) -> None:
        delays.append(delay)
        world.now += delay
        await asyncio.sleep(3600 if len(delays) > 50 else 0)

    async def test(world: World) -> None:
        await fill(world)
        world.now += YEAR - 5000
        running = asyncio.create_task(world.registry.parameter_service.run())
        async with asyncio.timeout(10):
            while rows(world, "SELECT * FROM crl"):
                await asyncio.sleep(0.01)
        running.cancel()
        assert max(delays) <= 3600.0
        assert sum(delays[:2]) <= 5000, "it wakes up when the revoked certificate has ended"

    world.sleep = sleep
    world.run(test)


def test_the_end_of_the_authoritys_certificate_is_said(
    world: World, authority: cert.Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def sleep(delay: float) -> None:
        world.now += delay
        await asyncio.sleep(0)

    async def test(world: World) -> None:
        world.now = pki.end_of(authority.trust.ca).timestamp() - 31 * DAY
        running = asyncio.create_task(world.registry.parameter_service.run())
        async with asyncio.timeout(20):
            while "has expired" not in caplog.text:
                await asyncio.sleep(0.01)
        running.cancel()

    world.sleep = sleep
    world.run(test)
    said = [(r.levelname, r.message) for r in caplog.records if "the CA certificate" in r.message]
    assert said == [
        *(("WARNING", f"the CA certificate expires in {days} days and is not renewed yet") for days in (30, 14, 7)),
        ("ERROR", "the CA certificate expires in 3 days and is not renewed yet"),
        ("ERROR", "the CA certificate expires in 23 h and is not renewed yet"),
        ("ERROR", "the CA certificate has expired and is not renewed yet"),
    ]


def test_parameters_that_could_not_be_read_again_are_not_served(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        await fill(world)
        before = await world.parameters(A)

        def fails() -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(world.store.rows, "crl", fails)
        assert (await world.call("revoke", cn_or_serial="2")).status == 503
        assert (await world.in_session(await world.hello(A), "getNetworkConfig", A)).status == 503
        monkeypatch.undo()
        after = await world.parameters(A)
        assert after.crl == {2, 3}
        assert after.version > before.version

    world.run(test)


def test_another_registry_may_have_issued_in_between(world: World) -> None:
    """An operator went back to the other software for half a year, which knows nothing of our marks."""

    async def between(world: World) -> None:
        await world.enrol()

    async def after(world: World) -> None:
        await world.enrol()

    world.run(fill)
    kept = rows(world, "SELECT trusted, seen FROM re6st_clock")[0]
    world.now += YEAR / 2
    other = sqlite3.connect(world.directory / "registry.db")
    other.execute("DELETE FROM re6st_clock")
    other.commit()
    world.run(between)
    other.execute("UPDATE re6st_clock SET trusted = ?, seen = ?", kept)
    other.commit()
    other.close()
    world.run(after)
