"""Tokens, each of which is good for one certificate, or for several."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from http import HTTPStatus

from re6st.registryd.call import Call, RpcError, too_many
from re6st.registryd.events import EventKind
from re6st.registryd.mail import MailError, is_address, token_text
from re6st.registryd.parts import Parts
from re6st.registryd.repository import Changes, Conflict

TOKEN_LENGTH = 18
"""Number of letters: 84 bits. Shorter tokens that an operator gives are accepted, too."""


class TokenCalls:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._authority = parts.resources.authority
        self._repository = parts.resources.repository
        self._settings = parts.resources.settings
        self._clock = parts.resources.clocks.wall

    async def request(self, call: Call) -> None:
        email = call.text("email")
        mailer = self._settings.mailer
        if mailer is None or not self._settings.prefix_length:
            raise RpcError(HTTPStatus.FORBIDDEN, "this registry does not mail tokens")
        if not is_address(email):
            raise RpcError(HTTPStatus.BAD_REQUEST, "parameter email is not an e-mail address")
        if not self._parts.limits.mail(call.source, email, self._clock()):
            raise too_many(call)
        token = await self.new(email, self._settings.prefix_length)
        try:
            await mailer.send(email, "re6st: your token", token_text(self._authority.trust.network, token))
        except MailError as error:
            await self._repository.change(lambda changes: changes.delete_token(token))
            self._parts.events.note(EventKind.MAIL, f"no token for {email}: {error}")
            raise RpcError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
        self._parts.events.note(EventKind.MAIL, f"a token was sent to {email}")

    async def new(
        self, email: str, length: int, expires: float | None = None, uses: int = 1, tags: Sequence[str] = ()
    ) -> str:
        """Store a random token of letters, which nobody can guess; it is valid until `expires` (Unix time), for so many
        `uses`, and gives its nodes the tags.

        Raises RepositoryError, ClockError.
        """
        now = self._parts.parameter_service.now()

        def job(changes: Changes) -> str:
            while True:
                token = "".join(secrets.choice(string.ascii_lowercase) for _ in range(TOKEN_LENGTH))
                try:
                    changes.add_token(token, email, length, now, expires, uses=uses, tags=tags)
                except Conflict:
                    continue
                return token

        return await self._repository.change(job)

    async def add(self, call: Call) -> None:
        email, token = call.text("email"), call.text("token")
        if not self._settings.prefix_length:
            raise RpcError(HTTPStatus.FORBIDDEN, "this registry takes no tokens (--prefix-length 0)")
        length = self._settings.prefix_length
        now = self._parts.parameter_service.now()
        await self._repository.change(lambda changes: changes.add_token(token, email, length, now))

    async def is_token(self, call: Call) -> bytes | None:
        token, now = call.arguments["token"], self._parts.parameter_service.trusted_now()
        return b"1" if await self._repository.read(lambda queries: queries.token(token, now)) else None

    async def delete(self, call: Call) -> None:
        token = call.arguments["token"]
        await self._repository.change(lambda changes: changes.delete_token(token))
