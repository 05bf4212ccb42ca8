"""Certificates and the CA's are renewed, whatever fails (wire.md 2.3)."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from re6st import cert
from re6st.client.registry_client import RegistryError
from re6st.linux import disk
from re6st.linux.process import Backoff
from re6st.noded import registry_updates
from tests.unit.fake_program import until
from tests.unit.registry_updates_world import NETWORK, YEAR, World, started


def test_a_certificate_near_its_end_is_renewed(
    caplog: pytest.LogCaptureFixture, make_world: Callable[..., World]
) -> None:
    world = started(make_world(ends=timedelta(days=20)))
    new = world.registry.certificate = world.issue(9, YEAR)

    async def watch() -> None:
        await until(lambda: world.changes)

    world.run(watch)
    assert world.updates.identity.cert == new
    assert world.registry.identity is world.updates.identity, "the registry's client goes on with it"
    assert cert.load_pem(world.files.cert.read_bytes()) == new
    assert world.registry.renewed == 1
    assert "expires" not in caplog.text


def test_a_certificate_with_time_left_is_not(world: World) -> None:
    started(world)
    world.run(lambda: asyncio.sleep(0.05))
    assert world.registry.renewed == 0


def test_our_revoked_certificate_is_renewed_at_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    started(world)
    world.registry.certificate = world.issue(9, YEAR)
    world.registry.parameters = world.registry.version(2, crl=frozenset({2}))

    async def watch() -> None:
        await asyncio.sleep(0.01)
        world.updates.refresh()
        await until(lambda: world.updates.identity.cert.serial_number == 9)

    world.run(watch)
    assert "our certificate 2 is revoked" in caplog.text


@pytest.mark.parametrize("answer", [RegistryError("registry down."), cert.CertError("no good")])
def test_a_renewal_that_fails_leaves_everything_as_it_was(
    answer: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    make_world: Callable[..., World],
) -> None:
    monkeypatch.setattr(registry_updates, "RENEW_CHECK", 0.01)
    world = started(make_world(ends=timedelta(days=20)))
    world.registry.certificate = answer
    before = world.files.cert.read_bytes()

    async def watch() -> None:
        await until(lambda: world.registry.renewed)
        await asyncio.sleep(0.1)

    world.run(watch)
    assert world.registry.renewed == 1, "the next try is a day later"
    assert world.files.cert.read_bytes() == before
    assert world.changes == []
    assert str(answer) in caplog.text
    assert caplog.text.count("our certificate expires in 20 days and is not renewed yet") == 1


def test_while_the_registry_is_away_the_end_of_a_certificate_is_said_ever_more_urgently(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, make_world: Callable[..., World]
) -> None:
    """A month in hours, each of which takes a moment."""
    monkeypatch.setattr(registry_updates, "RENEW_CHECK", 0.0)
    world = started(make_world(ends=timedelta(days=31)))
    world.registry.certificate = RegistryError("registry down.")
    first, hours = datetime.now(UTC), 0

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            nonlocal hours
            hours += 1
            return first + timedelta(minutes=30 * hours)  # read twice an hour

    monkeypatch.setattr(registry_updates, "datetime", Clock)

    async def watch() -> None:
        await until(lambda: "has expired" in caplog.text)
        world.registry.certificate = world.issue(9, YEAR)
        await until(lambda: world.changes)

    world.run(watch)
    said = [
        (r.levelname, re.sub(r" \d+ h", " hours", r.message.split(" and")[0]))
        for r in caplog.records
        if "not renewed yet" in r.message
    ]
    assert said == [
        *(("WARNING", f"our certificate expires in {days} days") for days in (30, 14, 7)),
        ("ERROR", "our certificate expires in 3 days"),
        ("ERROR", "our certificate expires in hours"),
        ("ERROR", "our certificate has expired"),
    ]
    assert "certificate renewal: registry down. Next try in 1 d." in caplog.text


def test_a_certificate_that_cannot_be_written_is_used_anyway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make_world: Callable[..., World]
) -> None:
    world = make_world(ends=timedelta(days=20))
    world.files = replace(world.files, cert=tmp_path / "nowhere" / "cert.crt")
    world.again()
    started(world)
    world.registry.certificate = world.issue(9, YEAR)

    async def watch() -> None:
        await until(lambda: world.changes)
        await until(lambda: "certificate renewal" in caplog.text)

    world.run(watch)
    assert world.updates.identity.cert.serial_number == 9


def test_one_that_could_not_be_written_is_not_given_up_for_the_file_that_is_still_there(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, make_world: Callable[..., World]
) -> None:
    """The file's is about to end, or revoked."""
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    world = started(make_world(ends=timedelta(days=20)))
    world.files.key.write_bytes(cert.key_to_pem(world.key))
    world.registry.certificate = world.issue(9, YEAR)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk, "replace_file", refuse)

    async def watch() -> None:
        await until(lambda: "certificate renewal" in caplog.text)
        await asyncio.sleep(0.05)
        os.utime(world.files.cert, (1, 1))
        await asyncio.sleep(0.05)

    world.run(watch)
    assert world.updates.identity.cert.serial_number == 9


