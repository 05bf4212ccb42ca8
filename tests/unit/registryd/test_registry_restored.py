"""A registry goes on with an older copy of its database, and the network with what it had since."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from re6st import cert
from re6st.client.registry_client import RegistryClient, RegistryRefused
from re6st.core.prefix import Prefix
from re6st.core.wire.params import make_version, version_number
from re6st.registryd.restored import SERIAL_GAP, Known, ProofError, ask
from re6st.registryd.sqlite.check import check
from tests.unit.registry_world import DAY, A, B, World

C = Prefix(2, 16)


@pytest.fixture
def world(tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


def restored(world: World, then: str) -> None:
    """The database as it was when it was copied to this name."""
    for name in ("registry.db-wal", "registry.db-shm"):
        (world.directory / name).unlink(missing_ok=True)
    shutil.copy(world.directory / then, world.directory / "registry.db")


def client(world: World, own: x509.Certificate) -> RegistryClient:
    identity = cert.Identity(world.authority.trust, own, world.key)
    return RegistryClient(f"http://127.0.0.1:{world.port}/", identity)


async def copy(world: World) -> None:
    """Two members, and a copy."""
    for _ in range(2):
        await world.enrol()


def sound(world: World) -> None:
    report = check(world.directory / "registry.db", world.authority.trust)
    assert not report.findings


async def since(world: World) -> tuple[x509.Certificate, Known]:
    """What happens after the copy: a third and a fourth member; the second and the fourth are thrown out."""
    third, fourth = await world.enrol(), await world.enrol()
    origin = RegistryClient(f"http://127.0.0.1:{world.port}/")
    for cn in ("1/16", "3/16"):
        await origin.call("revoke", cn_or_serial=cn)
    assert fourth.serial_number == 4
    parameters = await world.parameters()
    assert parameters.crl == {2, 4}
    return third, Known(parameters.version, parameters.crl)


def history(world: World) -> tuple[x509.Certificate, Known]:
    world.origins = ("127.0.0.1",)
    world.run(copy)
    shutil.copy(world.directory / "registry.db", world.directory / "copy")
    found: list[tuple[x509.Certificate, Known]] = []

    async def on(world: World) -> None:
        found.append(await since(world))

    world.run(on)
    restored(world, "copy")
    return found[0]


def test_revocations_come_back_from_the_node_beside_it(world: World) -> None:
    _, known = history(world)

    async def test(world: World) -> None:
        assert (await world.parameters()).crl == frozenset()
        await world.registry.restored.compare(known)
        now = await world.parameters()
        assert now.crl == {2, 4}
        assert version_number(now.version) == version_number(known.version) + 1
        assert (await world.call("hello", client_prefix=Prefix(1, 16).bits)).status == 404, "it was thrown out"
        await world.registry.restored.compare(known)
        assert (await world.parameters()).version == now.version, "once"
        assert [event.text for event in world.registry.events.newest(9) if "older than the network" in event.text]
        new = await world.enrol()
        assert new.serial_number > SERIAL_GAP, "no serial is given twice"
        assert cert.prefix_of_cert(new) == C, "the prefix of who was thrown out is kept"

    world.run(test)
    sound(world)


def test_a_certificate_that_was_forgotten_is_stored_when_its_node_calls(world: World) -> None:
    third, _ = history(world)

    async def test(world: World) -> None:
        assert cert.prefix_of_cert(third) == C
        mine = client(world, third)
        await mine.get_network_config()
        assert await world.store.read(lambda queries: queries.pem(C)) == cert.to_pem(third)
        new = await world.enrol()
        assert cert.prefix_of_cert(new) == Prefix(3, 16)
        assert cert.number_of_cert(new) == 3
        assert new.serial_number > SERIAL_GAP
        assert await mine.renew_certificate() == third

    world.run(test)
    sound(world)


def test_who_was_thrown_out_does_not_come_back(world: World) -> None:
    _, known = history(world)
    now = datetime.fromtimestamp(world.now, UTC)
    key = world.key.public_key()

    async def test(world: World) -> None:
        await world.registry.restored.compare(known)
        subject = cert.subject_for(x509.Name([]), 3, Prefix(3, 16))
        fourth = world.authority.issue(subject, key, 4, now)
        with pytest.raises(RegistryRefused, match="does not know 3/16"):
            await client(world, fourth).get_network_config()
        # Nor anybody whose certificate was not given after the copy.
        early = world.authority.issue(cert.subject_for(x509.Name([]), 9, Prefix(9, 16)), key, 1, now)
        with pytest.raises(RegistryRefused, match="does not know 9/16"):
            await client(world, early).get_network_config()

    world.run(test)
    sound(world)


def test_a_renewal_that_was_forgotten_takes_the_place_of_what_was_before(world: World) -> None:
    world.run(copy)
    shutil.copy(world.directory / "registry.db", world.directory / "copy")
    renewed: list[x509.Certificate] = []

    async def on(world: World) -> None:
        world.now += 340 * 86400
        pem = await world.store.read(lambda queries: queries.pem(A))
        own = cert.load_pem(pem or b"")
        renewed.append(await client(world, own).renew_certificate())

    world.run(on)
    restored(world, "copy")

    async def test(world: World) -> None:
        assert await client(world, renewed[0]).present_certificate()
        assert await world.store.read(lambda queries: queries.pem(A)) == cert.to_pem(renewed[0])
        assert not await client(world, renewed[0]).present_certificate()

    world.run(test)
    sound(world)


def test_all_that_was_forgotten_stays_known_as_lost_whoever_comes_first(world: World) -> None:
    """A certificate is shown, then the node beside it tells a version: each proves that the database is a copy."""
    found: list[x509.Certificate] = []
    known: list[Known] = []
    world.run(copy)
    shutil.copy(world.directory / "registry.db", world.directory / "copy")

    async def on(world: World) -> None:
        found.extend([await world.enrol(), await world.enrol()])
        await world.registry.parameter_service.rotate_keys()
        parameters = await world.parameters()
        known.append(Known(parameters.version, parameters.crl))

    world.run(on)
    restored(world, "copy")

    async def test(world: World) -> None:
        third, fourth = found
        assert await client(world, third).present_certificate()
        await world.registry.restored.compare(known[0])
        assert await client(world, fourth).present_certificate()
        assert (await world.enrol()).serial_number > 2 * SERIAL_GAP

    world.run(test)
    sound(world)


def revoked_since(world: World) -> Known:
    """One revocation after the copy, to which the registry goes back."""
    world.origins = ("127.0.0.1",)
    world.run(copy)
    shutil.copy(world.directory / "registry.db", world.directory / "copy")
    found: list[Known] = []

    async def on(world: World) -> None:
        await world.call("revoke", cn_or_serial="1/16")
        parameters = await world.parameters()
        found.append(Known(parameters.version, parameters.crl))

    world.run(on)
    restored(world, "copy")
    return found[0]


def test_the_node_beside_it_is_asked_before_the_version_is_counted_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a restored registry with other options would have counted as far as the network."""
    known = revoked_since(world)
    monkeypatch.setattr("re6st.registryd.restored.ask", lambda control: known)
    world.settings = replace(world.settings, parameters=replace(world.settings.parameters, hello=7))
    world.before_start = lambda registry: registry.restored.look(Path("control.sock"))

    async def test(world: World) -> None:
        now = await world.parameters()
        assert now.crl == {2}
        assert now.version > known.version

    world.run(test)
    sound(world)


