"""What the registry gives to its callers over real HTTP (wire.md sections 2 to 5)."""

from __future__ import annotations

import asyncio
import mailbox
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.core.prefix import Prefix
from re6st.core.wire.params import check_version, version_number
from re6st.keys import pki
from re6st.registryd.mail import Mailer
from re6st.registryd.sqlite.store import Patience
from tests.postgresql_cluster import Opener
from tests.unit.registry_world import DAY, START, A, B, World


def mails(path: Path) -> list[mailbox.mboxMessage]:
    box = mailbox.mbox(path)
    try:
        return list(box)
    finally:
        box.close()


@pytest.fixture
def world(tmp_path: Path, opener: Opener | None, authority: cert.Authority, nodes: dict[str, cert.Identity]) -> World:
    made = World(tmp_path, authority, nodes["1/16"])
    made.opener = opener
    return made


# --- enrolment ---


def test_an_anonymous_certificate_is_as_the_specification_says(world: World) -> None:
    async def test(world: World) -> None:
        # The older re6st-conf takes the serialNumber of its last certificate over; it has no effect.
        fields = (
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "7"),
        )
        answer = await world.call("requestCertificate", token="", req=world.request(*fields), location="", ip="")
        got = cert.load_pem(answer.body)
        assert got.version.value == 0
        assert got.serial_number == 1
        assert [(a.oid, a.value) for a in got.subject] == [
            (NameOID.ORGANIZATION_NAME, "Example"),
            (NameOID.SERIAL_NUMBER, "0"),
            (NameOID.COMMON_NAME, "0/16"),
        ]
        assert pki.end_of(got).timestamp() == START + 31536000
        assert pki.begin_of(got).timestamp() == START - 3600, "clocks may be late"
        pki.verify_issued_by(got, world.authority.trust.ca)
        assert (await world.enrol()).serial_number == 2

    world.run(test)


def test_a_token_is_good_for_one_certificate(world: World) -> None:
    world.settings = replace(world.settings, anonymous_prefix_length=0)

    async def test(world: World) -> None:
        refused = await world.call("requestCertificate", token="", req=world.request())
        assert refused.status == 403
        assert (await world.call("addToken", email="a@b.c", token="sesame")).status == 204
        assert (await world.call("addToken", email="a@b.c", token="sesame")).status == 409
        assert (await world.call("isToken", token="sesame")).body == b"1"
        await world.enrol("sesame")
        assert (await world.call("isToken", token="sesame")).status == 204
        again = await world.call("requestCertificate", token="sesame", req=world.request())
        assert again.status == 204
        assert (await world.call("getNodePrefix", email="a@b.c")).body == b"0/16"
        assert (await world.call("getIPv6Address", email="a@b.c")).body == b"2001:db8:42::"
        assert (await world.call("getIPv6Address", email="nobody@b.c")).status == 204
        await world.call("addToken", email="a@b.c", token="other")
        assert (await world.call("deleteToken", token="other")).status == 204
        assert (await world.call("deleteToken", token="other")).status == 204
        assert (await world.call("isToken", token="other")).status == 204

    world.run(test)


def test_a_token_is_mailed(world: World) -> None:
    box = world.directory / "mbox"
    world.settings = replace(world.settings, mailer=Mailer(str(box), "ca@b.c"))

    async def test(world: World) -> None:
        assert (await world.call("requestToken", email="new@b.c")).status == 204
        messages = mails(box)
        assert len(messages) == 1
        assert (messages[0]["From"], messages[0]["To"]) == ("ca@b.c", "new@b.c")
        found = re.search(r"^ +([a-z]{18})$", messages[0].as_string(), re.MULTILINE)
        assert found
        assert len(set(found[1])) > 3
        await world.enrol(found[1])
        forged = await world.call("requestToken", email="new@b.c\r\nBcc: all@b.c")
        assert forged.status == 400
        assert len(mails(box)) == 1

    world.run(test)


