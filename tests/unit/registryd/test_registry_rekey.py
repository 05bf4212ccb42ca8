"""Another key for the same subnet, at a registry over real HTTP (docs/protocol.md, "Changing a key")."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from re6st import cert
from re6st.client.registry_client import RegistryClient, RegistryKeyError, RegistryRefused
from re6st.core.prefix import Prefix
from re6st.core.wire.params import version_number
from re6st.keys import pki
from re6st.registryd.parameters import MEMBER_VERSIONS
from re6st.registryd.rekey import CHANGES
from re6st.registryd.sqlite.check import check
from re6st.registryd.sqlite.ledger import Ledger
from re6st.registryd.stored_certificates import Believed
from tests.unit.registry_world import DAY, START, A, B, World


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return cert.new_key()


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def member(world: World) -> cert.Identity:
    """The second member; the first is the registry's node."""
    await world.enrol()
    return cert.Identity(world.authority.trust, await world.enrol(), world.key)


def client(world: World, identity: cert.Identity, key: rsa.RSAPrivateKey | None = None) -> RegistryClient:
    return RegistryClient(f"http://127.0.0.1:{world.port}/", identity, key=key)


def test_the_new_certificate_is_the_old_one_with_another_key(world: World, key: rsa.RSAPrivateKey) -> None:
    async def test(world: World) -> None:
        old = await member(world)
        world.now += 30 * DAY
        new = await client(world, old).rekey_certificate(key)
        assert pki.same_key(cert.key_of_cert(new), key.public_key())
        assert new.subject == old.cert.subject
        assert pki.end_of(new) == pki.end_of(old.cert)
        assert new.serial_number == 3
        assert (await world.parameters()).crl == frozenset()  # the old one is good until its holder says so

    world.run(test)


def test_near_its_end_it_is_renewed_too(world: World, key: rsa.RSAPrivateKey) -> None:
    async def test(world: World) -> None:
        old = await member(world)
        world.now += 340 * DAY
        new = await client(world, old).rekey_certificate(key)
        assert pki.end_of(new).timestamp() == world.now + 365 * DAY

    world.run(test)


def test_the_old_key_is_refused_from_then_on(world: World, key: rsa.RSAPrivateKey) -> None:
    async def test(world: World) -> None:
        old = await member(world)
        thief = client(world, old)  # with a session from before
        assert await thief.get_dh()
        new = cert.Identity(old.trust, await client(world, old).rekey_certificate(key), key)
        for _ in range(2):
            with pytest.raises(RegistryKeyError, match="another key for 1/16"):
                await thief.revoke_superseded()
        assert await client(world, new).get_dh()

    world.run(test)


def test_asked_again_it_gives_the_same(world: World, key: rsa.RSAPrivateKey) -> None:
    """The answer to the first call may have been lost: only the new key opens a session then."""

    async def test(world: World) -> None:
        old = await member(world)
        first = await client(world, old).rekey_certificate(key)
        assert await client(world, old, key).rekey_certificate(key) == first

    world.run(test)


def test_what_was_replaced_is_revoked_when_the_new_key_says_so(world: World, key: rsa.RSAPrivateKey) -> None:
    async def test(world: World) -> None:
        old = await member(world)
        world.now += 336 * DAY
        own = client(world, old)
        own.identity = cert.Identity(old.trust, await own.renew_certificate(), world.key)
        renewed = own.identity.cert.serial_number
        before = await world.parameters()
        new = cert.Identity(old.trust, await own.rekey_certificate(key), key)
        own = client(world, new)
        await own.revoke_superseded()
        after = await world.parameters()
        assert after.crl == {old.cert.serial_number, renewed}
        assert version_number(after.version) == version_number(before.version) + 1
        await own.revoke_superseded()
        assert await world.parameters() == after, "nobody is told of nothing"
        assert not check(world.directory / "registry.db", world.authority.trust).findings
        assert (await own.renew_certificate()) == new.cert
        rows = world.store.rows._db.execute("SELECT serial, reason FROM re6st_revoked ORDER BY serial").fetchall()
        assert rows == [(2, "its key was changed"), (3, "its key was changed")]

    world.run(test)


def test_many_changes_make_few_versions_and_all_are_told(world: World, key: rsa.RSAPrivateKey) -> None:
    """Each version makes all nodes ask for it, and members cause these."""

    async def test(world: World) -> None:
        await world.enrol()
        before = version_number((await world.parameters()).version)
        serials = set()
        for _ in range(MEMBER_VERSIONS + 5):
            old = cert.Identity(world.authority.trust, await world.enrol(), world.key)
            new = cert.Identity(old.trust, await client(world, old).rekey_certificate(key), key)
            await client(world, new).revoke_superseded()
            serials.add(old.cert.serial_number)
        told = await world.parameters()
        assert version_number(told.version) == before + MEMBER_VERSIONS
        assert len(told.crl) == MEMBER_VERSIONS
        await world.registry.parameter_service.review()  # as it comes each minute
        told = await world.parameters()
        assert version_number(told.version) == before + MEMBER_VERSIONS + 1
        assert told.crl == serials

    world.run(test)


def test_a_replaced_certificate_can_be_revoked_by_its_serial(world: World, key: rsa.RSAPrivateKey) -> None:
    """Of a key that somebody has taken, where its owner did not say so, or cannot."""
    world.origins = ("127.0.0.1",)

    async def test(world: World) -> None:
        old = await member(world)
        new = await client(world, old).rekey_certificate(key)
        assert (await world.call("revoke", cn_or_serial=str(old.cert.serial_number))).status == 204
        assert (await world.parameters()).crl == {old.cert.serial_number}
        assert await world.store.read(lambda queries: queries.pem(B)) == cert.to_pem(new)
        assert (await world.call("revoke", cn_or_serial=str(old.cert.serial_number))).status == 409
        (told,) = world.registry.events.newest(1, cn="1/16")
        assert told.text == f"certificate {old.cert.serial_number}"

    world.run(test)


