"""Certificates and keys that somebody else puts into the place of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.client.registry_client import RegistryError
from re6st.core.prefix import Prefix
from re6st.keys import pki
from re6st.linux import disk
from re6st.noded import registry_updates
from tests.unit.fake_program import until
from tests.unit.registry_updates_world import OWN, YEAR, World, started


def put(world: World, new: x509.Certificate, key: rsa.RSAPrivateKey | None = None) -> None:
    """As re6st-conf does."""
    disk.replace_file(world.files.cert, cert.to_pem(new))
    disk.replace_file(world.files.key, cert.key_to_pem(key or world.key))


def test_a_certificate_put_into_its_place_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    put(world, world.registry.identity.cert)
    started(world)
    key = cert.new_key()
    subject = cert.subject_for(x509.Name([]), 2, OWN)
    now = datetime.now(UTC)
    new = world.authority.issue(subject, key.public_key(), 9, now, now + YEAR)

    async def watch() -> None:
        await asyncio.sleep(0.05)
        assert world.changes == [], "what is the same is no news"
        put(world, new, key)
        await until(lambda: world.changes)

    world.run(watch)
    assert world.updates.identity.cert == world.registry.identity.cert == new
    assert pki.same_key(world.updates.identity.key.public_key(), key.public_key())


def test_what_does_not_fit_is_said_once_and_left(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry_updates, "LOOK", 0.01)
    started(world)
    other = world.issue(9, YEAR, prefix=Prefix(7, 16))

    async def watch() -> None:
        for text, certificate, key in (
            ("does not belong to", world.issue(8, YEAR), cert.new_key()),
            ("is for 7/16, of another subnet", other, world.key),
        ):
            put(world, certificate, key)
            await until(lambda: text in caplog.text)  # noqa: B023
            await asyncio.sleep(0.05)
            assert caplog.text.count(text) == 1

    world.run(watch)
    assert world.changes == []


def test_a_registry_that_knows_another_key_has_the_files_read_at_once(world: World) -> None:
    """re6st-conf rekey has just been there."""
    put(world, world.registry.identity.cert)
    started(world)
    world.updates._look_at_files()
    new = world.issue(9, YEAR)
    put(world, new)
    good = world.registry.version(2)
    world.registry.parameters = RegistryError("not encrypted for our key")

    def changed() -> None:
        world.registry.parameters = good

    world.then = changed

    async def watch() -> None:
        world.updates.refresh()
        await until(lambda: world.updates.parameters == good)

    world.run(watch)
    assert world.changes[0][1].cert == new


@pytest.mark.parametrize("seen", [True, False])
def test_a_key_that_was_changed_while_a_renewal_was_under_way_stays(
    authority: cert.Authority, monkeypatch: pytest.MonkeyPatch, seen: bool, make_world: Callable[..., World]
) -> None:
    """The certificate for the old one, that comes then, must not take the place of the new one's."""
    world = started(make_world(ends=timedelta(days=20)))
    key, now = cert.new_key(), datetime.now(UTC)
    new = world.authority.issue(cert.subject_for(x509.Name([]), 9, OWN), key.public_key(), 9, now, now + YEAR)
    late = world.issue(8, YEAR)

    async def renew() -> x509.Certificate:
        put(world, new, key)
        assert not seen or world.updates._look_at_files()
        return late

    monkeypatch.setattr(world.registry, "renew_certificate", renew)

    async def watch() -> None:
        await until(lambda: world.changes)
        await asyncio.sleep(0.05)

    world.run(watch)
    files = world.files
    for identity in (world.updates.identity, cert.Identity.load(files.ca, files.cert, files.key, datetime.now(UTC))):
        assert identity.cert == new
        assert pki.same_key(identity.key.public_key(), key.public_key())