def test_one_that_could_not_be_written_is_written_later(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk was full. What somebody else puts there meanwhile is his."""
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    world.registry.parameters = world.registry.version(1, crl=frozenset({2}))
    world.files.key.write_bytes(cert.key_to_pem(world.key))
    started(world)
    world.registry.certificate = world.issue(9, YEAR)
    write, full = disk.replace_file, True

    def try_to(path: Path, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(disk, "replace_file", try_to)

    async def watch() -> None:
        nonlocal full
        await until(lambda: "No space left on device. It is used" in caplog.text)
        full = False
        await until(lambda: cert.load_pem(world.files.cert.read_bytes()).serial_number == 9)

    world.run(watch)
    assert caplog.text.count("No space left") == 1
    assert world.updates.identity.cert.serial_number == 9


@pytest.mark.parametrize("restart", [False, True])
def test_a_revoked_certificate_is_renewed_whatever_fails_first(
    restart: bool, caplog: pytest.LogCaptureFixture, make_world: Callable[..., World]
) -> None:
    """At a mass revocation the registry turns many away; and a node may be restarted just then."""
    world = started(make_world(ends=YEAR))
    world.registry.parameters = world.registry.version(2, crl=frozenset({2}))
    world.registry.certificate = RegistryError("registry down.")

    async def tries() -> None:
        await asyncio.sleep(0.01)
        world.updates.refresh()
        await until(lambda: world.registry.renewed > 3)

    async def watch() -> None:
        if not restart:
            await tries()
        world.registry.certificate = world.issue(9, YEAR)
        await until(lambda: world.updates.identity.cert.serial_number == 9)

    if restart:
        world.run(tries)
        world.registry.parameters = RegistryError("registry down.")  # it has no other news
        world.again()
        started(world)
    world.run(watch)
    assert cert.load_pem(world.files.cert.read_bytes()).serial_number == 9


def test_a_second_revocation_is_followed_as_the_first(world: World) -> None:
    started(world)

    async def watch() -> None:
        await asyncio.sleep(0.01)
        for number, (old, new) in enumerate(((2, 9), (9, 10), (10, 11)), 2):
            world.registry.certificate = world.issue(new, YEAR)
            world.registry.parameters = world.registry.version(number, crl=frozenset(range(2, old + 1)))
            world.updates.refresh()
            await until(lambda new=new: world.updates.identity.cert.serial_number == new)  # type: ignore[misc]

    world.run(watch)
    assert world.registry.renewed == 3


def test_a_registry_that_hands_out_what_is_revoked_is_not_asked_without_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next", lambda self: 3600.0)
    world.registry.parameters = world.registry.version(1, crl=frozenset({2, 9}))
    started(world)
    world.registry.certificate = world.issue(9, YEAR)

    async def watch() -> None:
        await until(lambda: world.registry.renewed)
        await asyncio.sleep(0.05)

    world.run(watch)
    assert world.registry.renewed == 1


def test_an_expired_certificate_is_not_left_for_a_day(make_world: Callable[..., World]) -> None:
    """A machine that was off for long starts while its line is not up yet."""
    world = started(make_world(ends=timedelta(hours=-1)))
    world.registry.certificate = RegistryError("registry down.")

    async def watch() -> None:
        await until(lambda: world.registry.renewed > 1)
        world.registry.certificate = world.issue(9, YEAR)
        await until(lambda: world.changes)

    world.run(watch)


def test_a_ca_near_its_end_is_renewed_but_not_by_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch, nodes: dict[str, cert.Identity]
) -> None:
    monkeypatch.setattr(cert, "RENEW_BEFORE", timedelta(days=36500))
    now = datetime.now(UTC)
    other = cert.new_ca(nodes["0/16"].key, NETWORK, "evil", "x@example.com", now)
    newer = cert.new_ca(world.authority.key, NETWORK, "re6st.example.com", "x@example.com", now)
    monkeypatch.setattr(registry_updates, "RENEW_CHECK", 0.01)
    monkeypatch.setattr(registry_updates, "RENEW_RETRY", 0.0)
    started(world)
    world.registry.ca = other

    async def watch() -> None:
        await asyncio.sleep(0.1)
        assert world.updates.identity.trust.ca != other
        world.registry.ca = newer
        await until(lambda: world.updates.identity.trust.ca == newer)

    world.run(watch)
    assert cert.load_pem(world.files.ca.read_bytes()) == newer
