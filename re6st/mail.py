"""Mails of the registry: to a mail host, or appended to an mbox file (wire.md 11.3)."""

from __future__ import annotations

import asyncio
import mailbox
import os
import re
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import IPv6Network

TIMEOUT = 30.0
"""Seconds for each step of SMTP."""

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,189}", re.ASCII)


class MailError(Exception):
    """A mail that could not be sent; the text says why."""


def is_address(text: str) -> bool:
    """Whether this is an e-mail address that we would put into a header."""
    return _ADDRESS.fullmatch(text) is not None


def token_text(network: IPv6Network, token: str) -> str:
    """What somebody who asked for a token gets."""
    return (
        f"Hello,\n\nyour token to join the network {network} is\n\n    {token}\n\n"
        "It is good for one certificate. Give it to re6st-conf with --token, or when it asks for it.\n"
        "If you did not ask for it, ignore this mail.\n"
    )


@dataclass(frozen=True, slots=True)
class Mailer:
    """Sends from one address. `host` is HOST[:PORT], or the path of an mbox file (absolute, or one that exists)."""

    host: str
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = False

    async def send(self, to: str, subject: str, text: str) -> None:
        """Raises MailError."""
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid()
        message.set_content(text)
        to_file = os.path.isabs(self.host) or os.path.exists(self.host)
        try:
            await asyncio.to_thread(self._append if to_file else self._deliver, message)
        except ssl.SSLError as error:
            advice = "If it is right, add the authority of its certificate to those that this machine trusts."
            raise MailError(f"mail host {self.host}: TLS: {error}. {advice}") from None
        except (OSError, smtplib.SMTPException, mailbox.Error, ValueError) as error:
            raise MailError(f"mail host {self.host}: {error}") from None

    def _append(self, message: EmailMessage) -> None:
        """Tokens are for the owner of the file only."""
        os.close(os.open(self.host, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        box = mailbox.mbox(self.host)
        try:
            box.lock()
            box.add(message)
        finally:
            box.close()

    def _deliver(self, message: EmailMessage) -> None:
        # smtplib takes HOST:PORT too, but then looks for all of it in the certificate.
        host, separator, port = self.host.rpartition(":") if self.host.count(":") == 1 else (self.host, "", "")
        if separator and not port.isdecimal():
            raise ValueError(f"{port!r} is no port")
        with smtplib.SMTP(host, int(port or 0), timeout=TIMEOUT) as connection:
            if self.starttls:
                connection.starttls(context=ssl.create_default_context())
            if self.user:
                connection.login(self.user, self.password or "")
            connection.send_message(message)