@pytest.mark.parametrize("thrown_out", [True, False])
def test_who_was_thrown_out_gains_nothing_by_being_faster_than_the_node_beside_it(
    world: World, thrown_out: bool
) -> None:
    """One who changes its key at once has another serial. One who did before the copy may stay."""
    key = cert.new_key()
    found: list[Known] = []

    async def change(world: World) -> None:
        pem = await world.store.read(lambda queries: queries.pem(B))
        own = client(world, cert.load_pem(pem or b""))
        new = await own.rekey_certificate(key)
        assert new.serial_number == 3

    async def end(world: World) -> None:
        await world.call("revoke", cn_or_serial="2")
        parameters = await world.parameters()
        found.append(Known(parameters.version, parameters.crl))

    world.origins = ("127.0.0.1",)
    world.run(copy)
    if not thrown_out:
        world.run(change)
    shutil.copy(world.directory / "registry.db", world.directory / "copy")
    world.now += 60
    world.run(end)
    restored(world, "copy")
    world.now += 60

    async def test(world: World) -> None:
        if thrown_out:
            await change(world)
        await world.registry.restored.compare(found[0])
        assert ((await world.store.read(lambda queries: queries.pem(B))) is None) == thrown_out
        assert (await world.parameters()).crl == ({2, 3} if thrown_out else {2})

    world.run(test)
    sound(world)