@pytest.mark.parametrize("opener", [None])  # they look into the file
def test_mail_that_cannot_be_sent_leaves_no_token(world: World) -> None:
    world.settings = replace(world.settings, mailer=Mailer("/nonexistent/mbox", "ca@b.c"))

    async def test(world: World) -> None:
        assert (await world.call("requestToken", email="new@b.c")).status == 500
        other = sqlite3.connect(world.directory / "registry.db")
        assert other.execute("SELECT count(*) FROM token").fetchone() == (0,)
        other.close()

    world.run(test)


def test_without_mail_host_or_prefix_length_tokens_are_refused(world: World) -> None:
    async def no_mail(world: World) -> None:
        assert (await world.call("requestToken", email="a@b.c")).status == 403

    world.run(no_mail)
    world.settings = replace(world.settings, prefix_length=0, mailer=Mailer("/nonexistent", "ca@b.c"))

    async def no_length(world: World) -> None:
        assert (await world.call("requestToken", email="a@b.c")).status == 403
        assert (await world.call("addToken", email="a@b.c", token="t")).status == 403

    world.run(no_length)


def test_bad_certificate_requests_are_refused_and_spend_no_token(world: World) -> None:
    good = cert.new_request(world.key).public_bytes(serialization.Encoding.DER)
    broken = bytearray(good)
    broken[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(broken)).public_bytes(serialization.Encoding.PEM).decode()
    short = cert.new_key(1024)
    cases = {
        "no request": 400,
        "": 400,
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n": 400,
        forged: 400,
        world.request(key=short): 400,
        world.request(x509.NameAttribute(NameOID.COMMON_NAME, "0/16")): 400,
    }

    async def test(world: World) -> None:
        await world.call("addToken", email="a@b.c", token="sesame")
        for request, status in cases.items():
            answer = await world.call("requestCertificate", token="sesame", req=request)
            assert answer.status == status, request
        assert (await world.enrol("sesame")).serial_number == 1

    world.run(test)


def test_many_clients_at_once_get_different_prefixes(world: World) -> None:
    async def test(world: World) -> None:
        issued = await asyncio.gather(*(world.enrol() for _ in range(40)))
        assert {cert.prefix_of_cert(each) for each in issued} == {Prefix(n, 16) for n in range(40)}
        assert sorted(each.serial_number for each in issued) == list(range(1, 41))
        assert sorted(cert.number_of_cert(each) or 0 for each in issued) == list(range(40))

    world.run(test)


