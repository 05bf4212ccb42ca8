"""What the registry tells its nodes about the network."""

from __future__ import annotations

from functools import partial

from re6st import cert
from re6st.core.wire.params import version_number
from re6st.registryd.call import Call, caller_of
from re6st.registryd.events import EventKind
from re6st.registryd.parts import Parts


class ParameterCalls:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._repository = parts.resources.repository
        self._settings = parts.resources.settings

    async def get_dh(self, call: Call) -> bytes:
        return self._settings.dh

    async def get(self, call: Call) -> bytes:
        caller = caller_of(call)
        certificate = await self._parts.certificate(caller)
        version = await self._repository.read(lambda queries: queries.config("version"))
        self._parts.served.note(caller, version_number(version or b"\0"))
        return (await self._parts.parameter_service.encoder()).encode(partial(cert.encrypt, certificate))

    async def update_hmac(self, call: Call) -> None:
        await self._parts.parameter_service.rotate_keys()
        self._parts.events.note(EventKind.PARAMETERS, "the next step of changing babel's key")