def test_revocations_that_are_the_word_of_the_node_beside_it_alone_are_told_and_not_believed(world: World) -> None:
    """The registry has counted as far as the network. The version, which is signed, proves nothing then."""
    known = revoked_since(world)

    async def test(world: World) -> None:
        await world.registry.parameter_service.rotate_keys()
        before = await world.parameters()
        assert before.version == known.version
        for _ in range(2):
            await world.registry.restored.compare(known)
        assert await world.parameters() == before
        assert not await world.registry.restored.happened()
        (told,) = [
            e for e in world.registry.events.newest(9) if "1 serials as revoked that are not so here: 2." in e.text
        ]
        assert told.count == 1

    world.run(test)
    sound(world)


def test_a_node_beside_it_that_is_behind_tells_nothing(world: World) -> None:
    world.origins = ("127.0.0.1",)
    world.run(copy)

    async def test(world: World) -> None:
        before = await world.parameters()
        await world.call("revoke", cn_or_serial="1/16")
        now = await world.parameters()
        for known in (before, now):
            await world.registry.restored.compare(Known(known.version, known.crl))
        assert await world.parameters() == now
        assert not await world.registry.restored.happened()

    world.run(test)
    sound(world)


def test_a_place_that_was_given_to_another_stays_with_that(world: World) -> None:
    third, _ = history(world)

    async def test(world: World) -> None:
        new = await world.enrol()
        assert cert.prefix_of_cert(new) == C
        assert not await client(world, third).present_certificate()
        assert await world.store.read(lambda queries: queries.pem(C)) == cert.to_pem(new)

    world.run(test)
    sound(world)