def test_a_request_must_prove_its_key_and_have_the_right_size(world: World) -> None:
    async def test(world: World) -> None:
        old = await member(world)
        good = world.request(key=cert.new_key())
        damaged = good.replace(good.splitlines()[-2], good.splitlines()[-3])
        for request in ("", "x", damaged, world.request(key=cert.new_key(3072))):
            answer = await world.in_session(await world.hello(B), "rekeyCertificate", B, req=request)
            assert answer.status == 400, request
        assert await world.registry.certificate(B) == old.cert

    world.run(test)


def test_a_node_cannot_change_its_key_all_the_time(world: World) -> None:
    """All nodes have the list of revoked serials."""

    async def test(world: World) -> None:
        identity = await member(world)
        keys = [cert.new_key() for _ in range(CHANGES + 1)]
        for key in keys[:-1]:
            new = await client(world, identity).rekey_certificate(key)
            identity = cert.Identity(identity.trust, new, key)
        with pytest.raises(RegistryRefused, match="429"):
            await client(world, identity).rekey_certificate(keys[-1])
        world.now += DAY
        await client(world, identity).rekey_certificate(keys[-1])

    world.run(test)


def test_a_wrong_clock_gives_no_certificates(world: World, key: rsa.RSAPrivateKey) -> None:
    async def test(world: World) -> None:
        old = await member(world)
        world.wrong = 4000 * DAY
        with pytest.raises(RegistryRefused, match="503"):
            await client(world, old).rekey_certificate(key)
        assert world.now == START

    world.run(test)


def test_strangers_cannot(world: World) -> None:
    async def test(world: World) -> None:
        await member(world)
        for method, arguments in (("rekeyCertificate", {"req": world.request()}), ("revokeSuperseded", {})):
            assert (await world.call(method, cn=B.bits, **arguments)).status == 400
            assert (await world.call(method, cn=Prefix(9, 16).bits, **arguments)).status == 400
        await world.hello(A)
        assert (await world.call("revokeSuperseded", cn=A.bits)).status == 400

    world.run(test)


def test_a_restored_registry_is_shown_the_certificate_it_forgot(world: World, key: rsa.RSAPrivateKey) -> None:
    database, copy = world.directory / "registry.db", world.directory / "copy"
    members: list[cert.Identity] = []

    async def before(world: World) -> None:
        members.append(await member(world))

    async def since(world: World) -> None:
        world.now += 30 * DAY
        new = await client(world, members[0]).rekey_certificate(key)
        members.append(cert.Identity(members[0].trust, new, key))

    async def after(world: World) -> None:
        old, new = members
        assert await client(world, new).get_dh()
        with pytest.raises(RegistryKeyError):  # who has the old key cannot turn it back
            await client(world, old).get_dh()

    world.run(before)
    shutil.copy(database, copy)
    world.run(since)
    for name in ("registry.db-wal", "registry.db-shm"):
        (world.directory / name).unlink(missing_ok=True)
    shutil.copy(copy, database)
    world.run(after)


def test_what_is_no_request_is_the_callers_fault(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        answer = await world.in_session(await world.hello(A), "rekeyCertificate", A, req="nonsense")
        assert answer.status == 400

    world.run(test)


def test_a_planted_certificate_is_neither_renewed_nor_greeted(world: World, key: rsa.RSAPrivateKey) -> None:
    """Somebody who wrote to the database gets no certificate of our CA for his key."""

    async def test(world: World) -> None:
        await world.enrol()
        others, now = await world.enrol(), datetime.fromtimestamp(START, UTC)
        fake = cert.Authority(cert.new_ca(key, world.authority.trust.network, "x", "a@b.c", now), key)
        foreign = fake.issue(cert.subject_for(x509.Name([]), 0, A), world.key.public_key(), 1, now)
        ratchet = await world.hello(A)
        for planted in (others, foreign):
            values = (cert.to_pem(planted).decode(), A.bits)
            await world.store.change(partial(plant, values=values))
            assert (await world.call("hello", client_prefix=A.bits)).status == 500
            assert (await world.in_session(ratchet, "getNetworkConfig", A)).status == 500
            for method, arguments in (("renewCertificate", {}), ("rekeyCertificate", {"req": world.request()})):
                assert (await world.in_session(ratchet, method, A, **arguments)).status == 500, method

    world.run(test)


class CountingTrust(cert.Trust):
    """Counts the certificates that it verifies."""

    verified = 0

    def signed(self, found: x509.Certificate) -> bool:
        self.verified += 1
        return super().signed(found)


def test_a_certificate_is_verified_once_and_only_a_bounded_number_is_remembered(world: World) -> None:
    """Each hello and each getNetworkConfig needs it; verifying one takes a tenth of the time of a session."""
    trust = CountingTrust(world.authority.trust.ca)

    async def test(world: World) -> None:
        await world.enrol()
        await world.enrol()
        world.registry.believed = Believed(trust, limit=1)
        for prefix, verified in ((A, 1), (A, 1), (B, 2), (B, 2), (A, 3)):
            world.now += 20
            assert (await world.in_session(await world.hello(prefix), "getNetworkConfig", prefix)).status == 200
            assert trust.verified == verified

    world.run(test)


def plant(ledger: Ledger, values: tuple[str, str]) -> None:
    """As another program does it: with what we remember of the certificate read anew."""
    ledger._db.execute("UPDATE cert SET cert = ? WHERE prefix = ?", values)
    ledger._load()
