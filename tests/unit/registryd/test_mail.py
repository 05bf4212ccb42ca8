"""Mails with tokens, through a real SMTP server and into a mailbox file (wire.md 3.4, 11.3)."""

from __future__ import annotations

import asyncio
import logging
import mailbox
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.registryd import mail
from re6st.registryd.mail import WAITING_LIMIT, Mailer, MailError, is_address, is_deliverable
from tests.unit.registry_world import World

USER, PASSWORD = "registry", "correct horse"


class Inbox(Message):
    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.mails.append(message)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of a mail server on localhost, signed by itself."""
    key, now = cert.new_key(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("mail") / "server.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + cert.key_to_pem(key))
    return path


@asynccontextmanager
async def smtp_server(
    inbox: Inbox, certificate: Path | None = None, *, tls_at_once: bool = False
) -> AsyncIterator[str]:
    """A mail server, HOST:PORT; with a certificate it wants STARTTLS, or begins with TLS, then a login."""

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    options: dict[str, Any] = {}
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        options = {} if tls_at_once else {"tls_context": context, "require_starttls": True, "auth_required": True}
    loop = asyncio.get_running_loop()
    make = partial(SMTP, inbox, hostname="localhost", loop=loop, authenticator=authenticate, **options)
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=context if tls_at_once else None)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


def run(test: Callable[[], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(main())


def test_a_mail_goes_through_a_plain_server() -> None:
    inbox = Inbox()

    async def test() -> None:
        async with smtp_server(inbox) as host:
            await Mailer(host, "ca@example.org").send("new@example.org", "your token", "qwertzui\n")

    run(test)
    (found,) = inbox.mails
    assert (found["From"], found["To"], found["Subject"]) == ("ca@example.org", "new@example.org", "your token")
    assert found.get_payload() == "qwertzui\r\n"
    assert found["Date"]
    assert found["Message-ID"].endswith("@example.org>")


def test_it_is_encrypted_and_logged_in_where_that_is_asked_for(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = Inbox()

    async def test() -> None:
        async with smtp_server(inbox, certificate) as host:
            mailer = Mailer(host, "ca@example.org", USER, PASSWORD, starttls=True)
            await mailer.send("new@example.org", "your token", "qwertzui\n")
            with pytest.raises(MailError, match="535"):
                await replace(mailer, password="wrong").send("new@example.org", "", "")
            with pytest.raises(MailError, match="STARTTLS"):
                await replace(mailer, starttls=False, user=None).send("new@example.org", "", "")

    run(test)
    assert len(inbox.mails) == 1


def test_tls_comes_first_on_the_port_for_that(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    inbox = Inbox()

    async def test() -> None:
        async with smtp_server(inbox, certificate, tls_at_once=True) as host:
            monkeypatch.setattr(mail, "SMTPS_PORT", int(host.partition(":")[2]))
            for starttls in (False, True):
                await Mailer(host, "ca@example.org", starttls=starttls).send("new@example.org", "your token", "x\n")

    run(test)
    assert len(inbox.mails) == 2


def test_nobody_waits_for_a_silent_name_server_or_mail_server(
    tmp_path: Path, authority: cert.Authority, nodes: dict[str, cert.Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even other threads, of which asyncio has few: strangers can ask for mails."""
    silent = threading.Event()

    def connect(*_: object, **__: object) -> None:
        silent.wait(50)
        raise OSError("timed out")

    monkeypatch.setattr(socket, "getfqdn", connect)
    monkeypatch.setattr(smtplib, "SMTP", connect)
    world = World(tmp_path, authority, nodes["1/16"])

    async def main() -> None:
        async with asyncio.timeout(60):
            world.settings = replace(world.settings, mailer=Mailer("mail.example.org", "ca@example.org"))
            async with world.serve():
                asking = [
                    asyncio.create_task(world.call("requestToken", email=f"new@{number}.example.org"))
                    for number in range(WAITING_LIMIT)
                ]
                while world.settings.mailer is not None and world.settings.mailer.post.waiting < WAITING_LIMIT:
                    await asyncio.sleep(0.01)
                async with asyncio.timeout(5):
                    assert (await world.call("getCa")).status == 200
                    assert await asyncio.to_thread(lambda: "a thread is free") == "a thread is free"
                    assert (await world.call("requestToken", email="one@too.many")).status == 500
                silent.set()
                assert {answer.status for answer in await asyncio.gather(*asking)} == {500}

    try:
        asyncio.run(main())
    finally:
        silent.set()


