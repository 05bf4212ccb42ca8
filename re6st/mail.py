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

TIMEOUT = 30.0
"""Seconds for each step of SMTP."""

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,189}", re.ASCII)


class MailError(Exception):
    """A mail that could not be sent; the text says why."""


def is_address(text: str) -> bool:
    """Whether this is an e-mail address that we would put into a header."""
    return _ADDRESS.fullmatch(text) is not None


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
        except (OSError, smtplib.SMTPException, mailbox.Error, ValueError) as error:
            raise MailError(f"mail host {self.host}: {error}") from None

    def _append(self, message: EmailMessage) -> None:
        box = mailbox.mbox(self.host)
        try:
            box.lock()
            box.add(message)
        finally:
            box.close()

    def _deliver(self, message: EmailMessage) -> None:
        with smtplib.SMTP(self.host, timeout=TIMEOUT) as connection:
            if self.starttls:
                connection.starttls(context=ssl.create_default_context())
            if self.user:
                connection.login(self.user, self.password or "")
            connection.send_message(message)
