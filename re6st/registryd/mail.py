"""Mails of the registry: it sends them to a mail host, or appends them to an mbox file (wire.md 11.3)."""

from __future__ import annotations

import asyncio
import mailbox
import os
import re
import smtplib
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import IPv6Network

TIMEOUT = 30.0
"""Seconds for each step of SMTP."""
AT_ONCE, WAITING_LIMIT = 2, 16
"""Number of mails that are being sent, and that wait: a mail server, or a name server, may be silent."""
SMTPS_PORT = 465
"""The port on which TLS begins at once (RFC 8314); on others it is asked for with STARTTLS."""

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,189}", re.ASCII)


class MailError(Exception):
    """A mail that could not be sent; the text says why."""


def is_address(text: str) -> bool:
    """Whether this is an e-mail address that we may put into a header."""
    return _ADDRESS.fullmatch(text) is not None


def token_text(network: IPv6Network, token: str) -> str:
    """The mail to somebody who asked for a token."""
    return (
        f"Hello,\n\nyour token to join the network {network} is\n\n    {token}\n\n"
        "It is good for one certificate. Give it to re6st-conf with --token, or when it asks for it.\n"
        "If you did not ask for it, ignore this mail.\n"
    )


def is_deliverable(sender: str) -> bool:
    """Whether other mail servers accept mails from this address: those that check refuse domains that do not exist."""
    domain = sender.rpartition("@")[2].lower()
    return is_address(sender) and "." in domain.strip(".") and not domain.endswith((".localhost", ".localdomain"))


class Post:
    """The threads that send mails. They have no other work, so nobody else waits for a silent server."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "mail")
        self.waiting = 0
        """Number of mails that are not sent yet."""

    async def run(self, work: Callable[[EmailMessage], None], message: EmailMessage) -> None:
        """Raises MailError if too many wait, and anything that `work` raises."""
        if self.waiting >= WAITING_LIMIT:
            raise MailError(f"{self.waiting} mails wait already")
        self.waiting += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, work, message)
        finally:
            self.waiting -= 1


@dataclass(frozen=True, slots=True)
class Mailer:
    """Sends mails from one address. `host` is HOST[:PORT], or the path of an mbox file (absolute, or existing)."""

    host: str
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = False
    post: Post = field(default_factory=Post, repr=False, compare=False)

    @property
    def to_file(self) -> bool:
        return os.path.isabs(self.host) or os.path.exists(self.host)

    @property
    def tls_at_once(self) -> bool:
        return self._place()[1] == SMTPS_PORT

    async def send(self, to: str, subject: str, text: str) -> None:
        """Raises MailError."""
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._domain)  # otherwise it asks the name server who we are
        message.set_content(text)
        try:
            await self.post.run(self._append if self.to_file else self._deliver, message)
        except ssl.SSLError as error:
            advice = "If it is right, add the authority of its certificate to those that this machine trusts."
            raise MailError(f"mail host {self.host}: TLS: {error}. {advice}") from None
        except (OSError, smtplib.SMTPException, mailbox.Error, ValueError) as error:
            raise MailError(f"mail host {self.host}: {error}") from None

    def _append(self, message: EmailMessage) -> None:
        """Only the owner of the file may read the tokens."""
        os.close(os.open(self.host, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        box = mailbox.mbox(self.host)
        try:
            box.lock()
            box.add(message)
        finally:
            box.close()

    def _deliver(self, message: EmailMessage) -> None:
        host, port = self._place()
        # We give our name: otherwise smtplib asks the name server.
        if self.tls_at_once:
            context = ssl.create_default_context()
            made: smtplib.SMTP = smtplib.SMTP_SSL(host, port, self._domain, timeout=TIMEOUT, context=context)
        else:
            made = smtplib.SMTP(host, port, self._domain, timeout=TIMEOUT)
        with made as connection:
            if self.starttls and not self.tls_at_once:
                connection.starttls(context=ssl.create_default_context())
            if self.user:
                connection.login(self.user, self.password or "")
            connection.send_message(message)

    @property
    def _domain(self) -> str:
        """The domain of the sender, as which this machine introduces itself."""
        return self.sender.rpartition("@")[2] or "localhost"

    def _place(self) -> tuple[str, int]:
        """Host and port; 0: the default port. smtplib accepts HOST:PORT too, but expects all of it in the certificate.

        Raises ValueError.
        """
        host, separator, port = self.host.rpartition(":") if self.host.count(":") == 1 else (self.host, "", "")
        if separator and not (port.isascii() and port.isdecimal() and int(port) < 65536):
            raise ValueError(f"{port!r} is not a port")
        return host, int(port or 0)
