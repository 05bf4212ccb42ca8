"""The registry: its parts, and which of them carries out which call.

`Registry.call` carries out one call that api/http.py has read and admitted; registryd/calls/ has what each call does.
The state is in the repository; sessions are there only if several registries share it (registryd/call_sessions.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from re6st import cert
from re6st.client.blocking import RegistryClient as RegistryClient  # here programs of others look for it
from re6st.core.registry.allocator import AllocationError
from re6st.core.registry.clock import ClockError
from re6st.registryd.call import Call, RpcError
from re6st.registryd.calls.certificates import CertificateCalls
from re6st.registryd.calls.mesh import MeshCalls
from re6st.registryd.calls.parameters import ParameterCalls
from re6st.registryd.calls.sessions import SessionCalls
from re6st.registryd.calls.tokens import TokenCalls
from re6st.registryd.local_node import LocalNode
from re6st.registryd.parts import Beginning, Parts, beginning_of
from re6st.registryd.repository import Conflict, NotFound, RepositoryError
from re6st.registryd.resources import Resources


class Registry(Parts):
    @classmethod
    async def open(cls, resources: Resources, node: LocalNode) -> Registry:
        """The registry with the state of a repository. Raises RepositoryError."""
        return cls(resources, node, await beginning_of(resources))

    def __init__(self, resources: Resources, node: LocalNode, beginning: Beginning) -> None:
        """For `open`."""
        super().__init__(resources, node, beginning)
        self.tokens = TokenCalls(self)
        sessions, certificates = SessionCalls(self), CertificateCalls(self)
        parameters, mesh = ParameterCalls(self), MeshCalls(self)
        self._methods: Mapping[str, Callable[[Call], Awaitable[bytes | None]]] = {
            "hello": sessions.hello,
            "getCa": certificates.get_ca,
            "requestToken": self.tokens.request,
            "requestCertificate": certificates.request,
            "renewCertificate": certificates.renew,
            "rekeyCertificate": certificates.rekey,
            "revokeSuperseded": certificates.revoke_superseded,
            "presentCertificate": certificates.present,
            "getDh": parameters.get_dh,
            "getNetworkConfig": parameters.get,
            "getCountry": mesh.get_country,
            "getBootstrapPeer": mesh.get_bootstrap_peer,
            "addToken": self.tokens.add,
            "isToken": self.tokens.is_token,
            "deleteToken": self.tokens.delete,
            "revoke": certificates.revoke,
            "updateHMAC": parameters.update_hmac,
            "getNodePrefix": mesh.get_node_prefix,
            "getIPv6Address": mesh.get_ipv6_address,
            "getIPv4Information": mesh.get_ipv4_information,
            "versions": mesh.versions,
            "topology": mesh.topology,
        }

    async def call(self, call: Call) -> bytes | None:
        """The answer to a call; None: an answer without content. Raises RpcError, RepositoryError."""
        try:
            return await self._carry_out(call)
        except NotFound as error:
            raise RpcError(HTTPStatus.NOT_FOUND, str(error)) from None
        except Conflict as error:
            raise RpcError(HTTPStatus.CONFLICT, str(error)) from None
        except ClockError as error:
            raise RpcError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        except (AllocationError, cert.CertError) as error:
            raise RpcError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None

    async def _carry_out(self, call: Call) -> bytes | None:
        try:
            return await self._methods[call.method](call)
        except BaseException:
            if call.caller is not None and call.session is not None:
                with suppress(RepositoryError):
                    await self.sessions.refused(call.caller, call.session)
            raise
