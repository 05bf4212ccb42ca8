"""How a node begins a session with the registry (wire.md 3.3)."""

from __future__ import annotations

from http import HTTPStatus

from re6st.core.limits.networks import neighbourhood
from re6st.core.wire import extensions, offers
from re6st.core.wire.offers import OfferError
from re6st.core.wire.rpc import UNKNOWN_HEADER
from re6st.registryd.call import Call, RpcError, read_claims, read_prefix
from re6st.registryd.hello import OtherKeyError
from re6st.registryd.parts import Parts
from re6st.registryd.repository import NotFound


class SessionCalls:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.resources.settings
        self._clock = parts.resources.clocks.wall

    async def hello(self, call: Call) -> bytes:
        prefix = read_prefix(call.arguments["client_prefix"])
        claims = read_claims(call)
        now, source = self._clock(), neighbourhood(call.source or "")
        if (answer := await self._parts.sessions.pending_answer(prefix, claims, source, now)) is not None:
            return answer
        try:
            certificate = await self._parts.certificate(prefix)
        except NotFound as error:
            if not claims.offer:
                raise
            self._parts.limit(call, self._parts.limits.hello)
            proof = {UNKNOWN_HEADER: self._parts.greeter.unknown(prefix, offers.decode(claims.offer))}
            raise RpcError(HTTPStatus.NOT_FOUND, str(error), proof) from None
        self._parts.limit(call, self._parts.limits.hello)
        if missing := self._settings.parameters.require - claims.extensions:
            cause = f"{prefix} lacks what this network requires: {extensions.text(missing)}"
            raise RpcError(HTTPStatus.UPGRADE_REQUIRED, cause)
        try:
            if claims.offer:
                greeting = self._parts.greeter.sealed(prefix, certificate, offers.decode(claims.offer))
            else:
                greeting = self._parts.greeter.plain(certificate)
        except OtherKeyError as error:
            raise RpcError(HTTPStatus.CONFLICT, str(error)) from None
        except OfferError as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None
        await self._parts.sessions.start(prefix, claims, source, greeting.keys, greeting.answer, now)
        return greeting.answer