def test_a_mailbox_file_needs_no_name_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("somebody asks who we are"))

    async def test() -> None:
        await Mailer(str(tmp_path / "mbox"), "ca@example.org").send("new@example.org", "your token", "x\n")

    run(test)


@pytest.mark.parametrize(
    ("sender", "good"),
    [
        ("ca@example.org", True),
        ("root@localhost", False),
        ("root@host.localdomain", False),
        ("root@registry", False),
        ("x", False),
    ],
)
def test_senders_that_other_servers_refuse(sender: str, good: bool) -> None:
    assert is_deliverable(sender) is good


def test_a_server_with_a_certificate_that_nobody_knows_gets_no_password(certificate: Path) -> None:
    inbox = Inbox()

    async def test() -> None:
        async with smtp_server(inbox, certificate) as host:
            mailer = Mailer(host, "ca@example.org", USER, PASSWORD, starttls=True)
            with pytest.raises(MailError, match=r"TLS: .*certificate verify failed.* add the authority"):
                await mailer.send("new@example.org", "", "")

    run(test)
    assert not inbox.mails


def test_errors_and_texts_do_not_show_the_password() -> None:
    mailer = Mailer("localhost:1", "ca@example.org", USER, PASSWORD)
    assert PASSWORD not in repr(mailer)

    async def test() -> None:
        with pytest.raises(MailError, match=r"mail host localhost:1: .*refused") as caught:
            await mailer.send("new@example.org", "", "")
        assert PASSWORD not in str(caught.value)

    run(test)


def test_the_mailbox_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "mbox"

    async def test() -> None:
        for text in ("one", "From two\n"):
            await Mailer(str(path), "ca@example.org").send("new@example.org", "your token", text)

    run(test)
    assert path.stat().st_mode & 0o777 == 0o600
    box = mailbox.mbox(path)
    assert len(box) == 2
    box.close()


@pytest.mark.parametrize("text", ["a@b", "first.last+tag@sub.example.org", "o'hara@example.org"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text", ["", "a", "@b", "a@", "a@b\n", "a b@c", "a@b,c@d", "<a@b>", "a@b>", "ä@b", "a@b\r\nBcc: c@d"]
)
def test_what_is_no_address_does_not_get_into_a_header(text: str) -> None:
    assert not is_address(text)


def test_a_token_is_mailed_and_good_for_a_certificate(
    tmp_path: Path,
    authority: cert.Authority,
    nodes: dict[str, cert.Identity],
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From requestToken to requestCertificate, with a server that wants everything."""
    caplog.set_level(logging.DEBUG, "registry")
    caplog.set_level(logging.DEBUG, "http")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    world, inbox = World(tmp_path, authority, nodes["1/16"]), Inbox()
    tokens: list[str] = []

    async def main() -> None:
        async with asyncio.timeout(30), smtp_server(inbox, certificate) as host:
            mailer = Mailer(host, "ca@example.org", USER, PASSWORD, starttls=True)
            world.settings = replace(world.settings, mailer=mailer, anonymous_prefix_length=0)
            async with world.serve():
                assert (await world.call("requestToken", email="new@example.org")).status == 204
                found = re.search(r"^ +([a-z]{18})\r?$", inbox.mails[0].get_payload(), re.MULTILINE)
                assert found
                tokens.append(found[1])
                await world.enrol(found[1])
                assert (await world.call("getNodePrefix", email="new@example.org")).body == b"0/16"

    asyncio.run(main())
    assert tokens[0] not in caplog.text
    assert PASSWORD not in caplog.text