def test_who_is_routed_and_not_known_keeps_its_prefix(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of the older software shows no certificate."""
    third, known = history(world)
    routes = [A, C, *(Prefix(number, 17) for number in (9, 10))]

    async def routed() -> list[Prefix]:
        return [Prefix(0, 0), *routes]

    async def test(world: World) -> None:
        monkeypatch.setattr(world.registry.node, "routed", routed)
        await world.registry.restored.compare(known)
        assert cert.prefix_of_cert(await world.enrol()) == Prefix(3, 16), "4/16 and 5/16 have routes inside, too"
        assert cert.prefix_of_cert(await world.enrol()) == Prefix(6, 16)
        await client(world, third).get_network_config()
        assert await world.store.read(lambda queries: queries.pem(C)) == cert.to_pem(third), (
            "what is kept from others is its own"
        )
        routes[:] = [Prefix(number, 16) for number in range(1000)]
        answer = await world.call("requestCertificate", token="", req=world.request(), location="", ip="")
        assert answer.status == 500
        world.now += 366 * DAY  # what was forgotten has ended: a route says nothing any more
        assert cert.prefix_of_cert(await world.enrol()) == Prefix(7, 16)

    world.run(test)
    # Its number, which is for IPv4, could not be known.
    (finding,) = check(world.directory / "registry.db", world.authority.trust).findings
    assert finding.problem == f"its node has the number 2, as that of {C.bits}"


def test_who_got_a_place_since_the_copy_has_not_the_address_of_who_had_it_before(world: World) -> None:
    """A machine that asks for the subnet of an e-mail address is told the one of that person, or none."""
    world.origins = ("127.0.0.1",)
    other = cert.new_key()
    found: list[x509.Certificate] = []

    async def before(world: World) -> None:
        await world.enrol()
        for token in ("first", "second"):
            await world.call("addToken", email=f"{token}@example.com", token=token)
            await world.enrol(token)

    async def on(world: World) -> None:
        await world.call("revoke", cn_or_serial="2/16")
        await world.call("revoke", cn_or_serial="1/16")
        answer = await world.call("requestCertificate", token="", req=world.request(key=other), location="", ip="")
        found.append(cert.load_pem(answer.body))

    world.run(before)
    shutil.copy(world.directory / "registry.db", world.directory / "copy")
    world.now += 1
    world.run(on)
    restored(world, "copy")

    async def test(world: World) -> None:
        prefix = cert.prefix_of_cert(found[0])
        identity = cert.Identity(world.authority.trust, found[0], other)
        before = (await world.call("getNodePrefix", email="first@example.com")).body
        assert before == prefix.cn.encode()
        assert await RegistryClient(f"http://127.0.0.1:{world.port}/", identity).present_certificate()
        assert (await world.call("getNodePrefix", email="first@example.com")).status == 204
        assert (await world.call("getNodePrefix", email="second@example.com")).body == b"2/16"

    world.run(test)
    sound(world)


def test_what_was_revoked_since_the_copy_can_be_revoked_again_by_its_serial(world: World) -> None:
    third, _ = history(world)
    now = datetime.fromtimestamp(world.now, UTC)
    fourth = world.authority.issue(cert.subject_for(x509.Name([]), 3, Prefix(3, 16)), world.key.public_key(), 4, now)

    async def test(world: World) -> None:
        assert (await world.call("revoke", cn_or_serial="4")).status == 404, "nothing tells that this is a copy"
        assert await client(world, third).present_certificate()
        assert (await world.call("revoke", cn_or_serial="4")).status in (200, 204)
        assert (await world.parameters()).crl == {4}
        assert not await client(world, fourth).present_certificate()
        assert (await world.call("revoke", cn_or_serial="4")).status == 409
        assert (await world.call("revoke", cn_or_serial="1000000")).status == 404

    world.run(test)
    sound(world)


def test_a_version_that_is_out_is_not_counted_again(world: World) -> None:
    """The machine was lost with its node: others know a version, and nobody here what it said."""
    _, known = history(world)

    async def test(world: World) -> None:
        pem = await world.store.read(lambda queries: queries.pem(A))
        own = cert.load_pem(pem or b"")
        assert not await client(world, own).present_certificate(known.version), "its certificate is known"
        assert (await world.parameters()).crl == frozenset()
        report = check(world.directory / "registry.db", world.authority.trust)
        assert [finding.problem for finding in report.findings if "Revoke again" in finding.problem]
        await world.call("revoke", cn_or_serial="1/16")
        assert version_number((await world.parameters()).version) == version_number(known.version) + 1

    world.run(test)
    sound(world)


def test_what_proves_nothing_changes_nothing(world: World, tmp_path: Path) -> None:
    third, _ = history(world)
    other = cert.new_key()

    async def test(world: World) -> None:
        before = (await world.parameters()).version
        forged = make_version(99, lambda data: cert.sign(other, data))
        with pytest.raises(ProofError, match="not signed"):
            await world.registry.restored.compare(Known(forged, frozenset({1})))
        pem = cert.to_pem(third).decode()
        for shown, version in (
            ("", ""),
            ("x", ""),
            (pem, "?"),
            (pem, base64.b64encode(forged).decode()),
            (pem.replace("M", "N"), ""),
        ):
            assert (await world.call("presentCertificate", cert=shown, version=version)).status == 400
        assert (await world.parameters()).version == before
        assert await world.store.read(lambda queries: queries.pem(C)) is None

    world.run(test)
    assert ask(tmp_path / "nobody.sock") is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"result": {"version": "IQ==", "revoked": [1, 2]}}, Known(b"!", frozenset({1, 2}))),
        ({"result": {"version": "?", "revoked": []}}, None),
        ({"result": {"version": "IQ==", "revoked": [1 << 64]}}, None),
        ({"result": []}, None),
        ({"error": {"status": 2, "message": "unknown operation"}}, None),
    ],
)
def test_asking_the_node_beside_it(tmp_path: Path, answer: object, expected: Known | None) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control.sock"))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask(tmp_path / "control.sock") == expected
        thread.join()