@pytest.mark.parametrize("opener", [None])  # they look into the file
def test_a_failing_database_is_no_wrong_answer(world: World) -> None:
    world.patience = Patience(busy=0.01)

    async def test(world: World) -> None:
        await world.enrol()
        other = sqlite3.connect(world.directory / "registry.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answer = await world.call("requestCertificate", token="", req=world.request())
        assert answer.status == 503
        assert (await world.parameters()).registry_prefix == A, "who only reads is served"
        other.execute("ROLLBACK")
        other.close()
        assert cert.prefix_of_cert(await world.enrol()) == B

    world.run(test)


# --- renewal and revocation ---


def test_renewal_waits_for_its_time_and_keeps_key_and_subject(world: World) -> None:
    async def test(world: World) -> None:
        first = await world.enrol()
        same = await world.in_session(await world.hello(A), "renewCertificate", A)
        assert cert.load_pem(same.body) == first
        world.now = START + 336 * DAY
        renewed = cert.load_pem((await world.in_session(await world.hello(A), "renewCertificate", A)).body)
        assert renewed.serial_number == 2
        assert renewed.subject == first.subject
        assert pki.same_key(renewed.public_key(), first.public_key())
        assert pki.end_of(renewed).timestamp() == world.now + 365 * DAY

    world.run(test)


def test_an_expired_node_renews_within_the_grace_period_only(world: World) -> None:
    c = Prefix(2, 16)

    async def test(world: World) -> None:
        for _ in range(3):
            await world.enrol()
        world.now = START + 360 * DAY
        await world.in_session(await world.hello(A), "renewCertificate", A)
        world.now = START + 464 * DAY
        assert (await world.in_session(await world.hello(B), "renewCertificate", B)).status == 200

    async def later(world: World) -> None:
        world.now += DAY  # the day for which the registry was off does not count
        await world.registry.parameter_service.clean_up()
        assert (await world.call("hello", client_prefix=B.bits)).status == 200
        assert (await world.call("hello", client_prefix=c.bits)).status == 404

    world.run(test)
    world.now = START + 465 * DAY
    world.run(later)


def test_a_revoked_serial_is_renewed_at_once_until_the_same_end(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        first = await world.enrol()
        before = await world.parameters(B)
        assert (await world.call("revoke", cn_or_serial="2")).status == 204
        assert (await world.call("revoke", cn_or_serial="2")).status == 409
        assert (await world.call("revoke", cn_or_serial="77")).status == 404
        after = await world.parameters(B)
        assert after.crl == {2}
        assert version_number(after.version) == version_number(before.version) + 1
        assert check_version(
            after.version, lambda data, signature: cert.verify(world.authority.trust.ca, signature, data)
        )
        renewed = cert.load_pem((await world.in_session(await world.hello(B), "renewCertificate", B)).body)
        assert renewed.serial_number == 3
        assert pki.end_of(renewed) == pki.end_of(first)

    world.run(test)


def test_a_revoked_cn_is_out(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        await world.enrol()
        ratchet = await world.hello(B)
        assert (await world.in_session(ratchet, "getDh", B)).status == 200
        assert (await world.call("revoke", cn_or_serial="1/16")).status == 204
        assert (await world.in_session(ratchet, "getDh", B)).status == 401
        assert (await world.call("hello", client_prefix=B.bits)).status == 404
        assert (await world.call("revoke", cn_or_serial="1/16")).status == 404
        assert (await world.call("revoke", cn_or_serial="65536/16")).status == 400
        assert (await world.parameters()).crl == {2}
        assert cert.prefix_of_cert(await world.enrol()) == B, "the prefix is free again"

    world.run(test)


# --- parameters ---


def test_the_version_counts_changes_only(world: World) -> None:
    async def versions(world: World) -> int:
        return version_number((await world.parameters()).version)

    async def first(world: World) -> None:
        await world.enrol()
        assert await versions(world) == 1
        await world.enrol()
        assert await versions(world) == 1

    async def same(world: World) -> None:
        assert await versions(world) == 1

    async def changed(world: World) -> None:
        assert await versions(world) == 2
        assert (await world.parameters()).hello == 7

    world.run(first)
    world.run(same)
    world.settings = replace(world.settings, parameters=replace(world.settings.parameters, hello=7))
    world.run(changed)


def test_babel_keys_go_through_their_states(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        stable = await world.parameters()
        assert stable.babel_hmac_sign
        assert stable.babel_hmac_accept is None
        assert stable.valid_until is None
        assert (await world.call("updateHMAC")).status == 204
        one = await world.parameters()
        assert one.babel_hmac_sign == stable.babel_hmac_sign
        assert one.babel_hmac_accept not in (None, b"", one.babel_hmac_sign)
        assert one.valid_until == START + 3600
        await world.call("updateHMAC")
        two = await world.parameters()
        assert (two.babel_hmac_sign, two.babel_hmac_accept) == (one.babel_hmac_accept, one.babel_hmac_sign)
        assert two.valid_until is None
        await world.call("updateHMAC")
        again = await world.parameters()
        assert (again.babel_hmac_sign, again.babel_hmac_accept) == (one.babel_hmac_accept, None)
        assert [version_number(each.version) for each in (stable, one, two, again)] == [1, 2, 3, 4]

    world.run(test)


def test_an_old_network_without_keys_gets_them(world: World) -> None:
    async def test(world: World) -> None:
        await world.enrol()
        await world.store.change(lambda ledger: ledger.set_config("babel_hmac0", None))
        await world.call("updateHMAC")
        first = await world.parameters()
        assert first.babel_hmac_sign
        assert first.babel_hmac_accept == b""
        await world.call("updateHMAC")
        second = await world.parameters()
        assert (second.babel_hmac_sign, second.babel_hmac_accept) == (first.babel_hmac_sign, None)

    world.run(test)


def test_there_are_no_parameters_before_the_first_node(world: World) -> None:
    async def test(world: World) -> None:
        assert (await world.call("topology")).status == 404

    world.run(test)
