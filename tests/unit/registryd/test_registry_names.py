"""A machine gets the name that it asks for when it enrols, and keeps it as long as it is a member."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.keys.requested_name import RequestedName
from re6st.registryd.repository import Conflict, NotFound
from tests.unit.registry_world import A, Answer, B, World


@pytest.fixture
def world(tmp_path: Any, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    return World(tmp_path, authority, nodes["1/16"])


async def enrol(world: World, name: RequestedName | None, token: str = "") -> Answer:
    request = cert.new_request(world.key, (), name).public_bytes(serialization.Encoding.PEM).decode()
    return await world.call("requestCertificate", token=token, req=request, location="", ip="")


async def name_of(world: World, prefix: Prefix) -> str | None:
    found: str | None = await world.store.read(lambda queries: queries.name(prefix))
    return found


def test_two_machines_of_one_host_name(world: World) -> None:
    async def test(world: World) -> None:
        for _ in range(2):
            assert (await enrol(world, RequestedName("web", only=False))).status == 200
        assert (await enrol(world, None)).status == 200
        assert [await name_of(world, Prefix(each, 16)) for each in range(3)] == ["web", "web-2", None]
        assert await world.store.read(lambda queries: queries.named("web-2")) == B
        assert "name web-2" in world.registry.events.newest(2)[1].text

    world.run(test)


def test_who_wants_one_name_only_is_refused_and_keeps_its_token(world: World) -> None:
    async def test(world: World) -> None:
        wanted = RequestedName("web", only=True)
        token = await world.registry.tokens.new("alice@example.org", 16)
        assert (await enrol(world, wanted)).status == 200
        assert (await enrol(world, wanted, token)).status == 409
        assert (await enrol(world, RequestedName("www", only=True), token)).status == 200
        assert await name_of(world, B) == "www"

    world.run(test)


@pytest.mark.parametrize(("only", "status"), [(True, 400), (False, 200)])
@pytest.mark.parametrize("wanted", [["Web 1"], ["14/16"], ["web1", "web2"], ["192.0.2.1"], []])
def test_what_is_no_name(world: World, wanted: list[str], only: bool, status: int) -> None:
    async def test(world: World) -> None:
        asked = x509.SubjectAlternativeName([x509.DNSName(each) for each in wanted])
        builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(asked, critical=only)
        request = builder.sign(world.key, hashes.SHA512()).public_bytes(serialization.Encoding.PEM).decode()
        answer = await world.call("requestCertificate", token="", req=request, location="", ip="")
        assert answer.status == status
        assert await name_of(world, A) is None

    world.run(test)


def test_the_certificate_is_as_before(world: World) -> None:
    """The older software reads certificates without extensions, and whatever is in the subject."""

    async def test(world: World) -> None:
        field = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")
        made = cert.new_request(world.key, [field], RequestedName("web", only=True))
        request = made.public_bytes(serialization.Encoding.PEM).decode()
        answer = await world.call("requestCertificate", token="", req=request, location="", ip="")
        issued = cert.load_pem(answer.body)
        assert issued.version is x509.Version.v1
        assert [each.value for each in issued.subject] == ["Example", "0", "0/16"]

    world.run(test)


def test_a_name_ends_with_the_membership(world: World) -> None:
    async def test(world: World) -> None:
        await enrol(world, None)
        await enrol(world, RequestedName("web", only=True))
        with pytest.raises(Conflict):
            await world.store.change(lambda changes: changes.set_name(A, "web"))
        with pytest.raises(NotFound):
            await world.store.change(lambda changes: changes.set_name(Prefix(7, 16), "www"))
        renewed = await world.in_session(await world.hello(B), "renewCertificate", B)
        assert renewed.status == 200
        assert await name_of(world, B) == "web"
        await world.store.change(lambda changes: changes.evict(B, world.now))
        await world.store.change(lambda changes: changes.set_name(A, "web"))
        assert await name_of(world, A) == "web"

    world.run(test)


def test_the_older_software_throws_somebody_out_meanwhile(world: World) -> None:
    """It changes its own tables only; and a restored certificate of another key is somebody else's."""

    async def test(world: World) -> None:
        await enrol(world, None)
        await enrol(world, RequestedName("web", only=True))
        with sqlite3.connect(world.directory / "registry.db") as other:
            other.execute("UPDATE cert SET email = NULL, cert = NULL WHERE prefix = ?", (B.bits,))
        other.close()
        assert await name_of(world, B) is None
        await world.store.change(lambda changes: changes.set_name(A, "web"))
        old = await world.store.read(lambda queries: queries.issued(A))
        assert old is not None
        key = cert.new_key()
        subject = cert.subject_for(x509.Name([]), 0, A)
        new = world.authority.issue(subject, key.public_key(), old.serial + 9, world.registry.now())
        await world.store.change(lambda changes: changes.restore(A, new))
        assert await name_of(world, A) is None

    world.run(test)
